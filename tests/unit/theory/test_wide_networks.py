"""Closed forms of wide networks against random networks, direct minimisation, and their own limits."""

import itertools

import numpy as np
import pytest
import scipy.optimize

from goldilocks_zone.theory import wide_networks
from goldilocks_zone.theory.wide_networks import Criteria, LayerWeights, Moments

COSINES = np.array([-0.9, -0.3, 0.0, 0.4, 0.8, 0.99])


def random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def test_kernels_are_moments_of_relu():
    first, other = random(2, 1_000_000)
    for u in COSINES:
        second = u * first + np.sqrt(1 - u**2) * other
        positive = 2 * np.mean((first > 0) & (second > 0))
        product = 2 * np.mean(np.maximum(first, 0) * np.maximum(second, 0))
        # Means of 1e6 draws of deviation about 1 and 2.
        assert wide_networks.kappa_0(u) == pytest.approx(positive, abs=5e-3)
        assert wide_networks.kappa_1(u) == pytest.approx(product, abs=1e-2)


def test_kernels_at_their_ends_and_slopes():
    ends = np.array([-1.0, 0.0, 1.0])
    np.testing.assert_allclose(wide_networks.kappa_0(ends), [0, 0.5, 1], atol=1e-15)
    np.testing.assert_allclose(wide_networks.kappa_1(ends), [0, 1 / np.pi, 1], atol=1e-15)
    step = 1e-5
    slopes = (wide_networks.kappa_1(COSINES + step) - wide_networks.kappa_1(COSINES - step)) / (2 * step)
    np.testing.assert_allclose(slopes, wide_networks.kappa_0(COSINES), rtol=1e-6)


def layer_products(width, depth, x, y, seed):
    """σ_l² times inner products of an output's derivatives by each layer's weights, at two inputs x and y.

    Returns (`depth`, 2, 2), for all pairs of the two inputs. The weights are those of one random network.
    """
    rng = np.random.default_rng(seed)
    sizes = [x.size, *[width] * (depth - 1), 1]
    weights = [rng.standard_normal((o, i)) * np.sqrt(2 / i) for i, o in itertools.pairwise(sizes)]
    inputs, masks = [np.stack([x, y])], []
    for weight in weights[:-1]:
        z = inputs[-1] @ weight.T
        masks.append(z > 0)
        inputs.append(np.maximum(z, 0))
    adjoint, found = np.ones((2, 1)), []
    for number in range(depth - 1, -1, -1):
        found.append(2 / sizes[number] * (inputs[number] @ inputs[number].T) * (adjoint @ adjoint.T))
        if number:
            adjoint = (adjoint @ weights[number]) * masks[number - 1]
    return np.stack(found[::-1])


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_layer_kernels_are_those_of_wide_networks(depth):
    x, noise = random(2, 6)
    y = 0.7 * x + 0.6 * noise
    drawn = [layer_products(800, depth, x, y, seed) for seed in range(60)]
    mean, error = np.mean(drawn, 0), np.std(drawn, 0) / np.sqrt(len(drawn))
    scale = 2 / x.size
    for i, first in enumerate((x, y)):
        for j, second in enumerate((x, y)):
            expected = scale * wide_networks.layer_kernels(first, second, depth)
            assert (error[:, i, j] < 0.05 * abs(mean[:, i, j])).all()
            # Five standard errors, and the corrections of finite width, which are of order depth/width.
            assert (abs(mean[:, i, j] - expected) < 5 * error[:, i, j] + 2 * depth / 800 * abs(expected)).all()


def test_layers_of_equal_inputs_are_alike_and_of_zero_ones_vanish():
    x = random(5, 6)
    np.testing.assert_allclose(wide_networks.layer_kernels(x, x, 4), np.tile((x**2).sum(1), (4, 1)), rtol=1e-7)
    assert (wide_networks.layer_kernels(x, 0 * x, 3) == 0).all()


def test_ratios_of_close_views_exceed_one_and_fall_with_the_layer():
    """Lower layers add kinks: near u = 1, where κ₀ falls as √(1 − u), these matter more the deeper they act."""
    x = random(50, 30)
    for apart in (0.02, 0.1, 0.5):
        found = wide_networks.ratios_of_invariance(x, x + apart * random(50, 30, seed=1), 4)
        assert found[-1] == 1 and (np.diff(found) < 0).all()
    nearer, farther = (wide_networks.ratios_of_invariance(x, x + a * random(50, 30, seed=1), 3)[0] for a in (0.02, 0.1))
    assert nearer > farther


def test_ratios_of_the_variance_are_those_of_all_pairs():
    x, y = random(2, 8, 5)
    every = [(branch[i], branch[j]) for branch in (x, y) for i in range(8) for j in range(8) if i != j]
    first, second = (np.stack(each) for each in zip(*every))
    expected = wide_networks.apart(first, second, 3)
    np.testing.assert_allclose(wide_networks.ratios_of_variance([x, y], 3), expected / expected[-1])


