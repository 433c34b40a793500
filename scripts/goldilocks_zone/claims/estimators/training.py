"""Estimators for claims about training: accuracies, final radii, and dimensions needed.

Diverged runs are scored at chance, 1/C for C classes. Windows are in x = log10(r²/r_X²) of the radius r_0 before
training. Names such as by3 are ids of claims. A draw is one random initialisation, with its own plane or sphere if
training is restricted to one. Arguments: `cell`, the results of a study; `window` (first, last); `name` of the
bootstrap's random stream.
"""

import json
from collections.abc import Sequence

import numpy as np
import xarray as xr

from goldilocks_zone.claims import curves
from goldilocks_zone.claims.cells import Cell, NotTested, need, require, weight_layers
from goldilocks_zone.claims.curves import Window
from goldilocks_zone.statistics import estimates
from goldilocks_zone.statistics.estimates import Estimate
from goldilocks_zone.subspaces.labels import FullSpace, parse_subspace


def accuracy(cell: Cell) -> xr.DataArray:
    """Final test accuracy of a cell, with diverged runs scored at chance.

    If the cell has several learning rates, the best one is used at each radius. This is the rate with the highest final
    accuracy on held-out training examples, as a mean over draws.
    """
    found = cell["test_accuracy"].fillna(1 / cell["classes"])
    if "rate" not in found.dims:
        return found
    held_out = cell["validation_accuracy"].isel(step=-1, drop=True).fillna(1 / cell["classes"])
    return found.isel(rate=held_out.mean("draw").argmax("rate"))


def resolution(cell: Cell) -> float:
    """Step between possible test accuracies: 1/n for the n examples of the smallest test set in the cell's study."""
    return 1 / min(map(int, cell.attrs["test_examples"].split(", ")))


def _nearest_to_r_x(values: xr.DataArray) -> int:
    return int(np.abs(values["x"].values).argmin())


def accuracy_flatness(cell: Cell, window: Window) -> list[Estimate]:
    """Test accuracy at each radius of the window minus the mean accuracy over the window, paired over draws."""
    values = curves.by_radius(curves.in_x(accuracy(cell), window, least=2))
    return [estimates.difference(row, values.mean(0), resolution(cell)) for row in values]


def accuracy_fall(cell: Cell, window: Window, from_: str = "r_X") -> list[Estimate]:
    """Test accuracy at a reference radius minus accuracy at each radius of the window, paired over draws.

    The reference is the radius nearest to r_X or, if `from_` is "best", the radius with the highest mean accuracy over
    draws. At the best radius itself, the difference is zero.
    """
    values, best, step = accuracy(cell).transpose("radius", "draw"), from_ == "best", resolution(cell)
    top = values.isel(radius=int(values.mean("draw").argmax("radius")) if best else _nearest_to_r_x(values))
    return [
        estimates.mean(0 * row.values, step)
        if best and row["radius"] == top["radius"]
        else estimates.difference(top.values, row.values, step)
        for row in curves.in_x(values, window)
    ]


def accuracy_beside(cell: Cell, window: Window) -> list[Estimate]:
    """Test accuracy at each radius of the window minus the accuracy in another study, paired over draws.

    The case names the other study under `beside`, which adds its accuracy to the cell as the variable other_accuracy.
    """
    values, other = accuracy(cell), cell["other_accuracy"].fillna(1 / cell["classes"])
    pairs = [curves.by_radius(curves.in_x(each, window)) for each in (values, other)]
    return [estimates.difference(here, there, resolution(cell)) for here, there in zip(*pairs)]


