"""Curvature through traced graphs: each kind of operation, random networks, and effects that a trace does not see."""

import copy
import gc
import random
import weakref

import numpy as np
import pytest
import scipy.sparse
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional

from benchmarks.methods import count_flops
from goldilocks_zone.curvature import autodiff, dispatch, graph_rules, graph_tangents, hessian
from goldilocks_zone.models import graphs, kernels
from goldilocks_zone.models.problem import Problem
from goldilocks_zone.randomness import stream
from oracles.brute_force import assert_same, orthonormal, picture, relative_error

N, CLASSES = 7, 3


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def logits_of(module):
    """Logits of a module as a function of parameters (D,) and inputs, by torch.func.functional_call."""
    shapes = {name: each.shape for name, each in module.named_parameters()}
    sizes = [shape.numel() for shape in shapes.values()]

    def logits(theta, inputs):
        pieces = zip(shapes.items(), theta.split(sizes))
        return functional_call(module, {name: piece.view(shape) for (name, shape), piece in pieces}, (inputs,))

    return kernels.exact(logits)


def assert_right(module, inputs, scale=0.7, way=dispatch.GRAPH, dtype=torch.float64, **options):
    """Assert that the path `way` is taken, and that G, H′ and the gradient on a random plane agree with brute force.

    The parameters are random, with deviation `scale`, and the directions are in `dtype`.
    """
    module = module.double().eval()
    size = sum(each.numel() for each in module.parameters())
    theta, rows = scale * draw(size), draw(5, size, seed=1).to(dtype)
    labels = torch.arange(len(inputs)) % CLASSES
    problem = Problem(module, inputs, labels)
    assert dispatch.path_of(problem, theta, 1) == way
    found = hessian.radial_sweep(problem, theta, [1.0], rows, **options)[0]
    logits = logits_of(module)
    expected = picture(logits, theta, rows, inputs, labels)
    whole = backward_twice(logits, theta, rows, inputs, labels)
    bound = 200 * torch.finfo(dtype).eps * max(1.0, float(logits(theta, inputs).abs().max()))
    parts = (found.gauss_newton, found.residual, found.gradient)
    right = (expected.gauss_newton, whole - expected.gauss_newton, expected.gradient)
    errors = [np.linalg.norm(part - other) for part, other in zip(parts, right)]
    norms = [np.linalg.norm(each) for each in (expected.gauss_newton, whole, expected.gradient)]
    if any(error >= bound * norm for error, norm in zip(errors, norms)):
        # A normalisation by small deviations: the derivatives themselves change as much with the last digit of θ.
        changes = [sensitivity(logits, theta, rows, inputs, labels, right, seed) for seed in (2, 3, 4)]
        limits = [max(bound * norm, 2 * max(each)) for norm, each in zip(norms, zip(*changes))]
        assert all(error < limit for error, limit in zip(errors, limits)), (errors, limits)
    assert found.radial_derivative == pytest.approx(expected.radial_derivative, rel=1e-8, abs=1e-10)


def sensitivity(logits, theta, rows, inputs, labels, right, seed):
    """Norms of the changes of G, H′ and the gradient if every entry of θ changes by the rounding unit of its type.

    `right` are these three at θ itself, and `seed` determines the signs of the changes.
    """
    nearby = theta * (1 + torch.finfo(theta.dtype).eps * draw(len(theta), seed=seed).sign())
    moved, whole = (each(logits, nearby, rows, inputs, labels) for each in (picture, backward_twice))
    others = (moved.gauss_newton, whole - moved.gauss_newton, moved.gradient)
    return [np.linalg.norm(part - other) for part, other in zip(others, right)]


def backward_twice(logits, theta, rows, inputs, labels):
    """Hessian (d, d) of the mean cross-entropy over an orthonormal basis of the plane, by double backward.

    Forward over reverse is not used, because torch's is wrong for some normalisations.
    """
    basis = orthonormal(rows)
    place = torch.zeros(len(rows), dtype=torch.float64, requires_grad=True)
    loss = functional.cross_entropy(logits(theta + basis @ place, inputs), labels)
    (slopes,) = torch.autograd.grad(loss, place, create_graph=True)
    return np.stack([torch.autograd.grad(slope, place, retain_graph=True)[0].numpy() for slope in slopes])


