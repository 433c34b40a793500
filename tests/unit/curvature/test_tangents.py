"""Curvature at one point against brute force, over every kind of layer, activation, plane and precision."""

from itertools import cycle, product

import pytest
import torch

from goldilocks_zone.curvature import dispatch, hessian
from goldilocks_zone.models import losses
from goldilocks_zone.models.problem import Problem
from made_up.chains import NETWORKS
from made_up.networks import model
from oracles.brute_force import assert_same, orthonormal, picture, relative_error, second_derivatives, tolerance
from oracles.brute_force import losses as written_out

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
def test_plane_hessians_against_brute_force(name, radius, dtype, kind, biases, loss, temperature):
    network = NETWORKS[name]()
    theta = network.initialisation(0, radius)
    if biases:
        theta = network.with_biases(theta)
    rows = network.directions(6, kind, biases, dtype)
    options = {"loss": loss, "temperature": temperature}
    assert dispatch.path_of(Problem(network.module, network.inputs), theta, 1) == dispatch.POINTWISE
    found = hessian.plane_hessian(Problem(network.module, network.inputs, network.targets, **options), theta, rows)
    expected = picture(network.logits, theta, rows, network.inputs, network.targets, **options)
    z = network.logits(theta, network.inputs)
    assert_same(found, expected, tolerance(dtype, z / min(1, temperature)), theta)


@pytest.mark.parametrize("loss", losses.LOSSES)
def test_lenet_against_brute_force(loss):
    # 60,000 parameters, so once: average pooling, two kinds of layers, padding.
    network = model("lenet5-tanh", image=(1, 6, 6), examples=6)
    theta, rows = network.initialisation(0, 1.0), network.directions(4, "dense", True)
    found = hessian.plane_hessian(Problem(network.module, network.inputs, network.targets, loss=loss), theta, rows)
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
def test_sphere_hessians_against_brute_force(engine, name, biases, dtype, loss):
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
    found = hessian.sphere_hessian(
        Problem(
            network.module if engine else network.logits, network.inputs, network.targets, loss=loss, temperature=2.0
        ),
        theta,
        rows,
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
        found = hessian.plane_hessian(Problem(path, network.inputs, network.targets), theta, rows)
        assert_same(found, expected, bound, theta)
        assert found.effective_examples == pytest.approx([1])
