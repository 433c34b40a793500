"""Losses of embeddings against sums written out in loops, their derivatives, and their limits."""

import math

import numpy as np
import pytest
import torch
from torch.func import grad, hessian, vmap

from goldilocks_zone.models import networks
from goldilocks_zone.models.embedding_losses import InfoNce, Vicreg, split
from goldilocks_zone.models.labels import parse_network
from goldilocks_zone.models.problem import Problem

TIGHT = {"rtol": 1e-12, "atol": 1e-12}  # the same sums in another order, in double precision
N, E, CODES, REST = 12, 3, 4, 5
TERMS = [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (25.0, 25.0, 1.0)]
LOSSES = [
    *(Vicreg(E, *weights) for weights in TERMS),
    Vicreg(E, 2.0, 3.0, 4.0, epsilon=0.3, hinge=2.0, group=4),
    *(InfoNce(E, 0.7, similarity, both) for similarity in ("distance", "dot") for both in (False, True)),
    InfoNce(E, group=6),
]
each_loss = pytest.mark.parametrize("loss", LOSSES, ids=str)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def groups_of(outputs, group):
    return outputs.split(group or len(outputs))


def variance_and_covariance(branch, loss):
    """Variance term V and covariance term C of VICReg, for embeddings (m, e) of one branch.

    They are computed from numpy's covariance matrix.
    """
    covariance = np.cov(branch.numpy(), rowvar=False)
    deviations = np.sqrt(np.diag(covariance) + loss.epsilon)
    pairs = [covariance[i, j] ** 2 for i in range(E) for j in range(E) if i != j]
    return np.mean(np.maximum(0, loss.hinge - deviations)), sum(pairs) / E


def vicreg_by_loops(loss, outputs):
    """VICReg's loss of outputs (n, 2e + k·r), n times the mean over examples, computed by loops."""
    residuals = split(outputs, E, loss.codes).residuals
    energies = []
    for example in residuals:
        squares = [float((code**2).sum()) for code in example]
        if loss.codes == 1 or loss.sharpness is None:
            energies.append(min(squares))
        else:
            mean = sum(math.exp(-loss.sharpness * square) for square in squares) / loss.codes
            energies.append(-math.log(mean) / loss.sharpness)
    parts = []
    for some in groups_of(outputs, loss.group):
        branches = [variance_and_covariance(some[:, i * E : (i + 1) * E], loss) for i in range(2)]
        parts.append((np.mean([v for v, _ in branches]), sum(c for _, c in branches)))
    variance, covariance = np.mean(parts, 0)
    mean = loss.invariance * np.mean(energies) / E + loss.variance * variance + loss.covariance * covariance
    return len(outputs) * mean


def info_nce_by_loops(loss, outputs):
    """InfoNCE's loss of outputs (n, 2e) or (n, 3e), n times the mean over examples, computed by loops."""
    total = 0
    for some in groups_of(outputs, loss.group):
        targets = some[:, E : 2 * E]
        predictions = some[:, 2 * E :] + targets if some.shape[1] > 2 * E else some[:, :E]
        logits = np.empty((len(some), len(some)))
        for i, p in enumerate(predictions):
            for j, s in enumerate(targets):
                value = p @ s if loss.similarity == "dot" else -((p - s) ** 2).sum()
                logits[i, j] = value / loss.temperature
        ways = [logits, logits.T] if loss.both_directions else [logits]
        for way in ways:
            total += sum(math.log(np.exp(row).sum()) - row[i] for i, row in enumerate(way)) / len(ways)
    return total


def by_loops(loss, outputs):
    return (vicreg_by_loops if isinstance(loss, Vicreg) else info_nce_by_loops)(loss, outputs)


@each_loss
@pytest.mark.parametrize("width", [2 * E, 3 * E])
def test_totals_are_sums_over_the_batch(loss, width):
    outputs = 0.7 * random(N, width)
    assert loss.total(outputs, None).item() == pytest.approx(by_loops(loss, outputs), rel=1e-12)


