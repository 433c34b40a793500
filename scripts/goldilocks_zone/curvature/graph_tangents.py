"""d tangents and one adjoint through the graph of any network: projected Hessians at a point.

As in `tangents`, with one rule for each kind of operation in place of layers (`graph_rules`). Chunks have as many
examples as the graph was traced with; the last one is filled up with examples that do not count.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from goldilocks_zone.curvature import autodiff, graph_rules
from goldilocks_zone.curvature.accumulators import Sums, orthonormalised
from goldilocks_zone.curvature.arguments import in_precision
from goldilocks_zone.curvature.directions import Directions
from goldilocks_zone.curvature.graph_rules import Point, Rule
from goldilocks_zone.curvature.tangents import BYTES_PER_LAYER, EXAMPLES_PER_CHUNK, Ray
from goldilocks_zone.models import graphs, networks
from goldilocks_zone.models.graphs import INPUTS, PARAMETERS, Graph
from goldilocks_zone.models.layers import Dense

EXAMPLES_COMPARED, DIRECTIONS_COMPARED = 6, 3


@dataclass(frozen=True)
class Traced:
    """A network with its graph on a few examples, in double precision."""

    network: nn.Module | networks.Logits
    graph: Graph

    @property
    def layers(self) -> tuple[Dense, ...]:
        """Its matrices of parameters, each once, as layers of a chain, for `Directions`."""
        found = {each.place.start: graph_rules.layer_of(each) for each in graphs.weights_of(self.graph).values()}
        return tuple(found.values())


def traced(network: nn.Module | networks.Logits, points: Sequence[Tensor], inputs: Tensor) -> Traced | None:
    """The graph of a network, if it gives the network's logits and their gradient at all points (D,) and the rules give
    its second derivatives; None otherwise."""
    some = in_precision(networks.few(inputs, EXAMPLES_COMPARED), torch.float64)
    try:
        graph = graphs.traced(network, points[0].double(), some)
        found = graphs.agrees(graph, network, points, some) and _follows_rules(graph, points[0].double(), some)
    except (graphs.Untraceable, RuntimeError):
        # An operation depends on values, or has no derivative of this kind or order.
        return None
    return Traced(network, graph) if found else None


def _follows_rules(graph: Graph, theta: Tensor, inputs: Tensor) -> bool:
    """Whether the rules give the second derivatives of a graph along a few directions, as two backward passes do."""
    rows = torch.randn(DIRECTIONS_COMPARED, len(theta), generator=torch.Generator().manual_seed(0)).to(theta)
    leaf = theta.detach().clone().requires_grad_()
    outputs = graph.results(leaf, inputs)[graph.output]
    adjoint = graphs.some_adjoint(outputs)
    (slopes,) = torch.autograd.grad(outputs, leaf, adjoint, create_graph=True)
    expected = torch.stack([autodiff.derivative(slopes, leaf, row) for row in rows]) @ rows.T
    _, found, _ = _pushed(graph, graph.results(leaf, inputs), adjoint, Directions(rows, ()))
    return networks.same_to_rounding(found, expected)


def adder(ray: Ray, inputs: Tensor, total: Sums, memory_mib: float) -> Callable[[Tensor, Tensor], None]:
    """The function that adds examples to the sums of all points of a ray; `inputs` are some of the examples."""
    traced, theta, known = ray.network, ray.theta, {}
    autodiff.refuse_unfit_logits(autodiff.function(traced.network), theta, in_precision(inputs, theta.dtype))
    # Chunks of the same size, as the last one is filled up.
    fitting = plan(traced.graph, ray.directions, memory_mib, cached=theta.device.type == "cpu")
    chunks = -(-len(inputs) // fitting)
    examples = -(-len(inputs) // chunks)

    def graph_of(some: Tensor) -> Graph:
        if (shape := some.shape[1:]) not in known:
            filled = _filled(some, examples)
            known[shape] = graph = graphs.traced(traced.network, theta, filled)
            # At another size a network may go another way, which must be its own, too.
            if graph.names != traced.graph.names and not graphs.agrees(graph, traced.network, [theta], filled):
                raise ValueError(autodiff.RANDOM)
        return known[shape]

    def add(inputs: Tensor, labels: Tensor) -> None:
        for some, those in zip(inputs.split(examples), labels.split(examples)):
            some = in_precision(some, torch.float64)
            for number, scale in enumerate(ray.scales):
                _add_point(graph_of(some), scale * theta, ray.directions, (some, those), total, number)

    return add


def _filled(inputs: Tensor, examples: int) -> Tensor:
    """Inputs and copies of the first one, so many `examples` together."""
    missing = examples - len(inputs)
    return torch.cat([inputs, inputs[:1].expand(missing, *inputs.shape[1:])]) if missing else inputs


def plan(graph: Graph, directions: Directions, memory_mib: float, cached: bool) -> int:
    """How many examples go through at a time, at least one, so that working memory stays below `memory_mib` and, where
    values are `cached`, in the processor's cache."""
    size, d = directions.dtype.itemsize, len(directions)
    entries = _entries_by_example(graph)
    # Results with what autograd keeps of them, and adjoints, in double precision; values in that of the tangents.
    per_example = sum(entries.values()) * (3 * 8 + 2 * size) + _live(graph, entries) * d * size
    parameters = graph.operations[PARAMETERS].shape[0]
    fixed = 2 * d * parameters * size
    left = max(memory_mib * 2**20 - fixed, memory_mib * 2**18)
    in_cache = BYTES_PER_LAYER / (d * size * max(entries.values(), default=1))
    # Each chunk reads all Ẇ: tangents of activations should be as large.
    as_large = 2 * parameters / max(sum(entries.values()), 1)
    fitting = left / max(per_example, 1)
    if cached:
        fitting = min(fitting, max(4, in_cache, as_large), EXAMPLES_PER_CHUNK)
    return max(1, int(fitting))


