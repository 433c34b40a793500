"""Closed forms of κ = Tr/‖·‖_F on planes: for random planes, random matrices and random logit gradients."""

from typing import TYPE_CHECKING, TypeVar

import numpy as np
from scipy import special

if TYPE_CHECKING:
    import xarray as xr

Values = TypeVar("Values", np.ndarray, "xr.DataArray")


def finite_dimension_law(
    kappa: "np.ndarray | float | xr.DataArray", dimension: np.ndarray | float
) -> "np.ndarray | float | xr.DataArray":
    """κ_d = √d κ/√(κ² + d + 1): the ratio Tr/‖·‖_F on a random plane of d = `dimension` with isotropic columns.

    κ = `kappa` is the ratio in full space. The law is a ratio of expected values, for d ≪ D. It follows from E[vᵀHv] =
    Tr(H)/D and Var[vᵀHv] = 2‖H‖²/D² for a random unit vector v.
    """
    return np.sqrt(dimension) * kappa / np.sqrt(kappa**2 + dimension + 1)


def null_bound(dimension: int) -> float:
    """97.5 % quantile of κ = Tr/‖·‖_F of d × d matrices of the Gaussian orthogonal ensemble, with d = `dimension`.

    κ is taken to be normal with mean 0 and standard deviation √(2/(d + 1)).
    """
    return float(special.ndtri(0.975) * np.sqrt(2 / (dimension + 1)))


def kappa_of_random_gradients(
    class_gradient: Values, example_gradient: Values, softmax_ratio: Values, dimension: int, form: str
) -> Values:
    """κ of the expected Gauss–Newton matrix on a plane, for random logit gradients (Vysogorets et al. 2024, result 5).

    The plane has d = `dimension` dimensions. The gradient of each logit is J = C + E: C is its mean over examples, and
    E the deviation of an example from it. Entries of C and E have the standard deviations σ_C = `class_gradient` and
    σ_E = `example_gradient`. `softmax_ratio` is Γ = Tr(M)/‖M‖_F, where M is the mean over examples of diag p − ppᵀ,
    with the softmax outputs p.

    Then κ = Tr/‖·‖_F is √d (σ_E² + σ_C²)/√(σ_E⁴ + 2σ_E²σ_C² + x). If `form` is "large", x is dσ_C⁴/Γ², which is valid
    for large d. If it is "finite", x is σ_C⁴ (1 + (d + 1)/Γ²), which is valid for any d.
    """
    shared, own = class_gradient**2, example_gradient**2
    last = dimension / softmax_ratio**2 if form == "large" else 1 + (dimension + 1) / softmax_ratio**2
    return np.sqrt(dimension) * (own + shared) / (own**2 + 2 * own * shared + shared**2 * last) ** 0.5
