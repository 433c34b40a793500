"""Samples of the random model of gradients and curvature of Fort & Ganguli (2019), and its laws at uniform outputs.

S_μ and r^μ have no component along (1, …, 1), so that only the C − 1 columns of each J^μ orthogonal to it matter. These
are Gaussian and independent except for the part that examples share. The inner products of M = (N + 1)(C − 1)
independent Gaussian columns of length D have the distribution of those of the rows of a lower-triangular matrix B
(Bartlett 1933), so that no array has the size of D. Vectors in the space of weights are given in the orthonormal basis
of D-vectors in which the columns' coordinates are B.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from goldilocks_zone.spectra import lanczos
from goldilocks_zone.theory import random_model
from goldilocks_zone.theory.random_model import curvatures

Labels = Literal["independent", "from_model", "balanced"]
ROWS_PER_BLOCK = 1000
TRACY_WIDOM_MEAN = -1.2065335745820  # of the largest eigenvalue of real matrices
TOLERANCE = {np.dtype(np.float32): 1e-5, np.dtype(np.float64): 1e-10}


@dataclass(frozen=True)
class Sample:
    """One draw of the model.

    eigenvalues: the largest of G, descending (m,); powers: shares of |g|² along their eigenvectors (m,); trace of G;
    gradient_norm: |g|.
    """

    eigenvalues: np.ndarray
    powers: np.ndarray
    trace: float
    gradient_norm: float


class Factor:
    """B (M, min(M, D)), lower-triangular: B Bᵀ has the distribution of XᵀX for X (D, M) with standard normal entries.

    Stored in `blocks` of rows, without the zeros at their ends; each block consists of whole groups of `together` rows.
    """

    def __init__(
        self, rows: int, freedom: int, random: np.random.Generator, dtype: type = np.float64, together: int = 1
    ):
        self.shape = rows, min(rows, freedom)
        self.blocks: list[np.ndarray] = []
        step = max(1, ROWS_PER_BLOCK // together) * together
        for start in range(0, rows, step):
            stop = min(start + step, rows)
            block = random.standard_normal((stop - start, min(stop, freedom)), dtype=dtype)
            places = np.arange(start, min(stop, freedom))
            block[:, start:][np.triu_indices(stop - start, 1, block.shape[1] - start)] = 0
            block[places - start, places] = np.sqrt(random.chisquare(freedom - places))
            self.blocks.append(block)

    def dense(self) -> np.ndarray:
        """B as one array."""
        return np.concatenate([np.pad(block, ((0, 0), (0, self.shape[1] - block.shape[1]))) for block in self.blocks])

    def forward(self, vector: np.ndarray) -> np.ndarray:
        """B v."""
        return np.concatenate([block @ vector[: block.shape[1]] for block in self.blocks])

    def transposed(self, vector: np.ndarray) -> np.ndarray:
        """Bᵀ v."""
        found, start = np.zeros(self.shape[1], self.blocks[0].dtype), 0
        for block in self.blocks:
            found[: block.shape[1]] += vector[start : start + len(block)] @ block
            start += len(block)
        return found


class Draw:
    """One draw of c and E, as a `factor` of (N + 1)(C − 1) rows: those of c come first."""

    def __init__(self, outputs: np.ndarray, weights: int, cluster: float, noise: float, factor: Factor):
        self.outputs, self.weights, self.cluster, self.noise, self.factor = outputs, weights, cluster, noise, factor
        self.across = across_ones(outputs.shape[1])
        dtype = factor.blocks[0].dtype
        self._p, self._basis = outputs.astype(dtype), self.across.astype(dtype)

    @classmethod
    def at_random(
        cls,
        outputs: np.ndarray,
        weights: int,
        cluster: float,
        noise: float,
        random: np.random.Generator,
        dtype: type = np.float64,
    ) -> "Draw":
        """Sample a draw for `outputs` p (n, k), D `weights`, `cluster` σ_c and `noise` σ_E."""
        n, classes = outputs.shape
        return cls(
            outputs, weights, cluster, noise, Factor((n + 1) * (classes - 1), weights, random, dtype, classes - 1)
        )

    def pushed(self, vector: np.ndarray) -> np.ndarray:
        """Jᵀ v (n, k), without its component along (1, …, 1), for a vector v in the space of weights."""
        shared, own = np.split(self.factor.forward(vector).reshape(-1, self._basis.shape[1]), [1])
        return (self.cluster * shared + self.noise * own) @ self._basis.T

    def pulled(self, cotangents: np.ndarray) -> np.ndarray:
        """J x, in the space of weights, for x (n, k) without a component along (1, …, 1)."""
        inside = cotangents.astype(self._p.dtype) @ self._basis
        rows = np.concatenate([self.cluster * inside.sum(0, keepdims=True), self.noise * inside])
        return self.factor.transposed(rows.ravel())

    def gradient(self, residuals: np.ndarray) -> np.ndarray:
        """g for residuals p − y (n, k)."""
        return self.pulled(residuals / len(residuals))

    def products(self, vector: np.ndarray) -> np.ndarray:
        """G v."""
        moved = self._p * self.pushed(vector)
        return self.pulled((moved - self._p * moved.sum(1, keepdims=True)) / len(moved))

    def trace(self) -> float:
        """Tr G."""
        width = self.across.shape[1]
        parts = self.across.T @ curvatures(self.outputs) @ self.across
        shared = self.cluster * self.factor.blocks[0][:width, :width].astype(np.float64)
        grams = []
        for block in self.factor.blocks:
            own = self.noise * block.astype(np.float64).reshape(-1, width, block.shape[1])
            own[..., : shared.shape[1]] += shared
            grams.append(own @ own.transpose(0, 2, 1))
        # The first rows are those of c, of no example.
        return float(np.einsum("nab,nab->", parts, np.concatenate(grams)[1:]) / len(parts))


def sample(draw: Draw, residuals: np.ndarray, count: int, random: np.random.Generator) -> Sample:
    """Sample the `count` largest eigenvalues of G, and the gradient's powers along their eigenvectors.

    Raises ValueError as `lanczos.top_eigenpairs` does.
    """
    size, dtype = draw.factor.shape[1], draw.factor.blocks[0].dtype

    def products(vectors: np.ndarray) -> np.ndarray:
        return np.stack([draw.products(vector.astype(dtype)) for vector in vectors])

    search = lanczos.Search(start=random.standard_normal(size), tolerance=TOLERANCE[dtype])
    values, vectors = lanczos.top_eigenpairs(products, size, count, search)
    gradient = draw.gradient(residuals).astype(np.float64)
    square = gradient @ gradient
    return Sample(
        eigenvalues=values,
        powers=np.square(gradient @ vectors) / square,
        trace=draw.trace(),
        gradient_norm=float(np.sqrt(square)),
    )


def across_ones(classes: int) -> np.ndarray:
    """Orthonormal columns (k, k − 1) that span the complement of (1, …, 1)."""
    basis = np.tril(np.full((classes, classes - 1), 0.0))
    for j in range(classes - 1):
        basis[: j + 1, j], basis[j + 1, j] = 1.0, -(j + 1.0)
    return basis / np.linalg.norm(basis, axis=0)


def bulk_edge(examples: float, classes: float, weights: float, noise: float) -> float:
    """Upper edge of the bulk at uniform p, in the limit of large sizes: σ_E² (√(N(C − 1)) + √D)²/(N C)."""
    return noise**2 * (np.sqrt(examples * (classes - 1)) + np.sqrt(weights)) ** 2 / (examples * classes)


def largest_of_bulk(examples: float, classes: float, weights: float, noise: float) -> float:
    """Mean of the largest eigenvalue without clusters at uniform p: the edge, shifted by the Tracy–Widom mean.

    Centring and scale are those of Johnstone (2001) for the largest eigenvalue of real Wishart matrices.
    """
    one, other = np.sqrt(weights - 1), np.sqrt(examples * (classes - 1))
    scale = (one + other) * (1 / one + 1 / other) ** (1 / 3)
    return noise**2 * ((one + other) ** 2 + TRACY_WIDOM_MEAN * scale) / (examples * classes)


def mean_outlier(examples: float, classes: float, weights: float, cluster: float, noise: float) -> float:
    """Mean of the C − 1 outliers at uniform p, above the threshold: (s² + nσ_E²)(s² + Dσ_E²)/(s² N C).

    Here, s² = N D σ_c² and n = N(C − 1).
    """
    signal, columns = examples * weights * cluster**2, examples * (classes - 1)
    product = (signal + columns * noise**2) * (signal + weights * noise**2)
    return product / (signal * examples * classes)


def threshold(examples: float, classes: float, weights: float) -> float:
    """(σ_c/σ_E)² above which the C − 1 outliers leave the bulk at uniform p: √((C − 1)/(N D))."""
    return np.sqrt((classes - 1) / (examples * weights))


def one_hot_labels(outputs: np.ndarray, kind: Labels, random: np.random.Generator) -> np.ndarray:
    """Draw one-hot labels (n, k) for `outputs` (n, k).

    `kind`: `independent` and uniform, `from_model`, drawn from the outputs, or exactly `balanced`. Raises ValueError if
    n is no multiple of k for balanced labels, or the kind is unknown.
    """
    n, classes = outputs.shape
    if kind == "independent":
        return random_model.one_hot_labels(outputs, random)
    if kind == "from_model":
        below = outputs.cumsum(1)[:, :-1] < random.random((n, 1))
        drawn = below.sum(1)
    elif kind == "balanced":
        if n % classes:
            raise ValueError(f"{n} examples cannot be shared evenly by {classes} classes: choose a multiple")
        drawn = random.permutation(np.arange(n) % classes)
    else:
        raise ValueError(f"labels {kind!r} are unknown: use independent, from_model or balanced")
    return np.eye(classes)[drawn]


def power(outputs: np.ndarray, cluster: float, noise: float, residuals: np.ndarray, labels: Labels) -> float:
    """Expected share of |g|² in the span of the cluster centres, by `random_model.power` unless labels are balanced.

    For balanced labels, it is σ_c² V/(σ_c² V + σ_E² E|p − y|²) with V = Σ_k Var p_k.
    """
    if labels != "balanced":
        return random_model.power(cluster, noise, residuals)
    own, shared = np.square(residuals).sum(-1).mean(-1), outputs.var(-2).sum(-1)
    return cluster**2 * shared / (cluster**2 * shared + noise**2 * own)
