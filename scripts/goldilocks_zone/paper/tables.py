"""Tables of the paper: their rows, which templates in paper/templates/ lay out as LaTeX."""

from collections.abc import Iterable
from pathlib import Path

import jinja2
import numpy as np

from goldilocks_zone.claims import synthesis
from goldilocks_zone.paper import latex
from goldilocks_zone.statistics.hypotheses import FAILS, HOLDS

# Columns of the table on training: keys of the published settings.
COLUMNS = ("network", "dataset", "rate", "steps", "batch", "radii", "subspaces", "draws")
# Rows of the table on curvature whose names are not their keys.
NAMES = {
    "dimensions": "dimensions $d$",
    "draws": "draws per radius",
    "planes_kind": "kind of plane",
    "bias_directions": "bias directions",
    "examples": "examples $N$",
    "inputs": "preprocessing",
    "dtype": "precision",
}


def environment(folder: Path) -> jinja2.Environment:
    """The templates in a folder, with delimiters that LaTeX does not use and a filter for plain text."""
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        undefined=jinja2.StrictUndefined,
        block_start_string="<%",
        block_end_string="%>",
        variable_start_string="<<",
        variable_end_string=">>",
        comment_start_string="<#",
        comment_end_string="#>",
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters |= {"latex": lambda value, strict=True: latex.escape(str(value), strict), "measured": measured}
    templates.globals["macro"] = latex.macro
    return templates


def measured(row: dict) -> str:
    """Estimate and interval of a case; an identity's largest error has no interval."""
    estimate, low, high = (float(row[key]) for key in ("estimate", "low", "high"))
    return latex.interval(estimate, low, high) if low < high else f"${latex.number(estimate, low, high)}$"


def claims(rows: list[dict]) -> list[dict]:
    """Claims and their primary cases."""
    return [row for row in rows if " " not in row["case"]]


def verdicts(rows: list[dict]) -> list[list[dict]]:
    """Claims, and claims of identities apart from them."""
    found = [row for row in rows if not row["case"]]
    identities = [row for row in found if row["verdict"] in (HOLDS, FAILS)]
    return [[row for row in found if row not in identities], identities]


def disagreements(rows: list[dict], entries: Iterable[dict]) -> list[dict[str, str]]:
    """Question and answer of each disagreement between works."""
    verdicts = {row["id"]: row["verdict"] for row in rows if not row["case"]}
    found = []
    for entry in entries:
        said = []
        for side in entry["sides"]:
            judged = ", ".join(f"{claim} {verdicts.get(claim, 'not tested')}" for claim in side["claims"])
            said.append(f"{side['says']} ({judged})")
        outcome = synthesis.outcome(verdicts, [side["claims"] for side in entry["sides"]])
        answer = f"{'; '.join(said)}. {entry[outcome]}"
        found.append({"question": entry["question"], "answer": answer[0].upper() + answer[1:]})
    return found


def curvature_settings(studies: dict, published: dict[str, dict]) -> dict[str, list[dict]]:
    """Rows for each study with published settings; none where the run has no such study."""
    return {
        name: [
            {"name": NAMES.get(key, key), "published": original[key], "here": text}
            for key, text in (_curvature_settings(studies[name]) if name in studies else {}).items()
        ]
        for name, original in published.items()
    }


def _curvature_settings(study: dict) -> dict[str, str]:
    """Settings of a study of curvature as LaTeX, by the keys of the published ones."""
    radii = study["radii"]
    if isinstance(radii, dict):
        first, last = (2 * np.log10(radii[key]) for key in ("first", "last"))
        radii = f"{radii['number']}, $x$ from ${first:g}$ to ${last:g}$"
    else:
        radii = str(len(radii))
    return {
        "network": latex.escape(", ".join(study["networks"])),
        "dataset": latex.escape(", ".join(study["datasets"])),
        "loss": latex.escape(study["loss"].replace("_", "-")),
        "initialisation": f"{study['initialisation']}, all parameters times one factor",
        "radii": radii,
        "dimensions": ", ".join(map(str, study["dimensions"])),
        "draws": f"{study['draws']} initialisations",
        "planes": f"{study['planes']} per initialisation",
        "planes_kind": ", ".join(sorted({label.rsplit("-", 1)[1] for label in study["subspaces"]})),
        "metric": latex.escape(study["metric"].replace("_", " ")),
        "bias_directions": "yes" if study["bias_directions"] else "no",
        "examples": ", ".join(map(str, study["examples"])) + " training examples, class-balanced",
        "inputs": latex.escape(study["inputs"].replace("_", " ")),
        "dtype": study["dtype"],
    }


def training_settings(studies: dict, published: dict[str, dict]) -> list[dict]:
    """Published settings of each study of training, and those of this run, if it has the study."""
    return [
        {
            "work": original["work"],
            "published": [original[key] for key in COLUMNS],
            "here": _training_settings(studies[name]) if name in studies else None,
        }
        for name, original in published.items()
    ]


def _training_settings(study: dict) -> list[str]:
    radii = study["radii"]
    dimensions = sorted({label.split("-")[1] for label in study["subspaces"]}, key=lambda each: (len(each), each))
    values = {
        "network": ", ".join(study["networks"]),
        "dataset": ", ".join(study["datasets"]),
        "radii": radii["number"] if isinstance(radii, dict) else len(radii),
        "subspaces": ", ".join(dimensions),
    }
    return [str((study | values)[key]) for key in COLUMNS]


def datasets(settings: dict, cards: dict[str, dict]) -> list[dict]:
    """The card of each dataset with its name, the dataset that it stands in for, if any, and its licence."""
    replaced = {substitute: name for name, substitute in settings["substitutes"].items()}
    return [
        card | {"name": name, "replaces": replaced.get(name), "licence": settings["licences"][name]}
        for name, card in cards.items()
    ]
