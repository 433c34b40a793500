"""`make findings`: publish the findings of a full run in README.md and in docs/findings.md, with tables and figures."""

import csv
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from goldilocks_zone.claims import findings
from goldilocks_zone.claims.findings import Answer, Row
from goldilocks_zone.config import load, models
from goldilocks_zone.paper import numbers
from goldilocks_zone.statistics.hypotheses import HOLDS, NOT_TESTED
from goldilocks_zone.storage import files, netcdf

FULL = "full"
WORDS = Path("paper/findings.yaml")
DOCS, README = Path("docs"), Path("README.md")
ANSWERS, ORIGIN, FIGURES = DOCS / "findings.md", DOCS / "findings.yaml", DOCS / "findings"
TABLES = ("claims.csv", "agreement.csv")
BEGIN, END = "<!-- findings of a full run -->\n", "<!-- end of the findings -->\n"
LIMIT_MB = 3.0
COMMAND = "make findings CONFIG=config/config.yaml"


def run(configfile: Path) -> None:
    """Write the findings of the full run, with tables and figures, to docs/ and README.md.

    Raises ValueError if `configfile` is not the configuration of the full run, if this run has not been built, if it
    does not draw a figure that the findings name, or if these figures exceed LIMIT_MB in total.
    """
    config, *_ = load.as_run(load.load([configfile]))
    if config.run != FULL:
        raise ValueError(
            f"{configfile}: findings are of the full run, but this is the configuration of {config.run}: use {COMMAND}"
        )
    place = Path("results", config.run)
    if missing := [name for name in TABLES if not (place / name).exists()]:
        raise ValueError(f"{place / missing[0]} is missing: build the run first (make full), then its findings")
    rows, compared = (table(place / name) for name in TABLES)
    drawn = figures(findings.read(WORDS, rows))
    sources = {name: Path("figures", config.run, f"{name}.png") for name in drawn}
    if missing := [path for path in sources.values() if not path.exists()]:
        raise ValueError(
            f"{missing[0]} is missing, because the run leaves this figure out: keep it in the run, or remove it from "
            f"{WORDS}"
        )
    if (size := sum(path.stat().st_size for path in sources.values()) / 1e6) > LIMIT_MB:
        raise ValueError(
            f"the figures that {WORDS} names are {size:.1f} MB, more than {LIMIT_MB} MB: name fewer figures there"
        )
    origin = origin_of(config, rows)
    for name in TABLES:
        _copy(place / name, DOCS / name)
    for path in sources.values():
        _copy(path, FIGURES / path.name)
    for path in set(FIGURES.glob("*.png")) - {FIGURES / path.name for path in sources.values()}:
        path.unlink()
    files.write_text(yaml.safe_dump(origin, sort_keys=False, allow_unicode=True), ORIGIN)
    answers = findings.read(WORDS, rows)
    files.write_text(document(answers, rows, compared, origin), ANSWERS)
    files.write_text(with_findings(README.read_text(encoding="utf-8"), answers), README)
    print(f"{ANSWERS}, {', '.join(str(DOCS / name) for name in TABLES)} and {README} have the findings: commit them")


