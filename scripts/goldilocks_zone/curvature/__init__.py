"""Derivatives of the loss: Hessians on subspaces, products in full space, gradients, slices."""
