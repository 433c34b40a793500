"""The random model of gradients and curvature of Fort & Ganguli (2019): samples, and what is known in closed form.

Logit gradients cluster: J_k^μ = c_k + E_k^μ, with independent entries c ~ N(0, σ_c²), E ~ N(0, σ_E²). Probabilities
p = softmax(z) are those of logits z ~ N(0, σ_z²), or measured ones. G = (1/N) Σ_μ J^μ S_μ J^μᵀ, S_μ = diag p − ppᵀ, and
the gradient is g = (1/N) Σ_μ J^μ r^μ with residuals r = p − y.

S_μ and r^μ have no part along (1, …, 1), so that of every J^μ the C − 1 columns across it matter. They are Gaussian
and independent but for what examples share, and products of M = (N + 1)(C − 1) independent Gaussian columns of length
D are those of the rows of a lower-triangular matrix B (Bartlett 1933): no array has the size of D. Vectors in the space
of weights are given in the orthonormal basis of D-vectors in which the columns' coordinates are B.

Letters: N examples, C classes, D weights; axes n examples, k classes. Array arguments broadcast: a leading axis of
parameters in `cluster`, `noise` and `probabilities` (…, n, k) gives results with that axis.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from goldilocks_zone.spectra import lanczos

Labels = Literal["independent", "from_model", "balanced"]
ROWS_PER_BLOCK = 1000
BISECTIONS = 100
NOTHING = 1e-280
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


def probabilities(examples: int, classes: int, spread: float, random: np.random.Generator) -> np.ndarray:
    """Softmax outputs (n, k) of logits of the standard deviation `spread`, σ_z."""
    return softmax(spread * random.standard_normal((examples, classes)))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Along the last axis."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def one_hot_labels(outputs: np.ndarray, kind: Labels, random: np.random.Generator) -> np.ndarray:
    """Labels (n, k) for `outputs` (n, k): independent and uniform, drawn from the outputs, or exactly balanced.

    Raises ValueError where balanced labels do not come out even, or the kind is unknown.
    """
    n, classes = outputs.shape
    if kind == "independent":
        drawn = random.integers(0, classes, n)
    elif kind == "from_model":
        below = outputs.cumsum(1)[:, :-1] < random.random((n, 1))
        drawn = below.sum(1)
    elif kind == "balanced":
        if n % classes:
            raise ValueError(f"{n} examples cannot be shared evenly by {classes} classes: choose a multiple")
        drawn = random.permutation(np.arange(n) % classes)
    else:
        raise ValueError(f"labels {kind!r} are unknown: use independent, from_model or balanced")
    return np.eye(classes)[drawn]


class Factor:
    """B (M, min(M, D)), lower-triangular: B Bᵀ has the distribution of XᵀX, X (D, M) of standard normal entries.

    In `blocks` of rows without the zeros behind them, each of whole groups of `together` rows.
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
        """For `outputs` p (n, k), D `weights`, `cluster` σ_c and `noise` σ_E."""
        n, classes = outputs.shape
        return cls(
            outputs, weights, cluster, noise, Factor((n + 1) * (classes - 1), weights, random, dtype, classes - 1)
        )

    def pushed(self, vector: np.ndarray) -> np.ndarray:
        """Jᵀ v (n, k), without its part along (1, …, 1), of a vector in the space of weights."""
        shared, own = np.split(self.factor.forward(vector).reshape(-1, self._basis.shape[1]), [1])
        return (self.cluster * shared + self.noise * own) @ self._basis.T

    def pulled(self, cotangents: np.ndarray) -> np.ndarray:
        """J x, in the space of weights, of x (n, k) without a part along (1, …, 1)."""
        inside = cotangents.astype(self._p.dtype) @ self._basis
        rows = np.concatenate([self.cluster * inside.sum(0, keepdims=True), self.noise * inside])
        return self.factor.transposed(rows.ravel())

    def gradient(self, residuals: np.ndarray) -> np.ndarray:
        """g of residuals p − y (n, k)."""
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
    """The `count` largest eigenvalues of G, and the gradient's powers along their eigenvectors.

    Raises ValueError as `lanczos.top_eigenpairs` does.
    """
    size, dtype = draw.factor.shape[1], draw.factor.blocks[0].dtype

    def products(vectors: np.ndarray) -> np.ndarray:
        return np.stack([draw.products(vector.astype(dtype)) for vector in vectors])

    values, vectors = lanczos.top_eigenpairs(
        products, size, count, start=random.standard_normal(size), tolerance=TOLERANCE[dtype]
    )
    gradient = draw.gradient(residuals).astype(np.float64)
    square = gradient @ gradient
    return Sample(
        eigenvalues=values,
        powers=np.square(gradient @ vectors) / square,
        trace=draw.trace(),
        gradient_norm=float(np.sqrt(square)),
    )


