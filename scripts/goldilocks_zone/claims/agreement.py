"""Agreement with published values: differences between means over a run's draws and the published points.

Each published point has a radius, or none, and the dimension d of the planes. A reading is one interpretation of the
original work: a choice of the settings that this work does not state. No verdict depends on these differences.
"""

import csv
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import xarray as xr
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from goldilocks_zone.claims import cells
from goldilocks_zone.claims.cells import NotTested
from goldilocks_zone.claims.estimators import training
from goldilocks_zone.config.weights import INITIALISATIONS

COLUMNS = (
    *("work", "comparison", "figure", "title", "reading", "says", "study", "d", "points", "share_within"),
    *("mean_difference", "mean_absolute_difference", "largest_difference", "deviations", "reason"),
)
ALL = "all"  # label of the row that pools all dimensions
WITHIN = 2.0  # standard deviations
OVER_DRAWS = 3  # fewest draws for a standard deviation


class Columns(BaseModel):
    """Names of the columns of a CSV file of published values.

    value: the published value. x: the radius as log10(r²/r_X²). log10_r: the radius as log10(r/r_X). Give x or log10_r,
    or neither if all values are at a single radius. deviation: the published standard deviation of the value, if any.
    The file must also have a column named d, the dimension of the planes.
    """

    model_config = ConfigDict(extra="forbid")
    value: str
    x: str | None = None
    log10_r: str | None = None
    deviation: str | None = None


class Reading(BaseModel):
    """One interpretation of the original work: a choice of the settings that it does not state.

    says: the choice in words. study: name of the study of this project that has these settings. at: {name: value}. If
    the name is an axis of the study, its results are read at this value; otherwise it is a setting, and the study must
    have this value of it. shift: offset added to the published x = log10(r²/r_X²).
    """

    model_config = ConfigDict(extra="forbid")
    says: str
    study: str
    at: dict[str, object] = {}
    shift: float = 0.0


class Comparison(BaseModel):
    """A comparison of the published values in one file with the results of this project.

    title: what is compared. figure: the figure of this project that draws the values. values: name of the file of
    published values. columns: the columns of this file. variable: the variable in the results. series: {axis:
    template}, a single entry, which says where the results for planes of dimension d are: at the label along this axis
    that is the template with d in place of {d}. at: as in `Reading`, but for all readings; a reading's own values take
    precedence. readings: {name: reading}; each is compared with the published values.
    """

    model_config = ConfigDict(extra="forbid")
    title: str
    figure: str
    values: str
    columns: Columns
    variable: str
    series: dict[str, str]
    at: dict[str, object]
    readings: dict[str, Reading]


def load(path: str | Path) -> dict[str, Comparison]:
    """Load the comparisons in a file resources/published/<work>/agreement.yaml, as {name: comparison}.

    Raises ValueError if a comparison is invalid.
    """
    found = {}
    for name, given in yaml.safe_load(Path(path).read_text(encoding="utf-8")).items():
        try:
            found[name] = Comparison.model_validate(given)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, (name, *first["loc"])))
            raise ValueError(f"{path}: {place}: {first['msg']}; see resources/published/README.md") from None
    return found


def evaluate(path: str | Path, studies: Mapping[str, xr.Dataset]) -> list[dict]:
    """Compare the results of a run with the published values that the file at `path` lists.

    `path` is a file agreement.yaml (see `load`), and `studies` maps names to results. Returns a list of rows,
    dictionaries with the keys COLUMNS. Each reading of each comparison has one row for each dimension d of the planes,
    and one for all d together. Where a comparison is impossible, a row has the reason in place of statistics; see
    `_compared`.
    """
    found = []
    for name, comparison in load(path).items():
        points = published(Path(path).parent / comparison.values, comparison.columns)
        for key, reading in comparison.readings.items():
            row = {"work": Path(path).parent.name, "comparison": name, "figure": comparison.figure}
            row |= {"title": comparison.title, "reading": key, "says": reading.says, "study": reading.study}
            found += [
                {**dict.fromkeys(COLUMNS, ""), **row, **each}
                for each in _compared(comparison, reading, points, studies)
            ]
    return found


def published(path: Path, columns: Columns) -> dict[int, np.ndarray]:
    """Read the published values in the CSV file at `path`, as {d: array (3, points)}, d the dimension of the planes.

    The rows of an array are x = log10(r²/r_X²), the value and its standard deviation. The row of x or of the standard
    deviation is NaN if `columns` names no column for it.
    """
    with path.open(newline="", encoding="utf-8") as file:
        rows, found = list(csv.DictReader(file)), defaultdict(list)
    for row in rows:
        x = float(row[columns.x]) if columns.x else 2 * float(row[columns.log10_r]) if columns.log10_r else np.nan
        deviation = float(row[columns.deviation]) if columns.deviation else np.nan
        found[int(row["d"])].append((x, float(row[columns.value]), deviation))
    return {d: np.array(each).T for d, each in found.items()}


