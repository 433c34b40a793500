"""Spectra of symmetric matrices that are given only by matrix–vector products, by Lanczos iteration.

A matrix A of size D is given as a function that takes vectors (m, D) in double precision and returns A times each row,
shape (m, D). Letters of array axes, in addition to those of the package: m probes, s steps, g points of a grid.
"""

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral

import numpy as np
from scipy.linalg import eigh_tridiagonal
from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh
from threadpoolctl import threadpool_limits

from goldilocks_zone.randomness import stream
from goldilocks_zone.spectra.summaries import standard_error

Products = Callable[[np.ndarray], np.ndarray]
Arrays = tuple[np.ndarray, np.ndarray]
ENDS = {"LA": "largest", "LM": "largest in magnitude", "SA": "smallest"}
PASSES = 2  # of classical Gram–Schmidt: two are enough (Giraud et al. 2005)
NOTHING = 1e-12  # of ‖A‖: a smaller remainder is rounding, and dropping it changes A by no more than this


@dataclass(frozen=True)
class Search:
    """Options of a search for eigenpairs.

    which: the end of the spectrum, "LA" for the largest, "LM" for the largest in magnitude, "SA" for the smallest.
    start: the starting vector (D,), by default random. tolerance: the search ends when each estimated
    |Au − λu| ≤ tolerance |λ|, which bounds the error of λ down to the precision of the products. restarts: maximum
    number of restarts. own_threads: True if `products` runs threads of its own, as torch does. numpy then uses a single
    thread, because more would take half of the processor time away from `products`. single: search in single precision,
    which halves the time and memory spent outside the products, for tolerances well above that precision of 1e-7.
    """

    which: str = "LA"
    start: np.ndarray | None = None
    tolerance: float = 1e-8
    restarts: int = 300
    own_threads: bool = False
    single: bool = False


def top_eigenpairs(products: Products, size: int, count: int, search: Search = Search()) -> Arrays:
    """The `count` eigenvalues λ of A at one end of its spectrum, descending, and orthonormal eigenvectors (D, count).

    `size` is D, and `search` selects the end. The method is implicitly restarted Lanczos (Lehoucq, Sorensen & Yang
    1998, ARPACK). It calls `products` with one vector at a time and keeps max(2 count + 1, 20) vectors in memory. A
    multiple eigenvalue may be found fewer times than its multiplicity: in exact arithmetic a Krylov space contains only
    one eigenvector of each eigenvalue.

    Raises ValueError if `count` is not between 1 and D − 1, `search.which` is unknown, `search.start` is zero, not
    finite or not of length D, a product is not finite, or the tolerance is not reached within the allowed restarts.
    """
    which, tolerance, restarts = search.which, search.tolerance, search.restarts
    if which not in ENDS:
        raise ValueError(f"end {which!r} of the spectrum is unknown: use one of {', '.join(ENDS)}")
    if not isinstance(count, Integral) or not 1 <= count < size:
        raise ValueError(
            f"{count} eigenpairs were asked for, but the matrix has size {size}: ask for 1 to {size - 1}, or compute "
            "all by a dense solver, such as numpy.linalg.eigh"
        )
    start = stream("start of a search").standard_normal(size) if search.start is None else np.asarray(search.start)
    if start.dtype.kind not in "fiu" or start.shape != (size,) or not np.isfinite(start).all() or not np.any(start):
        raise ValueError(
            f"the start of the search has the shape {start.shape} and type {start.dtype}: give a vector of {size} "
            "finite numbers that are not all zero"
        )
    kind = np.float32 if search.single else np.float64
    shape, multiply = (size, size), lambda v: _multiply(products, v.reshape(1, size))[0]
    matrix = LinearOperator(shape, multiply, dtype=kind)  # pyright: ignore[reportCallIssue]
    options = {"v0": np.array(start, dtype=kind), "tol": tolerance, "maxiter": restarts}
    try:
        with threadpool_limits(1 if search.own_threads else None, user_api="blas"):
            # ARPACK draws a new start from the generator if the first one spans too small an invariant subspace.
            values, vectors = eigsh(matrix, count, which=which, rng=stream("top eigenpairs"), **options)
    except ArpackError as error:
        raise ValueError(
            f"the {count} {ENDS[which]} eigenvalues did not converge to {tolerance:g} in {restarts} restarts "
            f"({error}): allow more restarts or a larger tolerance, and see that the matrix is not zero"
        ) from error
    order = np.argsort(values)[::-1]
    return values[order].astype(np.float64), vectors[:, order].astype(np.float64)


