"""Verdicts on claims: the quantity of each case, estimated over initialisations, and tested as fixed beforehand."""

import hashlib
import itertools
import json

import numpy as np
import xarray as xr

from goldilocks_zone.claims import cells, quantities
from goldilocks_zone.claims.cells import NotTested, Studies
from goldilocks_zone.statistics.estimates import Estimate, TooFewDraws
from goldilocks_zone.statistics.hypotheses import (
    FAILS,
    HOLDS,
    INCONCLUSIVE,
    NOT_REPRODUCED,
    NOT_TESTED,
    REPRODUCED,
    Test,
    adjusted_verdicts,
)

COLUMNS = (
    *("id", "case", "work", "statement", "verdict", "estimate", "low", "high", "margin", "unit", "n"),
    *("smallest_effect", "run", "claims_hash", "reason"),
)
UNTESTABLE = (NotTested, TooFewDraws)


def evaluate(
    claims: dict,
    studies: Studies,
    run: str,
    substitutes: dict[str, str] | None = None,
    left_out: dict[str, list[str]] | None = None,
) -> list[dict]:
    """One row per claim and per case, as dictionaries with the keys COLUMNS.

    A case about a dataset that the run replaces is judged on its substitute, and says so. `left_out` maps each omitted
    study to its missing datasets.
    """
    rows = []
    common = {"run": run, "claims_hash": claims_hash(claims)}
    for identifier, claim in claims.items():
        shared = {"work": claim["work"], "statement": claim["statement"], **common}
        cases = {name: _substituted(case, substitutes or {}) for name, case in claim.get("cases", {}).items()}
        judged = _primary(identifier, cases, studies, left_out or {})
        rows.append({**shared, **_summary(judged, claim), "id": identifier})
        rows += [{**shared, **row} for row in judged + _secondary(identifier, cases, studies)]
    return [{column: row.get(column, "") for column in COLUMNS} for row in rows]


def claims_hash(claims: dict) -> str:
    """Identity of the definitions by which verdicts were reached, 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(claims, sort_keys=True).encode()).hexdigest()[:16]


def _substituted(case: dict, substitutes: dict[str, str]) -> dict:
    dataset = case.get("cell", {}).get("dataset", cells.PRIMARY_CELL["dataset"])
    if dataset not in substitutes:
        return case
    used = substitutes[dataset]
    statement = f"{case['statement']} Judged on {used} in place of {dataset}."
    return {**case, "cell": {**case.get("cell", {}), "dataset": used}, "statement": statement}


def _summary(cases: list[dict], claim: dict) -> dict:
    """A claim is reproduced if all its primary cases are, not reproduced if one is not, else inconclusive.

    Identities count only where they fail, or where the claim is nothing else; controls have no part in it. A claim with
    parts that no case tests (`open`) is at best inconclusive.
    """
    controls = [name for name, case in claim.get("cases", {}).items() if case.get("control")]
    cases = [case for case in cases if case["case"] not in controls]
    if not cases:
        return {"verdict": NOT_TESTED, "reason": claim.get("reason", "no study of this version measures it")}
    found = {case["verdict"] for case in cases}
    verdicts = found - {HOLDS} or found
    if len(verdicts) == 1:
        (verdict,) = verdicts
    elif verdicts & {NOT_REPRODUCED, FAILS}:
        verdict = NOT_REPRODUCED
    else:
        verdict = INCONCLUSIVE
    telling = next(case for case in cases if case["verdict"] == verdict) if verdict in verdicts else cases[0]
    kept = ("estimate", "low", "high", "margin", "unit", "n", "smallest_effect", "reason")
    summary = {"verdict": verdict, **{key: telling[key] for key in kept if key in telling}}
    if verdict == INCONCLUSIVE and verdict not in verdicts:
        summary["reason"] = next(case["reason"] for case in cases if "reason" in case)
    if verdict == REPRODUCED and "open" in claim:
        return {**summary, "verdict": INCONCLUSIVE, "reason": claim["open"]}
    return summary


def _primary(identifier: str, cases: dict[str, dict], studies: Studies, left_out: dict[str, list[str]]) -> list[dict]:
    """A row per case, on its primary cell; verdicts of a `family` of cases by Holm's procedure."""
    rows, families = [], {}
    for name, case in cases.items():
        row = _row(f"{identifier}.{name}", name, case)
        rows.append(row)
        try:
            test, worst = _measure(case, cells.primary(case, studies, left_out), row["id"])
            row |= {**_described(test, worst), "verdict": test.verdict(*test.p_values(worst))}
            if "family" in case:
                families.setdefault(case["family"], []).append((row, (test, worst)))
        except UNTESTABLE as reason:
            row |= {"verdict": NOT_TESTED, "reason": str(reason)}
    for members in families.values():
        _adjust(members)
    return rows


def _secondary(identifier: str, cases: dict[str, dict], studies: Studies) -> list[dict]:
    """A row per case and secondary cell, verdicts by Holm's procedure within the claim; those untested come last."""
    untested, measured = [], []
    for name, case, study, place in cells.secondary(cases, studies):
        label = cells.label(name, case, study, place)
        row = _row(f"{identifier}.{label.replace(' ', '.')}", label, case)
        try:
            test, worst = _measure(case, cells.at(case, study, place, studies), row["id"])
            measured.append((row | _described(test, worst), (test, worst)))
        except UNTESTABLE as reason:
            untested.append({**row, "verdict": NOT_TESTED, "reason": str(reason)})
    _adjust(measured)
    return [row for row, _ in measured] + untested


def _row(identifier: str, label: str, case: dict) -> dict:
    return {"id": identifier, "case": label, "statement": case["statement"], "unit": case["unit"]}


def _adjust(members: list[tuple[dict, tuple[Test, Estimate]]]) -> None:
    """Write verdicts by Holm's procedure over all members into their rows."""
    for (row, _), verdict in zip(members, adjusted_verdicts([judged for _, judged in members])):
        row["verdict"] = verdict


def _measure(case: dict, cell: xr.Dataset, name: str) -> tuple[Test, Estimate]:
    """The test of a case and the estimate that decides: where a claim is about every radius of a window, or every value
    along the axes of its key `every`, that with the least room.

    Raises NotTested where one of them is undecidable, unless another is enough for the claim to fail.
    """
    axes = case.get("every", [])
    found = []
    for values in itertools.product(*(cell[axis].values.tolist() for axis in axes)):
        with np.errstate(invalid="ignore", divide="ignore"):
            found += quantities.estimate(cell.sel(dict(zip(axes, values))), case, name)
    if not all(np.isfinite(estimate.value) for estimate in found):
        raise NotTested("the quantity is not finite in this run")
    test = Test(case["test"], case.get("margin", 0.0), case.get("reference", 0.0), case.get("direction", "above"))
    reasons = [test.undecidable(estimate) for estimate in found]
    decidable = [estimate for estimate, reason in zip(found, reasons) if not reason]
    worst = min(decidable, key=test.room, default=None)
    if any(reasons) and (worst is None or test.verdict(*test.p_values(worst)) != NOT_REPRODUCED):
        raise NotTested(next(filter(None, reasons)))
    return test, worst


def _described(test: Test, worst: Estimate) -> dict:
    low, high = worst.interval(test.level)
    return {
        "estimate": worst.value,
        "low": low,
        "high": high,
        "margin": test.threshold,
        "n": worst.n,
        "smallest_effect": test.smallest_effect(worst),
    }
