"""Means over draws and other estimates with their intervals or bands, as source data and as curves."""

import json
import math
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from goldilocks_zone.claims.cells import NotTested
from goldilocks_zone.claims.curves import ratio_of_means
from goldilocks_zone.config import studies
from goldilocks_zone.figures import panels, style
from goldilocks_zone.statistics import estimates

PARTS = ["mean", "low", "high"]
PLACES = 50  # number of points of a drawn regression band
WithInterval = tuple[float, float, float]  # value, low, high


def described(long_name: str, units: str = "1") -> dict[str, str]:
    """Attributes of a variable in a figure's source data: its `units` and its description as long_name."""
    return {"units": units, "long_name": long_name}


def ends_of(interval: str) -> dict[str, str]:
    """Descriptions of the variables low and high, as {variable: description}; `interval` is the interval's name."""
    return {"low": f"lower end of {interval}", "high": f"upper end of {interval}"}


def columns(dims: tuple[Hashable, ...], values: np.ndarray, meanings: Mapping[str, str], units: str = "1") -> dict:
    """Split an array along its last axis into variables for xarray.Dataset, {name: (dims, array, attributes)}.

    The i-th key of `meanings` names the variable with the entries `values`[…, i], and its text describes this variable.
    `dims` names the axes of `values` but the last. All variables have the unit `units`.
    """
    return {name: (dims, values[..., i], described(text, units)) for i, (name, text) in enumerate(meanings.items())}


