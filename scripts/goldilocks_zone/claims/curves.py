"""Curves over the radius: windows, locations of maxima, level crossings and correlations.

x stands for log10(r²/r_X²). A reading is an array (3,) for a number that is read off a grid, such as a grid of radii.
It has the lower end, the best value and the upper end of the number; see `statistics.estimates`. A reading is censored
where an end is infinite, because the number may lie beyond the grid.
"""

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import xarray as xr

from goldilocks_zone.claims.cells import NotTested, need
from goldilocks_zone.statistics import estimates
from goldilocks_zone.statistics.estimates import Estimate

WINDOW_SLACK = 1e-3
REACH = 2 / 3  # in x, to either side of the largest point
LEAST_CORRELATED = 10  # initialisations

Window = tuple[float, float]
Measured = TypeVar("Measured", xr.Dataset, xr.DataArray)


def in_x(cell: Measured, window: Window, least: int = 1) -> Measured:
    """Restrict `cell` to the radii in a `window` (first, last) of x = log10(r²/r_X²).

    Raises NotTested if there are fewer than `least` such radii, or if the radii are not in units of r_X.
    """
    if "x" not in cell.coords:
        raise NotTested("the study's radii are not in units of r_X")
    return _inside(cell, cell.coords["x"].values, "x", window, least)


def in_scale(cell: Measured, window: Window, least: int = 1) -> Measured:
    """Restrict `cell` to the radii α in a `window` (first, last) of log10 α.

    The radii of the cell's study are scale factors α of the initialisation. Raises NotTested if fewer than `least` of
    them lie in the window.
    """
    return _inside(cell, np.log10(cell.coords["radius"].values), "log10 α", window, least)


def _inside(cell: Measured, places: np.ndarray, letter: str, window: Window, least: int) -> Measured:
    first, last = window
    inside = (places >= first - WINDOW_SLACK) & (places <= last + WINDOW_SLACK)
    need(least, inside.sum(), f"radii with {letter} from {first:g} to {last:g}")
    return cell.isel(radius=inside)


def by_radius(array: xr.DataArray) -> np.ndarray:
    """Values of an `array` with the axes radius and draw, as a numpy array (radius, draw)."""
    return array.transpose("radius", "draw").values


def place_of_top(x: np.ndarray, values: np.ndarray, vertex: Callable[..., np.ndarray], name: str) -> Estimate:
    """Estimate of the x at which the mean over draws of `values` (r, draws) is largest, over the grid `x` (r,).

    `vertex` is the function that finds this x, `vertex_within_reach` or `vertex_of_neighbours`. The bootstrap resamples
    draws; `name` names its random stream.
    """
    estimate = estimates.bootstrapped(lambda sample: vertex(x, sample.mean(1))[1], values, name)
    reason = "the place of the highest value is censored: it is at an end of the radii"
    return estimates.read_off(estimate, vertex(x, values.mean(1)), reason)


