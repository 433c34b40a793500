"""Exact Hessians of the mean loss on a random plane, by forward-over-reverse differentiation.

For ReLU this is the almost-everywhere Hessian: what automatic differentiation gives, without the kinks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import scipy.linalg
import torch
from torch import Tensor
from torch.func import grad, jvp, vmap

from goldilocks import subspaces

Logits = Callable[[Tensor, Tensor], Tensor]
LOSSES = ("cross_entropy", "mean_squared_error")
# Arrays alive at once per activation and direction in a forward-over-reverse pass, and per parameter.
ARRAYS_PER_ACTIVATION, ARRAYS_PER_PARAMETER = 8, 6
EXAMPLES_PER_CHUNK = 1024


@dataclass(frozen=True)
class PlaneCurvature:
    """Second-order picture of the mean loss over n examples on a plane of d orthonormal directions.

    hessian, gauss_newton: shape (d, d); gauss_newton_traces: shape (d, n), the trace of each example's
    Gauss–Newton matrix on the first 1 … d directions; loss: mean over examples, in nats for cross-entropy;
    logits_std: root mean square over examples of the standard deviation (k − 1 degrees of freedom) of
    their k logits.
    """

    hessian: np.ndarray
    gauss_newton: np.ndarray
    gauss_newton_traces: np.ndarray
    loss: float
    logits_std: float


@dataclass(frozen=True)
class _Sums:
    """What adds up over examples: raw-direction Hessian (d, d), Gauss–Newton factors, losses, variances."""

    hessian: Tensor
    factors: Tensor
    losses: Tensor
    variances: Tensor


def plane_curvature(
    logits: Logits,
    parameters: Tensor,
    directions: Tensor,
    inputs: Tensor,
    labels: Tensor,
    *,
    examples: Sequence[int] | None = None,
    loss: str = "cross_entropy",
    temperature: float = 1.0,
    memory_mib: float = 1024,
) -> list[PlaneCurvature]:
    """Curvature on the plane through `parameters` (D,) spanned by the raw `directions` (d, D).

    `inputs` (N, …) and `labels` (N,) are the examples; `examples` lists how many of the first ones to
    average over (default: all N), and one result is returned for each. The softmax sees logits / temperature.
    Directions need not be orthonormal: they are made so, in order, through their Gram matrix.

    `memory_mib` bounds one pass of differentiation, in MiB. Raises ValueError if the directions are linearly
    dependent, a logit is not finite, the loss is unknown, or more examples are asked for than there are.
    """
    counts = [len(inputs)] if examples is None else list(examples)
    if max(counts) > len(inputs):
        raise ValueError(f"{max(counts)} examples asked for and {len(inputs)} given: ask for fewer")
    factor = subspaces.cholesky(directions.double().cpu().numpy())
    edges = [0, *sorted(set(counts))]
    segments, result = [], {}
    for start, stop in pairwise(edges):
        segments.append(
            _sum_over_examples(
                logits, parameters, directions, inputs[start:stop], labels[start:stop], loss, temperature, memory_mib
            )
        )
        result[stop] = _average(segments, factor)
    return [result[count] for count in counts]


def hessian_vector_products(
    logits: Logits,
    parameters: Tensor,
    vectors: Tensor,
    inputs: Tensor,
    labels: Tensor,
    *,
    loss: str = "cross_entropy",
    temperature: float = 1.0,
    memory_mib: float = 1024,
) -> Tensor:
    """Products of the Hessian of the mean loss with each row of `vectors` (d, D), shape (d, D)."""
    products = torch.zeros_like(vectors)
    for chunk_inputs, chunk_labels in _chunks_of_examples(inputs, labels):
        step = _directions_per_chunk(logits, parameters, chunk_inputs, memory_mib)
        push = _pushforward(logits, parameters, chunk_inputs, chunk_labels, loss, temperature)
        for start in range(0, len(vectors), step):
            products[start : start + step] += push(vectors[start : start + step])[0]
    return products / len(inputs)


def _sum_over_examples(logits, parameters, directions, inputs, labels, loss, temperature, memory_mib) -> _Sums:
    hessian = directions.new_zeros(len(directions), len(directions), dtype=torch.float64)
    factors, losses, variances = [], [], []
    for chunk_inputs, chunk_labels in _chunks_of_examples(inputs, labels):
        outputs = logits(parameters, chunk_inputs)
        if not torch.isfinite(outputs).all():
            raise ValueError("a logit is not finite: the radius is too large for this precision, lower it")
        step = _directions_per_chunk(logits, parameters, chunk_inputs, memory_mib)
        push = _pushforward(logits, parameters, chunk_inputs, chunk_labels, loss, temperature)
        tangents = []
        for start in range(0, len(directions), step):
            products, pushed = push(directions[start : start + step])
            hessian[:, start : start + step] += (directions @ products.T).double()
            tangents.append(pushed.double())
        factors.append(_gauss_newton_factor(outputs.double() / temperature, torch.cat(tangents), loss))
        losses.append(_losses(outputs.double() / temperature, chunk_labels, loss))
        variances.append(outputs.double().var(dim=1))
    return _Sums(hessian, torch.cat(factors, 1), torch.cat(losses), torch.cat(variances))


def _average(segments: list[_Sums], factor: np.ndarray) -> PlaneCurvature:
    losses = torch.cat([s.losses for s in segments])
    n = len(losses)
    hessian = sum(s.hessian for s in segments).cpu().numpy() / n
    raw = torch.cat([s.factors for s in segments], 1).cpu().numpy()
    d, _, k = raw.shape
    factors = scipy.linalg.solve_triangular(factor, raw.reshape(d, n * k), lower=True)
    return PlaneCurvature(
        hessian=subspaces.orthonormalised(hessian, factor),
        gauss_newton=factors @ factors.T / n,
        gauss_newton_traces=np.cumsum((factors.reshape(d, n, k) ** 2).sum(2), axis=0),
        loss=losses.mean().item(),
        logits_std=torch.cat([s.variances for s in segments]).mean().sqrt().item(),
    )


def _pushforward(logits, parameters, inputs, labels, loss, temperature):
    """The map directions (d, D) → (Hessian products of the summed loss (d, D), logit tangents (d, n, k))."""

    def objective(theta):
        outputs = logits(theta, inputs) / temperature
        return _losses(outputs, labels, loss).sum(), outputs

    gradient_and_logits = grad(objective, has_aux=True)

    def push(direction):
        return jvp(gradient_and_logits, (parameters,), (direction,))[1]

    return vmap(push)


def _losses(outputs: Tensor, labels: Tensor, loss: str) -> Tensor:
    """Loss of each example, shape (n,): −log p_y, or half the squared distance to the one-hot label."""
    if loss == "cross_entropy":
        return torch.nn.functional.cross_entropy(outputs, labels, reduction="none")
    if loss == "mean_squared_error":
        targets = torch.nn.functional.one_hot(labels, outputs.shape[1])
        return ((outputs - targets) ** 2).sum(1) / 2
    raise ValueError(f"loss {loss!r} is unknown: use one of {', '.join(LOSSES)}")


def _gauss_newton_factor(outputs: Tensor, tangents: Tensor, loss: str) -> Tensor:
    """B of shape (d, n, k) with G = Σ_n B Bᵀ: √p ⊙ (ż − p·ż) for the softmax, ż for squared error."""
    if loss == "mean_squared_error":
        return tangents
    p = torch.softmax(outputs, dim=1)
    return p.sqrt() * (tangents - (p * tangents).sum(2, keepdim=True))


def _chunks_of_examples(inputs: Tensor, labels: Tensor):
    for start in range(0, len(inputs), EXAMPLES_PER_CHUNK):
        yield inputs[start : start + EXAMPLES_PER_CHUNK], labels[start : start + EXAMPLES_PER_CHUNK]


def _directions_per_chunk(logits: Logits, parameters: Tensor, inputs: Tensor, memory_mib: float) -> int:
    """How many directions go through one pass within the memory budget; at least one."""
    per_example = _saved_entries(logits, parameters, inputs[:1])
    if len(inputs) > 1:
        per_example = _saved_entries(logits, parameters, inputs[:2]) - per_example
    entries = ARRAYS_PER_ACTIVATION * per_example * len(inputs) + ARRAYS_PER_PARAMETER * parameters.numel()
    return max(1, int(memory_mib * 2**20 / (entries * parameters.element_size())))


def _saved_entries(logits: Logits, parameters: Tensor, inputs: Tensor) -> int:
    """Entries that one forward pass keeps for its backward pass."""
    entries = 0

    def count(tensor):
        nonlocal entries
        entries += tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        logits(parameters.detach().requires_grad_(), inputs)
    return entries