def fall_left(cell: Cell, window: Window, name: str) -> list[Estimate]:
    """Fall of accuracy with a learning rate proportional to r, as a share of the fall with a fixed learning rate.

    The fall is the accuracy at the radius nearest to r_X minus the mean accuracy over the window. The share is the
    ratio of the mean falls over draws. `name` names the bootstrap's random stream.
    """
    require(cell, "rate_rule", "fixed", "proportional")
    values = accuracy(cell).transpose("rate_rule", "radius", "draw")
    falls = values.isel(radius=_nearest_to_r_x(values), drop=True) - curves.in_x(values, window).mean("radius")
    pair = falls.sel(rate_rule=["proportional", "fixed"]).values
    estimate = estimates.bootstrapped(curves.ratio_of_means, pair, name)
    return [estimates.unless_alike(estimate, *pair)]


def accuracy_above_chance(cell: Cell, window: Window) -> list[Estimate]:
    """Mean over draws of test accuracy minus chance, 1/C for C classes, at each radius of the window."""
    values = curves.in_x(accuracy(cell) - 1 / cell["classes"], window)
    return [estimates.mean(row, resolution(cell)) for row in curves.by_radius(values)]


def accuracy_peak(cell: Cell, window: Window, name: str) -> list[Estimate]:
    """The x in the window at which the mean test accuracy over draws is largest.

    It is the vertex of the parabola through the largest point and its two neighbours. `name` names the bootstrap's
    random stream.
    """
    here = curves.in_x(accuracy(cell), window, least=3)
    return [curves.place_of_top(here["x"].values, curves.by_radius(here), curves.vertex_of_neighbours, name)]


def accuracy_edge(cell: Cell, edge: str, name: str) -> list[Estimate]:
    """The x at which the mean test accuracy over draws falls half-way from its maximum to chance.

    The fall is the first one on the way from the maximum, to larger x with the `edge` "outer", to smaller x with
    "inner". `name` names the bootstrap's random stream. Raises NotTested if some resample has no edge.
    """
    values, chance = accuracy(cell).transpose("radius", "draw"), float(1 / cell["classes"])
    x = values["x"].values

    def place(sample: np.ndarray) -> float:
        curve = sample.mean(1)
        return curves.crossing_from(int(np.argmax(curve)), x, curve, (chance + curve.max()) / 2, edge == "outer")

    return curves.with_edge(estimates.bootstrapped(place, values.values, name), "accuracy", edge)


def dimensions_of(cell: Cell) -> tuple[np.ndarray, xr.Dataset]:
    """Dimensions (m,) of a cell's planes or spheres, ascending, and the cell with these m subspaces in the same order.

    Training in full space is left out.
    """
    spaces = {name: parse_subspace(name) for name in cell["subspace"].values.tolist()}
    found = sorted((space.dimension, name) for name, space in spaces.items() if not isinstance(space, FullSpace))
    return np.array([d for d, _ in found]), cell.sel(subspace=[name for _, name in found])


def dimension_needed(dimensions: np.ndarray, accuracies: np.ndarray, level: float) -> np.ndarray:
    """Reading (3,) of log10 of the smallest dimension d that reaches the accuracy `level`, interpolated in log10 d.

    `accuracies` (m,) are those at the ascending `dimensions` (m,). If none of them reaches the level, the reading is
    censored above the largest dimension. If the smallest dimension reaches it, the reading is censored below this one.
    """
    x = np.log10(dimensions)
    reached = np.flatnonzero(accuracies >= level)
    if not reached.size:
        return np.array([x[-1], x[-1], np.inf])
    i = reached[0]
    if i == 0:
        return np.array([-np.inf, x[0], x[0]])
    return np.full(3, curves.interpolated(x, accuracies, level, i - 1, i))


