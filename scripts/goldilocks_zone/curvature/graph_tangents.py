"""Projected Hessians of any network at a point, from d tangents and one adjoint that pass through its graph.

The method is the one of the module `tangents`, with a rule for each kind of operation (`graph_rules`) instead of
layers. Chunks have as many examples as the graph was traced with; the last chunk is padded with examples that do not
count.
"""

import itertools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor, nn

from goldilocks_zone.curvature import autodiff, graph_degrees, graph_points, graph_rules
from goldilocks_zone.curvature.accumulators import Sums, orthonormalised
from goldilocks_zone.curvature.arguments import in_precision
from goldilocks_zone.curvature.directions import Directions
from goldilocks_zone.curvature.graph_points import Point, Rule, Tangents
from goldilocks_zone.curvature.homogeneous_sweep import same, spanning
from goldilocks_zone.curvature.tangents import BYTES_PER_LAYER, EXAMPLES_PER_CHUNK, Ray, by_scale
from goldilocks_zone.models import graphs, networks
from goldilocks_zone.models.graphs import INPUTS, PARAMETERS, Graph, Weights
from goldilocks_zone.models.layers import Dense

EXAMPLES_COMPARED, DIRECTIONS_COMPARED = 6, 3
LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Traced:
    """A network and its graph, traced on a few examples in double precision."""

    network: nn.Module | networks.Logits
    graph: Graph

    @property
    def layers(self) -> tuple[Dense, ...]:
        """Weight matrices in the graph, each once, as dense layers without biases for use in `Directions`."""
        found = {each.place.start: graph_points.layer_of(each) for each in graphs.weights_of(self.graph).values()}
        return tuple(found.values())


def traced(network: nn.Module | networks.Logits, points: Sequence[Tensor], inputs: Tensor) -> Traced | None:
    """Trace the graph of a network; None if the trace is not faithful.

    On a few of the `inputs` (n, …), the graph must reproduce the logits of the network and their gradient at all
    `points` (D,), and the rules must reproduce its second derivatives at the first point. Raises ValueError if the
    network is random.
    """
    some = in_precision(networks.few(inputs, EXAMPLES_COMPARED), torch.float64)
    for _ in range(1 + graphs.are_kept(network)):  # Graphs that were kept may be outdated.
        if found := _faithful(network, points, some):
            return found
        graphs.forget(network)
    return None


def _faithful(network: nn.Module | networks.Logits, points: Sequence[Tensor], some: Tensor) -> Traced | None:
    """Trace the graph of a network on the inputs `some`; None if it fails the tests of `traced`.

    The tests are made at the `points` (D,), on the same inputs.
    """
    theta = points[0].double()

    def follows_rules() -> bool:
        autodiff.refuse_random(autodiff.function(network), theta, some)
        follows = _follows_rules(graph, theta, some)
        if follows and (names := graph_rules.without_rule(graph)):
            LOG.info("operations without a rule of their own, differentiated by torch: %s", ", ".join(names))
        return follows

    try:
        graph = graphs.traced(network, theta, some)
        found = graphs.agrees(graph, network, points, some) and graphs.answered_once(graph, follows_rules)
    except (graphs.Untraceable, RuntimeError):
        # Control flow depends on values, or an operation lacks a derivative of this kind or order.
        return None
    return Traced(network, graph) if found else None


def _follows_rules(graph: Graph, theta: Tensor, inputs: Tensor) -> bool:
    """Whether the rules give the same second derivatives of a graph at θ (D,) as double backward does.

    The derivatives of one combination of the logits of `inputs` (n, …) are compared along a few random directions.
    """
    rows = torch.randn(DIRECTIONS_COMPARED, len(theta), generator=torch.Generator().manual_seed(0)).to(theta)
    leaf = theta.detach().clone().requires_grad_()
    outputs = graph.results(leaf, inputs)[graph.output]
    adjoint = graphs.some_adjoint(outputs)
    (slopes,) = torch.autograd.grad(outputs, leaf, adjoint, create_graph=True)
    expected = torch.stack([autodiff.derivative(slopes, leaf, row) for row in rows]) @ rows.T
    program = Program.of(graph, Ray(None, theta, [1.0], Directions(rows, ())))
    _, bends, _ = carried(program, graph.results(leaf, inputs), adjoint[None], {})
    found = sum((each[0] for each in bends.values()), torch.zeros_like(expected))
    return networks.same_to_rounding(found, expected)


