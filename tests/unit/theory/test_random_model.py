"""The random model, against explicit arrays of size D, its limits, and its closed forms."""

import itertools
import tracemalloc

import numpy as np
import pytest

from goldilocks_zone.randomness import stream
from goldilocks_zone.theory import random_model
from oracles import random_model as sampled

SAMPLES, ERRORS = 20, 3.5
SIZES = [(60, 5, 2000), pytest.param(100, 10, 3000, marks=pytest.mark.slow)]


def uniform(n, classes):
    return np.full((n, classes), 1 / classes)


def samples(n, classes, weights, cluster, noise, count, name, outputs=None, labels="independent"):
    """Draw SAMPLES independent samples of the random model with `count` eigenvalues, at uniform p without `outputs`.

    `name` is part of the names of their random streams.
    """
    found = []
    for number in range(SAMPLES):
        random = stream("test of the random model", name, number)
        p = uniform(n, classes) if outputs is None else outputs
        residuals = p - sampled.one_hot_labels(p, labels, random)
        draw = sampled.Draw.at_random(p, weights, cluster, noise, random)
        found.append(sampled.sample(draw, residuals, count, random))
    return found


def holds(values, expected):
    """Whether the mean of independent `values` lies within ERRORS standard errors of `expected`."""
    values = np.asarray(values)
    return abs(values.mean() - expected) < ERRORS * values.std(ddof=1) / np.sqrt(len(values))


def explicit(draw):
    """Jacobian J (D, n · k) of a draw as a dense array, without its component along (1, …, 1).

    The space of weights has a random orthonormal basis.
    """
    n, classes = draw.outputs.shape
    basis = np.linalg.qr(stream("a basis").standard_normal((draw.weights, draw.factor.shape[1])))[0]
    columns = (basis @ draw.factor.dense().T).reshape(draw.weights, n + 1, classes - 1)
    inside = draw.cluster * columns[:, :1] + draw.noise * columns[:, 1:]
    return (inside @ draw.across.T).reshape(draw.weights, n * classes)


@pytest.mark.parametrize("weights", [400, 30])
@pytest.mark.parametrize("rows", [1000, 7])
def test_a_sample_is_that_of_explicit_arrays(weights, rows, monkeypatch):
    """Covers more weights than columns and fewer, and one block of rows and several."""
    monkeypatch.setattr(sampled, "ROWS_PER_BLOCK", rows)
    n, classes, random = 12, 4, stream("explicit", weights)
    p = random_model.probabilities(n, classes, 1.5, random)
    residuals = p - sampled.one_hot_labels(p, "independent", random)
    draw = sampled.Draw.at_random(p, weights, 0.3, 0.7, random)
    found = sampled.sample(draw, residuals, 8, random)
    j = explicit(draw)
    parts = np.zeros((n * classes, n * classes))
    for i, part in enumerate(random_model.curvatures(p)):
        parts[i * classes : (i + 1) * classes, i * classes : (i + 1) * classes] = part
    g = j @ parts @ j.T / n
    values, vectors = np.linalg.eigh(g)
    values, vectors = values[::-1], vectors[:, ::-1]
    gradient = j @ residuals.ravel() / n
    assert found.eigenvalues == pytest.approx(values[:8], rel=1e-10)
    assert found.powers == pytest.approx(np.square(gradient @ vectors[:, :8]) / (gradient @ gradient), abs=1e-9)
    assert found.gradient_norm == pytest.approx(np.linalg.norm(gradient), rel=1e-12)
    assert found.trace == pytest.approx(np.trace(g), rel=1e-12)


@pytest.mark.parametrize("weights", [200, 9])
def test_the_factor_is_distributed_as_the_products_of_columns(weights):
    """Moments of B Bᵀ: mean D I, variance D off the diagonal and 2 D on it; and a moment of third order."""
    size, draws = 15, 2000
    grams = np.empty((draws, size, size))
    for number in range(draws):
        b = sampled.Factor(size, weights, stream("bartlett", weights, number)).dense()
        assert np.array_equal(b, np.tril(b))
        grams[number] = b @ b.T
    off = grams[:, *np.triu_indices(size, 1)]
    assert holds(np.trace(grams, axis1=1, axis2=2), size * weights)
    assert holds(off.mean(1), 0)
    assert holds(np.square(off).mean(1), weights)
    assert holds(np.square(np.diagonal(grams, axis1=1, axis2=2) - weights).mean(1), 2 * weights)
    triples = [grams[:, i, j] * grams[:, j, k] * grams[:, k, i] for i, j, k in itertools.combinations(range(size), 3)]
    assert holds(np.mean(triples, axis=0), weights)
    assert np.linalg.matrix_rank(grams[0]) == min(size, weights)


