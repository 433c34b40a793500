"""Hessian and Gauss–Newton products of any network, by vectorised forward over reverse mode or double backward passes.

Checks reject networks without a valid Hessian of a per-example loss: the logits of an example must not depend on
randomness or on other examples, and their second derivatives must be symmetric. Symmetry may fail where modes of
differentiation disagree: only forward mode differentiates computations under torch.no_grad, and only forward over
reverse mode differentiates computations on .data.
"""

import contextlib
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.func import grad, jvp, vjp, vmap
from torch.overrides import TorchFunctionMode

from goldilocks_zone.models import kernels, networks
from goldilocks_zone.models.networks import Logits
from goldilocks_zone.models.problem import Problem

EXAMPLES, PIECES = 3, 8  # in the symmetry check: inputs, and pieces of the parameters
CALLS = 8  # of the network in the randomness check; a layer dropped half of the time escapes it in 1 case of 128
# Bounds on the asymmetry relative to the norm of a matrix. They exceed the rounding of networks that compute internally
# in the next lower precision: single (2e-5 at most measured) and bfloat16 (1e-2). A computation that one mode does not
# differentiate causes an asymmetry of 1e-3 to 1.
BOUNDS = {torch.float64: 1e-4, torch.float32: 2e-2}
RANDOM = (
    "the network gives different logits for the same inputs, so that it has no Hessian: put dropout and other random "
    "layers into evaluation mode by network.eval(), and let the network keep no state between calls"
)


def function(network: nn.Module | Logits) -> Logits:
    """Function from parameters (D,) and inputs (n, …) to the logits (n, k) of `network`, differentiable twice.

    It runs without fused kernels of torch that lack exact second derivatives (see `kernels.differentiable`).
    """
    return kernels.exact(networks.logits_function(network))