def across_ones(classes: int) -> np.ndarray:
    """Orthonormal columns (k, k − 1) that span what is orthogonal to (1, …, 1)."""
    basis = np.tril(np.full((classes, classes - 1), 0.0))
    for j in range(classes - 1):
        basis[: j + 1, j], basis[j + 1, j] = 1.0, -(j + 1.0)
    return basis / np.linalg.norm(basis, axis=0)


def curvatures(outputs: np.ndarray) -> np.ndarray:
    """S = diag p − ppᵀ (…, n, k, k)."""
    unit = np.eye(outputs.shape[-1])
    mixed = (1 - unit) * outputs[..., None] * outputs[..., None, :]
    # On the diagonal p (1 − p) without cancellation where p is near 1.
    return unit * mixed.sum(-1, keepdims=True) - mixed


def bulk_edge(examples: float, classes: float, weights: float, noise: float) -> float:
    """The bulk's upper edge at uniform p, in the limit of large sizes: σ_E² (√(N(C − 1)) + √D)²/(N C)."""
    return noise**2 * (np.sqrt(examples * (classes - 1)) + np.sqrt(weights)) ** 2 / (examples * classes)


def largest_of_bulk(examples: float, classes: float, weights: float, noise: float) -> float:
    """Mean of the largest eigenvalue without clusters at uniform p: the edge, shifted by the Tracy–Widom mean.

    With the centring and scale of Johnstone (2001) for the largest eigenvalue of real Wishart matrices.
    """
    one, other = np.sqrt(weights - 1), np.sqrt(examples * (classes - 1))
    scale = (one + other) * (1 / one + 1 / other) ** (1 / 3)
    return noise**2 * ((one + other) ** 2 + TRACY_WIDOM_MEAN * scale) / (examples * classes)


def threshold(examples: float, classes: float, weights: float) -> float:
    """(σ_c/σ_E)² above which the C − 1 outliers leave the bulk at uniform p: √((C − 1)/(N D))."""
    return np.sqrt((classes - 1) / (examples * weights))


def mean_outlier(examples: float, classes: float, weights: float, cluster: float, noise: float) -> float:
    """Mean of the C − 1 outliers at uniform p, above the threshold: (s² + nσ_E²)(s² + Dσ_E²)/(s² N C).

    With s² = N D σ_c² and n = N(C − 1).
    """
    signal, columns = examples * weights * cluster**2, examples * (classes - 1)
    product = (signal + columns * noise**2) * (signal + weights * noise**2)
    return product / (signal * examples * classes)


@dataclass(frozen=True)
class Limit:
    """edge: of the bulk (…); outliers: (…, k − 1), descending, NaN where they have not left the bulk."""

    edge: np.ndarray
    outliers: np.ndarray


def limit(outputs: np.ndarray, weights: int, cluster: np.ndarray, noise: np.ndarray) -> Limit:
    """Bulk edge and outliers of G for any p (…, n, k), in the limit of large sizes.

    G's spectrum is that of a Wishart matrix of D degrees of freedom with the covariance
    Σ = S^{1/2}(σ_E² I + σ_c² 11ᵀ⊗I)S^{1/2}/N. With τ the eigenvalues of σ_E² S_μ/N, each ℓ above all τ belongs to
    λ(ℓ) = ℓ(D + Σ_j τ_j/(ℓ − τ_j)); the edge is its minimum, and outliers lie where an eigenvalue of
    (σ_c²/N) Σ_μ S_μ(ℓ − σ_E² S_μ/N)⁻¹ is one.
    """
    n, classes = outputs.shape[-2:]
    shape = np.broadcast_shapes(np.shape(cluster), np.shape(noise), outputs.shape[:-2])
    parts, frames = np.linalg.eigh(curvatures(outputs))
    parts = np.broadcast_to(np.clip(parts, 0, None), (*shape, n, classes))
    frames = np.broadcast_to(frames, (*shape, n, classes, classes))
    shared, own = (np.broadcast_to(np.square(each) / n, shape) for each in (cluster, noise))
    spectrum = (own[..., None, None] * parts).reshape(*shape, -1)
    top = spectrum.max(-1)
    # λ(ℓ) has its minimum where Σ_j τ_j²/(ℓ − τ_j)² is D.
    excess = _bisected(
        lambda excess: np.square(spectrum / ((top + excess)[..., None] - spectrum + 1e-300)).sum(-1) - weights,
        top / np.sqrt(weights) / 2,
        np.sqrt(np.square(spectrum).sum(-1) / weights),
    )
    edge = top + excess

    def lifted(place: np.ndarray) -> np.ndarray:
        """λ(ℓ) at places (…, m)."""
        rest = place[..., None] - spectrum[..., None, :]
        return place * (weights + (spectrum[..., None, :] / np.where(rest > 0, rest, np.inf)).sum(-1))

    def strengths(place: np.ndarray) -> np.ndarray:
        """Of the k-th place (…, m), m = C − 1, the k-th largest eigenvalue of the matrix, less one."""
        found = np.empty_like(place)
        for k in range(place.shape[-1]):
            factors = parts / (place[..., k, None, None] - own[..., None, None] * parts)
            matrix = np.einsum("...nab,...nb,...ncb->...ac", frames, factors, frames, optimize=True)
            found[..., k] = np.linalg.eigvalsh(shared[..., None, None] * matrix)[..., ::-1][..., k]
        return found - 1

    mean = np.linalg.eigvalsh(curvatures(outputs).mean(-3))[..., ::-1][..., :-1]
    # (ℓ − τ_max) Σ_μ S_μ(ℓ − τ)⁻¹ is at most Σ_μ S_μ.
    high = top[..., None] + n * shared[..., None] * mean * (1 + 1e-9)
    # Without noise the edge is zero, where the matrix is not defined; nor is it where all outputs are saturated.
    low = np.maximum(np.maximum(edge[..., None], 1e-12 * high), NOTHING)
    above = strengths(low) > 0
    places = _bisected(strengths, low, np.maximum(high, low))
    outliers = np.where(above, lifted(places), np.nan)
    return Limit(edge=lifted(edge[..., None])[..., 0], outliers=outliers)


