"""Estimators for claims about the curvature on random planes, over radii, dimensions and numbers of examples.

There is one estimate for each radius of the window where a claim is about every one. x stands for log10(r²/r_X²).
"""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from goldilocks_zone.claims import curves
from goldilocks_zone.claims.cells import NotTested, require
from goldilocks_zone.claims.curves import Window
from goldilocks_zone.models.labels import depth
from goldilocks_zone.statistics import estimates
from goldilocks_zone.statistics.estimates import Estimate
from goldilocks_zone.theory.laws import finite_dimension_law


def _at_dimension(cell: xr.Dataset, dimension: int) -> xr.Dataset:
    require(cell, "dimension", dimension)
    return cell.sel(dimension=dimension)


def _selected(cell: xr.Dataset, dimension: int, window: Window, least: int = 1) -> xr.Dataset:
    return _at_dimension(curves.in_x(cell, window, least), dimension)


def _resolution(cell: xr.Dataset, variable: str, dimension: int) -> float:
    """The step of a variable's values: that of a fraction of d eigenvalues, averaged over planes."""
    return 1 / (dimension * int(cell.attrs["planes"])) if variable == "fraction_positive" else 0.0


def at_every_radius(cell: xr.Dataset, variable: str, dimension: int, window: Window) -> list[Estimate]:
    """A variable at each radius of the window."""
    values = _selected(cell, dimension, window)[variable]
    return [estimates.mean(row, _resolution(cell, variable, dimension)) for row in curves.by_radius(values)]


def mean_over_radii(cell: xr.Dataset, variable: str, window: Window, dimension: int | None = None) -> list[Estimate]:
    """A variable averaged over the window's radii, draw by draw."""
    selected = curves.in_x(cell, window)[variable]
    if "dimension" in selected.dims:
        selected = _selected(cell, dimension, window)[variable]
    return [estimates.mean(selected.mean("radius").values, _resolution(cell, variable, dimension))]


def difference_over_dimensions(
    cell: xr.Dataset, variable: str, dimensions: Sequence[int], window: Window
) -> list[Estimate]:
    """A variable at the first of two dimensions minus at the second, paired over draws, at each radius."""
    here = curves.in_x(cell, window)
    first, second = (_at_dimension(here, d)[variable] for d in dimensions)
    pairs = zip(curves.by_radius(first), curves.by_radius(second))
    step = _resolution(cell, variable, min(dimensions))
    return [estimates.difference(*pair, step) for pair in pairs]


def finite_dimension_error(cell: xr.Dataset, dimension: int, window: Window) -> list[Estimate]:
    """Measured κ_d over the one predicted from each θ's own full-space ratio, minus 1; mean over the window."""
    here = curves.in_x(cell, window)
    if "full_trace" not in here:
        raise NotTested("the study has no full-space probes")
    measured = _at_dimension(here, dimension)["trace_over_norm"]
    predicted = finite_dimension_law(here["full_trace"] / here["full_frobenius_norm"], dimension)
    return [estimates.mean((measured / predicted - 1).mean("radius").values)]


def peak_location(cell: xr.Dataset, variable: str, dimension: int, window: Window, name: str) -> list[Estimate]:
    """x at the top of the mean curve: vertex of the parabola through the radii around its maximum."""
    here = _selected(cell, dimension, window, least=3)
    return [curves.place_of_top(here["x"].values, curves.by_radius(here[variable]), curves.vertex_within_reach, name)]


def coefficient_of_variation(
    cell: xr.Dataset, variable: str, dimension: int, window: Window, part: str
) -> list[Estimate]:
    """Spread over draws relative to the mean at each radius: `part` total (a draw with one plane) or theta."""
    here = _selected(cell, dimension, window)
    values = curves.by_radius(here[variable])
    planes = int(here.attrs["planes"])
    if planes < 2:
        raise NotTested("the study has one plane per initialisation: the parts cannot be told apart")
    variances = curves.by_radius(here[f"{variable}_plane_variance"])
    return [estimates.coefficients_of_variation(row, spread, planes)[part] for row, spread in zip(values, variances)]


