"""`make compare`: list the numbers and verdicts that differ between two runs."""

import csv
from pathlib import Path

import numpy as np
import xarray as xr

from goldilocks_zone.storage import netcdf


def _studies(first: Path, second: Path, tolerance: float) -> list[str]:
    paths = [{path.stem: path for path in (folder / "aggregate").glob("*.nc")} for folder in (first, second)]
    lines = [f"study {name}: only in {first}" for name in sorted(paths[0].keys() - paths[1])]
    lines += [f"study {name}: only in {second}" for name in sorted(paths[1].keys() - paths[0])]
    for name in sorted(paths[0].keys() & paths[1]):
        studies = [netcdf.read_dataset(each[name]) for each in paths]
        lines += [f"study {name}: {line}" for line in differences(studies[0], studies[1], tolerance)]
    return lines


def differences(first: xr.Dataset, second: xr.Dataset, tolerance: float) -> list[str]:
    """Sentences on how two results of the same study differ, one for each axis and each variable that differs.

    An axis differs if its labels do; variables are then compared at the labels that both results have. Numbers a and b
    differ if |a − b| > `tolerance` · max(|a|, |b|).
    """
    lines = []
    for axis in first.sizes.keys() | second.sizes.keys():
        values = [set(study[axis].values.tolist()) if axis in study.coords else set() for study in (first, second)]
        if values[0] != values[1]:
            common = len(values[0] & values[1])
            lines.append(
                f"{axis}: {len(values[0])} and {len(values[1])} values; only the {common} in common are compared"
            )
    first, second = xr.align(first, second, join="inner")
    for name in sorted({*map(str, first.data_vars), *map(str, second.data_vars)}):
        if name not in first or name not in second:
            lines.append(f"{name}: only in the {'second' if name not in first else 'first'} run")
            continue
        a, b = first[name], second[name].transpose(*first[name].dims)
        gap = np.abs(a - b) / np.maximum(np.maximum(np.abs(a), np.abs(b)), np.finfo(float).tiny)
        gap = gap.where((a != b) & ~(a.isnull() & b.isnull()), 0.0).fillna(np.inf)
        if count := int((gap > tolerance).sum()):
            place = {axis: int(index) for axis, index in gap.argmax(...).items()}
            where = ", ".join(f"{axis} {a[axis].values[index]}" for axis, index in place.items())
            values = f"{float(a[place]):.6g} and {float(b[place]):.6g}"
            lines.append(f"{name}: {count} of {a.size} values differ, most at {where}: {values}")
    return lines


def _verdicts(first: Path, second: Path) -> list[str]:
    verdicts = []
    for folder in (first, second):
        with open(folder / "claims.csv", newline="", encoding="utf-8") as file:
            verdicts.append({row["id"]: row["verdict"] for row in csv.DictReader(file)})
    pairs = {name: [each.get(name, "not there") for each in verdicts] for name in {**verdicts[0], **verdicts[1]}}
    return [f"claim {name}: {before}, then {after}" for name, (before, after) in pairs.items() if before != after]


def run(runs: list[str], tolerance: float) -> None:
    """Print how two runs differ: in their studies, in the studies' variables, and in the verdicts on claims.

    Each entry of `runs` is the name of a run or the path of its folder of results. Numbers a and b differ if |a − b| >
    `tolerance` · max(|a|, |b|). Raises ValueError if anything differs, or if a run has no claims.csv.
    """
    first, second = (Path(run) if "/" in run else Path("results", run) for run in runs)
    for folder in (first, second):
        if not (folder / "claims.csv").exists():
            raise ValueError(f"{folder} holds no claims.csv: name a run that has been built, or its folder of results")
    lines = [*_studies(first, second, tolerance), *_verdicts(first, second)]
    print("\n".join(lines) or f"{first} and {second} agree within {tolerance:g}, and in every verdict", flush=True)
    if lines:
        raise ValueError(f"{first} and {second} differ in {len(lines)} respects, listed above")
