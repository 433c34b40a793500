"""Estimators for claims about the curvature on random planes, over radii, dimensions and numbers of examples.

If a claim is about every radius of a window, there is one estimate for each radius. x stands for log10(r²/r_X²), σ_z
for the standard deviation of the logits, N for the number of examples, κ_d for Tr(H)/‖H‖ on planes of dimension d.
Names such as by1 are ids of claims. A draw is one random initialisation. Arguments: `cell`, the results of a study;
`variable`, the name of one of its variables; `dimension` d of the planes; `window` (first, last) in x; `name` of the
bootstrap's random stream.
"""

from collections.abc import Sequence

import numpy as np

from goldilocks_zone.claims import curves
from goldilocks_zone.claims.cells import Cell, NotTested, need, require, weight_layers
from goldilocks_zone.claims.curves import Window
from goldilocks_zone.statistics import estimates
from goldilocks_zone.statistics.estimates import Estimate
from goldilocks_zone.theory.laws import finite_dimension_law


def _selected(cell: Cell, dimension: int, window: Window, least: int = 1) -> Cell:
    here = curves.in_x(cell, window, least)
    require(here, "dimension", dimension)
    return here.sel(dimension=dimension)


def _resolution(cell: Cell, variable: str, dimension: int) -> float:
    """Step between possible values of a `variable` in one draw if it is the fraction of positive eigenvalues; else 0.

    The step is 1/(d · planes), because the fraction is over the d = `dimension` eigenvalues on each of the draw's
    planes.
    """
    return 1 / (dimension * int(cell.attrs["planes"])) if variable == "fraction_positive" else 0.0


def at_every_radius(cell: Cell, variable: str, dimension: int, window: Window) -> list[Estimate]:
    """Mean of a `variable` over draws, on planes of a `dimension`, at each radius of the window."""
    values = _selected(cell, dimension, window)[variable]
    return [estimates.mean(row, _resolution(cell, variable, dimension)) for row in curves.by_radius(values)]


def mean_over_radii(cell: Cell, variable: str, window: Window, dimension: int | None = None) -> list[Estimate]:
    """Mean over draws of a `variable` averaged over the radii of the window.

    `dimension`, of the planes, must be given if the variable has the axis dimension.
    """
    selected = curves.in_x(cell, window)[variable]
    step = 0.0 if dimension is None else _resolution(cell, variable, dimension)
    if "dimension" in selected.dims:
        assert dimension is not None, f"{variable} depends on the dimension of planes, which the case does not give"
        selected = _selected(cell, dimension, window)[variable]
    return [estimates.mean(selected.mean("radius").values, step)]


def difference_over_dimensions(cell: Cell, variable: str, dimensions: Sequence[int], window: Window) -> list[Estimate]:
    """Mean over draws of a `variable` at the first of two `dimensions` minus its value at the second.

    These are dimensions of the planes. There is one estimate for each radius of the window.
    """
    first, second = (curves.by_radius(_selected(cell, d, window)[variable]) for d in dimensions)
    step = _resolution(cell, variable, min(dimensions))
    return [estimates.difference(*pair, resolution=step) for pair in zip(first, second)]


def finite_dimension_error(cell: Cell, dimension: int, window: Window) -> list[Estimate]:
    """Relative error of `finite_dimension_law`: measured κ_d over predicted κ_d, minus 1; mean over radii and draws.

    κ_d is Tr(H)/‖H‖ on planes of d = `dimension`, at the radii of the window. The prediction for each initialisation θ
    is made from Tr(H)/‖H‖ in full space at this θ, which is estimated with random probes. Raises NotTested if the study
    has no such probes.
    """
    here = _selected(cell, dimension, window)
    if "full_trace" not in here:
        raise NotTested("the study has no random probes of the full space (its key probes is 0)")
    predicted = finite_dimension_law(here["full_trace"] / here["full_frobenius_norm"], dimension)
    return [estimates.mean((here["trace_over_norm"] / predicted - 1).mean("radius").values)]


def peak_location(cell: Cell, variable: str, dimension: int, window: Window, name: str) -> list[Estimate]:
    """The x at which the mean over draws of a `variable`, on planes of a `dimension`, is largest in the window.

    It is the vertex of a parabola, fitted to the radii around the largest mean (see `curves.vertex_within_reach`).
    `name` names the bootstrap's random stream.
    """
    here = _selected(cell, dimension, window, least=3)
    return [curves.place_of_top(here["x"].values, curves.by_radius(here[variable]), curves.vertex_within_reach, name)]


