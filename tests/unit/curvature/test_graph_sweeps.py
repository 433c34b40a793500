"""Degrees of homogeneity along graphs, and sweeps over radii and temperatures with shared tangents, against points."""

import itertools

import numpy as np
import pytest
import scipy.sparse
import torch
from torch import nn
from torch.nn import functional

from benchmarks.methods import count_flops
from goldilocks_zone.curvature import dispatch, graph_degrees, graph_tangents, hessian
from goldilocks_zone.models import graphs
from goldilocks_zone.models.problem import Problem
from goldilocks_zone.randomness import stream
from made_up.networks import of_module
from oracles.brute_force import assert_same, picture, relative_error

N, CLASSES, CHANNELS = 10, 3, 4  # examples that no balance of classes cancels
SCALES = [0.03, 0.4, 1.0, 1.7, 6.0]


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def point(module, zero=()):
    """Parameters (D,) of a module, in which the tensors with the indices `zero` in `parameters()` are zero."""
    parts = [each.detach().double().flatten() for each in module.parameters()]
    return torch.cat([torch.zeros_like(each) if number in zero else each for number, each in enumerate(parts)])


def with_zero_biases(module):
    """Parameters (D,) of a module, in which all biases are zero."""
    return point(module, [i for i, (name, _) in enumerate(module.named_parameters()) if name.endswith("bias")])


def compare(module, theta, inputs, rows, scales=SCALES, way=dispatch.GRAPH_SWEEP, temperatures=(1.0,), **options):
    """Assert that a sweep takes the path `way` and agrees, at each point, with the curvature of this point alone.

    The latter is computed with directions in double precision. Returns the results of the sweep.
    """
    labels, points = torch.arange(len(inputs)) % CLASSES, list(itertools.product(scales, temperatures))
    problem, options = Problem(module, inputs, labels), hessian.Options(**options)
    assert dispatch.path_of(problem, theta, len(points)) == way
    found = hessian.curvature_at(problem, theta, points, rows, options)
    logits, eps = graphs.networks.logits_function(module), torch.finfo(rows.dtype).eps
    for (scale, temperature), at_point in zip(points, found, strict=True):
        alone = hessian.curvature_at(problem, scale * theta, [(1.0, temperature)], rows.double(), options)[0]
        for each, expected in zip(at_point, alone, strict=True):
            size = max(1.0, float(logits(scale * theta, inputs).abs().max()) / temperature)
            bound = 200 * max(eps, torch.finfo(torch.float64).eps * size)
            norm = np.linalg.norm(expected.hessian)
            assert np.linalg.norm(each.gauss_newton - expected.gauss_newton) < bound * norm
            assert np.linalg.norm(each.residual - expected.residual) < bound * norm
            assert_same(each, expected, max(bound, 1e-10) if eps < 1e-10 else 10 * bound, scale * theta)
    return found


def normalised(x):
    """Divide each example by its root mean square, without an epsilon."""
    return x / x.square().mean((1, 2, 3), keepdim=True).sqrt()


def convolution(**options):
    return nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, **options)


def pair():
    return nn.ModuleList([convolution(), convolution(bias=False)])


PARTS = {
    "convolution": (convolution, lambda part, x: part(x).relu()),
    "tied": (None, lambda part, x: part(x).relu()),
    "grouped": (lambda: convolution(groups=2), lambda part, x: functional.leaky_relu(part(x), 0.1)),
    "transposed": (lambda: nn.ConvTranspose2d(CHANNELS, CHANNELS, 3, padding=1), lambda part, x: part(x).relu()),
    "residual": (pair, lambda part, x: part[0](x) + part[1](x.relu())),
    "pooled": (convolution, lambda part, x: functional.max_pool2d(part(x), 2, 1, 1)[..., 1:, 1:]),
    "averaged": (convolution, lambda part, x: functional.avg_pool2d(part(x).relu(), 3, 1, 1)),
    "concatenated": (pair, lambda part, x: torch.cat([part[0](x)[:, :2].relu(), part[1](x)[:, 2:]], 1)),
    "gated": (pair, lambda part, x: part[0](x) * part[1](x).abs()),
    "normalised": (convolution, lambda part, x: normalised(part(x))),
    "chosen": (convolution, lambda part, x: torch.where(x > 0, part(x), part(x).flip(1))),
    "padded": (convolution, lambda part, x: functional.pad(part(x), (1, 0, 0, 1))[..., 1:, :-1].clamp_min(0)),
    "across": (
        lambda: nn.Linear(6, 6),
        lambda part, x: part(x.flatten(0, 1)).view_as(x).masked_fill(x < 0, 0.0),
    ),
}


