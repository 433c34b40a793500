import itertools

import numpy as np
import pytest
from scipy import stats

from goldilocks_zone.randomness import stream
from goldilocks_zone.statistics import estimates, hypotheses


def test_mean_interval_is_students():
    samples = stream("samples").standard_normal(7)
    found = estimates.mean(samples)
    assert found.interval(0.95) == pytest.approx(
        stats.t.interval(0.95, 6, loc=samples.mean(), scale=stats.sem(samples))
    )


def test_quantiles_and_ranks_are_those_of_scipy():
    for freedom in (1, 2.5, 30):
        for p in (0.001, 0.3, 0.975):
            assert estimates.student(p, freedom) == pytest.approx(stats.t.ppf(p, freedom), rel=1e-10)
            assert estimates.chi_squared(p, freedom) == pytest.approx(stats.chi2.ppf(p, freedom), rel=1e-9)
    values = stream("ranks").integers(6, size=20)
    assert np.array_equal(estimates.ranks(values), stats.rankdata(values))


def test_a_radius_with_missing_draws_leaves_the_band_of_others_alone():
    samples = stream("missing").standard_normal((4, 6))
    low, high = estimates.simultaneous_band(samples[:3], 0.95, "band")
    samples[3, 2] = np.nan
    found = estimates.simultaneous_band(samples, 0.95, "band")
    assert np.array_equal(found[0], [*low, np.nan], equal_nan=True)
    assert np.array_equal(found[1], [*high, np.nan], equal_nan=True)


def test_one_sided_p_values_are_students():
    samples = stream("p-values").standard_normal(9) + 0.5
    for threshold in (-0.3, 0.2, 1.5):
        test = stats.ttest_1samp(samples, threshold, alternative="greater")
        assert estimates.p_above(estimates.mean(samples), threshold) == pytest.approx(test.pvalue, abs=1e-9)
        test = stats.ttest_1samp(samples, threshold, alternative="less")
        assert 1 - estimates.p_above(estimates.mean(samples), threshold) == pytest.approx(test.pvalue, abs=1e-9)


def test_values_that_agree_by_rounding_are_not_certain():
    low, high = estimates.mean(np.full(4, 0.5), resolution=0.02).interval(0.95)
    assert low < 0.5 - 0.004 and high > 0.5 + 0.004


@pytest.mark.parametrize(
    "draws, noise, trials", [(3, 0.0, 200), (4, 0.3, 200), (4, 1.0, 200), (12, 0.0, 4), (12, 0.3, 30)]
)
def test_a_place_that_is_read_off_a_grid_is_covered_as_often_as_it_says(draws, noise, trials):
    """The true place is anywhere within a grid step; draws scatter around it, and their mean is read off the grid."""
    random, step, covered = stream("grid", draws, str(noise)), 0.5, 0
    grid = np.arange(-40, 41) * step

    def read(samples):
        return estimates.point_of_grid(grid, *[int(np.abs(grid - samples.mean()).argmin())] * 2)

    for _ in range(trials):
        place = random.uniform(-step / 2, step / 2)
        samples = place + noise * random.standard_normal(draws)
        estimate = estimates.bootstrapped(lambda each: read(each)[1], samples, "grid")
        found = estimates.read_off(estimate, read(samples))
        assert found.standard_error**2 == pytest.approx(estimate.standard_error**2 + step**2 / 12)
        low, high = found.interval(0.95)
        covered += low <= place <= high
    # Known to a deviation of √(.95 · .05/trials); with no noise half a step to both sides is all there is.
    assert covered / trials > 0.95 - 2 * np.sqrt(0.95 * 0.05 / trials)
    assert noise or covered == trials