def dimension_shift(cell: Cell, window: Window, level: float) -> list[Estimate]:
    """Mean over draws of log10 of the dimension needed at each radius of the window, minus its value at r_X.

    The dimension needed is the smallest dimension of planes or spheres that reaches an accuracy `level`. Its value at
    the radius nearest to r_X stands for the value at r_X. Raises NotTested with a single dimension.
    """
    dimensions, ordered = dimensions_of(cell)
    if len(dimensions) < 2:
        raise NotTested("this run has one dimension in its study, 2 are needed")
    values = accuracy(ordered).transpose("radius", "subspace", "draw")
    readings = [[dimension_needed(dimensions, each, level) for each in row.T] for row in values.values]
    x = {"x": ("radius", values["x"].values)}
    needed = xr.DataArray(np.transpose(readings, (0, 2, 1)), dims=("radius", "reading", "draw"), coords=x)
    reference = needed.isel(radius=_nearest_to_r_x(needed)).values
    within = f"that of a draw is not within the {dimensions[0]} to {dimensions[-1]} of this run"
    reason = f"the dimension needed for an accuracy of {level:g} is censored: {within}"
    return [estimates.difference(each, reference, reason=reason) for each in curves.in_x(needed, window).values]


def intrinsic_dimension(cell: Cell, share: float, published: int, name: str) -> list[Estimate]:
    """log10 of the smallest dimension that reaches a `share` of the full-space accuracy, minus log10 of `published`.

    With a share of 0.9, this dimension is d_int90 of Li et al. (2018), but from mean accuracies over draws instead of
    medians of three. The bootstrap resamples draws; `name` names its random stream. Raises NotTested without full-space
    training, or if no dimension reaches the share.
    """
    if "full-free" not in cell["subspace"].values:
        raise NotTested("this run does not train in the whole space in its study")
    dimensions, ordered = dimensions_of(cell)
    need(1, len(dimensions), "planes or spheres")
    values = accuracy(ordered).isel(radius=0).transpose("subspace", "draw").values
    baseline = accuracy(cell.sel(subspace="full-free")).isel(radius=0).values
    if values.mean(1).max() < share * baseline.mean():
        raise NotTested(f"no dimension of this run reaches {share:g} of the accuracy in the whole space")

    def found(sample: np.ndarray) -> np.ndarray:
        means = sample.mean(1)
        return dimension_needed(dimensions, means[1:], share * means[0]) - np.log10(published)

    samples = np.vstack([baseline, values])
    # The mean of a censored reading is infinite. The jackknife of few draws needs finite values, and if the number
    # itself is censored, so is its interval.
    finite = samples.shape[1] < estimates.LEAST_RESAMPLED or np.isinf(found(samples)).any()
    estimate = estimates.bootstrapped(lambda each: found(each)[1] if finite else found(each).mean(), samples, name)
    reached = f"the smallest of this run, {dimensions[0]}, reaches {share:g} of the accuracy in the whole space"
    reason = f"the dimension needed is censored: {reached}"
    return [estimates.read_off(estimate, found(samples), reason)]


def dimension_gain(cell: Cell, subspaces: Sequence[str]) -> list[Estimate]:
    """Accuracy in the second of two `subspaces` minus accuracy in the first, at the first radius, paired over draws."""
    require(cell, "subspace", *subspaces)
    second, first = (accuracy(cell.sel(subspace=name)).isel(radius=0).values for name in reversed(subspaces))
    return [estimates.difference(second, first, resolution(cell))]


def spread_over_draws(cell: Cell) -> list[Estimate]:
    """Standard deviation of the final test accuracy over draws, each with its own plane, at the first radius.

    The variance that the finite number of test examples causes, which is binomial, is subtracted from the variance.
    """
    values = accuracy(cell).isel(radius=0).values
    estimate = estimates.deviation(values, float(np.mean(values * (1 - values)) * resolution(cell)))
    return [estimates.unless_alike(estimate, values, values[0])]


def curvature_gain(cell: Cell, variable: str, examples_of: str) -> list[Estimate]:
    """Change through training of a `variable` of the Hessian on the plane, paired over draws, at each radius.

    The change is the value at the end of training minus the value at the start. `examples_of` is "training" or
    "validation", the set of examples on which the Hessian is computed. Raises NotTested if the study measures no
    curvature.
    """
    if variable not in cell:
        raise NotTested("the study measures no curvature")
    values = cell[variable].sel(examples_of=examples_of).transpose("moment", "radius", "draw")
    space = parse_subspace(cell["subspace"].item())
    assert not isinstance(space, FullSpace)  # The configuration refuses this measurement in the whole space.
    step = 1 / space.dimension if variable == "fraction_positive" else 0.0
    end, start = (values.sel(moment=moment).values for moment in ("end", "start"))
    return [estimates.difference(*pair, resolution=step) for pair in zip(end, start)]