class Random(nn.Module):
    """A network of random homogeneous PARTS on images (n, 2, 6, 6); `number` is the seed of the choice."""

    def __init__(self, number):
        super().__init__()
        choose, kinds = stream("random homogeneous networks", number), list(PARTS)
        torch.manual_seed(number)
        self.kinds = [kinds[choose.integers(len(kinds))] for _ in range(int(choose.integers(2, 6)))]
        # Zero biases of one layer at two depths would have two degrees.
        tied = convolution(bias=False)
        self.parts = nn.ModuleList(tied if kind == "tied" else PARTS[kind][0]() for kind in self.kinds)
        self.first, self.last = nn.Conv2d(2, CHANNELS, 3, padding=1), nn.Linear(CHANNELS, CLASSES)

    def forward(self, x):
        x = self.first(x).relu()
        for kind, part in zip(self.kinds, self.parts):
            x = PARTS[kind][1](part, x)
        return self.last(functional.adaptive_avg_pool2d(x, 1).flatten(1))


@pytest.mark.parametrize(
    "number", [*range(20), *(pytest.param(number, marks=pytest.mark.weekly) for number in range(20, 200))]
)
def test_random_homogeneous_networks(number):
    module = Random(number).double()
    theta = with_zero_biases(module)
    rows = draw(5, len(theta), seed=1)
    if number % 2:
        # Directions that leave the biases where they are.
        rows = rows * torch.cat([torch.full((each.numel(),), each.ndim > 1) for each in module.parameters()])
    compare(module, theta, draw(N, 2, 6, 6, seed=2), rows)


