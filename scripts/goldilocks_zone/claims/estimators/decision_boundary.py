"""Estimators for claims about curvature and the decision boundary (Sabanayagam et al. 2023).

Cells, the results of one study, have the axes minimum, epoch, scaling, softmax, radius and draw. A minimum is a trained
network, labelled by the way of its training, such as normal, or the untrained one. The unit is a draw, with its own
data, weights and batches. Comparisons are paired over draws, and draws with missing values are left out. A reading
specifies which values of a cell are used: a variable and the place where it is read. Cases write readings as mappings
from fields of `Reading` to values. The key `of` has the fields that differ from the defaults. Other keys, such as
`less`, change fields of this reading.
"""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from goldilocks_zone.claims.cells import Cell, NotTested, need, require
from goldilocks_zone.data import planar, planar_shapes
from goldilocks_zone.models.labels import is_network, parse_network
from goldilocks_zone.spectra import alignments
from goldilocks_zone.statistics import estimates
from goldilocks_zone.statistics.estimates import LEVEL, Estimate, student

LEAST_SHARE = 0.5  # of the draws; fewer would be a biased selection
LEAST_MINIMA, LEAST_DESIGNS = 5, 3
LEAST_STEPS = 6000  # of the margin estimate
REACHED = 1.01  # of the stopping loss; a tolerance, because the stopping rule evaluates the loss in single precision
COUNTS = ("outliers", "outliers_by_gap", "boundary_dimension")
EACH = "each"  # one estimate for each scaling except none, or for each trained minimum
EVERY = "every"  # all trained minima at once
# For messages: the condition on a draw without which a variable is missing.
HAVE = {
    "specificity_index": "the boundary has two dimensions or more",
    "border_rank": "the boundary has two dimensions or more",
    "margin_estimate": "the descent of the margin estimate converged",
}
Given = dict[str, Any]


@dataclass(frozen=True)
class Reading:
    """A variable at one place of a cell, for each draw.

    softmax, scaling, precision, dataset: labels along these axes; ignored for axes that the variable lacks. minimum:
    the label of a minimum, or a kind of minima, such as adversarial; the variable is then averaged over the strengths
    of this kind. "every" stands for all trained minima. epoch: the last by default. rank: the number of an eigenvector,
    or "C" for the number of classes; all eigenvectors by default. log: whether to take the natural logarithm of
    positive values; others are then missing. times: a factor.
    """

    variable: str
    minimum: str = "normal"
    softmax: str = "temperature-1"
    scaling: str = "none"
    precision: str = "float32"
    dataset: str = ""
    epoch: int | None = None
    rank: int | str | None = None
    log: bool = False
    times: float = 1.0

    def of(self, cell: Cell) -> xr.DataArray:
        """Values (draw, …) of the reading in a cell. If `minimum` is "every", one axis has all trained minima.

        Raises NotTested if the run lacks the variable or the place, or has several radii.
        """
        values = _variable(cell, self.variable)
        names = {"dataset": self.dataset, "softmax": self.softmax, "scaling": self.scaling, "precision": self.precision}
        places: dict[str, str | int] = {axis: value for axis, value in names.items() if axis in values.dims and value}
        if "epoch" in values.dims:
            places["epoch"] = self.epoch or int(values["epoch"].max())
        if self.rank is not None:
            places["rank"] = int(cell["classes"].item()) if self.rank == "C" else self.rank
        for axis, value in places.items():
            require(values, axis, value)
        values = values.sel(places, drop=True)
        if values.sizes.get("radius", 1) != 1:
            raise NotTested(f"the claim is about one radius, and this run has {values.sizes['radius']}")
        values = values.isel(radius=0, drop=True, missing_dims="ignore")
        return self.times * self._of_minimum(xr.ufuncs.log(values.where(values > 0)) if self.log else values)

    def _of_minimum(self, values: xr.DataArray) -> xr.DataArray:
        axis = "other_minimum" if "other_minimum" in values.dims else "minimum"
        if axis not in values.dims:
            return values
        labels = values[axis].values.tolist()
        if self.minimum == EVERY:
            return values.sel({axis: [label for label in labels if label != "untrained"]})
        found = [label for label in labels if self.minimum in (label, label.rpartition("-")[0])]
        need(1, len(found), f"minima of the kind {self.minimum}")
        return values.sel({axis: found}).mean(axis, skipna=False)


def settings(cell: Cell) -> dict:
    """The settings of a cell's study."""
    return json.loads(cell.attrs["settings"])