def lanczos(products: Products, probes: np.ndarray, steps: int) -> Arrays:
    """Ritz values θ, ascending, and weights w of the Gauss quadrature vᵀf(A)v/|v|² ≈ Σ_s w_s f(θ_s), each (m, s).

    Every row v of `probes` (m, D) starts its own Krylov space; each step calls `products` once for all probes. The
    quadrature is exact for polynomials f up to degree 2s − 1 (Golub & Meurant 2010, chapters 4 and 6): θ are the
    eigenvalues of the tridiagonal matrix T = QᵀAQ on an orthonormal basis Q of the Krylov space, and w are the squared
    first entries of its eigenvectors. Each row of weights sums to 1; Ritz values are in the units of A. Full
    reorthogonalisation avoids ghost copies and keeps 8 m s D bytes in memory.

    The Krylov space of a probe is exhausted after as many steps as there are distinct eigenspaces in which the probe
    has a component, at most D. Its Ritz values are then exact eigenvalues; the rest of the row is NaN, with weight 0.
    If rounding hides this early end, multiple eigenvalues may appear several times and share their weight, which leaves
    the quadrature unchanged.

    Raises ValueError if `steps` is below 1, there is no probe, a probe is zero or not finite, or a product is not
    finite or does not have the shape of the vectors.
    """
    probes = _unit(probes, steps)
    m, size = probes.shape
    longest = min(steps, size)
    basis = np.empty((m, longest, size))
    basis[:, 0] = probes
    diagonal, off_diagonal = np.zeros((2, m, longest))
    lengths, scale, active = np.full(m, longest), np.zeros(m), np.arange(m)
    for j in range(longest):
        for i, rest in zip(active, _multiply(products, basis[active, j])):
            known = basis[i, : j + 1]
            scale[i] = max(scale[i], np.linalg.norm(rest))
            diagonal[i, j] = known[j] @ rest
            for _ in range(PASSES):
                rest = rest - known.T @ (known @ rest)
            off_diagonal[i, j] = np.linalg.norm(rest)
            if off_diagonal[i, j] <= NOTHING * scale[i]:
                lengths[i] = j + 1
            elif j + 1 < longest:
                basis[i, j + 1] = rest / off_diagonal[i, j]
        active = active[lengths[active] > j + 1]
        if not active.size:
            break
    values, weights = np.full((m, steps), np.nan), np.zeros((m, steps))
    for i, length in enumerate(lengths):
        values[i, :length], vectors = eigh_tridiagonal(diagonal[i, :length], off_diagonal[i, : length - 1])
        weights[i, :length] = vectors[0] ** 2
    return values, weights


def _unit(probes: np.ndarray, steps: int) -> np.ndarray:
    probes = np.asarray(probes)
    if probes.ndim != 2 or probes.dtype.kind not in "fiu":
        raise ValueError(
            f"probes of shape {probes.shape} and type {probes.dtype} were given: give real rows in an array (m, D), "
            "one for each probe"
        )
    norms = np.linalg.norm(probes, axis=1, keepdims=True)
    if steps < 1 or not len(probes):
        raise ValueError(
            f"Lanczos needs at least one step and one probe, and {steps} and {len(probes)} were given: give more steps "
            "or probes"
        )
    if not (np.isfinite(norms) & (norms > 0)).all():
        raise ValueError("a probe is zero or not finite, so no Krylov space starts from it: draw probes at random")
    return probes / norms


@dataclass(frozen=True)
class Density:
    """Spectral density of a matrix A of size D by stochastic Lanczos quadrature, normalised to integrate to 1.

    values, weights: shape (m, s), one quadrature per probe, as returned by `lanczos`. Their mean over probes estimates
    the measure (1/D) Σ_i δ(λ − λ_i). Multiply by D for a trace or a count of eigenvalues.
    """

    values: np.ndarray
    weights: np.ndarray

    def moment(self, k: int) -> tuple[float, float]:
        """Unbiased estimate of Tr(Aᵏ)/D, the mean of λᵏ, and its standard error (NaN for one probe).

        Raises ValueError for k < 0, and for k > 2s − 1, where the quadrature is not exact.
        """
        exact = 2 * self.values.shape[1] - 1
        if not 0 <= k <= exact:
            raise ValueError(f"the quadrature gives moments 0 to {exact} and not {k}: take more steps")
        samples = np.nansum(self.weights * self.values**k, axis=1)
        return float(samples.mean()), float(standard_error(samples))

    def smoothed(self, grid: np.ndarray, width: float) -> tuple[np.ndarray, np.ndarray]:
        """Density convolved with a Gaussian, at `grid` (g,), and its standard errors over probes, each (g,).

        `width` is the standard deviation of the Gaussian in the units of A; choose it larger than the spacing of Ritz
        values. The density is per unit of A and integrates to 1. Raises ValueError if the width is not positive.
        """
        if not width > 0:
            raise ValueError(
                f"width {width} of the Gaussian kernel is not positive: give a number above zero, in units of the "
                "eigenvalues"
            )
        kernel = np.exp(-(((grid[:, None, None] - self.values) / width) ** 2) / 2) / (np.sqrt(2 * np.pi) * width)
        samples = np.nansum(kernel * self.weights, axis=2).T
        return samples.mean(axis=0), standard_error(samples)


def spectral_density(products: Products, probes: np.ndarray, steps: int) -> Density:
    """Spectral density of A from random `probes` (m, D), by `steps` Lanczos steps, each of which calls `products` once.

    Probes must have independent entries, standard normal or random signs, so that E vᵀf(A)v/|v|² = Tr f(A)/D
    (Golub & Meurant 2010, chapter 11; Ghorbani, Krishnan & Xiao 2019 for networks). Raises the errors of `lanczos`.
    """
    return Density(*lanczos(products, probes, steps))


def _multiply(products: Products, vectors: np.ndarray) -> np.ndarray:
    """Products (m, D) of A with the rows of `vectors` (m, D), computed by the function `products`.

    Raises ValueError if a product is complex, not finite or misshapen.
    """
    found = np.asarray(products(vectors))
    if found.dtype.kind == "c":
        raise ValueError("products of the matrix are complex: give a real symmetric one")
    found = found.astype(np.float64, copy=False)
    if found.shape != vectors.shape:
        raise ValueError(
            f"the function for matrix–vector products returned the shape {found.shape} for vectors of shape "
            f"{vectors.shape}: let it return one row for each vector"
        )
    if not np.isfinite(found).all():
        raise ValueError(
            "a product of the matrix with a vector is not finite: check the parameters at which it is computed"
        )
    return found