class Mixed(nn.Module):
    """A network with a product, a square and a sum of layers' outputs, homogeneous of degree 5 with zero biases."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.gate = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.last = nn.Linear(8, CLASSES)

    def forward(self, x):
        x = self.first(x).relu()
        return self.last(self.second(x) * self.gate(x) + self.second(x).square())


def test_against_brute_force():
    torch.manual_seed(0)
    module = Mixed().double()
    theta, inputs, labels = with_zero_biases(module), draw(N, 6), torch.arange(N) % CLASSES
    rows, logits = draw(5, len(theta), seed=1), graphs.networks.logits_function(module)
    found = hessian.radial_sweep(Problem(module, inputs, labels), theta, SCALES, rows)
    for scale, each in zip(SCALES, found, strict=True):
        expected = picture(logits, scale * theta, rows, inputs, labels)
        bound = 200 * torch.finfo(torch.float64).eps * max(1.0, float(logits(scale * theta, inputs).abs().max()))
        assert relative_error(each.gauss_newton, expected.gauss_newton) < bound
        assert np.linalg.norm(each.residual - expected.residual) < bound * np.linalg.norm(expected.hessian)
        assert_same(each, expected, max(bound, 1e-10), scale * theta)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("kind", ["dense", "sparse", "matrix"])
def test_chunks_temperatures_and_sparse_directions(kind, dtype):
    torch.manual_seed(0)
    module = Mixed().double()
    theta, inputs = with_zero_biases(module), draw(23, 6)
    rows = draw(5, len(theta), seed=1).to(dtype)
    if kind != "dense":
        rows *= draw(*rows.shape, seed=4).abs() > 2.2
    options = {"temperatures": (1.0, 0.5, 3.0), "examples": [23, 7], "memory_mib": 0.05}
    whole = compare(module, theta, inputs, rows, scales=SCALES[1:4], **options)
    if kind == "matrix":
        problem = Problem(module, inputs, torch.arange(23) % CLASSES)
        points = list(itertools.product(SCALES[1:4], options["temperatures"]))
        given = scipy.sparse.csr_array(rows.numpy())
        found = hessian.curvature_at(problem, theta, points, given, hessian.Options([23, 7]))
        for each, expected in zip(itertools.chain(*found), itertools.chain(*whole), strict=True):
            assert relative_error(each.hessian, expected.hessian) < 1000 * torch.finfo(dtype).eps


class Function(nn.Module):
    """A network that applies `function` to the outputs (n, 6) of two dense layers, and a dense layer to the result."""

    def __init__(self, function):
        super().__init__()
        self.first, self.last, self.function = nn.Linear(6, 6), nn.Linear(6, CLASSES), function
        self.other = nn.Linear(6, 6)

    def forward(self, x):
        return self.last(self.function(self.first(x), self.other(x)))


DEGREES = {
    "relu": (lambda a, b: a.relu() + b, 2),
    "leaky relu": (lambda a, b: functional.leaky_relu(a) - 2 * b, 2),
    "product": (lambda a, b: a * b, 3),
    "powers": (lambda a, b: a**3 + b * b.square(), 4),
    "roots": (lambda a, b: (1 * a.square() + b.square()).sqrt(), 2),
    "quotient": (lambda a, b: a / b.square().mean(1, keepdim=True), 0),
    "reciprocal root": (lambda a, b: a * b.square().mean(1, keepdim=True).rsqrt(), 1),
    "normalised before anything": (lambda a, b: torch.tanh(a / b.norm(dim=1, keepdim=True)) * 3 + 1, 1),
    "layer norm of eps 0": (lambda a, b: functional.layer_norm(a, (6,), eps=0.0) + torch.sign(b), 1),
    "softmax of what is normalised": (lambda a, b: b * (a / a.norm(dim=1, keepdim=True)).softmax(1), 2),
    "maxima": (lambda a, b: torch.maximum(a, b) + a.amax(1, keepdim=True) + a.max(1, keepdim=True).values, 2),
    "sort": (lambda a, b: a.sort(1).values + b.topk(6, 1).values, 2),
    "clamped": (lambda a, b: a.clamp(min=0) + torch.threshold(b, 0.0, 0.0), 2),
    "chosen": (lambda a, b: torch.where(a > b, a, 0.0) + b.masked_fill(a < 0, 0.0), 2),
    "fixed scales and shifts of zero": (lambda a, b: a * torch.linspace(1, 2, 6) + torch.zeros(6), 2),
    "standard deviation": (lambda a, b: a + b.std(1, keepdim=True) + b.norm(dim=1, keepdim=True), 2),
    "one": (lambda a, b: a + 1, None),
    "smooth": (lambda a, b: torch.tanh(a), None),
    "degrees that differ": (lambda a, b: a + a * b, None),
    "relu6": (lambda a, b: functional.relu6(a), None),
    "threshold": (lambda a, b: torch.where(a > 0.1, a, b), None),
    "value": (lambda a, b: b.masked_fill(a < 0, 0.3), None),
    "layer norm": (lambda a, b: functional.layer_norm(a, (6,)), None),
    "normalised with an epsilon": (lambda a, b: functional.normalize(a, dim=1), None),
    "padded with ones": (lambda a, b: functional.pad(a[:, 1:], (0, 1), value=1.0), None),
    "shifted mean": (lambda a, b: functional.batch_norm(a, torch.ones(6), torch.ones(6)), None),
    "whole numbers": (lambda a, b: a * b.long(), None),
    "rounded": (lambda a, b: a * b.half(), None),
    "power of itself": (lambda a, b: b.abs() ** a, None),
    "number of zeros": (lambda a, b: a * b.relu().norm(p=0, dim=1, keepdim=True), 2),
    "detached": (lambda a, b: a * b.detach(), None),
    "detached at degree 0": (lambda a, b: a * b.sign().detach(), 2),
}


@pytest.mark.parametrize("name", DEGREES)
def test_degrees_of_functions(name):
    """Degrees include that of the last layer; logits then scale as α^k."""
    torch.manual_seed(0)
    function, degree = DEGREES[name]
    module, inputs = Function(function).double(), draw(N, 6)
    theta = with_zero_biases(module)
    logits = graphs.networks.logits_function(module)
    graph = graphs.traced(module, theta, inputs)
    found = graph_degrees.of(graph, theta)
    if degree is None:
        assert found is None
        return
    assert found.output == degree
    assert relative_error(logits(2.5 * theta, inputs), 2.5**degree * logits(theta, inputs)) < 1e-13
    # A last bias that is not zero has degree 1, and what is added to it another.
    moved = theta.clone()
    moved[62] = 0.1
    assert graph_degrees.of(graph, moved) is None or degree == 1


def test_layers_below_a_normalisation_are_scale_free():
    torch.manual_seed(0)
    module = Function(lambda a, b: (a * b).relu() / (a * b).norm(dim=1, keepdim=True)).double()
    theta, inputs = with_zero_biases(module), draw(N, 6)
    found = graph_degrees.of(graphs.traced(module, theta, inputs), theta)
    assert found.output == 1 and set(found.pieces.values()) == {1}
    compare(module, theta, inputs, draw(5, len(theta), seed=1))


def test_biases_have_the_degree_of_what_they_are_added_to():
    module = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, CLASSES))
    wrapped = nn.Sequential(Wrapped(module)).double()
    theta, inputs = with_zero_biases(wrapped), draw(N, 6)
    found = graph_degrees.of(graphs.traced(wrapped, theta, inputs), theta)
    assert found.output == 3 and list(found.pieces.values()) == [1, 1, 1, 2, 1, 3]
    compare(wrapped, theta, inputs, draw(5, len(theta), seed=1))


class Wrapped(nn.Module):
    """A module around `inner` that is of no kind known to `chains`, so that the general path is taken."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)


