"""Figures on the Hessian and the decision boundary (Sabanayagam et al. 2023)."""
