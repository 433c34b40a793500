"""Guarantees for any module: its right derivatives or a refusal, and no change to the module.

Brute force is reverse over reverse on the flattened parameters, by torch.func.functional_call, on a copy.
"""

import copy
import types
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call

from goldilocks_zone.curvature import autodiff, dispatch, logit_gradients, softened_relu, top_eigenvectors
from goldilocks_zone.curvature import gradients as curvature_gradients
from goldilocks_zone.curvature import hessian as curvature_hessian
from goldilocks_zone.curvature.hessian import spectral_density
from goldilocks_zone.models import chains, networks, user_networks
from goldilocks_zone.models.labels import parse_network
from goldilocks_zone.models.problem import Problem
from goldilocks_zone.spectra.lanczos import Search
from goldilocks_zone.subspaces import constraints
from goldilocks_zone.training import ensembles
from oracles.brute_force import losses as written_out
from oracles.brute_force import orthonormal, relative_error

TOLERANCE = 1e-10  # two exact ways in double precision, with condition numbers of Gram matrices below 1e3
INPUTS, CLASSES, EXAMPLES = 5, 3, 12


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def problem(module, image=(INPUTS,), examples=EXAMPLES):
    """Random parameters (D,) and directions (3, D) for a module, random inputs, and labels.

    The parameters differ from the module's own.
    """
    size = sum(each.numel() for each in module.parameters())
    inputs, labels = random(examples, *image, seed=2), torch.arange(examples) % CLASSES
    return 0.7 * random(size), random(3, size, seed=1), inputs, labels


def logits_of(module):
    """Logits as a function of parameters (D,) and inputs, by torch.func.functional_call on copies of the module.

    A forward pass may change the copy.
    """
    module = copy.deepcopy(module)
    shapes = {name: each.shape for name, each in module.named_parameters()}
    sizes = [shape.numel() for shape in shapes.values()]

    def logits(theta, inputs):
        pieces = zip(shapes.items(), theta.split(sizes))
        return functional_call(copy.deepcopy(module), {n: p.view(shape) for (n, shape), p in pieces}, (inputs,))

    return logits


def hessian(module, theta, inputs, labels, loss="cross_entropy"):
    """Hessian (D, D) of the mean loss in the space of all parameters, by automatic differentiation."""
    logits = logits_of(module)
    mean = lambda point: written_out(logits(point, inputs), labels, loss, 1.0).mean()  # noqa: E731
    return torch.autograd.functional.hessian(mean, theta)


def jacobian(module, theta, inputs):
    logits = logits_of(module)
    return torch.autograd.functional.jacobian(lambda point: logits(point, inputs), theta)


def gram_of(module, theta, inputs):
    gradients = logit_gradients.of(Problem(module, inputs), theta)
    return gradients.products(gradients)


def assert_right(module, image=(INPUTS,), scales=(1.0, 6.0)):
    """Assert that the library agrees with brute force for a module.

    Compared are curvature at one point and over a sweep, products with H and G, and inner products of logit gradients.
    """
    theta, rows, inputs, labels = problem(module, image)
    basis = orthonormal(rows)
    expected = [(basis.T @ hessian(module, scale * theta, inputs, labels) @ basis).numpy() for scale in scales]
    made = Problem(module, inputs, labels)
    found = curvature_hessian.plane_hessian(made, theta, rows)
    assert relative_error(found.hessian, (basis.T @ hessian(module, theta, inputs, labels) @ basis).numpy()) < TOLERANCE
    for each, at_point in zip(expected, curvature_hessian.radial_sweep(made, theta, scales, rows)):
        assert relative_error(at_point.hessian, each) < TOLERANCE
    for loss in ("cross_entropy", "mean_squared_error"):
        whole = hessian(module, theta, inputs, labels, loss)
        pushed = curvature_hessian.hessian_vector_products(Problem(module, inputs, labels, loss=loss), theta, rows)
        assert relative_error(pushed.numpy(), (rows @ whole).numpy()) < TOLERANCE
    j = jacobian(module, theta, inputs)
    p = torch.softmax(logits_of(module)(theta, inputs), 1)
    middle = torch.diag_embed(p) - p[:, :, None] * p[:, None]
    whole = torch.einsum("nkd,nkl,nle->de", j, middle, j) / len(inputs)
    pushed = curvature_hessian.hessian_vector_products(made, theta, rows, part="gauss_newton")
    assert relative_error(pushed.numpy(), (rows @ whole).numpy()) < TOLERANCE
    gram = gram_of(module, theta, inputs)
    assert relative_error(gram.numpy(), torch.einsum("nkd,mld->nkml", j, j).numpy()) < TOLERANCE


