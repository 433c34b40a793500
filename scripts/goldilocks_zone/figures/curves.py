"""What figures of training share: the part of a study that they show, and means over draws with their intervals."""

import json

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

from goldilocks_zone.config import studies
from goldilocks_zone.figures import style as figures_style
from goldilocks_zone.statistics import estimates


def primary(study: xr.Dataset, *keys: str) -> xr.Dataset:
    """The first dataset and network of a study, and the first value of what it varies beside `keys`.

    Each of `keys` is an axis of the result, of one value where the study does not vary it.
    """
    settings = json.loads(study.attrs["settings"])
    others = [studies.dimension(key) for key in settings["vary"] if key not in keys]
    fixed = {key: [settings[key]] for key in keys if key not in study.dims}
    return study.isel(dict.fromkeys(("dataset", "network", *others), 0)).expand_dims(fixed)


def nearest_to_r_x(study: xr.Dataset) -> int:
    """The number of the radius nearest to r_X."""
    return int(np.abs(study["x"].values).argmin())


def means(values: xr.DataArray) -> xr.Dataset:
    """mean and standard_deviation over draws of values (…, draw), and low and high of the mean's 95 % interval.

    Student's intervals, for each place by itself, of the draws that are not missing; missing for a single draw.
    """
    values = values.transpose(..., "draw")
    found = np.full((*values.shape[:-1], 4), np.nan)
    for place in np.ndindex(values.shape[:-1]):
        samples = values.values[place]
        samples = samples[np.isfinite(samples)]
        if len(samples):
            found[place][0] = samples.mean()
        if len(samples) > 1:
            found[place][1:] = samples.std(ddof=1), *estimates.mean(samples).interval(figures_style.LEVEL)
    meanings = {
        "mean": "mean over draws",
        "standard_deviation": "standard deviation over draws",
        "low": "lower end of the mean's 95 % interval over draws",
        "high": "upper end of the mean's 95 % interval over draws",
    }
    about, units = values.attrs.get("long_name", values.name), values.attrs.get("units", "1")
    variables = {
        name: (values.dims[:-1], found[..., i], {"units": units, "long_name": f"{meaning}: {about}"})
        for i, (name, meaning) in enumerate(meanings.items())
    }
    return xr.Dataset(variables, values.isel(draw=0, drop=True).coords)


def draw_means(ax: plt.Axes, x: np.ndarray, found: xr.Dataset, **style: object) -> None:
    """Means, as `means` gives them, at the places x, with their intervals as bars."""
    mean = found["mean"].values
    # An interval of the bootstrap may lie to one side of its mean.
    bars = np.clip([mean - found["low"].values, found["high"].values - mean], 0, None)
    ax.errorbar(x, mean, bars, **{"elinewidth": 0.8, "linewidth": 1.0, **style})