def _at_step(values: xr.DataArray, step: int) -> xr.DataArray:
    if step not in values["step"].values:
        raise NotTested(f"this run did not log step {step}")
    return values.sel(step=step)


def rate_exponent(cell: Cell, window: Window) -> list[Estimate]:
    """Slope of log10 of the final radius over log10 of the learning rate, at each initial radius of the window.

    The slope is fitted in each draw; an estimate is the mean over draws. Raises NotTested with fewer than 3 rates.
    """
    need(3, cell.sizes["rate"], "rates in its study")
    ends = curves.in_x(cell["norm"].isel(step=-1), window).transpose("radius", "rate", "draw")
    rates = np.log10(cell["rate"].values)
    return [estimates.mean(np.polyfit(rates, np.log10(row), 1)[0]) for row in ends.values]


def growth_exponent(cell: Cell, window: Window, steps: Sequence[int]) -> list[Estimate]:
    """Slope of log10(r² − r_0²) over log10 of the step, which is 1 for a random walk; mean over draws.

    r is the radius at a step, and r_0 the initial radius. The slope is fitted to the logged steps from `steps[0]` to
    `steps[1]`. There is one estimate for each initial radius of the window. Raises NotTested if there are fewer than 3
    such steps.
    """
    inside = (cell["step"] >= steps[0]) & (cell["step"] <= steps[1])
    if inside.sum() < 3:
        raise NotTested(f"this run logged {int(inside.sum())} steps from {steps[0]} to {steps[1]}, 3 are needed")
    squares = xr.ufuncs.square(curves.in_x(cell["norm"], window)).transpose("radius", "step", "draw")
    growth = (squares - squares.isel(step=0)).isel(step=inside.values).values
    logarithms = np.log10(cell["step"].values[inside.values])
    return [estimates.mean(np.polyfit(logarithms, np.log10(row), 1)[0]) for row in growth]


def relative_growth(cell: Cell, window: Window) -> list[Estimate]:
    """Mean over draws of |r/r_0 − 1| with the radius r after training, at each initial radius r_0 of the window."""
    values = curves.in_x(cell["norm"], window).transpose("radius", "draw", "step")
    change = abs(values.isel(step=-1) / values.isel(step=0) - 1)
    return [estimates.mean(row) for row in change.values]


def growth_over_walk(cell: Cell, window: Window) -> list[Estimate]:
    """log10 of the growth r² − r_0² in training, minus log10 of the growth with gradients of random signs.

    r is the final radius, and r_0 the initial one. The first growth is that on the loss's gradients; the optimiser is
    the same for both, and draws are paired. There is one estimate for each initial radius of the window. Raises
    NotTested without training with random signs.
    """
    if "random_signs" not in cell["gradients"].values:
        raise NotTested("this run has no gradients with random signs in its study")
    squares = xr.ufuncs.square(curves.in_x(cell["norm"], window))
    growth = xr.ufuncs.log10(squares.isel(step=-1) - squares.isel(step=0)).transpose("gradients", "radius", "draw")
    pairs = zip(*(growth.sel(gradients=each).values for each in ("loss", "random_signs")))
    return [estimates.difference(*pair) for pair in pairs]


def early_correlation(cell: Cell, variable: str, step: int, name: str, given: Sequence[str] = ()) -> list[Estimate]:
    """Pearson correlation over initialisations of a `variable` with the accuracy after `step` steps.

    The accuracy is on training examples held out for validation. The variable is from the study that the case names
    under `beside`. Both are read at the first radius. The correlation is partial if further variables are `given`.
    `name` names the bootstrap's random stream.
    """
    accuracies = _at_step(cell["validation_accuracy"], step).isel(radius=0)
    rows = curves.for_correlation(accuracies.values, *(cell[each].isel(radius=0).values for each in (variable, *given)))
    return [estimates.bootstrapped(curves.partial_correlation, rows, name)]


