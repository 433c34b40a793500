r"""Estimates, intervals and verdicts of claims in LaTeX.

The macros of this module leave it to the paper how it shows an estimate: main.tex defines \result and
\noresult for the text and for tables. `rows` and `row` are of claims.csv; for cases see `numbers`.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from goldilocks_zone.paper import latex, mathematics

NOT_COMPUTED = r"\noresult{}"
_TABLE = re.compile(r"\\begin\{resulttable\}\{([\w-]+)\}(.*?)\\end\{resulttable\}", re.DOTALL)
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
    """Macros {"common": {table: number}} of the n that most estimates of a table of results rest on.

    `texts` are LaTeX texts with such tables, which are environments resulttable; see main.tex.
    """
    numbers = {row["id"]: row["n"] for row in rows if row["case"] and row["estimate"]}
    tables = [table for text in texts for table in _TABLE.findall(text)]
    counted = {
        name: Counter(numbers[case] for case in _ESTIMATE.findall(body) if case in numbers) for name, body in tables
    }
    return {"common": {name: next((n for n, _ in count.most_common(1)), "0") for name, count in counted.items()}}


def measured(row: Mapping) -> str:
    """Estimate and interval of a case in LaTeX; for an identity, the largest error alone."""
    estimate, low, high = (float(row[key]) for key in ("estimate", "low", "high"))
    return latex.interval(estimate, low, high) if low < high else f"${latex.number(estimate, low, high)}$"


def measured_or_not(row: Mapping) -> str:
    """Estimate and interval of a case in LaTeX, or the macro for a missing number."""
    return measured(row) if row["estimate"] else NOT_COMPUTED
