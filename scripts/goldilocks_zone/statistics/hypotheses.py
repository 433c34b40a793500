"""Adjustment of p-values over several tests."""

import numpy as np


def holm(p_values: np.ndarray) -> np.ndarray:
    """Holm's step-down adjustment of p-values, shape (m,)."""
    order = np.argsort(p_values)
    m = len(p_values)
    adjusted = np.maximum.accumulate(np.asarray(p_values)[order] * (m - np.arange(m)))
    result = np.empty(m)
    result[order] = np.minimum(adjusted, 1.0)
    return result
