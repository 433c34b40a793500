"""Arguments of the library: each value gives the right result, against brute force, or an error of one sentence.

Brute force is double backward (torch.autograd.functional) of the same network, written out where torch's own kernels
have no second derivative or a wrong one.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from goldilocks_zone import randomness
from goldilocks_zone.curvature import dispatch, hessian, logit_gradient_pairs, logit_gradients, top_eigenvectors
from goldilocks_zone.curvature import gradients as curvature_gradients
from goldilocks_zone.curvature.hessian import spectral_density
from goldilocks_zone.models import kernels, user_networks
from goldilocks_zone.models.loss_factors import SoftmaxFactor
from goldilocks_zone.models.problem import Problem
from goldilocks_zone.spectra import lanczos, summaries
from goldilocks_zone.spectra.lanczos import Search
from goldilocks_zone.subspaces import constraints
from goldilocks_zone.training import ensembles, observations
from oracles.brute_force import losses, orthonormal, relative_error

N, CLASSES, DIRECTIONS = 7, 3, 3
# Two algorithms in double precision on Hessians of order one: 500 eps of rounding in some hundred operations.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 5e-5}


class Network(nn.Module):
    """A network that applies `core` and then a dense layer, to the mean over the sequence if the core returns one."""

    def __init__(self, core, width=5, classes=CLASSES):
        super().__init__()
        self.core, self.head = core, nn.Linear(width, classes)

    def forward(self, x):
        y = self.core(x)
        y = y[0] if isinstance(y, tuple) else y
        return self.head(y if y.ndim == 2 else y.mean(1))


class Applied(nn.Module):
    """A network that applies `function` to the output of a dense layer and to parameters with the shapes `more`."""

    def __init__(self, function, *more, width=5):
        super().__init__()
        self.layer, self.function = nn.Linear(4, width), function
        self.more = nn.ParameterList(nn.Parameter(torch.randn(*shape)) for shape in more)

    def forward(self, x):
        return self.function(self.layer(x), *self.more)


def applied(function, *more, **options):
    return lambda: Network(Applied(function, *more), **options)


def plain():
    return Network(nn.Sequential(nn.Linear(4, 5), nn.Tanh()))


def known():
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, CLASSES))


def frozen(name, place=0, layers=known):
    """Function that builds known layers, in which the parameter `name` of layer `place` is a buffer instead."""

    def make():
        module = layers()
        values = getattr(module[place], name).detach()
        delattr(module[place], name)
        module[place].register_buffer(name, values)
        return module

    return make


def convolution():
    layers = [nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 3, 2), nn.Flatten(), nn.Tanh(), nn.Linear(3, CLASSES)]
    return nn.Sequential(*layers)


def with_core(*layers, width=5):
    return lambda: Network(nn.Sequential(*(layer() for layer in layers)), width)


class Attention(nn.Module):
    """torch's self-attention or, if `written_out`, the same computation by explicit products and softmax."""

    def __init__(self, written_out=False, **options):
        super().__init__()
        self.attention, self.written_out = nn.MultiheadAttention(4, 2, batch_first=True), written_out
        self.options = options

    def forward(self, x):
        if not self.written_out:
            return self.attention(x, x, x, **self.options)[0]
        own = self.attention
        parts = functional.linear(x, own.in_proj_weight, own.in_proj_bias).chunk(3, 2)
        q, k, v = (each.unflatten(2, (2, 2)).transpose(1, 2) for each in parts)
        found = torch.softmax(q @ k.transpose(2, 3) / 2**0.5, 3) @ v
        return own.out_proj(found.transpose(1, 2).flatten(2))


class EncoderLayer(nn.Module):
    """torch's transformer encoder layer with its parameters, but a forward pass that is written out."""

    def __init__(self):
        super().__init__()
        self.own, attention = encoder_layer(), Attention(True)
        attention.attention = self.own.self_attn
        self.attend = lambda x: attention(x)

    def forward(self, x):
        x = self.own.norm1(x + self.attend(x))
        return self.own.norm2(x + self.own.linear2(torch.relu(self.own.linear1(x))))


def encoder_layer():
    return nn.TransformerEncoderLayer(4, 2, 6, batch_first=True)


def fused(q):
    q = q[:, None]
    return functional.scaled_dot_product_attention(q, q, q.sin(), is_causal=True)[:, 0].flatten(1)


def softmaxed(q):
    scores = (q @ q.transpose(1, 2) / q.shape[2] ** 0.5).masked_fill(torch.ones(3, 3).triu(1).bool(), -torch.inf)
    return (torch.softmax(scores, 2) @ q.sin()).flatten(1)


class WeightNorm(nn.Module):
    """A dense layer with weights g v/|v|, written out; its parameters are registered in the order of `names`."""

    def __init__(self, names):
        super().__init__()
        shapes = {"bias": (5,), "g": (5, 1), "v": (5, 4)}
        for name in names:
            self.register_parameter(name, nn.Parameter(torch.randn(shapes[name])))

    def forward(self, x):
        return x @ (self.v * self.g / self.v.square().sum(1, keepdim=True).sqrt()).T + self.bias


