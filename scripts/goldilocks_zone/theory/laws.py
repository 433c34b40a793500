"""Closed forms for planes and random gradients."""

import numpy as np


def finite_dimension_law(kappa: np.ndarray | float, dimension: np.ndarray | float) -> np.ndarray | float:
    """κ_d = √d κ/√(κ² + d + 1): Tr/‖·‖ on a random d-plane of isotropic columns from the full-space ratio κ.

    A ratio of expectations for d ≪ D, from E[vᵀHv] = Tr(H)/D and Var[vᵀHv] = 2‖H‖²/D².
    """
    return np.sqrt(dimension) * kappa / np.sqrt(kappa**2 + dimension + 1)