def coefficient_of_variation(cell: Cell, variable: str, dimension: int, window: Window, part: str) -> list[Estimate]:
    """Coefficient of variation of a `variable` over draws, at each radius of the window.

    The variable is measured on planes of a `dimension`. With the `part` "total", values on single planes vary, over
    planes and initialisations. With "theta", only the part of this variation counts that is due to the initialisation
    θ. Raises NotTested if the study has one plane per initialisation, because the parts cannot be separated then.
    """
    here = _selected(cell, dimension, window)
    planes = int(here.attrs["planes"])
    if planes < 2:
        raise NotTested(
            "the study has one plane per initialisation, and at least 2 are needed to tell the spread over planes from "
            "that over initialisations"
        )
    means, variances = (curves.by_radius(here[name]) for name in (variable, f"{variable}_plane_variance"))
    return [estimates.coefficients_of_variation(*pair, planes)[part] for pair in zip(means, variances)]


def loss_exponent(cell: Cell, window: Window) -> list[Estimate]:
    """Mean over draws of the slope of log10 loss over log10 r, fitted to the radii r of the window."""
    return [estimates.mean(_loss_slopes(cell, window))]


def loss_exponent_error(cell: Cell, window: Window) -> list[Estimate]:
    """Mean over draws of the slope of log10 loss over log10 r in the window, minus the number of weight layers."""
    return [estimates.mean(_loss_slopes(cell, window) - weight_layers(cell))]


def _loss_slopes(cell: Cell, window: Window) -> np.ndarray:
    here = curves.in_x(cell, window, least=3)
    return np.polyfit(here["x"].values / 2, np.log10(curves.by_radius(here["loss"])), 1)[0]


def relative_trace_slope(cell: Cell, dimension: int, window: Window, least_effective_examples: int) -> list[Estimate]:
    """Slope of Tr(H)/r over ln r, divided by the mean of Tr(H)/r over radii; mean over draws.

    The result is 0 if Tr(H) ∝ r, and about 1 if Tr(H) ∝ r². H is the Hessian on planes of a `dimension`. A radius r of
    the window is used only if its number of effective examples, averaged over draws, is at least
    `least_effective_examples`. Raises NotTested with fewer than 3 such radii.
    """
    here = _selected(cell, dimension, window)
    carried = here["effective_examples"].mean("draw").values >= least_effective_examples
    if (count := carried.sum()) < 3:
        raise NotTested(f"{count} radii have at least {least_effective_examples} effective examples, 3 are needed")
    here = here.isel(radius=carried)
    ratio = curves.by_radius(here["trace"]) / here["radius"].values[:, None]
    slopes = np.polyfit(np.log(here["radius"].values), ratio, 1)[0]
    return [estimates.mean(slopes / ratio.mean(axis=0))]


def outer_edge_shift(
    cell: Cell, variable: str, dimension: int, window: Window, examples: Sequence[int], threshold: float
) -> list[Estimate]:
    """Mean over draws of the x of the outer edge for the second of two numbers of `examples`, minus that for the first.

    The outer edge is the last x in the window at which the `variable`, on planes of a `dimension`, falls through
    `threshold`. Raises NotTested if a draw has no outer edge.
    """
    require(cell, "examples", *examples)
    here = _selected(cell, dimension, window)[variable]
    first, second = (curves.outermost_crossings(here.sel(examples=count), threshold, outer=True) for count in examples)
    if np.isnan([first, second]).any():
        raise NotTested(f"a draw's {variable} does not fall through {threshold:g} on this run's radii")
    return [estimates.difference(second, first)]


