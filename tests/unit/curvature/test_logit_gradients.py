"""Logit gradients against the whole Jacobian, and dense eigenvalues, in double precision."""

import numpy as np
import pytest
import torch
from torch import nn

from goldilocks_zone.curvature import hessian, logit_gradient_pairs, logit_gradients
from goldilocks_zone.models import chains, networks
from goldilocks_zone.models.labels import parse_network
from goldilocks_zone.models.loss_factors import SoftmaxFactor
from goldilocks_zone.models.problem import Problem
from goldilocks_zone.randomness import stream

NETWORKS = {
    "fully connected": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(36, 9), nn.ReLU(), nn.Linear(9, 7, bias=False), nn.Tanh(), nn.Linear(7, 4)
    ),
    "convolutional": lambda: nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1, stride=2), nn.ReLU(), nn.Conv2d(3, 2, 2), nn.Flatten(), nn.Linear(8, 4)
    ),
    "residual": lambda: networks.build(parse_network("fc-8x3-relu-res"), (1, 6, 6), 4),
    "no chain": lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.LayerNorm(8), nn.SiLU(), nn.Linear(8, 4)),
}
CHAINS = [name for name in NETWORKS if name != "no chain"]
NETWORKS_AND_ONE = {**NETWORKS, "one layer": lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, 4))}


def problem(name, n=23):
    random = stream("logit gradients", name)
    module = NETWORKS_AND_ONE[name]().double()
    size = sum(each.numel() for each in module.parameters())
    theta = torch.as_tensor(0.4 * random.standard_normal(size))
    inputs = torch.as_tensor(random.standard_normal((n, 1, 6, 6)))
    labels = torch.as_tensor(random.integers(0, 4, n))
    return module, theta, inputs, labels


def jacobian(module, theta, inputs):
    logits = networks.logits_function(module)
    return torch.func.jacrev(lambda each: logits(each, inputs).flatten())(theta)


def whole(gradients, part="whole"):
    """Assemble JᵀJ (n · k, n · k), or another `part` of it, from the blocks of `gradients`.

    Blocks below the diagonal are transposes of those above it.
    """
    n, k = gradients.examples, gradients.classes
    found = torch.full((n, k, n, k), torch.nan, dtype=torch.float64)
    for block in gradients.blocks():
        rows = getattr(block, part)
        found[block.first : block.first + len(rows), :, block.first :] = rows
        found[block.first :, :, block.first : block.first + len(rows)] = rows.permute(2, 3, 0, 1)
    return found.flatten(2).flatten(0, 1).numpy()


@pytest.fixture(params=["at once", "in pieces"])
def pieces(request, monkeypatch):
    if request.param == "in pieces":
        monkeypatch.setattr(logit_gradients, "EXAMPLES_AT_ONCE", 5)
        monkeypatch.setattr(logit_gradients, "ENTRIES_AT_ONCE", 4 * 4 * 23 * 3)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_gram_matrix_is_that_of_the_jacobian(name, pieces):
    module, theta, inputs, _ = problem(name)
    assert (chains.of(module) is None) == (name == "no chain")
    j = jacobian(module, theta, inputs)
    expected = (j @ j.T).numpy()
    found = logit_gradients.of(Problem(module, inputs), theta)
    close = {"rel": 1e-10, "abs": 1e-10 * expected.max()}
    assert whole(found) == pytest.approx(expected, **close)
    own = expected.reshape(23, 4, 23, 4)[np.arange(23), :, np.arange(23)]
    assert found.own().numpy() == pytest.approx(own, **close)
    rows = stream("rows", name).standard_normal((3, 23, 4))
    products = found.multiplied(torch.as_tensor(rows)).numpy().reshape(3, -1)
    assert products == pytest.approx(rows.reshape(3, -1) @ expected, rel=1e-10, abs=1e-9 * expected.max())


