"""Ratios of means over the same draws, with their intervals."""

import numpy as np
import xarray as xr

from goldilocks_zone.claims.curves import ratio_of_means
from goldilocks_zone.figures import curves
from goldilocks_zone.statistics import estimates


def ratios_of_means(above: xr.DataArray, below: xr.DataArray, meaning: str, *name: str) -> xr.Dataset:
    """ratio of the means over draws of `above` and `below` (…, draw), and low and high of its 95 % interval.

    Missing where the mean of `below` is not well known: where its 95 % interval does not lie within half of it.
    """
    below = below.broadcast_like(above).transpose(*above.dims)
    found = np.full((*above.shape[:-1], 3), np.nan)
    for place in np.ndindex(above.shape[:-1]):
        pair = np.array([above.values[place], below.values[place]])
        if pair.shape[-1] > 1:
            estimate = estimates.mean(pair[1])
            if not estimate.interval(estimates.LEVEL)[1] - estimate.value < abs(estimate.value) / 2:
                continue
        found[place] = curves.bootstrapped(ratio_of_means, pair, *name)
    meanings = {"ratio": meaning, **curves.ends_of("the ratio's 95 % bootstrap interval over draws")}
    return xr.Dataset(curves.columns(above.dims[:-1], found, meanings), above.isel(draw=0, drop=True).coords)
