"""Estimators for claims about the zone of joint embeddings: signs at every radius, layers, and identities.

The unit is a draw: an initialisation, with its own pairs of views. `cell` has the results of one study. A reading, the
argument `of`, is a mapping that names a variable and its place as values along axes of the study, as in `jepa_training`
but without the other keys. `window` is a range (first, last) of x = log10(r²/r_X²).
"""

import numpy as np

from goldilocks_zone.claims import curves
from goldilocks_zone.claims.cells import Cell, NotTested, need, require
from goldilocks_zone.claims.curves import Window
from goldilocks_zone.claims.estimators.jepa_training import Given, need_most
from goldilocks_zone.statistics import estimates
from goldilocks_zone.statistics.estimates import Estimate


def zone_at_every_radius(cell: Cell, of: Given, window: Window) -> list[Estimate]:
    """Mean of the reading `of` at each radius of the window, over the draws in which it is finite at this radius.

    `of` names a variable and its place; `window` is a range of log10(r²/r_X²). Raises NotTested if too few draws remain
    at a radius.
    """
    found = []
    for row in _by_radius(cell, of, window):
        known = np.isfinite(row)
        need_most(known, f"in which {of['variable']} can be measured")
        found.append(estimates.mean(row[known]))
    return found


def zone_error(cell: Cell, of: Given, window: Window) -> list[Estimate]:
    """Largest absolute value of the reading `of`, the error of an identity, over draws and the radii of the window.

    Missing values are left out. Raises NotTested if all are missing.
    """
    return [estimates.largest(np.abs(_known(cell, of, window)))]


def zone_sign_error(cell: Cell, of: Given, window: Window, sign: int) -> list[Estimate]:
    """Largest |value| of the reading `of` among values of the wrong sign, over draws and the radii of the window.

    `sign`, 1 or −1, is the right sign. The result is 0 if no value has the wrong one. Missing values are left out.
    Raises NotTested if all are missing.
    """
    return [estimates.largest(np.maximum(0, -sign * _known(cell, of, window)))]


def zone_change(cell: Cell, of: Given, window: Window) -> list[Estimate]:
    """Largest change of the reading `of` over the radii of the window, in any draw.

    The change in a draw is the maximum minus the minimum over these radii. Raises NotTested with fewer than two radii,
    or if a value is missing.
    """
    values = _by_radius(cell, of, window)
    need(2, len(values), "radii whose values can be compared")
    if not np.isfinite(values).all():
        raise NotTested(f"{of['variable']} is missing at some radius")
    return [estimates.largest(np.ptp(values, axis=0))]


def zone_layer_ratio(
    cell: Cell, criterion: str, window: Window, name: str, expected: str | None = None
) -> list[Estimate]:
    """Mean weighted trace of a layer divided by that of the last layer, minus 1, at each radius of the window.

    There is one estimate for each layer but the last, and each radius. The mean weighted trace of layer l is E σ_l² Tr
    H_ll. Here E is the mean over draws, H_ll the block of layer l in the Hessian of `criterion`, and σ_l the standard
    deviation of the layer's initial weights. `expected` names a variable that holds the expected ratio of each layer.
    If it is given, the ratio is divided by this variable's mean for the layer before 1 is subtracted. `name` names the
    random stream of the bootstrap.
    """
    traces = _variable(curves.in_x(cell, window), {"variable": "layer_trace", "criterion": criterion})
    traces = traces.dropna("layer", how="all")
    found = []
    for layer in traces["layer"].values[:-1]:
        ratio = 1.0 if expected is None else float(_variable(cell, {"variable": expected, "layer": layer}).mean())
        for radius in traces["radius"].values:
            here = traces.sel(radius=radius)
            pair = np.array([here.sel(layer=layer).values, here.isel(layer=-1).values])
            found.append(
                estimates.bootstrapped(
                    lambda sample, ratio=ratio: curves.ratio_of_means(sample) / ratio - 1, pair, name, str(layer)
                )
            )
    return found


def _by_radius(cell: Cell, of: Given, window: Window) -> np.ndarray:
    """Values (radius, draw) of the reading `of` at the radii of the window."""
    return curves.by_radius(curves.in_x(_variable(cell, of), window))


def _known(cell: Cell, of: Given, window: Window) -> np.ndarray:
    """All finite values of the reading `of` at the radii of the window, as an array with one axis.

    Raises NotTested if there are none.
    """
    values = _by_radius(cell, of, window)
    known = values[np.isfinite(values)]
    need(1, known.size, f"values of {of['variable']}")
    return known


def _variable(cell: Cell, of: Given):
    """Values of the reading `of`, with those of the axes radius, draw and layer that the reading does not fix.

    Raises NotTested if the variable, an axis or a value is missing, or if another axis has several values.
    """
    place = {axis: value for axis, value in of.items() if axis != "variable"}
    if of["variable"] not in cell:
        raise NotTested(f"this run has measured no {of['variable']}")
    values = cell[of["variable"]]
    for axis, value in place.items():
        if axis not in values.dims:
            raise NotTested(f"{of['variable']} has no axis {axis}")
        require(values, axis, value)
    values = values.sel(place, drop=True)
    if left := [axis for axis in values.dims if axis not in ("radius", "draw", "layer") and values.sizes[axis] > 1]:
        raise NotTested(f"the study has several values of {left[0]}, of which the claim names none")
    alone = [axis for axis in values.dims if axis not in ("radius", "draw", "layer")]
    return values.squeeze(alone, drop=True)
