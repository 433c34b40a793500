r"""Estimates, intervals and verdicts of claims in LaTeX.

The macros of this module leave it to the paper how it shows an estimate: main.tex defines \result and
\noresult for the text and for tables. `rows` and `row` are of claims.csv; for cases see `numbers`.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from goldilocks_zone.paper import latex, mathematics
from goldilocks_zone.statistics.hypotheses import FAILS, HOLDS, INCONCLUSIVE, NOT_REPRODUCED, NOT_TESTED, REPRODUCED

NOT_COMPUTED = r"\noresult{}"
VERDICTS = (REPRODUCED, NOT_REPRODUCED, INCONCLUSIVE, HOLDS, FAILS, NOT_TESTED)  # in the order of a table's key
_TABLE = re.compile(r"\\begin\{resulttable\}\{([\w-]+)\}(.*?)\\end\{resulttable\}", re.DOTALL)
_MARGIN = re.compile(r"\\margin\{([\w.-]+)\}")
_ESTIMATE = re.compile(r"\\estimate\{([\w.-]+)\}")


def claim_macros(rows: list[dict]) -> dict[str, dict[str, str]]:
    """Macros {kind: {name: LaTeX}}, of two kinds: `verdict` for claims with cases, and `estimate` for primary cases."""
    primary = [row for row in rows if row["case"] and " " not in row["case"]]
    tested = {row["id"].split(".")[0] for row in primary}
    return {
        "verdict": {row["id"]: row["verdict"] for row in rows if row["id"] in tested},
        "estimate": {row["id"]: described(row) for row in primary},
    }


def described(row: Mapping) -> str:
    """LaTeX macro with estimate, number n of initialisations and verdict of a case, or why it has no estimate."""
    if not row["estimate"]:
        return rf"\noresult{{{mathematics.typeset(row['reason'], strict=False)}}}"
    return rf"\result{{{measured(row)}}}{{{row['n']}}}{{{row['verdict']}}}"


def table_macros(rows: list[dict], texts: Iterable[str]) -> dict[str, dict[str, str]]:
    """Macros of tables of results, {kind: {name: LaTeX}}, of three kinds.

    `common` is the n that most estimates of a table rest on, and `key` explains the signs of the verdicts that occur in
    it. `margin` is the margin of each case for which the texts ask. `texts` are LaTeX texts with such tables, which are
    environments resulttable; see main.tex.
    """
    texts = list(texts)
    cases = {row["id"]: row for row in rows if row["case"]}
    tables = {
        name: [cases[case] for case in _ESTIMATE.findall(body) if case in cases]
        for text in texts
        for name, body in _TABLE.findall(text)
    }
    counted = {name: Counter(row["n"] for row in found if row["estimate"]) for name, found in tables.items()}
    asked = [case for text in texts for case in _MARGIN.findall(text) if case in cases]
    return {
        "margin": {case: f"${float(cases[case]['margin']):g}$" for case in asked if cases[case]["margin"]},
        "common": {name: next((n for n, _ in count.most_common(1)), "0") for name, count in counted.items()},
        "key": {name: _key({_shown_verdict(row) for row in found}) for name, found in tables.items()},
    }


def _shown_verdict(row: Mapping) -> str:
    """Verdict whose sign the table shows for a case: without an estimate, the case is not tested."""
    return row["verdict"] if row["estimate"] else NOT_TESTED


def _key(verdicts: set[str]) -> str:
    return ", ".join(rf"\signof{{{verdict}}}" for verdict in VERDICTS if verdict in verdicts)


def measured(row: Mapping) -> str:
    """Estimate and interval of a case in LaTeX; for an identity, the largest error alone."""
    estimate, low, high = (float(row[key]) for key in ("estimate", "low", "high"))
    return latex.interval(estimate, low, high) if low < high else f"${latex.number(estimate, low, high)}$"


def measured_or_not(row: Mapping) -> str:
    """Estimate and interval of a case in LaTeX, or the macro for a missing number."""
    return measured(row) if row["estimate"] else NOT_COMPUTED
