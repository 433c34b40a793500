"""What claims speak about: functions of one cell of a study that return estimates over initialisations.

A cell is one dataset, network, subspace and number of examples. Where a claim speaks of every radius of a
window there is one estimate per radius. x stands for log10(r²/r_X²); a case's keys are those of claims.yaml.
"""

from collections.abc import Callable

import numpy as np
import xarray as xr

from goldilocks_zone.models.labels import depth
from goldilocks_zone.statistics import estimates
from goldilocks_zone.statistics.estimates import Estimate
from goldilocks_zone.theory.laws import finite_dimension_law

WINDOW_SLACK = 1e-3
REACH = 2 / 3  # in x: what the parabola through the top of a curve is fitted to
LEAST_CORRELATED = 10  # initialisations


class NotTested(Exception):
    """A case cannot be tested on what this run computed; the message says why."""


def _at_dimension(cell: xr.Dataset, dimension: int) -> xr.Dataset:
    if dimension not in cell["dimension"].values:
        raise NotTested(f"this run has no dimension {dimension} in its study")
    return cell.sel(dimension=dimension)


def window(cell: xr.Dataset | xr.DataArray, case: dict, least: int = 1) -> xr.Dataset | xr.DataArray:
    """The radii of a case's window [first, last] in x. Raises NotTested if they are fewer than `least`."""
    if "x" not in cell.coords:
        raise NotTested("the study's radii are not in units of r_X")
    x = cell["x"].values
    first, last = case["window"]
    inside = (x >= first - WINDOW_SLACK) & (x <= last + WINDOW_SLACK)
    if inside.sum() < least:
        raise NotTested(f"this run has {inside.sum()} radii with x from {first:g} to {last:g}, {least} are needed")
    return cell.isel(radius=inside)


def _resolution(cell: xr.Dataset, case: dict) -> float:
    """The step in which the values of a case come: a fraction of d eigenvalues, averaged over planes.

    Of two dimensions it is the coarser one's.
    """
    if case["variable"] != "fraction_positive":
        return 0.0
    dimension = case["dimension"] if "dimension" in case else min(case["dimensions"])
    return 1 / (dimension * int(cell.attrs["planes"]))


def at_every_radius(cell: xr.Dataset, case: dict, name: str) -> list[Estimate]:
    """A variable at each radius of the window."""
    values = _at_dimension(window(cell, case), case["dimension"])[case["variable"]]
    return [estimates.mean(row, _resolution(cell, case)) for row in _by_radius(values)]


def mean_over_radii(cell: xr.Dataset, case: dict, name: str) -> list[Estimate]:
    """A variable averaged over the window's radii, draw by draw."""
    selected = window(cell, case)[case["variable"]]
    if "dimension" in selected.dims:
        selected = _at_dimension(window(cell, case), case["dimension"])[case["variable"]]
    return [estimates.mean(selected.mean("radius").values, _resolution(cell, case))]


def difference_over_dimensions(cell: xr.Dataset, case: dict, name: str) -> list[Estimate]:
    """A variable at the first of two dimensions minus at the second, paired over draws, at each radius."""
    here = window(cell, case)
    first, second = (_at_dimension(here, d)[case["variable"]] for d in case["dimensions"])
    pairs = zip(_by_radius(first), _by_radius(second))
    return [estimates.difference(*pair, _resolution(cell, case)) for pair in pairs]


def finite_dimension_error(cell: xr.Dataset, case: dict, name: str) -> list[Estimate]:
    """Measured κ_d over the one predicted from each θ's own full-space ratio, minus 1; mean over the window."""
    here = window(cell, case)
    if "full_trace" not in here:
        raise NotTested("the study has no full-space probes")
    measured = _at_dimension(here, case["dimension"])["trace_over_norm"]
    predicted = finite_dimension_law(here["full_trace"] / here["full_frobenius_norm"], case["dimension"])
    return [estimates.mean((measured / predicted - 1).mean("radius").values)]


def peak_location(cell: xr.Dataset, case: dict, name: str) -> list[Estimate]:
    """x at the top of the mean curve: vertex of the parabola through the radii around its maximum."""
    here = _at_dimension(window(cell, case, least=3), case["dimension"])
    return [place_of_top(here["x"].values, _by_radius(here[case["variable"]]), vertex, name)]