def vertex_within_reach(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Reading (3,) of the x at which `y` (r,), values at the ascending `x` (r,), has its maximum.

    It is the vertex of a parabola, fitted to the points whose distance in x from the largest y is at most REACH.
    """
    return _vertex(x, y, np.abs(x - x[np.argmax(y)]) <= REACH + WINDOW_SLACK)


def vertex_of_neighbours(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Reading (3,) of the x at which `y` (r,), values at the ascending `x` (r,), has its maximum.

    It is the vertex of the parabola through the point with the largest y and its two neighbours.
    """
    return _vertex(x, y, np.abs(np.arange(len(x)) - np.argmax(y)) <= 1)


def _vertex(x: np.ndarray, y: np.ndarray, around: np.ndarray) -> np.ndarray:
    """Reading (3,) of the x of the vertex of a parabola, fitted to the points that the mask `around` (r,) selects.

    `y` (r,) are the values at the ascending `x` (r,). The fit is by least squares. If the vertex is a maximum between
    the selected points, all entries of the reading are its x. If the parabola has its maximum beyond them, the result
    is the reading of the last selected point on this side (see `estimates.point_of_grid`). Otherwise it is the reading
    of the point with the largest y. If several points share the largest y, the reading spans all of them, and nothing
    is fitted unless they are two neighbours. Nothing is fitted to fewer than three points. The result is NaN if any y
    is.
    """
    if np.isnan(y).any():
        return np.full(3, np.nan)
    largest = np.flatnonzero(y == y.max())
    if around.sum() >= 3 and largest[-1] - largest[0] <= 1:
        curvature, slope, _ = np.polyfit(x[around], y[around], 2)
        inside = np.flatnonzero(around)
        if curvature < 0:
            place = -slope / (2 * curvature)
            if x[inside[0]] < place < x[inside[-1]]:
                return np.full(3, place)
            largest = inside[[0]] if place <= x[inside[0]] else inside[[-1]]
    return estimates.point_of_grid(x, largest[0], largest[-1])


def outermost_crossing(x: np.ndarray, curve: np.ndarray, level: float, outer: bool) -> float:
    """The x at which a piecewise linear curve crosses a `level`: its last fall with `outer`, else its first rise.

    `curve` (r,) has the values at the ascending `x` (r,). NaN if there is no such crossing.
    """
    above = curve > level
    found = np.flatnonzero(above[:-1] & ~above[1:]) if outer else np.flatnonzero(~above[:-1] & above[1:])
    if not found.size:
        return np.nan
    i = found[-1] if outer else found[0]
    return interpolated(x, curve, level, i, i + 1)


def crossing_from(start: int, x: np.ndarray, curve: np.ndarray, level: float, outer: bool) -> float:
    """The x at which a piecewise linear curve first crosses a `level`, in one direction from a grid point.

    The search begins at the grid point of index `start`. It goes to larger x with `outer`, else to smaller x. `curve`
    (r,) has the values at the ascending `x` (r,). Segments with a non-finite end are skipped. NaN if there is no
    crossing.
    """
    step = 1 if outer else -1
    for i in range(start, len(x) - 1 if outer else 0, step):
        j = i + step
        if np.isfinite(curve[[i, j]]).all() and (curve[i] > level) != (curve[j] > level):
            return interpolated(x, curve, level, i, j)
    return np.nan


def interpolated(x: np.ndarray, curve: np.ndarray, level: float, i: int, j: int) -> float:
    """The x at which a curve passes a `level`, by linear interpolation between its points of indices `i` and `j`."""
    return float(x[i] + (curve[i] - level) / (curve[i] - curve[j]) * (x[j] - x[i]))


def outermost_crossings(values: xr.DataArray, level: float, outer: bool) -> np.ndarray:
    """The x (draw,) of the `outermost_crossing` of each draw's curve; NaN for draws without one.

    `values` has the axes radius and draw, and the coordinate x. `level` and `outer` are as in `outermost_crossing`.
    """
    return np.array([outermost_crossing(values["x"].values, curve, level, outer) for curve in by_radius(values).T])


def for_correlation(*rows: np.ndarray) -> np.ndarray:
    """Stack `rows`, arrays (n,) with a value for each of n initialisations, into an array (rows, n).

    Raises NotTested if there are fewer than LEAST_CORRELATED initialisations.
    """
    need(LEAST_CORRELATED, len(rows[0]), "initialisations")
    return np.stack(rows)


def with_edge(estimate: Estimate, variable: object, edge: str, remark: str = "") -> list[Estimate]:
    """Check that an edge exists, and return the `estimate` of its location as a list, as estimators of claims do.

    `estimate` is by bootstrap. Its standard error is NaN if some resample has no edge; NotTested is raised in this
    case. The message names the `variable` and the `edge`, and ends with the `remark`.
    """
    if not np.isfinite(estimate.standard_error):
        raise NotTested(f"the mean {variable} has no {edge} edge on this run's radii{remark}")
    return [estimate]


def partial_correlation(values: np.ndarray) -> float:
    """Pearson correlation of the first two rows of `values` (rows, n) after regressing out the other rows, if any."""
    first, second, *others = values
    basis = np.array([np.ones_like(first), *others]).T
    residuals = [row - basis @ np.linalg.lstsq(basis, row, rcond=None)[0] for row in (first, second)]
    return float(np.corrcoef(residuals)[0, 1])


def partial_rank_correlation(values: np.ndarray) -> float:
    """Spearman correlation of the first two rows of `values` (rows, n), partial if there are other rows.

    The ranks of the other rows are regressed out of the ranks of the first two.
    """
    return partial_correlation(np.array([estimates.ranks(row) for row in values]))


def apart(places: np.ndarray, values: np.ndarray, curve: int, others: list[int]) -> np.ndarray:
    """Differences (m,) of one curve from the mean of other curves, at those of its places that all others cover.

    `values` and `places`, both (curves, r), have one curve in each row: values over ascending places. `curve` is the
    index of the row of the first curve, and `others` are the indices of the others. The others are interpolated
    linearly to the places of the first. Of these, m places lie within the range of the places of each of the others.
    """
    low, high = places[others].min(1).max(), places[others].max(1).min()
    inside = (places[curve] >= low) & (places[curve] <= high)
    at = places[curve][inside]
    return values[curve][inside] - np.mean([np.interp(at, places[j], values[j]) for j in others], axis=0)


def ratio_of_means(pair: np.ndarray) -> float:
    """Mean over draws of the first row of `pair` (2, draws), divided by the mean of its second row."""
    return float(pair[0].mean() / pair[1].mean())
