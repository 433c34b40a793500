"""Hessian and Gauss–Newton products of any network by automatic differentiation: forward over reverse, vectorised."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import grad, jvp, vjp, vmap

from goldilocks import losses

Logits = Callable[[Tensor, Tensor], Tensor]
# Arrays alive at once per activation and direction in a forward-over-reverse pass, and per parameter.
ARRAYS_PER_ACTIVATION, ARRAYS_PER_PARAMETER = 8, 6


def hessian_products(
    logits: Logits, parameters: Tensor, inputs: Tensor, labels: Tensor, loss: str, temperature: float
) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """The map directions (d, D) → (products with the Hessian of the summed loss (d, D), logit tangents (d, n, k))."""

    def objective(theta):
        outputs = logits(theta, inputs)
        return losses.values(outputs / temperature, labels, loss).sum(), outputs

    gradient_and_logits = grad(objective, has_aux=True)

    def push(direction):
        return jvp(gradient_and_logits, (parameters,), (direction,))[1]

    return vmap(push)


def gauss_newton_products(
    logits: Logits, parameters: Tensor, inputs: Tensor, labels: Tensor, loss: str, temperature: float
) -> Callable[[Tensor], Tensor]:
    """The map directions (d, D) → products with the Gauss–Newton matrix of the summed loss (d, D)."""

    def of_inputs(theta):
        return logits(theta, inputs) / temperature

    outputs, pull = vjp(of_inputs, parameters)

    def product(direction):
        tangent = jvp(of_inputs, (parameters,), (direction,))[1]
        if loss == "cross_entropy":
            p = torch.softmax(outputs, 1)
            tangent = p * (tangent - (p * tangent).sum(1, keepdim=True))
        return pull(tangent)[0]

    return vmap(product)


def radial_derivative(
    logits: Logits, parameters: Tensor, inputs: Tensor, labels: Tensor, loss: str, temperature: float
) -> float:
    """⟨∇L, θ⟩ of the summed loss."""

    def objective(theta):
        return losses.values(logits(theta, inputs) / temperature, labels, loss).sum()

    return float(jvp(objective, (parameters,), (parameters,))[1])


def examples_per_chunk(logits: Logits, parameters: Tensor, inputs: Tensor, memory_mib: float) -> int:
    """How many examples of one direction go through one pass within the memory budget; at least one."""
    budget = memory_mib * 2**20 / parameters.element_size()
    # Many parameters may leave nothing; then a quarter, rather than a pass over all of them for each example.
    left = max(budget - ARRAYS_PER_PARAMETER * parameters.numel(), budget / 4)
    return max(1, int(left / max(1, ARRAYS_PER_ACTIVATION * _entries_per_example(logits, parameters, inputs))))


def directions_per_chunk(logits: Logits, parameters: Tensor, inputs: Tensor, memory_mib: float) -> int:
    """How many directions go through one pass within the memory budget; at least one."""
    per_example = _entries_per_example(logits, parameters, inputs)
    entries = ARRAYS_PER_ACTIVATION * per_example * len(inputs) + ARRAYS_PER_PARAMETER * parameters.numel()
    return max(1, int(memory_mib * 2**20 / (entries * parameters.element_size())))


def _entries_per_example(logits: Logits, parameters: Tensor, inputs: Tensor) -> int:
    alone = _saved_entries(logits, parameters, inputs[:1])
    return alone if len(inputs) == 1 else _saved_entries(logits, parameters, inputs[:2]) - alone


def _saved_entries(logits: Logits, parameters: Tensor, inputs: Tensor) -> int:
    """Entries that one forward pass keeps for its backward pass."""
    entries = 0

    def count(tensor):
        # Nothing is kept: a hook that returns its tensor holds it for ever.
        nonlocal entries
        entries += tensor.numel()

    with torch.autograd.graph.saved_tensors_hooks(count, lambda nothing: nothing):
        logits(parameters.detach().requires_grad_(), inputs)
    return entries
