"""Projected Hessians against brute force: torch.autograd.functional.hessian over the whole space."""

import numpy as np
import pytest
import torch
from models import model

from goldilocks import automatic, curvature, labels, losses, subspaces, tangents
from goldilocks.randomness import stream

# Against an independent algorithm in the same precision: 200 eps max(1, max |z|), and a floor for the
# conditioning of the Gram matrix.
TOLERANCE = 1e-10


def full_hessian(network, theta, **options):
    return torch.autograd.functional.hessian(lambda p: network.loss(p, **options), theta, vectorize=True).numpy()


def orthonormal(rows):
    """An orthonormal basis of nested planes, by another route than the Cholesky factor."""
    q, r = np.linalg.qr(rows.T)
    return q * np.sign(np.diag(r))


def relative_error(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize("radius", [0.01, 0.1, 1, 10, 100])
@pytest.mark.parametrize("metric", subspaces.METRICS)
@pytest.mark.parametrize("kind", labels.PLANE_KINDS)
@pytest.mark.parametrize(
    "label, bias_directions", [("fc-9x2-relu", True), ("fc-9x2-relu", False), ("fc-7-6-tanh-nobias", False)]
)
def test_plane_hessian_against_brute_force(radius, metric, kind, label, bias_directions):
    network = model(label)
    theta = network.initialisation(0, radius)
    rows = subspaces.directions(labels.Plane(8, kind), network.metric(metric, bias_directions), stream("plane", kind))
    found = curvature.plane_curvature(network.logits, theta, torch.as_tensor(rows), network.inputs, network.targets)[0]
    basis = orthonormal(rows)
    expected = basis.T @ full_hessian(network, theta) @ basis
    assert relative_error(found.hessian, expected) < TOLERANCE
    assert found.loss == pytest.approx(network.loss(theta).item(), rel=1e-12)


@pytest.mark.parametrize(
    "label, image",
    [
        ("fc-6x3-tanh-res", (8,)),
        ("fc-6x3-relu-nobias-res", (8,)),
        ("conv-3x2-relu", (1, 5, 6)),
        ("conv-3x2-tanh-nobias", (2, 5, 6)),
        ("lenet5", (1, 6, 6)),
    ],
)
def test_residual_and_convolutional_networks_against_double_differentiation(label, image):
    network = model(label, image=image, examples=12)
    theta = network.initialisation(0, 1.0)
    rows = subspaces.directions(labels.Plane(5, "dense"), network.metric("shell", False), stream("plane", label))
    found = curvature.plane_curvature(network.logits, theta, torch.as_tensor(rows), network.inputs, network.targets)[0]
    basis = torch.as_tensor(orthonormal(rows))
    # On the plane alone, as the whole Hessian of LeNet would have 60,000 rows; reverse over reverse.
    expected = torch.autograd.functional.hessian(lambda s: network.loss(theta + basis @ s), theta.new_zeros(5)).numpy()
    assert relative_error(found.hessian, expected) < TOLERANCE


@pytest.mark.parametrize("loss", losses.LOSSES)
@pytest.mark.parametrize("temperature", [0.3, 1.0, 7.0])
@pytest.mark.parametrize("label", ["fc-9x2-softplus", "fc-9x2-leakyrelu", "fc-9x2-identity-nobias"])
def test_losses_and_temperatures_against_brute_force(loss, temperature, label):
    network = model(label)
    theta = network.initialisation(1, 1.5)
    rows = subspaces.directions(labels.Plane(6, "dense"), network.metric("shell", False), stream("plane"))
    found = curvature.plane_curvature(
        network.logits,
        theta,
        torch.as_tensor(rows),
        network.inputs,
        network.targets,
        loss=loss,
        temperature=temperature,
    )[0]
    basis = orthonormal(rows)
    expected = basis.T @ full_hessian(network, theta, kind=loss, temperature=temperature) @ basis
    assert relative_error(found.hessian, expected) < TOLERANCE


@pytest.mark.parametrize("loss", losses.LOSSES)
def test_gauss_newton_part_against_the_jacobian(loss):
    network = model("fc-9x2-tanh")
    theta = network.initialisation(2, 1.0)
    rows = subspaces.directions(labels.Plane(6, "dense"), network.metric("identity", True), stream("plane"))
    found = curvature.plane_curvature(
        network.logits, theta, torch.as_tensor(rows), network.inputs, network.targets, loss=loss
    )[0]
    jacobian = torch.autograd.functional.jacobian(lambda p: network.logits(p, network.inputs), theta).numpy()
    p = torch.softmax(network.logits(theta, network.inputs), 1).numpy()
    inner = (
        np.array([np.diag(q) - np.outer(q, q) for q in p]) if loss == "cross_entropy" else np.eye(4)[None].repeat(30, 0)
    )
    tangents = jacobian @ orthonormal(rows)
    each = np.einsum("nki,nkl,nlj->nij", tangents, inner, tangents)
    assert relative_error(found.gauss_newton, each.mean(0)) < TOLERANCE
    traces = np.cumsum(np.einsum("nii->ni", each), axis=1).T
    effective = traces.sum(1) ** 2 / (traces**2).sum(1)
    assert relative_error(found.effective_examples, effective) < TOLERANCE


def test_finite_differences_of_a_smooth_network():
    # For tanh, central differences of the gradient agree to h²; at kinks of a ReLU they would not.
    network = model("fc-9x2-tanh")
    theta = network.initialisation(3, 1.0)
    v = torch.as_tensor(stream("direction").standard_normal(len(theta)))
    found = curvature.hessian_vector_products(network.logits, theta, v[None], network.inputs, network.targets)[0]
    step = 1e-5
    gradients = [torch.autograd.functional.jacobian(network.loss, theta + sign * step * v) for sign in (1, -1)]
    assert relative_error(((gradients[0] - gradients[1]) / (2 * step)).numpy(), found.numpy()) < 1e-8


def test_examples_are_prefixes():
    network = model("fc-9x2-relu")
    theta = network.initialisation(4, 1.0)
    rows = torch.as_tensor(subspaces.directions(labels.Plane(6, "sparse"), network.metric("shell", False), stream("p")))
    together = curvature.plane_curvature(
        network.logits, theta, rows, network.inputs, network.targets, examples=[30, 10]
    )
    for count, found in zip([30, 10], together):
        alone = curvature.plane_curvature(network.logits, theta, rows, network.inputs[:count], network.targets[:count])[
            0
        ]
        assert relative_error(found.hessian, alone.hessian) < 1e-12
        assert found.loss == pytest.approx(alone.loss, rel=1e-13)
        assert found.logits_std == pytest.approx(alone.logits_std, rel=1e-13)


def test_chunks_do_not_change_results(monkeypatch):
    network = model("fc-9x2-relu")
    theta = network.initialisation(5, 1.0)
    rows = torch.as_tensor(subspaces.directions(labels.Plane(7, "dense"), network.metric("shell", False), stream("p")))
    whole = curvature.plane_curvature(network.logits, theta, rows, network.inputs, network.targets)[0]
    products = curvature.hessian_vector_products(network.logits, theta, rows, network.inputs, network.targets)
    monkeypatch.setattr(tangents, "EXAMPLES_PER_CHUNK", 7)
    steps = []
    original = automatic.directions_per_chunk
    monkeypatch.setattr(automatic, "directions_per_chunk", lambda *a: steps.append(original(*a)) or steps[-1])
    # Memory for two or three directions at a time.
    options = {"memory_mib": 0.1}
    chunked = curvature.plane_curvature(network.logits, theta, rows, network.inputs, network.targets, **options)[0]
    assert 1 < max(steps) < 7
    assert relative_error(chunked.hessian, whole.hessian) < 1e-13
    assert relative_error(chunked.gauss_newton, whole.gauss_newton) < 1e-13
    again = curvature.hessian_vector_products(network.logits, theta, rows, network.inputs, network.targets, **options)
    assert relative_error(again.numpy(), products.numpy()) < 1e-13


def test_smaller_planes_are_leading_blocks():
    network = model("fc-9x2-relu")
    theta = network.initialisation(6, 1.0)
    rows = torch.as_tensor(subspaces.directions(labels.Plane(9, "sparse"), network.metric("shell", False), stream("p")))
    large, small = (
        curvature.plane_curvature(network.logits, theta, rows[:d], network.inputs, network.targets)[0] for d in (9, 4)
    )
    assert relative_error(large.hessian[:4, :4], small.hessian) < 1e-12


def test_infinite_logits_are_refused():
    network = model("fc-9x2-relu")
    theta = network.initialisation(7, 1.0) * 1e300
    rows = torch.as_tensor(subspaces.directions(labels.Plane(3, "dense"), network.metric("shell", False), stream("p")))
    with pytest.raises(ValueError, match="not finite"):
        curvature.plane_curvature(network.logits, theta, rows, network.inputs, network.targets)


def test_more_examples_than_there_are_is_refused():
    network = model("fc-9x2-relu")
    rows = torch.as_tensor(subspaces.directions(labels.Plane(3, "dense"), network.metric("shell", False), stream("p")))
    with pytest.raises(ValueError, match="31 examples asked for and 30 given"):
        curvature.plane_curvature(
            network.logits, network.initialisation(0, 1), rows, network.inputs, network.targets, examples=[31]
        )


def test_logits_deviation_is_that_within_an_example():
    network = model("fc-9x2-relu")
    theta = network.initialisation(8, 1.0)
    rows = torch.as_tensor(subspaces.directions(labels.Plane(3, "dense"), network.metric("shell", False), stream("p")))
    found = curvature.plane_curvature(network.logits, theta, rows, network.inputs, network.targets)[0]
    z = network.logits(theta, network.inputs).numpy()
    assert found.logits_std == pytest.approx(np.sqrt(np.mean(np.var(z, axis=1, ddof=1))), rel=1e-12)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_cuda_agrees_with_the_cpu():
    network = model("fc-9x2-relu")
    theta = network.initialisation(9, 1.0)
    rows = torch.as_tensor(subspaces.directions(labels.Plane(6, "dense"), network.metric("shell", False), stream("p")))
    on_cpu = curvature.plane_curvature(network.logits, theta, rows, network.inputs, network.targets)[0]
    moved = (tensor.cuda() for tensor in (theta, rows, network.inputs, network.targets))
    on_cuda = curvature.plane_curvature(network.logits, *moved)[0]
    assert relative_error(on_cuda.hessian, on_cpu.hessian) < TOLERANCE
