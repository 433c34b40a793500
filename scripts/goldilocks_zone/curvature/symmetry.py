"""Second derivatives that are none: matrices from automatic differentiation that are not symmetric.

What a network computes under torch.no_grad, forward mode sees and reverse mode does not; what it computes on a tensor's
.data, forward mode over reverse mode sees alone.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from goldilocks_zone.curvature import autodiff
from goldilocks_zone.models import networks

EXAMPLES, PIECES = 3, 8
# Of the size of a matrix, above what rounding leaves of networks that compute inside in the next lower precision,
# single (2e-5 at most was measured) and bfloat16 (1e-2). A part that one mode does not see leaves 1e-3 to 1.
BOUNDS = {torch.float64: 1e-4, torch.float32: 2e-2}


def refuse_asymmetric(matrix: Tensor, size: float = 0.0) -> None:
    """Raise ValueError if a matrix (d, d) of products with vectors is less symmetric than rounding leaves it.

    `size` is that of terms which may cancel in it, and which rounding is relative to.
    """
    size = size + float(torch.linalg.matrix_norm(matrix, dtype=torch.float64))
    asymmetry = float(torch.linalg.matrix_norm(matrix - matrix.T, dtype=torch.float64))
    # What is not finite is refused with the examples that have it.
    if asymmetry > BOUNDS[matrix.dtype] * size:
        raise ValueError(
            f"second derivatives are not symmetric, by {asymmetry / size:.1g} of their size, so that they are the "
            "Hessian of nothing: forward mode sees what the network computes under torch.no_grad or on .data, reverse "
            "mode does not, so take both out of its forward pass, and use detach for what is meant to be constant"
        )


def refuse_asymmetric_products(logits: networks.Logits, parameters: Tensor, inputs: Tensor, part: str) -> None:
    """The same of products with a `part` A of the Hessian, for a few of the inputs (n, …); also if they all vanish.

    Where something is computed that reverse mode does not see: it may not enter the logits. ⟨u, Av⟩ and ⟨v, Au⟩ with
    v = Au, which makes the second as large as any, and u random in one piece of the parameters after another: what is
    amiss with one may be little beside the others. Of the squared error, which no softmax saturates.
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
    problem = (logits, parameters, some, labels, "mean_squared_error", 1.0)
    if part == "gauss_newton":
        push = autodiff.gauss_newton_products(*problem)
    else:
        push = lambda vectors: autodiff.hessian_products(*problem)(vectors)[0]  # noqa: E731
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
        """The result of `function`."""
        if not torch.is_grad_enabled() or function == Tensor.data.__get__:
            given = [*arguments, *(options or {}).values()]
            nested = [each for some in given if isinstance(some, list | tuple) for each in some]
            self.unseen |= any(isinstance(each, Tensor) and each.requires_grad for each in given + nested)
        return function(*arguments, **(options or {}))
