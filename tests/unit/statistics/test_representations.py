"""Measures of representations: their closed forms, and cases in which simpler measures fail."""

import itertools

import numpy as np
import pytest
import scipy.stats

from goldilocks_zone.data import worlds
from goldilocks_zone.statistics import representations


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


def random_encoder(x: np.ndarray, seed: int, hidden: int = 64, size: int = 16) -> np.ndarray:
    """Outputs (n, `size`) of an untrained ReLU network with two hidden layers of width `hidden`, for inputs x."""
    random, widths = np.random.default_rng(seed), [x.shape[-1], hidden, hidden, size]
    for number, (i, o) in enumerate(itertools.pairwise(widths)):
        x = x @ random.standard_normal((i, o)) / np.sqrt(i)
        x = np.maximum(x, 0) if number < 2 else x
    return x


def effective_rank(z: np.ndarray) -> float:
    """Effective rank of representations z (n, e): exp of the entropy of their covariance's normalised eigenvalues."""
    values = np.linalg.eigvalsh(np.cov(z.T))
    shares = values / values.sum()
    return float(np.exp(-np.sum(shares * np.log(shares))))


def ring(count: int = 2000):
    return worlds.batch(worlds.Ring(1), [0], 0, count, "evaluation")


def test_probes_solve_the_ridge_problem(random):
    z, targets = random.standard_normal((40, 5)) + 3, random.standard_normal((40, 2))
    centred = z - z[:20].mean(0)
    scaled = centred / np.sqrt(np.mean(centred[:20] ** 2))
    # Ridge is least squares with rows of √penalty more; ⟨⟩ divides by the 20 examples.
    rows = np.vstack([scaled[:20], np.sqrt(20 * 1e-3) * np.eye(5)])
    mean = targets[:20].mean(0)
    weights = np.linalg.lstsq(rows, np.vstack([targets[:20] - mean, np.zeros((5, 2))]), rcond=None)[0]
    predicted, left = representations.probed(z, targets)
    assert np.allclose(predicted, scaled[20:] @ weights + mean, atol=1e-12)
    assert np.array_equal(left, targets[20:])


def test_probes_are_blind_to_shift_rotation_and_scale(random):
    batch = ring(600)
    z, theta = random_encoder(batch.x[0], 0), batch.truth["theta"][0]
    rotation = np.linalg.qr(random.standard_normal((16, 16)))[0]
    usual = representations.r_squared_of_angles(z, theta)
    assert representations.r_squared_of_angles(1e-6 * z @ rotation + 5, theta) == pytest.approx(usual, abs=1e-6)


