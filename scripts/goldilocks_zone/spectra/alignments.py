"""Alignment of vectors, such as normals of the decision boundary, with the eigenvectors of a matrix.

Alignments A (b, m) are the scalar products of b unit vectors with m orthonormal eigenvectors. Eigenvectors are called
specific if each vector lies along a single one of them.
"""

import math

import numpy as np
import xarray as xr

ROTATIONS = 100  # random rotations whose mean specificity is the reference
SWEEPS = 500  # maximum number of iterations of varimax
CLOSE = 0.05  # a descent counts as converged if its A² is less than this below the maximum of its map


def captured(alignments: np.ndarray) -> np.ndarray:
    """Shares (m,) of b unit vectors that lie in the span of the leading eigenvectors, from `alignments` (b, m).

    The i-th entry, from 1, is the share of a vector's squared norm that lies in the span of the first i eigenvectors,
    averaged over vectors.
    """
    return np.cumsum(np.square(alignments).mean(0))


def dimension(gram: np.ndarray, share: float = 0.9) -> int:
    """Smallest number of principal directions of b vectors that hold a `share` of the sum of their squared norms.

    `gram` (b, b) is the Gram matrix of the vectors. They are not centred, because their signs are arbitrary.
    """
    return held(np.linalg.eigvalsh((gram + gram.T) / 2)[::-1].clip(0), share)


def held(values: np.ndarray, share: float = 0.9) -> int:
    """Smallest number of leading `values` (m,) that add up to a `share` of the sum of all; 0 if this sum is zero.

    The values must be non-negative and in descending order.
    """
    total = np.cumsum(values)
    return int(np.searchsorted(total, share * total[-1] * (1 - 1e-12)) + 1) if total[-1] > 0 else 0


def largest_gap(values: np.ndarray, most: int = 12) -> int:
    """Number of eigenvalues before the largest drop of log λ from one eigenvalue to the next, at most `most`.

    The eigenvalues `values` (m,) must be positive and in descending order. With fewer than two, there is no drop, and
    the result is m.
    """
    return int(np.argmax(-np.diff(np.log(values[: most + 1])))) + 1 if len(values) > 1 else len(values)


def specificity(alignments: np.ndarray) -> float:
    """Specificity Σ_b max_i A_bi²/Σ_b Σ_i A_bi² of the eigenvectors, from alignments A (b, m).

    It is 1 if the projection of each vector on the span of the eigenvectors lies along a single eigenvector.
    """
    squares = np.square(alignments)
    return float(squares.max(1).sum() / squares.sum())


def specificity_index(alignments: np.ndarray, random: np.random.Generator) -> float:
    """Specificity index (s − r)/(v − r): compares the eigenvectors with rotated bases of the space that they span.

    s is the specificity of the eigenvectors, computed from `alignments` (b, m). r is the mean specificity of ROTATIONS
    random rotations of the eigenvectors, drawn by the generator `random`. v is the specificity of their varimax
    rotation. NaN for fewer than two eigenvectors, and if varimax does no better than random rotations.
    """
    count = alignments.shape[1]
    if count < 2:
        return math.nan
    rotated = [specificity(alignments @ _rotation(count, random)) for _ in range(ROTATIONS)]
    mean, best = float(np.mean(rotated)), specificity(varimax(alignments))
    return (specificity(alignments) - mean) / (best - mean) if best - mean > 1e-9 else math.nan


def varimax(alignments: np.ndarray) -> np.ndarray:
    """Rotate the m eigenvectors by varimax (Kaiser 1958, rows not normalised), and return the new alignments (b, m).

    `alignments` (b, m) are those before the rotation. The rotation maximises the variance of the squared entries of a
    column, summed over columns, by ascent from the identity.
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
    """Orthogonal matrix (count, count), drawn by the generator `random` from the Haar measure."""
    q, r = np.linalg.qr(random.standard_normal((count, count)))
    return q * np.sign(np.diag(r))


def converged(reached: xr.DataArray, maps: xr.DataArray) -> xr.DataArray:
    """Mask (…) of the descents that converged, in the margin estimate of Sabanayagam et al. (2023).

    Each descent moves an input so as to minimise (A² − 1)², where A is the alignment of the first eigenvector with the
    gradient at this input (see `curvature.margin_estimate`). `reached` (…) is A² at the ends of the descents. `maps`
    holds A on a grid of inputs, over the axes map_x and map_y, for each network; of its axes rank and softmax, if it
    has them, rank 1 and temperature 1 are used.

    A descent converged if its A² is less than CLOSE below the maximum of A² over the map of its network. This maximum
    is the reference because there may be no point with A² = 1.
    """
    here = {name: place for name, place in {"rank": 1, "softmax": "temperature-1"}.items() if name in maps.dims}
    return reached > (maps.sel(here, drop=True) ** 2).max(("map_x", "map_y")) - CLOSE