@pytest.mark.parametrize("n, classes, weights", SIZES)
def test_the_largest_eigenvalue_of_noise_lies_at_the_shifted_edge(n, classes, weights):
    found = [each.eigenvalues[0] for each in samples(n, classes, weights, 0.0, 0.5, 1, "noise")]
    assert holds(found, sampled.largest_of_bulk(n, classes, weights, 0.5))
    assert sampled.largest_of_bulk(n, classes, weights, 0.5) < sampled.bulk_edge(n, classes, weights, 0.5)


@pytest.mark.parametrize("n, classes, weights", SIZES)
def test_the_mean_outlier_and_the_gap_behind_the_last(n, classes, weights):
    noise = 0.5
    cluster = noise * np.sqrt(4 * sampled.threshold(n, classes, weights))
    found = samples(n, classes, weights, cluster, noise, 2 * classes, "spikes")
    spikes = np.array([each.eigenvalues for each in found])
    assert holds(spikes[:, : classes - 1].mean(1), sampled.mean_outlier(n, classes, weights, cluster, noise))
    gaps = np.diff(np.log(spikes.mean(0)))
    assert gaps.argmin() == classes - 2


@pytest.mark.parametrize("n, classes, weights", SIZES)
def test_outliers_separate_at_the_threshold(n, classes, weights):
    """The last of the C − 1 spikes is within the bulk below the threshold, and outside of it above."""
    noise, edge = 1.0, sampled.bulk_edge(n, classes, weights, 1.0)
    scale = edge - sampled.largest_of_bulk(n, classes, weights, 1.0)
    last = {}
    for factor in (0.25, 4.0):
        cluster = noise * np.sqrt(factor * sampled.threshold(n, classes, weights))
        found = samples(n, classes, weights, cluster, noise, classes - 1, f"at {factor}")
        last[factor] = np.array([each.eigenvalues[-1] for each in found])
        limit = random_model.limit(uniform(n, classes), weights, cluster, noise)
        assert np.isnan(limit.outliers).all() == (factor < 1)
        assert limit.edge == pytest.approx(edge, rel=1e-9)
        if factor > 1:
            mean = sampled.mean_outlier(n, classes, weights, cluster, noise)
            assert limit.outliers == pytest.approx(mean, rel=1e-9)
    assert last[0.25].mean() < edge and last[4.0].min() > edge + scale


@pytest.mark.parametrize("labels", ["independent", "balanced", "from_model"])
def test_the_gradients_power_in_the_clusters_space(labels):
    """Measured in the space that the draw's own c spans, as in the closed form."""
    n, classes, weights, cluster, noise = 60, 5, 20_000, 0.1, 1.0
    shares, expected = [], []
    for number in range(SAMPLES * 10):
        random = stream("powers", number)
        p = random_model.probabilities(n, classes, 1.5, random)
        residuals = p - sampled.one_hot_labels(p, labels, random)
        draw = sampled.Draw.at_random(p, weights, cluster, noise, random)
        basis = np.linalg.qr(draw.factor.dense()[: classes - 1].T)[0]
        gradient = draw.gradient(residuals)
        shares.append([np.square(gradient @ basis).sum(), gradient @ gradient])
        expected.append(sampled.power(p, cluster, noise, residuals, labels))
    inside, whole = np.mean(shares, 0)
    # A share of noise, (C − 1)/D of it, lies in any space of C − 1 dimensions.
    ratio = inside / whole
    spread = np.std([a / b for a, b in shares], ddof=1) / np.sqrt(len(shares))
    assert abs(ratio - np.mean(expected)) < ERRORS * spread + (classes - 1) / weights