class Cube(torch.autograd.Function):
    """x³ as an autograd function in torch's old style, without `setup_context`, which torch.func does not support."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, gradient):
        return 3 * gradient * ctx.saved_tensors[0] ** 2


class SeparateCube(torch.autograd.Function):
    """x³ as an autograd function in torch's new style, without a forward derivative or a rule for vmap."""

    @staticmethod
    def forward(x):
        return x**3

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, gradient):
        return 3 * gradient * ctx.saved_tensors[0] ** 2


class OnceDifferentiable(Cube):
    """x³ whose derivative is not differentiable."""

    backward = staticmethod(torch.autograd.function.once_differentiable(Cube.backward))


def hooked():
    network = plain()
    network.core[0].register_full_backward_hook(lambda module, above, below: None)
    return network


def distances(z, centres):
    return torch.cdist(z, centres)


def written_distances(z, centres):
    return (z[:, None] - centres).square().sum(2).sqrt()


def asks_a_number(z):
    return torch.tanh(z) if z.square().sum().item() > 0 else z


class Sampled(nn.Module):
    """A network that samples an image on a grid, whose affine map depends on the image by a dense layer."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(12, 6)

    def forward(self, x):
        image, affine = x.view(-1, 1, 3, 4), self.layer(x).view(-1, 2, 3)
        grid = functional.affine_grid(affine, image.shape, align_corners=False)
        return functional.grid_sample(image, grid, align_corners=False).flatten(1)


class Shaped(nn.Module):
    """A network whose outputs the function `shape` puts into another container or shape."""

    def __init__(self, network, shape):
        super().__init__()
        self.network, self.shape = network, shape

    def forward(self, x):
        return self.shape(self.network(x))


def shaped(shape):
    return lambda: Shaped(plain(), shape)


def recomputed(reentrant):
    def make():
        inner = nn.Sequential(nn.Linear(5, 5), nn.Tanh())
        network = with_core(lambda: nn.Linear(4, 5), lambda: inner)()
        network.core[1].forward = lambda z: checkpoint(nn.Sequential.forward, inner, z, use_reentrant=reentrant)
        return network

    return make


class LayerDrop(nn.Module):
    """A layer that is randomly skipped during training."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        return self.layer(x) if torch.rand([]) > 0.5 else x


def in_training(make):
    return lambda: make().train()


def over_the_batch(x):
    return torch.softmax(x @ x.T, 1) @ x


@dataclass(frozen=True)
class Row:
    """A case of the table of tests: a network, changes of the library's arguments, and the expected outcome.

    `changes` maps names of arguments to functions of the usual arguments. If there is a `sentence`, an error is
    expected whose message has its parts in this order. Otherwise, the Hessian of `written_out` or, without it, of the
    network itself is expected.
    """

    network: Callable[[], nn.Module] = plain
    changes: dict = field(default_factory=dict)
    sentence: str | None = None
    written_out: Callable[[], nn.Module] | None = None
    shape: tuple[int, ...] = (4,)
    options: dict = field(default_factory=dict)
    dtype: torch.dtype = torch.float64
    evaluated: bool = True


def given(sentence=None, *, network=plain, options=None, dtype=torch.float64, **changes):
    return Row(network, changes, sentence, options=options or {}, dtype=dtype)


def of(network, written_out=None, shape=(4,), **options):
    return Row(network, written_out=written_out, shape=shape, **options)


def refused(network, sentence, shape=(4,), **options):
    return Row(network, sentence=sentence, shape=shape, **options)


def while_training(network, sentence, shape=(4,)):
    return Row(network, sentence=sentence, shape=shape, evaluated=False)


def at(place, value):
    """Function that returns a copy of a tensor in which the entry or row at `place` is `value`."""

    def change(array):
        array = array.clone()
        array[place] = value
        return array

    return change


def one_hot(y):
    return functional.one_hot(y, CLASSES)


WHOLE = "a class is a whole number: give numbers of classes"
ONE_EACH = r"labels have the shape \(7, \d\): give one class number .* labels.argmax\(1\)"
RANDOM = r"different logits for the same inputs, so that it has no Hessian: put dropout .* by network.eval\(\)"
STATISTICS = (
    r"mixes the examples of a batch, so that it has no loss per example: put its batch normalisation core.1 into "
    r"evaluation mode by network.eval\(\)"
)
BATCH = "mixes the examples of a batch, .*: let the logits of one example depend on no other"
CHECKPOINT = "computes activations again .* without the given parameters: switch checkpointing off"
SAME = "these numbers must be the same"
SEQUENCE = (3, 4)