@pytest.mark.parametrize("sharpness", [None, 0.8])
def test_codes_and_residuals_of_another_size(sharpness):
    outputs = random(N, 2 * E + CODES * REST)
    loss = Vicreg(E, 2.0, 3.0, 4.0, codes=CODES, sharpness=sharpness, group=6)
    assert loss.total(outputs).item() == pytest.approx(vicreg_by_loops(loss, outputs), rel=1e-12)


def test_terms_and_energies_add_up_to_the_total():
    outputs = random(N, 2 * E + CODES * REST)
    loss = Vicreg(E, 2.0, 3.0, 4.0, codes=CODES, sharpness=0.8)
    terms = loss.terms(outputs)
    whole = 2 * terms.invariance + 3 * terms.variance + 4 * terms.covariance
    torch.testing.assert_close(loss.total(outputs), N * whole, **TIGHT)
    torch.testing.assert_close(loss.energies(outputs).mean() / E, terms.invariance, **TIGHT)


def test_pixel_prediction_is_the_mean_square_of_its_residuals():
    outputs = random(N, 2 * E + REST)
    found = Vicreg(E, 1.0, 0.0, 0.0).total(outputs)
    torch.testing.assert_close(found, outputs[:, 2 * E :].square().sum() / E, **TIGHT)


@each_loss
def test_leading_dimensions_are_other_batches(loss):
    outputs = random(2, 3, N, 3 * E)
    expected = torch.stack([torch.stack([loss.total(one, None) for one in row]) for row in outputs])
    torch.testing.assert_close(loss.total(outputs, None), expected, **TIGHT)
    slopes = torch.stack([torch.stack([loss.gradient(one, None) for one in row]) for row in outputs])
    torch.testing.assert_close(loss.gradient(outputs, None), slopes, **TIGHT)
    torch.testing.assert_close(vmap(vmap(lambda one: loss.total(one, None)))(outputs), expected, **TIGHT)


@each_loss
def test_gradients_are_slopes_of_the_sums(loss):
    outputs, direction, step = 0.7 * random(N, 2 * E), random(N, 2 * E, seed=1), 1e-5
    slope = (by_loops(loss, outputs + step * direction) - by_loops(loss, outputs - step * direction)) / (2 * step)
    # Central differences err by step² and by rounding over step.
    assert (loss.gradient(outputs, None) * direction).sum().item() == pytest.approx(slope, rel=1e-7, abs=1e-8)


@each_loss
def test_curvature_is_the_second_derivative(loss):
    outputs, tangents = 0.7 * random(N, 3 * E), random(2, N, 3 * E, seed=1)
    second = hessian(lambda flat: loss.total(flat.view(N, -1), None))(outputs.flatten())
    expected = tangents.flatten(1) @ second
    product = loss.curvature(outputs, None)
    torch.testing.assert_close(torch.stack([product(each).flatten() for each in tangents]), expected, **TIGHT)
    totals, traces = loss.gauss_newton(outputs[None], tangents.transpose(1, 2), torch.zeros(N, dtype=int), None)
    torch.testing.assert_close(totals[0], expected @ tangents.flatten(1).T, **TIGHT)
    assert torch.isnan(traces).all()


def test_groups_are_batches_by_themselves():
    outputs = random(N, 3 * E)
    for loss in (Vicreg(E, 2.0, 3.0, 4.0, group=4), InfoNce(E, group=4)):
        alone = type(loss)(**{**vars(loss), "group": None})
        expected = sum(alone.total(some, None) for some in outputs.split(4))
        torch.testing.assert_close(loss.total(outputs, None), expected, **TIGHT)


