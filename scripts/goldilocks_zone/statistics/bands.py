"""Simultaneous bands of curves, and regression lines with theirs."""

import numpy as np

from goldilocks_zone.randomness import stream
from goldilocks_zone.statistics import estimates


def simultaneous_band(samples: np.ndarray, level: float, *name: str) -> tuple[np.ndarray, np.ndarray]:
    """(low, high), shape (r,), that cover the whole mean curve of samples (r, n) with probability `level`.

    Max-t over whole draws: the largest of the radii's t values is simulated for n Gaussian draws with the samples'
    correlation over radii. One radius, or radii that move together, get Student's interval. NaN for one draw, and at
    radii where a draw is missing (its logits overflow), which leave the others' band alone.
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
    for _ in range(estimates.RESAMPLES // estimates.BATCH):
        simulated = residuals @ random.standard_normal((estimates.BATCH, n, n))
        t = np.sqrt(n) * simulated.mean(axis=2) / simulated.std(axis=2, ddof=1)
        largest.append(np.abs(t).max(axis=1))
    half = np.quantile(np.concatenate(largest), level) * deviation / np.sqrt(n)
    return centre - half, centre + half


def regression_band(x: np.ndarray, y: np.ndarray, places: np.ndarray, level: float) -> tuple[np.ndarray, ...]:
    """Least-squares line of y over x at `places`, with the ends of the mean's interval there (Student's, pointwise).
    Raises TooFewDraws below three points or where x does not vary."""
    n = len(x)
    if n < 3 or np.ptp(x) == 0:
        raise estimates.TooFewDraws(f"{n} draws with {len(np.unique(x))} different values give no regression band")
    slope, intercept = np.polyfit(x, y, 1)
    variance = np.sum((y - intercept - slope * x) ** 2) / (n - 2)
    spread = np.sum((x - x.mean()) ** 2)
    half = estimates.student((1 + level) / 2, n - 2) * np.sqrt(variance * (1 / n + (places - x.mean()) ** 2 / spread))
    line = intercept + slope * places
    return line, line - half, line + half