def place_of_top(
    x: np.ndarray, values: np.ndarray, vertex: Callable[[np.ndarray, np.ndarray], np.ndarray], name: str
) -> Estimate:
    """The place x (r,) of the maximum of the mean over draws of values (r, draws), as `vertex` reads it off a curve."""
    estimate = estimates.bootstrapped(lambda sample: vertex(x, sample.mean(1))[1], values, name)
    reason = "the place of the highest value is censored: it is at an end of the radii"
    return estimates.read_off(estimate, vertex(x, values.mean(1)), reason)


def vertex(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Reading of the place of the maximum of y(x), by the parabola through the points within REACH of the largest."""
    return top_of_parabola(x, y, np.abs(x - x[np.argmax(y)]) <= REACH + WINDOW_SLACK)


def top_of_parabola(x: np.ndarray, y: np.ndarray, around: np.ndarray) -> np.ndarray:
    """Reading of the place of the maximum of y(x): vertex of the least-squares parabola through some of the points.

    A point of the grid where they are too few, have no maximum among them, or more than two of all are largest; NaN
    where a value is missing.
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


def coefficient_of_variation(cell: xr.Dataset, case: dict, name: str) -> list[Estimate]:
    """Spread over draws relative to the mean at each radius: `part` total (a draw with one plane) or theta."""
    here = _at_dimension(window(cell, case), case["dimension"])
    values = _by_radius(here[case["variable"]])
    planes = int(here.attrs["planes"])
    if planes < 2:
        raise NotTested("the study has one plane per initialisation: the parts cannot be told apart")
    variances = _by_radius(here[f"{case['variable']}_plane_variance"])
    return [
        estimates.coefficients_of_variation(row, spread, planes)[case["part"]] for row, spread in zip(values, variances)
    ]


def loss_exponent(cell: xr.Dataset, case: dict, name: str) -> list[Estimate]:
    """Slope of log10 loss over log10 r in the window, draw by draw."""
    here = window(cell, case, least=3)
    return [estimates.mean(np.polyfit(here["x"].values / 2, np.log10(_by_radius(here["loss"])), 1)[0])]


def relative_trace_slope(cell: xr.Dataset, case: dict, name: str) -> list[Estimate]:
    """Slope of Tr(H)/r over ln r, relative to its mean: 0 where Tr(H) ∝ r, 1 where Tr(H) ∝ r².

    Only at radii where on average at least `least_effective_examples` carry the Gauss–Newton trace.
    """
    here = _at_dimension(window(cell, case), case["dimension"])
    carried = here["effective_examples"].mean("draw").values >= case["least_effective_examples"]
    if carried.sum() < 3:
        raise NotTested(
            f"{carried.sum()} radii have at least {case['least_effective_examples']} effective examples, 3 are needed"
        )
    here = here.isel(radius=carried)
    ratio = _by_radius(here["trace"]) / here["radius"].values[:, None]
    slopes = np.polyfit(np.log(here["radius"].values), ratio, 1)[0]
    return [estimates.mean(slopes / ratio.mean(axis=0))]


def outer_edge_shift(cell: xr.Dataset, case: dict, name: str) -> list[Estimate]:
    """Outer x at which a variable falls through `threshold`: at the second number of examples minus at the first."""
    for count in case["examples"]:
        if count not in cell["examples"].values:
            raise NotTested(f"this run has no examples {count} in its study")
    here = _at_dimension(window(cell, case), case["dimension"])[case["variable"]]
    first, second = (_outer_crossings(here.sel(examples=count), case["threshold"]) for count in case["examples"])
    return [estimates.difference(second, first)]


def _outer_crossings(values: xr.DataArray, threshold: float) -> np.ndarray:
    """Of each draw: the largest x at which the curve falls through the threshold, linearly interpolated."""
    return _crossings(values, threshold, outer=True)


def _crossings(values: xr.DataArray, threshold: float, outer: bool) -> np.ndarray:
    """Of each draw: the place of an edge. Raises NotTested if a draw has none."""
    found = crossings(values, threshold, outer)
    if np.isnan(found).any():
        way = "fall" if outer else "rise"
        raise NotTested(f"a draw's {values.name} does not {way} through {threshold:g} on this run's radii")
    return found


def crossings(values: xr.DataArray, threshold: float, outer: bool) -> np.ndarray:
    """Of each draw: the place of an edge in x, NaN for a draw without."""
    return np.array([_edge(values["x"].values, curve, threshold, outer) for curve in _by_radius(values).T])


def _edge(x: np.ndarray, curve: np.ndarray, threshold: float, outer: bool) -> float:
    """The last x at which a curve falls through the threshold, or the first at which it rises; NaN if it does not.

    Linearly interpolated between radii.
    """
    above = curve > threshold
    found = np.flatnonzero(above[:-1] & ~above[1:]) if outer else np.flatnonzero(~above[:-1] & above[1:])
    if not found.size:
        return np.nan
    i = found[-1] if outer else found[0]
    return float(x[i] + (curve[i] - threshold) / (curve[i] - curve[i + 1]) * (x[i + 1] - x[i]))


def edge_exponent(cell: xr.Dataset, case: dict, name: str) -> list[Estimate]:
    """Slope over log10 N of the x at which the mean curve has an edge; `edge` inner or outer, at a threshold.

    `relative_to_depth`: over 2/n, minus 1, n the number of weight layers (by1). Resampled over whole initialisations:
    far out the curve of a single one is jagged.
    """
    for count in case["examples"]:
        if count not in cell["examples"].values:
            raise NotTested(f"this run has no examples {count} in its study")
    here = _at_dimension(window(cell, case), case["dimension"])[case["variable"]].sel(examples=case["examples"])
    x, samples = here["x"].values, here.transpose("examples", "radius", "draw").values
    expected = 2 / _depth(cell) if case.get("relative_to_depth") else None

    def slope(sample):
        edges = [_edge(x, curve, case["threshold"], case["edge"] == "outer") for curve in sample.mean(-1)]
        found = np.polyfit(np.log10(case["examples"]), edges, 1)[0]
        return found if expected is None else found / expected - 1

    estimate = estimates.bootstrapped(slope, samples, name)
    if not np.isfinite(estimate.standard_error):
        raise NotTested(f"the mean {here.name} has no {case['edge']} edge on this run's radii for every N")
    return [estimate]


def edge_place(cell: xr.Dataset, case: dict, name: str) -> list[Estimate]:
    """x at which the mean curve of a variable has its inner or outer `edge` at a threshold."""
    here = _at_dimension(window(cell, case), case["dimension"])[case["variable"]]
    x, outer = here["x"].values, case["edge"] == "outer"
    estimate = estimates.bootstrapped(
        lambda sample: _edge(x, sample.mean(1), case["threshold"], outer), _by_radius(here), name
    )
    if not np.isfinite(estimate.standard_error):
        raise NotTested(f"the mean {here.name} has no {case['edge']} edge on this run's radii")
    return [estimate]


def loss_exponent_error(cell: xr.Dataset, case: dict, name: str) -> list[Estimate]:
    """Slope of log10 loss over log10 r in the window minus the number of weight layers, draw by draw."""
    here = window(cell, case, least=3)
    slopes = np.polyfit(here["x"].values / 2, np.log10(_by_radius(here["loss"])), 1)[0]
    return [estimates.mean(slopes - _depth(cell))]


def _depth(cell: xr.Dataset) -> int:
    label = cell["network"].item()
    found = depth(label)
    if found is None:
        raise NotTested(f"the number of weight layers of {label} is not known")
    return found


def peak_ratio(cell: xr.Dataset, case: dict, name: str) -> list[Estimate]:
    """Largest value of a variable over the window for the first of two networks, over that of the second."""
    here = _at_dimension(window(cell, case), case["dimension"])[case["variable"]]
    for network in case["networks"]:
        if network not in here["network"].values:
            raise NotTested(f"this run has no network {network} in its study")
    first, second = (here.sel(network=network).max("radius").values for network in case["networks"])
    return [estimates.mean(first / second)]


def correlation(cell: xr.Dataset, case: dict, name: str) -> list[Estimate]:
    """Pearson correlation over initialisations of two variables at one radius; `given` a third, the partial one."""
    here = window(cell, case)
    here = _at_dimension(here, case["dimension"]).isel(radius=0)
    names = [*case["variables"], *case.get("given", [])]
    values = np.array([here[variable].values for variable in names])
    if values.shape[1] < LEAST_CORRELATED:
        raise NotTested(f"this run has {values.shape[1]} initialisations, {LEAST_CORRELATED} are needed")
    return [estimates.bootstrapped(partial_correlation, values, name)]


def partial_correlation(values: np.ndarray) -> float:
    """Correlation of the first two rows, the linear part of the others taken off."""
    first, second, *others = values
    basis = np.array([np.ones_like(first), *others]).T
    residuals = [row - basis @ np.linalg.lstsq(basis, row, rcond=None)[0] for row in (first, second)]
    return float(np.corrcoef(residuals)[0, 1])


def collapse_gain(cell: xr.Dataset, case: dict, name: str) -> list[Estimate]:
    """How much better a variable over networks (or another axis) is foretold by σ_z than by r/r_X, draw by draw.

    Leave one out: the left-out curve is read off the mean of the others', as a function of log10 σ_z and of x.
    The mean absolute error of the latter minus that of the former, over the window's radii where both can be read.
    """
    (axis,) = case["over"]
    here = _at_dimension(window(cell, case, least=3), case["dimension"])
    if here.sizes[axis] < 3:
        raise NotTested(f"this run has {here.sizes[axis]} values of {axis} in its study, 3 are needed")
    order = (axis, "radius", "draw")
    values = here[case["variable"]].transpose(*order).values
    spread = np.log10(here["logits_std"].transpose(*order).values)
    x = np.broadcast_to(here["x"].values[None, :, None], values.shape)
    gains = []
    for draw in range(values.shape[2]):
        errors = [_left_out_error(place[..., draw], values[..., draw]) for place in (x, spread)]
        gains.append(errors[0] - errors[1])
    return [estimates.mean(np.array(gains))]


def _left_out_error(places: np.ndarray, values: np.ndarray) -> float:
    """Mean absolute error of each curve (row) read off the mean of all others, within the range of all of them."""
    errors = []
    for i in range(len(values)):
        others = [j for j in range(len(values)) if j != i]
        low, high = max(places[j].min() for j in others), min(places[j].max() for j in others)
        inside = (places[i] >= low) & (places[i] <= high)
        foretold = np.mean([np.interp(places[i][inside], places[j], values[j]) for j in others], axis=0)
        errors.append(np.abs(foretold - values[i][inside]))
    return float(np.concatenate(errors).mean())


def plateau_error(cell: xr.Dataset, case: dict, name: str) -> list[Estimate]:
    """κ_d in the window over the finite-d law at κ = √(C − 1), C the number of classes, minus 1 (by5)."""
    here = _at_dimension(window(cell, case), case["dimension"])
    predicted = finite_dimension_law(np.sqrt(cell["class_count"].item() - 1), case["dimension"])
    return [estimates.mean(here["trace_over_norm"].mean("radius").values / predicted - 1)]


def layer_trace_error(cell: xr.Dataset, case: dict, name: str) -> list[Estimate]:
    """σ_l² E Tr H_ll over E[Σ_k p_k z_k − z_y], minus 1, for each layer and radius: a ratio of means (by6)."""
    here = window(cell, case)
    if "layer_trace" not in here:
        raise NotTested("the study has no layer-wise probes")
    functional = here["radial_derivative"] / _depth(cell)
    found = []
    for radius in here["radius"].values:
        traces = here["layer_trace"].sel(radius=radius).dropna("layer", how="all").transpose("layer", "draw").values
        for trace in traces:
            pair = np.array([trace, functional.sel(radius=radius).values])
            found.append(estimates.bootstrapped(lambda sample: ratio_of_means(sample) - 1, pair, name))
    return found


def ratio_along(cell: xr.Dataset, case: dict, name: str) -> list[Estimate]:
    """A variable at the first of two values along an axis over that at the second, minus 1: a ratio of means."""
    (axis,) = case["over"]
    here = _at_dimension(window(cell, case), case["dimension"])[case["variable"]]
    for value in case["values"]:
        if value not in here[axis].values:
            raise NotTested(f"this run has no {axis} {value} in its study")
    first, second = (_by_radius(here.sel({axis: value})) for value in case["values"])
    return [
        estimates.bootstrapped(lambda sample: ratio_of_means(sample) - 1, np.array(pair), name)
        for pair in zip(first, second)
    ]


def ratio_of_means(pair: np.ndarray) -> float:
    """Mean over draws of the first row of (2, draws) over that of the second."""
    return float(pair[0].mean() / pair[1].mean())


def _by_radius(array: xr.DataArray) -> np.ndarray:
    return array.transpose("radius", "draw").values


QUANTITIES: dict[str, Callable[[xr.Dataset, dict, str], list[Estimate]]] = {
    function.__name__: function
    for function in (
        at_every_radius,
        mean_over_radii,
        difference_over_dimensions,
        finite_dimension_error,
        peak_location,
        coefficient_of_variation,
        loss_exponent,
        relative_trace_slope,
        outer_edge_shift,
        edge_exponent,
        edge_place,
        loss_exponent_error,
        peak_ratio,
        correlation,
        collapse_gain,
        plateau_error,
        layer_trace_error,
        ratio_along,
    )
}
