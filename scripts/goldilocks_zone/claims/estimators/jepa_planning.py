"""Estimators for claims about prediction and planning on two levels (Dawid & LeCun 2023).

The unit is a draw: a training seed with its own initial weights, data and episodes. All levels and planners share the
weights, data and episodes of a draw, so that comparisons are paired over draws. `cell` has the results of one study.
Readings, such as the arguments `of` and `less`, name a variable and the place where it is read, as in `jepa_training`.
"""

import json
from fnmatch import fnmatchcase

import numpy as np
import xarray as xr

from goldilocks_zone.claims.cells import Cell, NotTested, need
from goldilocks_zone.claims.estimators import jepa_training
from goldilocks_zone.claims.estimators.jepa_training import Given, Reading
from goldilocks_zone.statistics import estimates
from goldilocks_zone.statistics.estimates import Estimate

SUCCESS = "success"


def horizon_contrast(cell: Cell, of: Given, less: Given) -> list[Estimate]:
    """Mean over draws of R² in the reading `of` minus R² in the reading {**of, **less}; R² below 0 counts as 0.

    R² measures how well targets are decoded from predictions. A reading names the variable that holds R², and its
    place, such as level and horizon. R² is clipped because a decoder can always predict the mean, which has R² = 0.
    Otherwise divergent predictions would dominate the mean over draws.
    """
    name = of["variable"]
    if name not in cell:
        raise NotTested(f"this run has measured no {name}")
    return jepa_training.embedding_contrast(cell.assign({name: cell[name].clip(min=0)}), of, less)


def planner_advantage(cell: Cell, of: Given, rivals: list[str]) -> list[Estimate]:
    """Success rate of a planner minus the success rate of the best of its rivals, paired over draws.

    `of` names the planner, and the values along other axes at which both success rates are read. `rivals` are patterns
    of planner labels. For each draw, the best rival is the one with the highest mean success over all other draws.
    Raises NotTested with fewer than two rivals.
    """
    if SUCCESS not in cell:
        raise NotTested(f"this run has measured no {SUCCESS}")
    labels = cell["planner"].values.tolist()
    named = [label for label in labels if any(fnmatchcase(label, pattern) for pattern in rivals)]
    need(2, len(named), f"of the planners {', '.join(rivals)} to choose the best from")
    own = Reading.of({"variable": SUCCESS, **of}).values(cell)
    place = {axis: value for axis, value in of.items() if axis != "planner"}
    best = Reading.of({"variable": SUCCESS, **place, "best": ("planner",)}).values(cell.sel(planner=named))
    return [_difference(cell, own, best)]


def planner_contrast(cell: Cell, of: Given, less: Given) -> list[Estimate]:
    """Success rate in the reading `of` minus the success rate in the reading {**of, **less}, paired over draws.

    A reading names a planner, and values along other axes of the study.
    """
    return [_difference(cell, *(Reading.of({"variable": SUCCESS, **of, **each}).values(cell) for each in ({}, less)))]


def planner_success(cell: Cell, of: Given) -> list[Estimate]:
    """Success rate of a planner: the share of the starts from which it reaches the goal, averaged over draws.

    `of` names the planner, and values along other axes of the study.
    """
    values = Reading.of({"variable": SUCCESS, **of}).values(cell)
    (known,) = _known(values)
    return [estimates.mean(known, 1 / _starts(cell))]


def _difference(cell: xr.Dataset, first: np.ndarray, second: np.ndarray) -> Estimate:
    """Mean of the paired differences `first` − `second` of success rates (draw,), over draws in which both are finite.

    The resolution of a success rate is 1 over the cell's number of starts.
    """
    here, there = _known(first, second)
    return estimates.difference(here, there, 1 / _starts(cell))


def _known(*samples: np.ndarray) -> list[np.ndarray]:
    """Restrict `samples`, arrays (n,) over draws, to the draws in which all of them are finite.

    Raises NotTested if too few draws remain.
    """
    known = np.all(np.isfinite(samples), 0)
    jepa_training.need_most(known, "with all episodes")
    return [each[known] for each in samples]


def _starts(cell: xr.Dataset) -> int:
    return json.loads(cell.attrs["settings"])["starts"]