def test_a_censored_end_is_open_and_the_other_decides():
    samples = 3 + 0.1 * stream("censored").standard_normal(8)
    plain, place = estimates.mean(samples), samples.mean()
    found = estimates.read_off(plain, np.array([place, place, np.inf]), "it is censored")
    low, high = found.interval(0.95)
    assert low == pytest.approx(plain.interval(0.95)[0]) and high == np.inf and found.open_end == "it is censored"
    # A lower bound speaks against what is below of it, and neither for nor against what is above.
    assert estimates.p_above(found, 2) == pytest.approx(estimates.p_above(plain, 2), abs=1e-9)
    assert estimates.p_above(found, 4) == pytest.approx(0.5)
    assert estimates.read_off(plain, np.full(3, 3.0)) is plain


def test_differences_of_readings_and_of_equal_sides():
    first, second = np.array([3.0, 3.0, 3.0]), np.array([1.0, 2.0, 1.5])
    assert estimates.difference(first, second).interval(0.95) == estimates.mean(first - second).interval(0.95)
    bounds = np.array([first, first, [3.0, np.inf, 3.0]])
    assert estimates.difference(bounds, second).interval(0.95)[1] == np.inf
    assert estimates.difference(second, bounds).interval(0.95)[0] == -np.inf
    for alike in (estimates.difference(first, first + 1e-15), estimates.difference(bounds, bounds, reason="x")):
        assert alike.interval(0.95) == (-np.inf, np.inf) and alike.open_end in (estimates.ALIKE, "x")


def test_rank_correlations_come_in_steps():
    ranks = np.arange(5)
    values = sorted({round(np.corrcoef(ranks, each)[0, 1], 9) for each in itertools.permutations(ranks)})
    found = estimates.of_ranks(estimates.mean(np.ones(3)), 5)
    assert 2 * found.half_step == pytest.approx(np.diff(values).min())


def test_the_end_of_a_spread_is_not_nothing():
    """A spread far below the part that is subtracted is small, but not known to be 0."""
    samples = 0.8 + 1e-4 * stream("small spread").standard_normal(6)
    low, high = estimates.deviation(samples, 0.004**2).interval(0.95)
    assert low == 0 and high == pytest.approx(estimates.deviation(samples).interval(0.95)[1]) and high > 0
    part = estimates.coefficients_of_variation(samples, np.full(6, 1e-4), 4)["theta"]
    assert part.value == part.interval(0.95)[0] == 0 and part.interval(0.95)[1] > 0


def test_too_few_draws_are_refused():
    with pytest.raises(estimates.TooFewDraws, match="1 draw"):
        estimates.mean(np.array([1.0]))
    with pytest.raises(estimates.TooFewDraws, match="1 draw"):
        estimates.bootstrapped(np.mean, np.array([1.0]), "few")


def test_few_units_are_jackknifed():
    samples = stream("jackknife").standard_normal(4)
    found = estimates.bootstrapped(np.mean, samples, "few")
    assert found.interval(0.95) == pytest.approx(estimates.mean(samples).interval(0.95))
    # A smooth statistic of few units: 95 % intervals for the square of a mean of 1 cover it about as often.
    random, covered = stream("jackknife coverage"), 0
    for _ in range(300):
        low, high = estimates.bootstrapped(
            lambda x: float(np.mean(x)) ** 2, 1 + 0.3 * random.standard_normal(4), "few"
        ).interval(0.95)
        covered += low <= 1 <= high
    assert 0.88 < covered / 300 < 0.99


def test_a_bootstrap_resolves_no_smaller_p_value_than_its_resamples():
    estimate = estimates.bootstrapped(np.mean, np.arange(8.0), "resolution")
    assert estimates.p_above(estimate, -100) == 1 / estimates.RESAMPLES
    assert 1 - estimates.p_above(estimate, -100) == 1 - 1 / estimates.RESAMPLES


def test_bootstrap_of_a_mean_agrees_with_student_for_many_units():
    samples = stream("bootstrap test").standard_normal(200)
    found = estimates.bootstrapped(lambda x: float(np.mean(x)), samples, "agreement")
    # The bootstrap's quantiles come from 2,000 resamples: 10 % of the width covers four of their deviations.
    assert found.interval(0.95) == pytest.approx(estimates.mean(samples).interval(0.95), abs=0.1 * 2 / np.sqrt(200))


