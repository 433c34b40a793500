"""Verdicts on claims: estimate the quantity of each case over initialisations and apply its predefined test."""

import functools
import hashlib
import itertools
import json
from collections.abc import Callable

import numpy as np

from goldilocks_zone.claims import cells, needs, quantities
from goldilocks_zone.claims.cells import Cell, LeftOut, NotTested, Studies
from goldilocks_zone.statistics import hypotheses
from goldilocks_zone.statistics.estimates import Estimate, TooFewDraws
from goldilocks_zone.statistics.hypotheses import FAILS, HOLDS, INCONCLUSIVE, NOT_REPRODUCED, NOT_TESTED, REPRODUCED

COLUMNS = (
    *("id", "case", "control", "work", "statement", "verdict", "estimate", "low", "high", "margin", "unit", "n"),
    *("smallest_effect", "run", "claims_hash", "reason"),
)
Judged = tuple[hypotheses.Test, Estimate]


def evaluate(
    claims: dict, studies: Studies, run: str, substitutes: dict[str, str] | None = None, left_out: LeftOut | None = None
) -> list[dict]:
    """Judge `claims` on a run, and return one row for each claim, each case and each secondary cell.

    Rows are dictionaries with the keys COLUMNS. `claims` is the result of `definitions.load`, `studies` maps names to
    results, and `run` is the run's name. `substitutes` maps datasets to those used instead: cases are judged on the
    latter, and their statements say so. `left_out` maps each study that was left out of the run to its unavailable
    datasets. The column control is "control" for cases that do not count in the verdict on their claim.
    """
    rows, common = [], {"run": run, "claims_hash": claims_hash(claims)}
    for identifier, claim in claims.items():
        shared = {"work": claim["work"], "statement": claim["statement"], **common}
        cases = {name: _substituted(case, substitutes or {}) for name, case in claim.get("cases", {}).items()}
        judged = _primary(identifier, cases, studies, left_out or {})
        rows.append({**shared, **_summary(judged, claim), "id": identifier})
        rows += [{**shared, **row} for row in judged + _secondary(identifier, cases, studies)]
    return [{column: row.get(column, "") for column in COLUMNS} for row in rows]


