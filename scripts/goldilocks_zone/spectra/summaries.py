"""Summaries of symmetric matrices, from eigenvalues of projected Hessians or from products with random probes."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class SpectrumSummary:
    """Summary of the spectrum of a projected Hessian H (d, d) (Fort & Scherlis 2019).

    fraction_positive: share of eigenvalues above zero. spectral_norm: largest magnitude of an eigenvalue.
    """

    fraction_positive: float
    trace: float
    frobenius_norm: float
    spectral_norm: float

    @property
    def trace_over_norm(self) -> float:
        """Excess positive curvature κ = Tr(H)/‖H‖_F, at most √d; 0 for the zero matrix."""
        return self.trace / self.frobenius_norm if self.frobenius_norm else 0.0


def nested_eigenvalues(hessian: np.ndarray, dimensions: list[int]) -> list[np.ndarray]:
    """Ascending eigenvalues of the leading d × d block of `hessian`, for each d in `dimensions`.

    Raises ValueError unless `hessian` is real, square and finite, and every d is between 1 and its number of rows.
    """
    hessian = _as_real(hessian, "the Hessian", 2)
    if hessian.shape[0] != hessian.shape[1]:
        raise ValueError(f"the Hessian has the shape {hessian.shape}: give a square matrix")
    if not 0 < min(dimensions, default=1) <= max(dimensions, default=1) <= len(hessian):
        raise ValueError(
            f"dimensions {list(dimensions)} do not fit a plane of {len(hessian)}: ask for 1 to {len(hessian)}"
        )
    return [np.linalg.eigvalsh(hessian[:d, :d]) for d in dimensions]


def summarise(eigenvalues: np.ndarray) -> SpectrumSummary:
    """Summary of a symmetric matrix from all its eigenvalues, shape (d,). Raises ValueError unless they are finite."""
    eigenvalues = _as_real(eigenvalues, "eigenvalues", 1)
    share, norms = np.mean(eigenvalues > 0), (np.linalg.norm(eigenvalues), np.abs(eigenvalues).max())
    return SpectrumSummary(*map(float, (share, eigenvalues.sum(), *norms)))


def effective_examples(total: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """Effective number (Σt)²/Σt² of examples that have weights t ≥ 0; 0 where all weights vanish.

    `total` holds the sums Σt and `squares` the sums Σt². The result has the shape of these arrays.
    """
    return np.divide(total**2, squares, out=0 * squares, where=squares > 0)


@dataclass(frozen=True)
class ProbeEstimates:
    """Trace and Frobenius norm of a matrix, each with its standard error over probes (NaN for one probe)."""

    trace: float
    trace_error: float
    frobenius_norm: float
    frobenius_norm_error: float


def hutchinson(probes: np.ndarray, products: np.ndarray) -> ProbeEstimates:
    """Estimates of Tr A and ‖A‖_F from m independent probes v and products Av, both of shape (m, D).

    The entries of the probes must be independent with mean 0 and variance 1: E vᵀAv = Tr A (Hutchinson 1990) and
    E|Av|² = ‖A‖_F². The norm is √S, where S is the mean of |Av|². Its standard error follows from the delta method:
    se(√S) = se(S)/(2√S). If the relative standard error of the norm is ε, the norm is biased low by a fraction ε²/2.
    Raises ValueError unless `probes` and `products` have the same shape and are finite.
    """
    probes, products = _as_real(probes, "probes", 2), _as_real(products, "products", 2)
    if probes.shape != products.shape:
        raise ValueError(
            f"probes have the shape {probes.shape} and products {products.shape}: give one product for each probe"
        )
    traces = np.einsum("md,md->m", probes, products)
    squares = np.einsum("md,md->m", products, products)
    norm, error = np.sqrt(squares.mean()), standard_error(squares)
    error = error / (2 * norm) if norm else error
    return ProbeEstimates(*map(float, (traces.mean(), standard_error(traces), norm, error)))


def _as_real(given: np.ndarray, name: str, axes: int) -> np.ndarray:
    found = np.asarray(given)
    if found.ndim != axes or not found.size or found.dtype.kind not in "fiu":
        raise ValueError(
            f"{name} of shape {found.shape} and type {found.dtype} cannot be used: give real numbers with {axes} axes"
        )
    if not np.isfinite(found).all():
        raise ValueError(f"entries of {name} are not finite: check the parameters at which they were computed")
    return found


def standard_error(samples: np.ndarray) -> np.ndarray:
    """Standard error of the mean of `samples` (m, …) over axis 0; NaN for a single sample, whose spread is unknown."""
    if len(samples) < 2:
        return np.full(samples.shape[1:], np.nan)
    return samples.std(axis=0, ddof=1) / np.sqrt(len(samples))
