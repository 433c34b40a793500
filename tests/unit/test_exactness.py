"""Curvature at one point against brute force, over every kind of layer, activation, plane and precision."""

from itertools import cycle, product

import pytest
import torch
from brute_force import assert_same, orthonormal, picture, relative_error, second_derivatives, tolerance
from brute_force import losses as written_out
from models import model, of_module
from torch import nn

from goldilocks import curvature, losses
from goldilocks.networks import Residual

IMAGE = (2, 7, 6)


def strided():
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, stride=2, padding=1),
        nn.Tanh(),
        nn.Conv2d(3, 4, 2, dilation=2, bias=False),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        nn.Linear(8, 4),
    )


def overlapping():
    return nn.Sequential(
        nn.Conv2d(2, 3, (2, 3), stride=(1, 2), padding=(0, 1)),
        nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True),
        nn.ReLU(),
        nn.AvgPool2d(2, stride=1, padding=1, count_include_pad=False),
        nn.Flatten(),
        nn.Linear(45, 4),
    )


def averages():
    return nn.Sequential(
        nn.Conv2d(2, 3, 2, bias=False),
        nn.Softplus(beta=4),
        nn.AvgPool2d(2, ceil_mode=True, divisor_override=3),
        nn.Conv2d(3, 3, 2),
        nn.Softplus(beta=0.5, threshold=3),
        nn.MaxPool2d((1, 2), stride=1, dilation=1),
        nn.Flatten(),
        nn.Linear(6, 4),
    )


def residual_first():
    inner = nn.Sequential(nn.Linear(8, 8), nn.LeakyReLU(), nn.Linear(8, 8, bias=False), nn.Tanh())
    return nn.Sequential(Residual(nn.Sequential(nn.Linear(8, 8), nn.Tanh())), Residual(inner), nn.Linear(8, 4))


def residual_convolutions():
    inner = nn.Sequential(nn.ReLU(), nn.Conv2d(3, 3, 3, padding=1))
    outer = Residual(nn.Sequential(Residual(inner), nn.Conv2d(3, 3, 1), nn.Softplus()))
    return nn.Sequential(nn.Conv2d(2, 3, 3), outer, nn.Flatten(), nn.Linear(60, 4))


def shared_activation():
    between = nn.Tanh()
    return nn.Sequential(nn.Linear(8, 7), between, nn.Linear(7, 7), between, nn.Linear(7, 4))


def tanh_first():
    return nn.Sequential(nn.Tanh(), nn.Linear(8, 7), nn.Identity(), nn.Linear(7, 7), nn.Softplus(), nn.Linear(7, 4))


NETWORKS = {
    "fc-30x2-relu": lambda: model("fc-30x2-relu"),
    "fc-9x3-relu-nobias": lambda: model("fc-9x3-relu-nobias"),
    "fc-7-6-tanh-nobias": lambda: model("fc-7-6-tanh-nobias"),
    "fc-30x2-softplus": lambda: model("fc-30x2-softplus"),
    "fc-9x2-leakyrelu": lambda: model("fc-9x2-leakyrelu"),
    "fc-9x2-identity": lambda: model("fc-9x2-identity"),
    "fc-6x3-tanh-res": lambda: model("fc-6x3-tanh-res"),
    "fc-30x3-relu-nobias-res": lambda: model("fc-30x3-relu-nobias-res"),
    "conv-3x2-relu": lambda: model("conv-3x2-relu", image=(2, 5, 6), examples=12),
    "conv-3x2-tanh-nobias": lambda: model("conv-3x2-tanh-nobias", image=(1, 5, 6), examples=12),
    "one layer": lambda: of_module(nn.Linear(8, 4), (8,)),
    **{
        maker.__name__: lambda maker=maker: of_module(maker(), IMAGE, examples=12)
        for maker in (strided, overlapping, averages, residual_convolutions)
    },
    **{maker.__name__: lambda maker=maker: of_module(maker(), (8,)) for maker in (residual_first, shared_activation)},
    "tanh_first": lambda: of_module(tanh_first(), (8,)),
}
# Each network meets each radius in each precision; kind, bias directions, loss and temperature take turns, with
# periods that have no common factor with those of the others.
OPTIONS = cycle(list(product(("dense", "sparse"), (True, False), losses.LOSSES, (1.0, 0.3, 7.0)))[:23])
CASES = [
    (name, radius, dtype, *next(OPTIONS))
    for name in NETWORKS
    for radius in (0.01, 1, 100)
    for dtype in (torch.float64, torch.float32)
]


