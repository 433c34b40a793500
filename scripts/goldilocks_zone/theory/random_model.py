"""The random model of gradients and curvature of Fort & Ganguli (2019) in closed form.

Gradients J_k^μ of logit k on example μ cluster: J_k^μ = c_k + E_k^μ, with independent entries c ~ N(0, σ_c²) and
E ~ N(0, σ_E²). The probabilities p = softmax(z) come from random logits z ~ N(0, σ_z²) or are measured. The
Gauss–Newton matrix is G = (1/N) Σ_μ J^μ S_μ J^μᵀ with S_μ = diag p − ppᵀ; the gradient is g = (1/N) Σ_μ J^μ r^μ with
residuals r = p − y for one-hot labels y.

Letters: N examples, C classes, D weights; axes n examples, k classes. Arguments of the functions: `cluster` is σ_c,
`noise` is σ_E, and `outputs` (…, n, k) are the probabilities p. Their leading axes … are broadcast, and are the leading
axes of the result.
"""

from typing import Any, NamedTuple

import numpy as np

BISECTIONS = 100
NOTHING = 1e-280


def probabilities(examples: int, classes: int, spread: float, random: np.random.Generator) -> np.ndarray:
    """Softmax outputs (n, k) of Gaussian logits with standard deviation σ_z = `spread`."""
    return softmax(spread * random.standard_normal((examples, classes)))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Softmax of `logits` (…, k) along the last axis."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def one_hot_labels(outputs: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """One-hot labels (n, k) for `outputs` (n, k), drawn uniformly and independently of them."""
    n, classes = outputs.shape
    return np.eye(classes)[random.integers(0, classes, n)]


def curvatures(outputs: np.ndarray) -> np.ndarray:
    """Matrices S_μ = diag p − ppᵀ of all examples, (…, n, k, k), for the probabilities `outputs` (…, n, k)."""
    unit = np.eye(outputs.shape[-1])
    mixed = (1 - unit) * outputs[..., None] * outputs[..., None, :]
    # On the diagonal, p (1 − p) is a sum over the other classes, which avoids cancellation where p is near 1.
    return unit * mixed.sum(-1, keepdims=True) - mixed


class Limit(NamedTuple):
    """Spectrum of G: upper `edge` of the bulk (…), and `outliers` (…, C − 1), descending, NaN where inside the bulk."""

    edge: np.ndarray
    outliers: np.ndarray


def limit(outputs: np.ndarray, weights: int, cluster: np.ndarray, noise: np.ndarray) -> Limit:
    """Bulk edge and outliers of G for given probabilities `outputs` (…, n, k), in the limit of large sizes.

    `weights` is D. Apart from zero eigenvalues, G has the spectrum of a Wishart matrix with D degrees of freedom and
    covariance Σ = S^{1/2}(σ_E² I + σ_c² 11ᵀ⊗I)S^{1/2}/N, where S is block-diagonal with the blocks S_μ, and 1 is the
    vector of N ones. Let τ_j be the eigenvalues of all σ_E² S_μ/N, and λ(ℓ) = ℓ(D + Σ_j τ_j/(ℓ − τ_j)) for ℓ above all
    τ_j. The edge of the bulk is the minimum of λ. The outliers are the values λ(ℓ) at those ℓ at which an eigenvalue of
    (σ_c²/N) Σ_μ S_μ(ℓ − σ_E² S_μ/N)⁻¹ equals 1.
    """
    n, classes = outputs.shape[-2:]
    shape = np.broadcast_shapes(np.shape(cluster), np.shape(noise), outputs.shape[:-2])
    parts, frames = np.linalg.eigh(curvatures(outputs))
    parts = np.broadcast_to(np.clip(parts, 0, None), (*shape, n, classes))
    # One row per eigenvector v, with the entries of v vᵀ.
    projectors = np.einsum("...nab,...ncb->...nbac", frames, frames).reshape(*frames.shape[:-3], n * classes, -1)
    shared, own = (np.broadcast_to(np.square(each) / n, shape)[..., None, None] for each in (cluster, noise))
    spectrum = (own * parts).reshape(*shape, -1)
    top = spectrum.max(-1)
    # λ(ℓ) is minimal where Σ_j τ_j²/(ℓ − τ_j)² = D.
    excess = _bisected(
        lambda excess: np.square(spectrum / ((top + excess)[..., None] - spectrum + 1e-300)).sum(-1) - weights,
        top / np.sqrt(weights) / 2,
        np.sqrt(np.square(spectrum).sum(-1) / weights),
    )
    edge = top + excess

    def lifted(place: np.ndarray) -> np.ndarray:
        """Values λ(ℓ) at m places ℓ = `place` (…, m)."""
        rest = place[..., None] - spectrum[..., None, :]
        return place * (weights + (spectrum[..., None, :] / np.where(rest > 0, rest, np.inf)).sum(-1))

    def strengths(place: np.ndarray) -> np.ndarray:
        """Eigenvalues, minus one, of (σ_c²/N) Σ_μ S_μ(ℓ − σ_E² S_μ/N)⁻¹, whose zeros give the outliers.

        Entry k of the result, from 0, is the (k + 1)-th largest eigenvalue at ℓ = `place[…, k]`, minus one. `place` and
        the result have the shape (…, C − 1).
        """
        rest = place[..., None, None] - (own * parts)[..., None, :, :]
        factors = (parts[..., None, :, :] / rest).reshape(*place.shape, n * classes)
        matrices = (factors @ projectors).reshape(*place.shape, classes, classes)
        values = np.linalg.eigvalsh(shared[..., None] * matrices)[..., ::-1]
        return np.diagonal(values, axis1=-2, axis2=-1)[..., : place.shape[-1]] - 1

    mean = np.linalg.eigvalsh(curvatures(outputs).mean(-3))[..., ::-1][..., :-1]
    # Upper bound of ℓ, because (ℓ − τ_max) Σ_μ S_μ(ℓ − σ_E² S_μ/N)⁻¹ is at most Σ_μ S_μ.
    high = top[..., None] + n * shared[..., 0] * mean * (1 + 1e-9)
    # Without noise, or if all outputs are saturated, the edge is at ℓ = 0, where the matrix is undefined.
    low = np.maximum(np.maximum(edge[..., None], 1e-12 * high), NOTHING)
    above = strengths(low) > 0
    places = _bisected(strengths, low, np.maximum(high, low))
    return Limit(edge=lifted(edge[..., None])[..., 0], outliers=np.where(above, lifted(places), np.nan))


def _bisected(function, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Zeros (…) of an elementwise, decreasing `function` between the bounds `low` and `high` (…), by bisection."""
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if ((middle == low) | (middle == high)).all():
            break
        positive = function(middle) > 0
        low, high = np.where(positive, middle, low), np.where(positive, high, middle)
    return (low + high) / 2