def _variable(cell: Cell, name: str) -> xr.DataArray:
    """The variable `name` of a cell, NaN where training did not reach its stopping loss, if the study has one.

    test_error is 1 − test_accuracy. margin_estimate is measured by descents from several starts. It is averaged over
    the descents that converged, and NaN where none did. Raises NotTested if the run has not measured the variable, or
    if the convergence of the descents cannot be judged.
    """
    if name == "test_error":
        values = 1 - cell["test_accuracy"]
    elif name == "margin_estimate" and name in cell:
        need(LEAST_STEPS, settings(cell)["estimate_steps"], "steps of the margin estimate")
        if "map" not in cell:
            raise NotTested("this run has no alignment map, without which convergence of the descent cannot be judged")
        values = cell[name].where(alignments.converged(cell["alignment_reached"], cell["map"])).mean("start")
    elif name in cell:
        values = cell[name]
    else:
        raise NotTested(f"this run has measured no {name}")
    stop_at = settings(cell).get("stop_at")
    return values.where(cell["training_loss"] <= REACHED * stop_at) if stop_at else values


def _whole(cell: Cell, *readings: Given) -> list[np.ndarray]:
    """Values (…, draw) of each of the `readings`, restricted to the draws in which all of them are finite.

    Raises NotTested if fewer than two draws, or less than the share LEAST_SHARE of all draws, remain.
    """
    found = [Reading(**each).of(cell).transpose(..., "draw").values for each in readings]
    known = np.all([np.isfinite(each).reshape(-1, each.shape[-1]).all(0) for each in found], axis=0)
    names = {each["variable"] for each in readings}
    what = [HAVE[name] for name in HAVE if name in names] or [f"{', '.join(sorted(names))} can be measured"]
    what += ["training reached its loss"] * bool(settings(cell).get("stop_at"))
    least = max(2, math.ceil(LEAST_SHARE * len(known)))
    need(least, int(known.sum()), f"of {len(known)} draws in which {' and '.join(what)}")
    return [each[..., known] for each in found]


def _each(cell: Cell, of: Given) -> Iterator[Given]:
    """Yield the readings that `of` stands for: one for each scaling or minimum if this field is "each", else only `of`.

    The scaling "none" and the minimum "untrained" are left out. Raises NotTested if the `cell` has no other label.
    """
    axis = next((name for name in ("scaling", "minimum") if of.get(name) == EACH), None)
    if axis is None:
        yield of
        return
    labels = [label for label in cell[axis].values.tolist() if label not in ("none", "untrained")]
    need(1, len(labels), f"values of {axis} to compare")
    for label in labels:
        yield {**of, axis: label}


def _resolution(cell: Cell, of: Given) -> float:
    """Step between possible values of the reading `of` in one draw if its variable is one of COUNTS; else 0.

    The step is 1, divided by the number of minima over which the reading is averaged if it names a kind of minima.
    """
    if of["variable"] not in COUNTS:
        return 0.0
    kinds = [label.rpartition("-")[0] for label in cell["minimum"].values.tolist()]
    return 1 / max(1, kinds.count(of.get("minimum", "")))


def boundary_value(cell: Cell, of: Given) -> list[Estimate]:
    """Mean over draws of the reading `of`, which names a variable and its place in the cell (see `Reading`).

    There is a single estimate, or one for each scaling or minimum if this field of the reading is "each".
    """
    return [estimates.mean(_whole(cell, each)[0], _resolution(cell, of)) for each in _each(cell, of)]


def boundary_contrast(cell: Cell, of: Given, less: Given, against: Given | None = None) -> list[Estimate]:
    """Mean over draws of the reading `of` minus the reading {**of, **less}.

    A reading names a variable and its place in the cell (see `Reading`); `less` and `against` are changes of `of`. With
    `against`, a second difference is subtracted from this one: the reading {**of, **against} minus the reading {**of,
    **less, **against}. There is one estimate for each scaling or minimum if this field of `of` is "each".
    """
    found = []
    for each in _each(cell, of):
        pair = each, {**each, **less}
        first, second, *others = _whole(cell, *pair, *({**one, **against} for one in pair if against is not None))
        if others:
            first, second = first - second, others[0] - others[1]
        found.append(estimates.difference(first, second, _resolution(cell, of)))
    return found


def largest_error(cell: Cell, of: Given) -> list[Estimate]:
    """Largest value, over draws and all remaining axes, of the reading `of`, which is the error of an identity."""
    found = (_whole(cell, each)[0] for each in _each(cell, of))
    return [estimates.largest(each.reshape(-1, each.shape[-1]).max(0)) for each in found]


def kendall(first: np.ndarray, second: np.ndarray) -> float:
    """Kendall's τ of `first` and `second` (n,), corrected for ties (τ_b); NaN if one of them is constant."""
    signs = [np.sign(each[:, None] - each[None, :]) for each in (first, second)]
    size = math.sqrt(math.prod(np.square(each).sum() for each in signs))
    return float((signs[0] * signs[1]).sum() / size) if size else math.nan


