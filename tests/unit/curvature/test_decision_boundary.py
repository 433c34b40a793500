"""Alignment with the decision boundary: against explicit derivatives in double precision, and linear classifiers."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from goldilocks_zone.curvature import decision_boundary, logit_gradients, margin_estimate
from goldilocks_zone.models import decision_boundary as boundary
from goldilocks_zone.models import networks
from goldilocks_zone.models.problem import Problem
from goldilocks_zone.randomness import stream
from goldilocks_zone.spectra import alignments
from made_up.networks import model

LABELS = ["fc-7x2-relu", "fc-7x2-relu-nobias", "fc-6x2-tanh", "fc-6-softplus"]
CLASSES = 3


AROUND = torch.as_tensor(stream("around").standard_normal((60, 2)))


def made(label, examples=12):
    """Problem of a network in the plane, parameters from which it predicts every class somewhere, and its logits.

    The parameters are the first such initialisation. The logits are a function of parameters and inputs.
    """
    found = model(label, image=(2,), classes=CLASSES, examples=examples)
    logits = networks.logits_function(found.module)
    starts = (found.initialisation(seed, 1.5) for seed in itertools.count())
    theta = next(each for each in starts if len(logits(each, AROUND).argmax(1).unique()) == CLASSES)
    return Problem(found.module, found.inputs, found.targets), theta, logits


def jacobian(logits, theta, inputs):
    """Derivatives ∂z_k/∂θ (n, k, D) of the logits of all `inputs`, as a dense tensor."""
    return torch.autograd.functional.jacobian(lambda each: logits(each, inputs), theta)


def explicit_g(logits, theta, inputs, temperature=1.0):
    """Gauss–Newton matrix G (D, D) of the mean cross-entropy of logits over the temperature, as a dense tensor."""
    p = torch.softmax(logits(theta, inputs) / temperature, 1)
    curved = torch.diag_embed(p) - p[:, :, None] * p[:, None]
    rows = jacobian(logits, theta, inputs)
    return torch.einsum("nkd,nkl,nle->de", rows, curved, rows) / len(inputs)


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("temperature", [0.3, 1.0])
def test_dual_eigenpairs_are_those_of_g(label, temperature):
    problem, theta, logits = made(label)
    z = logits(theta, problem.inputs)
    gradients = logit_gradients.of(problem, theta)
    found = decision_boundary.dual(gradients, problem.loss.factor(z / temperature, problem.labels))
    values, vectors = torch.linalg.eigh(explicit_g(logits, theta, problem.inputs, temperature))
    values, vectors = values.flip(0), vectors.flip(1)
    count = len(found.pairs.eigenvalues)
    assert np.abs(found.pairs.eigenvalues - values[:count].numpy()).max() < 1e-10 * float(values[0])
    assert float(values[count:].abs().max()) < 1e-10 * float(values[0])
    mine = logit_gradients.pulled(problem, theta, found.pairs.cotangents)
    clear = int((values > 1e-6 * values[0]).sum())
    cosines = torch.linalg.svdvals(mine[:clear] @ vectors[:, :clear])
    assert cosines.min() > 1 - 1e-10
    # Alignments with the gradients of the predicted labels, against formed ones.
    rows, p = jacobian(logits, theta, problem.inputs), torch.softmax(z, 1)
    g = torch.einsum("nk,nkd->nd", p - nn.functional.one_hot(z.argmax(1), CLASSES), rows)
    # An example at which every unit is dead is aligned with nothing.
    unit = (g / g.norm(dim=1, keepdim=True)).nan_to_num() @ vectors[:, :clear]
    ours = found.alignments(decision_boundary.predicted_loss(gradients, z))[:, :clear]
    gaps = np.abs(np.diff(values[: clear + 1].numpy()))
    for i in range(clear):
        if min(gaps[max(0, i - 1)], gaps[i]) > 1e-4 * float(values[0]):
            assert np.abs(np.abs(ours[:, i]) - unit[:, i].abs().numpy()).max() < 1e-8
    assert np.allclose(np.square(ours).sum(1), unit.square().sum(1).numpy(), atol=1e-8)


def test_gradients_of_confident_predictions_keep_their_direction():
    z = torch.tensor([[60.0, 0.0, -1.0], [0.0, 900.0, 5.0]], dtype=torch.float64)
    weights = decision_boundary.predicted_loss_weights(z)
    assert torch.isfinite(weights).all()
    assert torch.allclose(weights.sum(1), torch.zeros(2, dtype=torch.float64), atol=1e-12)
    assert float(weights[0, 1] / weights[0, 2]) == pytest.approx(np.e, rel=1e-9)


@pytest.mark.parametrize("label", LABELS)
def test_normals_are_those_of_formed_gradients(label):
    problem, theta, logits = made(label)
    crossings = boundary.between_pairs(lambda x: logits(theta, x), AROUND, 20, stream("pairs"))
    assert len(crossings.points) == 20
    normals = decision_boundary.normals(problem, theta, crossings)
    rows = jacobian(logits, theta, crossings.points)
    b = torch.arange(20)
    u = rows[b, crossings.classes[:, 0]] - rows[b, crossings.classes[:, 1]]
    u = (u / u.norm(dim=1, keepdim=True)).nan_to_num()
    assert torch.allclose(normals.products(normals)[:, 0, :, 0], u @ u.T, atol=1e-10)
    vectors = torch.linalg.qr(torch.as_tensor(stream("vectors").standard_normal((len(theta), 4))))[0].T
    weights = nn.functional.one_hot(crossings.classes[:, 0], CLASSES) - nn.functional.one_hot(
        crossings.classes[:, 1], CLASSES
    )
    there = Problem(problem.network, crossings.points)
    found = decision_boundary.with_vectors(there, theta, vectors, weights.double())
    assert np.allclose(found, (u @ vectors.T).numpy(), atol=1e-10)


@pytest.mark.parametrize("classes", [2, 4])
def test_gradients_of_both_sides_cancel_at_a_tie_but_for_other_classes(classes):
    """sb3 is an identity, for any direction: g(ŷ=k) + g(ŷ=l) = 2 Σ_j p_j (J_j − (J_k + J_l)/2)."""
    found = model("fc-7x2-relu", image=(2,), classes=classes, examples=30)
    theta, logits = found.initialisation(8, 1.5), networks.logits_function(found.module)
    crossings = boundary.between_pairs(lambda x: logits(theta, x), found.inputs * 4, 10, stream("pairs"))
    rows, p = jacobian(logits, theta, crossings.points), torch.softmax(logits(theta, crossings.points), 1)
    direction = torch.as_tensor(stream("direction").standard_normal(len(theta)))
    for row, outputs, (k, m) in zip(rows, p.detach(), crossings.classes.tolist()):
        sides = [(outputs - nn.functional.one_hot(torch.tensor(each), classes)) @ row for each in (k, m)]
        others = [j for j in range(classes) if j not in (k, m)]
        expected = sum((2 * outputs[j] * (row[j] - (row[k] + row[m]) / 2) for j in others), torch.zeros_like(row[0]))
        assert float(abs((sum(sides) - expected) @ direction)) < 1e-6 * float(sides[0].norm() * direction.norm())


def linear():
    """Problem of a linear classifier of two classes in the plane, its parameters (D,), and its weights (2, 2)."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(2, 2)).double()
    weight = torch.tensor([[1.0, -0.4], [-0.7, 0.9]], dtype=torch.float64)
    theta = torch.cat([weight.flatten(), torch.tensor([0.2, -0.1], dtype=torch.float64)])
    inputs = torch.as_tensor(stream("linear").standard_normal((60, 2)))
    return Problem(module, inputs, torch.zeros(60, dtype=torch.long)), theta, weight


