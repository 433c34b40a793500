"""Estimators for claims about trained joint embeddings (Dawid & LeCun 2023, and extensions of this project).

The unit is a draw: a training seed with its own initial weights and data stream. All arms of a study (its variants of
training) share these, so that comparisons are paired over draws. Draws with missing values are left out. `cell` has the
results of one study. A reading is a mapping that names a variable and its place: values along axes of the study, and
the keys of `Reading`; see config/claims/README.md.
"""

import math
import re
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import xarray as xr

from goldilocks_zone.claims.cells import Cell, NotTested, need, require
from goldilocks_zone.claims.curves import WINDOW_SLACK
from goldilocks_zone.claims.estimators.decision_boundary import spearman
from goldilocks_zone.statistics import estimates
from goldilocks_zone.statistics.estimates import Estimate

LEAST_SHARE = 0.5  # of the draws; fewer would be a biased selection
LEAST_CORRELATED = 10  # draws
LEAST_PLACES = 3  # for a slope
COUNTS = ("dimensions_in_use",)
Given = dict[str, Any]


@dataclass(frozen=True)
class Reading:
    """A variable at one place of a cell, for each draw.

    at: values along axes. x: the radius as log10(r²/r_X²). best: axes whose values are chosen anew for each draw, by
    the other draws: those at which the variable `by` has its largest mean over all other draws. by: a variable; by
    default, the variable of the reading. log: whether to take the natural logarithm of positive values; others are then
    missing. times: a factor.
    """

    variable: str
    at: Given = field(default_factory=dict)
    x: float | None = None
    best: tuple[str, ...] = ()
    by: str = ""
    log: bool = False
    times: float = 1.0

    @classmethod
    def of(cls, given: Given) -> "Reading":
        """Build a reading from the mapping `given` in a case; keys that are not fields are values along axes."""
        own = {key: value for key, value in given.items() if key in OWN}
        return cls(**own, at={key: value for key, value in given.items() if key not in OWN})

    def values(self, cell: Cell) -> np.ndarray:
        """Values (draw,) of the reading in a cell; NaN where missing.

        Raises NotTested if the study lacks the variable or place, or has several values along an axis for which the
        reading names none.
        """
        found = self._at_place(cell, self.variable)
        if self.best:
            judged = self._at_place(cell, self.by or self.variable)
            found = xr.DataArray(_of_best(found, judged, list(self.best)), dims="draw")
        if left := [axis for axis, size in found.sizes.items() if axis != "draw" and size > 1]:
            raise NotTested(f"the study has several values of {left[0]}, of which the claim names none")
        found = found.squeeze([axis for axis in found.dims if axis != "draw"], drop=True)
        return self.times * (np.log(found.where(found > 0).values) if self.log else found.values)

    def _at_place(self, cell: Cell, variable: str) -> xr.DataArray:
        if variable not in cell:
            raise NotTested(f"this run has measured no {variable}")
        values = cell[variable]
        for axis, value in self.at.items():
            if axis not in cell.coords:
                raise NotTested(f"the study has no axis {axis}")
            require(cell, axis, value)
            # A variable without this axis has the same value everywhere along it.
            if axis in values.dims:
                values = values.sel({axis: value}, drop=True)
        if self.x is not None:
            if "x" not in values.coords or "radius" not in values.dims:
                raise NotTested("the study's radii are not in units of r_X")
            near = np.flatnonzero(np.abs(values["x"].values - self.x) <= WINDOW_SLACK)
            need(1, len(near), f"radii with x = {self.x:g}")
            values = values.isel(radius=near[0], drop=True)
        return values


OWN = {each.name for each in fields(Reading)} - {"at"}


def _of_best(values: xr.DataArray, judged: xr.DataArray, axes: list[str]) -> np.ndarray:
    """Values (draw,): for each draw, its entry of `values` at the place along `axes` that the other draws find best.

    This is the place at which the mean of `judged` over all other draws is largest. `values` and `judged` have the axes
    draw and `axes`. A place counts as the worst if any of the other draws failed there (NaN). Raises NotTested if one
    of `axes` is missing, if another axis has several values, or with fewer than two draws.
    """
    if missing := [axis for axis in axes if axis not in judged.dims]:
        raise NotTested(f"the study does not vary {missing[0]}")
    values, judged = (
        each.squeeze([axis for axis in each.dims if axis not in (*axes, "draw") and each.sizes[axis] == 1], drop=True)
        for each in xr.broadcast(values, judged)
    )
    if left := [axis for axis in judged.dims if axis not in (*axes, "draw")]:
        raise NotTested(f"the study has several values of {left[0]}, of which the claim names none")
    count = judged.sizes["draw"]
    need(2, count, "draws (each draw's best place is chosen by the others)")
    rows, of_judge = (each.transpose(*axes, "draw").values.reshape(-1, count) for each in (values, judged))
    others = np.stack([np.delete(of_judge, draw, 1).mean(1) for draw in range(count)], 1)
    return rows[np.where(np.isfinite(others), others, -np.inf).argmax(0), np.arange(count)]


def _whole(cell: Cell, *readings: Given) -> list[np.ndarray]:
    """Values (draw,) of each of the `readings`, restricted to the draws in which all of them are finite.

    Raises NotTested if fewer than two draws, or less than the share LEAST_SHARE of all draws, remain.
    """
    found = [Reading.of(each).values(cell) for each in readings]
    known = np.all(np.isfinite(found), 0)
    names = sorted({str(each["variable"]) for each in readings})
    need_most(known, f"in which {', '.join(names)} can be measured")
    return [each[known] for each in found]


