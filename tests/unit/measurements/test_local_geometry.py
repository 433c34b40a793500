"""Measurements at a point of training, against dense matrices of a small network in double precision."""

import numpy as np
import pytest
import torch
from torch import nn

from goldilocks_zone.curvature import hessian, logit_gradients
from goldilocks_zone.measurements import local_geometry
from goldilocks_zone.models import networks
from goldilocks_zone.models.problem import Problem
from goldilocks_zone.randomness import stream
from goldilocks_zone.theory import random_model

CLASSES, COUNT = 4, 7


@pytest.fixture(scope="module")
def problem():
    """Module and parameters (132,) after some steps of gradient descent, three sets of examples, and measurements."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(10, 8), nn.Tanh(), nn.Linear(8, CLASSES)).double()
    random = stream("a point of training")

    def examples(n):
        labels = torch.as_tensor(random.integers(0, CLASSES, n))
        centres = torch.eye(10, dtype=torch.float64)[labels] * 2
        return local_geometry.Examples(centres + torch.as_tensor(random.standard_normal((n, 10))), labels)

    sets = local_geometry.Sets(*(examples(n) for n in (40, 30, 25)))
    optimiser = torch.optim.SGD(module.parameters(), lr=0.5)
    for _ in range(20):
        optimiser.zero_grad()
        nn.functional.cross_entropy(module(sets[0].inputs), sets[0].labels).backward()
        optimiser.step()
    theta = torch.cat([each.detach().flatten() for each in module.parameters()])
    options = local_geometry.Options(count=COUNT, probes=1500, residual=True)
    return module, theta, sets, local_geometry.measure(module, theta, sets, options)


@pytest.fixture(scope="module")
def dense(problem):
    """G and H of the trained network, dense matrices (D, D) on the first set of examples."""
    module, theta, (spectrum, *_), _ = problem
    rows = torch.eye(len(theta), dtype=torch.float64)
    return [
        hessian.hessian_vector_products(Problem(module, *spectrum), theta, rows, part).numpy()
        for part in ("gauss_newton", "hessian")
    ]


def jacobian(problem, number):
    """Jacobian (n, k, D) of the trained network's logits on the set of examples with this number."""
    module, theta, sets, _ = problem
    logits = networks.logits_function(module)
    return torch.func.jacrev(lambda each: logits(each, sets[number].inputs))(theta)


def gradient(problem, number):
    module, theta, sets, _ = problem
    logits, theta = networks.logits_function(module), theta.clone().requires_grad_()
    loss = nn.functional.cross_entropy(logits(theta, sets[number].inputs), sets[number].labels)
    return torch.autograd.grad(loss, theta)[0].numpy()


def top(matrix, count=COUNT):
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return values[::-1][:count], vectors[:, ::-1][:, :count]


def test_eigenvalues_and_eigenspaces(problem, dense):
    found = problem[-1]
    g, h = dense
    (values, ours), (others, theirs) = top(g), top(h)
    assert found["gauss_newton_eigenvalue"] == pytest.approx(values, abs=1e-8 * values[0])
    assert found["hessian_eigenvalue"] == pytest.approx(others, abs=1e-3 * others[0])
    cosine = np.linalg.svd(ours[:, : CLASSES - 1].T @ theirs[:, : CLASSES - 1])[1].min()
    assert found["top_space_cosine"] == pytest.approx(cosine, abs=1e-3)
    ends = np.linalg.eigvalsh(h - g)[[0, -1]]
    assert found["residual_extreme"] == pytest.approx(ends, rel=1e-3)


def test_traces_and_norms(problem, dense):
    found = problem[-1]
    g, h = dense
    assert found["gauss_newton_full_trace"] == pytest.approx(np.trace(g), rel=1e-10)
    assert found["gauss_newton_full_norm"] == pytest.approx(np.linalg.norm(g), rel=1e-10)
    assert found["hessian_full_trace"] == pytest.approx(np.trace(h), rel=0.03)
    assert found["hessian_full_norm"] == pytest.approx(np.linalg.norm(h), rel=0.03)