def loss_exponent(cell: xr.Dataset, window: Window) -> list[Estimate]:
    """Slope of log10 loss over log10 r in the window, draw by draw."""
    return [estimates.mean(_loss_slopes(cell, window))]


def loss_exponent_error(cell: xr.Dataset, window: Window) -> list[Estimate]:
    """Slope of log10 loss over log10 r in the window minus the number of weight layers, draw by draw."""
    return [estimates.mean(_loss_slopes(cell, window) - _depth(cell))]


def _loss_slopes(cell: xr.Dataset, window: Window) -> np.ndarray:
    here = curves.in_x(cell, window, least=3)
    return np.polyfit(here["x"].values / 2, np.log10(curves.by_radius(here["loss"])), 1)[0]


def relative_trace_slope(
    cell: xr.Dataset, dimension: int, window: Window, least_effective_examples: int
) -> list[Estimate]:
    """Slope of Tr(H)/r over ln r, relative to its mean: 0 where Tr(H) ∝ r, 1 where Tr(H) ∝ r².

    Only at radii where on average at least `least_effective_examples` carry the Gauss–Newton trace.
    """
    here = _selected(cell, dimension, window)
    carried = here["effective_examples"].mean("draw").values >= least_effective_examples
    if carried.sum() < 3:
        raise NotTested(
            f"{carried.sum()} radii have at least {least_effective_examples} effective examples, 3 are needed"
        )
    here = here.isel(radius=carried)
    ratio = curves.by_radius(here["trace"]) / here["radius"].values[:, None]
    slopes = np.polyfit(np.log(here["radius"].values), ratio, 1)[0]
    return [estimates.mean(slopes / ratio.mean(axis=0))]


def outer_edge_shift(
    cell: xr.Dataset, variable: str, dimension: int, window: Window, examples: Sequence[int], threshold: float
) -> list[Estimate]:
    """Outer x at which a variable falls through `threshold`: at the second number of examples minus at the first."""
    require(cell, "examples", *examples)
    here = _selected(cell, dimension, window)[variable]
    first, second = (_outer_edges(here.sel(examples=count), threshold) for count in examples)
    return [estimates.difference(second, first)]


def _outer_edges(values: xr.DataArray, threshold: float) -> np.ndarray:
    """The place of the outer edge of each draw. Raises NotTested if a draw has none."""
    found = curves.outermost_crossings(values, threshold, outer=True)
    if np.isnan(found).any():
        raise NotTested(f"a draw's {values.name} does not fall through {threshold:g} on this run's radii")
    return found


def edge_exponent(
    cell: xr.Dataset,
    variable: str,
    dimension: int,
    window: Window,
    examples: Sequence[int],
    threshold: float,
    edge: str,
    name: str,
    relative_to_depth: bool = False,
) -> list[Estimate]:
    """Slope over log10 N of the x at which the mean curve has an edge; `edge` inner or outer, at a threshold.

    `relative_to_depth`: over 2/n, minus 1, n the number of weight layers (by1). Resampled over whole initialisations:
    far out the curve of a single one is jagged.
    """
    require(cell, "examples", *examples)
    here = _selected(cell, dimension, window)[variable].sel(examples=examples)
    x, samples = here["x"].values, here.transpose("examples", "radius", "draw").values
    expected = 2 / _depth(cell) if relative_to_depth else None

    def slope(sample):
        edges = [curves.outermost_crossing(x, curve, threshold, edge == "outer") for curve in sample.mean(-1)]
        found = np.polyfit(np.log10(examples), edges, 1)[0]
        return found if expected is None else found / expected - 1

    estimate = estimates.bootstrapped(slope, samples, name)
    if not np.isfinite(estimate.standard_error):
        raise NotTested(f"the mean {here.name} has no {edge} edge on this run's radii for every N")
    return [estimate]


def edge_place(
    cell: xr.Dataset, variable: str, dimension: int, window: Window, threshold: float, edge: str, name: str
) -> list[Estimate]:
    """x at which the mean curve of a variable has its inner or outer `edge` at a threshold."""
    here = _selected(cell, dimension, window)[variable]
    x, outer = here["x"].values, edge == "outer"
    estimate = estimates.bootstrapped(
        lambda sample: curves.outermost_crossing(x, sample.mean(1), threshold, outer), curves.by_radius(here), name
    )
    if not np.isfinite(estimate.standard_error):
        raise NotTested(f"the mean {here.name} has no {edge} edge on this run's radii")
    return [estimate]


