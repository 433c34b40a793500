"""Losses as objects, against automatic differentiation, and every function with losses that the package lacks."""

import numpy as np
import pytest
import torch
from torch.func import hessian as whole_hessian
from torch.func import vmap

from goldilocks_zone.curvature import (
    dispatch,
    gradients,
    hessian,
    logit_gradient_pairs,
    logit_gradients,
    loss_slices,
    top_eigenvectors,
)
from goldilocks_zone.models import losses, networks
from goldilocks_zone.models.labels import parse_network
from goldilocks_zone.models.problem import Problem
from goldilocks_zone.randomness import stream
from goldilocks_zone.subspaces import constraints
from goldilocks_zone.training import ensembles, loop, observations
from made_up.losses import Bounded, Decorrelation, Logistic
from oracles.brute_force import orthonormal, relative_error

TIGHT = 1e-10  # two exact ways in double precision
N, CLASSES, TEMPERATURE = 23, 4, 0.7
EVERY = [*losses.LOSSES.values(), Logistic(), Bounded(), Decorrelation()]
named = pytest.mark.parametrize("loss", EVERY, ids=lambda loss: loss.name)
PATHS = {
    dispatch.HOMOGENEOUS: ("fc-9x2-relu-nobias", [0.5, 2.0]),
    dispatch.SHARED: ("fc-9x2-tanh", [0.5, 2.0]),
    dispatch.POINTWISE: ("conv-3x2-relu", [1.0]),
    dispatch.GRAPH: ("fc-9x2-relu-ln", [1.0]),
}


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def labels_of(loss, n=N):
    if loss.couples_examples:
        return None
    return torch.arange(n) % CLASSES if loss.classifies else random(n, CLASSES, seed=5)


def given(loss, label="fc-9x2-tanh"):
    """Problem with the loss `loss`, parameters (D,), directions (5, D), and the mean loss as a function.

    The function takes parameters and, optionally, the number of first examples to average over.
    """
    module = networks.build(parse_network(label), (1, 5, 6), CLASSES).double()
    size = sum(each.numel() for each in module.parameters())
    problem = Problem(module, random(N, 1, 5, 6, seed=1), labels_of(loss), loss, TEMPERATURE)
    logits = networks.logits_function(module)

    def mean(theta, count=N):
        labels = None if problem.labels is None else problem.labels[:count]
        return loss.total(logits(theta, problem.inputs[:count]) / TEMPERATURE, labels) / count

    return problem, 0.4 * random(size, seed=2), random(5, size, seed=3), mean


@named
def test_derivatives_by_the_outputs_are_those_of_the_total(loss):
    outputs, labels, tangents = random(N, CLASSES), labels_of(loss), random(3, N, CLASSES, seed=1)
    total = lambda flat: loss.total(flat.view(N, CLASSES), labels)  # noqa: E731
    slope = torch.func.grad(total)(outputs.flatten())
    torch.testing.assert_close(loss.gradient(outputs, labels).flatten(), slope)
    second = whole_hessian(total)(outputs.flatten())
    curved = vmap(loss.curvature(outputs, labels))(tangents)
    torch.testing.assert_close(curved.flatten(1), tangents.flatten(1) @ second)
    single = loss.curvature(outputs, labels, torch.float32)(tangents[0].float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), curved[0], rtol=1e-4, atol=1e-5)
    # At several points that share their tangents.
    points = torch.stack([outputs, 2 * outputs])
    classes = losses.likeliest(points)
    relative = loss.relative(tangents.mT.contiguous(), classes)
    found, traces = loss.gauss_newton(points, relative, classes, labels)
    flat = relative.mT.flatten(1)
    assert relative_error(found[0].numpy(), (flat @ second @ flat.T).numpy()) < TIGHT
    if loss.couples_examples:
        assert traces.isnan().all()
    else:
        torch.testing.assert_close(traces[0].sum(0), found[0].diagonal())