class Between(nn.Module):
    """A network with `function` on features (n, 4, 6) between dense layers.

    If it takes `two` arguments, the second one comes from a parallel layer.
    """

    def __init__(self, function, two=False):
        super().__init__()
        self.before, self.beside = nn.Linear(5, 6), nn.Linear(5, 6)
        self.function, self.two = function, two
        with torch.no_grad():
            parts = [torch.randn(2, 4, 6) for _ in range(1 + two)]
            width = self.function(*parts).flatten(1).shape[1]
        self.behind = nn.Linear(width, CLASSES)

    def forward(self, x):
        parts = (torch.tanh(self.before(x)), torch.tanh(self.beside(x)))[: 1 + self.two]
        return self.behind(self.function(*parts).flatten(1))


def image(x):
    """View features (n, 4, 6) as images (n, 2, 2, 6)."""
    return x.view(len(x), 2, 2, 6)


ONE = {
    "view and permute": lambda x: x.permute(0, 2, 1).reshape(len(x), 3, 8).transpose(1, 2),
    "slices": lambda x: x[:, 1:3, ::2],
    "select": lambda x: x[:, 1].unsqueeze(1).expand(-1, 3, -1),
    "index": lambda x: x[:, torch.tensor([3, 0, 0])],
    "gather": lambda x: x.gather(1, torch.tensor([[[1, 0, 2, 3, 1, 0]]]).expand(len(x), -1, -1)),
    "cat": lambda x: torch.cat([x, x.square(), torch.ones_like(x)], 2),
    "stack": lambda x: torch.stack([x, x.exp()], 1),
    "split": lambda x: torch.cat(x.split([2, 4], 2)[::-1], 2) + torch.stack(x.unbind(1)).mean(0)[:, None],
    "chunks": lambda x: x.chunk(2, 2)[0] * x.chunk(2, 2)[1],
    "pad": lambda x: functional.pad(x, (1, 2)),
    "reflect": lambda x: functional.pad(image(x), (1, 1, 1, 1), mode="reflect"),
    "roll and flip": lambda x: x.roll(1, 2) + x.flip(1),
    "triangle": lambda x: x.tril() + x.triu(1),
    "sums": lambda x: x.sum(1) + x.mean(1) - x.cumsum(2).sum(1),
    "average pools": lambda x: functional.avg_pool2d(image(x), 2) + functional.adaptive_avg_pool2d(image(x), (1, 3)),
    "upsampling": lambda x: functional.interpolate(image(x), scale_factor=2),
    "bilinear upsampling": lambda x: functional.interpolate(image(x), scale_factor=2, mode="bilinear"),
    "relu and kin": lambda x: x.relu() + functional.leaky_relu(x, 0.1) + functional.hardtanh(x, -0.5, 0.5) + x.abs(),
    "smooth activations": lambda x: functional.gelu(x) + functional.silu(x) + functional.softplus(x) + x.sigmoid(),
    "more activations": lambda x: functional.elu(x) + functional.gelu(x, approximate="tanh") + functional.mish(x),
    "hard activations": lambda x: functional.hardswish(3 * x) + functional.relu6(4 * x),
    "powers": lambda x: x**3 + (2 + x).sqrt() + (2 + x).rsqrt() + (2 + x).reciprocal() + (2 + x) ** 1.5,
    "elementary": lambda x: x.exp() + (2 + x).log() + x.sin() * x.cos() + x.erf() + torch.expm1(x) + torch.log1p(x / 2),
    "where": lambda x: torch.where(x > 0.1, x.square(), x.exp()),
    "choice by a product": lambda x: x * torch.where(x @ x.transpose(1, 2) > 0.1, 1.0, 2.0)[:, :, :1],
    "masks": lambda x: x.masked_fill(x > 0.3, 0.0) + x.clamp(-0.4, 0.6).square(),
    "max pool": lambda x: functional.max_pool2d(image(x), (2, 3)),
    "maxima": lambda x: x.max(1).values * x.amin(1) + x.amax(1),
    "sort": lambda x: x.sort(2).values.square(),
    "topk": lambda x: x.topk(3, 2).values.exp(),
    "softmax": lambda x: x.softmax(2),
    "softmax of another axis": lambda x: x.softmax(1) * x,
    "log softmax": lambda x: x.log_softmax(2),
    "logsumexp": lambda x: x.logsumexp(2),
    "norm": lambda x: functional.normalize(x, dim=2) + x.norm(dim=2, keepdim=True),
    "layer norm": lambda x: functional.layer_norm(x, (6,)),
    "group norm": lambda x: functional.group_norm(x, 2),
    "variance": lambda x: x.var(1) + x.std(2).mean(1, keepdim=True),
    "product of all": lambda x: (1 + x / 2).prod(2),
    "cumulative product": lambda x: (1 + x / 2).cumprod(2),
    "matrix with itself": lambda x: x @ x.transpose(1, 2),
    "einsum": lambda x: torch.einsum("nij,nik->njk", x, x.square()),
    "determinant": lambda x: torch.linalg.det(x[:, :, :4] + 2 * torch.eye(4).to(x))[:, None],
    "attention": lambda x: functional.scaled_dot_product_attention(x, x.roll(1, 2), x.flip(1)),
    "causal attention": lambda x: functional.scaled_dot_product_attention(x, x, x, is_causal=True),
    "attention of nothing": lambda x: functional.scaled_dot_product_attention(
        x, x, x, attn_mask=torch.tensor([[True], [False], [True], [True]]).expand(4, 4)
    ),
    "pixel shuffle": lambda x: functional.pixel_shuffle(x.view(len(x), 4, 2, 3), 2),
    "windows": lambda x: functional.unfold(image(x), 2),
}
TWO = {
    "sum": lambda a, b: a + 2 * b - b.square(),
    "sum of other shapes": lambda a, b: a + b[:, :1] - b.mean(2, keepdim=True),
    "product": lambda a, b: a * b,
    "product of other shapes": lambda a, b: a * b[:, :1] * b[:, :, :1],
    "outer product": lambda a, b: a[:, 0, :, None] * b[:, 1, None],
    "quotient": lambda a, b: a / (2 + b) + a / (2 + b[:, :1]),
    "power": lambda a, b: (2 + a) ** b,
    "larger one": lambda a, b: torch.maximum(a, b) + torch.minimum(a, b.square()),
    "choice": lambda a, b: torch.where(a > b, a * b, b.exp()),
    "addcmul": lambda a, b: torch.addcmul(a, a, b, value=0.3) + torch.lerp(a, b, a.sigmoid()),
    "angle": lambda a, b: torch.atan2(a, 2 + b),
    "bmm": lambda a, b: torch.bmm(a, b.transpose(1, 2)),
    "baddbmm": lambda a, b: torch.baddbmm(a[:, :, :4], a, b.transpose(1, 2), beta=0.5, alpha=2.0),
    "attention of two": lambda a, b: functional.scaled_dot_product_attention(a, b, a * b),
    "cosine": lambda a, b: functional.cosine_similarity(a, b, dim=2),
    "distance": lambda a, b: (a - b).square().sum(2).add(0.1).sqrt(),
    "convolution by examples' own": lambda a, b: functional.conv1d(a.reshape(1, -1, 6), b[:, :, :3], groups=len(a))[0],
}