def _depth(cell: xr.Dataset) -> int:
    label = cell["network"].item()
    found = depth(label)
    if found is None:
        raise NotTested(f"the number of weight layers of {label} is not known")
    return found


def peak_ratio(
    cell: xr.Dataset, variable: str, dimension: int, window: Window, networks: Sequence[str]
) -> list[Estimate]:
    """Largest value of a variable over the window for the first of two networks, over that of the second."""
    here = _selected(cell, dimension, window)[variable]
    require(here, "network", *networks)
    first, second = (here.sel(network=network).max("radius").values for network in networks)
    return [estimates.mean(first / second)]


def correlation(
    cell: xr.Dataset, variables: Sequence[str], dimension: int, window: Window, name: str, given: Sequence[str] = ()
) -> list[Estimate]:
    """Pearson correlation over initialisations of two variables at one radius; `given` a third, the partial one."""
    here = _selected(cell, dimension, window).isel(radius=0)
    values = np.array([here[variable].values for variable in (*variables, *given)])
    curves.refuse_few(values)
    return [estimates.bootstrapped(curves.partial_correlation, values, name)]


def collapse_gain(
    cell: xr.Dataset, variable: str, dimension: int, window: Window, over: Sequence[str]
) -> list[Estimate]:
    """How much better a variable over networks (or another axis) is predicted by σ_z than by r/r_X, draw by draw.

    Leave one out: the left-out curve is read off the mean of the others', as a function of log10 σ_z and of x.
    The mean absolute error of the latter minus that of the former, over the window's radii where both can be read.
    """
    (axis,) = over
    here = _selected(cell, dimension, window, least=3)
    if here.sizes[axis] < 3:
        raise NotTested(f"this run has {here.sizes[axis]} values of {axis} in its study, 3 are needed")
    order = (axis, "radius", "draw")
    values = here[variable].transpose(*order).values
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
        predicted = np.mean([np.interp(places[i][inside], places[j], values[j]) for j in others], axis=0)
        errors.append(np.abs(predicted - values[i][inside]))
    return float(np.concatenate(errors).mean())


def plateau_error(cell: xr.Dataset, dimension: int, window: Window) -> list[Estimate]:
    """κ_d in the window over the finite-d law at κ = √(C − 1), C the number of classes, minus 1 (by5)."""
    here = _selected(cell, dimension, window)
    predicted = finite_dimension_law(np.sqrt(cell["class_count"].item() - 1), dimension)
    return [estimates.mean(here["trace_over_norm"].mean("radius").values / predicted - 1)]


def layer_trace_error(cell: xr.Dataset, window: Window, name: str) -> list[Estimate]:
    """σ_l² E Tr H_ll over E[Σ_k p_k z_k − z_y], minus 1, for each layer and radius: a ratio of means (by6)."""
    here = curves.in_x(cell, window)
    if "layer_trace" not in here:
        raise NotTested("the study has no layer-wise probes")
    functional = here["radial_derivative"] / _depth(cell)
    found = []
    for radius in here["radius"].values:
        traces = here["layer_trace"].sel(radius=radius).dropna("layer", how="all").transpose("layer", "draw").values
        for trace in traces:
            pair = np.array([trace, functional.sel(radius=radius).values])
            found.append(estimates.bootstrapped(lambda sample: curves.ratio_of_means(sample) - 1, pair, name))
    return found


def ratio_along(
    cell: xr.Dataset, variable: str, dimension: int, window: Window, over: Sequence[str], values: Sequence, name: str
) -> list[Estimate]:
    """A variable at the first of two values along an axis over that at the second, minus 1: a ratio of means."""
    (axis,) = over
    here = _selected(cell, dimension, window)[variable]
    require(here, axis, *values)
    first, second = (curves.by_radius(here.sel({axis: value})) for value in values)
    return [
        estimates.bootstrapped(lambda sample: curves.ratio_of_means(sample) - 1, np.array(pair), name)
        for pair in zip(first, second)
    ]