def _bisected(function, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Where a falling function is zero between two arrays, elementwise."""
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        positive = function(middle) > 0
        low, high = np.where(positive, middle, low), np.where(positive, high, middle)
    return (low + high) / 2


def power(outputs: np.ndarray, cluster: float, noise: float, residuals: np.ndarray, labels: Labels) -> float:
    """The share of the gradient's power that lies in the space of the clusters, expected over labels and J.

    σ_c²/(σ_c² + σ_E²) for labels that are independent, or from the model; σ_c² V/(σ_c² V + σ_E² E|p − y|²),
    V = Σ_k Var p_k, for balanced ones. Of outputs and `residuals` p − y (…, n, k).
    """
    own = np.square(residuals).sum(-1).mean(-1)
    shared = outputs.var(-2).sum(-1) if labels == "balanced" else own
    return cluster**2 * shared / (cluster**2 * shared + noise**2 * own)


def power_given(residuals: np.ndarray, cluster: float, noise: float) -> float:
    """The share of the gradient's power that lies in the space of the clusters, expected over J at `residuals` (n, k).

    σ_c²|r̄|²/(σ_c²|r̄|² + σ_E² E|r|²/N), r̄ the mean residual: `power` is what this is over labels.
    """
    shared = np.square(residuals.mean(-2)).sum(-1)
    own = np.square(residuals).sum(-1).mean(-1) / residuals.shape[-2]
    return cluster**2 * shared / (cluster**2 * shared + noise**2 * own)


def kappa(outputs: np.ndarray, weights: int, cluster: float, noise: float) -> np.ndarray:
    """√(E[Tr G]²/E‖G‖²_F) in full space, of outputs (…, n, k); NaN where all outputs are saturated.

    From the moments of a Wishart matrix: E Tr = D Tr Σ, E‖·‖² = D(D + 1) Tr Σ² + D (Tr Σ)².
    """
    n = outputs.shape[-2]
    parts = curvatures(outputs)
    # Relative to the largest entry, whose square may vanish; where all do there is no ratio.
    parts = parts / np.abs(parts).max((-3, -2, -1), keepdims=True)
    shared, own, mean = cluster**2, noise**2, parts.sum(-3)
    trace = (shared + own) * np.trace(mean, axis1=-2, axis2=-1) / n
    squares = (2 * shared * own + own**2) * np.square(parts).sum((-3, -2, -1)) + shared**2 * np.square(mean).sum(
        (-2, -1)
    )
    squares = squares / n**2
    return weights * trace / np.sqrt(weights * (weights + 1) * squares + weights * trace**2)


def matching_spread(mixing: float, classes: int, random: np.random.Generator, draws: int = 20_000) -> float:
    """σ_eff: the standard deviation of Gaussian logits whose E[1 − Σ p²] is `mixing`.

    From the same `draws` of logits at every σ. Raises ValueError unless 0 < mixing < 1 − 1/C, by what rounding leaves.
    """
    from scipy import optimize  # Takes 0.1 s to import, which every figure of this model would pay.

    most = 1 - 1 / classes
    logits = random.standard_normal((draws, classes))

    def difference(log_spread: float) -> float:
        return 1 - np.square(softmax(np.exp(log_spread) * logits)).sum(1).mean() - mixing

    ends = np.log(1e-6), np.log(1e6)
    if not difference(ends[0]) > 0 > difference(ends[1]):
        raise ValueError(f"E[1 − Σp²] of {mixing:g} is none of Gaussian logits of {classes} classes: 0 to {most:g} are")
    return float(np.exp(optimize.brentq(difference, *ends, xtol=1e-10)))


def entropy(outputs: np.ndarray) -> np.ndarray:
    """Mean entropy in nats of outputs (…, n, k) over examples."""
    return -(outputs * np.log(np.where(outputs > 0, outputs, 1))).sum(-1).mean(-1)
