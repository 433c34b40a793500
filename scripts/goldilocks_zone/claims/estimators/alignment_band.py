"""Estimators for the band of radii in which the Hessian's top eigenvectors span the normals of the decision boundary.

E is the share of a normal's squared norm that lies in the span of the first C − 1 eigenvectors, as a mean over normals
of the boundary; C is the number of classes. The eigenvectors are those of the Hessian or of its Gauss–Newton part G. H′
is the residual part of the Hessian. E is a curve over x = log10(r²/r_X²). On both sides of the maximum of E, the band
ends where E first falls to half the maximum: its inner edge is at smaller x, its outer edge at larger x. E is missing
where G vanishes. If E is missing before it falls to half the maximum, the edge is only known to lie between two radii.
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
    """Results of a cell at the `minimum` with this label, after the last epoch and with the first scaling.

    Raises NotTested if the radii are not in units of r_X or if the cell lacks the minimum.
    """
    if "x" not in cell.coords:
        raise NotTested("the study's radii are not in units of r_X")
    need(1, int((cell["minimum"] == minimum).sum()), f"minima called {minimum}")
    return cell.sel(minimum=minimum).isel(epoch=-1, scaling=0)


def shares(cell: Cell, variable: str) -> np.ndarray:
    """Curves E (draw, radius): the shares in the `variable` of a cell at rank C − 1, for C classes; NaN where missing.

    Raises NotTested if the run has no such variable or too few eigenvectors.
    """
    if variable not in cell:
        raise NotTested(f"this run has measured no {variable}")
    rank = int(cell["classes"].item()) - 1
    need(rank, cell.sizes["hessian_rank"], "eigenvectors")
    return cell[variable].sel(hessian_rank=rank).transpose("draw", "radius").values


def _known(*values: np.ndarray) -> np.ndarray:
    """Mask (n,) of the draws in which each of the arrays in `values`, curves (n, r), is finite at some radius.

    Raises NotTested if these are fewer than two draws or less than the share LEAST_SHARE of all draws.
    """
    found = np.all([np.isfinite(each).any(1) for each in values], axis=0)
    what = f"of {len(found)} draws with eigenvectors and a boundary"
    need(max(2, math.ceil(LEAST_SHARE * len(found))), int(found.sum()), what)
    return found


def edge_of_band(x: np.ndarray, curve: np.ndarray, outer: bool) -> np.ndarray:
    """Reading (3,) of the x of the outer edge of the band or, unless `outer`, of its inner edge.

    `curve` (r,) is E, the captured share, over the ascending `x` (r,). If E does not fall to half its maximum, but is
    missing at a radius on this side of the maximum, the reading spans the interval between the first such radius and
    the radius before it. If E is known up to the end of the grid, the reading is censored: the edge lies beyond this
    end.
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
    """Reading (3,) of the x at which log ‖G‖₂/‖H′‖₂ crosses 0, on the way from a grid point to smaller x.

    `ratios` (r,) are these logarithms at the ascending `x` (r,), and `top` is the index of the grid point. If the
    logarithm is not positive there, the result is the reading of this grid point. If there is no crossing, the reading
    is censored below the grid.
    """
    if not ratios[top] > 0:
        return np.clip(estimates.point_of_grid(x, top, top), x[0], x[-1])
    place = curves.crossing_from(top, x, ratios, 0.0, outer=False)
    return np.full(3, place) if np.isfinite(place) else np.array([-np.inf, x[0], x[0]])


def inner_edge_gap(cell: Cell, minimum: str) -> list[Estimate]:
    """Mean over draws of the x at which ‖G‖₂/‖H′‖₂ crosses 1, minus the x of the inner edge of the Hessian's band.

    The crossing is the first one on the way from the maximum of E, for the Hessian's eigenvectors, to smaller x.
    `minimum` is the label of a network's state.
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
    """Mean over draws of E relative to its maximum, for the eigenvectors of G, at each radius of the window.

    E is divided by its maximum over all radii of the same draw. `minimum` is the label of a network's state.
    """
    here = _at_minimum(cell, minimum)
    share = shares(here, "captured_by_gauss_newton")
    share = share[_known(share)]
    heights = xr.DataArray(share / np.nanmax(share, 1, keepdims=True), dims=("draw", "radius"), coords={"x": here["x"]})
    rows = curves.by_radius(curves.in_x(heights, window))
    return [estimates.mean(row[np.isfinite(row)]) for row in rows]


def outer_half_height_shift(cell: Cell, minimum: str) -> list[Estimate]:
    """Mean over draws of the x of the outer edge of the Hessian's band, minus the x of this edge in another study.

    The case names the other study under `beside`, which adds its E to the cell as the variable other_captured.
    `minimum` is the label of a network's state.
    """
    here = _at_minimum(cell, minimum)
    pair = [shares(here, variable) for variable in ("captured_by_hessian", "other_captured")]
    known, x = _known(*pair), here["x"].values
    own, other = (np.transpose([edge_of_band(x, curve, outer=True) for curve in share[known]]) for share in pair)
    return [estimates.difference(own, other, reason=OUTER)]