def hessian_products(problem: Problem, parameters: Tensor) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Map from directions (d, D) to Hessian products (d, D) of the total loss and logit tangents (d, n, k).

    The map returns both as a pair, taken at `parameters` (D,). The tangents are the derivatives of the logits along the
    directions. The network of the problem must be a function of parameters and inputs, and its examples must be one
    batch. Like the other maps in this module, this one raises ValueError if torch cannot differentiate the network.
    """

    def objective(theta):
        outputs = problem.network(theta, problem.inputs)
        return problem.loss.total(outputs / problem.temperature, problem.labels), outputs

    def backward_twice(directions):
        theta = parameters.detach().requires_grad_()
        total, outputs = objective(theta)
        along, gradient = _pushed(theta, outputs), _differentiable(total, theta)
        return derivatives(gradient, theta, directions), along(directions)

    return _first_that_works(vmap(_along(grad(objective, has_aux=True), parameters)), backward_twice)


def products(problem: Problem, parameters: Tensor, part: str) -> Callable[[Tensor], Tensor]:
    """Map from directions (d, D) to products (d, D) with a `part` of the Hessian of the total loss.

    The Hessian H is taken at `parameters` (D,). `part` is `hessian` for the whole H, `gauss_newton` for its
    Gauss–Newton part G or `residual` for H′ = H − G. At its first call, the map builds the autograd graph of a first
    derivative, which it keeps for later calls. Each direction takes one backward pass through this graph, or two for G;
    on a GPU, all directions share a pass. If torch cannot do the second backward pass, the map uses forward over
    reverse mode.
    """
    backward = cache(lambda: _twice_backward(problem, parameters, part))
    return _first_that_works(lambda directions: backward()(directions), products_forward(problem, parameters, part))


def _twice_backward(problem: Problem, parameters: Tensor, part: str) -> Callable[[Tensor], Tensor]:
    theta = parameters.detach().requires_grad_()
    outputs = problem.network(theta, problem.inputs) / problem.temperature
    if part == "gauss_newton":
        curved, along = problem.loss.curvature(outputs.detach(), problem.labels), _pushed(theta, outputs)

        def products(directions: Tensor) -> Tensor:
            return derivatives(outputs, theta, torch.stack([curved(each) for each in along(directions)]))

        return products
    if part == "hessian":
        gradient = _differentiable(problem.loss.total(outputs, problem.labels), theta)
    else:
        gradient = _differentiable(outputs, theta, problem.loss.gradient(outputs.detach(), problem.labels))
    return lambda directions: derivatives(gradient, theta, directions)


def products_forward(problem: Problem, parameters: Tensor, part: str) -> Callable[[Tensor], Tensor]:
    """Map from directions (d, D) to products (d, D), computed by forward over reverse mode.

    The products and the arguments are those of `products`. This mode also differentiates computations that reverse
    mode leaves out.
    """
    if part == "residual":
        whole, gauss_newton = (products_forward(problem, parameters, each) for each in ("hessian", "gauss_newton"))
        return lambda directions: whole(directions) - gauss_newton(directions)
    if part == "hessian":
        push = hessian_products(problem, parameters)
        return lambda directions: push(directions)[0]

    def of_inputs(theta):
        return problem.network(theta, problem.inputs) / problem.temperature

    def forward_and_back(directions):
        outputs, pull = vjp(of_inputs, parameters)  # pyright: ignore[reportAssignmentType]
        push, curved = _along(of_inputs, parameters), problem.loss.curvature(outputs, problem.labels)
        return vmap(lambda direction: pull(curved(push(direction)))[0])(directions)

    return _first_that_works(
        forward_and_back, lambda directions: _twice_backward(problem, parameters, part)(directions)
    )


def radial_derivative(problem: Problem, parameters: Tensor) -> float:
    """Radial derivative ⟨∇L, θ⟩ of the total loss L of a problem at the `parameters` θ (D,)."""

    def objective(theta):
        return problem.loss.total(problem.network(theta, problem.inputs) / problem.temperature, problem.labels)

    def backwards(direction):
        theta = parameters.detach().requires_grad_()
        return derivative(objective(theta), theta, None) @ direction

    return float(_first_that_works(_along(objective, parameters), backwards)(parameters))


def tangents(logits: Logits, parameters: Tensor, inputs: Tensor) -> Callable[[Tensor], Tensor]:
    """Map from a direction (D,) to the derivative (n, k), along it, of the logits of `inputs` at `parameters` (D,)."""

    def backward_twice(direction):
        theta = parameters.detach().requires_grad_()
        return _pushed(theta, logits(theta, inputs))(direction[None])[0]

    return _first_that_works(_along(lambda theta: logits(theta, inputs), parameters), backward_twice)


def _along(function: Callable, parameters: Tensor) -> Callable:
    """Map from a direction (D,) to the derivative along it of a `function` of the `parameters`, by forward mode."""
    return lambda direction: jvp(function, (parameters,), (direction,))[1]


def jacobian(logits: Logits, parameters: Tensor, inputs: Tensor) -> Tensor:
    """Jacobian (n, k, D) of the logits of `inputs` (n, …) with respect to the parameters, at `parameters` (D,)."""
    theta = parameters.detach().requires_grad_()
    outputs = logits(theta, inputs)
    seeds = torch.eye(outputs.numel(), dtype=outputs.dtype, device=outputs.device).view(-1, *outputs.shape)

    found = _first_that_works(
        lambda seeds: torch.autograd.grad(outputs, theta, seeds, is_grads_batched=True, retain_graph=True)[0],
        lambda seeds: torch.stack([derivative(outputs, theta, seed) for seed in seeds]),
    )
    return found(seeds).view(*outputs.shape, -1)


def pulled(
    logits: Logits,
    parameters: Tensor,
    chunks: Iterable[Tensor],
    cotangents: Tensor | Sequence[Tensor],
    dtype: torch.dtype,
) -> Tensor:
    """Vector–Jacobian products (m, D) of the logits with m `cotangents` (n, k), summed over examples.

    `chunks` are consecutive parts of the inputs of all n examples. Products are accumulated in `dtype`.
    """
    theta, start = parameters.detach().requires_grad_(), 0
    found = torch.zeros(len(cotangents), len(theta), dtype=dtype, device=theta.device)
    for some in chunks:
        outputs = logits(theta, some)
        for row, cotangent in zip(found, cotangents):
            seed = cotangent[start : start + len(some)].to(outputs.dtype)
            row += torch.autograd.grad(outputs, theta, seed, retain_graph=True)[0]
        start += len(some)
    return found


def _pushed(theta: Tensor, outputs: Tensor) -> Callable[[Tensor], Tensor]:
    """Map from directions v (d, D) to derivatives J v (d, n, k) of the `outputs` along them.

    J is the Jacobian of `outputs` (n, k) with respect to `theta` (D,). The outputs must have an autograd graph. Two
    backward passes replace forward mode: ⟨Jᵀu, v⟩ is linear in u, so that its gradient with respect to u is J v.
    """
    u = torch.zeros_like(outputs, requires_grad=True)
    pulled = _differentiable(outputs, theta, u)
    return lambda directions: derivatives(pulled, u, directions)


def _differentiable(outputs: Tensor, inputs: Tensor, cotangent: Tensor | None = None) -> Tensor:
    """Derivative of ⟨outputs, cotangent⟩ with respect to `inputs`, with an autograd graph of its own.

    It can thus be differentiated again. `cotangent` is None if `outputs` is a single number. Raises ValueError if the
    derivative passes through a function that is differentiable only once.
    """
    (found,) = torch.autograd.grad(outputs, inputs, cotangent, create_graph=True, materialize_grads=True)
    if passes(found, "torch::autograd::Error"):
        raise ValueError(
            "the network has a torch.autograd.Function that can be differentiated only once, so that torch would omit "
            "its second derivative: write its backward in torch's operations, without once_differentiable"
        )
    return found


def passes(outputs: Tensor, name: str) -> bool:
    """Whether the autograd graph of the tensor `outputs` has a node called `name`."""
    seen, left = set(), [outputs.grad_fn]
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        if node.name() == name:
            return True
        seen.add(node)
        left += [each for each, _ in node.next_functions]
    return False


def derivative(outputs: Tensor, inputs: Tensor, cotangent: Tensor | None) -> Tensor:
    """Derivative of ⟨outputs, cotangent⟩ with respect to the inputs; zero if the outputs do not depend on them.

    `cotangent` is None if `outputs` is a single number. The autograd graph of the outputs is kept.
    """
    if not outputs.requires_grad:
        return torch.zeros_like(inputs)
    (found,) = torch.autograd.grad(outputs, inputs, cotangent, retain_graph=True, materialize_grads=True)
    return found


def derivatives(outputs: Tensor, inputs: Tensor, cotangents: Tensor) -> Tensor:
    """Derivatives (d, …) of ⟨outputs, cotangent⟩ with respect to the inputs, for each of the `cotangents` (d, …).

    They are zero if the outputs do not depend on the inputs. On a GPU, where one small backward pass leaves most of the
    processor idle, all cotangents go through the graph together.
    """
    if cotangents.is_cuda and len(cotangents) > 1 and outputs.requires_grad:
        options = {"retain_graph": True, "materialize_grads": True, "is_grads_batched": True}
        with warnings.catch_warnings(), contextlib.suppress(RuntimeError):  # An operation may lack a rule for batches.
            warnings.filterwarnings("ignore", message="There is a performance drop")
            return torch.autograd.grad(outputs, inputs, cotangents, **options)[0]
    return torch.stack([derivative(outputs, inputs, each) for each in cotangents])


def _first_that_works(quick: Callable, general: Callable) -> Callable:
    """Map that calls `quick` until it raises a RuntimeError, and `general` from then on.

    Torch raises RuntimeError, for example, for operations without a forward derivative or a batching rule. If `general`
    raises one, too, or if torch rejects the network as random, the map raises ValueError. It passes on out-of-memory
    errors.
    """
    refusals = []

    def either(directions: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        if not refusals:
            try:
                return quick(directions)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                if "random" in str(error):
                    raise ValueError(RANDOM) from error
                refusals.append(said(error))
        try:
            return general(directions)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise ValueError(
                f"torch can differentiate the network neither by the fast method ({refusals[0]}) nor by the general "
                f"one ({said(error)}): replace the layer or operation that these errors name"
            ) from error

    return either


def said(error: Exception) -> str:
    """Type and first sentence of an error from torch or a network, for use within a message."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0].split('. ')[0].rstrip('.:')}"