def table(path: Path) -> list[Row]:
    """Read the rows of a CSV file, as dictionaries from column names to texts."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def figures(answers: Iterable[Answer]) -> list[str]:
    """Names of the figures that support the `answers`, in the order of the answers and without duplicates."""
    return list(dict.fromkeys(name for answer in answers for name in answer.figures))


def origin_of(config: models.Configuration, rows: Iterable[Row]) -> dict:
    """Provenance of a run's numbers, for docs/findings.yaml; `rows` are those of its claims.csv.

    The entries are the name of the run and the hash of its claims; the commit, the device, versions of software and the
    hours of computation, all read from its results; and the checksum of each dataset.
    """
    place = Path("results", config.run, "aggregate")
    results = {study: netcdf.read_dataset(place / f"{study}.nc") for study in config.studies}
    known = {name: ", ".join(numbers.attribute_values(results, name)) for name in ("commit", "device", "python")}
    versions = {name: ", ".join(numbers.attribute_values(results, f"{name}_version")) for name in ("torch", "numpy")}
    cards = {name: Path(f"results/data/cards/{name}.yaml") for name in sorted(load.datasets_of(config))}
    return {
        "run": config.run,
        "claims": next(iter(rows))["claims_hash"],
        **known,
        **versions,
        "hours": round(sum(float(each.attrs["wall_seconds"]) for each in results.values()) / 3600, 1),
        "datasets": {
            name: yaml.safe_load(path.read_text(encoding="utf-8"))["checksum"] for name, path in cards.items()
        },
    }


def document(answers: Iterable[Answer], rows: Iterable[Row], compared: Iterable[Row], origin: Mapping[str, Any]) -> str:
    """Text of docs/findings.md: a section for each of `answers`, agreement with published values, the numbers' origin.

    `rows` are those of claims.csv, `compared` those of agreement.csv, and `origin` comes from `origin_of`.
    """
    known = {row["id"]: row for row in rows if " " not in row["case"]}
    parts = [_opening(known.values(), origin)]
    for answer in answers:
        shown = "\n".join(f"![{name}](findings/{name}.png)" for name in answer.figures)
        claims = list(dict.fromkeys(claim for sentence in answer.sentences for claim in sentence.claims))
        lines = ["| claim or case | statement | verdict | estimate |", "|---|---|---|---|"]
        lines += [f"| {name} | {_cell(known[name]['statement'])} | {_judged(known[name])} |" for name in claims]
        parts += [f"## {answer.question}", answer.text, shown, "\n".join(lines)]
    parts += ["## Agreement with published values", AGREEMENT, _agreement(compared), "## Origin", _origin(origin)]
    return "\n\n".join(part for part in parts if part) + "\n"


AGREEMENT = (
    "Means of the run beside published values: the share of points within two published standard deviations (or the "
    "run's, where none was published), and the mean absolute and the largest difference. No verdict depends on these "
    "numbers; `agreement.csv` has all readings of settings that the originals do not state."
)


def with_findings(readme: str, answers: Iterable[Answer]) -> str:
    """Return the text `readme` of README.md, with the main findings of `answers` between its two markers.

    Findings that are still open are left out. Raises ValueError if a marker is missing or repeated.
    """
    if readme.count(BEGIN) != 1 or readme.count(END) != 1:
        raise ValueError(f"{README} needs the lines {BEGIN.strip()} and {END.strip()} once each: restore them")
    before, rest = readme.split(BEGIN)
    lines = [f"- {sentence.text}" for sentence in findings.main(answers) if sentence.outcome != findings.OPEN]
    return before + BEGIN + "".join(f"{line}\n" for line in lines) + END + rest.split(END)[1]


def _opening(rows: Iterable[Row], origin: Mapping[str, Any]) -> str:
    verdicts = [row["verdict"] for row in rows if not row["case"]]
    counted = ", ".join(f"{verdicts.count(name)} {name}" for name in sorted(set(verdicts) - {HOLDS}))
    return (
        f"# What was found\n\nClaims: {counted}; {verdicts.count(HOLDS)} identities hold. The sentences below are "
        f"chosen by the verdicts of the run `{origin['run']}` (`{WORDS}`). "
        f"`{COMMAND}` writes this page; `claims.csv` beside it has every case."
    )


def _judged(row: Row) -> str:
    estimate = findings.described(row) if row["case"] and row["verdict"] != NOT_TESTED else ""
    return f"{row['verdict']} | {_cell(' '.join([estimate, row['unit']]).strip() if estimate else '')}"


def _agreement(compared: Iterable[Row]) -> str:
    lines = [
        "| work | comparison | reading | points | within | mean absolute difference | largest difference |",
        "|---|---|---|---|---|---|---|",
    ]
    columns = ("work", "title", "says", "points", "share_within", "mean_absolute_difference", "largest_difference")
    for row in compared:
        if row["d"] in ("all", ""):
            lines.append("| " + " | ".join(_cell(_short(row[name])) for name in columns) + " |")
    return "\n".join(lines)


def _origin(origin: Mapping[str, Any]) -> str:
    lines = [
        f"Commit {origin['commit']}, claims {origin['claims']}; Python {origin['python']}, torch {origin['torch']}, "
        f"numpy {origin['numpy']}; {origin['hours']} hours of jobs on {origin['device']}. SHA-256 of the datasets:",
        "\n".join(f"- {name}: `{checksum}`" for name, checksum in origin["datasets"].items()),
    ]
    return "\n\n".join(lines)


def _short(text: str) -> str:
    """Round a text that is a number to three significant digits; return other text unchanged."""
    try:
        return f"{float(text):.3g}"
    except ValueError:
        return text


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with files.whole_file(str(target)) as path:
        shutil.copyfile(source, path)
