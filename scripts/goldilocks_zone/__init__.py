"""Curvature of neural network losses on random subspaces, and the Goldilocks zone.

Letters of array axes, used throughout: n examples, d directions of a subspace,
D parameters, i inputs, o outputs of a layer, k classes, r radii.
Importing a room imports nothing of it.
Radii are L2 norms of the parameter vector; r_X is the norm under Glorot initialisation.
"""