def edge_exponent(
    cell: Cell,
    variable: str,
    dimension: int,
    window: Window,
    examples: Sequence[int],
    threshold: float,
    edge: str,
    name: str,
    relative_to_depth: bool = False,
) -> list[Estimate]:
    """Slope of the x of an edge over log10 N, where the number N of examples takes the values `examples`.

    The edge is the x in the window at which the mean over draws of a `variable`, on planes of a `dimension`, crosses a
    `threshold`. `edge` is "outer" or "inner", as in `edge_place`. The mean is used because curves of single draws are
    jagged far out. The bootstrap resamples initialisations; `name` names its random stream. With `relative_to_depth`,
    the result is the slope divided by 2/n, minus 1, for n weight layers (by1). Raises NotTested if some resample has no
    edge.
    """
    require(cell, "examples", *examples)
    here = _selected(cell, dimension, window)[variable].sel(examples=examples)
    x, samples = here["x"].values, here.transpose("examples", "radius", "draw").values
    expected = 2 / weight_layers(cell) if relative_to_depth else None

    def slope(sample: np.ndarray) -> float:
        edges = [curves.outermost_crossing(x, curve, threshold, edge == "outer") for curve in sample.mean(-1)]
        found = np.polyfit(np.log10(examples), edges, 1)[0]
        return found if expected is None else found / expected - 1

    return curves.with_edge(estimates.bootstrapped(slope, samples, name), variable, edge, " for every N")


def edge_place(
    cell: Cell, variable: str, dimension: int, window: Window, threshold: float, edge: str, name: str
) -> list[Estimate]:
    """The x at which the mean over draws of a `variable` crosses a `threshold` in the window.

    The variable is measured on planes of a `dimension`. With the `edge` "outer", the crossing is the last fall through
    the threshold; with "inner", it is the first rise. `name` names the random stream of the bootstrap. Raises NotTested
    if the mean curve of some resample has no such crossing.
    """
    here = _selected(cell, dimension, window)[variable]

    def place(sample: np.ndarray) -> float:
        return curves.outermost_crossing(here["x"].values, sample.mean(1), threshold, edge == "outer")

    return curves.with_edge(estimates.bootstrapped(place, curves.by_radius(here), name), variable, edge)


def peak_ratio(cell: Cell, variable: str, dimension: int, window: Window, networks: Sequence[str]) -> list[Estimate]:
    """Maximum of a `variable` in the first of two `networks`, divided by its maximum in the second; mean over draws.

    Maxima are over the radii of the window, on planes of a `dimension`.
    """
    here = _selected(cell, dimension, window)[variable]
    require(here, "network", *networks)
    first, second = (here.sel(network=network).max("radius").values for network in networks)
    return [estimates.mean(first / second)]


def correlation(
    cell: Cell, variables: Sequence[str], dimension: int, window: Window, name: str, given: Sequence[str] = ()
) -> list[Estimate]:
    """Pearson correlation of two `variables` over initialisations, at the first radius of the window.

    It is a partial correlation if further variables are `given`. All are measured on planes of a `dimension`. `name`
    names the bootstrap's random stream.
    """
    here = _selected(cell, dimension, window).isel(radius=0)
    values = curves.for_correlation(*(here[variable].values for variable in (*variables, *given)))
    return [estimates.bootstrapped(curves.partial_correlation, values, name)]


def collapse_gain(cell: Cell, variable: str, dimension: int, window: Window, over: Sequence[str]) -> list[Estimate]:
    """Error of predicting a `variable` from the radius minus the error of predicting it from σ_z; mean over draws.

    The variable, on planes of a `dimension`, has one curve over the radii of the window for each value along the axis
    `over`, such as each network. Each curve is predicted by the mean of the other curves, in the range that all of
    these cover. The curves are functions of x for one error, and of log10 σ_z for the other. An error is the mean
    absolute error over all curves and radii.
    """
    (axis,) = over
    here = _selected(cell, dimension, window, least=3)
    need(3, here.sizes[axis], f"values of {axis} in its study")
    values, spread = (here[each].transpose(axis, "radius", "draw").values for each in (variable, "logits_std"))
    places = np.broadcast_to(here["x"].values[None, :, None], values.shape), np.log10(spread)
    errors = (np.array([_left_out_error(x[..., i], values[..., i]) for i in range(values.shape[2])]) for x in places)
    return [estimates.mean(np.subtract(*errors))]


def _left_out_error(places: np.ndarray, values: np.ndarray) -> float:
    """Mean absolute error of predicting each curve by the mean of the other curves, in the range that all these cover.

    `places` and `values`, both (curves, r), have one curve in each row: values over ascending places.
    """
    rows = range(len(values))
    errors = [curves.apart(places, values, i, [j for j in rows if j != i]) for i in rows]
    return float(np.abs(np.concatenate(errors)).mean())


