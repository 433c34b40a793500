"""What is read off a Hessian: its spectrum on nested planes, and full-space traces from random probes."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class SpectrumSummary:
    """Measures of one projected Hessian H_d (Fort & Scherlis 2019)."""

    fraction_positive: float
    trace: float
    frobenius_norm: float
    spectral_norm: float

    @property
    def trace_over_norm(self) -> float:
        """Excess positive curvature κ = Tr(H)/‖H‖_F, at most √d; 0 for the zero matrix."""
        return self.trace / self.frobenius_norm if self.frobenius_norm else 0.0


def nested_eigenvalues(hessian: np.ndarray, dimensions: list[int]) -> list[np.ndarray]:
    """Ascending eigenvalues of the leading d × d block of `hessian` for each d of `dimensions`."""
    return [np.linalg.eigvalsh(hessian[:d, :d]) for d in dimensions]


def summarise(eigenvalues: np.ndarray) -> SpectrumSummary:
    """Measures of a symmetric matrix from all its eigenvalues, shape (d,)."""
    return SpectrumSummary(
        fraction_positive=float(np.mean(eigenvalues > 0)),
        trace=float(eigenvalues.sum()),
        frobenius_norm=float(np.linalg.norm(eigenvalues)),
        spectral_norm=float(np.abs(eigenvalues).max()),
    )


def hutchinson(probes: np.ndarray, products: np.ndarray) -> tuple[float, float]:
    """Unbiased estimates of Tr A and ‖A‖_F² from probes v and products Av, both of shape (m, D).

    The probes' entries are independent with mean 0 and variance 1: E vᵀAv = Tr A, E|Av|² = ‖A‖_F².
    """
    traces = np.einsum("md,md->m", probes, products)
    squares = np.einsum("md,md->m", products, products)
    return float(traces.mean()), float(squares.mean())


def effective_examples(traces: np.ndarray) -> np.ndarray:
    """n_eff = (Σt)²/Σt² over the last axis: how many examples carry a sum of non-negative t; 0 if all vanish."""
    squares = (traces**2).sum(-1)
    return np.divide(traces.sum(-1) ** 2, squares, out=np.zeros_like(squares), where=squares > 0)


def finite_dimension_law(kappa: np.ndarray | float, dimension: np.ndarray | float) -> np.ndarray | float:
    """κ_d = √d κ/√(κ² + d + 1): Tr/‖·‖ on a random d-plane of isotropic columns from the full-space ratio κ.

    A ratio of expectations for d ≪ D, from E[vᵀHv] = Tr(H)/D and Var[vᵀHv] = 2‖H‖²/D².
    """
    return np.sqrt(dimension) * kappa / np.sqrt(kappa**2 + dimension + 1)