ROWS = {
    "as it should be": of(plain),
    "known layers": of(known),
    # Parameters that are frozen as buffers.
    "frozen weight": of(frozen("weight")),
    "frozen bias": of(frozen("bias")),
    "frozen weight of the last layer": of(frozen("weight", 2)),
    "frozen weight of a convolution": of(frozen("weight", 1, convolution)),
    # Labels.
    **{f"{kind} labels": given(labels=lambda y, kind=kind: y.to(kind)) for kind in (torch.int32, torch.uint8)},
    **{f"{kind} labels in numpy": given(labels=lambda y, kind=kind: y.numpy().astype(kind)) for kind in ("i2", "u4")},
    "bool labels": given(labels=lambda y: y > 0),
    "list of labels": given(labels=lambda y: y.tolist()),
    "big-endian labels": given(labels=lambda y: y.numpy().astype(">i4")),
    "float labels": given(f"labels are of type torch.float32, and {WHOLE}", labels=lambda y: y.float()),
    "NaN labels": given(f"labels are of type torch.float32, and {WHOLE}", labels=lambda y: y * torch.nan),
    "complex labels": given(f"labels are of type torch.complex64, and {WHOLE}", labels=lambda y: y + 0j),
    "one-hot labels": given(ONE_EACH, labels=one_hot),
    "negative probabilities": given("a label is negative or not finite", labels=lambda y: -one_hot(y).float()),
    "column of labels": given(ONE_EACH + r".*labels\[:, 0\]", labels=lambda y: y[:, None]),
    "one label alone": given(r"labels have the shape \(\): give one class number", labels=lambda y: 1),
    "a label too large": given(
        "label 3 of example 2 is no class of a network with 3 logits: number the classes from 0 to 2", labels=at(2, 3)
    ),
    "a negative label": given(
        "label -100 of example 0 is no class of .*leave out examples without a class", labels=at(0, -100)
    ),
    "a label beyond int64": given(
        "label -1 of example 0 is no class", labels=lambda y: np.full(N, 2**64 - 1, dtype=np.uint64)
    ),
    "no labels": given("0 labels and 7 inputs were given: give one label for each", labels=lambda y: y[:0]),
    "too few labels": given("6 labels and 7 inputs were given: give one label for each", labels=lambda y: y[:6]),
    "one label for all": given("1 labels and 7 inputs were given: give one label for each", labels=lambda y: y[:1]),
    "too many labels": given("8 labels and 7 inputs", labels=lambda y: torch.cat([y, y[:1]])),
    "names as labels": given(
        "labels of type list cannot be read as an array of numbers .*: give a tensor", labels=lambda y: ["a"] * N
    ),
    "ragged labels": given(
        "labels of type list cannot be read as an array of numbers", labels=lambda y: [[1], [1, 2]] * 3
    ),
    "labels without values": given(
        "labels lie on the device meta, which holds no values: give them on the CPU", labels=lambda y: y.to("meta")
    ),
    "one logit": refused(
        lambda: Network(nn.Linear(4, 5), classes=1),
        "one logit, whose softmax is 1 and cross-entropy 0 .*: give it two logits, one for each class, or use the loss",
    ),
    # Inputs.
    "token ids": of(with_core(lambda: nn.Embedding(6, 5), nn.Tanh), shape="tokens"),
    "token ids of int32": Row(
        with_core(lambda: nn.Embedding(6, 5), nn.Tanh), {"inputs": lambda x: x.int()}, shape="tokens"
    ),
    "a token out of range": Row(
        with_core(lambda: nn.Embedding(6, 5)),
        {"inputs": lambda x: x + 9},
        r"fails on inputs of shape \(7, 3\) and type torch.int64 \(IndexError: index out of range.*: give inputs",
        shape="tokens",
    ),
    "pixels": given(inputs=lambda x: (50 * x.abs()).to(torch.uint8)),
    "pixels for known layers": given(inputs=lambda x: (50 * x.abs()).to(torch.uint8), network=known),
    "bool inputs": given(inputs=lambda x: x > 0),
    "numpy inputs": given(inputs=lambda x: x.numpy()),
    "Fortran-ordered inputs": given(inputs=lambda x: np.asfortranarray(x.numpy())),
    "inputs backwards": given(inputs=lambda x: x.numpy()[::-1]),
    "read-only inputs": given(inputs=lambda x: np.frombuffer(x.numpy().tobytes()).reshape(x.shape)),
    "inputs with gradients": given(inputs=lambda x: x.clone().requires_grad_()),
    "half inputs": given(inputs=lambda x: x.half()),
    "bfloat16 inputs of known layers": given(inputs=lambda x: x.bfloat16(), network=known),
    "sparse inputs": given(inputs=lambda x: x.to_sparse()),
    "complex inputs": given("inputs are complex, of type torch.complex128: give real and", inputs=lambda x: x + 0j),
    "no inputs": given(
        "no examples to average over: give at least one", inputs=lambda x: x[:0], labels=lambda y: y[:0]
    ),
    "one number as inputs": given("no examples to average over", inputs=lambda x: x[0, 0]),
    "a NaN in inputs": given("input 2 is not finite: find out where", inputs=at((2, 1), torch.nan)),
    "an infinite input": given("input 6 is not finite: find out where", inputs=at((6, 0), torch.inf)),
    "inputs of another width": given(
        r"fails on inputs of shape \(7, 3\) and type torch.float64 \(RuntimeError: .*: give inputs that it takes",
        inputs=lambda x: x[:, :3],
    ),
    "inputs without values": given(
        "inputs lie on the device meta, which holds no values", inputs=lambda x: x.to("meta")
    ),
    "a path as inputs": given(
        "inputs of type str cannot be read as an array of numbers", inputs=lambda x: "images.npz"
    ),
    # Parameters.
    "parameters with gradients": given(parameters=lambda p: p.clone().requires_grad_()),
    "numpy parameters": given(parameters=lambda p: p.numpy()),
    "a column as parameters": given(parameters=lambda p: torch.stack([p, p], 1)[:, 0]),
    "bfloat16 parameters": given(parameters=lambda p: p.bfloat16()),
    "whole parameters": given(parameters=lambda p: (3 * p).long()),
    "complex parameters": given("parameters are complex", parameters=lambda p: p + 0j),
    "a NaN in parameters": given("parameter 4 is not finite: find out where", parameters=at(4, torch.nan)),
    "an infinite parameter": given("parameter 0 is not finite: find out where", parameters=at(0, -torch.inf)),
    "parameters as a row": given(
        r"parameters have the shape \(1, 43\): give one vector \(D,\), .*parameters_to_vector",
        parameters=lambda p: p[None],
    ),
    "too few parameters": given(SAME, parameters=lambda p: p[1:]),
    "parameters of another network": given(SAME, parameters=lambda p: p[1:], rows=lambda v: v[:, 1:]),
    # Directions and vectors.
    "numpy directions": given(rows=lambda v: v.numpy()),
    "directions in Fortran's order": given(rows=lambda v: np.asfortranarray(v.numpy())),
    "directions with gradients": given(rows=lambda v: v.clone().requires_grad_()),
    "transposed directions": given(rows=lambda v: v.T.contiguous().T),
    "bfloat16 directions": given(rows=lambda v: v.bfloat16(), dtype=torch.float32),
    "half directions of known layers": given(rows=lambda v: v.half(), network=known, dtype=torch.float32),
    "whole directions": given(rows=lambda v: (9 * v).long()),
    "complex directions": given("(directions|vectors) are complex", rows=lambda v: v + 0j),
    "directions beyond the parameters": given(SAME, rows=lambda v: torch.cat([v, v], 1)),
    "one direction alone": given(
        r"(directions|vectors) have the shape \(43,\): give an array \(d, D\)", rows=lambda v: v[0]
    ),
    "no direction": given(r"have the shape \(0, 43\): give an array \(d, D\)", rows=lambda v: v[:0]),
    "a NaN in directions": given("(direction|vector) 1.* is not finite", rows=at((1, 3), torch.nan)),
    "an infinite direction": given("(direction|vector) 2.* is not finite", rows=at((2, 0), torch.inf)),
    # Networks whose kernels are fused.
    "attention": of(with_core(Attention, width=4), with_core(lambda: Attention(True), width=4), SEQUENCE),
    "attention without weights": of(
        with_core(lambda: Attention(need_weights=False), width=4), with_core(lambda: Attention(True), width=4), SEQUENCE
    ),
    "encoder layer": of(with_core(encoder_layer, width=4), with_core(EncoderLayer, width=4), SEQUENCE),
    "encoder": of(
        with_core(lambda: nn.TransformerEncoder(encoder_layer(), 1), width=4),
        with_core(EncoderLayer, width=4),
        SEQUENCE,
    ),
    "causal attention": of(applied(fused, width=15), applied(softmaxed, width=15), SEQUENCE),
    **{
        f"{kind.__name__}": of(lambda kind=kind: Network(kind(4, 5, batch_first=True)), shape=SEQUENCE)
        for kind in (nn.LSTM, nn.GRU, nn.RNN)
    },
    "LSTM in single precision": of(
        lambda: Network(nn.LSTM(4, 5, batch_first=True)), shape=SEQUENCE, dtype=torch.float32
    ),
    "weight normalisation": of(
        with_core(lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 5)), nn.Tanh),
        with_core(lambda: WeightNorm(("bias", "g", "v")), nn.Tanh),
    ),
    "weight normalisation by hooks": of(
        with_core(lambda: nn.utils.weight_norm(nn.Linear(4, 5)), nn.Tanh),
        with_core(lambda: WeightNorm(("bias", "g", "v")), nn.Tanh),
    ),
    # Networks that forward mode refuses.
    "function of one's own": of(applied(Cube.apply), applied(lambda z: z**3)),
    "function without a vectorised form": of(applied(SeparateCube.apply), applied(lambda z: z**3)),
    "backward hooks": of(hooked, plain),
    "distances": of(applied(distances, (6, 5), width=6), applied(written_distances, (6, 5), width=6)),
    "sampled grid": of(with_core(Sampled, nn.Tanh, width=12), shape=(12,)),
    "a number asked for": of(applied(asks_a_number), applied(torch.tanh)),
    "spread over devices": of(lambda: nn.DataParallel(plain()), plain),
    "function differentiable once": refused(
        applied(OnceDifferentiable.apply),
        "a torch.autograd.Function that can be differentiated only once, .*: write its backward in torch's operations",
    ),
    "function without derivatives": refused(
        applied(lambda z: torch.special.zeta(z.square() + 2, z.square() + 1)),
        r"neither by the fast method \(NotImplementedError: .*\) nor by the general one \(.*zeta.*\): replace the",
    ),
    "checkpoints": refused(recomputed(False), CHECKPOINT),
    "reentrant checkpoints": refused(recomputed(True), CHECKPOINT),
    # Networks without a loss per example.
    "dropout": while_training(with_core(lambda: nn.Linear(4, 5), nn.Dropout), RANDOM),
    "dropout in evaluation mode": of(with_core(lambda: nn.Linear(4, 5), nn.Dropout, nn.Tanh)),
    "a layer left out by chance": refused(with_core(LayerDrop, width=4), RANDOM),
    "batch normalisation in training": while_training(
        with_core(lambda: nn.Linear(4, 5), lambda: nn.BatchNorm1d(5), nn.Tanh), STATISTICS
    ),
    "batch normalisation": of(with_core(lambda: nn.Linear(4, 5), lambda: nn.BatchNorm1d(5), nn.Tanh)),
    "batch normalisation without statistics": refused(
        with_core(lambda: nn.Linear(4, 5), lambda: nn.BatchNorm1d(5, track_running_stats=False)),
        STATISTICS + ", with running statistics of its own",
    ),
    "attention over the batch": refused(applied(over_the_batch), BATCH),
    "less the mean over the batch": refused(applied(lambda z: torch.tanh(z - z.mean(0))), BATCH),
    # Outputs and networks of other kinds.
    "tuple of outputs": refused(shaped(lambda z: (z, z)), r"gives a tuple where logits \(n, k\) are needed: wrap it"),
    "dictionary of outputs": of(shaped(lambda z: {"logits": z}), lambda: shaped(lambda z: z)()),
    "another dictionary": refused(shaped(lambda z: {"z": z}), "gives a dict where logits .*: wrap it"),
    "a logit alone": refused(shaped(lambda z: z[:, 0]), "the network has one logit, whose softmax is 1"),
    "logits of pixels": refused(
        shaped(lambda z: z[..., None]),
        r"labels have the shape \(7,\) and outputs \(7, 3, 1\): give labels of the shape \(7, 3\)",
    ),
    "logits of another type": refused(
        shaped(lambda z: z.float()), "gives logits of type torch.float32 for parameters of type torch.float64: let it"
    ),
    "traced": refused(
        lambda: torch.jit.trace(plain(), torch.zeros(1, 4)),
        "^the network is scripted or traced, which fixes its parameters: give the module it was made from$",
    ),
    "lazy layers": refused(
        lambda: Network(nn.LazyLinear(5)), "parameter core.weight has no shape yet: call the network"
    ),
    "no parameters": refused(lambda: nn.Tanh(), "the network has no parameters, .*: give one that has some"),
    "a state": given(
        "the network is of type OrderedDict: give a torch.nn.Module, or a function", module=nn.Module.state_dict
    ),
    # Options.
    "temperature zero": given("temperature 0 is not positive and finite: give", options={"temperature": 0}),
    "temperature NaN": given("temperature nan is not positive", options={"temperature": float("nan")}),
    "memory zero": given("memory_mib 0 is not positive and finite", options={"memory_mib": 0}),
    "unknown loss": given("loss 'hinge' is unknown: use one of", options={"loss": "hinge"}),
}