@pytest.mark.parametrize("name, radius, dtype, kind, biases, loss, temperature", CASES)
def test_plane_curvature_against_brute_force(name, radius, dtype, kind, biases, loss, temperature):
    network = NETWORKS[name]()
    theta = network.initialisation(0, radius)
    if biases:
        theta = network.with_biases(theta)
    rows = network.directions(6, kind, biases, dtype)
    options = {"loss": loss, "temperature": temperature}
    assert curvature.path_of(network.module, theta, 1, network.inputs) == curvature.POINTWISE
    found = curvature.plane_curvature(network.module, theta, rows, network.inputs, network.targets, **options)[0]
    expected = picture(network.logits, theta, rows, network.inputs, network.targets, **options)
    z = network.logits(theta, network.inputs)
    assert_same(found, expected, tolerance(dtype, z / min(1, temperature)), theta)


@pytest.mark.parametrize("loss", losses.LOSSES)
def test_lenet_against_brute_force(loss):
    # 60,000 parameters, so once: average pooling, two kinds of layers, padding.
    network = model("lenet5-tanh", image=(1, 6, 6), examples=6)
    theta, rows = network.initialisation(0, 1.0), network.directions(4, "dense", True)
    found = curvature.plane_curvature(network.module, theta, rows, network.inputs, network.targets, loss=loss)[0]
    expected = picture(network.logits, theta, rows, network.inputs, network.targets, loss=loss)
    assert_same(found, expected, tolerance(rows.dtype, network.logits(theta, network.inputs)), theta)


@pytest.mark.parametrize("engine", [True, False])
@pytest.mark.parametrize(
    "name, biases, dtype",
    [
        ("fc-30x2-relu", True, torch.float64),
        ("fc-30x2-relu", False, torch.float32),
        ("fc-6x3-tanh-res", True, torch.float64),
        ("averages", True, torch.float64),
        ("conv-3x2-relu", False, torch.float64),
    ],
)
@pytest.mark.parametrize("loss", losses.LOSSES)
def test_sphere_curvature_against_brute_force(engine, name, biases, dtype, loss):
    """The Hessian at 0 of L(r (θ + Tu)/|θ + Tu|), T orthonormal and tangent: this projection is of second order."""
    network = NETWORKS[name]()
    theta = network.initialisation(1, 1.3)
    if biases:
        theta = network.with_biases(theta)
    rows = network.directions(5, "dense", biases, dtype)
    tangent = orthonormal(torch.cat([theta[None], rows.double()]))[:, 1:]

    def on_sphere(u):
        moved = theta + tangent @ u
        z = network.logits(theta.norm() * moved / moved.norm(), network.inputs)
        return written_out(z, network.targets, loss, 2.0).mean()

    expected = second_derivatives(on_sphere, 5).numpy()
    found = curvature.sphere_curvature(
        network.module if engine else network.logits,
        theta,
        rows,
        network.inputs,
        network.targets,
        loss=loss,
        temperature=2.0,
    )
    # u and, on the general path, the point are rounded to float32 as well: the bound of max |z| in that precision.
    z = network.logits(theta, network.inputs)
    assert relative_error(found, expected) < 200 * torch.finfo(dtype).eps * max(1.0, float(z.abs().max()))


def test_one_example_and_one_direction():
    # The smallest sums: nothing may be squeezed away.
    network = model("fc-9x2-tanh", examples=1)
    theta, rows = network.initialisation(3, 1.0), network.directions(1)
    expected = picture(network.logits, theta, rows, network.inputs, network.targets)
    bound = tolerance(rows.dtype, network.logits(theta, network.inputs))
    for path in (network.module, network.logits):
        found = curvature.plane_curvature(path, theta, rows, network.inputs, network.targets)[0]
        assert_same(found, expected, bound, theta)
        assert found.effective_examples == pytest.approx([1])