def refuse_unfit_logits(logits: Logits, parameters: Tensor, inputs: Tensor, part: str = "hessian") -> None:
    """Raise ValueError if automatic differentiation would not give a correct `part` of the Hessian.

    The reasons are those of `refuse_random` and `refuse_unfit_derivatives`. The tests are made at `parameters` (D,), on
    a few of the `inputs` (n, …).
    """
    refuse_random(logits, parameters, inputs)
    refuse_unfit_derivatives(logits, parameters, inputs, part)


def refuse_unfit_derivatives(logits: Logits, parameters: Tensor, inputs: Tensor, part: str = "hessian") -> None:
    """Raise ValueError if the logits of an example depend on other examples, or if derivatives are unfit.

    Derivatives are unfit if the logits do not depend on the parameters, or if a `part` of the Hessian, named as in
    `products`, is not symmetric. The tests are made at `parameters` (D,), on a few of the `inputs` (n, …).
    """
    _refuse_mixing(logits, parameters, inputs)
    _refuse_asymmetric_products(logits, parameters, inputs, part)


def _refuse_mixing(logits: Logits, parameters: Tensor, inputs: Tensor) -> None:
    # Compare each example at two places among different others: a recurrence over the batch sees only preceding ones.
    chosen = [2, 0] if len(inputs) > 2 else [1, 1] if len(inputs) == 2 else [0]
    alone, among = logits(parameters, inputs[chosen]), logits(parameters, inputs[:3])[chosen]
    # Logits that are not finite are reported later, together with their examples.
    if torch.isfinite(among).all() and (alone - among).abs().max() > 1e-3 * among.abs().max():
        raise ValueError(
            "the network mixes the examples of a batch, so that it has no loss per example: let the logits of one "
            "example depend on no other, for instance not by attention over the batch or by its mean"
        )