@dataclass(frozen=True)
class Given:
    """The usual arguments of the library's functions, which `changed` returns as a list after some changes."""

    module: nn.Module
    parameters: torch.Tensor
    rows: torch.Tensor
    inputs: torch.Tensor
    labels: torch.Tensor

    def changed(self, changes):
        return [changes.get(name, lambda value: value)(value) for name, value in vars(self).items()]


def problem(row):
    torch.manual_seed(0)
    module = row.network().double()
    if row.evaluated:
        module.eval()
    lazy = any(nn.parameter.is_lazy(each) for each in module.parameters())
    size = 43 if lazy else sum(each.numel() for each in module.parameters()) or 1
    random = randomness.stream("inputs", size)
    parameters, rows = 0.4 * random.standard_normal(size), random.standard_normal((DIRECTIONS, size)) / size**0.5
    tokens = random.integers(0, 6, (N, 3))
    inputs = tokens if row.shape == "tokens" else random.standard_normal((N, *row.shape))
    targets = random.integers(0, CLASSES, N)
    return Given(module, *map(torch.as_tensor, (parameters, rows, inputs, targets)))


def by_brute_force(module, parameters, rows, inputs, targets):
    """Hessian (d, d) of the mean cross-entropy on the plane of `rows`, and its products (d, D) with `rows`.

    Both are computed by double backward.
    """
    names, shapes = zip(*((name, each.shape) for name, each in module.named_parameters()))
    sizes = [shape.numel() for shape in shapes]

    def mean(theta):
        tensors = dict(zip(names, (piece.view(shape) for piece, shape in zip(theta.split(sizes), shapes))))
        return losses(functional_call(module, tensors, (inputs,)), targets, "cross_entropy", 1.0).mean()

    basis, zero = orthonormal(rows), torch.zeros(len(rows), dtype=torch.float64)
    on_plane = torch.autograd.functional.hessian(lambda s: mean(parameters + basis @ s), zero)
    products = [torch.autograd.functional.vhp(mean, parameters, row)[1] for row in rows]
    return on_plane.numpy(), torch.stack(products).numpy()