class Branch(nn.Module):
    """A residual branch whose last weights are initialised to zero."""

    def __init__(self):
        super().__init__()
        self.first, self.inner, self.last = nn.Linear(6, 6), nn.Linear(6, 6, bias=False), nn.Linear(6, CLASSES)

    def forward(self, x):
        x = self.first(x).relu()
        return self.last(x + self.inner(functional.relu(x)) * x.abs())


def test_weights_that_are_zero_have_any_degree():
    torch.manual_seed(0)
    module, inputs = Branch().double(), draw(N, 6)
    theta = point(module, zero=[1, 2, 4])
    found = graph_degrees.of(graphs.traced(module, theta, inputs), theta)
    # x + W x |x|: W of weight −1.
    assert found.output == 2 and list(found.pieces.values()) == [1, 1, -1, 1, 2]
    compare(module, theta, inputs, draw(5, len(theta), seed=1))
    full = with_zero_biases(module)
    compare(module, full, inputs, draw(5, len(theta), seed=1), way=dispatch.GRAPH)


@pytest.mark.parametrize(
    "change", [lambda t, x: t, lambda t, x: t.clone()[: len(t)], lambda t, x: torch.cat([t[:20], t[20:]])]
)
def test_parameters_taken_otherwise_than_in_pieces(change):
    """A zero that is also part of something else does not leave the degree free."""

    def logits(theta, inputs):
        theta = change(theta, inputs)
        hidden = (inputs @ theta[:24].view(6, 4) + theta[24:28]).relu()
        return hidden @ theta[28:40].view(4, 3) + theta[25:28]

    theta = draw(40)
    theta[24:28] = 0
    way = graph_degrees.of(graphs.traced(logits, theta, draw(N, 6)), theta)
    assert way is None
    compare(logits, theta, draw(N, 6), draw(4, 40, seed=1), way=dispatch.GRAPH)


@pytest.mark.parametrize("name", ["smooth", "layer norm", "degrees that differ", "relu6"])
def test_networks_that_are_not_homogeneous(name):
    torch.manual_seed(0)
    module = Function(DEGREES[name][0]).double()
    theta = with_zero_biases(module)
    compare(module, theta, draw(N, 6), draw(5, len(theta), seed=1), way=dispatch.GRAPH, temperatures=(1.0, 2.0))


def calls(monkeypatch):
    """Return a list to which every tangent pass that follows appends its number of adjoints."""
    seen, carried = [], graph_tangents.carried
    monkeypatch.setattr(graph_tangents, "carried", lambda *given: seen.append(len(given[2])) or carried(*given))
    return seen