def test_members_are_measured_apart(random):
    z, angles = random.standard_normal((3, 2, 50, 4)), random.uniform(0, 6, (3, 2, 50))
    labels, energies = random.integers(0, 3, (3, 2, 50)), random.standard_normal((3, 2, 30))
    measures = {
        "angles": (representations.r_squared_of_angles, (z, angles)),
        "accuracy": (lambda *each: representations.accuracy(*each, 3), (z, labels)),
        "auc": (representations.auc, (energies, energies[..., :20] + 0.5)),
        "information": (representations.information, (labels, labels // 2)),
        "dimensions": (representations.dimensions_in_use, (z,)),
        "deviation": (representations.deviation, (z,)),
        "gap": (representations.gap, (energies, energies + 1, z)),
    }
    for name, (measure, arrays) in measures.items():
        found = measure(*arrays)
        assert found.shape == (3, 2), name
        assert np.isclose(found[2, 1], measure(*(each[2, 1] for each in arrays))), name


def test_probes_read_what_is_there(random):
    labels = random.integers(0, 10, 2000)
    assert representations.accuracy(np.eye(10)[labels], labels, 10) == 1
    assert representations.accuracy(random.standard_normal((2000, 10)), labels, 10) == pytest.approx(0.1, abs=0.05)
    targets = random.standard_normal((2000, 2))
    noisy = targets + random.standard_normal((2000, 2))
    # Equal parts of signal and noise: the best linear prediction has half of the variance.
    assert representations.r_squared(noisy, targets) == pytest.approx(0.5, abs=0.05)
    assert representations.r_squared(random.standard_normal((2000, 16)), targets) == pytest.approx(0, abs=0.05)


def test_unexplained_variance_is_one_of_the_mean_and_nothing_of_a_constant(random):
    targets = random.standard_normal((100, 3)) * [1, 5, 0] + 7
    assert representations.unexplained(targets, targets) == 0
    assert representations.unexplained(targets.mean(0) + 0 * targets, targets) == pytest.approx(1)
    assert np.isnan(representations.unexplained(targets, np.ones((100, 3))))


def test_auc_is_that_of_all_pairs(random):
    compatible, incompatible = random.integers(0, 5, 60), random.integers(1, 7, 45)
    higher = incompatible[:, None] > compatible
    equal = incompatible[:, None] == compatible
    assert representations.auc(compatible, incompatible) == pytest.approx(np.mean(higher + equal / 2), abs=1e-12)
    gaussian = random.standard_normal(4000), random.standard_normal(4000) + 1
    assert representations.auc(*gaussian) == pytest.approx(scipy.stats.norm.cdf(1 / np.sqrt(2)), abs=0.02)
    assert np.isnan(representations.auc(np.array([1, np.nan]), np.array([1, 2])))


def test_gap_of_unrelated_embeddings_is_two(random):
    targets = random.standard_normal((4000, 8)) * 3 + 1
    energy = np.sum((targets - np.roll(targets, 1, 0)) ** 2, 1)
    assert representations.gap(np.zeros(4000), energy, targets) == pytest.approx(2, rel=0.05)
    assert np.isnan(representations.gap(energy, energy, np.ones((4000, 8))))


def test_information_of_labellings(random):
    labels = random.integers(0, 4, 8000)
    assert representations.information(labels, labels) == pytest.approx(1)
    assert representations.information(5 - labels, labels) == pytest.approx(1)
    # A code that tells which half has one bit of two.
    assert representations.information(labels // 2, labels) == pytest.approx(0.5, abs=0.01)
    # A channel with error rate .2: one bit less the entropy of the error.
    c = labels % 2
    z = c ^ (random.random(8000) < 0.2)
    exact = 1 + 0.2 * np.log2(0.2) + 0.8 * np.log2(0.8)
    assert representations.information(z, c) == pytest.approx(exact, abs=0.03)
    assert representations.information(np.zeros(8000, int), labels) == 0
    assert np.isnan(representations.information(labels, np.zeros(8000, int)))


def test_dimensions_in_use_are_eigenvalues_above_a_quarter(random):
    deviations = np.array([1, 0.6, 0.51, 0.49, 0.1, 0])
    rotation = np.linalg.qr(random.standard_normal((6, 6)))[0]
    z = random.standard_normal((500, 6))
    # Orthogonal columns of mean 0: the sample's own covariance is exact.
    z = np.linalg.qr(z - z.mean(0))[0] * np.sqrt(499) * deviations
    assert np.allclose(representations.covariance(z @ rotation), np.cov((z @ rotation).T))
    assert representations.dimensions_in_use(z @ rotation) == 3
    assert representations.deviation(z @ rotation) == pytest.approx(np.sqrt(np.mean(deviations**2)), rel=1e-12)


def test_trap_effective_rank_passes_a_collapsed_encoder(random):
    collapsed = 1 + 1e-4 * random.standard_normal((2000, 16))
    assert effective_rank(collapsed) > 15
    assert representations.dimensions_in_use(collapsed) == 0
    assert representations.deviation(collapsed) < 0.05


def test_trap_all_deviations_pass_at_rank_one(random):
    of_rank_one = random.standard_normal((2000, 1)) * random.choice([-1, 1], 16)
    assert (of_rank_one.std(0) > 0.5).all()
    assert representations.dimensions_in_use(of_rank_one) == 1


def test_trap_a_dead_encoder_ties():
    dead = np.zeros(2000)
    # Ranks without ties depend on the order alone; strict comparisons call everything compatible or nothing.
    order = np.concatenate([dead, dead]).argsort(kind="stable").argsort() + 1
    assert (order[2000:].sum() - 2000 * 2001 / 2) / 2000**2 == 1
    assert np.mean(dead[:, None] > dead) == 0
    assert representations.auc(dead, dead) == 0.5
    batch = ring(200)
    constant = np.full((200, 8), 3.0)
    assert representations.r_squared_of_angles(constant, batch.truth["theta"][0]) == pytest.approx(0, abs=0.05)
    assert representations.accuracy(constant, np.arange(200) % 10, 10) == pytest.approx(0.1, abs=0.01)


def test_trap_a_random_encoder_probes_well():
    batch = ring()
    x, theta = batch.x[0], batch.truth["theta"][0]
    scores = [representations.r_squared_of_angles(random_encoder(x, seed), theta) for seed in range(8)]
    # Above any fixed threshold that one would set: only the gain over other random encoders tells of training.
    assert min(scores) > 0.4
    gains = np.subtract(scores[:4], scores[4:])
    assert abs(gains.mean()) < 3 * gains.std(ddof=1)
    trained = random_encoder(x, 0) + 5 * np.cos(theta[:, None] - np.arange(16))
    assert representations.r_squared_of_angles(trained, theta) - max(scores) > 0.1


def test_trap_information_of_many_codes_is_high_by_chance(random):
    codes, labels = random.integers(0, 64, (2, 300)), random.integers(0, 4, (2, 300))
    found = representations.information(codes, labels)
    by_chance = representations.information_by_chance(codes, labels, np.random.default_rng(1), 50)
    assert (found > 0.15).all() and found.shape == by_chance.shape == (2,)
    assert np.allclose(found - by_chance, 0, atol=0.06)
    assert representations.information_by_chance(labels, labels, np.random.default_rng(1)).max() < 0.05


def test_trap_own_errors_do_not_compare_representations(random):
    # A level that has forgotten the target predicts itself perfectly: only a common target tells.
    target = random.standard_normal((2000, 1))
    forgetful, faithful = random.standard_normal((2, 2000, 2))
    faithful[:, :1] = target
    predicted = faithful + 0.3 * random.standard_normal((2000, 2))
    assert representations.unexplained(forgetful, forgetful) < representations.unexplained(predicted, faithful)
    assert representations.r_squared(forgetful, target) < 0.1 < 0.8 < representations.r_squared(predicted, target)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_embeddings_that_are_not_finite_are_not_measured(random, bad):
    z, labels = random.standard_normal((2, 60, 4)).astype(np.float32), random.integers(0, 3, (2, 60))
    z[1, 50, 2] = bad
    for found in (
        representations.r_squared_of_angles(z, labels),
        representations.accuracy(z, labels, 3),
        representations.dimensions_in_use(z),
        representations.deviation(z),
        representations.gap(z[..., 0], z[..., 1], z),
    ):
        assert np.isfinite(found[0]) and np.isnan(found[1])
