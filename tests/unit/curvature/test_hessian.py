"""The public functions: the general path against brute force, products, prefixes, and refused arguments."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from goldilocks_zone.curvature import dispatch
from goldilocks_zone.curvature import hessian as curvature_hessian
from goldilocks_zone.models import losses
from goldilocks_zone.models.problem import Problem
from goldilocks_zone.randomness import stream
from goldilocks_zone.subspaces import labels, planes
from made_up.networks import model, of_module
from oracles.brute_force import assert_same, orthonormal, picture, relative_error

# Against an independent algorithm in the same precision: 200 eps max(1, max |z|), and a floor for the
# conditioning of the Gram matrix.
TOLERANCE = 1e-10


def full_hessian(network, theta, **options):
    return torch.autograd.functional.hessian(lambda p: network.loss(p, **options), theta, vectorize=True).numpy()


@pytest.fixture(params=["engine", "graph", "automatic"])
def path(request):
    """Function from a model to what the engine gets as its network: the module, or the logits as a function.

    With the logits, the curvature is computed through the graph or, where the fixture forbids it, automatically.
    """
    if request.param == "automatic":
        request.getfixturevalue("automatic")
    return lambda network: network.module if request.param == "engine" else network.logits


@pytest.mark.parametrize("radius", [0.01, 1, 100])
@pytest.mark.parametrize("metric", planes.METRICS)
@pytest.mark.parametrize("kind", labels.PLANE_KINDS)
def test_planes_of_every_metric_against_the_whole_hessian(radius, metric, kind, path):
    # Reverse over reverse on the full space, projected afterwards.
    network = model("fc-9x2-relu")
    theta = network.initialisation(0, radius)
    rows = planes.directions(labels.Plane(8, kind), network.metric(metric, True), stream("plane", kind))
    rows = torch.as_tensor(rows)
    found = curvature_hessian.plane_hessian(Problem(path(network), network.inputs, network.targets), theta, rows)
    basis = orthonormal(rows).numpy()
    assert relative_error(found.hessian, basis.T @ full_hessian(network, theta) @ basis) < TOLERANCE
    assert found.loss == pytest.approx(network.loss(theta).item(), rel=1e-12)


@pytest.mark.parametrize("loss", losses.LOSSES)
@pytest.mark.parametrize("temperature", [0.3, 1.0, 7.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("label", ["fc-9x2-softplus", "fc-9x2-relu-nobias", "conv-3x2-leakyrelu"])
def test_general_path_against_brute_force(loss, temperature, dtype, label, general):
    network = model(label, image=(1, 5, 6), examples=15)
    theta = network.with_biases(network.initialisation(1, 1.5))
    rows = network.directions(6, "dense", "nobias" not in label, dtype)
    options = {"loss": loss, "temperature": temperature}
    problem = Problem(network.logits, network.inputs, network.targets, **options)
    assert dispatch.path_of(problem, theta, 1) == general
    found = curvature_hessian.plane_hessian(problem, theta, rows)
    expected = picture(network.logits, theta, rows, network.inputs, network.targets, **options)
    # The point, too, is in the precision of the directions.
    z = network.logits(theta, network.inputs) / min(1, temperature)
    assert_same(found, expected, 200 * torch.finfo(dtype).eps * max(1.0, float(z.abs().max())), theta)


@pytest.mark.parametrize("scales", [[1.0], [0.3, 1.0, 4.0]])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("label", ["fc-60x2-relu", "fc-60x2-tanh", "conv-9x2-leakyrelu", "fc-9x3-relu-res"])
def test_directions_may_come_as_sparse_matrices(label, dtype, scales, path):
    """Includes matrices that are not sparse enough for sparse products, and biases that no direction moves."""
    network = model(label, image=(1, 7, 7), examples=15)
    theta, eta = network.initialisation(1, 1.0), network.metric("shell", False)
    drawn = planes.directions_as_drawn(labels.Plane(6, "sparse"), eta, stream("drawn")).astype(dtype)
    tensors = network.inputs, network.targets
    found = curvature_hessian.radial_sweep(Problem(path(network), *tensors), theta, scales, drawn)
    expected = curvature_hessian.radial_sweep(
        Problem(path(network), *tensors), theta, scales, torch.as_tensor(drawn.toarray())
    )
    for one, other in zip(found, expected):
        # In single precision slices that lie apart in memory may be rounded differently.
        assert_same(one, other, 100 * np.finfo(dtype).eps, theta)


def test_sparse_directions_are_drawn_as_the_dense_ones():
    eta = np.linspace(0, 2, 500)
    for kind in labels.PLANE_KINDS:
        drawn = planes.directions_as_drawn(labels.Plane(7, kind), eta, stream("as drawn"))
        dense = drawn.toarray() if kind == "sparse" else drawn
        assert np.array_equal(dense, planes.directions(labels.Plane(7, kind), eta, stream("as drawn")))


def test_general_sweep_is_one_point_after_another():
    network = model("fc-9x2-tanh")
    theta, rows = network.initialisation(1, 1.0), network.directions(5)
    tensors = (network.inputs, network.targets)
    points = list(itertools.product([0.5, 3.0], [1.0, 2.0]))
    sweep = curvature_hessian.curvature_at(
        Problem(network.logits, *tensors), theta, points, rows, curvature_hessian.Options([30, 7])
    )
    for (scale, temperature), at_point in zip(points, sweep, strict=True):
        for count, found in zip([30, 7], at_point, strict=True):
            few = (each[:count] for each in tensors)
            alone = Problem(network.module, *few, temperature=temperature)
            assert_same(found, curvature_hessian.plane_hessian(alone, scale * theta, rows), TOLERANCE, theta)


@pytest.mark.parametrize("loss", losses.LOSSES)
@pytest.mark.parametrize("label", ["fc-9x2-tanh", "fc-9x2-relu-nobias"])
def test_products_against_the_whole_matrices(loss, label, path):
    network = model(label)
    theta = network.with_biases(network.initialisation(2, 1.0))
    vectors = torch.as_tensor(stream("vectors").standard_normal((3, len(theta))))
    options = {"loss": loss, "temperature": 1.7}

    def products(part):
        return curvature_hessian.hessian_vector_products(
            Problem(path(network), network.inputs, network.targets, **options), theta, vectors, part=part
        ).numpy()

    hessian = full_hessian(network, theta, kind=loss, temperature=1.7)
    assert relative_error(products("hessian"), vectors.numpy() @ hessian) < TOLERANCE
    jacobian = torch.autograd.functional.jacobian(lambda p: network.logits(p, network.inputs), theta).numpy() / 1.7
    p = torch.softmax(network.logits(theta, network.inputs) / 1.7, 1).numpy()
    inner = [np.diag(q) - np.outer(q, q) if loss == "cross_entropy" else np.eye(4) for q in p]
    gauss_newton = np.einsum("nki,nkl,nlj->ij", jacobian, inner, jacobian) / len(p)
    assert relative_error(products("gauss_newton"), vectors.numpy() @ gauss_newton) < TOLERANCE
    assert relative_error(products("residual"), vectors.numpy() @ (hessian - gauss_newton)) < TOLERANCE


def test_finite_differences_of_a_smooth_network():
    # For tanh, central differences of the gradient agree to h²; at kinks of a ReLU they would not.
    network = model("fc-9x2-tanh")
    theta = network.initialisation(3, 1.0)
    v = torch.as_tensor(stream("direction").standard_normal(len(theta)))
    found = curvature_hessian.hessian_vector_products(
        Problem(network.logits, network.inputs, network.targets), theta, v[None]
    )[0]
    step = 1e-5
    gradients = [torch.autograd.functional.jacobian(network.loss, theta + sign * step * v) for sign in (1, -1)]
    assert relative_error(((gradients[0] - gradients[1]) / (2 * step)).numpy(), found.numpy()) < 1e-8


def test_examples_are_prefixes(path):
    network = model("fc-9x2-relu")
    theta, rows = network.initialisation(4, 1.0), network.directions(6, "sparse")
    problem = Problem(path(network), network.inputs, network.targets)
    options = curvature_hessian.Options([30, 10, 10])
    (together,) = curvature_hessian.curvature_at(problem, theta, [(1.0, 1.0)], rows, options)
    for count, found in zip([30, 10, 10], together, strict=True):
        few = (network.inputs[:count], network.targets[:count])
        assert_same(found, curvature_hessian.plane_hessian(Problem(path(network), *few), theta, rows), 1e-12, theta)


def test_smaller_planes_are_leading_blocks(path):
    network = model("fc-9x2-relu")
    theta, rows = network.initialisation(6, 1.0), network.directions(9, "sparse")
    large, small = (
        curvature_hessian.plane_hessian(Problem(path(network), network.inputs, network.targets), theta, rows[:d])
        for d in (9, 4)
    )
    assert relative_error(large.hessian[:4, :4], small.hessian) < 1e-12


def test_parameters_may_require_gradients(path):
    # As torch.nn.utils.parameters_to_vector gives them.
    network = model("fc-9x2-relu")
    theta, rows = nn.utils.parameters_to_vector(network.module.parameters()), network.directions(3)
    assert theta.requires_grad
    tensors = (rows, network.inputs, network.targets)
    found = curvature_hessian.radial_sweep(Problem(path(network), *tensors[1:]), theta, [1.0, 2.0], tensors[0])[0]
    expected = curvature_hessian.plane_hessian(Problem(path(network), *tensors[1:]), theta.detach(), tensors[0])
    assert relative_error(found.hessian, expected.hessian) < 1e-12
    assert not curvature_hessian.hessian_vector_products(
        Problem(path(network), *tensors[1:]), theta, tensors[0]
    ).requires_grad
    curvature_hessian.sphere_hessian(Problem(path(network), *tensors[1:]), theta, tensors[0])


def measure(network, path, **changed):
    arguments = {"parameters": network.initialisation(7, 1.0), "directions": network.directions(3)} | changed
    arguments = {"inputs": network.inputs, "labels": network.targets} | arguments
    problem = Problem(
        path(network), **{key: arguments.pop(key) for key in ("inputs", "labels", "loss") if key in arguments}
    )
    options = curvature_hessian.Options(arguments.pop("examples", None))
    return curvature_hessian.curvature_at(problem, points=[(1.0, 1.0)], options=options, **arguments)


@pytest.mark.parametrize("factor", [1e120, 1e300])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_logits_that_are_not_finite_are_refused(path, factor, dtype):
    network = model("fc-9x2-relu")
    theta, rows = factor * network.initialisation(7, 1.0), network.directions(3, dtype=dtype)
    with pytest.raises(ValueError, match="a logit or a loss is not finite"):
        measure(network, path, parameters=theta, directions=rows)


def test_losses_that_are_not_finite_are_refused(path):
    network = model("fc-9x2-relu")
    with pytest.raises(ValueError, match="a logit or a loss is not finite"):
        # Logits of 1e200, whose squares overflow.
        measure(network, path, parameters=1e67 * network.initialisation(7, 1.0), loss="mean_squared_error")


def test_tangents_beyond_their_precision_are_refused():
    # Logits of 1e60 are fine in double precision; tangents of 1e40 are not in single precision.
    network = model("fc-9x2-relu-nobias")
    theta, tensors = network.initialisation(7, 1.0), (network.inputs, network.targets)
    rows = network.directions(3, dtype=torch.float32)
    curvature_hessian.plane_hessian(Problem(network.module, *tensors), 1e20 * theta, rows.double())
    with pytest.raises(ValueError, match=r"the Hessian is not finite.*double precision"):
        curvature_hessian.plane_hessian(Problem(network.module, *tensors), 1e20 * theta, rows)
    # A sweep has the tangents of the scale 1 alone, and the logits' squares in double precision.
    for scales in ([1.0, 1e20], [1.0, 1e-20]):
        (found, expected) = (
            curvature_hessian.radial_sweep(Problem(network.module, *tensors), theta, scales, each)[1]
            for each in (rows, rows.double())
        )
        assert relative_error(found.hessian, expected.hessian) < 1e-4


def test_directions_that_span_no_plane_are_refused(path):
    network = model("fc-9x2-relu")
    rows = network.directions(3)
    with pytest.raises(ValueError, match="direction 1 of the plane is zero"):
        measure(network, path, directions=rows * torch.tensor([[1.0], [0.0], [1.0]]))
    with pytest.raises(ValueError, match="direction 2 of the plane is not finite"):
        measure(network, path, directions=rows + torch.tensor([[0.0], [0.0], [torch.inf]]))
    with pytest.raises(ValueError, match="linearly dependent"):
        measure(network, path, directions=torch.cat([rows, rows[:1] - 2 * rows[1:2]]))
    theta = network.initialisation(7, 1.0)
    with pytest.raises(ValueError, match="linearly dependent"):
        curvature_hessian.sphere_hessian(
            Problem(path(network), network.inputs, network.targets), theta, 3 * theta[None]
        )


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"examples": [31]}, "31 examples were asked for, and 30 given"),
        ({"examples": [3, 0]}, "no examples"),
        ({"examples": []}, "no examples"),
        ({"inputs": torch.zeros(0, 8), "labels": torch.zeros(0, dtype=torch.int64)}, "no examples"),
        ({"labels": torch.zeros(1, dtype=torch.int64)}, "1 labels and 30 inputs"),
        ({"parameters": torch.ones(7)}, "7 parameters and directions of 211 entries"),
        ({"directions": torch.ones(1, 7)}, "211 parameters and directions of 7 entries"),
        ({"loss": "hinge"}, "loss 'hinge' is unknown: use one of cross_entropy, mean_squared_error"),
        ({"loss": "cross-entropy"}, "^loss 'cross-entropy' is unknown: did you mean cross_entropy\\?$"),
    ],
)
def test_what_does_not_fit_is_refused(path, changed, message):
    with pytest.raises(ValueError, match=message):
        measure(model("fc-9x2-relu"), path, **changed)


def test_parameters_of_another_network_are_refused():
    network = model("fc-9x2-relu")
    too_many = {"parameters": torch.ones(300, dtype=torch.float64), "directions": torch.randn(2, 300).double()}
    with pytest.raises(ValueError, match="a network of 211 parameters"):
        measure(network, lambda network: network.module, **too_many)


@pytest.mark.parametrize("option", ["part", "loss"])
@pytest.mark.parametrize("part", curvature_hessian.PARTS)
def test_products_with_an_unknown_part_or_loss_are_refused(option, part):
    network = model("fc-9x2-relu")
    theta, given = network.initialisation(0, 1), {"part": part, "loss": "cross_entropy"} | {option: "hinge"}
    with pytest.raises(ValueError, match=r"'hinge' .*is unknown: use"):
        problem = Problem(network.module, network.inputs, network.targets, given["loss"])
        curvature_hessian.hessian_vector_products(problem, theta, network.directions(2), given["part"])


def test_batch_normalisation_in_training_is_refused():
    network = of_module(nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 4)), (8,))
    with pytest.raises(ValueError, match=r"mixes the examples of a batch.*evaluation mode"):
        theta = network.with_biases(network.initialisation(0, 1.0))
        measure(network, lambda network: network.module, parameters=theta)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("label", ["fc-9x2-relu", "fc-9x2-tanh", "conv-3x2-relu"])
@pytest.mark.parametrize("kind", labels.PLANE_KINDS)
def test_cuda_agrees_with_the_cpu(path, label, kind):
    network = model(label, image=(1, 5, 6))
    tensors = (network.inputs, network.targets)
    problem, moved = Problem(path(network), *tensors), Problem(path(network), *(each.cuda() for each in tensors))
    there = network.initialisation(9, 1.0), network.directions(6, kind)
    on_cuda = tuple(each.cuda() for each in there)
    found, expected = curvature_hessian.plane_hessian(moved, *on_cuda), curvature_hessian.plane_hessian(problem, *there)
    assert relative_error(found.hessian, expected.hessian) < TOLERANCE
    products = curvature_hessian.hessian_vector_products(moved, *on_cuda).cpu()
    expected = curvature_hessian.hessian_vector_products(problem, *there)
    assert relative_error(products.numpy(), expected.numpy()) < TOLERANCE