def spearman(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman correlation of `first` and `second` (n,), with mean ranks for ties; NaN if one of them is constant."""
    x, y = (estimates.ranks(each) for each in (first, second))
    return float(np.corrcoef(x, y)[0, 1]) if min(np.ptp(x), np.ptp(y)) > 0 else math.nan


CORRELATIONS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {"kendall": kendall, "spearman": spearman}


def minima_order(
    cell: Cell, of: Given, with_: Given, rival: Given | None = None, absolute: bool = True, by: str = "kendall"
) -> list[Estimate]:
    """Correlation of two readings over the trained minima of each draw; mean over draws.

    The two readings are `of` and {**of, **with_}; a reading names a variable and its place in the cell. `by` is the
    coefficient, "kendall" or "spearman". With `rival`, the correlation of {**of, **rival} and {**of, **with_} is
    subtracted. If `absolute` is True, its absolute value is subtracted instead. Raises NotTested with fewer than
    LEAST_MINIMA minima, or if too few draws have varying values.
    """
    readings = [{**of, **each, "minimum": EVERY} for each in ({}, with_, *([rival] if rival else []))]
    values = _whole(cell, *readings)
    count, correlation = len(values[0]), CORRELATIONS[by]
    need(LEAST_MINIMA, count, "minima")
    own, *others = ([correlation(*pair) for pair in zip(each.T, values[1].T)] for each in (values[0], *values[2:]))
    own, others = np.array(own), np.abs(others) if absolute else np.array(others)
    known = np.all(np.isfinite([own, *others]), 0)
    need(max(2, math.ceil(LEAST_SHARE * len(known))), int(known.sum()), f"of {len(known)} draws whose minima differ")
    step = 4 / (count * (count - 1)) if by == "kendall" else 0.0
    if rival:
        return [estimates.difference(own[known], others[0][known], step)]
    return [estimates.mean(own[known], step)]


def pooled_correlation(cell: Cell, of: Given, with_: Given, name: str) -> list[Estimate]:
    """Spearman correlation of the readings `of` and {**of, **with_} over all trained minima of all draws together.

    A reading names a variable and its place in the cell. The bootstrap resamples draws; `name` names its random stream.
    """
    pair = np.stack(_whole(cell, *({**of, **each, "minimum": EVERY} for each in ({}, with_))))
    estimate = estimates.bootstrapped(lambda sample: spearman(*sample.reshape(2, -1)), pair, name)
    return [estimates.of_ranks(estimate, pair[0].size)]


def share_of_effect(cell: Cell, of: Given, less: Given, effect: Given) -> list[Estimate]:
    """Mean over draws of a contrast, divided by the mean of an effect, with Fieller's interval for this ratio.

    The contrast is the reading `of` minus the reading {**of, **less}. The effect is also a difference of two readings.
    The first is {**of, **effect}, with the scaling "none" unless `effect` has another. The second differs from it only
    in the minimum, which is "normal". A reading names a variable and its place in the cell. Raises NotTested if the
    effect is not significantly different from 0.

    Suppose that the effect is positive. Then the interval of level 1 − 2p lies within ±s if and only if two one-sided
    tests of level p over draws succeed: that contrast − s · effect is below 0, and that contrast + s · effect is above
    0.
    """
    found = []
    for each in _each(cell, of):
        whole = {**of, "scaling": "none", **effect}
        one, two, high, low = _whole(cell, each, {**each, **less}, whole, {**whole, "minimum": "normal"})
        found.append(_fieller(one - two, high - low))
    return found


def _fieller(changes: np.ndarray, effects: np.ndarray) -> Estimate:
    n = len(changes)
    low, high = estimates.mean(effects).interval(LEVEL)
    if low <= 0 <= high:
        ends = f"{low:.3g} to {high:.3g}"
        raise NotTested(f"the effect that sets the margin does not differ from 0: its interval is {ends}")
    change, effect = changes.mean(), effects.mean()
    (own, shared), (_, other) = np.cov(changes, effects) / n

    def interval(level: float) -> tuple[float, float]:
        t = student((1 + level) / 2, n - 1) if level else 0.0
        square, middle = effect**2 - t**2 * other, change * effect - t**2 * shared
        if square <= 0:
            return -math.inf, math.inf
        root = math.sqrt(max(0.0, middle**2 - square * (change**2 - t**2 * own)))
        return (middle - root) / square, (middle + root) / square

    share = change / effect
    error = math.sqrt(max(0.0, own - 2 * share * shared + share**2 * other)) / abs(effect)
    return Estimate(float(share), error, n, interval)


def rank_bound(cell: Cell) -> float:
    """Upper bound (2(p₁ + p₃) + n(C − 1))/p on rank(H)/p of the Hessian H, for ReLU networks of three weight layers.

    p_l is the number of parameters of layer l of the cell's network, p the number of all parameters, n the number of
    examples, and C the number of classes. Raises NotTested for networks of another kind or without biases, and for
    datasets whose inputs are not points in the plane.
    """
    label, dataset = cell["network"].item(), planar_shapes.of(cell["dataset"].item())
    network = parse_network(label) if is_network(label) else None
    if not (dataset and network) or network.activation != "relu" or network.depth != 3 or not network.biases:
        kind = "ReLU networks with biases and three weight layers, on inputs in the plane"
        raise NotTested(f"the bound on the rank holds only for {kind}")
    shapes = network.weight_shapes(dataset.shape.image, dataset.classes)
    sizes = [outputs * (inputs + 1) for outputs, inputs in shapes]
    examples = settings(cell).get("examples") or dataset.examples
    return (2 * (sizes[0] + sizes[2]) + examples * (dataset.classes - 1)) / sum(sizes)


def above_rank_bound(cell: Cell, of: Given) -> list[Estimate]:
    """The reading `of`, a share of eigenvectors, minus `rank_bound`; mean over draws."""
    return [estimates.mean(_whole(cell, of)[0] - rank_bound(cell))]


def rank_bound_excess(cell: Cell, of: Given) -> list[Estimate]:
    """Largest excess, over draws, of the reading `of`, a share of eigenvectors, above `rank_bound`; at least 0."""
    return [estimates.largest(np.maximum(_whole(cell, of)[0] - rank_bound(cell), 0.0))]


def section_slope(cell: Cell, of: Given, designs: str, coefficients: tuple[float, float]) -> list[Estimate]:
    """Weighted sum of two slopes of a count over datasets of one design; mean over draws.

    The count is the reading `of`. In each draw, it is fitted by least squares as a linear function of the number of
    sections of a dataset and of C − 1, for C classes. Sections are the sectors of a pie, or the borders between
    stripes. The two `coefficients` are the weights of the two slopes. The fit uses the datasets of the kind `designs`,
    "pie" or "stripes", whose count is finite in this draw. Raises NotTested if there are too few such datasets or
    draws.
    """
    every = {name: planar_shapes.of(name) for name in cell["dataset"].values.tolist()}
    known = {name: design for name, design in every.items() if design is not None and design.kind == designs}
    labels = list(known)
    need(LEAST_DESIGNS, len(labels), f"designs of the kind {designs}")
    rows = np.array([(design.sections, design.classes - 1, 1) for design in known.values()], float)
    values = Reading(**of).of(cell.sel(dataset=labels)).transpose("dataset", "draw").values
    weights, slopes, steps = np.array([*coefficients, 0.0]), [], []
    for counts in values.T:
        here = np.isfinite(counts)
        if here.sum() >= max(LEAST_DESIGNS, LEAST_SHARE * len(labels)) and np.linalg.matrix_rank(rows[here]) == 3:
            inverse = np.linalg.pinv(rows[here])
            slopes.append(weights @ inverse @ counts[here])
            steps.append(np.linalg.norm(weights @ inverse))
    what = "draws in which training reached its loss on designs that tell sections from classes"
    need(max(2, math.ceil(LEAST_SHARE * values.shape[1])), len(slopes), what)
    return [estimates.mean(np.array(slopes), resolution=max(steps))]


def border_order(cell: Cell, of: Given) -> list[Estimate]:
    """Kendall's τ, over the designed borders of a dataset, between the reading `of` and the gaps; mean over draws.

    The gap of a border is the width of the region around it that has no points. For the control, a dataset with equal
    gaps, the gaps are taken from the dataset with unequal gaps at the same draw.
    """
    name, seed = cell["dataset"].item().removeprefix("equal_"), settings(cell)["seed"]
    if not planar_shapes.sections(name):
        raise NotTested(f"{name} has no designed borders")
    borders = {draw: planar.borders(name, seed, draw) for draw in cell["draw"].values.tolist()}
    gaps = {draw: each.gaps for draw, each in borders.items() if each is not None}
    values = Reading(**of).of(cell).transpose("draw", "border")
    found = np.array([kendall(row.values, gaps[int(row["draw"])]) for row in values])
    known = np.isfinite(found)
    what = f"of {len(known)} draws in which {HAVE['border_rank']} and training reached its loss"
    need(max(2, math.ceil(LEAST_SHARE * len(known))), int(known.sum()), what)
    pairs = values.sizes["border"] * (values.sizes["border"] - 1) / 2
    return [estimates.mean(found[known], resolution=2 / pairs)]