# A chain of layers by its classes.


def plain(activation=nn.ReLU, **options):
    return nn.Sequential(nn.Linear(INPUTS, 6), activation(), nn.Linear(6, CLASSES, **options)).double()


def with_forward(place, forward):
    """A chain in which the layer `place`, or the chain itself if None, has `forward` set as its own forward pass."""
    module = plain()
    layer = module if place is None else module[place]
    layer.forward = types.MethodType(forward, layer)
    return module


def gelu_inside(self, x):
    return self[2](nn.functional.gelu(self[0](x)))


REPLACED = {
    "an activation": lambda: with_forward(1, lambda self, z: nn.functional.gelu(z)),
    "the whole": lambda: with_forward(None, gelu_inside),
    "a dense layer": lambda: with_forward(2, lambda self, x: nn.functional.linear(x**2, self.weight)),
    # Clipped beyond what the smaller of two radii gives.
    "at large radii": lambda: with_forward(1, lambda self, z: z.clamp(0, 8)),
    # Its logits are those of the class.
    "its gradient alone": lambda: with_forward(1, lambda self, z: z.relu() + z.sin() - z.sin().detach()),
    "its shapes": lambda: with_forward(None, lambda self, x: gelu_inside(self, x.flatten(1))),
}


@pytest.mark.parametrize("name", REPLACED)
def test_a_forward_pass_set_on_an_object_is_the_one_that_counts(name):
    """By its class, the module would be a chain of known layers, which has other derivatives."""
    module = REPLACED[name]().double()
    image = (1, INPUTS) if name == "its shapes" else (INPUTS,)
    assert chains.of(module) is not None
    assert_right(module, image)


def test_a_forward_pass_set_on_a_class_is_the_one_that_counts(monkeypatch):
    monkeypatch.setattr(nn.ReLU, "forward", lambda self, z: torch.sigmoid(z) * z)
    assert_right(plain())


def test_hooks_of_all_modules_count():
    hook = nn.modules.module.register_module_forward_hook(
        lambda module, given, output: output.tanh() if isinstance(module, nn.ReLU) else None
    )
    try:
        assert_right(plain())
    finally:
        hook.remove()


def test_what_is_set_on_a_network_of_ones_own_counts():
    module = user_networks.build_own(
        lambda image, classes: nn.Sequential(nn.Flatten(), REPLACED["an activation"]()),
        (1, 1, INPUTS),
        CLASSES,
        {},
        "network mine",
    )
    assert_right(module, (1, 1, INPUTS))


def test_the_way_taken_is_told_for_what_a_network_does():
    theta, _, inputs, _ = problem(plain())
    replaced = REPLACED["an activation"]()
    for points, way in ((1, dispatch.POINTWISE), (2, dispatch.SHARED)):
        assert dispatch.path_of(Problem(plain(), inputs), theta, points) == way
        assert dispatch.path_of(Problem(replaced, inputs), theta, points) == dispatch.GRAPH
    with pytest.raises(ValueError, match="kinks can be softened only in a chain of torch's layers"):
        softened_relu.softened(Problem(replaced, inputs), theta, 10.0)


def test_each_relu_is_softened_by_the_size_of_its_own_inputs():
    """Against a forward pass by hand, where the ReLU inside a block is called before the one beside the block."""
    inner = nn.Sequential(nn.Linear(INPUTS, 6), nn.ReLU(), nn.Linear(6, INPUTS))
    module = nn.Sequential(nn.Identity(), networks.Residual(inner), nn.ReLU(), nn.Linear(INPUTS, CLASSES)).double()
    theta, _, inputs, _ = problem(module)
    softer = softened_relu.softened(Problem(module, inputs), theta, 10.0).network
    nn.utils.vector_to_parameters(theta, module.parameters())
    first, second = module[1].inner[0](inputs), module[1](inputs)
    for found, taken in ((softer[1].inner[1], first), (softer[2], second)):
        assert found.beta == pytest.approx(10 / float(taken.square().mean().sqrt()), rel=1e-12)