def moments(seed=0):
    variances = 0.3 + np.random.default_rng(seed).random(8)
    return Moments(0.2, 0.4, variances)


WEIGHTS = LayerWeights(1.4, 1.1, 1.2)


@pytest.mark.parametrize(
    "criteria", [Criteria(25, 5), Criteria(25, 5, 1), Criteria(25, 20, 1), Criteria(1, 0.1, 0, 1e-3)]
)
def test_edge_balances_the_terms(criteria):
    for depth in (2, 3):
        alpha = wide_networks.edge(criteria, moments(), WEIGHTS, depth)
        ends = alpha ** (2 * depth) * np.array([1 - 1e-6, 1 + 1e-6])
        below, above = wide_networks.balance(criteria, moments(), WEIGHTS, ends)
        assert below < 0 <= above


def test_edge_of_equal_dimensions_without_epsilon():
    ratio, correlation, spread = 0.5, 0.8, 0.04
    same = Moments(2 * (1 - correlation) * spread, 0.0, np.full(6, spread))
    alpha = wide_networks.edge(Criteria(1, ratio, 0, 1e-12), same, LayerWeights(1.5, 1.2), 3)
    deviation = ratio / (4 * (1 - correlation))  # where √ε ≪ σ < 1 and layers have equal weights in the trace
    assert alpha**3 * np.sqrt(spread) == pytest.approx(deviation * 1.2 / 1.5, rel=1e-6)


def test_edge_never_lies_beyond_the_last_hinge_and_may_be_absent():
    many = moments()
    alpha = wide_networks.edge(Criteria(1, 1e6), many, WEIGHTS, 3)
    assert alpha**3 * np.sqrt(many.variances.min()) == pytest.approx(1, rel=1e-3)
    assert np.isnan(wide_networks.edge(Criteria(1, 1e-6), many, WEIGHTS, 3))
    assert np.isnan(wide_networks.edge(Criteria(1, 1), Moments(0.0, 0.0, np.zeros(8)), WEIGHTS, 3))


def test_edge_follows_the_gauge():
    criteria, scale = Criteria(25, 20, 1), 1.6
    for depth in (2, 3):
        here = wide_networks.edge(criteria, moments(), WEIGHTS, depth)
        there = wide_networks.edge(criteria.gauged(scale, depth), moments(), WEIGHTS, depth)
        assert there == pytest.approx(scale * here, rel=1e-9)


@pytest.mark.parametrize("epsilon", [1e-4, 1e-2])
@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
def test_final_deviation_minimises_the_loss_of_one_dimension(correlation, epsilon):
    threshold = wide_networks.collapse_threshold(correlation, epsilon)
    for multiple in (0.5, 0.8, 1.25, 4, 32, 400):
        ratio = multiple * threshold

        def loss(sigma, ratio=ratio):
            return 2 * (1 - correlation) * sigma**2 + ratio * max(0, 1 - np.sqrt(sigma**2 + epsilon))

        grid = np.linspace(0, 1.2, 2401)
        start = grid[np.argmin([loss(each) for each in grid])]
        bounds = (max(start - 1e-3, 0), start + 1e-3)
        best = scipy.optimize.minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-9}).x
        expected = wide_networks.final_deviation(ratio, correlation, epsilon)
        assert expected == pytest.approx(best, abs=1e-5)
        assert (expected == 0) == (multiple < 1)
        # In another gauge of the outputs, the same σ in their unit.
        there = wide_networks.final_deviation(0.1 * ratio, correlation, 0.01 * epsilon, hinge=0.1)
        assert there == pytest.approx(0.1 * expected, rel=1e-12)


def test_collapse_hessians_are_second_differences():
    h, other = np.maximum(random(2, 40, 5), 0)
    first, second = h, 0.6 * h + 0.4 * other
    criteria, size, w, step = Criteria(2.0, 3.0), 4, random(5, seed=3), 1e-4

    def vicreg(row):
        a, b = first @ row, second @ row
        spread = sum(np.sqrt(each.var(ddof=1) + criteria.epsilon) for each in (a, b)) / (2 * size)
        return criteria.invariance * np.mean((a - b) ** 2) / size - criteria.variance * spread

    def info_nce(row):
        logits = np.outer(first @ row, second @ row) / 0.7
        return np.mean(np.log(np.exp(logits).sum(1)) - np.diag(logits))

    cases = [
        (vicreg, wide_networks.collapse_hessian(criteria, first, second, size)),
        (info_nce, wide_networks.collapse_hessian_of_products(first, second, 0.7)),
    ]
    for loss, expected in cases:
        difference = (loss(step * w) - 2 * loss(0 * w) + loss(-step * w)) / step**2
        # The next order is step² times a fourth derivative over ε.
        assert w @ expected @ w == pytest.approx(difference, rel=2e-3)