def explained_share(
    cell: Cell,
    variable: str,
    dimension: int,
    window: Window,
    over: Sequence[str],
    by: Sequence[str],
    less: Sequence[str],
) -> list[Estimate]:
    """Share of the variance of a `variable` that the predictors `by` explain, minus the share that `less` explain.

    Both shares are computed in each draw; the result is the mean over draws. The variance is over the window's radii
    and over the values along the axis `over`, such as networks, on planes of a `dimension`. `by` and `less` list
    predictors: "radius", which is x, and "logits", which is log10 σ_z. A share is the R² of a least-squares fit by a
    sum of cubic polynomials, one in each predictor.
    """
    (axis,) = over
    here = _selected(cell, dimension, window, least=3)
    need(3, here.sizes[axis], f"values of {axis} in its study")
    values, spread = (here[each].transpose("draw", axis, "radius").values for each in (variable, "logits_std"))
    places = {"radius": np.broadcast_to(here["x"].values, values.shape), "logits": np.log10(spread)}
    known = np.all(np.isfinite(spread) & (spread > 0), (1, 2))
    first, second = (
        np.array([_share(values[i], [places[name][i] for name in names]) for i in np.flatnonzero(known)])
        for names in (by, less)
    )
    return [estimates.difference(first, second)]


def _share(values: np.ndarray, places: Sequence[np.ndarray]) -> float:
    """R² of a least-squares fit of `values` by a sum of cubic polynomials, one in each array of `places`."""
    terms = [np.ravel(each - each.mean()) ** power for each in places for power in (1, 2, 3)]
    columns = np.stack([np.ones(values.size), *terms], 1)
    wanted = values.ravel() - values.mean()
    rest = wanted - columns @ np.linalg.lstsq(columns, wanted, rcond=None)[0]
    return float(1 - (rest @ rest) / (wanted @ wanted))


def plateau_error(cell: Cell, dimension: int, window: Window) -> list[Estimate]:
    """Mean of κ_d over the window's radii, divided by its prediction, minus 1; mean over draws (by5).

    κ_d is Tr(H)/‖H‖ on planes of d = `dimension`. The prediction is `finite_dimension_law` at κ = √(C − 1) for C
    classes.
    """
    here = _selected(cell, dimension, window)
    predicted = finite_dimension_law(np.sqrt(cell["class_count"].item() - 1), dimension)
    return [estimates.mean(here["trace_over_norm"].mean("radius").values / predicted - 1)]


def layer_trace_error(cell: Cell, window: Window, name: str) -> list[Estimate]:
    """Ratio of σ_l² E Tr H_ll to E[Σ_k p_k z_k − z_y], minus 1, for each layer l and radius of the window (by6).

    E is the mean over draws, taken before the ratio. H_ll is the block of layer l in the Hessian, σ_l the standard
    deviation of the layer's initial weights, z the logits, p their softmax, and y the label. The denominator is
    measured as E⟨∇L, θ⟩/n for n weight layers. `name` names the bootstrap's random stream. Raises NotTested if the
    study has no random probes of single layers.
    """
    here = curves.in_x(cell, window)
    if "layer_trace" not in here:
        raise NotTested("the study has no random probes of single layers (its key layer_probes is 0)")
    functional, found = here["radial_derivative"] / weight_layers(cell), []
    for i in range(here.sizes["radius"]):
        traces = here["layer_trace"].isel(radius=i).dropna("layer", how="all").transpose("layer", "draw").values
        found += [_ratio_error(np.array([trace, functional.isel(radius=i).values]), name) for trace in traces]
    return found


def ratio_along(
    cell: Cell, variable: str, dimension: int, window: Window, over: Sequence[str], values: Sequence, name: str
) -> list[Estimate]:
    """Mean over draws of a `variable` at the first of two `values`, divided by its mean at the second, minus 1.

    The two values are along the axis that `over` names. There is one estimate for each radius of the window, on planes
    of a `dimension`. `name` names the bootstrap's random stream.
    """
    (axis,) = over
    here = _selected(cell, dimension, window)[variable]
    require(here, axis, *values)
    first, second = (curves.by_radius(here.sel({axis: value})) for value in values)
    return [_ratio_error(np.array(pair), name) for pair in zip(first, second)]


def _ratio_error(pair: np.ndarray, name: str) -> Estimate:
    return estimates.bootstrapped(lambda sample: curves.ratio_of_means(sample) - 1, pair, name)