def plain_values(array, dtype=torch.float64):
    """Convert an array or tensor of any layout or byte order to a dense tensor of type `dtype`."""
    array = np.ascontiguousarray(array) if isinstance(array, np.ndarray) else array
    array = torch.as_tensor(array.astype(array.dtype.newbyteorder("=")) if isinstance(array, np.ndarray) else array)
    return array.detach().to_dense().to(dtype) if array.layout != torch.strided else array.detach().to(dtype)


@pytest.mark.filterwarnings("ignore")  # of torch, of what is deprecated or slow
@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_what_is_given_has_its_right_hessian_or_one_sentence(row):
    usual = problem(row)
    module, parameters, rows, inputs, targets = usual.changed(row.changes)
    if row.sentence is None and row.dtype == torch.float32 and "rows" not in row.changes:
        rows = rows.float()

    memory = {name: row.options[name] for name in row.options if name == "memory_mib"}

    def given():
        return Problem(module, inputs, targets, **{name: row.options[name] for name in row.options.keys() - memory})

    def plane():
        return hessian.plane_hessian(given(), parameters, rows, **memory).hessian

    def products():
        return np.asarray(hessian.hessian_vector_products(given(), parameters, rows, **memory))

    if row.sentence is not None:
        for function in (plane, products):
            with pytest.raises(ValueError) as refusal:
                function()
            message = str(refusal.value)
            assert re.search(row.sentence, message), message
            assert "\n" not in message
        return
    written_out = (row.written_out or (lambda: usual.module))().double().eval()
    ids = row.shape == "tokens"
    on_plane, pushed = by_brute_force(
        written_out,
        plain_values(parameters),
        plain_values(rows),
        plain_values(inputs, torch.int64 if ids else torch.float64),
        plain_values(targets, torch.int64),
    )
    assert np.linalg.norm(on_plane) > 1e-4
    assert relative_error(plane(), on_plane) < TOLERANCE[row.dtype]
    assert relative_error(products(), pushed) < TOLERANCE[row.dtype]


