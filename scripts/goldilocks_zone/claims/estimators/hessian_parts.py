"""What claims about the parts of the Hessian speak about: functions of one cell of a study, as those of `quantities`.

Studies whose radius is the factor α on the initialisation; windows and places are in log10 α. The zone is where κ
exceeds ZONE, a point is outside of it where κ is below what a matrix without excess shows (Vysogorets et al. 2024).
"""

from collections.abc import Callable

import numpy as np
import xarray as xr
from scipy import special

from goldilocks_zone.claims.estimators.curvature import LEAST_CORRELATED, WINDOW_SLACK, NotTested, partial_correlation
from goldilocks_zone.claims.estimators.training import accuracy, resolution
from goldilocks_zone.models.labels import depth
from goldilocks_zone.statistics import estimates
from goldilocks_zone.statistics.estimates import Estimate

ZONE = 1.0
LAZY, MOSTLY_ZERO = 0.99, 0.5


def null_bound(dimension: int) -> float:
    """The 97.5 % point of κ of a d × d matrix of the Gaussian orthogonal ensemble: its deviation is √(2/(d + 1))."""
    return float(special.ndtri(0.975) * np.sqrt(2 / (dimension + 1)))


def kappa_of_random_gradients(
    class_gradient: np.ndarray, example_gradient: np.ndarray, softmax_ratio: np.ndarray, dimension: int, form: str
) -> np.ndarray:
    """κ(E[G]) of the model J = C + E on a plane: result 5 of Vysogorets et al. (2024), `form` large or finite.

    √d (σ_E² + σ_C²)/√(σ_E⁴ + 2σ_E²σ_C² + x), where x is dσ_C⁴/Γ² for large d, and σ_C⁴ (1 + (d + 1)/Γ²) for any.
    """
    shared, own = np.square(class_gradient), np.square(example_gradient)
    last = dimension / softmax_ratio**2 if form == "large" else 1 + (dimension + 1) / softmax_ratio**2
    return np.sqrt(dimension) * (own + shared) / np.sqrt(own**2 + 2 * own * shared + shared**2 * last)


def window(cell: xr.Dataset | xr.DataArray, case: dict, least: int = 1) -> xr.Dataset | xr.DataArray:
    """The radii of a case's window [first, last] in log10 α. Raises NotTested if they are fewer than `least`."""
    places = np.log10(cell["radius"].values)
    inside = (places >= case["window"][0] - WINDOW_SLACK) & (places <= case["window"][1] + WINDOW_SLACK)
    if inside.sum() < least:
        raise NotTested(
            f"this run has {inside.sum()} radii with log10 α from {case['window'][0]:g} to {case['window'][1]:g}, "
            f"{least} are needed"
        )
    return cell.isel(radius=inside)


def rescaling_error(cell: xr.Dataset, case: dict, name: str) -> list[Estimate]:
    """Largest relative difference of κ between two ways to rescale (`values` of rescaled), or, for one, between any
    radius and the first."""
    kappa = cell["trace_over_norm"].sel(dimension=case["dimension"])
    for value in case["values"]:
        if value not in kappa["rescaled"].values:
            raise NotTested(f"this run has no rescaled {value} in its study")
    first = kappa.sel(rescaled=case["values"][0])
    other = kappa.sel(rescaled=case["values"][1]) if len(case["values"]) > 1 else first.isel(radius=0)
    errors = np.abs(first - other) / np.maximum(1, np.abs(first))
    return [estimates.largest(errors.max("radius").values)]


def edges(kappa: xr.DataArray, ratio: xr.DataArray, outer: bool) -> tuple[np.ndarray, np.ndarray]:
    """Readings (3, draw) of log10 α where κ passes ZONE, and where log10 of ‖G‖/‖H′‖ passes 0, seen from the peak of κ.

    NaN where κ does not fall to ZONE; beyond the end of the grid where the ratio does not fall to 0. A draw without a
    zone has one of no width at the peak, a point of the grid, and the ratio's is there too if it is below 0 there.
    """
    places = np.log10(kappa["radius"].values)
    beyond = np.array([places[-1], places[-1], np.inf] if outer else [-np.inf, places[0], places[0]])
    found = []
    for curve, of_ratio in zip(kappa.transpose("draw", "radius").values, ratio.transpose("draw", "radius").values):
        top = int(np.nanargmax(curve))
        peak = np.clip(estimates.point_of_grid(places, top, top), places[0], places[-1])
        edge, crossing = peak, _edge(places, of_ratio, top, outer)
        if curve[top] > ZONE:
            edge = np.full(3, _edge(places, curve - ZONE, top, outer))
        elif of_ratio[top] <= 0:
            crossing = peak
        found.append((edge, beyond if np.isnan(crossing).any() else np.broadcast_to(crossing, 3)))
    return tuple(np.transpose(found, (1, 2, 0)))