@pytest.mark.parametrize("correlated", [True, False])
def test_simultaneous_band_covers_whole_curves_as_often_as_it_says(correlated):
    random = stream("coverage", int(correlated))
    radii, draws, trials = 20, 6, 300
    covered = 0
    for _ in range(trials):
        noise = random.standard_normal((radii, draws))
        samples = noise.cumsum(axis=0) if correlated else noise
        low, high = estimates.simultaneous_band(samples, 0.95, "test")
        covered += bool(np.all((low <= 0) & (high >= 0)))
    # 95 %, known to 1.3 % from 300 trials; six draws show at most five independent directions, which costs 3 %.
    assert 0.88 < covered / trials < 0.99


def test_a_band_of_one_radius_is_students_interval():
    samples = stream("one radius").standard_normal((1, 8))
    low, high = estimates.simultaneous_band(samples, 0.95, "test")
    expected = estimates.mean(samples[0]).interval(0.95)
    # The critical value is a quantile of 2,000 simulations, known to 3 %.
    assert (low[0], high[0]) == pytest.approx(expected, abs=0.08 * (expected[1] - expected[0]))


def test_parts_of_the_spread_are_told_apart():
    random = stream("parts")
    thetas, planes = 400, 4
    values = 5 + 0.3 * random.standard_normal((thetas, 1)) + 0.4 * random.standard_normal((thetas, planes))
    found = estimates.coefficients_of_variation(values.mean(1), values.var(1, ddof=1), planes)
    # Deviations .3 and √(.3² + .4²) = .5 over a mean of 5; a deviation from 400 units is known to 4 %.
    assert found["theta"].value == pytest.approx(0.06, rel=0.15)
    assert found["total"].value == pytest.approx(0.10, rel=0.10)
    low, high = found["theta"].interval(0.95)
    assert low < 0.06 < high


def test_a_quantity_without_any_spread_has_none():
    found = estimates.coefficients_of_variation(np.ones(4), np.zeros(4), 4)
    assert found["total"].value == found["theta"].value == 0 and found["total"].interval(0.95) == (0, 0)


def test_intervals_of_the_spread_cover():
    random = stream("spread coverage")
    covered = 0
    for _ in range(300):
        values = 5 + 0.3 * random.standard_normal((6, 1)) + 0.4 * random.standard_normal((6, 4))
        low, high = estimates.coefficients_of_variation(values.mean(1), values.var(1, ddof=1), 4)["total"].interval(0.9)
        covered += low <= 0.1 <= high
    assert 0.83 < covered / 300 < 0.97


def test_holm_by_hand():
    # Sorted .01 · 3, max(.03, .02 · 2), max(.04, .04 · 1).
    assert hypotheses.holm(np.array([0.04, 0.01, 0.02])) == pytest.approx([0.04, 0.03, 0.04])
    assert hypotheses.holm(np.array([])).size == 0


def test_regression_bands_are_students():
    random = stream("regression")
    x = random.standard_normal(12)
    y = 2 - x + 0.3 * random.standard_normal(12)
    places = np.array([x.mean(), x.mean() + 1e6])
    line, low, high = estimates.regression_band(x, y, places, 0.95)
    fit = stats.linregress(x, y)
    t = stats.t.ppf(0.975, 10)
    residual = y - fit.intercept - fit.slope * x
    # In the middle the uncertainty is that of the mean given the slope; far away that of the slope.
    assert high[0] - line[0] == pytest.approx(t * np.sqrt((residual**2).sum() / 10 / 12))
    assert (line[1] - low[1]) / 1e6 == pytest.approx(t * fit.stderr, rel=1e-6)


def test_a_regression_needs_points_that_vary():
    for x in (np.array([0.0, 1.0]), np.zeros(5)):
        with pytest.raises(estimates.TooFewDraws, match="no regression band"):
            estimates.regression_band(x, np.arange(len(x)), x, 0.95)