def _entries_by_example(graph: Graph) -> dict[int, float]:
    """Entries for each example of the results that depend on parameters and inputs."""
    varies, found = {INPUTS}, {}
    for each in graph.operations:
        if varies.intersection(each.sources):
            varies.add(each.number)
            if each.moves and each.shape is not None:
                found[each.number] = each.shape.numel() / graph.examples
    return found


def _live(graph: Graph, entries: dict[int, float]) -> float:
    """The most entries of an example whose tangents are there at once, with those of the operation at work twice."""
    left, held, most = {each.number: len(each.users) for each in graph.operations}, 0.0, 0.0
    for each in graph.operations:
        held += entries.get(each.number, 0)
        most = max(most, held + entries.get(each.number, 0))
        for source in set(each.sources):
            left[source] -= 1
            held -= 0 if left[source] else entries.get(source, 0)
    return most


def _add_point(
    graph: Graph,
    theta: Tensor,
    directions: Directions,
    examples: tuple[Tensor, Tensor],
    total: Sums,
    number: int,
) -> None:
    """Add examples, at most as many as the graph has, to the sums of one point θ (D,)."""
    inputs, labels = examples
    count, place = len(inputs), slice(number, number + 1)
    results = graph.results(theta.detach().clone().requires_grad_(), _filled(inputs, graph.examples))
    outputs = results[graph.output].detach()[:count]
    adjoint = torch.zeros_like(results[graph.output])
    adjoint[:count] = total.adjoints(outputs[None], labels, place)[0]
    gradient, residual, along = _pushed(graph, results, adjoint, directions)
    total.radial_derivative[number] += gradient @ theta
    total.residual[number] += residual
    along = orthonormalised(along[:, :count].transpose(1, 2).contiguous(), total.factor)
    total.add(outputs[None], labels, [(theta.new_ones(1), along)], place)


def _pushed(graph: Graph, results: list, adjoint: Tensor, directions: Directions) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient (D,) of ⟨outputs, adjoint⟩, its second derivatives (d, d), and tangents (d, n, k) of the outputs."""
    point = Point(graph, results, directions, graphs.weights_of(graph))
    rules = {
        each.number: graph_rules.rule_of(each) for each in graph.operations if each.moves and each.number != PARAMETERS
    }
    wanted, outputs = [PARAMETERS, *_bending(point, rules)], results[graph.output]
    found = torch.autograd.grad(outputs, [results[i] for i in wanted], adjoint, allow_unused=True)
    point.adjoints = {i: each for i, each in zip(wanted, found) if each is not None}
    gradient, raw = point.adjoints.pop(PARAMETERS), directions.part(slice(None))
    residual = outputs.new_zeros(len(raw), len(raw), requires_grad=False)
    tangents, owned = point.tangents, set()
    tangents[PARAMETERS] = raw
    left = {each.number: len(each.users) for each in graph.operations}
    for i, rule in rules.items():
        operation = graph.operations[i]
        sources = set(operation.sources)
        moving = any(tangents.get(source) is not None for source in sources)
        if moving and _is_differentiable(results[i]):
            point.free = {source for source in sources & owned if left[source] == 1}
            tangents[i], added = rule.push(operation, point)
            if added is not None:
                residual += added
            if not rule.owns:
                owned -= sources
            elif isinstance(tangents[i], Tensor) and 0 not in tangents[i].stride():
                owned.add(i)
        for source in sources:
            left[source] -= 1
            if not left[source]:
                tangents.pop(source, None)
    along = tangents.get(graph.output)
    return gradient, residual, raw.new_zeros(len(raw), *outputs.shape) if along is None else along


def _bending(point: Point, rules: dict[int, Rule]) -> list[int]:
    """Numbers of the results of operations with a second derivative."""
    found = []
    for i, rule in rules.items():
        operation = point.graph.operations[i]
        if rule.bends:
            found += [i] if operation.shape is not None else operation.users
    return [i for i in found if _is_differentiable(point.results[i])]


def _is_differentiable(result: object) -> bool:
    """Whether a result has a tangent; several together are taken apart later."""
    return not isinstance(result, Tensor) or result.requires_grad