class Written(torch.autograd.Function):
    """x sin x with a custom backward pass, in torch's older form without forward derivatives."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x.sin()

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * (x.sin() + x * x.cos())


def sampled(image, grid):
    return functional.grid_sample(image, grid, align_corners=False)


BACKWARDS = {
    "distances": lambda x: torch.cdist(x, x.roll(1, 1) + 0.3),
    "distances to constants": lambda x: torch.cdist(x, torch.linspace(-1, 1, 12).to(x).view(2, 6), p=3.0),
    "distances within": lambda x: torch.stack([torch.pdist(each) for each in x.unbind()]),
    "sampling at constants": lambda x: sampled(
        image(x), torch.linspace(-0.8, 0.7, 24).to(x).view(1, 3, 4, 2).expand(len(x), -1, -1, -1)
    ),
    "sampling": lambda x: sampled(image(x), image(x).permute(0, 2, 3, 1).sigmoid() - 0.5),
    "function of one's own": Written.apply,
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", BACKWARDS)
def test_operations_without_forward_derivatives(name, dtype):
    """Two backward passes through this one operation, against two through the whole network."""
    torch.manual_seed(0)
    module, inputs, labels = Between(BACKWARDS[name]).double(), draw(N, 4, 5, seed=2), torch.arange(N) % CLASSES
    size = sum(each.numel() for each in module.parameters())
    theta, rows, logits = 0.7 * draw(size), draw(5, size, seed=1).to(dtype), logits_of(module)
    problem = Problem(module, inputs, labels)
    assert dispatch.path_of(problem, theta, 1) == dispatch.GRAPH
    found, basis = hessian.plane_hessian(problem, theta, rows), orthonormal(rows)
    place = torch.zeros(5, dtype=torch.float64)
    along = torch.autograd.functional.jacobian(lambda s: logits(theta + basis @ s, inputs), place)
    p = logits(theta, inputs).softmax(1)
    expected = torch.einsum("nki,nkl,nlj->ij", along, torch.diag_embed(p) - p[:, :, None] * p[:, None], along) / N
    whole = backward_twice(logits, theta, rows, inputs, labels)
    bound = 200 * torch.finfo(dtype).eps
    assert relative_error(found.gauss_newton, expected.numpy()) < bound
    assert np.linalg.norm(found.hessian - whole) < bound * np.linalg.norm(whole)


@pytest.mark.parametrize("name", [*ONE, *TWO])
def test_each_operation_against_brute_force(name):
    torch.manual_seed(0)
    two = name in TWO
    assert_right(Between((TWO if two else ONE)[name], two), draw(N, 4, 5, seed=2))


LAYERS = {
    "convolution": (lambda: nn.Conv2d(2, 3, 3, padding=1), (2, 5, 6)),
    "stride and dilation": (lambda: nn.Conv2d(2, 3, 2, stride=2, dilation=2, padding=2), (2, 5, 6)),
    "groups": (lambda: nn.Conv2d(4, 6, 3, groups=2), (4, 5, 6)),
    "depthwise": (lambda: nn.Conv2d(3, 6, 3, groups=3, padding=1, bias=False), (3, 5, 6)),
    "transposed": (lambda: nn.ConvTranspose2d(2, 3, 3, stride=2, output_padding=1), (2, 3, 4)),
    "transposed in groups": (lambda: nn.ConvTranspose2d(4, 6, 2, groups=2), (4, 3, 4)),
    "in one dimension": (lambda: nn.Conv1d(3, 4, 3, padding="same"), (3, 7)),
    "in three dimensions": (lambda: nn.Conv3d(1, 2, 2), (1, 3, 4, 3)),
    "circular": (lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), (2, 5, 6)),
    "batch norm": (lambda: nn.BatchNorm2d(2), (2, 3, 4)),
    "frozen batch norm": (lambda: nn.BatchNorm2d(2, affine=False), (2, 3, 4)),
    "group norm": (lambda: nn.GroupNorm(2, 4), (4, 3, 4)),
    "instance norm": (lambda: nn.InstanceNorm2d(2, affine=True), (2, 3, 4)),
    "layer norm": (lambda: nn.LayerNorm([3, 4]), (2, 3, 4)),
    "rms norm": (lambda: nn.RMSNorm(4), (2, 3, 4)),
    "prelu": (lambda: nn.PReLU(2), (2, 3, 4)),
    "bilinear": (lambda: Twice(nn.Bilinear(5, 5, 4)), (5,)),
    "attention": (lambda: Twice(nn.MultiheadAttention(6, 2, batch_first=True), 3), (4, 6)),
    "transformer": (lambda: nn.TransformerEncoderLayer(6, 2, 8, batch_first=True), (4, 6)),
    "pre-norm transformer": (
        lambda: nn.TransformerEncoderLayer(6, 2, 8, batch_first=True, norm_first=True, activation="gelu"),
        (4, 6),
    ),
    "lstm": (lambda: nn.LSTM(3, 4, 2, batch_first=True, bidirectional=True), (4, 3)),
    "gru": (lambda: nn.GRU(3, 4, batch_first=True), (4, 3)),
    "rnn": (lambda: nn.RNN(3, 4, batch_first=True), (4, 3)),
    "weight norm": (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(6, 4)), (3, 6)),
    "spectral norm": (lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(6, 4)).eval(), (3, 6)),
}


class Twice(nn.Module):
    """A module that passes its input to `inner` as several arguments, such as query, key and value."""

    def __init__(self, inner, times=2):
        super().__init__()
        self.inner, self.times = inner, times

    def forward(self, x):
        return self.inner(*[x] * self.times)


class Behind(nn.Module):
    """A network that multiplies its input by trainable scales, applies `layer`, and then tanh and a dense layer."""

    def __init__(self, layer, shape):
        super().__init__()
        self.scale, self.layer = nn.Parameter(torch.ones(shape)), layer
        with torch.no_grad():
            width = self._features(torch.randn(2, *shape)).shape[1]
        self.behind = nn.Linear(width, CLASSES)

    def _features(self, x):
        found = self.layer(x * self.scale)
        return torch.tanh((found[0] if isinstance(found, tuple) else found).flatten(1))

    def forward(self, x):
        return self.behind(self._features(x))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", LAYERS)
def test_layers_against_brute_force(name, dtype):
    torch.manual_seed(0)
    make, shape = LAYERS[name]
    assert_right(Behind(make().eval(), shape), draw(N, *shape, seed=2), dtype=dtype)


class Tokens(nn.Module):
    """Embedded tokens; the embedding shares its weights with the last layer."""

    def __init__(self):
        super().__init__()
        self.embedding, self.places, self.inner = nn.Embedding(CLASSES, 6), nn.Embedding(5, 6), nn.Linear(6, 6)

    def forward(self, tokens):
        x = self.embedding(tokens) + self.places(torch.arange(tokens.shape[1]))
        return functional.gelu(self.inner(x)).mean(1) @ self.embedding.weight.T


class Tempered(nn.Module):
    """A network whose logits are multiplied by functions of scalar parameters, such as a logit scale."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(5, CLASSES)
        self.scale, self.power = nn.Parameter(torch.tensor(0.3)), nn.Parameter(torch.tensor(1.4))

    def forward(self, x):
        return self.inner(x) * self.scale.exp() * self.power**2 + self.power.tanh() / self.scale


