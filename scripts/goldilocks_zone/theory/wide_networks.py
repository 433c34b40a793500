"""Wide ReLU networks without biases under joint-embedding losses: layer kernels, the edge of the zone, and collapse.

A joint-embedding loss is λ I + μ V + ν C, with the invariance term I, variance term V and covariance term C of VICReg
(see `models.embedding_losses`). V depends on s = √(v + ε) for the variances v of the entries of embeddings. The edge is
the radius at which the trace of the Hessian on a random plane changes sign. Collapse means that the embeddings of all
inputs become equal.

Networks have n layers of weights; σ_l is the standard deviation of the weights in layer l. x and x′ are the two views
of an example. Axes: p pairs, i inputs, e embedding. All results hold in the limit of wide layers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

HALVINGS = 100  # steps of the bisection for the edge, over log t


@dataclass(frozen=True)
class Criteria:
    """Weights λ, μ and ν of the terms of a joint-embedding loss, its ε, and the threshold of the hinge on s in V."""

    invariance: float
    variance: float
    covariance: float = 0.0
    epsilon: float = 1e-4
    hinge: float = 1.0

    @property
    def weights(self) -> tuple[float, float, float]:
        """The weights (λ, μ, ν)."""
        return self.invariance, self.variance, self.covariance

    def gauged(self, scale: float, depth: int) -> "Criteria":
        """Criteria under which training from αθ is equivalent to training from θ under `self`.

        α is `scale`, and n is `depth`. With the returned criteria, the loss at outputs αⁿZ is α^{2n} times the loss at
        outputs Z with `self`. For training to be equivalent, also multiply the learning rate of Adam by α, and Adam's ε
        by α^{2n−1}.
        """
        power = scale**depth
        weights = self.invariance, self.variance * power, self.covariance / power**2
        return Criteria(*weights, self.epsilon * power**2, self.hinge * power)


def kappa_0(cosine: np.ndarray) -> np.ndarray:
    """κ₀(u) = 1 − acos(u)/π, u = `cosine`: twice the probability that Gaussians of correlation u are both positive."""
    return 1 - np.arccos(np.clip(cosine, -1, 1)) / np.pi


def kappa_1(cosine: np.ndarray) -> np.ndarray:
    """κ₁(u) = (√(1 − u²) + u(π − acos u))/π, for u = `cosine`.

    It is the uncentred correlation of the ReLU of two Gaussians with correlation u.
    """
    u = np.clip(cosine, -1, 1)
    return (np.sqrt(1 - u**2) + u * (np.pi - np.arccos(u))) / np.pi


def layer_kernels(first: np.ndarray, second: np.ndarray, depth: int) -> np.ndarray:
    """Layer kernels Θ_l(x, x′), shape (n, …), of inputs (…, i), up to a factor common to all layers l = 1 … n.

    x is `first`, x′ is `second`, and n is `depth`. Θ_l is σ_l² times the expected value of the scalar product of two
    gradients of an output with respect to the weights of layer l, one at x and one at x′. In the limit of wide layers,
    Θ_l = ‖x‖‖x′‖ u_{l−1} Π_{m=l−1}^{n−2} κ₀(u_m), with u_0 = cos(x, x′) and u_m = κ₁(u_{m−1}).
    """
    products = (first * second).sum(-1)
    norms = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
    cosines = [np.divide(products, norms, out=np.zeros_like(norms), where=norms > 0)]
    for _ in range(depth - 1):
        cosines.append(kappa_1(cosines[-1]))
    found, slope = [norms * cosines[-1]], np.ones_like(norms)
    for cosine in cosines[-2::-1]:
        slope = slope * kappa_0(cosine)
        found.append(norms * cosine * slope)
    return np.stack(found[::-1])


def apart(first: np.ndarray, second: np.ndarray, depth: int) -> np.ndarray:
    """Mean (n,) over p pairs of Θ_l(x, x) + Θ_l(x′, x′) − 2 Θ_l(x, x′), for x in `first` and x′ in `second` (p, i).

    Θ_l are the `layer_kernels` of a network of n = `depth` layers.
    """
    squares = (first**2).sum(-1) + (second**2).sum(-1)
    return np.mean(squares - 2 * layer_kernels(first, second, depth), axis=1)


def ratios_of_invariance(first: np.ndarray, second: np.ndarray, depth: int) -> np.ndarray:
    """Layer ratios R_l (n,) of the invariance term I, for a network of n = `depth` layers.

    R_l is σ_l² E Tr H_ll, divided by the same number for the last layer. H_ll is the block of layer l in the Hessian of
    I, and E the expected value over random weights. `first` and `second` (p, i) are the two views of p examples.
    """
    found = apart(first, second, depth)
    return found / found[-1]


def ratios_of_variance(branches: Sequence[np.ndarray], depth: int) -> np.ndarray:
    """Layer ratios R_l (n,) of the variance term V, defined as for I in `ratios_of_invariance`.

    `branches` holds the examples (p, i) of each branch. The ratios are computed from all pairs of examples within a
    branch. n is `depth`.
    """
    found = np.zeros(depth)
    for inputs in branches:
        for shift in range(1, len(inputs)):
            found = found + apart(inputs, np.roll(inputs, shift, 0), depth)
    return found / found[-1]


@dataclass(frozen=True)
class Moments:
    """Invariance I, covariance C and variances v (2e,) of the embeddings of both branches, at one θ."""

    invariance: float
    covariance: float
    variances: np.ndarray


@dataclass(frozen=True)
class LayerWeights:
    """Averages W = Σ w_l R_l/Σ w_l over layers l of the layer ratios R_l, for each of the terms I, V and C.

    The weights are w_l = η_l²/σ_l². η_l is the factor by which the plane's metric multiplies directions in layer l.
    """

    invariance: float = 1.0
    variance: float = 1.0
    covariance: float = 1.0


def balance(criteria: Criteria, moments: Moments, weights: LayerWeights, growth: np.ndarray) -> np.ndarray:
    """Balance (…) of the terms of the loss, which has the sign of the Hessian's trace on a random plane.

    This holds on average over initialisations. `moments` are those of parameters θ; the balance is that at αθ. `growth`
    (…) holds t = α^{2n}: I and v are multiplied by t, and C by t². The balance is (2λ W_I I + 4ν W_C C − μ W_V
    mean_j(v_j 1[s_j < hinge]/s_j))/t, with I, C and v after this growth. It increases with t.
    """
    growth = np.asarray(growth, dtype=float)
    v = moments.variances
    deviations = np.sqrt(v * growth[..., None] + criteria.epsilon)
    spread = np.mean(v * (deviations < criteria.hinge) / deviations, axis=-1)
    found = 2 * criteria.invariance * weights.invariance * moments.invariance
    found = found + 4 * criteria.covariance * weights.covariance * moments.covariance * growth
    return found - criteria.variance * weights.variance * spread


def edge(criteria: Criteria, moments: Moments, weights: LayerWeights, depth: int) -> float:
    """Factor α on the parameters at which the trace on a random plane changes from negative to positive.

    It is the zero of `balance`; `moments` are those at α = 1, and `depth` is n. The result is NaN if the trace is
    positive at every radius, as it is below a threshold of μ/λ, and if all variances are zero.
    """
    if not moments.variances.any():
        return np.nan
    # Bracket the edge: where all s exceed the hinge, no term is negative; at small t, s = √ε.
    last = np.log(criteria.hinge**2 / moments.variances[moments.variances > 0].min())
    first = np.log(1e-12 * criteria.epsilon / moments.variances.max())
    if balance(criteria, moments, weights, np.exp(first)) >= 0:
        return np.nan
    for _ in range(HALVINGS):
        middle = (first + last) / 2
        below = balance(criteria, moments, weights, np.exp(middle)) < 0
        first, last = (middle, last) if below else (first, middle)
    return float(np.exp(last / (2 * depth)))


def collapse_threshold(correlation: np.ndarray | float, epsilon: float) -> np.ndarray:
    """Threshold 4√ε(1 − c) of μ/λ, below which the last layer's weights W_n = 0 are a minimum of the loss.

    c = `correlation` is the largest correlation that the two views of a feature can have.
    """
    return 4 * np.sqrt(epsilon) * (1 - np.asarray(correlation, dtype=float))


def final_deviation(
    ratio: np.ndarray | float, correlation: np.ndarray | float, epsilon: float, hinge: float = 1.0
) -> np.ndarray:
    """Standard deviation σ of a feature at the end of training, for μ/λ = `ratio`; 0 after collapse.

    √(σ² + ε) is μ/(4λ(1 − c)), or the `hinge` where this is smaller. This σ minimises
    2λ(1 − c)σ² + μ max(0, hinge − √(σ² + ε)), where c = `correlation` is the largest correlation that the two views
    of a feature can have. For Gaussian views x′ = ρx + √(1 − ρ²)ξ with ρ ≥ 0, c = ρ (Gebelein 1941).
    """
    with np.errstate(divide="ignore"):
        deviation = np.minimum(np.asarray(ratio) / (4 * (1 - np.asarray(correlation, dtype=float))), hinge)
    return np.sqrt(np.maximum(deviation**2 - epsilon, 0))


def collapse_hessian(criteria: Criteria, first: np.ndarray, second: np.ndarray, size: int) -> np.ndarray:
    """Hessian (i, i) of the loss with respect to one row of the last layer's weights W_n, at W_n = 0.

    The inputs of the last layer are h = `first` and h′ = `second` (p, i) for the two views, and its outputs have e =
    `size` entries. The Hessian is (2λ/e)⟨ΔΔᵀ⟩ − μ(Σ + Σ′)/(2e√ε). Here Δ = h − h′, ⟨·⟩ is the mean over the p examples,
    and Σ and Σ′ are the unbiased covariances of h and of h′.
    """
    between = first - second
    spread = np.cov(first, rowvar=False) + np.cov(second, rowvar=False)
    attracted = 2 * criteria.invariance / size * between.T @ between / len(first)
    return attracted - criteria.variance * spread / (2 * size * np.sqrt(criteria.epsilon))


def collapse_hessian_of_products(first: np.ndarray, second: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Hessian (i, i) as in `collapse_hessian`, but for InfoNCE with dot products: −(X + Xᵀ)/τ, with τ = `temperature`.

    X is the covariance Cov(h, h′), over p examples, of the last layer's inputs h = `first` and h′ = `second` (p, i).
    """
    crossed = (first - first.mean(0)).T @ (second - second.mean(0)) / len(first)
    return -(crossed + crossed.T) / temperature
