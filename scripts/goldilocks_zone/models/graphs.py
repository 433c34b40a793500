"""Networks as graphs of torch operations, traced from a forward pass, for rule-based derivatives.

A trace holds the operations of one forward pass at fixed shapes. It misses instructions to autograd, such as detach,
no_grad or a custom backward pass. Before a graph is used, `agrees` therefore compares its logits and their gradient
with those of the network.
"""

import weakref
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functionalize
from torch.fx.node import map_arg
from torch.utils import _pytree as pytree

from goldilocks_zone.models import kernels, networks

aten = torch.ops.aten


@dataclass(frozen=True)
class Reference:
    """Reference to the result of the operation at position `number` of a graph."""

    number: int


@dataclass(frozen=True)
class Operation:
    """A torch operation `target` on earlier results and constants.

    number: position in the graph. name: torch's name of the operation. args, kwargs: its arguments, in which a
    `Reference` stands for each earlier result. moves: True if the result depends on the parameters. result: shape of
    the result, or None if the result is not a single tensor. users: numbers of the operations that take the result as
    an argument.
    """

    number: int
    name: str
    target: Callable
    args: tuple
    kwargs: dict
    moves: bool
    result: torch.Size | None
    users: list[int] = field(default_factory=list)

    @property
    def shape(self) -> torch.Size:
        """Shape of the result of an operation whose result is a single tensor."""
        assert self.result is not None, f"{self.name} has several results"
        return self.result

    @cached_property
    def sources(self) -> list[int]:
        """Numbers of the earlier results among the arguments, each as often as it occurs."""
        return [each.number for each in pytree.tree_leaves((self.args, self.kwargs)) if isinstance(each, Reference)]

    def filled(self, with_value: Callable[[int], object]) -> tuple[list, dict]:
        """Arguments and keyword arguments, with each reference replaced by `with_value(number)`."""

        # Torch's tree_map takes eight times as long, which is more than a small operation.
        def value(part: object) -> Any:
            if isinstance(part, Reference):
                return with_value(part.number)
            return [value(each) for each in part] if isinstance(part, list | tuple) else part

        return value(self.args), {name: value(each) for name, each in self.kwargs.items()}


PARAMETERS, INPUTS = 0, 1  # numbers of the first two results, which are the arguments of a graph


@dataclass(frozen=True)
class Graph:
    """Operations that compute logits (n, k) from θ (D,) and inputs (n, …), in order.

    The first two stand for θ and the inputs. output: number of the operation whose result is the logits. examples: n,
    which the trace has fixed.
    """

    operations: list[Operation]
    output: int
    examples: int

    @property
    def names(self) -> list[str]:
        """Torch's names of all operations, in order."""
        return [each.name for each in self.operations]

    def results(self, theta: Tensor, inputs: Tensor) -> list:
        """Compute the results of all operations, in order, at `theta` (D,) for `inputs` (n, …)."""
        found = []
        for each in self.operations:
            if each.number in (PARAMETERS, INPUTS):
                found.append((theta, inputs)[each.number])
                continue
            args, kwargs = each.filled(found.__getitem__)
            found.append(each.target(*args, **kwargs))
        return found


@dataclass(frozen=True)
class Weights:
    """Description of a result that is a weight matrix or, if `turned` is True, its transpose.

    The entries of the weight matrix are the slice `place` of θ; `shape` is the shape before transposition.
    """

    place: slice
    shape: torch.Size
    turned: bool = False


def places_of(graph: Graph) -> dict[int, slice]:
    """Find the results that are contiguous parts of θ; maps the number of each to its slice of θ."""
    found, operations = {}, graph.operations
    for number in operations[PARAMETERS].users:
        each = operations[number]
        if each.target is aten.split_with_sizes.default:
            sizes = each.args[1]
            for part in (operations[user] for user in each.users):
                start = sum(sizes[: part.args[1]])
                found[part.number] = slice(start, start + sizes[part.args[1]])
        elif each.target is aten.slice.Tensor and len(each.args) == 4:
            start, stop, _ = slice(*each.args[2:]).indices(operations[PARAMETERS].shape[0])
            found[number] = slice(start, stop)
    return found


def weights_of(graph: Graph) -> dict[int, Weights]:
    """Find the results that are weight matrices or their transposes; maps the number of each to its `Weights`."""
    places, found = places_of(graph), {}
    for each in graph.operations:
        source = each.args[0].number if each.args and isinstance(each.args[0], Reference) else None
        if each.target in (aten.view.default, aten.reshape.default) and source in places and len(each.shape) == 2:
            found[each.number] = Weights(places[source], each.shape)
        elif source in found and each.target in (aten.t.default, aten.alias.default):
            turned = found[source].turned != (each.target is aten.t.default)
            found[each.number] = replace(found[source], turned=turned)
    return found


