"""Random planes x(w) = P + M w in parameter space: raw directions, metric, nested orthonormal columns.

Directions are the rows of an array (d, D). Raw directions are as drawn, not orthonormalised. The Cholesky factor of
their Gram matrix transforms a Hessian over raw directions into one over orthonormal directions. As the factor is
triangular, the first k orthonormal directions span the same subspace as the first k raw directions, whatever the
dimension d. Linear algebra uses torch, because a second BLAS would oversubscribe the cores.
"""

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from goldilocks_zone.randomness import stream
from goldilocks_zone.subspaces.labels import Plane, parse_plane

Rows = np.ndarray | Tensor | scipy.sparse.csr_array
METRICS = ("identity", "shell", "inverse_shell", "sigma")
COORDINATES_PER_BLOCK = 2**16
SPARSE_BELOW = 0.05  # share of non-zero entries below which sparse products are faster


def metric(
    sizes: list[int], is_bias: list[bool], deviations: list[float], kind: str, bias_directions: bool
) -> np.ndarray:
    """Diagonal metric η (D,) that multiplies the raw directions of a plane (Fort & Scherlis 2019).

    The first three arguments list properties of each parameter tensor: its number of entries, whether it is a bias, and
    the standard deviation σ of its initial entries. `kind` gives η for the weights of layer l. `identity`: η = 1.
    `shell`: η ∝ σ_l √size_l, the norm of weights with standard deviation σ_l. `inverse_shell`: η ∝ the inverse of this
    norm. `sigma`: η ∝ σ_l. η is scaled to mean square 1 over all weights. For biases, η is 1 with `bias_directions`.
    Without, it is 0, so that biases do not vary on the plane. Raises ValueError for any other `kind`.
    """
    if kind not in METRICS:
        raise ValueError(f"metric {kind!r} is unknown: use one of {', '.join(METRICS)}")
    values = []
    for size, bias, sigma in zip(sizes, is_bias, deviations):
        shell = sigma * np.sqrt(size)
        inverse = 1 / shell if shell else 0.0
        own = {"identity": 1.0, "shell": shell, "inverse_shell": inverse, "sigma": sigma}
        values.append(0.0 if bias else own[kind])
    eta, weights = np.repeat(values, sizes), ~np.repeat(is_bias, sizes)
    eta /= np.sqrt(np.mean(eta[weights] ** 2))
    if bias_directions:
        eta[~weights] = 1.0
    return eta