def with_rows(function, **options):
    return lambda m, p, v, x, y: function(Problem(m, x, y), p, v, **options)


def clustered(module, parameters, inputs, targets):
    gradients = logit_gradients.of(Problem(module, inputs), parameters)
    return logit_gradient_pairs.clustering(gradients, targets)


def top_near(given, parameters, rows):
    search = Search(start=top_eigenvectors.start_near(rows, len(parameters)))
    return top_eigenvectors.top_eigenpairs(given, parameters, 1, search)


ENTRIES = {
    "plane_hessian": with_rows(hessian.plane_hessian),
    "radial_sweep": lambda m, p, v, x, y: hessian.radial_sweep(Problem(m, x, y), p, [1.0, 2.0], v),
    "curvature_at": lambda m, p, v, x, y: hessian.curvature_at(Problem(m, x, y), p, [(1.0, 2.0)], v),
    "sphere_hessian": with_rows(hessian.sphere_hessian),
    "hessian_vector_products": with_rows(hessian.hessian_vector_products),
    "gauss_newton": with_rows(hessian.hessian_vector_products, part="gauss_newton"),
    "hessian_products": lambda m, p, v, x, y: hessian.hessian_products(Problem(m, x, y), p)(v),
    "top_eigenpairs": lambda m, p, v, x, y: top_near(Problem(m, x, y), p, v),
    "spectral_density": lambda m, p, v, x, y: spectral_density(Problem(m, x, y), p, 3, 2),
    "sharpness": lambda m, p, v, x, y: top_eigenvectors.sharpness(Problem(m, x, y), p),
    "path_of": lambda m, p, v, x, y: dispatch.path_of(Problem(m, x), p, 1),
    "logit_gradients.of": lambda m, p, v, x, y: clustered(m, p, x, y),
    "pushed": lambda m, p, v, x, y: logit_gradients.pushed(Problem(m, x), p, v),
    "pulled": lambda m, p, v, x, y: logit_gradients.pulled(Problem(m, x), p, np.ones((1, N, CLASSES))),
    "gradients": lambda m, p, v, x, y: curvature_gradients.gradients(Problem(m, x, y), p),
}
WITHOUT_ROWS = ("spectral_density", "sharpness", "path_of", "logit_gradients.of", "pulled", "gradients")
WITHOUT_LABELS = ("path_of", "pushed", "pulled")
# Changes of arguments, the sentence, and the functions that are not given them or that they mean something to.
MISTAKES = {
    "labels": ({"labels": lambda y: y[:1]}, "1 labels and 7 inputs were given: give one label", WITHOUT_LABELS),
    "kind of labels": ({"labels": lambda y: y.float()}, WHOLE, WITHOUT_LABELS),
    "range of labels": ({"labels": lambda y: y + 1}, "label 3 of example . is no class", WITHOUT_LABELS),
    "width of rows": ({"rows": lambda v: torch.cat([v, v], 1)}, SAME, WITHOUT_ROWS),
    "NaN in rows": ({"rows": at((1, 3), torch.nan)}, ". is not finite", WITHOUT_ROWS),
    "parameters": ({"parameters": lambda p: p[1:], "rows": lambda v: v[:, 1:]}, SAME, ()),
    # On the way to diverge sharpness is NaN.
    "NaN in parameters": ({"parameters": at(4, torch.nan)}, "parameter 4 is not finite", ("sharpness",)),
    "complex parameters": ({"parameters": lambda p: p + 0j}, "parameters are complex", ()),
    "NaN in inputs": ({"inputs": at((2, 1), torch.nan)}, "input 2 is not finite", ()),
    "no inputs": ({"inputs": lambda x: x[:0], "labels": lambda y: y[:0]}, "no examples to average over", ()),
    "width of inputs": ({"inputs": lambda x: x[:, :3]}, r"fails on inputs of shape \(7, 3\)", ()),
    "batch normalisation": ({"module": lambda m: nn.Sequential(m, nn.BatchNorm1d(3, affine=False))}, "mixes the", ()),
    "outputs": (
        {"module": lambda m: Shaped(m, lambda z: (z, z))},
        r"gives a tuple where logits \(n, k\) are needed",
        (),
    ),
}


