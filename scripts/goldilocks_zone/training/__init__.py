"""Training of ensembles of networks, restricted to subspaces."""
