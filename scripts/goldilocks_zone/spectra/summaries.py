"""Summaries of a projected Hessian: its spectrum on nested planes."""

from dataclasses import dataclass

import numpy as np

from goldilocks_zone.spectra import estimators


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
    """Ascending eigenvalues of the leading d × d block of a square, finite `hessian` for each d of `dimensions`."""
    hessian = estimators.as_real(hessian, "the Hessian", 2)
    if hessian.shape[0] != hessian.shape[1]:
        raise ValueError(f"the Hessian has the shape {hessian.shape}: give a square matrix")
    if not 0 < min(dimensions, default=1) <= max(dimensions, default=1) <= len(hessian):
        raise ValueError(f"dimensions {list(dimensions)} of a plane of {len(hessian)}: ask for 1 to {len(hessian)}")
    return [np.linalg.eigvalsh(hessian[:d, :d]) for d in dimensions]


def summarise(eigenvalues: np.ndarray) -> SpectrumSummary:
    """Measures of a symmetric matrix from all its eigenvalues, shape (d,). Raises ValueError unless they are finite."""
    eigenvalues = estimators.as_real(eigenvalues, "eigenvalues", 1)
    return SpectrumSummary(
        fraction_positive=float(np.mean(eigenvalues > 0)),
        trace=float(eigenvalues.sum()),
        frobenius_norm=float(np.linalg.norm(eigenvalues)),
        spectral_norm=float(np.abs(eigenvalues).max()),
    )


def effective_examples(total: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """n_eff = (Σt)²/Σt² from the sums of t ≥ 0 and of their squares: how many carry Σt; 0 if all vanish, or NaN."""
    return np.divide(total**2, squares, out=0 * squares, where=squares > 0)
