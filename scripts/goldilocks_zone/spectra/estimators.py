"""Estimators of traces from random probes."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ProbeEstimates:
    """Trace and Frobenius norm of a matrix, each with its standard error over probes (NaN for one probe)."""

    trace: float
    trace_error: float
    frobenius_norm: float
    frobenius_norm_error: float


def hutchinson(probes: np.ndarray, products: np.ndarray) -> ProbeEstimates:
    """Estimates of Tr A and ‖A‖_F from m independent probes v and products Av, both of shape (m, D).

    The probes' entries are independent with mean 0 and variance 1: E vᵀAv = Tr A (Hutchinson 1990) and
    E|Av|² = ‖A‖_F². The norm is the root of the mean of |Av|², too small by ε²/2 of its value for a relative error ε,
    which the delta method gives: se(√S) = se(S)/(2√S). Raises ValueError unless both have one shape and are finite.
    """
    probes, products = as_real(probes, "probes", 2), as_real(products, "products", 2)
    if probes.shape != products.shape:
        raise ValueError(f"probes have the shape {probes.shape} and products {products.shape}: give one for each other")
    traces = np.einsum("md,md->m", probes, products)
    squares = np.einsum("md,md->m", products, products)
    norm, error = np.sqrt(squares.mean()), standard_error(squares)
    return ProbeEstimates(
        trace=float(traces.mean()),
        trace_error=float(standard_error(traces)),
        frobenius_norm=float(norm),
        frobenius_norm_error=float(error / (2 * norm) if norm else error),
    )


def as_real(given: np.ndarray, name: str, axes: int) -> np.ndarray:
    found = np.asarray(given)
    if found.ndim != axes or not found.size or found.dtype.kind not in "fiu":
        raise ValueError(
            f"{name} of shape {found.shape} and type {found.dtype} were given: give real numbers with {axes} axes"
        )
    if not np.isfinite(found).all():
        raise ValueError(f"entries of {name} are not finite: check the point where they were taken")
    return found


def standard_error(samples: np.ndarray) -> np.ndarray:
    """Standard error of the mean over axis 0, the probes; NaN for a single probe, which tells nothing of its spread."""
    if len(samples) < 2:
        return np.full(samples.shape[1:], np.nan)
    return samples.std(axis=0, ddof=1) / np.sqrt(len(samples))