def refuse_random(logits: Logits, parameters: Tensor, inputs: Tensor) -> None:
    """Raise ValueError if the logits of the first input differ between calls, or their computation is random."""
    generator = torch.cuda if parameters.is_cuda else torch
    states, found = [generator.get_rng_state()], []
    for _ in range(CALLS):
        found.append(logits(parameters, inputs[:1]).nan_to_num())
        states.append(generator.get_rng_state())
    if not all(torch.equal(*pair) for pairs in (found, states) for pair in pairwise(pairs)):
        raise ValueError(RANDOM)


def refuse_asymmetric(matrix: Tensor, size: float = 0.0) -> None:
    """Raise ValueError if a matrix (d, d) is asymmetric beyond rounding, relative to its norm plus `size`.

    `size` is the norm of terms that have cancelled in the sum that gave the matrix. They do not add to its norm, but to
    its rounding errors.
    """
    size = size + float(torch.linalg.matrix_norm(matrix, dtype=torch.float64))
    asymmetry = float(torch.linalg.matrix_norm(matrix - matrix.T, dtype=torch.float64))
    # Entries that are not finite are reported later, together with their examples.
    if asymmetry > BOUNDS[matrix.dtype] * size:
        raise ValueError(
            f"second derivatives are not symmetric, by {asymmetry / size:.1g} of their size, so they form no Hessian, "
            "probably because only forward mode differentiates what is computed under torch.no_grad or on .data: "
            "remove both from the network's forward pass, and use detach for what is meant to be constant"
        )


def _refuse_asymmetric_products(logits: Logits, parameters: Tensor, inputs: Tensor, part: str) -> None:
    """Raise ValueError if a `part` A of the Hessian is not symmetric, or if the logits do not depend on the parameters.

    Symmetry is checked on a few inputs, and only if the network computes something under torch.no_grad or on .data,
    which reverse mode does not differentiate. The check compares ⟨u, Av⟩ with ⟨v, Au⟩ for v ∝ Au, which maximises ⟨v,
    Au⟩. The vector u has random entries in one slice of the parameter vector and zeros elsewhere. Each of PIECES slices
    is checked separately, because its error may be small relative to the whole matrix. The loss is the squared error,
    which does not saturate.
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
    push = products_forward(Problem(logits, some, labels, "mean_squared_error"), parameters, part)
    random = torch.randn(len(parameters), generator=torch.Generator().manual_seed(0)).to(parameters)
    for places in torch.arange(len(parameters), device=parameters.device).tensor_split(PIECES):
        u = torch.zeros_like(random).index_copy_(0, places, random[places])[None]
        pushed = push(u)
        v = pushed * (u.norm() / pushed.norm())
        refuse_asymmetric(torch.cat([u, v]) @ torch.cat([pushed, push(v)]).T)


class _Watch(TorchFunctionMode):
    """Mode that sets `unseen` if a tensor that requires gradients is used under torch.no_grad, or through .data.

    Reverse mode leaves out such computations.
    """

    unseen = False

    def __torch_function__(self, function: Callable, types: tuple, arguments: tuple = (), options: dict | None = None):
        data = Tensor.data.__get__  # pyright: ignore[reportAttributeAccessIssue]
        if not torch.is_grad_enabled() or function == data:
            given = [*arguments, *(options or {}).values()]
            nested = [each for some in given if isinstance(some, list | tuple) for each in some]
            self.unseen |= any(isinstance(each, Tensor) and each.requires_grad for each in given + nested)
        return function(*arguments, **(options or {}))
