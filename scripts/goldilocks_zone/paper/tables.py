"""Tables of the paper: their templates (paper/templates/), and rows that need more than a template."""

import math
from collections.abc import Iterable
from pathlib import Path

import jinja2

from goldilocks_zone.claims import synthesis
from goldilocks_zone.config.models import RadiusRange
from goldilocks_zone.paper import latex
from goldilocks_zone.statistics.hypotheses import FAILS, HOLDS


class Missing(jinja2.StrictUndefined):
    """A missing value in a template, most often a key of resources/published/<work>/settings.yaml."""

    def __str__(self) -> str:
        place = f" of {self._undefined_obj}" if isinstance(self._undefined_obj, dict) else ""
        raise ValueError(f"the paper shows {self._undefined_name!r}{place}, which is missing: add it where it is said")


def environment(folder: Path) -> jinja2.Environment:
    """The templates in a folder, with delimiters that LaTeX does not use and filters for a run's records."""
    loader = jinja2.FileSystemLoader(folder)
    delimiters = ("<%", "%>", "<<", ">>", "<#", "#>")
    options = {"trim_blocks": True, "keep_trailing_newline": True, "undefined": Missing}
    templates = jinja2.Environment(*delimiters, loader=loader, **options)
    escape = {"latex": lambda value, strict=True: latex.escape(str(value), strict), "split": str.split}
    templates.filters |= escape | {each.__name__: each for each in (measured, radii, dimensions, without_remedy)}
    templates.globals["macro"] = latex.macro
    return templates


def measured(row: dict) -> str:
    """Estimate and interval of a case; an identity's largest error has no interval."""
    estimate, low, high = (float(row[key]) for key in ("estimate", "low", "high"))
    return latex.interval(estimate, low, high) if low < high else f"${latex.number(estimate, low, high)}$"


def radii(given: list[float] | RadiusRange) -> str:
    """The number of radii and, where they are evenly spaced, their range in x."""
    if isinstance(given, list):
        return str(len(given))
    first, last = (2 * math.log10(each) for each in (given.first, given.last))
    return f"{given.number}, $x$ from ${first:g}$ to ${last:g}$"


def dimensions(subspaces: list[str]) -> str:
    """The dimensions of subspaces, in order."""
    return ", ".join(sorted({label.split("-")[1] for label in subspaces}, key=lambda each: (len(each), each)))


def without_remedy(reason: str) -> str:
    """The reason why a dataset is left out, without the remedy behind it."""
    return reason.split("): ")[0] + ")"


def verdicts(rows: list[dict]) -> list[list[dict]]:
    """Claims that are no identities, and identities."""
    claims = [row for row in rows if not row["case"]]
    return [[row for row in claims if (row["verdict"] in (HOLDS, FAILS)) is identity] for identity in (False, True)]


def disagreements(rows: list[dict], entries: Iterable[dict]) -> list[dict[str, str]]:
    """Question and answer of each disagreement: both sides with verdicts on their claims, and the conclusion."""
    found, judged = [], {row["id"]: row["verdict"] for row in rows if not row["case"]}
    for entry in entries:
        said = []
        for side in entry["sides"]:
            claims = ", ".join(f"{claim} {judged.get(claim, 'not tested')}" for claim in side["claims"])
            said.append(f"{side['says']} ({claims})")
        outcome = synthesis.outcome(judged, [side["claims"] for side in entry["sides"]])
        answer = f"{'; '.join(said)}. {entry[outcome]}"
        found.append({"question": entry["question"], "answer": answer[0].upper() + answer[1:]})
    return found