class Untraceable(Exception):
    """Raised for a network that cannot be traced.

    For example, its control flow or shapes depend on values of tensors, it is random, or it changes tensors in place.
    """


@dataclass
class Kept:
    """The graph of a module, kept for later calls.

    `answer` is the result of a test of the graph that the function `answered_once` has run, and None before the test.
    """

    module: weakref.ref
    graph: Graph
    answer: bool | None = None


MOST_KEPT = 8
_kept: dict[tuple[int, Hashable, Hashable], Kept] = {}  # by the id and the state of the module, and by shapes


def traced(network: nn.Module | networks.Logits, theta: Tensor, inputs: Tensor) -> Graph:
    """Trace the graph of a network's logits, for the shapes and the precision of θ (D,) and `inputs` (n, …).

    The graph of a module is kept for later calls until the module's state changes; that of a function is not kept.
    Changes outside the module, such as of global variables, are not detected: test a graph by `agrees`, and drop
    outdated ones by `forget`. Raises Untraceable if the network's control flow or shapes depend on values of tensors,
    if it is random, or if tracing fails.
    """
    if not isinstance(network, nn.Module):
        return _traced(network, theta, inputs)
    state = _state(network)
    shapes = tuple((each.shape, each.dtype, each.device) for each in (theta, inputs))
    known = _kept.get((id(network), state, shapes))
    if known is None or known.module() is not network:
        for key, each in list(_kept.items()):
            if each.module() is None or (key[0] == id(network) and key[1] != state):
                del _kept[key]
        if len(_kept) >= MOST_KEPT:
            _kept.pop(next(iter(_kept)))
        known = Kept(weakref.ref(network), _traced(network, theta, inputs))
        _kept[id(network), state, shapes] = known
    return known.graph


def are_kept(network: nn.Module | networks.Logits) -> bool:
    """Return whether a graph of the network is kept for later calls."""
    return any(each.module() is network for each in _kept.values())


def forget(network: nn.Module | networks.Logits) -> None:
    """Drop all graphs of a network that are kept for later calls."""
    for key in [key for key, each in _kept.items() if each.module() is network]:
        del _kept[key]


def answered_once(graph: Graph, ask: Callable[[], bool]) -> bool:
    """Return the result of a test of the `graph`, which the function `ask` runs.

    If the graph is kept for later calls, the result is kept with it: `ask` is called only once, and later calls return
    the same result.
    """
    known = next((each for each in _kept.values() if each.graph is graph), None)
    if known is None:
        return ask()
    if known.answer is None:
        known.answer = ask()
    return known.answer


def _state(module: nn.Module) -> Hashable:
    """Hashable state of a module and its submodules, which changes when their attributes change.

    It contains numbers, strings and None by value, tensors that are no parameters by identity and version, and all
    other objects, parameters included, by identity. Dictionaries, lists and tuples are searched for these.
    """
    return tuple((type(each), _token(vars(each))) for each in module.modules())


def _token(value: object) -> Hashable:
    if isinstance(value, dict):
        return tuple((name, _token(each)) for name, each in value.items())
    if isinstance(value, list | tuple):
        return tuple(map(_token, value))
    if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
        # Inference tensors have no version, so they count as changed at every call.
        return object() if value.is_inference() else (id(value), value._version)
    return value if isinstance(value, bool | int | float | str | None) else id(value)


def _traced(network: nn.Module | networks.Logits, theta: Tensor, inputs: Tensor) -> Graph:
    # This import takes as long as that of torch.
    from torch.fx.experimental.proxy_tensor import make_fx

    from goldilocks_zone.models import decompositions

    logits = kernels.exact(networks.logits_function(network))

    def recorded(function: Callable) -> torch.fx.GraphModule:
        options = {"tracing_mode": "fake", "_allow_non_fake_inputs": True}
        return make_fx(function, decompositions.TABLE, **options)(theta, inputs)

    def trace(function: Callable) -> torch.fx.GraphModule:
        try:
            return recorded(functionalize(function, remove="mutations"))
        except RuntimeError as error:
            if "setup_context" not in str(error):
                raise
            # The network has an autograd.Function in torch's older form, without setup_context. Such a function cannot
            # be functionalised, but its recorded operations can.
            return trace(recorded(function))

    try:
        found = trace(logits)
        if _changes_tensors(found):
            # In-place changes inside composite operations, such as recurrent layers, appear only after decomposition.
            found = trace(found)
    except networks.Unfit:
        raise
    except Exception as error:
        raise Untraceable(str(error)) from error
    _fold_batches(found.graph)
    found.graph.eliminate_dead_code()
    if _changes_tensors(found):
        raise Untraceable("the network changes tensors in place, and tracing could not replace this")
    return _converted(found, len(inputs))