def test_powers_of_gradients(problem, dense):
    found = problem[-1]["gradient_power"]
    vectors = top(dense[0])[1]
    for number, source in enumerate(("spectrum", "other_batch", "held_out")):
        g = gradient(problem, number)
        expected = np.square(g @ vectors) / (g @ g)
        assert found[local_geometry.SOURCES.index(source)] == pytest.approx(expected, abs=1e-8)
    assert ((found >= 0) & (found <= 1)).all() and (found.sum(1) <= 1 + 1e-9).all()
    assert len(np.unique(found[:, 0])) == len(local_geometry.SOURCES)


def test_the_edge_of_centred_gradients(problem):
    module, theta, (spectrum, *_), found = problem
    j = jacobian(problem, 0)
    rest = j - j.mean(0)
    p = torch.softmax(networks.logits_function(module)(theta, spectrum.inputs), 1)
    curvatures = torch.diag_embed(p) - p[:, :, None] * p[:, None]
    g = torch.einsum("nkd,nkl,nle->de", rest, curvatures, rest) / len(rest)
    assert found["centred_edge"] == pytest.approx(top(g.numpy())[0][0], rel=1e-9)
    whole = torch.einsum("nkd,nkl,nld->n", j, curvatures, j)
    assert found["trace_examples"] == pytest.approx(float(whole.sum() ** 2 / whole.square().sum()), rel=1e-10)


def test_the_random_models_numbers(problem):
    """Measured on a different set of examples than the spectrum."""
    module, theta, (spectrum, *_), found = problem
    j = jacobian(problem, 1)
    means, within = j.mean(0).square().sum(1), j.var(0).sum(1)
    shared = (means - within / len(j)).clamp_min(0).mean() / len(theta)
    assert found["cluster_deviation"] == pytest.approx(float(shared.sqrt()), rel=1e-10)
    assert found["noise_deviation"] == pytest.approx(float((within.mean() / len(theta)).sqrt()), rel=1e-10)
    z = networks.logits_function(module)(theta, spectrum.inputs)
    p = torch.softmax(z, 1)
    assert found["logits_std"] == pytest.approx(float(z.var(1).mean().sqrt()), rel=1e-12)
    assert found["mixing"] == pytest.approx(float(1 - p.square().sum(1).mean()), rel=1e-12)
    assert found["entropy"] == pytest.approx(float(-(p * p.log()).sum(1).mean()), rel=1e-12)
    length = jacobian(problem, 0).square().sum(2).mean().sqrt()
    assert found["gradient_length"] == pytest.approx(float(length), rel=1e-12)


def test_deviations_are_those_of_made_up_gradients():
    """On average over draws, σ_c² and σ_E² have the prescribed values."""
    n, classes, size, cluster, noise = 12, 3, 50, 0.3, 0.7
    found = []
    for number in range(400):
        random = stream("made-up gradients", number)
        c = cluster * random.standard_normal((1, classes, size))
        j = torch.as_tensor(c + noise * random.standard_normal((n, classes, size)))
        each = local_geometry._deviations(logit_gradients.LogitGradients.of_columns(j), size)
        found.append([each["cluster_deviation"] ** 2, each["noise_deviation"] ** 2])
    means, errors = np.mean(found, 0), np.std(found, 0, ddof=1) / np.sqrt(len(found))
    assert (abs(means - [cluster**2, noise**2]) < 3.5 * errors).all()