@pytest.mark.parametrize("labels", ["independent", "balanced", "from_model"])
def test_the_power_at_given_residuals_averages_to_that_over_labels(labels):
    n, classes = 200, 5
    differences = []
    for number in range(400):
        random = stream("given", number)
        p = random_model.probabilities(n, classes, 1.2, random)
        residuals = p - sampled.one_hot_labels(p, labels, random)
        # With little in the clusters' space the share is proportional to what lies there.
        differences.append(
            random_model.power_given(residuals, 1e-3, 1.0) / sampled.power(p, 1e-3, 1.0, residuals, labels) - 1
        )
    assert holds(differences, 0)
    assert random_model.power_given(np.array([[0.5, -0.5]] * 9), 2.0, 3.0) == pytest.approx(4 * 9 / (4 * 9 + 9))


@pytest.mark.parametrize("labels", ["independent", "balanced"])
def test_powers_of_samples_follow_the_clusters(labels):
    """Far above the threshold, the top eigenspace is that of the clusters; noise adds its share in that space."""
    n, classes, weights = 60, 5, 3000
    differences, shares = [], []
    for number in range(5 * SAMPLES):
        random = stream("powers of samples", number)
        p = random_model.probabilities(n, classes, 1.0, random)
        residuals = p - sampled.one_hot_labels(p, labels, random)
        found = sampled.sample(sampled.Draw.at_random(p, weights, 1.0, 1.0, random), residuals, classes - 1, random)
        expected = sampled.power(p, 1.0, 1.0, residuals, labels)
        differences.append((found.powers.sum() - expected) * found.gradient_norm**2)
        shares.append(found.powers.sum())
    assert holds(differences, 0)
    assert np.mean(shares) == pytest.approx(0.45 if labels == "independent" else 0.17, abs=0.1)


@pytest.mark.parametrize("spread", [1.0, 3.0])
def test_outliers_at_any_probabilities(spread):
    n, classes, weights, noise = 150, 5, 4000, 1.0
    p = random_model.probabilities(n, classes, spread, stream("outputs", spread))
    cluster = noise * np.sqrt(12 * sampled.threshold(n, classes, weights))
    limit = random_model.limit(p, weights, cluster, noise)
    found = np.array([each.eigenvalues for each in samples(n, classes, weights, cluster, noise, classes, "any", p)])
    assert np.isfinite(limit.outliers).all()
    assert holds(found[:, : classes - 1].mean(1), limit.outliers.mean())
    assert found[:, -1].mean() == pytest.approx(limit.edge, rel=0.05)


def test_limits_are_vectorised_over_parameters():
    random = stream("many")
    outputs = np.stack([random_model.probabilities(30, 4, spread, random) for spread in (0.5, 2.0)])
    cluster, noise = np.array([0.5, 0.7]), np.array([0.1, 0.3])
    together = random_model.limit(outputs, 500, cluster, noise)
    kappas = random_model.kappa(outputs, 500, cluster, noise)
    for i in range(2):
        alone = random_model.limit(outputs[i], 500, cluster[i], noise[i])
        assert together.edge[i] == pytest.approx(alone.edge, rel=1e-12)
        assert together.outliers[i] == pytest.approx(alone.outliers, rel=1e-12)
        assert kappas[i] == pytest.approx(random_model.kappa(outputs[i], 500, cluster[i], noise[i]), rel=1e-12)


def test_without_noise_the_outliers_are_those_of_the_mean_curvature():
    p = random_model.probabilities(40, 4, 1.0, stream("noiseless"))
    limit = random_model.limit(p, 1000, 0.5, 0.0)
    expected = 1000 * 0.25 * np.linalg.eigvalsh(random_model.curvatures(p).mean(0))[:0:-1]
    assert limit.outliers == pytest.approx(expected, rel=1e-9) and limit.edge == pytest.approx(0, abs=1e-12)


def test_kappa_from_moments():
    n, classes, weights, cluster, noise = 20, 4, 300, 0.4, 0.8
    p = random_model.probabilities(n, classes, 1.2, stream("moments"))
    parts = np.kron(np.eye(n), np.ones((classes, classes))) * np.tile(np.concatenate(random_model.curvatures(p)), n)
    traces, squares = [], []
    for number in range(400):
        j = explicit_products(p, weights, cluster, noise, number)
        g = parts @ j / n
        traces.append(np.trace(g))
        squares.append(np.trace(g @ g))
    kappa = np.mean(traces) / np.sqrt(np.mean(squares))
    assert random_model.kappa(p, weights, cluster, noise) == pytest.approx(kappa, rel=0.01)