def need_most(known: np.ndarray, what: str) -> None:
    """Raise NotTested if the mask `known` (draw,) selects fewer than two draws, or less than LEAST_SHARE of all draws.

    `what` describes the selected draws in the message.
    """
    need(max(2, math.ceil(LEAST_SHARE * len(known))), int(known.sum()), f"of {len(known)} draws {what}")


def _resolution(of: Given) -> float:
    return 1.0 if of["variable"] in COUNTS else 0.0


def embedding_value(cell: Cell, of: Given) -> list[Estimate]:
    """Mean over draws of the reading `of`, a mapping that names a variable and its place in the study."""
    return [estimates.mean(_whole(cell, of)[0], _resolution(of))]


def embedding_contrast(cell: Cell, of: Given, less: Given, against: Given | None = None) -> list[Estimate]:
    """Mean over draws of the reading `of` minus the reading {**of, **less}.

    A reading is a mapping that names a variable and the place in the study where it is read. With `against`, a second
    difference is subtracted from this one: the reading {**of, **against} minus the reading {**of, **less, **against}.
    """
    first, second = _sides(cell, [of], less, against)
    return [estimates.difference(first[0], second[0], _resolution(of))]


def embedding_slope(
    cell: Cell, of: Given, along: dict[str, list], less: Given | None = None, against: Given | None = None
) -> list[Estimate]:
    """Mean over draws of the slope of the reading `of` over log2 of values along one axis, by least squares.

    `along` is {axis: values}. A value that is a name stands for the number at its end, for example rings_8 for 8. With
    `less`, and possibly `against`, the slope is that of a contrast, which is defined as in `embedding_contrast`. Raises
    NotTested with fewer than LEAST_PLACES values.
    """
    ((axis, values),) = along.items()
    need(LEAST_PLACES, len(values), f"values of {axis}")
    x = np.log2([_number(value) for value in values])
    weights = (x - x.mean()) / np.sum((x - x.mean()) ** 2)
    places = [{**of, axis: value} for value in values]
    if less is None:
        return [estimates.mean(weights @ np.stack(_whole(cell, *places)))]
    first, second = _sides(cell, places, less, against)
    return [estimates.difference(weights @ first, weights @ second)]


def embedding_ratio(cell: Cell, of: Given, to: Given) -> list[Estimate]:
    """Mean over draws of the reading `of` divided by the reading {**of, **to}.

    A reading names a variable and its place in the study. Raises NotTested if a denominator is 0.
    """
    first, second = _whole(cell, of, {**of, **to})
    if not second.all():
        raise NotTested(f"{to.get('variable', of['variable'])} is 0, so that a ratio to it is undefined")
    return [estimates.mean(first / second)]


def embedding_correlation(cell: Cell, of: Given, with_: Given, name: str) -> list[Estimate]:
    """Spearman correlation over draws of the readings `of` and {**of, **with_}.

    A reading names a variable and its place in the study. The bootstrap resamples draws; `name` names its random
    stream. Raises NotTested with fewer than LEAST_CORRELATED draws, or if a reading is equal in every draw.
    """
    pair = np.stack(_whole(cell, of, {**of, **with_}))
    need(LEAST_CORRELATED, pair.shape[1], "draws whose ranks can be compared")
    for each, given in zip(pair, (of, {**of, **with_})):
        if not np.ptp(each):
            raise NotTested(f"{given['variable']} is equal in every draw")
    estimate = estimates.bootstrapped(lambda sample: spearman(*sample), pair, name)
    return [estimates.of_ranks(estimate, pair.shape[1])]


def embedding_error(cell: Cell, of: Given, less: Given | None = None) -> list[Estimate]:
    """Largest absolute value, over draws, of the error of an identity.

    The error is the reading `of` or, with `less`, the reading `of` minus the reading {**of, **less}.
    """
    first, *second = _whole(cell, of, *([] if less is None else [{**of, **less}]))
    return [estimates.largest(np.abs(first - (second[0] if second else 0)))]


def _sides(cell: Cell, places: list[Given], less: Given, against: Given | None) -> tuple[np.ndarray, np.ndarray]:
    """Two sides of a contrast, each (place, draw), for the readings in `places`; callers subtract the second side.

    For a reading `of`, the sides are `of` and {**of, **less} if `against` is None. Otherwise the first side is the
    difference of these two, and the second is {**of, **against} minus {**of, **less, **against}. Draws of `cell` in
    which a reading is missing are left out.
    """
    changes = [{}] if against is None else [{}, against]
    readings = [{**of, **each, **change} for of in places for change in changes for each in ({}, less)]
    found = np.stack(_whole(cell, *readings)).reshape(len(places), len(changes), 2, -1)
    if against is None:
        return found[:, 0, 0], found[:, 0, 1]
    return tuple(np.moveaxis(found[:, :, 0] - found[:, :, 1], 1, 0))


def _number(value: object) -> float:
    """The given number `value`, or the number at the end of a name, such as 8 for rings_8."""
    number = re.search(r"[0-9.]+$", str(value))
    assert number is not None, f"{value!r} does not end in a number"
    return float(number[0])
