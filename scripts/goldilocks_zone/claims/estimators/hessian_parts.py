"""Estimators for claims about the Gauss–Newton and residual parts of the Hessian, and about training over the scale α.

In these studies the radius is the scale factor α of the initialisation; windows and places are in log10 α. G and H′ are
the Gauss–Newton and residual parts of the Hessian H, and κ = Tr(H)/‖H‖. A point is in the zone if κ exceeds ZONE. It is
outside of the zone if κ is below `null_bound`, a quantile of κ for random matrices without excess positive curvature
(Vysogorets et al. 2024). A draw is one initialisation. A reading is censored if the number may lie beyond the grid of
radii. Arguments: `cell`, the results of a study; `dimension` d of the random planes to which H, G and H′ are
restricted; `window` (first, last); `name` of the bootstrap's random stream.
"""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from goldilocks_zone.claims import curves
from goldilocks_zone.claims.cells import Cell, NotTested, require, weight_layers
from goldilocks_zone.claims.curves import Window
from goldilocks_zone.claims.estimators.training import accuracy, resolution
from goldilocks_zone.statistics import estimates
from goldilocks_zone.statistics.estimates import Estimate
from goldilocks_zone.theory.laws import kappa_of_random_gradients, null_bound

ZONE = 1.0
LAZY, MOSTLY_ZERO = 0.99, 0.5


def rescaling_error(cell: Cell, dimension: int, values: Sequence) -> list[Estimate]:
    """Largest relative difference, over radii and draws, between κ at two `values` of the axis `rescaled`.

    The axis says what α rescales: the parameters, the temperature of the softmax, or both. With one value, κ at each
    radius is compared with κ at the first radius instead. A difference is divided by max(1, |κ|), with the κ of the
    first value. κ is Tr(H)/‖H‖ on planes of a `dimension`.
    """
    kappa = cell["trace_over_norm"].sel(dimension=dimension)
    require(kappa, "rescaled", *values)
    first = kappa.sel(rescaled=values[0])
    other = kappa.sel(rescaled=values[1]) if len(values) > 1 else first.isel(radius=0)
    errors = abs(first - other) / np.maximum(1, abs(first))
    return [estimates.largest(errors.max("radius").values)]


def edges(kappa: xr.DataArray, ratio: xr.DataArray, outer: bool) -> tuple[np.ndarray, np.ndarray]:
    """Readings (3, draw) of two places in log10 α: where κ crosses ZONE, and where `ratio`, log10 ‖G‖/‖H′‖, falls to 0.

    `kappa` and `ratio` have the axes radius and draw. In each draw, both places are the first ones on the way from the
    peak of κ to larger α (`outer`) or to smaller α. If κ does not cross ZONE there, the first reading is NaN. The
    second is censored beyond the end of the grid if `ratio` stays positive, and NaN if it is not positive at the peak,
    from where it is to fall. A draw whose κ nowhere exceeds ZONE is an exception: its first place is the grid point of
    the peak, and so is its second if `ratio` is not positive there.
    """
    places = np.log10(kappa["radius"].values)
    beyond, found = ([places[-1], places[-1], np.inf] if outer else [-np.inf, places[0], places[0]]), []
    for curve, of_ratio in zip(kappa.transpose("draw", "radius").values, ratio.transpose("draw", "radius").values):
        if np.isnan(curve).all():
            raise NotTested("κ of a draw is not finite at any radius")
        top = int(np.nanargmax(curve))
        edge = peak = np.clip(estimates.point_of_grid(places, top, top), places[0], places[-1])
        if curve[top] > ZONE:
            edge = np.full(3, curves.crossing_from(top, places, curve - ZONE, 0.0, outer))
        if of_ratio[top] > 0:
            fall = curves.crossing_from(top, places, of_ratio, 0.0, outer)
            crossing = beyond if np.isnan(fall) else np.full(3, fall)
        else:
            crossing = peak if curve[top] <= ZONE and of_ratio[top] <= 0 else np.full(3, np.nan)
        found.append((edge, crossing))
    return tuple(np.transpose(found, (1, 2, 0)))


def log_ratio(cell: Cell, norm: str) -> xr.DataArray:
    """log10 of ‖G‖/‖H′‖, clipped to ±300, in a cell; `norm` is "spectral_norm", or "norm" for the Frobenius norm."""
    with np.errstate(divide="ignore"):
        gauss_newton, residual = (xr.ufuncs.log10(cell[f"{part}_{norm}"]) for part in ("gauss_newton", "residual"))
    return (gauss_newton - residual).clip(-300, 300)