def test_linear_classifier_has_its_closed_form():
    problem, theta, weight = linear()
    logits = networks.logits_function(problem.network)
    crossings = boundary.on_grid(lambda x: logits(theta, x), ((-2, 2), (-2, 2)), 40, theta)
    normal, offset = weight[0] - weight[1], 0.3
    assert (crossings.points @ normal + offset).abs().max() < 1e-6
    gradients, z = logit_gradients.of(problem, theta), logits(theta, problem.inputs)
    dual = decision_boundary.dual(gradients, problem.loss.factor(z, problem.labels))
    found = alignments.captured(dual.alignments(decision_boundary.normals(problem, theta, crossings)))
    # Eigenvectors are (e_1 − e_2) ⊗ w, w those of the second moments of (x, 1) with the weights p (1 − p).
    p, lifted = torch.softmax(z, 1)[:, 0].detach(), nn.functional.pad(problem.inputs, (0, 1), value=1.0)
    _, w = torch.linalg.eigh(torch.einsum("n,ni,nj->ij", p * (1 - p), lifted, lifted))
    there = nn.functional.pad(crossings.points, (0, 1), value=1.0)
    shares = (there @ w.flip(1)).square() / there.square().sum(1, keepdim=True)
    assert np.allclose(found, shares.mean(0).cumsum(0).numpy(), atol=1e-10)
    assert found[2] == pytest.approx(1, abs=1e-10)
    assert found[0] < 0.99
    margins = boundary.linearised_margins(lambda x: logits(theta, x), problem.inputs)
    assert torch.allclose(margins, (problem.inputs @ normal + offset).abs() / normal.norm(), rtol=1e-6)