def test_functions_of_scalar_parameters():
    torch.manual_seed(0)
    assert_right(Tempered(), draw(N, 5, seed=2))


def test_token_ids_and_tied_weights():
    assert_right(Tokens(), torch.arange(N * 5).view(N, 5) % CLASSES)


class Stored(nn.Module):
    """A network of dense layers, the middle one of which stores its weights as a parameter (inputs, outputs)."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(40, 30), nn.Linear(30, CLASSES)
        self.between = nn.Parameter(torch.randn(30, 30) / 5)

    def forward(self, x):
        return self.last(torch.tanh(functional.relu(self.first(x)) @ self.between))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("as_matrix", [False, True])
def test_sparse_directions(dtype, as_matrix, monkeypatch):
    torch.manual_seed(0)
    module = Stored().double()
    theta = 0.3 * draw(sum(each.numel() for each in module.parameters()))
    rows = draw(5, len(theta), seed=1) * (draw(5, len(theta), seed=4).abs() > 2.2)
    seen, sparse = [], graph_rules.Point.sparse
    monkeypatch.setattr(graph_rules.Point, "sparse", lambda *given: seen.append(sparse(*given)) or seen[-1])
    inputs, labels = draw(N, 40, seed=2), torch.arange(N) % CLASSES
    rows = rows.to(dtype)
    given = scipy.sparse.csr_array(rows.numpy()) if as_matrix else rows
    found = hessian.plane_hessian(Problem(module, inputs, labels), theta, given)
    # Of three layers their tangents, of the two behind the first their cross terms.
    assert sum(each is not None for each in seen) == 5
    expected = picture(logits_of(module), theta, rows, inputs, labels)
    assert_same(found, expected, 1000 * torch.finfo(dtype).eps, theta)


class Turned(nn.Module):
    """A network of dense layers on transposed tensors, with the product of a constant matrix, repeated per example."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(6, 5), nn.Linear(8, CLASSES)
        self.register_buffer("between", torch.randn(4, 2))

    def forward(self, x):
        turned = torch.tanh(self.first(x.transpose(0, 1))).permute(1, 2, 0)[:, :4]
        return self.last((turned @ self.between.expand(len(x), -1, -1)).flatten(1))


