"""Estimates, bands and regression lines, with their uncertainty over random initialisations θ.

Initialisations are the independent units of all claims; they are also called draws.

A reading is a number that is read off a grid, such as the radius at which a curve peaks. It is an array (low, value,
high) of the best value and of the ends of the range in which the number may lie. All three are equal if the number is
known exactly. The ends are half a grid step from a grid point. An end is infinite if the number is censored there, that
is, if it may lie beyond the grid.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy import special

from goldilocks_zone.randomness import stream

LEVEL = 0.95  # of reported intervals
RESAMPLES, BATCH = 2000, 100
LEAST_RESAMPLED = 6  # fewer units have too few distinct resamples for a 95 % interval
EQUAL = 1e-12  # relative tolerance for sides of a comparison that differ by rounding alone
ALIKE = "what is compared is equal in every draw"


# Uses scipy.special: importing scipy.stats takes a second, which every figure would pay.
def student(p: float, freedom: float) -> float:
    """Quantile of Student's t distribution with `freedom` degrees of freedom at probability `p`."""
    return float(special.stdtrit(freedom, p))


def chi_squared(p: np.ndarray, freedom: float) -> np.ndarray:
    """Quantiles of the chi-squared distribution with `freedom` degrees of freedom at probabilities `p`."""
    return special.chdtri(freedom, 1 - p)


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks of values (n,) starting at 1, with mean ranks for ties."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (counts.cumsum() - (counts - 1) / 2)[inverse]


class TooFewDraws(ValueError):
    """Too few independent units, such as initialisations, for an interval."""


@dataclass(frozen=True)
class Estimate:
    """An estimated number with its standard error over n independent units.

    interval: function from a confidence level to the interval (low, high). smallest_p: the smallest p-value that this
    kind of interval can resolve. half_step: half a grid step for a number read off a grid, else 0. open_end: the reason
    why an end of the interval is infinite because the number itself is censored; else empty.
    """

    value: float
    standard_error: float
    n: int
    interval: Callable[[float], tuple[float, float]]
    smallest_p: float = 0.0
    half_step: float = 0.0
    open_end: str = ""


def p_above(estimate: Estimate, threshold: float) -> float:
    """One-sided p-value of the null hypothesis that the true value of an estimate is at most `threshold`.

    1 minus the result is the p-value of the null hypothesis that the true value is at least `threshold`. Bisection
    finds the p at which the lower confidence bound of level 1 − p equals the threshold, so that tests agree with
    intervals of any kind.
    """
    low, high = 0.0, 1.0
    for _ in range(40):
        p = (low + high) / 2
        bound = estimate.interval(1 - 2 * p)[0] if p < 0.5 else estimate.interval(2 * p - 1)[1]
        low, high = (low, p) if bound > threshold else (p, high)
    return min(max(high, estimate.smallest_p), 1 - estimate.smallest_p)


def mean(samples: np.ndarray, resolution: float = 0.0) -> Estimate:
    """Mean of independent samples (n,) with Student's interval.

    Samples that are multiples of `resolution` may agree by chance. The standard deviation is therefore taken to be at
    least that of rounding to these multiples, resolution/√12. Raises TooFewDraws for fewer than two samples.
    """
    n = len(samples)
    if n < 2:
        raise TooFewDraws(f"{n} draw gives no interval: at least 2 are needed")
    deviation = max(float(np.std(samples, ddof=1)), resolution / np.sqrt(12))
    value, error = float(np.mean(samples)), deviation / np.sqrt(n)

    def interval(level: float) -> tuple[float, float]:
        half = student((1 + level) / 2, n - 1) * error
        return value - half, value + half

    return Estimate(value, error, n, interval)


def point_of_grid(places: np.ndarray, first: int, last: int) -> np.ndarray:
    """Reading (3,) of a place that lies between two points of the ascending grid `places` (g,).

    `first` and `last` are the indices of these points; they are usually equal. The value is midway between both points.
    The lower end is half-way from the first point to the next one below, and the upper end half-way from the last point
    to the next one above. At an end of the grid, the end of the reading is infinite, because the place may lie beyond.
    """
    ends = np.array([-np.inf, *(places[1:] + places[:-1]) / 2, np.inf])
    return np.array([ends[first], (places[first] + places[last]) / 2, ends[last + 1]])