def crossing_gap(cell: Cell, dimension: int, edge: str, norm: str = "spectral_norm") -> list[Estimate]:
    """Mean over draws of log10 of the α where ‖G‖/‖H′‖ falls to 1, minus log10 of the α where κ crosses ZONE.

    Both places are found by `edges`: beyond the peak of κ with the `edge` "outer", before it with "inner". `norm` is as
    in `log_ratio`. κ is Tr(H)/‖H‖ on planes of a `dimension`. Raises NotTested if κ of a draw does not cross ZONE. It
    does so too if ‖G‖ does not exceed ‖H′‖ at the peak of a κ in the zone.
    """
    here = cell.sel(dimension=dimension)
    kappa, crossing = edges(here["trace_over_norm"], log_ratio(here, norm), edge == "outer")
    if np.isnan(kappa).any():
        raise NotTested(f"κ of a draw does not pass {ZONE:g} at the {edge} edge on this run's radii")
    if lacking := int(np.isnan(crossing).any(0).sum()):
        draws = f"in {lacking} of {crossing.shape[1]} draws"
        raise NotTested(f"{draws} ‖G‖ does not exceed ‖H′‖ at the peak of κ, from where it is to fall below ‖H′‖")
    reason = f"the place is censored: ‖G‖/‖H′‖ of a draw does not pass 1 at the {edge} edge on this run's radii"
    return [estimates.difference(crossing, kappa, reason=reason)]


def scale_exponent(
    cell: Cell, variable: str, dimension: int, window: Window, factor: int, constant: int
) -> list[Estimate]:
    """Mean over draws of the slope of log10 of a `variable` over log10 α, minus the slope that is expected.

    The slope is fitted to the radii of the window, on planes of a `dimension`. The expected slope is `factor` · n +
    `constant`, where n is the number of weight layers.
    """
    here = curves.in_scale(cell.sel(dimension=dimension), window, least=3)
    values = np.log10(curves.by_radius(here[variable]))
    slopes = np.polyfit(np.log10(here["radius"].values), values, 1)[0]
    expected = factor * weight_layers(cell) + constant
    return [estimates.mean(slopes - expected)]


def layer_block(cell: Cell) -> list[Estimate]:
    """Largest |vᵀH′v|/‖PH′v‖ over layers, radii and draws, for random v that are zero outside of one layer.

    There are such v for each layer, and P projects on the span of all of them. Raises NotTested if the study has no
    such v.
    """
    if "layer_residual" not in cell:
        raise NotTested("the study has no random probes of single layers (its key layer_probes is 0)")
    found = cell["layer_residual"]
    return [estimates.largest(found.max([axis for axis in found.dims if axis != "draw"]).values)]


def at_scales(cell: Cell, variable: str, dimension: int, window: Window) -> list[Estimate]:
    """Mean over draws of a `variable`, on planes of a `dimension`, at each radius of the window in log10 α."""
    here = curves.in_scale(cell.sel(dimension=dimension), window)
    if variable not in here:
        raise NotTested(f"the study does not measure {variable}")
    return [estimates.mean(row) for row in curves.by_radius(here[variable])]


def model_and_measure(cell: Cell, dimension: int, form: str) -> tuple[xr.DataArray, xr.DataArray]:
    """κ(G) = Tr G/‖G‖ as predicted and as measured on planes of a `dimension`, each with the axes radius and draw.

    The prediction, for random logit gradients, is `laws.kappa_of_random_gradients` with its argument `form`.
    """
    here = cell.sel(dimension=dimension)
    given = here["class_gradient"], here["example_gradient"], here["softmax_ratio"]
    model = kappa_of_random_gradients(*given, dimension, form)
    return model, here["gauss_newton_trace"] / here["gauss_newton_norm"]


def model_slope(cell: Cell, dimension: int, window: Window, form: str) -> list[Estimate]:
    """Mean over draws of the slope of the least-squares line of measured over modelled κ(G) = Tr G/‖G‖.

    The line is fitted to the radii of the window. The model, on planes of a `dimension` and with its `form`, is as in
    `model_and_measure`.
    """
    pair = model_and_measure(curves.in_scale(cell, window, 3), dimension, form)
    model, measured = (each.transpose("draw", "radius").values for each in pair)
    return [estimates.mean(np.array([np.polyfit(x, y, 1)[0] for x, y in zip(model, measured)]))]


def model_error(cell: Cell, dimension: int, window: Window, form: str) -> list[Estimate]:
    """Relative error |modelled/measured − 1| of κ(G): median over the window's radii, then mean over draws.

    κ(G) is Tr G/‖G‖. The model, with its `form`, is as in `model_and_measure`. The median of a draw is NaN if G is 0 at
    a radius of the window.
    """
    model, measured = model_and_measure(curves.in_scale(cell, window), dimension, form)
    return [estimates.mean(abs(model / measured - 1).median("radius", skipna=False).values)]