def _changes_tensors(module: torch.fx.GraphModule) -> bool:
    schemas = (getattr(node.target, "_schema", None) for node in module.graph.nodes)
    return any(schema is not None and schema.is_mutable for schema in schemas)


def _fold_batches(graph: torch.fx.Graph) -> None:
    """Find batched products in which one matrix is repeated over the batch, and make each a single matrix product.

    Tracing turns some dense layers into such batched products. The graph is changed in place.
    """

    def call(target: Callable, *args: Any) -> torch.fx.Node:
        node = graph.call_function(target, args)
        node.meta["val"] = target(*(each.meta["val"] if isinstance(each, torch.fx.Node) else each for each in args))
        return node

    for node in graph.nodes:
        matrix = _repeated(node.args[1]) if node.target is aten.bmm.default else None
        if matrix is not None:
            shape = node.meta["val"].shape
            with graph.inserting_before(node):
                rows = call(aten.reshape.default, node.args[0], [shape[0] * shape[1], matrix.meta["val"].shape[0]])
                found = call(aten.view.default, call(aten.mm.default, rows, matrix), list(shape))
            node.replace_all_uses_with(found)


def _repeated(node: torch.fx.Node) -> torch.fx.Node | None:
    """Node whose result is a matrix that `node` repeats along a new first axis; None if `node` does no such thing."""
    shape = node.meta["val"].shape[1:]
    found: Any = node
    while found.target in (aten.expand.default, aten.view.default) and found.meta["val"].shape[-2:] == shape:
        found = found.args[0]
    return found if found.meta["val"].shape == shape else None


def _converted(module: torch.fx.GraphModule, examples: int) -> Graph:
    operations, numbers = [], {}

    def reference(node: torch.fx.Node) -> Any:
        return Reference(numbers[node])

    for node in module.graph.nodes:
        number = len(operations)
        numbers[node] = number
        args = map_arg(node.args, reference)
        if node.op == "output":
            return Graph(operations, args[0].number, examples)
        kwargs = map_arg(dict(node.kwargs), reference)
        target, seen = node.target, node.meta.get("val")
        if node.op == "get_attr":
            target, args = _constant(getattr(module, node.target)), ()
        if torch.Tag.nondeterministic_seeded in getattr(target, "tags", ()):
            raise Untraceable(f"{target} is random")
        if target is aten.embedding.default and len(args) > 2 and args[2] >= 0:
            raise Untraceable("torch gives the padding row of an embedding no gradient, and a trace misses this")
        moves = number == PARAMETERS or any(
            operations[each.number].moves for each in pytree.tree_leaves((args, kwargs)) if isinstance(each, Reference)
        )
        shape = seen.shape if isinstance(seen, Tensor) else None
        operations.append(Operation(number, str(node.target), target, tuple(args), kwargs, moves, shape))
        for source in set(operations[-1].sources):
            operations[source].users.append(number)
    raise Untraceable("the trace of the network has no output, so its logits are not known")


def _constant(value: object) -> Callable[[], object]:
    return lambda: value


def agrees(graph: Graph, network: nn.Module | networks.Logits, points: Iterable[Tensor], inputs: Tensor) -> bool:
    """Return whether a graph reproduces the network's logits and their gradient at all `points` (D,).

    The graph must have been traced in double precision, and `inputs` must have as many examples as the graph. The
    gradient compared is that of one linear combination of the logits; `some_adjoint` gives the coefficients.
    """
    logits = kernels.exact(networks.logits_function(network))
    return all(_agrees_at(graph, logits, theta.double(), inputs) for theta in points)


def _agrees_at(graph: Graph, logits: networks.Logits, theta: Tensor, inputs: Tensor) -> bool:
    found = []
    for function in (logits, lambda *both: graph.results(*both)[graph.output]):
        point = theta.detach().clone().requires_grad_()
        outputs = function(point, inputs)
        if not outputs.requires_grad:
            return False
        found.append((outputs.detach(), torch.autograd.grad(outputs, point, some_adjoint(outputs))[0]))
    return all(networks.same_to_rounding(ours, theirs) for theirs, ours in zip(*found))


def some_adjoint(outputs: Tensor) -> Tensor:
    """Arbitrary fixed adjoint of `outputs`, in their shape, with distinct entries, for comparisons of gradients."""
    return torch.arange(1, outputs.numel() + 1).to(outputs).cos().view_as(outputs)