@dataclass(frozen=True)
class Program:
    """A graph with all that is needed to push directions through it.

    rules, weights: dictionaries from the number of an operation to its rule, and to the weight matrix that is its
    result. degree: degree of homogeneity of the logits in the scale of the parameters; None if they are not
    homogeneous, or if all points have one scale. pieces: degrees of the pieces of the parameters, as in
    `graph_degrees.Degrees`; empty if `degree` is None. still: numbers of the pieces in which no direction has entries.
    products: numbers of the products of parameters with constants, whose tangents are shared by points of different
    scales; empty if there is a `degree`, or if all points have one scale.
    """

    graph: Graph
    directions: Directions
    rules: dict[int, Rule]
    weights: dict[int, Weights]
    pieces: dict[int, Fraction]
    still: set[int]
    degree: Fraction | None
    products: set[int]

    @classmethod
    def of(cls, graph: Graph, ray: Ray) -> "Program":
        """Prepare a graph for the directions of a ray, so that the points of the ray share as much work as possible."""
        several = len(set(ray.scales)) > 1
        degrees = graph_degrees.of(graph, ray.theta) if several else None
        places = graphs.places_of(graph).items()
        still = {number for number, place in places if not ray.directions.moves(place)}
        rules = {i.number: graph_rules.rule_of(i) for i in graph.operations if i.moves and i.number != PARAMETERS}
        given = graph, ray.directions, rules, graphs.weights_of(graph)
        if degrees:
            return cls(*given, degrees.pieces, still, degrees.output, set())
        return cls(*given, {}, still, None, graph_rules.products_of_constants(graph, rules) if several else set())

    @property
    def groups(self) -> list[Fraction]:
        """Degrees of the pieces of the parameters in which some direction has entries, ascending; [1] if there is none.

        All pieces of one degree form a group, whose tangents are pushed together. The degree stands for the group.
        """
        return sorted({weight for i, weight in self.pieces.items() if i not in self.still}) or [Fraction(1)]

    def shared(self, scales: Sequence[float]) -> list[tuple[float, dict[int, float]]]:
        """Sets of points that share tangents: pairs of a scale and a dictionary from point numbers to relative scales.

        `scales` has the scale of each point. The first entry of a pair is the scale at which the tangents of the set
        are taken. The relative scale of a point is its scale divided by the scale of the set.
        """
        if self.degree is not None:
            return [(1.0, dict(enumerate(scales)))]
        return [(scale, dict.fromkeys(numbers, 1.0)) for scale, numbers in by_scale(scales).items()]

    def power(self, scales: Tensor, *weights: Fraction) -> Tensor:
        """Factors scales^(degree − Σ weights) from derivatives of the logits at scale 1 to those at `scales`.

        The derivatives are along pieces of the parameters with the degrees `weights`. Without `weights`, these are the
        factors of the logits themselves. A degree of None counts as 0.
        """
        return scales ** float((self.degree or 0) - sum(weights))

    def moving(self, point: Point) -> set[int]:
        """Numbers of the results that have tangents at a point."""
        found = {PARAMETERS}
        for i in self.rules:
            if i not in self.still and point.moves(i) and found.intersection(self.graph.operations[i].sources):
                found.add(i)
        return found


