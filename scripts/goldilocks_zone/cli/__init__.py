"""Commands `python -m goldilocks_zone <command>`."""