def best_of(count: int, scores: np.ndarray, outcomes: np.ndarray) -> float:
    """Expected outcome of the best-scored of `count` randomly chosen initialisations, minus the mean outcome.

    `scores` and `outcomes`, both (n,), have a value for each initialisation. The result is exact. It uses that the k-th
    smallest of n scores is the largest in a random subset of `count` scores with probability C(k−1, count−1)/C(n,
    count), where C are binomial coefficients.
    """
    order, n = np.argsort(scores, kind="stable"), len(scores)
    ranks, shares = np.arange(n), np.ones(n)
    for i in range(count - 1):
        shares *= np.clip(ranks - i, 0, None) / (n - 1 - i)
    shares *= count / n
    return float(shares @ outcomes[order] - outcomes.mean())


def selection_gain(cell: Cell, variable: str, step: int, count: int, name: str, sign: int = 1) -> list[Estimate]:
    """Gain in accuracy from training the best-scored of `count` initialisations instead of a random one.

    Accuracy is on held-out examples after `step` steps. The score is a `variable` of the study that the case names
    under `beside`, or its negative if `sign` is −1. Both are read at the first radius. The bootstrap resamples
    initialisations; `name` names its random stream.
    """
    accuracies = _at_step(cell["validation_accuracy"], step).isel(radius=0).values
    scores = sign * cell[variable].isel(radius=0).values
    rows = curves.for_correlation(scores, accuracies)
    estimate = estimates.bootstrapped(lambda sample: best_of(count, *sample), rows, name)
    return [estimates.unless_alike(estimate, accuracies, accuracies[0])]


def loss_over_radii(cell: Cell) -> list[Estimate]:
    """Largest relative difference, over draws and radii, of the final training loss from its value at the first radius.

    Raises NotTested with one radius.
    """
    losses = cell["training_loss"].isel(step=-1).transpose("radius", "draw").values
    if len(losses) < 2:
        raise NotTested("this run has one radius in its study, 2 are needed")
    return [estimates.largest(np.abs(losses[1:] / losses[0] - 1).max(0))]


def map_difference(cell: Cell, window: Window) -> list[Estimate]:
    """Accuracy at each radius α r_X of the window (α ≠ 1), minus accuracy at r_X with rate/α and temperature α⁻ⁿ (by3).

    n is the number of weight layers, and rate the learning rate of the case's own study. The second accuracy is from a
    map of rates and temperatures, a study that the case names under `beside`; the cell has it as the variable
    map_accuracy. Draws are paired. Radii whose point the map lacks are left out, and NotTested is raised if none
    remain. Radii at which both accuracies are equal in every draw, for example because the softmax is saturated, are no
    evidence. They are left out if others remain.
    """
    exponent, table, found = -weight_layers(cell), cell["map_accuracy"], []
    values, rate = curves.in_x(accuracy(cell), window), json.loads(cell.attrs["settings"])["rate"]
    for radius in values["radius"].values:
        if np.isclose(radius, 1):  # both sides would be the same run
            continue
        wanted = {"rate": rate / radius, "temperature": radius**exponent}
        places = {axis: int(np.abs(np.log(table[axis].values / value)).argmin()) for axis, value in wanted.items()}
        there = table.isel(places)
        if all(np.isclose(float(there[axis]), value, rtol=1e-3) for axis, value in wanted.items()):
            here, there = xr.align(values.sel(radius=radius).dropna("draw"), there.dropna("draw"))
            found.append(estimates.difference(here.values, there.values, resolution(cell)))
    if not found:
        raise NotTested("the map of rate and temperature has no point for any radius of this run other than r_X")
    return [each for each in found if not each.open_end] or found
