"""How vectors lie to eigenvectors: captured shares, dimensions, and whether each is covered by one eigenvector.

Alignments (b, m) are the scalar products of b vectors of length one with m orthonormal eigenvectors.
"""

import math

import numpy as np
import xarray as xr

ROTATIONS = 100  # of which the mean specificity is the reference
SWEEPS = 500  # of varimax, at most
CLOSE = 0.05  # to the largest A² of a map, where a descent to it has converged


def captured(alignments: np.ndarray) -> np.ndarray:
    """E (m,): the mean share of the vectors' squares in the span of the first 1 … m eigenvectors."""
    return np.cumsum(np.square(alignments).mean(0))


def dimension(gram: np.ndarray, share: float = 0.9) -> int:
    """The number of principal directions that hold a `share` of the squares of vectors with the Gram matrix (b, b).

    Not centred, as the sign of each vector is arbitrary.
    """
    return held(np.linalg.eigvalsh((gram + gram.T) / 2)[::-1].clip(0), share)


def held(values: np.ndarray, share: float = 0.9) -> int:
    """How many of the `values` (m,), descending and not negative, make up a `share` of their sum; 0 if it is zero."""
    total = np.cumsum(values)
    return int(np.searchsorted(total, share * total[-1] * (1 - 1e-12)) + 1) if total[-1] > 0 else 0


def largest_gap(values: np.ndarray, most: int = 12) -> int:
    """The number 1 … `most` of eigenvalues (m,), descending and positive, above the largest gap of their logarithms."""
    return int(np.argmax(-np.diff(np.log(values[: most + 1])))) + 1 if len(values) > 1 else len(values)


def specificity(alignments: np.ndarray) -> float:
    """Σ_b max_i A²/Σ_b Σ_i A²: 1 where each vector, in their span, lies along a single eigenvector."""
    squares = np.square(alignments)
    return float(squares.max(1).sum() / squares.sum())


def specificity_index(alignments: np.ndarray, random: np.random.Generator) -> float:
    """(s − r)/(v − r), s the specificity of the eigenvectors, r the mean over random rotations inside their span, v
    that of the varimax rotation. NaN for less than two eigenvectors, and where no rotation does better than random.
    """
    count = alignments.shape[1]
    if count < 2:
        return math.nan
    rotated = [specificity(alignments @ _rotation(count, random)) for _ in range(ROTATIONS)]
    mean, best = float(np.mean(rotated)), specificity(varimax(alignments))
    return (specificity(alignments) - mean) / (best - mean) if best - mean > 1e-9 else math.nan


def varimax(alignments: np.ndarray) -> np.ndarray:
    """Alignments (b, m) with the rotation of the eigenvectors that maximises the variance of squares within columns,
    summed over them (Kaiser 1958, rows not normalised), found by ascent from the eigenvectors themselves.
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
    """A random orthogonal matrix, uniform by Haar's measure."""
    q, r = np.linalg.qr(random.standard_normal((count, count)))
    return q * np.sign(np.diag(r))


def converged(reached: xr.DataArray, maps: xr.DataArray) -> xr.DataArray:
    """Whether descents that `reached` A² (…) of the first eigenvector came close to the largest of its map.

    `maps` has A over axes map_x and map_y, and may have axes rank and softmax. There may be no point with A² = 1.
    """
    here = {name: place for name, place in {"rank": 1, "softmax": "temperature-1"}.items() if name in maps.dims}
    return reached > np.square(maps.sel(here, drop=True)).max(("map_x", "map_y")) - CLOSE