def adder(ray: Ray, inputs: Tensor, total: Sums, memory_mib: float) -> Callable[[Tensor, Tensor], None]:
    """Function that takes inputs and labels of examples, and adds their derivatives to the sums `total`.

    The sums are those at all points of the `ray`. `inputs` are a sample of the examples. Points of the same scale share
    their tangents; if the logits are homogeneous, points of all scales do. Working memory stays below `memory_mib`.
    Raises ValueError as `autodiff.refuse_unfit_derivatives` does, or if the graph is not reproducible.
    """
    traced, theta, known = ray.network, ray.theta, {}
    autodiff.refuse_unfit_derivatives(autodiff.function(traced.network), theta, in_precision(inputs, theta.dtype))
    # Make chunks of equal size, as the last one is padded.
    fitting = plan(Program.of(traced.graph, ray), ray.scales, memory_mib, cached=theta.device.type == "cpu")
    chunks = -(-len(inputs) // fitting)
    examples = -(-len(inputs) // chunks)

    def program_of(some: Tensor) -> Program:
        if (shape := some.shape[1:]) not in known:
            filled = _filled(some, examples)
            graph = graphs.traced(traced.network, theta, filled)
            # A network may take another path for another batch size; check that graph, too.
            if graph.names != traced.graph.names and not graphs.agrees(graph, traced.network, [theta], filled):
                raise ValueError(autodiff.RANDOM)
            known[shape] = Program.of(graph, ray)
        return known[shape]

    def add(inputs: Tensor, labels: Tensor) -> None:
        for some, those in zip(inputs.split(examples), labels.split(examples)):
            some = in_precision(some, torch.float64)
            program, kept = program_of(some), {}
            for scale, points in program.shared(ray.scales):
                _add_points(program, scale * theta, (some, those), total, points, kept)

    return add


def _filled(inputs: Tensor, examples: int) -> Tensor:
    """Pad `inputs` with copies of the first input, so that there are as many as `examples`."""
    missing = examples - len(inputs)
    return torch.cat([inputs, inputs[:1].expand(missing, *inputs.shape[1:])]) if missing else inputs


def plan(program: Program, scales: Sequence[float], memory_mib: float, cached: bool) -> int:
    """Number of examples per chunk for a `program` that is evaluated at several `scales` of the parameters.

    Chunks keep the working memory below `memory_mib` and, if `cached`, their arrays small enough for the CPU cache. A
    chunk has one example even if that needs more.
    """
    graph, directions = program.graph, program.directions
    size, d = directions.dtype.itemsize, len(directions)
    entries = _entries_by_example(graph)
    shared = max(len(each) for _, each in program.shared(scales))
    # Results, arrays saved by autograd and adjoints are in double precision, values in the tangents' precision.
    per_example = sum(entries.values()) * (3 * 8 + 2 * size) + len(program.groups) * _live(graph, entries) * d * size
    per_example += sum(entries.get(i, 0) for i in program.products) * d * size
    if shared > 1:
        moving = {PARAMETERS, *program.rules}
        bent = (entries.get(i, 0) for i, each in program.rules.items() if each.bends(graph.operations[i], moving))
        # Adjoints of all points are stacked while the separate ones are still in memory.
        per_example += 2 * shared * 8 * sum(bent)
    parameters = graph.operations[PARAMETERS].shape[0]
    fixed = 2 * d * parameters * size
    left = max(memory_mib * 2**20 - fixed, memory_mib * 2**18)
    in_cache = BYTES_PER_LAYER / (d * size * max(entries.values(), default=1))
    # Each chunk reads all Ẇ, so the tangents of its activations should be as large. Sweeps add products with Ẇ.
    as_large = 2 * parameters / max(sum(entries.values()), 1)
    fitting, fewest = left / max(per_example, 1), 4 if shared == 1 else 4 * d
    if cached:
        fitting = min(fitting, max(fewest, in_cache, as_large), EXAMPLES_PER_CHUNK)
    return max(1, int(fitting))


def _entries_by_example(graph: Graph) -> dict[int, float]:
    """Number of entries per example of each result that depends on parameters and inputs."""
    varies, found = {INPUTS}, {}
    for each in graph.operations:
        if varies.intersection(each.sources):
            varies.add(each.number)
            if each.moves and each.result is not None:
                found[each.number] = each.result.numel() / graph.examples
    return found


def _live(graph: Graph, entries: dict[int, float]) -> float:
    """Largest number of entries per example in all results whose tangents are in memory at once.

    `entries` are those of `_entries_by_example`. The result of the operation that is being computed counts twice.
    """
    left, held, most = {each.number: len(each.users) for each in graph.operations}, 0.0, 0.0
    for each in graph.operations:
        held += entries.get(each.number, 0)
        most = max(most, held + entries.get(each.number, 0))
        for source in set(each.sources):
            left[source] -= 1
            held -= 0 if left[source] else entries.get(source, 0)
    return most


def _add_points(
    program: Program,
    theta: Tensor,
    examples: tuple[Tensor, Tensor],
    total: Sums,
    points: dict[int, float],
    kept: Tangents,
) -> None:
    """Add the derivatives for `examples`, a pair of inputs and labels, to the sums `total` at points α θ.

    `program` holds the graph and the directions, and `points` maps the number of each point in the sums to its α. There
    are at most as many examples as the graph was traced with. `kept` is as in `carried`.
    """
    (inputs, labels), graph, numbers = examples, program.graph, list(points)
    results = graph.results(theta.detach().clone().requires_grad_(), _filled(inputs, graph.examples))
    outputs, count = results[graph.output], len(inputs)
    scales, temperatures = theta.new_tensor(list(points.values())), total.temperatures[numbers, 0, 0]
    logits = program.power(scales)[:, None, None] * outputs.detach()[:count]
    firsts, kinds = alike = same(program.power(scales) / temperatures)
    residuals = total.residuals(logits[firsts], labels, [numbers[i] for i in firsts])
    spans = spanning(residuals, program.directions.dtype) if len(firsts) > 1 else (residuals, residuals.new_ones(1, 1))
    adjoints = outputs.new_zeros(len(spans[0]), *outputs.shape, requires_grad=False)
    adjoints[:, :count] = spans[0]
    gradients, bends, along = carried(program, results, adjoints, kept)
    coefficients = spans[1][kinds] / temperatures[:, None]
    if gradients is None:
        assert program.degree is not None
        # By Euler's theorem for homogeneous functions.
        radial = float(program.degree) * (residuals[kinds] * logits).sum((1, 2)) / temperatures
    else:
        radial = coefficients @ (gradients @ theta)
    total.radial_derivative[numbers] += radial
    for groups, each in bends.items():
        combined = torch.tensordot(coefficients, each, 1)
        total.residual[numbers] += program.power(scales, *groups)[:, None, None] * combined
    parts = [
        (program.power(scales, group), orthonormalised(each[:, :count].transpose(1, 2).contiguous(), total.factor))
        for group, each in along.items()
    ]
    # With several groups, the proportions of their tangents depend on the scale, so points cannot be merged.
    total.add(logits, labels, parts, numbers, alike if len(parts) == 1 else None)


def carried(
    program: Program, results: list, adjoints: Tensor, kept: Tangents
) -> tuple[Tensor | None, dict[tuple[Fraction, Fraction], Tensor], dict[Fraction, Tensor]]:
    """Push tangents through the graph at a point, given the `results` of all operations and output `adjoints` (q, …).

    Returns three things. The first is the gradients (q, D) of ⟨outputs, adjoint⟩; it is None if `program.degree` is not
    None, because the degree already gives the radial derivative. The second is the second derivatives (q, d, d) of
    ⟨outputs, adjoint⟩ along the directions, by pair of `program.groups`. The third is the tangents (d, …) of the
    outputs, by group. `kept` is a cache of the tangents of `program.products`, by number of the operation. The function
    fills it, so that calls for points of other scales can use it.
    """
    graph, raw = program.graph, program.directions.part(slice(None))
    point, outputs = Point(graph, results, program.directions, program.weights), results[graph.output]
    moving = program.moving(point)
    bending = [i for i, rule in program.rules.items() if i in moving and rule.bends(graph.operations[i], moving)]
    wanted = [*bending, *([PARAMETERS] if program.degree is None else ())]
    point.adjoints = _pulled_back(graph, results, adjoints, wanted)
    gradients, bends = point.adjoints.pop(PARAMETERS, None), {}
    tangents: dict[Fraction, Tangents] = {group: {PARAMETERS: raw} for group in program.groups}
    owned, left = set(), {each.number: len(each.users) for each in graph.operations}
    for i, rule in program.rules.items():
        operation = graph.operations[i]
        sources, groups = set(operation.sources), []
        if i in moving:
            groups = [program.pieces[i]] if i in program.pieces else program.groups
            groups = [each for each in groups if any(tangents[each].get(source) is not None for source in sources)]
        for one, other in itertools.combinations_with_replacement(groups, 2) if i in bending else ():
            found = rule.bend(operation, point, tangents[one], tangents[other])
            if found is not None:
                found = (found if one == other else found + found.mT).double()
                bends[one, other] = bends[one, other] + found if (one, other) in bends else found
        for group in groups:
            point.tangents, ours = tangents[group], {source for source in sources if (group, source) in owned}
            point.free = {source for source in ours if left[source] == 1}
            tangents[group][i] = rule.push(operation, point) if i not in kept else kept[i]
            if i in program.products:
                kept[i] = tangents[group][i]
            elif not rule.owns:
                owned -= {(group, source) for source in ours}
            elif isinstance(tangents[group][i], Tensor) and 0 not in tangents[group][i].stride():
                owned.add((group, i))
        for source in sources:
            left[source] -= 1
            for each in tangents.values() if not left[source] else ():
                each.pop(source, None)
    along = {group: each[graph.output] for group, each in tangents.items() if each.get(graph.output) is not None}
    return gradients, bends, along or {program.groups[0]: raw.new_zeros(len(raw), *outputs.shape)}


def _pulled_back(graph: Graph, results: list, adjoints: Tensor, wanted: list[int]) -> dict[int, Tensor]:
    """Adjoints (q, …) of the results of the `wanted` operations, by number of the operation.

    In place of an operation with several results, the operations that select one of them are returned. Results on which
    the output does not depend are left out.
    """
    parts = (([i] if graph.operations[i].result is not None else graph.operations[i].users) for i in wanted)
    numbers = [i for i in itertools.chain(*parts) if results[i].requires_grad]
    if not numbers:
        return {}
    found, given = [], [results[i] for i in numbers]
    for number, each in enumerate(adjoints, 1):
        more = number < len(adjoints)
        found.append(torch.autograd.grad(results[graph.output], given, each, retain_graph=more, allow_unused=True))
    return {i: torch.stack(each) for i, each in zip(numbers, zip(*found)) if each[0] is not None}