@pytest.mark.parametrize("name", CHAINS)
def test_the_last_layers_gradients_can_be_left_out(name):
    module, theta, inputs, _ = problem(name)
    last = [each for each in module.modules() if isinstance(each, nn.Linear)][-1]
    count = sum(each.numel() for each in last.parameters())
    j = jacobian(module, theta, inputs)[:, :-count]
    expected = (j @ j.T).numpy()
    found = logit_gradients.of(Problem(module, inputs), theta)
    close = {"rel": 1e-10, "abs": 1e-10 * expected.max()}
    assert whole(found, "inner") == pytest.approx(expected, **close)
    own = expected.reshape(23, 4, 23, 4)[np.arange(23), :, np.arange(23)]
    assert found.own(without_last=True).numpy() == pytest.approx(own, **close)


@pytest.mark.parametrize("name", ["no chain", "one layer"])
def test_a_last_layer_that_cannot_be_left_out_is_refused(name):
    module, theta, inputs, labels = problem(name)
    with pytest.raises(ValueError, match="the last layer cannot be left out of these gradients"):
        logit_gradient_pairs.clustering(logit_gradients.of(Problem(module, inputs), theta), labels, without_last=True)


@pytest.mark.parametrize("without_last", [False, True])
def test_clustering_is_that_of_all_pairs(without_last, pieces):
    module, theta, inputs, labels = problem("fully connected")
    last = [each for each in module.modules() if isinstance(each, nn.Linear)][-1]
    kept = len(theta) - without_last * sum(each.numel() for each in last.parameters())
    j = jacobian(module, theta, inputs)[:, :kept].view(len(inputs), 4, -1)
    unit = torch.nn.functional.normalize(j, dim=2, eps=1e-300).numpy()
    n, y = len(inputs), labels.numpy()
    pairs = [(a, b) for a in range(n) for b in range(n) if a != b]
    cosine = {(a, k, b, m): unit[a, k] @ unit[b, m] for a, b in pairs for k in range(4) for m in range(4)}
    of_class = [[cosine[a, k, b, k] for a, b in pairs if y[a] == y[b] == k] for k in range(4)]
    other = [cosine[a, k, b, m] for a, b in pairs for k in range(4) for m in range(4) if k != m]
    gradients = logit_gradients.of(Problem(module, inputs), theta)
    found = logit_gradient_pairs.clustering(gradients, labels, without_last=without_last)
    assert found.same_logit_same_class == pytest.approx(
        np.mean([np.mean(each) for each in of_class if each]), abs=1e-10
    )
    same = [cosine[a, k, b, k] for a, b in pairs for k in range(4)]
    assert found.same_logit == pytest.approx(np.mean(same), abs=1e-10)
    assert found.other_logit == pytest.approx(np.mean(other), abs=1e-10)
    assert found.other_logit_absolute == pytest.approx(np.mean(np.abs(other)), abs=1e-10)


@pytest.mark.parametrize("name", NETWORKS)
def test_one_pass_over_all_pairs_gives_both_clusterings_and_the_norm(name, pieces):
    module, theta, inputs, labels = problem(name)
    gradients = logit_gradients.of(Problem(module, inputs), theta)
    factor = Problem(module, inputs).loss.factor(networks.logits_function(module)(theta, inputs), labels)
    found = logit_gradient_pairs.measure(gradients, labels, factor)
    assert found.clustering == logit_gradient_pairs.clustering(gradients, labels)
    assert found.frobenius_norm == logit_gradient_pairs.frobenius_norm(gradients, factor)
    if gradients.layered:
        assert found.without_last == logit_gradient_pairs.clustering(gradients, labels, without_last=True)
    else:
        assert found.without_last is None


def test_permuted_classes_cluster_as_any_examples_do():
    module, theta, inputs, labels = problem("fully connected")
    gradients = logit_gradients.of(Problem(module, inputs), theta)
    labels = torch.arange(len(inputs)) % 4
    permuted = [
        logit_gradient_pairs.clustering(gradients, labels[stream("permuted", i).permutation(len(labels))])
        for i in range(200)
    ]
    values = np.array([each.same_logit_same_class for each in permuted])
    error = values.std(ddof=1) / np.sqrt(len(values))
    assert abs(values.mean() - permuted[0].same_logit) < 3.5 * error