@named
def test_the_factor_is_a_root_of_the_second_derivative(loss):
    outputs, labels = random(N, CLASSES), labels_of(loss)
    factor = loss.factor(outputs, labels)
    if loss.name in ("bounded", "decorrelation"):
        assert factor is None
        return
    columns = torch.eye(CLASSES, dtype=torch.float64)[:, None].expand(-1, N, -1)
    second = vmap(loss.curvature(outputs, labels))(columns).permute(1, 2, 0)
    roots = factor.multiplied(torch.eye(factor.shape[2]).double()[:, None].expand(-1, N, -1)).permute(1, 2, 0)
    torch.testing.assert_close(roots @ roots.mT, second)
    vectors = random(3, N, CLASSES, seed=1)
    torch.testing.assert_close(factor.transposed(vectors), torch.einsum("nkr,mnk->mnr", roots, vectors))
    torch.testing.assert_close(
        factor.transposed_first(vectors.permute(1, 2, 0)), torch.einsum("nkr,mnk->nrm", roots, vectors)
    )
    matrices = random(N, CLASSES, CLASSES, seed=2)
    expected = torch.einsum("nkr,nkl,nlr->n", roots, matrices, roots)
    torch.testing.assert_close(factor.traces(matrices), expected)
    torch.testing.assert_close(factor.part(slice(2, 5)).traces(matrices[2:5]), expected[2:5])


@pytest.mark.parametrize("k", [2, 3, 5])
def test_a_softmax_factor_has_a_root_of_one_column_less_also_where_it_is_saturated(k):
    logits = torch.as_tensor(stream("logits", k).standard_normal((40, k))) * torch.logspace(-3, 2.5, 40)[:, None]
    # Exact entries of diag p − ppᵀ: on the diagonal p (1 − p) by the sum of the others.
    p = torch.softmax(logits, 1)
    others = p[:, None].expand(-1, k, -1) * (1 - torch.eye(k, dtype=p.dtype))
    exact = torch.diag_embed(p * others.sum(2)) - others * p[:, :, None]
    found = losses.CrossEntropy().factor(logits, None).reduced()
    assert found.shape == (40, k, k - 1)
    products = found.entries @ found.entries.mT
    roots = exact.diagonal(dim1=1, dim2=2).sqrt()
    assert ((products - exact).abs() <= 1e-14 * roots[:, :, None] * roots[:, None]).all()


@pytest.mark.parametrize("path", PATHS)
@named
def test_any_loss_has_its_curvature_on_planes_and_in_full_space(loss, path):
    """Compares with the full Hessian of the mean loss; a loss that couples examples uses automatic differentiation."""
    label, scales = PATHS[path]
    problem, theta, rows, mean = given(loss, label)
    if loss.couples_examples:
        path = dispatch.AUTOMATIC
    assert dispatch.path_of(problem, theta, len(scales)) == path
    basis = orthonormal(rows)
    for scale, found in zip(scales, hessian.radial_sweep(problem, theta, scales, rows)):
        whole = torch.autograd.functional.hessian(mean, scale * theta, vectorize=True)
        assert relative_error(found.hessian, (basis.T @ whole @ basis).numpy()) < TIGHT
        gradient = torch.autograd.functional.jacobian(mean, scale * theta)
        assert relative_error(found.gradient, (basis.T @ gradient).numpy()) < TIGHT
        assert found.radial_derivative == pytest.approx(float(gradient @ theta) * scale, rel=1e-8, abs=1e-10)
        assert found.loss == pytest.approx(float(mean(scale * theta)), rel=1e-12)
        assert np.isnan(found.effective_examples).all() == loss.couples_examples
        assert np.isnan(found.prior_mismatch) == (not loss.classifies)
    whole = torch.autograd.functional.hessian(mean, theta, vectorize=True)
    products = hessian.hessian_vector_products(problem, theta, rows)
    assert relative_error(products.numpy(), (rows @ whole).numpy()) < TIGHT
    general = Problem(networks.logits_function(problem.network), problem.inputs, problem.labels, loss, TEMPERATURE)
    products, expected = (
        hessian.hessian_vector_products(each, theta, rows, "gauss_newton") for each in (problem, general)
    )
    assert relative_error(products.numpy(), expected.numpy()) < TIGHT
    jacobian = torch.autograd.functional.jacobian(lambda point: general.network(point, problem.inputs), theta)
    outputs = general.network(theta, problem.inputs) / TEMPERATURE
    pushed = torch.einsum("nkp,dp->dnk", jacobian, rows) / TEMPERATURE
    curved = vmap(loss.curvature(outputs, problem.labels))(pushed)
    expected = torch.einsum("dnk,nkp->dp", curved, jacobian) / TEMPERATURE / N
    assert relative_error(products.numpy(), expected.numpy()) < TIGHT