@pytest.mark.parametrize("name, passes", [("smooth", 2), ("relu", 1)])
def test_temperatures_share_tangents(name, passes, monkeypatch):
    torch.manual_seed(0)
    module = Function(DEGREES[name][0]).double()
    theta, inputs, labels = with_zero_biases(module), draw(N, 6), torch.arange(N) % CLASSES
    form = graph_tangents.traced(module, [theta], inputs)
    monkeypatch.setattr(graph_tangents, "traced", lambda *given: form)
    seen = calls(monkeypatch)
    points = [(scale, temperature) for scale in (1.0, 2.0) for temperature in (0.5, 1.0, 2.0, 4.0)]
    hessian.curvature_at(Problem(module, inputs, labels), theta, points, draw(5, len(theta), seed=1))
    assert len(seen) == passes and all(q <= 8 // passes for q in seen)


def test_points_whose_logits_overflow():
    torch.manual_seed(0)
    module = Function(DEGREES["powers"][0]).double()
    theta, inputs, labels = with_zero_biases(module), draw(N, 6), torch.arange(N) % CLASSES
    problem, rows = Problem(module, inputs, labels), draw(5, len(theta), seed=1)
    points = [(1.0, 1.0), (1e100, 1.0), (2.0, 1.0)]
    found = hessian.curvature_at(problem, theta, points, rows, hessian.Options(refuse_overflow=False))
    assert found[1] == [None]
    for scale, (each,) in ((1.0, found[0]), (2.0, found[2])):
        assert_same(each, hessian.plane_hessian(problem, scale * theta, rows), 1e-10, scale * theta)
    with pytest.raises(ValueError, match="is not finite"):
        hessian.curvature_at(problem, theta, points, rows)


class SmallCNN(nn.Sequential):
    """The network of the README."""

    def __init__(self, image, classes, filters=4):
        channels, height, width = image
        super().__init__(
            nn.Conv2d(channels, filters, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(filters * height * width, classes),
        )


def test_flops_of_a_sweep_that_is_not_homogeneous():
    """3(F − F_1) per direction and further radius: all radii share the tangents of the first layer's products."""
    torch.manual_seed(0)
    module = Function(DEGREES["smooth"][0]).double()
    module.first, module.other = nn.Linear(60, 30).double(), nn.Linear(60, 1, bias=False).double()
    module.last, n, d = nn.Linear(30, 30).double(), 300, 20
    theta = torch.nn.utils.parameters_to_vector(module.parameters()).detach()
    problem, rows = Problem(module, draw(n, 60), torch.arange(n) % 30), draw(d, len(theta), seed=1)
    one = count_flops(lambda: hessian.radial_sweep(problem, theta, [1.0], rows))
    five = count_flops(lambda: hessian.radial_sweep(problem, theta, [0.2, 0.5, 1.0, 1.5, 2.0], rows))
    first, rest = 2 * 60 * 30, 2 * 30 * 30
    products = 2 * d * d * (30 * 30 + n * (30 + 30 + 1)) + 6 * n * d * 30
    assert five - one < 1.05 * 4 * (n * d * 3 * rest + products + 3 * n * (first + 60 * 2 + rest))


def test_flops_of_a_sweep():
    """Each further radius costs less than 3(F − F_1) per direction: only cross terms, and products of d × d."""
    image, d, n, scales = (1, 12, 12), 20, 100, np.geomspace(0.1, 10, 9)
    network = of_module(SmallCNN(image, 10), image, 10, n)
    theta, rows = network.initialisation(0, 1.0), network.directions(d)
    problem = Problem(network.module, network.inputs, network.targets)
    assert dispatch.path_of(problem, theta, 9) == dispatch.GRAPH_SWEEP
    one = count_flops(lambda: hessian.radial_sweep(problem, theta, scales[:1], rows))
    nine = count_flops(lambda: hessian.radial_sweep(problem, theta, scales, rows))
    forward, first = 2 * n * (4 * 9 * 144 + 10 * 4 * 144), 2 * n * 4 * 9 * 144
    rest = forward - first
    products = 2 * d * d * (10 * 4 * 144) + n * (2 * d * d * 11 + 6 * d * 10)
    assert nine - one < 8 * (d * rest + products + 4 * forward)
    assert 8 * (d * rest + products + 4 * forward) < 8 * 3 * d * rest