def _edge(places: np.ndarray, curve: np.ndarray, top: int, outer: bool) -> float:
    """Where a curve first changes sign, going outwards (or inwards) from `top`; NaN if it does not."""
    steps = range(top, len(places) - 1) if outer else range(top, 0, -1)
    for i in steps:
        j = i + 1 if outer else i - 1
        if np.isfinite(curve[[i, j]]).all() and (curve[i] > 0) != (curve[j] > 0):
            return float(places[i] + curve[i] / (curve[i] - curve[j]) * (places[j] - places[i]))
    return np.nan


def log_ratio(cell: xr.Dataset, norm: str) -> xr.DataArray:
    """log10 of ‖G‖/‖H′‖ for a norm: spectral_norm or norm (Frobenius)."""
    with np.errstate(divide="ignore"):
        parts = [np.log10(cell[f"{part}_{norm}"]) for part in ("gauss_newton", "residual")]
    return (parts[0] - parts[1]).clip(-300, 300)


def crossing_gap(cell: xr.Dataset, case: dict, name: str) -> list[Estimate]:
    """log10 α where ‖G‖/‖H′‖ passes 1 minus that where κ passes ZONE, at the inner or outer `edge`, draw by draw."""
    here = cell.sel(dimension=case["dimension"])
    kappa, crossing = edges(
        here["trace_over_norm"], log_ratio(here, case.get("norm", "spectral_norm")), case["edge"] == "outer"
    )
    if np.isnan(kappa).any():
        raise NotTested(f"κ of a draw does not pass {ZONE:g} at the {case['edge']} edge on this run's radii")
    reason = f"the place is censored: ‖G‖/‖H′‖ of a draw does not pass 1 at the {case['edge']} edge on this run's radii"
    return [estimates.difference(crossing, kappa, reason=reason)]


def scale_exponent(cell: xr.Dataset, case: dict, name: str) -> list[Estimate]:
    """Slope over log10 α of log10 of a norm in the window, minus `factor` n + `constant`, n the weight layers."""
    here = window(cell.sel(dimension=case["dimension"]), case, least=3)
    values = np.log10(here[case["variable"]].transpose("radius", "draw").values)
    slopes = np.polyfit(np.log10(here["radius"].values), values, 1)[0]
    expected = case["factor"] * depth(cell["network"].item()) + case["constant"]
    return [estimates.mean(slopes - expected)]


def layer_block(cell: xr.Dataset, case: dict, name: str) -> list[Estimate]:
    """Largest |vᵀH′v|/‖H′v‖ over random v inside one layer, radii and draws."""
    if "layer_residual" not in cell:
        raise NotTested("the study has no layer-wise probes")
    return [
        estimates.largest(
            cell["layer_residual"].max([axis for axis in cell["layer_residual"].dims if axis != "draw"]).values
        )
    ]


def at_scales(cell: xr.Dataset, case: dict, name: str) -> list[Estimate]:
    """A variable at each radius of the window."""
    here = window(cell.sel(dimension=case["dimension"]), case)
    if case["variable"] not in here:
        raise NotTested(f"the study does not measure {case['variable']}")
    return [estimates.mean(row) for row in here[case["variable"]].transpose("radius", "draw").values]


def model_and_measure(cell: xr.Dataset, case: dict) -> tuple[xr.DataArray, xr.DataArray]:
    """κ(G) as the model of random logit gradients has it, and as measured."""
    here = cell.sel(dimension=case["dimension"])
    given = (here[variable] for variable in ("class_gradient", "example_gradient", "softmax_ratio"))
    model = kappa_of_random_gradients(*given, case["dimension"], case["form"])
    return model, here["gauss_newton_trace"] / here["gauss_newton_norm"]


def model_slope(cell: xr.Dataset, case: dict, name: str) -> list[Estimate]:
    """Slope of measured over modelled κ(G) over the window's radii, draw by draw."""
    model, measured = (
        each.transpose("draw", "radius").values for each in model_and_measure(window(cell, case, 3), case)
    )
    return [estimates.mean(np.array([np.polyfit(x, y, 1)[0] for x, y in zip(model, measured)]))]


def model_error(cell: xr.Dataset, case: dict, name: str) -> list[Estimate]:
    """Median over the window's radii of |modelled/measured − 1| of κ(G), draw by draw."""
    model, measured = model_and_measure(window(cell, case), case)
    return [estimates.mean(np.abs(model / measured - 1).median("radius").values)]