@pytest.mark.parametrize(
    "mistake, entry", [(name, entry) for name, (*_, but) in MISTAKES.items() for entry in ENTRIES if entry not in but]
)
def test_every_function_of_the_library_refuses_the_same(mistake, entry):
    changes, sentence, _ = MISTAKES[mistake]
    arguments = problem(Row()).changed(changes)
    with pytest.raises(ValueError, match=sentence) as refusal:
        ENTRIES[entry](*arguments)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_function_of_the_library_takes_arrays_of_numpy(entry):
    """Includes integer labels of another type, and parameters and inputs with gradients in place of numpy arrays."""
    module, *arrays, targets = problem(Row()).changed({})
    of_numpy = [each.numpy() for each in arrays]
    with_gradients = [each.clone().requires_grad_() for each in arrays]
    expected, *found = (
        numbers(ENTRIES[entry](module, *arrays, own))
        for arrays, own in [(arrays, targets), (of_numpy, targets.int().numpy()), (with_gradients, targets.tolist())]
    )
    for each in found:
        assert each == pytest.approx(expected, rel=1e-12, abs=1e-14)


@pytest.mark.parametrize("make", [plain, known], ids=["general", "engine"])
@pytest.mark.parametrize("entry", ENTRIES)
def test_every_function_of_the_library_works_in_inference_mode(entry, make):
    given = problem(Row(make)).changed({})
    expected = numbers(ENTRIES[entry](*given))
    with torch.inference_mode():
        there = [each.clone() if isinstance(each, torch.Tensor) else each for each in given]
        found = numbers(ENTRIES[entry](*there))
    assert found == pytest.approx(expected, rel=1e-12, abs=1e-14)


def numbers(found):
    """List all numbers in a result of the library, in order; a text counts as its length."""
    if isinstance(found, str | float):
        return [float(len(found)) if isinstance(found, str) else found]
    if isinstance(found, torch.Tensor | np.ndarray):
        assert not (isinstance(found, torch.Tensor) and found.requires_grad)
        return np.asarray(found).ravel().tolist()
    parts = found if isinstance(found, list | tuple) else vars(found).values()
    return [number for part in parts for number in numbers(part)]


@pytest.mark.parametrize("make", [plain, known], ids=["general", "engine"])
def test_products_go_straight_into_searches_of_the_spectrum(make):
    module, parameters, _, inputs, targets = problem(Row(make)).changed({})
    products = hessian.hessian_products(Problem(module, inputs, targets), parameters)
    whole = np.asarray(products(torch.eye(len(parameters))))
    start = randomness.stream("start").standard_normal(len(parameters))
    values, _ = lanczos.top_eigenpairs(products, len(parameters), 3, Search(start=start))
    np.testing.assert_allclose(values, np.linalg.eigvalsh(whole)[::-1][:3], rtol=1e-7)
    density = lanczos.spectral_density(products, np.eye(len(parameters)), 5)
    assert density.moment(1)[0] == pytest.approx(np.trace(whole) / len(whole), rel=1e-10)


IDENTITY = np.eye(4)


