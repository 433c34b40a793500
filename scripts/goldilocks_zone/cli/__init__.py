"""Commands for users: `python -m goldilocks_zone <command>`."""
