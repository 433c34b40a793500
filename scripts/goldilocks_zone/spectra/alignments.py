"""Alignment of vectors with eigenvectors: captured shares, dimensions, and how specific eigenvectors are to vectors.

Alignments (b, m) are the scalar products of b unit vectors with m orthonormal eigenvectors.
"""

import math

import numpy as np
import xarray as xr

ROTATIONS = 100  # random rotations whose mean specificity is the reference
SWEEPS = 500  # maximum for varimax
CLOSE = 0.05  # a descent has converged within this distance of the largest A² of its map


def captured(alignments: np.ndarray) -> np.ndarray:
    """E (m,): mean share of the vectors' squared norm in the span of the first 1 … m eigenvectors."""
    return np.cumsum(np.square(alignments).mean(0))


def dimension(gram: np.ndarray, share: float = 0.9) -> int:
    """Number of principal directions that hold a `share` of the squared norms of vectors with Gram matrix (b, b).

    The vectors are not centred, as their signs are arbitrary.
    """
    return held(np.linalg.eigvalsh((gram + gram.T) / 2)[::-1].clip(0), share)


def held(values: np.ndarray, share: float = 0.9) -> int:
    """Number of leading `values` (m,), descending and non-negative, that hold a `share` of the sum; 0 if it is zero."""
    total = np.cumsum(values)
    return int(np.searchsorted(total, share * total[-1] * (1 - 1e-12)) + 1) if total[-1] > 0 else 0


def largest_gap(values: np.ndarray, most: int = 12) -> int:
    """Number, 1 to `most`, of eigenvalues (m,), descending and positive, above the largest gap of their logarithms."""
    return int(np.argmax(-np.diff(np.log(values[: most + 1])))) + 1 if len(values) > 1 else len(values)


def specificity(alignments: np.ndarray) -> float:
    """Σ_b max_i A²/Σ_b Σ_i A²: 1 if each vector, projected on the span, lies along a single eigenvector."""
    squares = np.square(alignments)
    return float(squares.max(1).sum() / squares.sum())


def specificity_index(alignments: np.ndarray, random: np.random.Generator) -> float:
    """(s − r)/(v − r): the specificity s of the eigenvectors relative to rotations within their span.

    r is the mean specificity of random rotations, v the specificity of the varimax rotation. NaN for fewer than two
    eigenvectors, and if varimax does no better than random rotations.
    """
    count = alignments.shape[1]
    if count < 2:
        return math.nan
    rotated = [specificity(alignments @ _rotation(count, random)) for _ in range(ROTATIONS)]
    mean, best = float(np.mean(rotated)), specificity(varimax(alignments))
    return (specificity(alignments) - mean) / (best - mean) if best - mean > 1e-9 else math.nan


def varimax(alignments: np.ndarray) -> np.ndarray:
    """Alignments (b, m) after the varimax rotation of the eigenvectors (Kaiser 1958, rows not normalised).

    The rotation maximises the variance of squares within columns, summed over columns, by ascent from the identity.
    """
    rotation, reached = np.eye(alignments.shape[1]), -math.inf
    for _ in range(SWEEPS):
        rotated = alignments @ rotation
        squares = np.square(rotated)
        value = float(squares.var(0).sum())
        if value <= reached * (1 + 1e-12):
            break
        reached = value
        left, _, right = np.linalg.svd(alignments.T @ (rotated * (squares - squares.mean(0))))
        rotation = left @ right
    return alignments @ rotation


def _rotation(count: int, random: np.random.Generator) -> np.ndarray:
    """Random orthogonal matrix, uniform with respect to the Haar measure."""
    q, r = np.linalg.qr(random.standard_normal((count, count)))
    return q * np.sign(np.diag(r))


def converged(reached: xr.DataArray, maps: xr.DataArray) -> xr.DataArray:
    """Mask (…) of the descents whose `reached` A² with the first eigenvector is within CLOSE of the map's maximum.

    `maps` holds A over the axes map_x and map_y, and possibly over rank and softmax. The maximum of the map is the
    reference because there may be no point with A² = 1.
    """
    here = {name: place for name, place in {"rank": 1, "softmax": "temperature-1"}.items() if name in maps.dims}
    return reached > np.square(maps.sel(here, drop=True)).max(("map_x", "map_y")) - CLOSE