def test_a_saturated_softmax_has_no_eigenpairs():
    problem, theta, _ = linear()
    z = torch.tensor([[2000.0, 0.0]], dtype=torch.float64).expand(60, 2)
    dual = decision_boundary.dual(logit_gradients.of(problem, theta), problem.loss.factor(z, problem.labels))
    assert len(dual.pairs.eigenvalues) == 0


@pytest.mark.parametrize("label", LABELS[:3])
def test_explicit_alignments_and_the_rank_bound(label):
    problem, theta, logits = made(label, examples=5)
    z = logits(theta, problem.inputs)
    found = decision_boundary.explicit(problem, theta, z)
    loss = lambda each: nn.functional.cross_entropy(logits(each, problem.inputs), problem.labels)  # noqa: E731
    matrix = torch.autograd.functional.hessian(loss, theta)
    values = torch.linalg.eigvalsh(matrix).flip(0)
    assert np.abs(found.eigenvalues - values.numpy()).max() < 1e-10 * float(values[0])
    assert np.allclose(np.square(found.alignments).sum(1), 1)
    live = jacobian(logits, theta, problem.inputs).abs().amax((0, 1)) > 0
    assert logit_gradients.of(problem, theta).live() == int(live.sum())


@pytest.mark.parametrize("label", ["fc-7x2-relu", "fc-7x2-relu-nobias", "fc-6x2-tanh"])
def test_alignment_of_many_networks_is_that_of_each(label):
    problems = [made(label)[0] for _ in range(2)]
    found = model(label, image=(2,), classes=CLASSES, examples=12)
    thetas = torch.stack([found.initialisation(seed, 1.5) for seed in (3, 4)])
    vectors = torch.nn.functional.normalize(torch.as_tensor(stream("v").standard_normal(thetas.shape)), dim=1)
    points = torch.as_tensor(stream("points").standard_normal((2, 5, 2)))
    ours = margin_estimate.alignment(found.module, thetas, vectors, points.clone().requires_grad_())
    logits = networks.logits_function(problems[0].network)
    for theta, vector, some, row in zip(thetas, vectors, points, ours):
        rows, z = jacobian(logits, theta, some), logits(theta, some)
        g = torch.einsum("nk,nkd->nd", torch.softmax(z, 1) - nn.functional.one_hot(z.argmax(1), CLASSES), rows)
        assert torch.allclose(row, (g @ vector) / g.norm(dim=1), atol=1e-9)


def test_descent_follows_the_slope_of_its_loss():
    found = model("fc-6x2-tanh", image=(2,), classes=CLASSES, examples=12)
    theta = found.initialisation(3, 1.5)[None]
    problem = Problem(found.module, found.inputs, found.targets)
    logits = networks.logits_function(found.module)
    z = logits(theta[0], found.inputs)
    dual = decision_boundary.dual(logit_gradients.of(problem, theta[0]), problem.loss.factor(z, found.targets))
    vector = logit_gradients.pulled(problem, theta[0], dual.pairs.cotangents[:1])
    starts = torch.as_tensor(stream("starts").standard_normal((1, 4, 2)))
    points, reached = margin_estimate.aligned_points(
        found.module, theta, vector, starts, margin_estimate.Descent(steps=3, rate=0.01, fall=2)
    )

    def loss(x):
        return (margin_estimate.alignment(found.module, theta, vector, x.requires_grad_()).square() - 1).square().sum()

    expected, nudge = starts, 1e-6
    for rate in (0.01, 0.01, 0.001):
        slope = torch.zeros_like(expected)
        for i in range(4):
            for j in range(2):
                step = torch.zeros_like(expected)
                step[0, i, j] = nudge
                slope[0, i, j] = (loss(expected + step) - loss(expected - step)).detach() / (2 * nudge)
        expected = expected - rate * (slope + 0.001 * expected)
    assert torch.allclose(points, expected, atol=1e-7)
    assert reached.shape == (1, 4)
