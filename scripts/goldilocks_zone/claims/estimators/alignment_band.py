"""Estimators for the band of radii in which the Hessian's top eigenvectors span the normals of the decision boundary.

E is the mean share of the normals' squared norms in the span of the first C − 1 eigenvectors of the Hessian or of its
Gauss–Newton part G, for C classes, as a curve over x = log10(r²/r_X²). H′ is the residual part of the Hessian. The
inner and outer edges of the band are the points nearest to the maximum of E, towards smaller and larger x, at which E
falls to half its maximum. Where G vanishes, E is missing, and an edge there is only known to lie between two radii.
Arguments: `cell`, the results of a study; `minimum`, the label of a network's state, such as untrained; `window`
(first, last) in x.
"""

import math

import numpy as np
import xarray as xr

from goldilocks_zone.claims import curves
from goldilocks_zone.claims.cells import Cell, NotTested, need
from goldilocks_zone.claims.curves import Window
from goldilocks_zone.statistics import estimates
from goldilocks_zone.statistics.estimates import Estimate

LEAST_SHARE = 0.5  # of the draws; so many must have eigenvectors and a boundary
OUTER = "the outer edge of a draw lies beyond this run's radii"
INNER = "an edge of a draw lies beyond this run's radii"


def _at_minimum(cell: Cell, minimum: str) -> Cell:
    """The part of a cell at the `minimum` with this label, after the last epoch and with the first scaling.

    Raises NotTested if the radii are not in units of r_X or if the cell lacks the minimum.
    """
    if "x" not in cell.coords:
        raise NotTested("the study's radii are not in units of r_X")
    need(1, int((cell["minimum"] == minimum).sum()), f"minima called {minimum}")
    return cell.sel(minimum=minimum).isel(epoch=-1, scaling=0)


def shares(cell: Cell, variable: str) -> np.ndarray:
    """The curves E (draw, radius): the captured shares in `variable` of a cell at rank C − 1; NaN where missing.

    Raises NotTested if the run has no such variable or too few eigenvectors.
    """
    if variable not in cell:
        raise NotTested(f"this run has measured no {variable}")
    rank = int(cell["classes"].item()) - 1
    need(rank, cell.sizes["hessian_rank"], "eigenvectors")
    return cell[variable].sel(hessian_rank=rank).transpose("draw", "radius").values


def _known(*values: np.ndarray) -> np.ndarray:
    """Mask (n,) of the draws in which each of the arrays of curves `values`, (n, r), has a finite value.

    Raises NotTested if these are fewer than two or than LEAST_SHARE of the draws.
    """
    found = np.all([np.isfinite(each).any(1) for each in values], axis=0)
    what = f"of {len(found)} draws with eigenvectors and a boundary"
    need(max(2, math.ceil(LEAST_SHARE * len(found))), int(found.sum()), what)
    return found


def edge_of_band(x: np.ndarray, curve: np.ndarray, outer: bool) -> np.ndarray:
    """Reading (3,) of the x of the outer edge of the band or, unless `outer`, of its inner edge.

    The edge is read from a curve E (r,) over x (r,), where E is the captured share. If E does not fall to half its
    maximum, the edge lies between the last radius with a known E and the next one, where E is missing, and the reading
    spans these two. If there is no next one, the edge is censored beyond the grid.
    """
    top, step = int(np.nanargmax(curve)), 1 if outer else -1
    place = curves.crossing_from(top, x, curve, curve[top] / 2, outer)
    if np.isfinite(place):
        return np.full(3, place)
    last = top
    while 0 <= last + step < len(x) and np.isfinite(curve[last + step]):
        last += step
    if 0 <= last + step < len(x):
        ends = sorted((x[last], x[last + step]))
        return np.array([ends[0], np.mean(ends), ends[1]])
    return np.array([x[-1], x[-1], np.inf] if outer else [-np.inf, x[0], x[0]])


def _balance(x: np.ndarray, ratios: np.ndarray, top: int) -> np.ndarray:
    """Reading (3,) of the x at which log ‖G‖₂/‖H′‖₂ crosses 0, on the way from the grid point `top` to smaller x.

    `ratios` (r,) are these logarithms at `x` (r,). The reading is the grid point `top` itself if the logarithm there is
    not positive, and censored below the grid if there is no crossing.
    """
    if not ratios[top] > 0:
        return np.clip(estimates.point_of_grid(x, top, top), x[0], x[-1])
    place = curves.crossing_from(top, x, ratios, 0.0, outer=False)
    return np.full(3, place) if np.isfinite(place) else np.array([-np.inf, x[0], x[0]])


def inner_edge_gap(cell: Cell, minimum: str) -> list[Estimate]:
    """Mean over draws of the x at which ‖G‖₂/‖H′‖₂ crosses 1, minus the x of the inner edge of the Hessian's band.

    The crossing is the first one from the maximum of E towards smaller x, at the `minimum` with this label.
    """
    here = _at_minimum(cell, minimum)
    x, share = here["x"].values, shares(here, "captured_by_hessian")
    ratio: xr.DataArray = here["gauss_newton_top_eigenvalue"].sel(hessian_rank=1) / here["residual_spectral_norm"]
    ratios = np.log10(ratio.where(ratio > 0).transpose("draw", "radius").values)
    known = _known(share, ratios)
    edges = [edge_of_band(x, curve, outer=False) for curve in share[known]]
    places = [_balance(x, row, int(np.nanargmax(curve))) for row, curve in zip(ratios[known], share[known])]
    return [estimates.difference(np.transpose(places), np.transpose(edges), reason=INNER)]


def height_inside(cell: Cell, minimum: str, window: Window) -> list[Estimate]:
    """Mean over draws of E of G relative to its maximum over all radii, at each radius of the window.

    E is divided by its maximum in the same draw. `minimum` is the label of a network's state.
    """
    here = _at_minimum(cell, minimum)
    share = shares(here, "captured_by_gauss_newton")
    share = share[_known(share)]
    heights = xr.DataArray(share / np.nanmax(share, 1, keepdims=True), dims=("draw", "radius"), coords={"x": here["x"]})
    rows = curves.by_radius(curves.in_x(heights, window))
    return [estimates.mean(row[np.isfinite(row)]) for row in rows]


def outer_half_height_shift(cell: Cell, minimum: str) -> list[Estimate]:
    """Mean over draws of the x of the outer edge of the Hessian's band, minus the x of this edge in another study.

    `minimum` is the label of a network's state. The E of the other study, which the case names under `beside`, is the
    variable other_captured.
    """
    here = _at_minimum(cell, minimum)
    pair = [shares(here, variable) for variable in ("captured_by_hessian", "other_captured")]
    known, x = _known(*pair), here["x"].values
    edges = [np.transpose([edge_of_band(x, curve, outer=True) for curve in share[known]]) for share in pair]
    return [estimates.difference(*edges, reason=OUTER)]