def read_off(estimate: Estimate, reading: np.ndarray, reason: str = "") -> Estimate:
    """Combine an estimate over draws with a reading (3,) of the same number, whose uncertainty is added.

    A number that lies uniformly within half a step h of its reading has the variance h²/3 = step²/12, which is added to
    the squared standard error. An infinite end of the reading makes this end of the interval infinite, and `reason`
    says why the reading is censored there. The result has the value of the reading: that of `estimate` may have been
    corrected for bias by the jackknife, which would amplify the error of the reading.
    """
    below, above = reading[1] - reading[0], reading[2] - reading[1]
    if not below and not above:
        return estimate
    median = estimate.interval(0.0)[0]
    middle = median + reading[1] - estimate.value

    def interval(level: float) -> tuple[float, float]:
        low, high = estimate.interval(level)
        # The interval of level 0 has no width, even if an end of the reading is infinite.
        if not level:
            return float(middle), float(middle)
        wide = student((1 + level) / 2, estimate.n - 1) / np.sqrt(3)
        # At a tiny level `wide` is 0, and its product with an infinite side is no number.
        sides = [side if np.isinf(side) else wide * side for side in (below, above)]
        return float(middle - np.hypot(median - low, sides[0])), float(middle + np.hypot(high - median, sides[1]))

    half_step = max((float(side) for side in (below, above) if np.isfinite(side)), default=0.0)
    error = float(np.hypot(estimate.standard_error, half_step / np.sqrt(3)))
    grid = {"half_step": half_step, "open_end": reason if np.isinf([below, above]).any() else ""}
    return replace(estimate, value=float(reading[1]), standard_error=error, interval=interval, **grid)


def of_ranks(estimate: Estimate, n: int) -> Estimate:
    """Widen an estimate of Spearman's correlation of `n` pairs, because this correlation has only discrete values.

    With differences d of ranks, the correlation is 1 − 6 Σd²/(n(n² − 1)). Without ties Σd² is even, so that
    neighbouring values are 12/(n(n² − 1)) apart. The estimate is widened like a number that is read off a grid of these
    values.
    """
    half_step = 6 / (n * (n**2 - 1))
    return read_off(estimate, estimate.value + half_step * np.array([-1, 0, 1]))


def difference(first: np.ndarray, second: np.ndarray, resolution: float = 0.0, reason: str = ALIKE) -> Estimate:
    """Mean of the paired differences `first` − `second` over n draws, with Student's interval.

    `first` and `second` are samples (n,), or readings (3, n) with the rows lower end, value and upper end. `resolution`
    is passed to `mean`. `reason` says why ends of readings are infinite, if any are. The interval is the whole line if
    `first` and `second` are equal in every draw. Raises TooFewDraws for fewer than two draws.
    """
    first, second = (np.broadcast_to(each, (3, each.shape[-1])) for each in (first, second))
    found = first - second[::-1]
    estimate = read_off(mean(found[1], resolution), found.mean(1), reason)
    return estimate if estimate.open_end else unless_alike(estimate, first[1], second[1])


def unless_alike(estimate: Estimate, first: np.ndarray, second: np.ndarray) -> Estimate:
    """Return the `estimate` of a comparison; its interval is made infinite if there was nothing to compare.

    That is so if the compared samples, `first` and `second`, are equal in every draw.
    """
    if np.allclose(first, second, rtol=EQUAL, atol=0):
        return read_off(estimate, np.array([-np.inf, estimate.value, np.inf]), ALIKE)
    return estimate


def largest(samples: np.ndarray) -> Estimate:
    """Largest of `samples` (n,), such as rounding errors, as an estimate whose interval has zero width."""
    value = float(np.max(samples))
    return Estimate(value, 0.0, len(samples), lambda level: (value, value))


def bootstrapped(statistic: Callable[[np.ndarray], float], samples: np.ndarray, *name: str) -> Estimate:
    """Bootstrap estimate of `statistic`, a function of `samples` (…, n) for n independent units.

    Whole units, entries along the last axis, are resampled. The interval is the percentile interval of RESAMPLES
    resamples, drawn from the random stream `name`; its ends are infinite if too many resamples are. With fewer than
    LEAST_RESAMPLED units, the result is instead the mean of the jackknife's pseudo-values with Student's interval.
    Raises TooFewDraws for fewer than two units.
    """
    n = samples.shape[-1]
    if n < LEAST_RESAMPLED:
        without = [statistic(np.delete(samples, i, axis=-1)) for i in range(n)] if n > 1 else [np.nan]
        return mean(n * statistic(samples) - (n - 1) * np.array(without))
    random = stream("bootstrap", *name)
    resampled = np.array([statistic(samples[..., random.integers(n, size=n)]) for _ in range(RESAMPLES)])

    finite = np.isfinite(resampled)
    # Between two infinite resamples there is no linear interpolation.
    method = "linear" if finite.all() else "nearest"

    def interval(level: float) -> tuple[float, float]:
        return tuple(np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2], method=method).tolist())

    error = resampled.std(ddof=1) if finite.all() else np.inf
    return Estimate(float(statistic(samples)), float(error), n, interval, 1 / RESAMPLES)