def test_what_the_random_model_predicts(problem):
    module, theta, (spectrum, *_), found = problem
    p = torch.softmax(networks.logits_function(module)(theta, spectrum.inputs), 1).numpy()
    one_hot = np.eye(CLASSES)[spectrum.labels.numpy()]
    cluster, noise = found["cluster_deviation"], found["noise_deviation"]
    last = local_geometry.RUNGS.index("measured_outputs")
    limit = random_model.limit(p, len(theta), cluster, noise)
    assert found["model_eigenvalue"][last, : CLASSES - 1] == pytest.approx(limit.outliers, rel=1e-12)
    assert np.isnan(found["model_eigenvalue"][:, CLASSES - 1 :]).all()
    assert found["model_edge"][last] == pytest.approx(float(limit.edge), rel=1e-12)
    formula = len(theta) * cluster**2 * (1 - np.square(p).sum(1).mean()) / (CLASSES - 1)
    assert found["formula_outlier"] == pytest.approx(formula, rel=1e-12)
    assert found["formula_kappa"] == pytest.approx(np.sqrt(CLASSES - 1) / found["clustering"][1, 0], rel=1e-12)
    assert found["model_outlier"][last] == pytest.approx(limit.outliers.mean(), rel=1e-12)
    assert found["model_kappa"][last] == pytest.approx(random_model.kappa(p, len(theta), cluster, noise), rel=1e-12)
    assert found["model_power"][last] == pytest.approx(random_model.power_given(p - one_hot, cluster, noise), rel=1e-12)
    assert found["model_power"][:last] == pytest.approx(cluster**2 / (cluster**2 + noise**2), rel=1e-12)
    assert all(found[name].shape == (len(local_geometry.RUNGS),) for name in local_geometry.MODELLED)


@pytest.mark.slow
def test_outputs_of_gaussian_logits_are_alike_on_all_rungs():
    made = random_model.probabilities(5000, 10, 1.7, stream("made-up outputs"))
    mixing = 1 - np.square(made).sum(1).mean()
    numbers = {"cluster_deviation": 0.1, "noise_deviation": 0.1, "logits_std": 1.7, "mixing": mixing}
    labels = random_model.one_hot_labels(made, stream("made-up labels"))
    rungs = local_geometry.modelled(made, labels, 5000, 20, numbers)
    assert rungs["model_outlier"] == pytest.approx(np.full(3, rungs["model_outlier"][0]), rel=0.03)
    assert rungs["model_kappa"] == pytest.approx(np.full(3, rungs["model_kappa"][0]), rel=0.03)
    numbers["mixing"] = 0.95
    assert np.isnan(local_geometry.modelled(made, labels, 5000, 20, numbers)["model_outlier"]).tolist() == [
        False,
        True,
        False,
    ]


def test_cosines_of_inputs_and_what_is_held_out(problem):
    module, theta, (spectrum, _, held_out), found = problem
    units = (spectrum.inputs / spectrum.inputs.norm(dim=1, keepdim=True)).numpy()
    cosines, labels = units @ units.T, spectrum.labels.numpy()
    pairs = ~np.eye(len(labels), dtype=bool)
    of_class = [
        cosines[np.ix_(labels == k, labels == k)][pairs[np.ix_(labels == k, labels == k)]] for k in range(CLASSES)
    ]
    expected = [np.mean([each.mean() for each in of_class]), cosines[pairs].mean()]
    assert found["input_cosine"] == pytest.approx(expected, abs=1e-12)
    z = networks.logits_function(module)(theta, held_out.inputs)
    p = torch.softmax(z, 1)
    assert found["held_out_entropy"] == pytest.approx(float(-(p * p.log()).sum(1).mean()), rel=1e-12)
    assert found["held_out_logits_std"] == pytest.approx(float(z.var(1).mean().sqrt()), rel=1e-12)
    assert local_geometry.outputs(module, theta, held_out.inputs).numpy() == pytest.approx(
        p.detach().numpy(), rel=1e-12
    )


def test_clustering_has_both_sets_of_layers(problem):
    found = problem[-1]["clustering"]
    assert found.shape == (len(local_geometry.PAIRS), len(local_geometry.LAYERS)) and np.isfinite(found).all()
    assert found[0, 0] != found[0, 1]