def test_products_with_a_repeated_matrix_are_single_ones():
    torch.manual_seed(0)
    module, inputs = Turned(), draw(N, 4, 6, seed=2)
    assert_right(module, inputs)
    theta = nn.utils.parameters_to_vector(module.double().parameters()).detach()
    graph = graphs.traced(module, theta, inputs)
    assert "aten.bmm.default" not in graph.names and graph.names.count("aten.mm.default") == 2
    # Sparse directions are known to the products with parameters.
    multiplied = {each.args[1].number for each in graph.operations if each.name == "aten.mm.default"}
    assert len(multiplied & graphs.weights_of(graph).keys()) == 1


@pytest.mark.parametrize("memory_mib", [1e-3, 1.0])
def test_chunks_of_examples_add_up(memory_mib):
    torch.manual_seed(0)
    module = Behind(nn.TransformerEncoderLayer(6, 2, 8, batch_first=True).eval(), (4, 6))
    assert_right(module, draw(23, 4, 6, seed=2), memory_mib=memory_mib)


class Random(nn.Module):
    """A network of random PARTS on features (n, 4, 6); `number` is the seed, and `spoiler` names one of SPOILERS."""

    def __init__(self, number, spoiler=None):
        super().__init__()
        choose = stream("random networks", number)
        self.parts, self.kinds = nn.ModuleList(), []
        kinds = list(PARTS)
        torch.manual_seed(number)
        for _ in range(int(choose.integers(3, 8))):
            kind = kinds[choose.integers(len(kinds))]
            self.kinds.append(kind)
            self.parts.append(self.parts[0] if kind == "tied" and len(self.parts) else PARTS[kind][0]())
            if kind == "tied":
                self.kinds[-1] = self.kinds[0] if len(self.parts) > 1 else "dense"
        self.first, self.last, self.spoiler = nn.Linear(5, 6), nn.Linear(6, CLASSES), spoiler

    def forward(self, x):
        x = self.first(x)
        for number, (kind, part) in enumerate(zip(self.kinds, self.parts)):
            x = PARTS[kind][1](part, x)
            if self.spoiler and number == len(self.parts) // 2:
                x = SPOILERS[self.spoiler](x)
        return self.last(x.mean(1))