@named
def test_any_loss_has_a_spectrum_slices_and_training(loss):
    problem, theta, _, mean = given(loss)
    whole = torch.autograd.functional.hessian(mean, theta, vectorize=True).numpy()
    exact = np.linalg.eigvalsh(whole)[::-1]
    values, _ = top_eigenvectors.top_eigenpairs(problem, theta, 2)
    assert values == pytest.approx(exact[:2], rel=1e-6)
    assert top_eigenvectors.sharpness(problem, theta) == pytest.approx(exact[0], rel=0.02)
    density = hessian.spectral_density(problem, theta, probes=200, steps=4)
    value, error = density.moment(2)
    assert abs(value - np.mean(exact**2)) < 4 * error < 2 * np.mean(exact**2)
    direction = random(1, len(theta), seed=9)
    found = loss_slices.mean_losses(problem, theta, direction, np.array([[0.0], [0.1]]), 5)
    assert found == pytest.approx([float(mean(theta)), float(mean(theta + 0.1 * direction[0]))], rel=1e-12)
    shapes = [tuple(each.shape) for each in problem.network.parameters()]
    subset = constraints.full(torch.stack([theta, 2 * theta]), shapes, False)
    trained = ensembles.Ensemble(problem, subset, ensembles.Options(1, None, torch.ones(2), optimiser="sgd"), [()])
    expected = torch.autograd.functional.jacobian(mean, theta)
    found = observations.classified(trained, trained.inputs, trained.labels)
    assert float(found["loss"][0]) == pytest.approx(float(mean(theta)))
    assert found["accuracy"].isnan().all() == (not loss.classifies)
    loop.train(trained, [1], lambda step, state: {})
    assert relative_error((theta - trained.coordinates[0]).numpy(), expected.numpy()) < TIGHT


@pytest.mark.parametrize("loss", [each for each in EVERY if each.classifies], ids=lambda loss: loss.name)
def test_the_gram_matrix_carries_the_gauss_newton_spectrum_of_any_loss(loss):
    problem, theta, _, _ = given(loss)
    rows = torch.eye(len(theta), dtype=torch.float64)
    dense = hessian.hessian_vector_products(problem, theta, rows, "gauss_newton").numpy()
    outputs = networks.logits_function(problem.network)(theta, problem.inputs) / TEMPERATURE
    factor, made = loss.factor(outputs, problem.labels), logit_gradients.of(problem, theta)
    # J is of the logits, and G of those over temperature.
    found = logit_gradients.gauss_newton(made, factor, 3).eigenvalues / TEMPERATURE**2
    assert found == pytest.approx(np.linalg.eigvalsh(dense)[::-1][:3], rel=1e-8)
    assert logit_gradient_pairs.frobenius_norm(made, factor) / TEMPERATURE**2 == pytest.approx(np.linalg.norm(dense))
    traces = logit_gradients.traces(made.own(), factor) / TEMPERATURE**2
    assert traces.mean() == pytest.approx(np.trace(dense), rel=1e-10)


def test_a_loss_that_couples_examples_is_that_of_each_batch():
    """The first examples alone are a batch of their own, not a part of the whole batch."""
    problem, theta, rows, mean = given(Decorrelation())
    ((few, again, all_of_them),) = hessian.curvature_at(
        problem, theta, [(1.0, TEMPERATURE)], rows, hessian.Options([7, 7, N])
    )
    basis = orthonormal(rows)
    for found, count in ((few, 7), (again, 7), (all_of_them, N)):
        whole = torch.autograd.functional.hessian(lambda point, count=count: mean(point, count), theta, vectorize=True)
        assert relative_error(found.hessian, (basis.T @ whole @ basis).numpy()) < TIGHT
    with pytest.raises(ValueError, match=r"decorrelation couples examples, .*: give inputs and labels as one batch$"):
        Problem(problem.network, [problem.inputs], [random(N)], Decorrelation())


def test_losses_are_known_by_their_names():
    for name, loss in losses.LOSSES.items():
        assert losses.named(name) is losses.named(loss) is loss and loss.name == name
    with pytest.raises(ValueError, match=r"^loss 'mean_square_error' is unknown: did you mean mean_squared_error\?$"):
        losses.named("mean_square_error")


def test_what_a_loss_does_not_have_is_refused():
    problem, theta, _, _ = given(Bounded())
    with pytest.raises(ValueError, match="not for the loss bounded: give the cross-entropy"):
        gradients.gradients(problem, theta)
    with pytest.raises(ValueError, match="5 labels and 23 inputs were given: give one label for each example"):
        hessian.hessian_products(Problem(problem.network, problem.inputs, random(5, CLASSES), Bounded()), theta)
    with pytest.raises(ValueError, match="the loss cross_entropy needs labels, and none are given: give one label"):
        hessian.hessian_products(Problem(problem.network, problem.inputs), theta)
