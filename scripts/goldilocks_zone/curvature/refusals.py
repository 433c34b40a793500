"""Checks that automatic differentiation gives second derivatives of a loss per example; each refuses in one sentence.

Logits of an example may depend on neither chance nor other examples, and their second derivatives must be symmetric:
computations under torch.no_grad are seen by forward mode alone, those on .data by forward over reverse mode alone.
"""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from goldilocks_zone.curvature import autodiff
from goldilocks_zone.models import networks
from goldilocks_zone.models.networks import Logits
from goldilocks_zone.models.problem import Problem

EXAMPLES, PIECES = 3, 8
# Relative to the size of a matrix, above the rounding of networks that compute inside in the next lower precision,
# single (2e-5 at most was measured) and bfloat16 (1e-2). A part that one mode does not see leaves 1e-3 to 1.
BOUNDS = {torch.float64: 1e-4, torch.float32: 2e-2}


def refuse_unfit_logits(logits: Logits, parameters: Tensor, inputs: Tensor, part: str = "hessian") -> None:
    """Raise ValueError where automatic differentiation would give something other than a `part` of a Hessian."""
    _refuse_random(logits, parameters, inputs)
    _refuse_mixing(logits, parameters, inputs)
    _refuse_asymmetric_products(logits, parameters, inputs, part)


def _refuse_mixing(logits: Logits, parameters: Tensor, inputs: Tensor) -> None:
    # Each among others, and behind others: a recurrence over examples sees only those before.
    chosen = [2, 0] if len(inputs) > 2 else [1, 1] if len(inputs) == 2 else [0]
    alone, among = logits(parameters, inputs[chosen]), logits(parameters, inputs[:3])[chosen]
    # Logits that are not finite are refused with the examples that have them.
    if torch.isfinite(among).all() and (alone - among).abs().max() > 1e-3 * among.abs().max():
        raise ValueError(
            "the network mixes the examples of a batch, so that it has no loss per example: let the logits of one "
            "depend on no other, neither by attention over the batch nor by its mean"
        )


def _refuse_random(logits: Logits, parameters: Tensor, inputs: Tensor) -> None:
    generator = torch.cuda if parameters.is_cuda else torch
    states, found = [generator.get_rng_state()], []
    for _ in range(2):
        found.append(logits(parameters, inputs[:1]).nan_to_num())
        states.append(generator.get_rng_state())
    # A layer that is left out by chance may be so twice, or not at all.
    if not all(torch.equal(*pair) for pairs in (found, states) for pair in pairwise(pairs)):
        raise ValueError(autodiff.RANDOM)


def refuse_asymmetric(matrix: Tensor, size: float = 0.0) -> None:
    """Raise ValueError if a matrix (d, d) is asymmetric beyond rounding; `size` is the norm of terms that cancel."""
    size = size + float(torch.linalg.matrix_norm(matrix, dtype=torch.float64))
    asymmetry = float(torch.linalg.matrix_norm(matrix - matrix.T, dtype=torch.float64))
    # Entries that are not finite are refused with their examples.
    if asymmetry > BOUNDS[matrix.dtype] * size:
        raise ValueError(
            f"second derivatives are not symmetric, by {asymmetry / size:.1g} of their size, so that they are the "
            "Hessian of nothing: forward mode sees what the network computes under torch.no_grad or on .data, reverse "
            "mode does not, so take both out of its forward pass, and use detach for what is meant to be constant"
        )


def _refuse_asymmetric_products(logits: Logits, parameters: Tensor, inputs: Tensor, part: str) -> None:
    """Raise ValueError if products with a `part` A of the Hessian are not symmetric on a few inputs, or all vanish.

    Only where something is computed that reverse mode does not see: ⟨u, Av⟩ = ⟨v, Au⟩ for v = Au, which makes the
    second as large as any, and u random in one piece of the parameters after another, as errors in one may be small
    beside the others. The loss is the squared error, which no softmax saturates.
    """
    some, point = networks.few(inputs, EXAMPLES), parameters.detach().requires_grad_()
    with _Watch() as watch:
        outputs = logits(point, some)
    if not outputs.requires_grad:
        raise ValueError(
            "logits do not depend on the parameters, so that there is nothing to differentiate: take torch.no_grad, "
            "detach and .data out of the network's forward pass"
        )
    if not watch.unseen:
        return
    labels = torch.zeros(len(some), dtype=torch.int64, device=some.device)
    push = autodiff.products(Problem(logits, some, labels, "mean_squared_error"), parameters, part)
    random = torch.randn(len(parameters), generator=torch.Generator().manual_seed(0)).to(parameters)
    for places in torch.arange(len(parameters), device=parameters.device).tensor_split(PIECES):
        u = torch.zeros_like(random).index_copy_(0, places, random[places])[None]
        pushed = push(u)
        v = pushed * (u.norm() / pushed.norm())
        refuse_asymmetric(torch.cat([u, v]) @ torch.cat([pushed, push(v)]).T)


class _Watch(TorchFunctionMode):
    """Finds out whether anything is computed of the parameters, which require gradients, behind reverse mode's back."""

    unseen = False

    def __torch_function__(self, function: Callable, types: tuple, arguments: tuple = (), options: dict | None = None):
        if not torch.is_grad_enabled() or function == Tensor.data.__get__:
            given = [*arguments, *(options or {}).values()]
            nested = [each for some in given if isinstance(some, list | tuple) for each in some]
            self.unseen |= any(isinstance(each, Tensor) and each.requires_grad for each in given + nested)
        return function(*arguments, **(options or {}))