PARTS = {
    "dense": (lambda: nn.Linear(6, 6), lambda part, x: torch.tanh(part(x))),
    "tied": (lambda: nn.Linear(6, 6), None),
    "residual": (
        lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 6)),
        lambda part, x: x + part(x),
    ),
    "concatenated": (lambda: nn.Linear(3, 3), lambda part, x: torch.cat([part(x[..., :3]).relu(), x[..., 3:]], 2)),
    "grouped": (
        lambda: nn.Conv1d(6, 6, 3, padding=1, groups=3),
        lambda part, x: part(x.transpose(1, 2)).transpose(1, 2),
    ),
    "layer norm": (lambda: nn.LayerNorm(6), lambda part, x: part(x)),
    "group norm": (lambda: nn.GroupNorm(2, 4), lambda part, x: part(x)),
    "gate": (lambda: nn.Linear(6, 6), lambda part, x: x * torch.sigmoid(part(x))),
    "attention": (
        lambda: nn.MultiheadAttention(6, 2, batch_first=True),
        lambda part, x: x + part(x, x, x, need_weights=False)[0],
    ),
    "pool": (lambda: nn.Linear(6, 6), lambda part, x: part(x) + x.max(1, keepdim=True).values),
    "gelu": (lambda: nn.Linear(6, 6), lambda part, x: functional.gelu(part(x))),
    "mix": (lambda: nn.Linear(6, 6), lambda part, x: part(x).softmax(1) * x),
}