def test_networks_with_another_activation_are_not_softened():
    for other in (nn.Sigmoid(), nn.Softplus(), networks.CentredSoftplus(3.0)):
        module = nn.Sequential(nn.Linear(INPUTS, 5), nn.ReLU(), nn.Linear(5, 5), other, nn.Linear(5, CLASSES)).double()
        theta, _, inputs, _ = problem(module)
        with pytest.raises(ValueError, match="kinks can be softened only"):
            softened_relu.softened(Problem(module, inputs), theta, 10.0)


@pytest.mark.parametrize("label", ["fc-9x3-relu", "conv-3x2-leakyrelu", "fc-9x3-tanh-res", "lenet5-softplus"])
@pytest.mark.parametrize("radius", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_rounding_keeps_no_network_from_its_chain(label, radius, dtype):
    module = networks.build(parse_network(label), (1, 9, 9), CLASSES).to(dtype)
    theta, _, inputs, _ = problem(module, (1, 9, 9))
    inputs[:, :, :5] = inputs[0, 0, 0, 0]  # windows of equal entries, whose maximum is a tie
    theta = (radius * theta).to(dtype)
    assert chains.matching(module, [theta], inputs.to(dtype)) is not None


def test_the_comparison_costs_a_few_examples(monkeypatch):
    seen, module, forward = [], plain(), nn.Linear.forward
    monkeypatch.setattr(nn.Linear, "forward", lambda self, x: seen.append(len(x)) or forward(self, x))
    theta, rows, inputs, labels = problem(module, examples=400)
    curvature_hessian.radial_sweep(Problem(module, inputs, labels), theta, [0.1 * i for i in range(1, 30)], rows)
    # Two layers, tried on one example, and at the ends of the sweep.
    assert seen == [1] * 4 + [chains.EXAMPLES_COMPARED] * 4


# Parameters at several places, and modules that stay whole.


def shared(between=nn.Tanh):
    layer = nn.Linear(6, 6)
    return nn.Sequential(nn.Linear(INPUTS, 6), nn.ReLU(), layer, between(), layer, nn.Linear(6, CLASSES)).double()


class SharedByName(nn.Module):
    """One layer under two names, one weight in two layers, and one tensor as a parameter and as a buffer."""

    def __init__(self):
        super().__init__()
        self.first, self.inner, self.last = nn.Linear(INPUTS, 6), nn.Linear(6, 6), nn.Linear(6, CLASSES)
        self.again, self.tied = self.inner, nn.Linear(6, 6, bias=False)
        self.tied.weight = self.inner.weight
        self.register_buffer("same", self.first.bias)

    def forward(self, x):
        hidden = torch.tanh(self.first(x))
        return self.last(self.tied(torch.sigmoid(self.again(torch.tanh(self.inner(hidden + self.same))))))


class Normalised(nn.Module):
    """A network with batch normalisation and custom running statistics in a buffer, an attribute and a number."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(INPUTS, 6), nn.BatchNorm1d(6), nn.Softplus(), nn.Linear(6, CLASSES))
        self.register_buffer("mean", torch.zeros(CLASSES))
        self.register_buffer("shared", self.mean)
        self.calls, self.sum, self.seen = 0, torch.zeros(1), None

    def forward(self, x):
        outputs = self.layers(x)
        with torch.no_grad():
            self.mean = self.mean + outputs.detach().mean(0)
            self.sum.add_(1.0)
        self.calls, self.seen = self.calls + 1, outputs
        return outputs


class Failing(nn.Module):
    """A module whose forward pass raises RuntimeError after `passes` passes."""

    def __init__(self, passes):
        super().__init__()
        self.layer, self.left = nn.Linear(INPUTS, CLASSES), [passes]

    def forward(self, x):
        self.left[0] -= 1
        if self.left[0] < 0:
            raise RuntimeError("no more")
        return self.layer(torch.tanh(x))


class Tokens(nn.Module):
    """A network with logits for several `tokens` of each example, by default as many as there are examples."""

    def __init__(self, tokens=EXAMPLES):
        super().__init__()
        self.layer, self.tokens = nn.Linear(INPUTS, CLASSES), tokens

    def forward(self, x):
        return self.layer(torch.stack([x * (1 + i) for i in range(self.tokens)], 1))


class Backbone(nn.Module):
    """Two layers, the first of which gets no gradient: `how` is no_grad, data or detach."""

    def __init__(self, how):
        super().__init__()
        self.first, self.last, self.how = nn.Linear(INPUTS, 6), nn.Linear(6, CLASSES), how

    def forward(self, x):
        with torch.set_grad_enabled(self.how != "no_grad" and torch.is_grad_enabled()):
            hidden = torch.tanh(self.first(x))
        if self.how == "data":
            hidden = hidden.data
        return self.last(hidden.detach() if self.how == "detach" else hidden)


def weight_normed():
    with warnings.catch_warnings(action="ignore"):
        first = nn.utils.weight_norm(nn.Linear(INPUTS, 6))
    return nn.Sequential(first, nn.Tanh(), nn.Linear(6, CLASSES)).double()


class Cubed(nn.Module):
    def forward(self, weight):
        return weight**3


def parametrized():
    module = plain(nn.Tanh)
    nn.utils.parametrize.register_parametrization(module[0], "weight", Cubed())
    return module


def frozen():
    module = plain()
    module[0].weight.requires_grad_(False)
    return module.eval()


def trained():
    """A module after a training pass: it has gradients, and running statistics that differ from the initial ones."""
    module = Normalised().double()
    nn.functional.cross_entropy(module(random(9, INPUTS)), torch.arange(9) % CLASSES).backward()
    module.seen = None
    return module.eval()


RIGHT = {
    "shared layer": shared,
    "shared names": lambda: SharedByName().double(),
    "parametrized": parametrized,
    "frozen": frozen,
    "running statistics": trained,
}


@pytest.mark.parametrize("name", RIGHT)
def test_parameters_at_several_places_and_made_of_others_are_differentiated_by(name):
    torch.manual_seed(0)
    assert_right(RIGHT[name]())


class Collected(nn.Module):
    """Holds the weights of its layers in a list, a tuple and a dict, as torch's recurrent layers do."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(INPUTS, 6, bias=False), nn.Linear(6, CLASSES, bias=False)])
        first, last = (layer.weight for layer in self.layers)
        self.held, self.scale = {"first": [first], "last": (last, 1.0)}, [torch.ones(1)]

    def forward(self, x):
        self.scale[0].mul_(2)
        return torch.tanh(x @ self.held["first"][0].T) @ self.held["last"][0].T * self.scale[0] / 2


def test_parameters_in_collections_are_differentiated_by():
    module = Collected().double()
    (theta, rows, *data), before = problem(module), state(module)
    found = curvature_hessian.plane_hessian(Problem(module, *data), theta, rows).hessian
    assert_unchanged(module, before)
    assert float(module.scale[0]) == 1
    same = nn.Sequential(nn.Linear(INPUTS, 6, bias=False), nn.Tanh(), nn.Linear(6, CLASSES, bias=False)).double()
    assert relative_error(found, curvature_hessian.plane_hessian(Problem(same, *data), theta, rows).hessian) < TOLERANCE


WHOLE = {
    **RIGHT,
    "weight norm": weight_normed,
    "chain": plain,
    "softplus chain": lambda: plain(nn.Softplus, bias=False),
    "batch norm in training": lambda: Normalised().double(),
    "fails at once": lambda: Failing(0).double(),
    "fails later": lambda: Failing(3).double(),
    "tokens": lambda: Tokens().double(),
    "no_grad": lambda: Backbone("no_grad").double(),
    "recurrent": lambda: nn.Sequential(nn.LSTM(INPUTS, CLASSES, batch_first=True)).double(),
    "in inference mode": lambda: torch.inference_mode()(plain)(),
}


def state(module):
    """Complete state of a module: identities of its tensors and layers, values, gradients, flags and attributes."""
    held = {}
    for name, layer in module.named_modules(remove_duplicate=False):
        for kind in (layer.__dict__, layer._parameters, layer._buffers, layer._modules):
            for key, value in kind.items():
                place = (name, key, id(kind))
                held[place] = id(value), type(value)
                if isinstance(value, torch.Tensor):
                    grad = None if not value.is_leaf or value.grad is None else value.grad.clone()
                    held[place] += value.detach().clone(), value.requires_grad, grad
                elif isinstance(value, bool | int | float | str):
                    held[place] += (value,)
    return held


def assert_unchanged(module, before):
    after = state(module)
    assert after.keys() == before.keys()
    for place, expected in before.items():
        for one, other in zip(after[place], expected, strict=True):
            same = torch.equal(one, other) if isinstance(other, torch.Tensor) else one == other
            assert same, f"{place} has changed"


def entries(module, theta, rows, inputs, labels):
    """Yield every function of the library that takes a network: its name, and a call of it without arguments."""
    made, vectors = Problem(module, inputs, labels), random(4, len(inputs), CLASSES, seed=3)
    yield "radial_sweep", lambda: curvature_hessian.radial_sweep(made, theta, [0.5, 2.0], rows)
    yield "plane_hessian", lambda: curvature_hessian.plane_hessian(made, theta, rows)
    yield "sphere_hessian", lambda: curvature_hessian.sphere_hessian(made, theta, rows)
    yield "path_of", lambda: dispatch.path_of(made, theta, 2)
    for part in ("hessian", "gauss_newton"):
        yield part, lambda part=part: curvature_hessian.hessian_vector_products(made, theta, rows, part)
    yield "top_eigenpairs", lambda: top_eigenvectors.top_eigenpairs(made, theta, 1, Search(tolerance=0.1))
    yield "spectral_density", lambda: spectral_density(made, theta, 3, 2)
    yield "sharpness", lambda: top_eigenvectors.sharpness(made, theta)
    yield "of", lambda: logit_gradients.of(made, theta)
    yield "pushed", lambda: logit_gradients.pushed(made, theta, rows)
    yield "pulled", lambda: logit_gradients.pulled(made, theta, vectors)
    yield "gradients", lambda: curvature_gradients.gradients(made, theta)
    yield "softened", lambda: softened_relu.softened(made, theta, 10.0)
    yield "training", lambda: trained_for_a_step(made, theta)


def trained_for_a_step(made, theta):
    module = made.network
    subset = constraints.Subset(torch.stack([theta, -theta]), [tuple(each.shape) for each in module.parameters()])
    options = ensembles.Options(1, 4, random(2), random(2))
    ensembles.Ensemble(made, subset, options, [("batches",)]).step(0, made.inputs, made.labels)


@pytest.mark.parametrize("name", WHOLE)
def test_nothing_of_a_module_changes(name):
    torch.manual_seed(0)
    module = WHOLE[name]()
    before, given = state(module), problem(module)
    for entry, call in entries(module, *given):
        try:
            call()
        except (ValueError, RuntimeError, NotImplementedError) as refused:
            assert name not in RIGHT or entry == "softened", refused
        assert_unchanged(module, before)
    for one, other in zip(problem(module), given):
        assert torch.equal(one, other)


# What has no Hessian of a loss per example.


class Recurrent(nn.Module):
    """A network whose logits of an example depend on the examples before it.

    The same happens in a recurrent network that mistakes the batch for the sequence axis.
    """

    def __init__(self):
        super().__init__()
        self.layer, self.last = nn.Linear(INPUTS, 6), nn.Linear(6, CLASSES)

    def forward(self, x):
        return self.last(torch.tanh(self.layer(x)).cumsum(0))


MIXING = {
    "batch norm": lambda: nn.Sequential(
        nn.Linear(INPUTS, 6), nn.BatchNorm1d(6, track_running_stats=False), nn.Tanh(), nn.Linear(6, CLASSES)
    ).double(),
    "batch norm in training": lambda: Normalised().double(),
    "those before": lambda: Recurrent().double(),
}


def curvatures(*arguments):
    """Calls of every function of the library that returns derivatives, by name; see `entries`."""
    return {name: call for name, call in entries(*arguments) if name not in ("path_of", "softened", "training")}


DERIVATIVES = list(curvatures(plain(), *problem(plain())))


@pytest.mark.parametrize("name", MIXING)
@pytest.mark.parametrize("entry, examples", [*((entry, EXAMPLES) for entry in DERIVATIVES), ("hessian", 2)])
def test_networks_that_mix_examples_are_refused(entry, name, examples):
    module = MIXING[name]()
    remedy = (
        "depend on no other" if name == "those before" else r"batch normalisation .* evaluation mode by network\.eval"
    )
    with pytest.raises(ValueError, match=f"mixes the examples of a batch.*{remedy}"):
        curvatures(module, *problem(module, examples=examples))[entry]()


@pytest.mark.parametrize("entry", DERIVATIVES)
def test_outputs_that_are_no_logits_are_refused(entry):
    """Several tensors; as many tokens as examples, so that the axes are ambiguous; images, with one class each."""
    with pytest.raises(ValueError, match=r"the network gives a tuple .*: wrap it in a module that returns"):
        curvatures(LastOfTwo().double(), *problem(Tokens()))[entry]()
    unlabelled = entry in ("of", "pushed", "pulled")
    convolution = nn.Conv2d(1, CLASSES, 1).double()
    for module, given in ((Tokens().double(), problem(Tokens())), (convolution, problem(convolution, (1, 2, 2)))):
        expected = "wrap it in a module that" if unlabelled else "labels have the shape .*: give labels of the shape"
        with pytest.raises(ValueError, match=expected):
            curvatures(module, *given)[entry]()


class LastOfTwo(Tokens):
    def forward(self, x):
        return self.layer(x), x


# A constant to first derivatives of either mode.
FIRST = ("gauss_newton", "of", "pushed", "pulled", "gradients")
HIDDEN = [(entry, how) for entry in DERIVATIVES for how in ("no_grad", "data") if how != "data" or entry not in FIRST]


@pytest.mark.parametrize("entry, how", HIDDEN)
def test_parts_that_one_mode_of_differentiation_does_not_see_are_refused(entry, how):
    module = Backbone(how).double()
    theta, rows, inputs, labels = problem(module)
    # Along one direction any matrix is symmetric, and along those of the unseen part alone this one vanishes.
    for plane in (rows, rows[:1], torch.eye(len(theta)).double()[:2]):
        with pytest.raises(
            ValueError, match=r"second derivatives are not symmetric.*under torch\.no_grad or on \.data"
        ):
            curvatures(module, theta, plane, inputs, labels)[entry]()


def test_a_part_that_is_not_seen_for_some_examples_alone_is_refused():
    class Sometimes(Backbone):
        def forward(self, x):
            outputs = super().forward(x)
            self.how = "plain"
            return torch.where(x[:, :1] > 1, outputs, super().forward(x))

    module = Sometimes("no_grad").double()
    theta, rows, inputs, labels = problem(module)
    inputs[:, 0] = 2
    inputs[networks.few(torch.arange(EXAMPLES), autodiff.EXAMPLES)] = 0
    with pytest.raises(ValueError, match="second derivatives are not symmetric"):
        curvature_hessian.plane_hessian(Problem(module, inputs, labels), theta, rows)


def test_what_is_detached_is_constant():
    assert_right(Backbone("detach").double())


class Attention(nn.Module):
    """Self-attention with a softmax that saturates at large radii."""

    def __init__(self):
        super().__init__()
        self.queries, self.keys, self.values = (nn.Linear(6, 12) for _ in range(3))
        self.last = nn.Linear(12, CLASSES)

    def forward(self, x):
        weights = torch.softmax(self.queries(x) @ self.keys(x).mT, -1)
        return self.last(weights @ self.values(x)).mean(1)


class Monitor(nn.Module):
    """Inspects activations under torch.no_grad, without any effect on the outputs."""

    def forward(self, x):
        with torch.no_grad():
            self.mean = x.mean()
        return x


@pytest.mark.parametrize(
    "radius, dtype", [(1e-3, torch.float64), (1.0, torch.float32), (10.0, torch.float64), (1e3, torch.float32)]
)
def test_rounding_is_not_taken_for_asymmetry(radius, dtype, monkeypatch, automatic):
    """At most 200 ε were measured, where a softmax saturates; the bound is 2e5 ε in single precision."""
    found, refuse = [], autodiff.refuse_asymmetric

    def spy(matrix, size=0.0):
        refuse(matrix, size)
        found.append(float((matrix - matrix.T).norm() / (size + matrix.norm())))

    monkeypatch.setattr(autodiff, "refuse_asymmetric", spy)
    torch.manual_seed(0)
    deep = [layer for _ in range(4) for layer in (nn.LayerNorm(36), nn.GELU(), nn.Linear(36, 36))]
    for module in (Attention(), nn.Sequential(nn.Flatten(), *deep, nn.Linear(36, CLASSES))):
        module = nn.Sequential(module, Monitor()).double()
        theta, rows, inputs, labels = problem(module, (6, 6))
        curvature_hessian.plane_hessian(Problem(module, inputs, labels), radius * theta / 3, rows.to(dtype))
    assert len(found) == 2 * (autodiff.PIECES + 1) and np.nanmax(found) < 1000 * torch.finfo(dtype).eps


def clamped(self, x):
    self.weight.data.clamp_(-0.1, 0.1)
    return nn.functional.linear(x, self.weight, self.bias)


class Embedded(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.last = nn.Embedding(7, 6, max_norm=0.1), nn.Linear(6, CLASSES)

    def forward(self, x):
        return self.last(self.layer(x[:, 0].abs().long()))


@pytest.mark.parametrize("make", [lambda: with_forward(2, clamped), lambda: Embedded().double()])
@pytest.mark.parametrize("entry", DERIVATIVES)
def test_networks_that_change_their_parameters_are_refused(entry, make):
    module = make()
    given = problem(module)
    before = given[0].clone()
    with pytest.raises(ValueError, match="the network changes its parameters in its forward pass"):
        curvatures(module, *given)[entry]()
    assert torch.equal(given[0], before)


# Modes of torch.


def in_parts(network, seen):
    """Logits as a function of parameters and inputs, which appends the number of examples of each call to `seen`."""
    logits = networks.logits_function(network)
    return lambda theta, inputs: seen.append(len(inputs)) or logits(theta, inputs)


MODES = {
    "no_grad": torch.no_grad,
    "inference": torch.inference_mode,
    "mixed precision": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
}


@pytest.mark.parametrize(
    "mode, own, dtype",
    [
        ("no_grad", False, torch.float64),
        ("inference", True, torch.float64),
        ("inference", False, torch.float32),
        ("mixed precision", True, torch.float32),
    ],
)
def test_modes_of_torch_change_neither_results_nor_parts(mode, own, dtype):
    """Under no_grad, no stored activations could be counted, so that all examples were computed at once.

    With `own`, the arguments are tensors that were made under the mode, too.
    """
    module = trained()
    theta, rows, inputs, labels = problem(module)
    given = theta.to(dtype), rows.to(dtype), inputs.to(dtype), labels
    options = {"memory_mib": 0.016 if dtype == torch.float64 else 0.008}

    def measured(theta, rows, inputs, labels):
        seen, data = [], (inputs, labels)
        logits, chain = in_parts(module, seen), plain()
        size = sum(each.numel() for each in chain.parameters())
        places = [(Problem(logits, *data), theta, rows), (Problem(chain, *data), theta[:size], rows[:, :size])]
        found = [curvature_hessian.plane_hessian(*each, **options).hessian for each in places]
        for part in ("hessian", "gauss_newton"):
            found += [curvature_hessian.hessian_vector_products(*each, part=part, **options).numpy() for each in places]
        gradients = curvature_gradients.gradients(Problem(module, *data), theta)
        gram = gram_of(module, theta, inputs)
        return seen, [
            *found,
            gram.numpy(),
            np.array([getattr(gradients, name) for name in curvature_gradients.GRADIENTS]),
        ]

    parts, expected = measured(*given)
    assert 2 < max(parts) < EXAMPLES
    with MODES[mode]():
        there, found = measured(*(each.clone() if own else each for each in given))
    assert there == parts
    for one, other in zip(found, expected, strict=True):
        assert relative_error(one, other) < 10 * torch.finfo(dtype).eps