def test_kappa_of_nearly_saturated_outputs():
    """The ratio is unchanged by saturation of the softmax until nothing of it is left."""
    found = []
    for rest in (1e-20, 1e-160, 1e-290):
        p = np.array([[1.0, 0, 0], [1, rest, 0], [0, 1, 0.1 * rest]])
        found.append(random_model.kappa(p, 50, 0.5, 1.0))
    assert found[0] > 1 and found == pytest.approx([found[0]] * 3, rel=1e-12)
    with np.errstate(invalid="ignore"):
        assert np.isnan(random_model.kappa(np.eye(3), 50, 0.5, 1.0))


def explicit_products(p, weights, cluster, noise, number):
    """Draw J at outputs p (n, k) by the definition of the model, and return JᵀJ (n · k, n · k)."""
    n, classes = p.shape
    random = stream("explicit products", number)
    j = noise * random.standard_normal((weights, n, classes)) + cluster * random.standard_normal((weights, 1, classes))
    j = j.reshape(weights, -1)
    return j.T @ j


@pytest.mark.parametrize("spread", [0.1, 1.0, 5.0])
def test_the_spread_that_matches_is_the_one_that_was_put_in(spread):
    mixing = 1 - np.square(random_model.probabilities(200_000, 10, spread, stream("mixing"))).sum(1).mean()
    assert random_model.matching_spread(mixing, 10, stream("matched")) == pytest.approx(spread, rel=0.02)


def test_a_spread_that_no_logits_have_is_refused():
    for mixing in (0.95, 0.0):
        with pytest.raises(ValueError, match=r"logits of 10 classes cannot have .*: give a value from 0 to 0.9"):
            random_model.matching_spread(mixing, 10, stream("x"))


def test_labels_of_every_kind():
    p = random_model.probabilities(3000, 3, 2.0, stream("outputs"))
    balanced = sampled.one_hot_labels(p, "balanced", stream("a"))
    assert balanced.sum(0).tolist() == [1000] * 3
    drawn = sampled.one_hot_labels(p, "from_model", stream("b"))
    assert (drawn.sum(1) == 1).all() and abs((drawn - p).mean(0)).max() < 0.03
    assert abs((drawn * p).sum(1).mean() - np.square(p).sum(1).mean()) < 0.03
    with pytest.raises(ValueError, match="3001 examples cannot be shared evenly by 3 classes"):
        sampled.one_hot_labels(np.full((3001, 3), 1 / 3), "balanced", stream("c"))
    with pytest.raises(ValueError, match="labels 'odd' are unknown"):
        sampled.one_hot_labels(p, "odd", stream("c"))


@pytest.mark.weekly
def test_two_thousand_examples_in_a_minute_and_three_gibibytes():
    import time

    n, classes, weights = 2000, 10, 200_000
    random, start = stream("large"), time.process_time()
    tracemalloc.start()
    p = random_model.probabilities(n, classes, 1.0, random)
    residuals = p - sampled.one_hot_labels(p, "balanced", random)
    draw = sampled.Draw.at_random(p, weights, 0.3, 1.0, random, np.float32)
    found = sampled.sample(draw, residuals, 3 * classes, random)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # On two cores: seconds of processors.
    assert (time.process_time() - start) / 2 < 60
    assert peak < 3 * 2**30
    limit = random_model.limit(p, weights, 0.3, 1.0)
    assert found.eigenvalues[: classes - 1].mean() == pytest.approx(limit.outliers.mean(), rel=0.02)
    assert found.eigenvalues[classes - 1] == pytest.approx(float(limit.edge), rel=0.02)
    assert (found.eigenvalues[classes - 1 :] > 0.85 * limit.edge).all()


@pytest.mark.parametrize("spread", [1e3, 1e300])
def test_limits_of_saturated_outputs(spread):
    """G is small if the softmax is saturated on most examples, and vanishes if it is saturated on all."""
    p = random_model.probabilities(30, 4, spread, stream("saturated"))
    if spread == 1e300:
        p = np.round(p)
    limit = random_model.limit(p, 500, 0.5, 0.1)
    assert np.isfinite(limit.edge) and limit.outliers.shape == (3,)
    if spread == 1e300:
        assert limit.edge == 0 and np.isnan(limit.outliers).all()
    tiny = random_model.limit(np.array([[1 - 1e-310, 1e-310]] * 3), 500, 0.5, 0.1)
    assert tiny.edge < 1e-250
