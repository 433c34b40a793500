"""Training of ensembles restricted to subspaces."""