def prefixed(found: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """Merge the datasets `found`, given by name, after renaming each variable to {name}_{variable}."""
    return xr.merge([data.rename({part: f"{name}_{part}" for part in data.data_vars}) for name, data in found.items()])


def parts_of(data: xr.Dataset, name: str) -> xr.Dataset:
    """Select {name}_mean, {name}_low and {name}_high from `data`, renamed to mean, low and high."""
    return xr.Dataset({part: data[f"{name}_{part}"] for part in PARTS})


def settings_of(study: xr.Dataset) -> dict:
    return json.loads(study.attrs["settings"])


def primary(study: xr.Dataset, *keys: str) -> xr.Dataset:
    """Select the first dataset, the first network and the first value of every setting that the study varies.

    The settings `keys` are exceptions: all their values are kept, as axes of the result. If the study does not vary one
    of them, its axis has length 1.
    """
    settings = settings_of(study)
    others = [studies.dimension(key) for key in settings["vary"] if key not in keys]
    fixed = {key: [settings[key]] for key in keys if key not in study.dims}
    return study.isel(dict.fromkeys(("dataset", "network", *others), 0)).expand_dims(fixed)


def nearest_to_r_x(study: xr.Dataset) -> int:
    """Index of the radius nearest to r_X along the study's axis radius; distances are between logarithms of radii."""
    return int(np.abs(study["x"].values).argmin())


def meanings_of_means(interval: str, of: str) -> dict[str, str]:
    """Descriptions of the variables that `means` and `over_radii` return, by name.

    `interval` names the interval from low to high, such as "95 % interval over draws". `of` is appended to each
    description, such as " of kappa".
    """
    spread = {"mean": f"mean over draws{of}", "standard_deviation": f"standard deviation over draws{of}"}
    return spread | ends_of(f"the mean's {interval}{of}")


def means(values: xr.DataArray, about: str = "") -> xr.Dataset:
    """Statistics of `values` (…, draw) over draws: mean, standard_deviation, and the ends low and high of an interval.

    The result has these variables, with the axes (…). The interval is Student's 95 % interval of the mean over the
    finite draws. It is pointwise: each mean has its own. Intervals and deviations are NaN for a single draw. `about`
    describes the values, with the unit 1; by default, description and unit are those of `values`.
    """
    values = values.transpose(..., "draw").assign_attrs(described(about) if about else {})
    found = np.full((*values.shape[:-1], 4), np.nan)
    for place in np.ndindex(values.shape[:-1]):
        samples = values.values[place]
        samples = samples[np.isfinite(samples)]
        if len(samples):
            found[place][0] = samples.mean()
        if len(samples) > 1:
            found[place][1:] = samples.std(ddof=1), *estimates.mean(samples).interval(estimates.LEVEL)
    meanings = meanings_of_means("95 % interval over draws", f": {values.attrs.get('long_name', values.name)}")
    variables = columns(values.dims[:-1], found, meanings, values.attrs.get("units", "1"))
    return xr.Dataset(variables, values.isel(draw=0, drop=True).coords)


def logarithmic_means(values: xr.DataArray) -> xr.Dataset:
    """Geometric mean over draws of the positive numbers in `values` (…, draw), with its 95 % interval.

    The result has the variables mean and, for the ends of the interval, low and high, each with the axes (…).
    """
    found = np.exp(means(xr.ufuncs.log(values.where(values > 0)))[PARTS])
    about, units = values.attrs.get("long_name", values.name), values.attrs.get("units", "1")
    for part, end in {"mean": "", **ends_of("the 95 % interval of the ")}.items():
        found[part].attrs = described(f"{end}geometric mean over draws: {about}", units)
    return found


def over_radii(study: xr.Dataset, variable: str) -> xr.Dataset:
    """Statistics of a study's `variable` over draws: mean, standard_deviation, and the ends low and high of a band.

    The band is simultaneous: it covers the whole mean curve over radii with 95 % probability. If the variable has the
    axes (…, radius, draw), the result has the axes (…, radius).
    """
    values = study[variable].transpose(..., "radius", "draw")
    flat = values.values.reshape(-1, study.sizes["radius"], study.sizes["draw"])
    ends = zip(*(estimates.simultaneous_band(curve, estimates.LEVEL, variable) for curve in flat))
    low, high = (np.reshape(end, values.shape[:-1]) for end in ends)
    found = np.stack([values.mean("draw"), values.std("draw", ddof=1), low, high], -1)
    meanings = meanings_of_means("simultaneous 95 % band over radii", f" of {variable}")
    variables = columns(values.dims[:-1], found, meanings, values.attrs.get("units", "1"))
    return xr.Dataset(variables, values.isel(draw=0, drop=True).coords, study.attrs)


def bootstrapped(statistic: Callable[[np.ndarray], float], samples: np.ndarray, *name: str) -> WithInterval:
    """Apply a `statistic` to `samples` (…, draws); return its value and the ends low, high of its bootstrap interval.

    This 95 % interval is that of `estimates.bootstrapped`, which resamples draws. low and high are NaN for fewer than
    two draws. `name` labels the random stream.
    """
    try:
        found = estimates.bootstrapped(statistic, samples, *name)
    except estimates.TooFewDraws:
        return statistic(samples), math.nan, math.nan
    return found.value, *found.interval(estimates.LEVEL)


def of_claim(estimator: Callable[..., list[estimates.Estimate]], *arguments: object) -> WithInterval:
    """Call a claim's `estimator` with `arguments`; return value, low and high (95 % interval) of its only estimate.

    All three are NaN if the estimator raises NotTested or TooFewDraws.
    """
    try:
        (found,) = estimator(*arguments)
        return found.value, *found.interval(estimates.LEVEL)
    except (NotTested, estimates.TooFewDraws):
        return math.nan, math.nan, math.nan


def ratios_of_means(above: xr.DataArray, below: xr.DataArray, meaning: str, *name: str) -> xr.Dataset:
    """Mean of `above` over draws divided by the mean of `below`, both (…, draw), with its 95 % bootstrap interval.

    The result has the variables ratio, low and high (…). All are NaN where the mean of `below` is poorly known: where
    its 95 % interval is at least as long as |mean|. `meaning` describes the ratio; `name` labels the random stream of
    the bootstrap.
    """
    below = below.broadcast_like(above).transpose(*above.dims)
    found = np.full((*above.shape[:-1], 3), np.nan)
    for place in np.ndindex(above.shape[:-1]):
        pair = np.array([above.values[place], below.values[place]])
        if pair.shape[-1] > 1:
            estimate = estimates.mean(pair[1])
            if not estimate.interval(estimates.LEVEL)[1] - estimate.value < abs(estimate.value) / 2:
                continue
        found[place] = bootstrapped(ratio_of_means, pair, *name)
    meanings = {"ratio": meaning, **ends_of("the ratio's 95 % bootstrap interval over draws")}
    return xr.Dataset(columns(above.dims[:-1], found, meanings), above.isel(draw=0, drop=True).coords)


def statistics(found: Mapping[str, WithInterval], meanings: Mapping[str, str]) -> xr.Dataset:
    """Dataset with one variable (quantity) for each statistic in `found`, {name: (value, low, high)}.

    The labels along the axis quantity are value, low and high. low and high are the ends of a 95 % interval. `meanings`
    holds the description of each statistic by name.
    """
    variables = {name: ("quantity", list(values), described(meanings[name])) for name, values in found.items()}
    return xr.Dataset(variables, {"quantity": ["value", "low", "high"]} if found else None)


def decimal(value: float, digits: int = 2) -> str:
    """Format a number to `digits` decimal places, with a typographic minus sign and without negative zero."""
    return f"{round(value, digits) + 0:.{digits}f}".replace("-", "−")


def in_words(value: float, low: float, high: float) -> str:
    return f"{decimal(value)} [{decimal(low)}, {decimal(high)}]"


def centred(number: int, count: int) -> float:
    """Position of item `number` among `count` items at unit distance, centred on zero."""
    return number - (count - 1) / 2


def bin_edges(values: np.ndarray) -> np.ndarray:
    """Edges of bins around ascending `values`: their midpoints, extended symmetrically at both ends.

    The result has one number more than `values`.
    """
    if len(values) == 1:
        return values[0] + np.array([-0.5, 0.5])
    half = np.diff(values) / 2
    return np.concatenate([[values[0] - half[0]], values[:-1] + half, [values[-1] + half[-1]]])


def bars(found: xr.Dataset, value: str = "mean") -> np.ndarray:
    """Lengths (2, …) of error bars: value − low in the first row, high − value in the second.

    low and high are variables of `found`, and so is the value, whose name is `value`. Lengths are clipped at zero,
    because a bootstrap interval may lie on one side of its value.
    """
    middle = found[value].values
    return np.clip([middle - found["low"].values, found["high"].values - middle], 0, None)


def draw_means(ax: Axes, x: ArrayLike, found: xr.Dataset, **look: Any) -> None:
    """Draw the variable mean of `found` at positions `x`, with error bars from its variable low to its variable high.

    `look` holds style arguments of `Axes.errorbar`.
    """
    ax.errorbar(x, found["mean"].values, bars(found), **{"elinewidth": 0.8, "linewidth": 1.0, **look})


def draw_band(ax: Axes, x: ArrayLike, found: xr.Dataset, alpha: float = 0.25, **look: Any) -> None:
    """Draw the variable mean of `found` over `x` as a line, with a band from its variable low to its variable high.

    `look` holds style arguments of the line, and must contain the `color` of line and band. `alpha` is the band's
    opacity.
    """
    ax.plot(x, found["mean"], **look)
    ax.fill_between(x, found["low"], found["high"], color=look["color"], alpha=alpha, linewidth=0)


def draw_curve(ax: Axes, curve: xr.Dataset, number: int, label: str, deviations: bool = True) -> None:
    """Draw `curve`, a result of `over_radii`, over its coordinate x: the mean and its simultaneous band.

    `deviations` adds error bars of one standard deviation over draws. `number` chooses colour and marker; `label` is
    the text in the legend.
    """
    draw_band(ax, curve["x"].values, curve, **style.look(number, markersize=2.2, label=label))
    if deviations:
        bar = {"fmt": "none", "ecolor": style.colour(number), "elinewidth": 0.5, "alpha": 0.7}
        ax.errorbar(curve["x"].values, curve["mean"], curve["standard_deviation"], **bar)


def draw_regression(ax: Axes, x: np.ndarray, y: np.ndarray, line: object, band: object, alpha: float) -> None:
    """Draw the linear regression of `y` (n,) over `x` (n,), with the pointwise 95 % band of its mean.

    `line` and `band` are the colours of the two, and `alpha` is the band's opacity. Nothing is drawn if there are too
    few points for a band.
    """
    places = np.linspace(x.min(), x.max(), PLACES)
    try:
        mean, low, high = estimates.regression_band(x, y, places, estimates.LEVEL)
    except estimates.TooFewDraws:
        return
    ax.plot(places, mean, color=line)
    ax.fill_between(places, low, high, color=band, alpha=alpha, linewidth=0)


def limit(ax: Axes, data: xr.Dataset) -> None:
    """Set the y-limits to show mean ± standard_deviation of `data`, a result of `means` or `over_radii`.

    Bands are ignored, because they are wide for few draws.
    """
    deviation = data["standard_deviation"].fillna(0)
    ax.set_ylim(panels.limits(data["mean"] - deviation, data["mean"] + deviation))