def test_soft_minimum_lies_between_minimum_and_mean_and_tends_to_either():
    outputs = random(N, 2 * E + CODES * REST)
    squares = split(outputs, E, CODES).residuals.square().sum(-1)
    energies = {b: Vicreg(E, 1, 0, 0, codes=CODES, sharpness=b).energies(outputs) for b in (1e-7, 1.0, 1e7)}
    # The soft minimum falls from the mean by β/2 times the variance over codes, and stays log k/β above the minimum.
    torch.testing.assert_close(energies[1e-7], squares.mean(-1), rtol=1e-5, atol=0)
    torch.testing.assert_close(energies[1e7], squares.amin(-1), rtol=1e-5, atol=0)
    assert (energies[1.0] > squares.amin(-1)).all() and (energies[1.0] < squares.mean(-1)).all()
    one = Vicreg(E, 1, 0, 0, codes=1, sharpness=3.0)
    torch.testing.assert_close(one.energies(outputs[:, : 2 * E + REST]), squares[:, 0], **TIGHT)


def test_hinge_is_flat_from_its_corner_on():
    outputs = random(N, 2 * E)
    centred = outputs - outputs.mean(0)
    loss = Vicreg(E, 0.0, 1.0, 0.0, epsilon=0.25, hinge=1.0)
    inside = centred / centred.std(0) * 0.5
    assert loss.total(inside).item() == pytest.approx(N * (1 - math.sqrt(0.5)))
    assert loss.gradient(inside, None).abs().max() > 0.01
    # s = √(3/4 + 1/4) = 1 holds exactly for these entries: a pair of opposite values in four examples.
    corner = torch.tensor([-0.75, -0.75, 0.75, 0.75], dtype=torch.float64)[:, None].expand(4, 2)
    at_corner = Vicreg(1, 0.0, 1.0, 0.0, epsilon=0.25, hinge=1.0)
    assert at_corner.total(corner).item() == 0
    assert (at_corner.gradient(corner, None) == 0).all()


def test_collapsed_batches_have_finite_derivatives_and_the_largest_loss():
    outputs = torch.ones(N, 2 * E, dtype=torch.float64)
    for loss in LOSSES:
        total, slope = loss.total(outputs, None), loss.gradient(outputs, None)
        assert torch.isfinite(total) and torch.isfinite(slope).all()
    assert Vicreg(E, 1.0, 1.0, 1.0, epsilon=1e-4).total(outputs).item() == pytest.approx(N * 0.99)
    assert InfoNce(E).total(outputs).item() == pytest.approx(N * math.log(N))


def test_degrees_of_the_terms():
    outputs, scale = 0.1 * random(N, 2 * E), 3.0
    loss = Vicreg(E, 1.0, 1.0, 1.0)
    before, after = loss.terms(outputs), loss.terms(scale * outputs)
    torch.testing.assert_close(after.invariance, scale**2 * before.invariance, **TIGHT)
    torch.testing.assert_close(after.covariance, scale**4 * before.covariance, **TIGHT)
    active = Vicreg(E, 0.0, 1.0, 0.0, epsilon=1e-4 * scale**2).terms(scale * outputs).variance
    torch.testing.assert_close(1 - active, scale * (1 - before.variance), **TIGHT)


def test_problems_take_them():
    module = networks.build(parse_network("fc-5-tanh"), (1, 1, 4), 2 * E).double()
    problem = Problem(module, random(N, 1, 1, 4), None, Vicreg(E, 25, 25, 1))
    assert problem.loss.couples_examples and not problem.loss.classifies
    outputs = module(problem.inputs)
    assert grad(lambda z: problem.loss.total(z, None))(outputs).shape == (N, 2 * E)


def test_widths_and_groups_that_do_not_fit_are_refused():
    outputs = random(N, 3 * E)
    for loss, given in ((Vicreg(2 * E, 1, 1, 1), outputs), (Vicreg(E, 1, 1, 1, codes=2), outputs)):
        with pytest.raises(ValueError, match="cannot be cut into two embeddings"):
            loss.total(given)
    for group in (1, 5):
        with pytest.raises(ValueError, match=f"groups of {group}"):
            Vicreg(E, 1, 1, 1, group=group).total(outputs)
    with pytest.raises(ValueError, match=f"residuals have 5 entries and embeddings {E}"):
        InfoNce(E).total(random(N, 2 * E + REST))