def rank_correlation(
    cell: Cell, variables: Sequence[str], dimension: int, name: str, given: Sequence[str] = ()
) -> list[Estimate]:
    """Spearman correlation of two `variables` over initialisations, at the first radius.

    It is a partial correlation if further variables are `given`. All are measured on planes of a `dimension`. `name`
    names the bootstrap's random stream.
    """
    here = cell.sel(dimension=dimension).isel(radius=0)
    rows = curves.for_correlation(*(here[variable].values for variable in (*variables, *given)))
    estimate = estimates.bootstrapped(curves.partial_rank_correlation, rows, name)
    return [estimate if given else estimates.of_ranks(estimate, rows.shape[1])]


def mismatch_slope(cell: Cell, name: str) -> list[Estimate]:
    """Slope of ‖∇L‖ over the prior mismatch, divided by its prediction, the mean of √D σ_C, minus 1.

    The slope is fitted over initialisations, and the mean is taken over them, at the first radius. The prior mismatch
    is the Euclidean distance between the class frequencies and the mean softmax output. √D σ_C is the norm of the mean
    logit gradient over examples, as a root mean square over classes. `name` names the bootstrap's random stream.
    """
    here = cell.isel(radius=0)
    names = ("prior_mismatch", "gradient_norm", "class_gradient_norm")
    rows = curves.for_correlation(*(here[each].values for each in names))

    def relative(sample: np.ndarray) -> float:
        return float(np.polyfit(sample[0], sample[1], 1)[0] / sample[2].mean() - 1)

    return [estimates.bootstrapped(relative, rows, name)]


def forced_share(cell: Cell) -> list[Estimate]:
    """Mean over draws of ‖∇L‖ with forced outputs divided by ‖∇L‖ with the network's own outputs, at the first radius.

    Outputs are forced by adding constants to the logits, so that the mean softmax output equals the class frequencies.
    """
    here = cell.isel(radius=0)
    return [estimates.mean((here["forced_gradient_norm"] / here["gradient_norm"]).values)]


def outside_gap(cell: Cell, dimension: int) -> list[Estimate]:
    """Accuracy at the best radius inside the zone minus accuracy at the best radius outside, paired over draws.

    A radius is inside if the mean κ over draws exceeds ZONE, and outside if this mean is below `null_bound`. κ is
    Tr(H)/‖H‖ on planes of a `dimension`; it is read from the study that the case names under `beside`. The best radius
    has the highest mean accuracy over draws. Raises NotTested if no radius is inside, or none outside.
    """
    values, kappa = curves.by_radius(accuracy(cell)), cell["kappa"].mean("draw").values
    zone, outside = kappa > ZONE, kappa < null_bound(dimension)
    if not outside.any() or not zone.any():
        raise NotTested("this run has no radius inside the zone, or none outside of it")
    inside, beyond = (values[side][values[side].mean(1).argmax()] for side in (zone, outside))
    return [estimates.difference(inside, beyond, resolution(cell))]


def regime_outside(cell: Cell, dimension: int, regime: str) -> list[Estimate]:
    """Share of the draws in which training ends in a `regime` (see `regimes`) at some radius outside the zone.

    A radius is outside if the mean over draws of κ = Tr(H)/‖H‖, on planes of a `dimension`, is below `null_bound`. κ is
    read from the study that the case names under `beside`. Raises NotTested if no radius is outside.
    """
    outside = cell["kappa"].mean("draw").values < null_bound(dimension)
    if not outside.any():
        raise NotTested("this run has no radius outside of the zone")
    found = curves.by_radius(regimes(cell)[regime])[outside].any(0)
    return [estimates.mean(found.astype(float), resolution=1.0)]


def regimes(cell: Cell) -> dict[str, xr.DataArray]:
    """Masks (radius, draw) of the training runs that end in each regime: zero, divergent, lazy or healthy.

    Each run is in the first of these regimes that applies. zero: training stayed finite, and more than a share
    MOSTLY_ZERO of the final logits is exactly zero. divergent: training diverged, or the final loss is not finite or
    above the initial one. lazy: the cosine between final and initial parameters is above LAZY. healthy: all other runs.
    """
    start, end = (cell[["training_loss", "zero_logits", "start_cosine"]].isel(step=i) for i in (0, -1))
    losses = end["training_loss"], start["training_loss"]
    zero = (end["zero_logits"] > MOSTLY_ZERO) & (cell["diverged"] == 0)
    divergent = ((cell["diverged"] > 0) | ~np.isfinite(losses[0]) | (losses[0] > losses[1])) & ~zero
    lazy = (end["start_cosine"] > LAZY) & ~zero & ~divergent
    return {"divergent": divergent, "zero": zero, "lazy": lazy, "healthy": ~(divergent | zero | lazy)}