def _compared(
    comparison: Comparison, reading: Reading, points: dict[int, np.ndarray], studies: Mapping[str, xr.Dataset]
) -> Iterator[dict]:
    """Yield the rows of `evaluate` for one `reading` of a `comparison`.

    `points` comes from `published`; `studies` maps names to results. There is one row for each d in `points`, with
    statistics or the reason why there are none, and then one for all d together, unless no d can be compared. If the
    run lacks the study, the only row is one for all d that says so.
    """
    if reading.study not in studies:
        yield {"d": ALL, "reason": f"the study {reading.study} is not part of this run"}
        return
    together = []
    for d, (x, values, deviations) in points.items():
        try:
            ours = _curve(studies[reading.study], comparison, reading, d)
        except NotTested as reason:
            yield {"d": d, "reason": str(reason)}
            continue
        mean, spread = _at(ours, x + reading.shift)
        apart = np.array([mean - values, np.where(np.isnan(deviations), spread, deviations)])[:, ~np.isnan(mean)]
        if not apart.size:
            yield {"d": d, "reason": "no published place lies within the radii of this run"}
            continue
        together.append(apart)
        yield {"d": d, **_summary(apart, comparison)}
    if together:
        yield {"d": ALL, **_summary(np.concatenate(together, axis=1), comparison)}


def _curve(study: xr.Dataset, comparison: Comparison, reading: Reading, d: int) -> xr.DataArray:
    """Values (radius, draw) of the comparison's variable on planes of dimension `d`, in the `study` of a `reading`.

    `comparison` and `reading` name values along axes of the study, at which the variable is read, and values of
    settings. Raises NotTested if the study has another value of a setting, or lacks the variable or a named value along
    an axis. Raises NotTested also if the study has several values along an axis for which none is named.
    """
    ((axis, label),) = comparison.series.items()
    place = {"weights": INITIALISATIONS, **comparison.at, **reading.at, axis: label.format(d=d)}
    cell, settings = study, json.loads(study.attrs["settings"])
    for name, value in place.items():
        if name not in study.dims:
            if (given := settings.get(name, value)) != value:
                raise NotTested(f"the study {reading.study} has {name} {given}, and the reading is of {value}")
            continue
        value = type(study[name].values.tolist()[0])(value) if name == axis else value
        cells.require(study, name, value)
        cell = cell.sel({name: value})
    if comparison.variable not in cell:
        raise NotTested(f"the study {reading.study} has measured no {comparison.variable}")
    values = training.accuracy(cell) if comparison.variable == "test_accuracy" else cell[comparison.variable]
    if left := [each for each in values.dims if each not in ("radius", "draw") and values.sizes[each] > 1]:
        raise NotTested(f"the study {reading.study} has several values of {left[0]}, of which the reading names none")
    alone = [each for each in values.dims if each not in ("radius", "draw")]
    return values.squeeze(alone, drop=True).expand_dims([each for each in ("radius",) if each not in values.dims])


def _at(ours: xr.DataArray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation over draws of `ours` (radius, draw), interpolated to places `x`; all are (points,).

    `x` is log10(r²/r_X²). The interpolation between the radii of `ours` is linear, and both results are NaN outside the
    range of these radii. The standard deviation is also NaN with fewer than OVER_DRAWS draws. `x` is NaN throughout if
    the published values have no radius; the results are then those at the only radius of `ours`, or NaN if it has
    several.
    """
    count = ours.sizes["draw"]
    mean = ours.mean("draw").values
    spread = ours.std("draw", ddof=1).values if count >= OVER_DRAWS else np.full(len(mean), np.nan)
    if np.isnan(x).all():
        alone, around = (np.full(len(x), each[0] if len(each) == 1 else np.nan) for each in (mean, spread))
        return alone, around
    order = np.argsort(ours["x"].values)
    places = ours["x"].values[order]
    inside = (x >= places[0] - 1e-3) & (x <= places[-1] + 1e-3)
    means, spreads = (np.where(inside, np.interp(x, places, each[order]), np.nan) for each in (mean, spread))
    return means, spreads


def _summary(apart: np.ndarray, comparison: Comparison) -> dict:
    """Summary statistics of differences from published values, as entries of a row of `evaluate`.

    The first row of `apart` (2, points) has the differences, run minus published value. The second has the standard
    deviations with which they are compared: published ones if the file of the `comparison` has them, else those over
    the run's draws. The entry deviations says which, "published" or "ours". share_within is the share of the
    differences that are at most WITHIN standard deviations, among those whose standard deviation is known.
    """
    differences, deviations = apart
    sizes = np.abs(differences)
    known = ~np.isnan(deviations)
    return {
        "points": len(sizes),
        "share_within": float(np.mean(sizes[known] <= WITHIN * deviations[known])) if known.any() else "",
        "mean_difference": float(differences.mean()),
        "mean_absolute_difference": float(sizes.mean()),
        "largest_difference": float(differences[sizes.argmax()]),
        "deviations": "published" if comparison.columns.deviation else "ours",
    }