def claims_hash(claims: dict) -> str:
    """Hash of the definitions of all claims, in 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(claims, sort_keys=True).encode()).hexdigest()[:16]


def _substituted(case: dict, substitutes: dict[str, str]) -> dict:
    dataset = case.get("cell", {}).get("dataset", cells.PRIMARY_CELL["dataset"])
    if dataset not in substitutes:
        return case
    statement = f"{case['statement']} Judged on {substitutes[dataset]} in place of {dataset}."
    return {**case, "cell": {**case.get("cell", {}), "dataset": substitutes[dataset]}, "statement": statement}


def _summary(cases: list[dict], claim: dict) -> dict:
    """Entries of the row of a `claim`: its verdict, and the estimate or reason of one of its cases.

    `cases` are the rows of the claim's cases on their primary cells. Controls do not count, and identities that hold
    count only if there are no other cases. If all cases that count have the same verdict, the claim has it too.
    Otherwise the claim is `not reproduced` if a case is not reproduced or an identity fails, else `inconclusive`. A
    claim without cases that count is `not tested`. A claim with an untested part (key `open`) is at best inconclusive.
    """
    cases = [case for case in cases if not case["control"]]
    if not cases:
        return {"verdict": NOT_TESTED, "reason": claim.get("reason", "no study of this version measures it")}
    found = {case["verdict"] for case in cases}
    verdicts = found - {HOLDS} or found
    mixed = NOT_REPRODUCED if verdicts & {NOT_REPRODUCED, FAILS} else INCONCLUSIVE
    verdict = mixed if len(verdicts) > 1 else next(iter(verdicts))
    alike = {NOT_REPRODUCED, FAILS} if verdict == NOT_REPRODUCED else {verdict}
    telling = next((case for case in cases if case["verdict"] in alike), cases[0])
    kept = ("estimate", "low", "high", "margin", "unit", "n", "smallest_effect", "reason")
    summary = {"verdict": verdict, **{key: telling[key] for key in kept if key in telling}}
    if verdict == INCONCLUSIVE and verdict not in verdicts:
        summary["reason"] = next(case["reason"] for case in cases if "reason" in case)
    if verdict == REPRODUCED and "open" in claim:
        return {**summary, "verdict": INCONCLUSIVE, "reason": claim["open"]}
    return summary


def _primary(identifier: str, cases: dict[str, dict], studies: Studies, left_out: LeftOut) -> list[dict]:
    """Rows, with verdicts, of the cases of a claim on their primary cells; `identifier` is the claim's id.

    `studies` and `left_out` are as in `evaluate`. P-values of cases with the same key `family` are adjusted together by
    Holm's procedure.
    """
    rows, families = [], {}
    for name, case in cases.items():
        cell = functools.partial(cells.primary, case, studies, left_out)
        rows.append(_judged(f"{identifier}.{name}", name, case, cell))
        families.setdefault(case.get("family", (name,)), []).append(rows[-1])
    for members in families.values():
        _set_verdicts(members)
    return [row for row, _ in rows]


def _secondary(identifier: str, cases: dict[str, dict], studies: Studies) -> list[dict]:
    """Rows, with verdicts, of the cases of a claim on their secondary cells; untested rows come last.

    `identifier` is the claim's id, and `studies` maps names to results. The p-values of all these rows of a claim are
    adjusted together by Holm's procedure.
    """
    rows = []
    for name, case, study, place in cells.secondary(cases, studies):
        label = cells.label(name, case, study, place)
        cell = functools.partial(cells.at, case, study, place, studies)
        case = {**case, "needs": case.get("needs_also", {}).get(study, case.get("needs", {}))}
        rows.append(_judged(f"{identifier}.{label.replace(' ', '.')}", label, case, cell))
    _set_verdicts(rows)
    return [row for row, judged in sorted(rows, key=lambda each: each[1] is None)]


def _judged(identifier: str, label: str, case: dict, cell: Callable[[], Cell]) -> tuple[dict, Judged | None]:
    """Row of a case on a cell, still without a verdict, and the pair (test, deciding estimate) for the verdict.

    `identifier` and `label` are the row's entries id and case. `cell` is a function that returns the cell or raises
    NotTested. If the case cannot be tested, the row has the verdict `not tested`, and there is None in place of the
    pair. This is also so if the run does not meet the case's `needs`, but then the row has the estimate. The needs of
    identities are ignored.
    """
    row = {"id": identifier, "case": label, "control": "control" if case.get("control") else ""}
    row |= {"statement": case["statement"], "unit": case["unit"], "margin": _test(case).threshold}
    try:
        here = cell()
        test, worst = _measure(case, here, identifier)
    except (NotTested, TooFewDraws) as reason:
        return {**row, "verdict": NOT_TESTED, "reason": str(reason)}, None
    low, high = worst.interval(test.level)
    row |= {"estimate": worst.value, "low": low, "high": high, "n": worst.n}
    row["smallest_effect"] = test.smallest_effect(worst)
    if case["test"] != "identity" and (lacking := needs.unmet(case.get("needs", {}), here)):
        return {**row, "verdict": NOT_TESTED, "reason": lacking}, None
    return row, (test, worst)


def _test(case: dict) -> hypotheses.Test:
    optional = case.get("reference", 0.0), case.get("direction", "above")
    return hypotheses.Test(case["test"], case.get("margin", 0.0), *optional)


def _set_verdicts(rows: list[tuple[dict, Judged | None]]) -> None:
    tested = [(row, judged) for row, judged in rows if judged]
    for (row, _), verdict in zip(tested, hypotheses.adjusted_verdicts([judged for _, judged in tested])):
        row["verdict"] = verdict


def _measure(case: dict, cell: Cell, name: str) -> Judged:
    """The test of a `case` and, on a `cell`, the deciding estimate: one that fails the test, or the closest to failing.

    A case has an estimate for each value along the axes in its key `every`, and some quantities have one for each
    radius of a window. Estimates that cannot decide the test, for example because the grid is too coarse, are left
    aside (see `Test.undecidable`). If there are any, NotTested is raised unless another estimate fails the test.
    NotTested is also raised if an estimate or an end of its interval is not a number, or if an estimate is infinite.
    `name` names the random stream of a bootstrap.
    """
    axes, found = case.get("every", []), []
    for values in itertools.product(*(cell[axis].values.tolist() for axis in axes)):
        with np.errstate(invalid="ignore", divide="ignore"):
            found += quantities.estimate(cell.sel(dict(zip(axes, values))), case, name)
    if not found or not all(np.isfinite(estimate.value) for estimate in found):
        raise NotTested("the quantity is not finite in this run")
    test = _test(case)
    if any(np.isnan(estimate.interval(test.level)).any() for estimate in found):
        raise NotTested("in resamples of the draws the quantity is not a number, because too many values are equal")
    reasons = [test.undecidable(estimate) for estimate in found]
    decidable = [estimate for estimate, reason in zip(found, reasons) if not reason]
    failing = [each for each in decidable if test.verdict(*test.p_values(each)) == NOT_REPRODUCED]
    # Without any reason, all estimates are decidable.
    if not decidable or (any(reasons) and not failing):
        raise NotTested(next(filter(None, reasons)))
    # A wide interval that holds the claim open has less room than a narrow one that refutes it.
    return test, min(failing or decidable, key=test.room)
