"""Scale, temperature, the two parts of the Hessian and their relation to the softmax: by brute force and by theory."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call

from goldilocks_zone.curvature import dispatch, gradients, top_eigenvectors
from goldilocks_zone.curvature import hessian as curvature_hessian
from goldilocks_zone.models import networks
from goldilocks_zone.models.labels import parse_network
from goldilocks_zone.models.problem import Problem
from goldilocks_zone.randomness import stream
from goldilocks_zone.spectra.lanczos import Search
from goldilocks_zone.subspaces import constraints
from goldilocks_zone.theory.laws import kappa_of_random_gradients
from goldilocks_zone.training import ensembles, loop
from made_up.networks import model

NETWORKS = {"fc-9x2-relu-nobias": (6,), "lenet5-nobias": (1, 13, 13)}


def problem(label="fc-9x2-relu-nobias", **options):
    return model(label, **{"image": NETWORKS.get(label, (6,)), "classes": 4, "examples": 40, **options})


def excess(hessian):
    return np.trace(hessian) / np.linalg.norm(hessian)


def of(network, **options):
    return Problem(network.module, network.inputs, network.targets, **options)


def at(network, theta, rows, temperature=1.0):
    return curvature_hessian.plane_hessian(of(network, temperature=temperature), theta, rows)


@pytest.mark.parametrize("scale", [0.01, 0.3, 20.0])
@pytest.mark.parametrize("label, depth", [("fc-9x2-relu-nobias", 3), ("lenet5-nobias", 5)])
def test_scale_and_temperature_are_one_thing_point_by_point(label, depth, scale):
    network = problem(label)
    theta, rows = network.initialisation(0, 1.0), network.directions(7)
    scaled, cooled = at(network, scale * theta, rows), at(network, theta, rows, scale**-depth)
    np.testing.assert_allclose(
        scaled.hessian, cooled.hessian / scale**2, rtol=1e-11, atol=1e-11 * np.abs(scaled.hessian).max()
    )
    assert excess(scaled.hessian) == pytest.approx(excess(cooled.hessian), rel=1e-12, abs=1e-12)
    both = at(network, scale * theta, rows, scale**depth)
    assert excess(both.hessian) == pytest.approx(excess(at(network, theta, rows).hessian), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("optimiser", ["sgd"])
def test_a_temperature_and_a_rate_undo_the_scale_of_training(optimiser):
    network, scales = problem(), torch.tensor([1.0, 0.2, 5.0], dtype=torch.float64)
    points = scales[:, None] * network.initialisation(0, 1.0)
    shapes = [parameter.shape for parameter in network.module.parameters()]
    options = ensembles.Options(100, None, 0.05 * scales**2, scales**3, optimiser)
    ensemble = ensembles.Ensemble(of(network), constraints.full(points, shapes, False), options, [("batches",)])
    start = ensemble.logits(ensemble.parameters(), network.inputs)
    loop.train(ensemble, [100], lambda step, state: {})
    found = ensemble.logits(ensemble.parameters(), network.inputs) / scales[:, None, None] ** 3
    assert (start[0] - found[0]).abs().max() > 0.1
    assert (found - found[0]).abs().max() < 1e-10


@pytest.mark.parametrize("label", ["fc-8x2-relu-nobias", "fc-8x2-leakyrelu-nobias"])
def test_the_residual_part_has_no_trace_in_full_space(label):
    network = problem(label, image=(2,), classes=3)
    theta = network.initialisation(0, 1.0)
    found = at(network, theta, torch.eye(len(theta), dtype=torch.float64))
    whole = torch.autograd.functional.hessian(network.loss, theta, vectorize=True).numpy()
    assert np.linalg.norm(found.gauss_newton + found.residual - whole) < 1e-12 * np.linalg.norm(whole)
    assert abs(np.trace(found.residual)) < 1e-12 * np.linalg.norm(found.residual)
    assert np.linalg.eigvalsh(found.gauss_newton).min() > -1e-12 * np.linalg.norm(found.gauss_newton)


@pytest.mark.parametrize("label", ["fc-9x2-relu", "conv-3x2-relu"])
def test_the_residual_part_vanishes_within_a_layer_and_its_biases(label):
    network = problem(label, image=(1, 5, 6) if label.startswith("conv") else (6,))
    theta = network.with_biases(network.initialisation(0, 1.0))
    for start, size in layers(network.module):
        rows = torch.zeros(4, len(theta), dtype=torch.float64)
        rows[:, start : start + size] = torch.as_tensor(stream("inside", start).standard_normal((4, size)))
        others = torch.as_tensor(stream("others", start).standard_normal((4, len(theta))))
        found = at(network, theta, torch.cat([rows, others])).residual
        assert np.abs(found[:4, :4]).max() < 1e-12 * np.abs(found).max()


def layers(module):
    """Yield, for each layer with weights, the index of its first parameter and its number of parameters with biases."""
    start = 0
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            size = sum(each.numel() for each in layer.parameters())
            yield start, size
            start += size


@pytest.mark.parametrize("path", ["homogeneous", "pointwise", "automatic"])
@pytest.mark.parametrize("temperature", [1.0, 0.05])
def test_what_the_softmax_says_against_brute_force(path, temperature):
    network, count = problem(), 30
    theta, rows = network.initialisation(0, 1.0), network.directions(5)
    points = [(2.0, temperature)] if path != "homogeneous" else [(0.5, 1.0), (2.0, temperature)]
    what = network.logits if path == "automatic" else network.module
    options = curvature_hessian.Options([40, count])
    found = curvature_hessian.curvature_at(replace(of(network), network=what), theta, points, rows, options)
    found, z = found[-1][1], network.logits(2 * theta, network.inputs[:count]).numpy()
    p = np.exp(z / temperature - np.logaddexp.reduce(z / temperature, axis=1)[:, None])
    shares = np.bincount(network.targets[:count], minlength=4) / count
    middle = np.diag(p.mean(0)) - p.T @ p / count
    assert found.entropy == pytest.approx(-(p * np.log(p)).sum(1).mean(), rel=1e-10)
    assert found.prior_mismatch == pytest.approx(np.linalg.norm(shares - p.mean(0)), rel=1e-10)
    assert found.softmax_ratio == pytest.approx(np.trace(middle) / np.linalg.norm(middle), rel=1e-8)
    basis = np.linalg.qr(rows.numpy().T)[0]
    jacobian = torch.func.jacrev(lambda point: network.logits(point, network.inputs[:count]))(2 * theta).numpy() @ basis
    own = jacobian.var(axis=0, ddof=1).mean()
    assert found.example_gradient == pytest.approx(np.sqrt(own), rel=1e-10)
    assert found.class_gradient == pytest.approx(np.sqrt((jacobian.mean(0) ** 2).mean() - own / count), rel=1e-10)
    assert found.zero_logits == np.mean(z == 0)


def test_a_saturated_softmax_has_the_ratio_of_one_pair_of_classes():
    # No example has zero logits only, which no temperature makes sure of itself.
    network = problem("fc-9x2-leakyrelu-nobias")
    theta, rows = network.initialisation(0, 1.0), network.directions(3)
    ratios = [at(network, theta, rows, temperature).softmax_ratio for temperature in (1e3, 1.0, 1e-9)]
    assert ratios[0] == pytest.approx(math.sqrt(3), rel=1e-3)
    assert 1 < ratios[1] < math.sqrt(3) and ratios[2] == pytest.approx(1, abs=1e-6)


def test_zero_logits_and_overflow_are_recorded_and_touch_no_other_point():
    network = problem()
    theta, rows = network.initialisation(0, 1.0), network.directions(4)
    options = curvature_hessian.Options(refuse_overflow=False)
    points = [(1e-150, 1.0), (1.0, 1.0), (1e120, 1.0)]
    zero, usual, beyond = (
        at_point[0] for at_point in curvature_hessian.curvature_at(of(network), theta, points, rows, options)
    )
    assert zero.zero_logits == 1 and zero.entropy == pytest.approx(math.log(4))
    assert beyond is None
    alone = at(network, theta, rows)
    np.testing.assert_allclose(usual.hessian, alone.hessian, rtol=1e-10, atol=1e-14)
    with pytest.raises(ValueError, match="not finite"):
        curvature_hessian.curvature_at(of(network), theta, points, rows)


def test_gradients_and_the_shift_to_the_prior_against_brute_force():
    network = problem()
    theta, temperature = network.initialisation(0, 2.0), 0.7
    found = gradients.gradients(of(network, temperature=temperature), theta)

    def loss(point, shift):
        return nn.functional.cross_entropy(network.logits(point, network.inputs) / temperature + shift, network.targets)

    shares = torch.bincount(network.targets, minlength=4).double() / 40
    shift = gradients.prior_shift(network.logits(theta, network.inputs) / temperature, shares)
    for norm, constants in [(found.gradient_norm, torch.zeros(4)), (found.forced_gradient_norm, shift)]:
        point = theta.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(point, constants), point)
        assert norm == pytest.approx(float(gradient.norm()), rel=1e-10)
    assert found.forced_mismatch < 1e-10 and found.forced_gradient_norm < found.gradient_norm
    mean = torch.func.jacrev(lambda point: network.logits(point, network.inputs).mean(0))(theta)
    assert found.class_gradient_norm == pytest.approx(float(mean.square().sum(1).mean().sqrt()), rel=1e-10)


@pytest.mark.parametrize("scale", [1.0, 30.0, 1e4])
def test_the_shift_reaches_the_prior_however_sure_the_examples_are(scale):
    outputs = scale * torch.as_tensor(stream("outputs").standard_normal((500, 6)))
    shares = torch.tensor([0.3, 0.2, 0.2, 0.1, 0.1, 0.1], dtype=torch.float64)
    shift = gradients.prior_shift(outputs, shares)
    assert torch.softmax(outputs + shift, 1).mean(0).sub(shares).norm() < (1e-10 if scale < 100 else 5e-3)


def test_top_eigenvectors_against_the_whole_hessian_and_as_images():
    network = model("fc-9x2-tanh", image=(1, 3, 4), classes=4, examples=30)
    theta = network.initialisation(0, 2.0)
    values, vectors = top_eigenvectors.top_eigenpairs(of(network), theta, 3)
    whole = torch.autograd.functional.hessian(network.loss, theta, vectorize=True).numpy()
    exact, basis = np.linalg.eigh(whole)
    np.testing.assert_allclose(values, exact[::-1][:3], rtol=1e-7)
    assert np.abs(np.sum(vectors * basis[:, ::-1][:, :3], axis=0)) == pytest.approx(1, rel=1e-6)
    images = top_eigenvectors.first_layer_images(network.module, vectors, (1, 3, 4))
    expected = vectors[: 9 * 12, 0].reshape(9, 3, 4).mean(0)
    expected *= np.sign(expected.flat[np.abs(expected).argmax()])
    np.testing.assert_allclose(images[0], expected, atol=1e-12)
    assert images.shape == (3, 3, 4)
    sharpest = top_eigenvectors.sharpness(of(network), theta)
    assert sharpest == pytest.approx(exact[-1], rel=0.02)
    assert top_eigenvectors.sharpness(of(network), 0 * theta) == 0


def test_a_search_that_starts_near_eigenvectors_finds_the_same_and_those_it_was_not_given():
    network = problem()
    theta = network.initialisation(0, 2.0)
    values, vectors = top_eigenvectors.top_eigenpairs(of(network), theta, 4)
    for near in (vectors.T, vectors[:, 1:3].T, np.linalg.qr(np.eye(len(theta))[:, :2])[0].T):
        search = Search(start=top_eigenvectors.start_near(near, len(theta)))
        found, others = top_eigenvectors.top_eigenpairs(of(network), theta, 4, search)
        np.testing.assert_allclose(found, values, rtol=1e-7)
        np.testing.assert_allclose(abs((vectors * others).sum(0)), 1, rtol=1e-5)


def test_a_hessian_that_vanishes_has_no_sharpness():
    network = model("fc-9x2-relu-nobias", inputs=8, classes=4, examples=10)
    theta = 1e4 * network.initialisation(0, 1.0)
    likeliest = network.logits(theta, network.inputs).argmax(1)
    assert top_eigenvectors.sharpness(Problem(network.module, network.inputs, likeliest), theta) == 0
    # Of the usual scale, where no softmax is saturated, it has one.
    assert top_eigenvectors.sharpness(Problem(network.module, network.inputs, likeliest), theta / 1e4) > 0


def test_a_hessian_beyond_the_range_of_numbers_is_no_number():
    network = model("fc-9x2-relu-nobias", inputs=8, classes=4, examples=10)
    theta = 1e120 * network.initialisation(0, 1.0)
    found = top_eigenvectors.sharpness(of(network, loss="mean_squared_error"), theta)
    assert np.isnan(found)


def test_images_need_a_layer_that_sees_them():
    network = model("conv-3x2-relu", image=(1, 5, 6), classes=4, examples=10)
    with pytest.raises(ValueError, match="does not see whole images"):
        top_eigenvectors.first_layer_images(
            network.module, np.zeros((len(network.initialisation(0, 1.0)), 1)), (1, 5, 6)
        )


def test_the_random_model_on_gradients_that_are_random():
    d, classes, examples, shared, own = 40, 5, 400, 0.7, 1.3
    random, p = stream("random gradients"), stream("outputs").dirichlet(np.ones(5), examples)
    middle = np.einsum("nk,kl->nkl", p, np.eye(classes)) - np.einsum("nk,nl->nkl", p, p)
    measured = []
    for _ in range(20):
        j = shared * random.standard_normal((1, classes, d)) + own * random.standard_normal((examples, classes, d))
        measured.append(excess(np.einsum("nki,nkl,nlj->ij", j, middle, j) / examples))
    ratio = np.trace(middle.mean(0)) / np.linalg.norm(middle.mean(0))
    finite, large = (kappa_of_random_gradients(shared, own, ratio, d, form) for form in ("finite", "large"))
    assert np.mean(measured) == pytest.approx(finite, rel=0.05)
    assert abs(finite - np.mean(measured)) < abs(large - np.mean(measured)) and finite == pytest.approx(large, rel=0.1)


def test_layer_normalisation_makes_hidden_layers_blind_to_their_scale():
    network = problem("fc-9x2-relu-nobias-ln")
    theta, rows = network.initialisation(0, 1.0), network.directions(5)
    assert dispatch.path_of(of(network), theta, 1) == dispatch.GRAPH
    scaled = theta.clone()
    scaled[: 9 * 6] *= 7
    first, second = (network.logits(point, network.inputs) for point in (theta, scaled))
    assert (first - second).abs().max() < 1e-4 * first.abs().max()
    found = at(network, theta, rows)
    whole = torch.autograd.functional.hessian(network.loss, theta, vectorize=True).numpy()
    basis = np.linalg.qr(rows.numpy().T)[0]
    basis *= np.sign(np.diag(basis.T @ rows.numpy().T))
    np.testing.assert_allclose(found.hessian, basis.T @ whole @ basis, atol=1e-10 * np.abs(whole).max())


def test_own_layers_of_a_normalised_network_are_normalised():
    network = networks.build(parse_network("fc-9x2-relu-nobias-res-ln"), (6,), 4).double()
    inputs = torch.as_tensor(stream("inputs").standard_normal((3, 6)))
    values = dict(network.named_parameters())
    hidden = torch.relu(nn.functional.layer_norm(inputs @ values["1.weight"].T, (9,)))
    hidden = hidden + torch.relu(nn.functional.layer_norm(hidden @ values["4.inner.0.weight"].T, (9,)))
    torch.testing.assert_close(functional_call(network, values, inputs), hidden @ values["5.weight"].T)
