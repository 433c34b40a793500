"""Commands for people: `python -m goldilocks_zone <command>`."""