def power(cluster: float, noise: float, residuals: np.ndarray) -> float:
    """Share σ_c²/(σ_c² + σ_E²) of the gradient's power |g|² that lies in the span of the cluster centres c_k.

    It is a ratio of powers that are averaged over labels and J. The labels y of the `residuals` p − y (…, n, k) must be
    drawn independently of p, or from p itself.
    """
    own = np.square(residuals).sum(-1).mean(-1)
    return cluster**2 * own / (cluster**2 * own + noise**2 * own)


def power_given(residuals: np.ndarray, cluster: float, noise: float) -> float:
    """Share of the gradient's power |g|² in the span of the cluster centres, at given `residuals` r (n, k).

    It is σ_c²|r̄|²/(σ_c²|r̄|² + σ_E² E|r|²/N), where r̄ is the mean residual and E the mean over examples. Powers are
    averaged over J alone; in `power`, they are averaged over labels, too.
    """
    shared = np.square(residuals.mean(-2)).sum(-1)
    own = np.square(residuals).sum(-1).mean(-1) / residuals.shape[-2]
    return cluster**2 * shared / (cluster**2 * shared + noise**2 * own)


def kappa(outputs: np.ndarray, weights: int, cluster: float, noise: float) -> np.ndarray:
    """κ = √(E[Tr G]²/E‖G‖²_F) in full space for `outputs` (…, n, k); NaN where all outputs are saturated.

    From the moments of a Wishart matrix with covariance Σ (see `limit`): E Tr G = D Tr Σ and
    E‖G‖²_F = D(D + 1) Tr Σ² + D (Tr Σ)², with D = `weights`.
    """
    n = outputs.shape[-2]
    parts = curvatures(outputs)
    # Divide by the largest entry, whose square may underflow. If all entries are zero, the ratio is NaN.
    parts = parts / np.abs(parts).max((-3, -2, -1), keepdims=True)
    shared, own, mean = cluster**2, noise**2, parts.sum(-3)
    trace = (shared + own) * np.trace(mean, axis1=-2, axis2=-1) / n
    own_squares, mean_squares = np.square(parts).sum((-3, -2, -1)), np.square(mean).sum((-2, -1))
    squares = ((2 * shared * own + own**2) * own_squares + shared**2 * mean_squares) / n**2
    return weights * trace / np.sqrt(weights * (weights + 1) * squares + weights * trace**2)


def matching_spread(mixing: float, classes: int, random: np.random.Generator, draws: int = 20_000) -> float:
    """Standard deviation σ_eff of Gaussian logits of C = `classes` classes for which E[1 − Σ_k p_k²] equals `mixing`.

    p is the softmax of the logits, and E the mean over `draws` examples. For every σ that is tried, the logits are σ
    times one draw of standard normal numbers. Raises ValueError unless 0 < `mixing` < 1 − 1/C, up to rounding.
    """
    from scipy import optimize  # imported here: the import takes 0.1 s, which all figures of this model would pay

    most = 1 - 1 / classes
    logits = random.standard_normal((draws, classes))

    def difference(log_spread: float) -> float:
        return 1 - np.square(softmax(np.exp(log_spread) * logits)).sum(1).mean() - mixing

    low, high = np.log(1e-6), np.log(1e6)
    if not difference(low) > 0 > difference(high):
        raise ValueError(
            f"Gaussian logits of {classes} classes cannot have E[1 − Σp²] = {mixing:g}: give a value from 0 to {most:g}"
        )
    root: Any = optimize.brentq(difference, low, high, xtol=1e-10)
    return float(np.exp(root))


def entropy(outputs: np.ndarray) -> np.ndarray:
    """Entropy (…) in nats of the probabilities `outputs` (…, n, k), averaged over examples."""
    return -(outputs * np.log(np.where(outputs > 0, outputs, 1))).sum(-1).mean(-1)