def rank_correlation(cell: xr.Dataset, case: dict, name: str) -> list[Estimate]:
    """Spearman's correlation over initialisations of two variables at one radius; `given` a third, the partial one."""
    here = cell.sel(dimension=case["dimension"]).isel(radius=0)
    rows = np.array([here[variable].values for variable in (*case["variables"], *case.get("given", []))])
    if rows.shape[1] < LEAST_CORRELATED:
        raise NotTested(f"this run has {rows.shape[1]} initialisations, {LEAST_CORRELATED} are needed")

    def ranked(sample: np.ndarray) -> float:
        return partial_correlation(np.array([estimates.ranks(row) for row in sample]))

    estimate = estimates.bootstrapped(ranked, rows, name)
    return [estimate if case.get("given") else estimates.of_ranks(estimate, rows.shape[1])]


def mismatch_slope(cell: xr.Dataset, case: dict, name: str) -> list[Estimate]:
    """Slope of ‖∇L‖ over the prior mismatch, over initialisations, relative to the mean √D σ_C, minus 1."""
    here = cell.isel(radius=0)
    rows = np.array([here[each].values for each in ("prior_mismatch", "gradient_norm", "class_gradient_norm")])
    if rows.shape[1] < LEAST_CORRELATED:
        raise NotTested(f"this run has {rows.shape[1]} initialisations, {LEAST_CORRELATED} are needed")

    def relative(sample: np.ndarray) -> float:
        return float(np.polyfit(sample[0], sample[1], 1)[0] / sample[2].mean() - 1)

    return [estimates.bootstrapped(relative, rows, name)]


def forced_share(cell: xr.Dataset, case: dict, name: str) -> list[Estimate]:
    """‖∇L‖ with the mean output forced to the classes' shares, over ‖∇L‖ as it is, draw by draw."""
    here = cell.isel(radius=0)
    return [estimates.mean((here["forced_gradient_norm"] / here["gradient_norm"]).values)]


def _outside(cell: xr.Dataset, case: dict) -> np.ndarray:
    """Which radii lie outside of the zone, by the mean κ of the study `beside`."""
    return cell["kappa"].mean("draw").values < null_bound(case["dimension"])


def outside_gap(cell: xr.Dataset, case: dict, name: str) -> list[Estimate]:
    """Accuracy at the best radius of the zone minus that at the best radius outside, paired over draws."""
    values, outside = accuracy(cell).transpose("radius", "draw").values, _outside(cell, case)
    zone = cell["kappa"].mean("draw").values > ZONE
    if not outside.any() or not zone.any():
        raise NotTested("this run has no radius on both sides of the zone's edge")
    best = (values[side][values[side].mean(1).argmax()] for side in (zone, outside))
    return [estimates.difference(*best, resolution(cell))]


def regime_outside(cell: xr.Dataset, case: dict, name: str) -> list[Estimate]:
    """Share of the draws that have a radius outside of the zone in a `regime`: zero, lazy or divergent."""
    outside = _outside(cell, case)
    if not outside.any():
        raise NotTested("this run has no radius outside of the zone")
    found = regimes(cell)[case["regime"]].transpose("radius", "draw").values[outside].any(0)
    return [estimates.mean(found.astype(float), resolution=1.0)]


def regimes(cell: xr.Dataset) -> dict[str, xr.DataArray]:
    """By name, where training ends in it: divergent (values that are not finite, or a loss above that of the start),
    zero (MOSTLY_ZERO of the logits exactly zero), lazy (the cosine between end and start above LAZY), else healthy."""
    start, end = (cell[["training_loss", "zero_logits", "start_cosine"]].isel(step=i) for i in (0, -1))
    divergent = (
        (cell["diverged"] > 0) | ~np.isfinite(end["training_loss"]) | (end["training_loss"] > start["training_loss"])
    )
    zero = (end["zero_logits"] > MOSTLY_ZERO) & (cell["diverged"] == 0)
    divergent = divergent & ~zero
    lazy = (end["start_cosine"] > LAZY) & ~zero & ~divergent
    return {"divergent": divergent, "zero": zero, "lazy": lazy, "healthy": ~(divergent | zero | lazy)}


DECONSTRUCTED: dict[str, Callable[[xr.Dataset, dict, str], list[Estimate]]] = {
    function.__name__: function
    for function in (
        rescaling_error,
        crossing_gap,
        scale_exponent,
        layer_block,
        at_scales,
        model_slope,
        model_error,
        rank_correlation,
        mismatch_slope,
        forced_share,
        outside_gap,
        regime_outside,
    )
}