def directions(plane: Plane, eta: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Raw directions (d, D) of a plane, float64: the columns of a random matrix M, multiplied by η.

    The directions of a smaller plane from the same random stream are the first ones of a larger plane. Only the D′ rows
    of M where η is non-zero are drawn; the others are zero. In a `dense` M, entries are Gaussian with variance 1/D′. In
    a `sparse` M, each entry is non-zero with probability 1/√D′. If a column has n non-zero entries, these are ±1/√n
    with equal probability.
    """
    rows = directions_as_drawn(plane, eta, random)
    return rows if isinstance(rows, np.ndarray) else rows.toarray()


def random_plane(dimension: int, parameters: Tensor, kind: str = "dense", seed: int = 0) -> Tensor:
    """Raw directions (d, D) of a random `dense` or `sparse` plane through `parameters` (D,), in their precision.

    Each seed gives a different plane. Raises ValueError for any other kind, or a dimension below 1.
    """
    plane = parse_plane(f"plane-{dimension}-{kind}")
    rows = directions(plane, np.ones(len(parameters)), stream("random plane", seed))
    return torch.as_tensor(rows).to(parameters.detach())


def random_sparse_plane(dimension: int, size: int, seed: int = 0) -> scipy.sparse.csr_array:
    """Raw directions (d, D) of the `sparse` plane that `random_plane` draws, as a sparse matrix; D is `size`."""
    return sparse_directions(dimension, np.ones(size), stream("random plane", seed))


def directions_as_drawn(
    plane: Plane, eta: np.ndarray, random: np.random.Generator
) -> np.ndarray | scipy.sparse.csr_array:
    """Raw directions (d, D) of a plane, as from `directions`, but as a sparse matrix if the plane is `sparse`."""
    if plane.kind == "sparse":
        return sparse_directions(plane.dimension, eta, random)
    coordinates = np.flatnonzero(eta)
    rows = np.zeros((plane.dimension, eta.size))
    for row in rows:
        row[coordinates] = random.standard_normal(coordinates.size) / np.sqrt(coordinates.size)
    return rows * eta


def sparse_directions(dimension: int, eta: np.ndarray, random: np.random.Generator) -> scipy.sparse.csr_array:
    """Raw directions (d, D) of a `sparse` plane, as returned by `directions`, but as a sparse matrix.

    `eta` is the metric η (D,), by which they are multiplied.
    """
    coordinates = np.flatnonzero(eta)
    places, values = [], []
    for _ in range(dimension):
        count = max(1, random.binomial(coordinates.size, 1 / np.sqrt(coordinates.size)))
        places.append(random.choice(coordinates, count, replace=False))
        values.append(random.choice((-1.0, 1.0), count) / np.sqrt(count) * eta[places[-1]])
    starts = np.cumsum([0, *map(len, places)])
    return scipy.sparse.csr_array((np.concatenate(values), np.concatenate(places), starts), (dimension, eta.size))


def cholesky(raw_directions: Rows) -> np.ndarray:
    """Cholesky factor L (d, d) of the Gram matrix L Lᵀ of `raw_directions` (d, D): lower-triangular, float64.

    The Gram matrix of a tensor is computed on its device. Raises ValueError if a direction is zero or has an entry that
    is not finite, or if the directions are linearly dependent.
    """
    gram = _gram(raw_directions)
    for what, bad in (("not finite", ~np.isfinite(np.diag(gram))), ("zero", np.diag(gram) == 0)):
        if bad.any():
            raise ValueError(f"direction {np.flatnonzero(bad)[0]} of the plane is {what}: draw another direction")
    factor, failed = (each.numpy() for each in torch.linalg.cholesky_ex(torch.as_tensor(gram)))
    if failed or np.diag(factor).min() < 1e-6 * np.sqrt(np.diag(gram).min()):
        raise ValueError(
            f"the {len(gram)} directions of the plane are linearly dependent: "
            "ask for a plane of lower dimension or for dense directions"
        )
    return factor


def as_sparse(rows: np.ndarray) -> scipy.sparse.csr_array | None:
    """Sparse copy of the matrix `rows` in double precision, if a share below SPARSE_BELOW is non-zero; else None."""
    places, count = [], 0
    for row in rows:
        places.append(np.flatnonzero(row != 0))
        count += len(places[-1])
        if count >= SPARSE_BELOW * rows.size:
            return None
    values = np.concatenate([row[place] for row, place in zip(rows, places)], dtype=np.float64)
    return scipy.sparse.csr_array((values, np.concatenate(places), np.cumsum([0, *map(len, places)])), rows.shape)


def _gram(rows: Rows) -> np.ndarray:
    if isinstance(rows, scipy.sparse.csr_array):
        return (rows @ rows.T).toarray()  # pyright: ignore[reportAttributeAccessIssue]
    rows = torch.as_tensor(rows)
    gram = torch.zeros((len(rows),) * 2, dtype=torch.float64, device=rows.device)
    # In blocks: a double-precision copy of all directions may not fit.
    for block in rows.split(COORDINATES_PER_BLOCK, 1):
        block = block.double()
        gram += block @ block.T
    return gram.cpu().numpy()


def orthonormalised(matrix: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Transform a symmetric `matrix` A (d, d) from raw to orthonormal directions: L⁻¹ A L⁻ᵀ.

    A may be a Hessian over raw directions. `factor` is L as returned by `cholesky`.
    """
    lower = torch.as_tensor(factor)
    half = torch.linalg.solve_triangular(lower, torch.as_tensor(matrix), upper=False)
    full = torch.linalg.solve_triangular(lower, half.T, upper=False)
    return ((full + full.T) / 2).numpy()