def test_gradients_that_vanish_have_no_angle():
    gradients = logit_gradients.LogitGradients.of_columns(torch.zeros(6, 2, 5, dtype=torch.float64))
    found = logit_gradient_pairs.clustering(gradients, torch.arange(6) % 2)
    assert found.same_logit == found.other_logit == found.same_logit_same_class == 0


@pytest.mark.parametrize("name", ["fully connected", "convolutional"])
def test_the_spectrum_of_centred_gradients_is_the_dense_one(name):
    module, theta, inputs, _ = problem(name)
    j = jacobian(module, theta, inputs).view(len(inputs), 4, -1)
    rest = j - j.mean(0)
    p = torch.softmax(networks.logits_function(module)(theta, inputs), 1)
    curvatures = torch.diag_embed(p) - p[:, :, None] * p[:, None]
    dense = torch.einsum("nkd,nkl,nle->de", rest, curvatures, rest) / len(rest)
    values = np.linalg.eigvalsh(dense.numpy())[::-1]
    found = logit_gradients.gauss_newton(
        logit_gradients.of(Problem(module, inputs), theta), SoftmaxFactor(p), 5, centred=True
    )
    assert found.eigenvalues == pytest.approx(values[:5], abs=1e-9 * values[0])


@pytest.mark.parametrize("name", NETWORKS)
def test_the_spectrum_of_the_gauss_newton_part_is_the_dense_one(name, pieces):
    module, theta, inputs, labels = problem(name)
    logits = networks.logits_function(module)
    rows = torch.eye(len(theta), dtype=torch.float64)
    dense = hessian.hessian_vector_products(Problem(module, inputs, labels), theta, rows, part="gauss_newton").numpy()
    values, vectors = np.linalg.eigh((dense + dense.T) / 2)
    values, vectors = values[::-1], vectors[:, ::-1]
    outputs = logits(theta, inputs)
    factor = Problem(module, inputs).loss.factor(outputs, labels)
    gradients = logit_gradients.of(Problem(module, inputs), theta)
    found = logit_gradients.gauss_newton(gradients, factor, 6)
    assert found.eigenvalues == pytest.approx(values[:6], abs=1e-8 * values[0])
    assert logit_gradients.traces(gradients.own(), factor).mean() == pytest.approx(np.trace(dense), rel=1e-10)
    norm = logit_gradient_pairs.frobenius_norm(gradients, factor)
    assert norm == pytest.approx(np.linalg.norm(dense), rel=1e-10)
    u = logit_gradients.pulled(Problem(module, inputs), theta, found.cotangents).numpy().T
    assert u.T @ u == pytest.approx(np.eye(6), abs=1e-8)
    assert np.linalg.norm(dense @ u - u * found.eigenvalues, axis=0).max() < 1e-8 * values[0]
    # The same subspace, whatever the signs.
    assert np.linalg.svd(u.T @ vectors[:, :6])[1].min() > 1 - 1e-6


@pytest.mark.parametrize("name", NETWORKS)
def test_pushed_and_pulled_are_products_with_the_jacobian(name):
    module, theta, inputs, _ = problem(name)
    j = jacobian(module, theta, inputs)
    random = stream("directions", name)
    directions = torch.as_tensor(random.standard_normal((2, len(theta))))
    cotangents = torch.as_tensor(random.standard_normal((3, len(inputs), 4)))
    assert logit_gradients.pushed(Problem(module, inputs), theta, directions).flatten(1).numpy() == pytest.approx(
        (directions @ j.T).numpy(), rel=1e-10, abs=1e-10
    )
    assert logit_gradients.pulled(Problem(module, inputs), theta, cotangents).numpy() == pytest.approx(
        (cotangents.flatten(1) @ j).numpy(), rel=1e-10, abs=1e-10
    )


def test_more_eigenvalues_than_there_are_are_refused():
    # Along one direction alone.
    gradients = logit_gradients.LogitGradients.of_columns(torch.arange(8.0, dtype=torch.float64).view(4, 2, 1))
    outputs = torch.full((4, 2), 0.5, dtype=torch.float64)
    with pytest.raises(logit_gradients.TooFewEigenvalues, match="G has fewer than 2 eigenvalues that are not zero"):
        logit_gradients.gauss_newton(gradients, SoftmaxFactor(outputs), 2)