def coefficients_of_variation(means: np.ndarray, variances: np.ndarray, planes: int) -> dict[str, Estimate]:
    """Coefficients of variation of a quantity that is measured on single random planes, by name: `total` and `theta`.

    `total` is the variation over initialisations θ and planes, and `theta` the part that is due to θ. For each of n
    initialisations, `means` and `variances` (n,) are the mean and variance of the quantity over m = `planes` ≥ 2
    planes.

    This is a random-effects analysis of variance. Let B be the variance of the means, and W the mean of the variances.
    The total variance is B + W (1 − 1/m), and the part due to θ is B − W/m. Intervals are chi-squared: for the total
    with Satterthwaite's degrees of freedom, for θ with those of B, n − 1. Raises TooFewDraws below two initialisations.
    """
    between, within, n = _variance(means), float(np.mean(variances)), len(means)
    over_planes, centre = within * (1 - 1 / planes), abs(float(np.mean(means)))
    total = between + over_planes
    freedom = total**2 / (between**2 / (n - 1) + over_planes**2 / (n * (planes - 1))) if total else n - 1
    theta = _root(between, n - 1, n, within / planes, centre)
    return {"total": _root(total, freedom, n, centre=centre), "theta": theta}


def deviation(samples: np.ndarray, taken_off: float = 0.0) -> Estimate:
    """Standard deviation of independent `samples` (n,), without the known part `taken_off` of their variance.

    This part is subtracted from the variance. The interval is chi-squared. Raises TooFewDraws below two samples.
    """
    return _root(_variance(samples), len(samples) - 1, len(samples), taken_off)


def _variance(samples: np.ndarray) -> float:
    if len(samples) < 2:
        raise TooFewDraws(f"{len(samples)} draw gives no spread: at least 2 are needed")
    return float(np.var(samples, ddof=1))


def _root(variance: float, freedom: float, n: int, taken_off: float = 0.0, centre: float = 1.0) -> Estimate:
    """Estimate of √(variance − `taken_off`) / `centre` from n samples, with a chi-squared interval.

    `variance` has `freedom` degrees of freedom. `taken_off`, a known part of the variance, is also subtracted from both
    ends of the interval; negative differences count as 0. If the upper end would be 0, nothing is subtracted from it.
    """

    def root(value: float) -> float:
        return float(np.sqrt(max(value - taken_off, 0.0)) / centre)

    def interval(level: float) -> tuple[float, float]:
        low, high = variance * freedom / chi_squared(np.array([1 + level, 1 - level]) / 2, freedom)
        return root(low), root(high) or float(np.sqrt(high)) / centre

    low, high = interval(0.6827)
    return Estimate(root(variance), (high - low) / 2, n, interval)


def simultaneous_band(samples: np.ndarray, level: float, *name: str) -> tuple[np.ndarray, np.ndarray]:
    """Band (low, high), each (r,), that covers the whole curve of the true means with probability `level`.

    `samples` (r, n) are curves over r radii from n draws. The method is max-t: the distribution of the largest |t| over
    radii is simulated for n Gaussian draws that are correlated over radii as the samples are. The random stream is
    `name`. For a single radius, or perfectly correlated radii, the band is Student's interval.

    The band is NaN if there is only one draw. It is also NaN at radii where a sample is not finite, because logits
    overflowed; these radii do not affect the band elsewhere.
    """
    whole, n = np.isfinite(samples).all(axis=-1), samples.shape[-1]
    if n < 2 or not whole.all():
        low, high = np.full((2, len(samples)), np.nan)
        if n > 1 and whole.any():
            low[whole], high[whole] = simultaneous_band(samples[whole], level, *name)
        return low, high
    centre = samples.mean(axis=-1)
    deviation = samples.std(axis=-1, ddof=1)
    varying = deviation > 0
    if not varying.any():
        return centre, centre
    residuals = (samples - centre[:, None])[varying] / (deviation[varying, None] * np.sqrt(n - 1))
    random, largest = stream("band", *name), []
    for _ in range(RESAMPLES // BATCH):
        simulated = residuals @ random.standard_normal((BATCH, n, n))
        t = np.sqrt(n) * simulated.mean(axis=2) / simulated.std(axis=2, ddof=1)
        largest.append(np.abs(t).max(axis=1))
    half = np.quantile(np.concatenate(largest), level) * deviation / np.sqrt(n)
    return centre - half, centre + half


def regression_band(x: np.ndarray, y: np.ndarray, places: np.ndarray, level: float) -> tuple[np.ndarray, ...]:
    """Least-squares line of `y` over `x`, both (n,), and its pointwise interval, as (line, low, high) at `places`.

    The interval is Student's, at the confidence `level`. Raises TooFewDraws for fewer than three points or constant x.
    """
    n = len(x)
    if n < 3 or np.ptp(x) == 0:
        found = f"{n} draws with {len(np.unique(x))} different values give no regression band"
        raise TooFewDraws(f"{found}: at least 3 draws with 2 different values are needed")
    slope, intercept = np.polyfit(x, y, 1)
    variance = np.sum((y - intercept - slope * x) ** 2) / (n - 2)
    spread = np.sum((x - x.mean()) ** 2)
    half = student((1 + level) / 2, n - 2) * np.sqrt(variance * (1 / n + (places - x.mean()) ** 2 / spread))
    line = intercept + slope * places
    return line, line - half, line + half