@pytest.mark.parametrize(
    "call, sentence",
    [
        (
            lambda: summaries.nested_eigenvalues(IDENTITY, [2, 5]),
            r"dimensions \[2, 5\] do not fit a plane of 4: ask for 1 to 4",
        ),
        (lambda: summaries.nested_eigenvalues(IDENTITY, [0]), "ask for 1 to 4"),
        (lambda: summaries.nested_eigenvalues(IDENTITY[:3], [2]), r"the Hessian has the shape \(3, 4\): give a square"),
        (
            lambda: summaries.nested_eigenvalues(IDENTITY * np.nan, [2]),
            "entries of the Hessian are not finite: check the parameters",
        ),
        (lambda: summaries.summarise(IDENTITY), r"eigenvalues of shape \(4, 4\) .*: give real numbers with 1 axes"),
        (lambda: summaries.summarise(np.array([1, np.nan])), "entries of eigenvalues are not finite: check"),
        (lambda: summaries.summarise(np.ones(2) + 0j), r"eigenvalues of shape \(2,\) and type complex128"),
        (
            lambda: summaries.hutchinson(IDENTITY, IDENTITY[:1]),
            r"probes have the shape \(4, 4\) and products \(1, 4\)",
        ),
        (lambda: summaries.hutchinson(IDENTITY, IDENTITY * np.inf), "entries of products are not finite: check"),
        (lambda: lanczos.top_eigenpairs(lambda v: v, 4, 1.5), "1.5 eigenpairs were asked for"),
        (
            lambda: lanczos.top_eigenpairs(lambda v: v, 4, 1, Search(start=["a"] * 4)),
            "give a vector of 4 finite numbers",
        ),
        (lambda: lanczos.top_eigenpairs(lambda v: v * 1j, 4, 1), "complex: give a real symmetric"),
        (lambda: lanczos.lanczos(lambda v: v, IDENTITY[0], 2), r"probes of shape \(4,\) .*: give real rows"),
        (lambda: logit_gradients.gauss_newton(some_gradients(), None, 1), "by the outputs has a negative eigenvalue"),
        (
            lambda: logit_gradient_pairs.frobenius_norm(some_gradients(), SoftmaxFactor(torch.ones(5, 2) / 2)),
            r"outputs have the shape \(5, 2\) \(examples, classes\), but gradients \(6, 2\)",
        ),
        (
            lambda: top_eigenvectors.first_layer_images(known(), IDENTITY, (1, 2, 2)),
            r"have the shape \(4, 4\): give an array \(43, m\)",
        ),
    ],
)
def test_what_spectra_are_made_of_is_checked(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()


def some_gradients():
    return logit_gradients.LogitGradients.of_columns(torch.ones(6, 2, 5, dtype=torch.float64))


def test_switches_of_torch_are_as_they_were():
    def switches():
        backends = torch.backends
        attention = [backends.cuda.flash_sdp_enabled(), backends.cuda.math_sdp_enabled()]
        return [*attention, backends.mha.get_fastpath_enabled(), backends.mkldnn.is_available(), backends.cudnn.enabled]

    before, module = switches(), problem(ROWS["attention"]).module
    assert before[2]
    with pytest.raises(ZeroDivisionError), kernels.differentiable():
        assert switches() != before
        module(torch.zeros(1, 3, 4).double())
        raise ZeroDivisionError
    assert switches() == before


class Sequences(nn.Module):
    """A user's own network that reads the rows of an image as a sequence; `kind` is attention or a recurrent layer."""

    def __init__(self, image, classes, kind):
        super().__init__()
        core = Attention() if kind == "attention" else getattr(nn, kind)(image[2], 4, batch_first=True)
        self.network = Network(core, 4, classes)

    def forward(self, images):
        return self.network(images[:, 0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN", "attention"])
def test_networks_of_ones_own_over_sequences_are_built_and_trained(kind, dtype):
    """Gradients of members in one computation equal those of each member alone."""
    module = user_networks.build_own(Sequences, (1, 3, 4), CLASSES, {"kind": kind}, "network mine").to(dtype)
    shapes = [tuple(each.shape) for each in module.parameters()]
    theta = nn.utils.parameters_to_vector(module.parameters()).detach()
    subset = constraints.full(torch.stack([theta, 2 * theta]), shapes, False)
    images, targets = torch.randn(N, 1, 3, 4, dtype=dtype), torch.arange(N) % CLASSES
    options = ensembles.Options(1, None, torch.ones(2))
    ensemble = ensembles.Ensemble(Problem(module, images, targets), subset, options, [("batches",)])
    together, own = ensemble.gradients(images, targets), images.expand(2, -1, -1, -1, -1)
    assert relative_error(ensemble.gradients(own, targets.expand(2, -1)), together) < 100 * torch.finfo(dtype).eps
    for scale, found in zip((1, 2), together):
        nn.utils.vector_to_parameters(scale * theta, module.parameters())
        loss = functional.cross_entropy(module(images), targets)
        expected = torch.cat([each.flatten() for each in torch.autograd.grad(loss, list(module.parameters()))])
        assert relative_error(found.numpy(), expected.numpy()) < 100 * torch.finfo(dtype).eps
    assert observations.classified(ensemble, images, targets)["loss"][1] == pytest.approx(float(loss), rel=1e-6)