class StraightThrough(torch.autograd.Function):
    """Sign function with the gradient of the identity."""

    @staticmethod
    def forward(ctx, x):
        return x.sign()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def _under_no_grad(x):
    with torch.no_grad():
        scale = x.square().mean((1, 2), keepdim=True)
    return x / (1 + scale)


SPOILERS = {
    "detach": lambda x: x * x.detach().sigmoid(),
    "no_grad": _under_no_grad,
    "straight through": StraightThrough.apply,
    "dropped": lambda x: x.tanh() if random.random() < 0.5 else x,
}
UNSEEN = "no_grad", "straight through"


@pytest.mark.parametrize(
    "number", [*range(20), *(pytest.param(number, marks=pytest.mark.weekly) for number in range(20, 200))]
)
def test_random_networks_against_brute_force(number):
    if number % 20 < 19:
        assert_right(Random(number), draw(N, 4, 5, seed=2), scale=0.5)
    else:
        assert_is_seen(Random(number, UNSEEN[number // 20 % len(UNSEEN)]))


def assert_is_seen(module):
    module = module.double().eval()
    theta = 0.5 * draw(sum(each.numel() for each in module.parameters()))
    assert graph_tangents.traced(module, [theta], draw(N, 4, 5, seed=2)) is None


@pytest.mark.parametrize("spoiler", UNSEEN)
def test_what_a_trace_does_not_see_is_not_traced(spoiler):
    for number in range(3):
        assert_is_seen(Random(number, spoiler))


def test_the_log_names_operations_without_a_rule(caplog):
    class Other(nn.Linear):
        def forward(self, x):
            return torch.cumprod(super().forward(x), 1)

    caplog.set_level("INFO")
    assert_right(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), Other(5, CLASSES)), draw(N, 4))
    assert caplog.messages == ["operations without a rule of their own, differentiated by torch: aten.cumprod.default"]
    caplog.clear()
    assert_right(nn.Sequential(nn.Linear(4, 5), nn.GELU(), nn.Linear(5, CLASSES)), draw(N, 4))
    assert not caplog.messages


def test_chance_is_refused():
    random.seed(0)
    module = Random(0, "dropped").double()
    theta = 0.5 * draw(sum(each.numel() for each in module.parameters()))
    for _ in range(20):
        with pytest.raises(ValueError, match="gives different logits for the same inputs"):
            hessian.plane_hessian(Problem(module, draw(N, 4, 5), torch.zeros(N).long()), theta, draw(3, len(theta)))
    assert autodiff.RANDOM.startswith("the network gives different logits")


def test_detached_parts_are_constants():
    for number in range(3):
        assert_right(Random(number, "detach"), draw(N, 4, 5, seed=2), scale=0.5)


def test_ways_that_depend_on_values_are_not_traced():
    class Branched(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(5, CLASSES)

        def forward(self, x):
            z = self.layer(x)
            return z.tanh() if z.sum() > 0 else z

    module = Branched().double()
    assert graph_tangents.traced(module, [draw(5 * CLASSES + CLASSES)], draw(N, 5, seed=2)) is None


@pytest.mark.parametrize("width, depth", [(40, 3), (60, 4)])
def test_flops_of_functional_networks(width, depth):
    """3F − 2F_1 per direction and example, products of d × d for each chunk, and the cost of comparing and tracing."""
    module = nn.ModuleList([nn.Linear(50 if not i else width, width) for i in range(depth)])

    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = module

        def forward(self, x):
            for layer in self.layers:
                x = functional.relu(layer(x))
            return x

    network = Functional().double()
    theta = torch.nn.utils.parameters_to_vector(network.parameters()).detach()
    n, d, rows = 400, 20, draw(20, len(theta), seed=1)
    problem = Problem(network, draw(n, 50), torch.arange(n) % width)
    found = count_flops(lambda: hessian.plane_hessian(problem, theta, rows))
    first, rest = 2 * 50 * width, 2 * width * width * (depth - 1)
    along = n * d * (3 * (first + rest) - 2 * first)
    products = 2 * d * d * (width * width * (depth - 1) + n * (width + 1)) + 6 * n * d * width
    there_and_back = 3 * n * (first + rest)
    assert found < 1.05 * (along + products + there_and_back)


class Scaled(nn.Module):
    """A network whose logits depend on a buffer, on attributes of the module, and on an attribute of its class."""

    surroundings = 1.0

    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.GELU(), nn.Linear(6, CLASSES)).double().eval()
        self.attribute, self.table = 1.0, torch.ones(CLASSES, dtype=torch.float64)

    def forward(self, x):
        return self.inner(x) * self.table * self.attribute * Scaled.surroundings


CHANGES = {
    "a buffer": lambda module: module.inner[1].running_var.mul_(4),
    "an attribute": lambda module: setattr(module, "attribute", 2.0),
    "a tensor": lambda module: module.table.mul_(3),
    "a hook": lambda module: module.inner.register_forward_hook(lambda inner, given, found: 2 * found),
    "a part": lambda module: module.inner.__setitem__(2, nn.Tanh()),
    "the surroundings": lambda module: setattr(Scaled, "surroundings", 2.0),
}


@pytest.mark.parametrize("change", CHANGES)
def test_graphs_are_traced_once_until_their_module_changes(change, monkeypatch):
    made, trace = [], graphs._traced
    monkeypatch.setattr(graphs, "_traced", lambda *given: made.append(given) or trace(*given))
    monkeypatch.setattr(Scaled, "surroundings", 1.0)
    module, inputs = Scaled(), draw(N, 5, seed=2)
    theta = draw(sum(each.numel() for each in module.parameters()))
    rows, problem = draw(3, len(theta), seed=1), Problem(module, inputs, torch.arange(N) % CLASSES)

    def found(network=module):
        return hessian.plane_hessian(Problem(network, inputs, problem.labels), theta, rows).hessian

    expected, alone = found(), len(made)
    assert alone and np.array_equal(found(), expected) and len(made) == alone
    CHANGES[change](module)
    changed = found()
    assert len(made) == 2 * alone and not np.allclose(changed, expected)
    # A copy is another module.
    assert np.array_equal(changed, found()) and len(made) == 2 * alone
    assert np.array_equal(changed, found(copy.deepcopy(module))) and len(made) == 3 * alone


def test_kept_graphs_do_not_keep_their_module():
    module, inputs = nn.Sequential(nn.Linear(5, 6), nn.GELU(), nn.Linear(6, CLASSES)).double(), draw(N, 5, seed=2)
    theta = draw(sum(each.numel() for each in module.parameters()))
    hessian.plane_hessian(Problem(module, inputs, torch.arange(N) % CLASSES), theta, draw(3, len(theta), seed=1))
    assert graphs.are_kept(module)
    alive = weakref.ref(module)
    del module
    gc.collect()
    assert alive() is None
