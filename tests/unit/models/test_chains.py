"""Action of layers on tangents and adjoints, against automatic differentiation; which networks are chains."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import jvp, vmap

from goldilocks_zone.curvature import dispatch, hessian, tangents
from goldilocks_zone.curvature.directions import Directions
from goldilocks_zone.models import chains, networks
from goldilocks_zone.models.problem import Problem
from made_up.chains import NETWORKS
from made_up.networks import model, of_module
from oracles.brute_force import picture, relative_error

TIGHT = {"rtol": 1e-11, "atol": 1e-12}  # the same products in another order, in double precision


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_tangents_adjoints_and_radial_derivative(name, kind):
    network = NETWORKS[name]()
    theta, rows = network.with_biases(network.initialisation(0, 1.0)), network.directions(5, kind, True)
    chain = chains.of(network.module)
    outputs, kept = chains.forward(chain, theta, network.inputs)
    torch.testing.assert_close(outputs, network.logits(theta, network.inputs), **TIGHT)

    directions = Directions(rows, chain)
    steps = tangents.linearised(kept, theta, rows.dtype)

    def along(direction):
        return jvp(lambda p: network.logits(p, network.inputs), (theta,), (direction,))[1]

    expected = vmap(along)(rows)
    torch.testing.assert_close(tangents.push(steps, directions).mT, expected, **TIGHT)
    # One direction at a time, some without entries in some layers.
    single = torch.cat([tangents.push(steps, directions.rows(i, i + 1)) for i in range(5)])
    torch.testing.assert_close(single.mT, expected, **TIGHT)

    adjoint = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    below, kept = chains.backward(kept, theta, adjoint)
    inputs = network.inputs.clone().requires_grad_()
    point = theta.clone().requires_grad_()
    to_point, to_inputs = torch.autograd.grad((adjoint * network.logits(point, inputs)).sum(), (point, inputs))
    torch.testing.assert_close(below, to_inputs, **TIGHT)
    assert chains.radial_derivative(kept) == pytest.approx(float(to_point @ theta), rel=1e-10, abs=1e-10)


@pytest.mark.parametrize(
    "layer, shape",
    [
        (nn.Linear(9, 30), (9,)),
        (nn.Conv2d(2, 3, 3, stride=2, padding=1), (2, 7, 6)),
        (nn.Conv2d(2, 3, (2, 3), dilation=(2, 1)), (2, 7, 6)),
    ],
)
@pytest.mark.parametrize("share", [1.0, 0.02])
def test_products_of_an_affine_layer(layer, shape, share):
    """Ẇa, Ẇᵀδ, Wȧ, ḃ and Σ δȧᵀ, dense and sparse, against derivatives of the layer itself."""
    random = torch.Generator().manual_seed(0)

    def ordered(each):
        """Rearrange tangents as chains store them: if they are vectors, their entries come before the examples."""
        return each.transpose(1, 2) if each.ndim == 3 else each

    def normal(*size):
        return torch.randn(*size, generator=random, dtype=torch.float64)

    (affine,) = chain = chains.of(layer)
    d, n, size = 4, 5, sum(p.numel() for p in layer.parameters())
    rows = normal(d, size) * (torch.rand(d, size, generator=random) < share)
    rows[1, affine.weight] = 0  # a direction that does not move these weights
    directions = Directions(rows, chain)
    assert directions.is_sparse(affine) == (share < 1 and isinstance(layer, nn.Linear))
    a, weights = normal(n, *shape), normal(*affine.shape)
    turned = torch.stack([affine.apply(a, w, None) for w in affine.weights(rows)])
    delta = normal(*turned.shape[1:])
    inputs, adjoint = chains.laid_out(a), chains.laid_out(delta)
    torch.testing.assert_close(affine.turn(directions, inputs), ordered(turned), **TIGHT)
    onto = ordered(normal(*turned.shape)).contiguous()
    torch.testing.assert_close(affine.turn(directions, inputs, onto.clone()), ordered(turned) + onto, **TIGHT)

    def gradient(of, w, x):
        w, x = w.clone().requires_grad_(), x.clone().requires_grad_()
        return torch.autograd.grad((delta * affine.apply(x, w, None)).sum(), {"w": w, "x": x}[of])[0]

    pulled = torch.stack([gradient("x", w, a) for w in affine.weights(rows)])
    torch.testing.assert_close(affine.pull_directions(directions, inputs, adjoint), ordered(pulled), **TIGHT)
    torch.testing.assert_close(affine.pull(weights, a, delta), gradient("x", weights, a), **TIGHT)
    along = normal(d, n, *shape)
    expected = torch.stack([gradient("w", weights, each).flatten() for each in along])
    torch.testing.assert_close(affine.weight_gradients(adjoint, ordered(along), weights), expected, **TIGHT)
    torch.testing.assert_close(affine.by_example(ordered(along)), along.transpose(0, 1).flatten(2), **TIGHT)
    carried = torch.stack([affine.apply(each, weights, None) for each in along])
    torch.testing.assert_close(affine.carry(weights, ordered(along)), ordered(carried), **TIGHT)
    biases = normal(d, affine.shape[0])
    moved = torch.stack([affine.apply(a, torch.zeros_like(weights), each) for each in biases])
    torch.testing.assert_close(affine.shift(biases, inputs, weights), ordered(moved), **TIGHT)


@pytest.mark.parametrize("module", [nn.Tanh(), nn.Softplus(), nn.Softplus(beta=3, threshold=2), nn.LeakyReLU(0.3)])
def test_derivatives_of_activations(module):
    activation = chains._activation(module)
    z = torch.linspace(-9, 9, 101, dtype=torch.float64)  # not 0, where some have a kink
    z = z + 0.01
    slope = vmap(torch.func.grad(module))(z)
    torch.testing.assert_close(activation.slope(z), slope, **TIGHT)
    bend = vmap(torch.func.grad(torch.func.grad(module)))(z)
    torch.testing.assert_close(torch.zeros_like(z) if activation.bend is None else activation.bend(z), bend, **TIGHT)
    assert activation.homogeneous == torch.allclose(module(3 * z), 3 * module(z))


@pytest.mark.parametrize("module", [nn.ReLU(), nn.LeakyReLU(0.3), nn.MaxPool2d(2)])
def test_choices_at_ties_are_those_of_torch(module):
    # Zeros are common behind a ReLU.
    (layer,) = chains._layers(module, {}, set())
    z = torch.zeros(1, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    out = module(z)
    delta = torch.arange(1.0, out.numel() + 1, dtype=torch.float64).view(out.shape)
    expected = torch.autograd.grad((delta * out).sum(), z)[0]
    torch.testing.assert_close(layer.adjoint(None, layer.forward(None, z.detach())[1], delta), expected)


@pytest.mark.parametrize("size", [2, (2,), [2], (2, 2), np.int64(2)])
@pytest.mark.parametrize("kind", [nn.MaxPool2d, nn.AvgPool2d])
def test_sizes_of_pools_in_every_form_of_torch(kind, size):
    z = torch.arange(32.0).view(1, 2, 4, 4)
    (layer,) = chains._layers(kind(size), {}, set())
    torch.testing.assert_close(layer.forward(None, z)[0], kind(2)(z))


class Own(nn.Linear):
    """A subclass of a known layer, which may do anything in its forward pass."""


class OwnForward(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(8, 6), nn.Linear(6, 4)

    def forward(self, x):
        hidden = torch.tanh(self.inner(x))
        return self.outer(hidden * torch.sigmoid(hidden))


def hooked(register, hook):
    network = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 4))
    getattr(network[0], register)(hook)
    return network


def tied():
    network = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 4))
    network[2].weight = network[0].weight
    return network


def tied_biases():
    network = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 4))
    network[2].bias = network[0].bias
    return network


def called_twice():
    layer = nn.Linear(8, 8)
    return nn.Sequential(layer, nn.Tanh(), layer, nn.Tanh(), nn.Linear(8, 4))


def block_called_twice():
    block = networks.Residual(nn.Sequential(nn.Linear(8, 8), nn.Tanh()))
    return nn.Sequential(block, block, nn.Linear(8, 4))


class Cubed(nn.Module):
    def forward(self, weight):
        return weight**3


def parametrized():
    network = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 4))
    nn.utils.parametrize.register_parametrization(network[0], "weight", Cubed())
    return network


def between(*layers):
    """Network of two dense layers with `layers` between them, in evaluation mode."""
    return nn.Sequential(nn.Linear(8, 6), *layers, nn.Linear(6, 4)).eval()


def convolution(places, *arguments, **options):
    return nn.Sequential(nn.Conv2d(2, *arguments, **options), nn.Tanh(), nn.Flatten(), nn.Linear(places, 4))


IMAGE = (2, 7, 6)
OTHERS = {
    "layer norm": (lambda: between(nn.LayerNorm(6, elementwise_affine=False), nn.ReLU()), (8,)),
    "own forward": (OwnForward, (8,)),
    "subclass": (lambda: nn.Sequential(Own(8, 6), nn.Tanh(), nn.Linear(6, 4)), (8,)),
    "forward hook": (lambda: hooked("register_forward_hook", lambda module, given, output: output**2), (8,)),
    "forward pre-hook": (lambda: hooked("register_forward_pre_hook", lambda module, given: (given[0] ** 3,)), (8,)),
    "tied": (tied, (8,)),
    "tied biases": (tied_biases, (8,)),
    "called twice": (called_twice, (8,)),
    "block called twice": (block_called_twice, (8,)),
    "parametrized": (parametrized, (8,)),
    "grouped": (lambda: convolution(80, 4, 3, groups=2), IMAGE),
    "circular": (lambda: convolution(126, 3, 3, padding=1, padding_mode="circular"), IMAGE),
    "same": (lambda: convolution(126, 3, 2, padding="same"), IMAGE),
    "dropout": (lambda: between(nn.Tanh(), nn.Dropout()), (8,)),
    "batch norm": (lambda: between(nn.BatchNorm1d(6), nn.Tanh()), (8,)),
    "several vectors": (lambda: nn.Sequential(nn.Linear(8, 3), nn.Tanh(), nn.Flatten(), nn.Linear(15, 4)), (5, 8)),
}


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("scales", [[1.0], [0.5, 2.0]])
def test_other_networks_take_the_general_path_and_are_right(name, dtype, scales, general):
    make, image = OTHERS[name]
    network = of_module(make(), image, examples=12)
    theta = network.initialisation(0, 1.0)
    theta = theta + 0.1 * torch.randn(theta.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    rows = torch.randn(5, len(theta), generator=torch.Generator().manual_seed(2), dtype=torch.float64).to(dtype)
    assert dispatch.path_of(Problem(network.module, network.inputs), theta, len(scales)) == general
    sweep = hessian.radial_sweep(Problem(network.module, network.inputs, network.targets), theta, scales, rows)
    for scale, found in zip(scales, sweep):
        expected = picture(network.logits, scale * theta, rows, network.inputs, network.targets)
        z = network.logits(scale * theta, network.inputs)
        # Here the point is in the precision of the directions too: ties of logits are resolved to eps |z|.
        bound = 200 * torch.finfo(dtype).eps * max(1.0, float(z.abs().max()))
        assert relative_error(found.hessian, expected.hessian) < bound
        assert relative_error(found.gauss_newton, expected.gauss_newton) < bound
        assert found.radial_derivative == pytest.approx(expected.radial_derivative, rel=bound, abs=bound)


def test_layers_in_place_and_shared_activations_are_chains():
    relu = nn.ReLU(inplace=True)
    assert chains.of(nn.Sequential(nn.Linear(8, 7), relu, nn.Linear(7, 7), relu, nn.Linear(7, 4)))
    assert chains.of(model("fc-9x2-relu").module) is not None
    assert chains.of(nn.Sequential(nn.Flatten(), nn.ReLU())) is None  # nothing to differentiate by
