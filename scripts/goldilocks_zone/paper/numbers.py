"""The LaTeX macros that the paper reads: numbers, verdicts, tables, figures and provenance of a run.

`rows` and `row` are of claims.csv unless stated otherwise. A case is one test of a claim. It is judged on cells, which
are parts of a study with one dataset, one network and so on: on its primary cell, which makes it a primary case, and on
secondary ones (see `claims.cells`). A reading is one choice of the settings that a published work leaves open.
"""

import csv
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import jinja2
import numpy as np
import xarray as xr

from goldilocks_zone.claims import agreement, findings, synthesis, zone_map
from goldilocks_zone.claims.cells import weights_as_networks
from goldilocks_zone.claims.curves import vertex_within_reach
from goldilocks_zone.config import kinds, records
from goldilocks_zone.config.records import PaperRecord
from goldilocks_zone.paper import check, latex, mathematics
from goldilocks_zone.paper.estimates import NOT_COMPUTED, claim_macros, measured, measured_or_not, table_macros
from goldilocks_zone.paper.study_settings import dimensions, drawn, grouped, radii, random_steps, starts, without_remedy
from goldilocks_zone.statistics.hypotheses import FAILS, HOLDS, INCONCLUSIVE, NOT_REPRODUCED, NOT_TESTED, REPRODUCED
from goldilocks_zone.storage import files, netcdf

VERDICTS = (REPRODUCED, NOT_REPRODUCED, INCONCLUSIVE)
# Claims that are hypotheses of this project, also those in the file of a work.
_OWN, _OWN_WORK = re.compile(r"(by|jz)\d|beyond"), "this project"
DIFFERENCES = ("mean_difference", "mean_absolute_difference", "largest_difference")
Results = dict[str, xr.Dataset]


def write_numbers(
    path_to_claims: str,
    path_to_agreement: str,
    paths_to_studies: list[str],
    path_to_cuts: str | None,
    paths_to_cards: list[str],
    path_to_settings: str,
    paths_to_published: list[str],
    path_to_disagreements: str,
    path_to_findings: str,
    paths_to_sections: list[str],
    paths_to_works: list[str],
    paths_to_templates: list[str],
    path_to_output: str,
    path_to_shown_settings: str,
) -> None:
    """Write the LaTeX macros of the paper to `path_to_output`, and the report's table of settings beside them.

    Each file in `paths_to_works` and `paths_to_published` must be in a folder with the name of its work.
    """
    rows, compared, texts = _rows(path_to_claims), _rows(path_to_agreement), (paths_to_sections, paths_to_works)
    settings = records.read(PaperRecord, path_to_settings)
    studies = {Path(path).stem: weights_as_networks(netcdf.read_dataset(path)) for path in paths_to_studies}
    results = studies | ({"cuts": netcdf.read_dataset(path_to_cuts)} if path_to_cuts else {})
    sections, parts = ({path: Path(path).read_text(encoding="utf-8") for path in each} for each in texts)
    known, texts_of = paper_figures(settings), check.by_work(parts)
    works = check.works(texts_of, list(dict.fromkeys(row["id"].split(".")[0] for row in rows)), known)
    in_sections = check.shown([*sections.values(), *(texts_of[work] for work in works)])
    answers = findings.read(path_to_findings, rows, measured_or_not, mathematics.typeset)
    published = {Path(path).parent.name: _read(path) for path in paths_to_published}
    ordered = [published[name] for name in (*works, *sorted(set(published) - set(works))) if name in published]
    template = environment(Path(paths_to_templates[0]).parent).get_template("generated.tex.jinja")
    text = template.render(
        rows=rows,
        settings=settings,
        works=works,
        findings=findings.joined(findings.main(answers)),
        macros=claim_macros(rows)
        | table_macros(rows, [*sections.values(), *(texts_of[work] for work in works)])
        | agreement_macros(compared)
        | {
            "question": {answer.name: mathematics.typeset(answer.question) for answer in answers},
            "answer": {answer.name: answer.text for answer in answers},
        }
        | {"setting": setting_macros(settings, studies, results, rows)},
        figures=[figure for name, figure in known.items() if figure["drawn"] or name in in_sections],
        appendix=[figure for name, figure in known.items() if figure["drawn"] and name not in in_sections],
        claims=judged(rows),
        untested=untested(rows),
        comparisons=comparisons(compared),
        disagreements=disagreements(rows, _read(path_to_disagreements).values()),
        published={kind: {k: v for work in ordered for k, v in work.get(kind, {}).items()} for kind in kinds.known()},
        cards={Path(path).stem: _read(path) for path in paths_to_cards},
    )
    files.write_text(text, path_to_output)
    shown = settings.model_dump(exclude={"registered"}, exclude_none=True)
    files.write_text(records.dump(shown), path_to_shown_settings)


def _rows(path: str) -> list[dict]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _read(path: str) -> dict:
    return records.parse(Path(path).read_text(encoding="utf-8"))


def paper_figures(settings: PaperRecord) -> dict[str, dict]:
    """Name, width, picture, caption and state (`drawn` or not) of every registered figure, as {name: dictionary}.

    Width and picture are LaTeX, and the caption is plain text. A figure with several panels, one for each cell of its
    study, takes the whole width of the text.
    """
    unavailable, found = " ".join(map(without_remedy, settings.left_out)), {}
    for name, registered in settings.registered.items():
        wide, drawn = registered.wide, name in settings.figures
        if drawn and not wide:
            study = settings.studies[settings.figures[name][0]]
            points = len(study.variations.get("weights", [1]))
            wide = points * len(study.datasets) * len(study.networks) * len(study.subspaces) > 1
        width = r"\linewidth" if wide else r".49\linewidth"
        reason = (name in settings.lacking and unavailable) or f"the run {settings.run} does not draw it"
        missing = rf"\fbox{{\parbox{{.9\linewidth}}{{Not computed: {latex.escape(reason, strict=False)}.}}}}"
        picture = rf"\includegraphics[width=\linewidth]{{{name}.pdf}}" if drawn else missing
        found[name] = {"name": name, "width": width, "picture": picture, "caption": registered.caption, "drawn": drawn}
    return found


def agreement_macros(rows: list[dict]) -> dict[str, dict[str, str]]:
    """Macros {"agreement": {comparison: LaTeX}}: `distance` of the primary readings; `rows` are of agreement.csv."""
    return {"agreement": {row["comparison"]: distance(row) for row in _whole(rows) if row["reading"] == "primary"}}


def distance(row: dict) -> str:
    """LaTeX text on a `row` of agreement.csv: differences, share within two deviations, or why nothing is compared."""
    if not row["points"]:
        return r"\emph{not compared: " + latex.escape(row["reason"], strict=False) + "}"
    mean, size, largest = (hundredths(row[key]) for key in DIFFERENCES)
    share = row["share_within"] and f"; {percent(row['share_within'])} of them lie within two standard deviations"
    return f"{mean} on average, {size} in absolute value and {largest} at most over {row['points']} points{share}"


def hundredths(value: str) -> str:
    """LaTeX of a number with two decimals; `value` is the number as text."""
    # Zero has no sign.
    return f"${round(float(value), 2) + 0.0:.2f}$"


def percent(share: str) -> str:
    """LaTeX of a share in per cent; `share` is the share as text, and empty text stays empty."""
    return rf"${100 * float(share):.0f}\,\%$" if share else ""


def comparisons(rows: list[dict]) -> dict[str, list[dict]]:
    """Rows of agreement.csv as {title of the comparison: rows}, with one row for each reading (see `_whole`)."""
    found = {}
    for row in _whole(rows):
        found.setdefault(row["title"], []).append(row)
    return found


def _whole(rows: list[dict]) -> list[dict]:
    """Select one of the `rows` of agreement.csv for each reading: the one that pools all d, or else the first one."""
    found = {}
    for row in sorted(rows, key=lambda row: row["d"] != agreement.ALL):
        found.setdefault((row["comparison"], row["reading"]), row)
    order = dict.fromkeys((row["comparison"], row["reading"]) for row in rows)
    return [found[key] for key in order]


def setting_macros(settings: PaperRecord, studies: Results, results: Results, rows: list[dict]) -> dict[str, str]:
    """Settings and numbers that the paper quotes, as {name: LaTeX}; `results` are `studies` and, if any, the cuts."""
    counted, cuts = Counter(row["verdict"] for row in rows if not row["case"]), settings.cuts
    flips = synthesis.flips(rows).items()
    return {
        "run": latex.escape(settings.run),
        **{name.replace(" ", "-"): str(counted[name]) for name in (*VERDICTS, NOT_TESTED)},
        "identities": str(counted[HOLDS]),
        "first-look": first_look(rows),
        **provenance(results, rows),
        "cuts": f"{latex.escape(cuts.dataset)}, {latex.escape(cuts.network)}, $N={cuts.examples}$"
        if cuts and "cuts" in results
        else NOT_COMPUTED,
        "sigma-z": logits_deviation_at_peak(studies.get("curvature")),
        **sensitivity(studies.get("sensitivity"), rows),
        **{f"flips-{axis.lower().replace('_', '-')}": f"{count} of {total}" for axis, (count, total) in flips},
        **map_numbers(studies.get("map_training"), studies.get("map_curvature")),
    }


def first_look(rows: list[dict]) -> str:
    """Sentence on how many tests need more draws or longer training than the run has; empty if none does."""
    count = sum(row["reason"].startswith("needs ") for row in rows if row["case"] and " " not in row["case"])
    if not count:
        return ""
    return (
        f"This run is a first look: {count} tests need longer training or more draws than it has, and have estimates "
        r"but no verdicts; the full run (\texttt{make full}) has them in \texttt{results/full/claims.csv}."
    )


def logits_deviation_at_peak(study: xr.Dataset | None) -> str:
    """LaTeX of σ_z, the standard deviation of the logits at a peak: mean ± standard deviation over draws.

    The peak is the radius with the largest mean Tr(H)/‖H‖, in the study's first cell, at its largest d and N examples.
    """
    if study is None:
        return NOT_COMPUTED
    cell = study.isel(dataset=0, network=0, subspace=0).sel(examples=study["examples"].max())
    top = int(cell["trace_over_norm"].sel(dimension=study["dimension"].max()).mean("draw").argmax("radius"))
    values = cell["logits_std"].isel(radius=top).values
    if len(values) < 2:
        return f"${values.mean():.2g}$"
    spread = float(np.std(values, ddof=1))
    return f"${latex.number(values.mean(), -spread, spread)} \\pm {spread:.2g}$"


def sensitivity(study: xr.Dataset | None, rows: list[dict]) -> dict[str, str]:
    """Sensitivity of the zone's peak to the settings that the study varies, as {name of the number: LaTeX}.

    The peak is that of the mean Tr(H)/‖H‖ over radii. The numbers are the smallest and the largest height of the peak
    and place x of the peak over all variants, and counts of the verdicts on secondary cells of the study.
    """
    counts = [f"variants-{name.replace(' ', '-')}" for name in VERDICTS]
    names = ("lowest-peak", "highest-peak", "first-peak", "last-peak", "variants", *counts)
    if study is None:
        return dict.fromkeys(names, NOT_COMPUTED)
    curves = study["trace_over_norm"].sel(dimension=study["dimension"].max()).mean("draw")
    heights = curves.max("radius")
    over_radii = {"input_core_dims": [["radius"], ["radius"]], "vectorize": True}
    places = xr.apply_ufunc(lambda x, curve: vertex_within_reach(x, curve)[1], study["x"], curves, **over_radii)
    extremes = [f"${float(value):.2g}$" for value in (heights.min(), heights.max(), places.min(), places.max())]
    reached = [row["verdict"] for row in rows if " sensitivity " in row["case"] and row["verdict"] != NOT_TESTED]
    return dict(zip(names, [*extremes, f"${len(reached)}$", *(f"${reached.count(name)}$" for name in VERDICTS)]))


def map_numbers(training: xr.Dataset | None, curvature: xr.Dataset | None) -> dict[str, str]:
    """Results of `zone_map.statistics` with intervals, as {name: LaTeX}.

    The numbers are NOT_COMPUTED if the run lacks a study or has too few networks.
    """
    names = ("kappa", "fraction", "sigma", "gain")
    if training is None or curvature is None:
        return {f"map-{name}": NOT_COMPUTED for name in names}
    found = zone_map.statistics(training, curvature)
    known = {key: latex.interval(*values) for key, values in found.items() if np.isfinite(values).all()}
    return {f"map-{name}": known.get(name, NOT_COMPUTED) for name in names}


def attribute_values(results: Results, name: str) -> list[str]:
    """Distinct values, sorted, that the attribute `name` has in the blocks of all results."""
    return sorted({value for result in results.values() for value in str(result.attrs[name]).split(", ")})


def commits(results: Results) -> str:
    """Text that lists the commits at which `results` were made, and says why a commit is unknown."""
    known = attribute_values(results, "commit") or ["unknown"]
    return ", ".join("unknown (no git repository of its own)" if each == "unknown" else each for each in known)


def provenance(results: Results, rows: list[dict]) -> dict[str, str]:
    """Provenance of results as {name: LaTeX}: blocks, hours, devices, precision, commits, versions, claims hash."""
    versions = {"Python": "python", **{library: f"{library}_version" for library in ("torch", "numpy", "scipy")}}
    names = ("device", "dtype", *versions.values())
    every = {name: latex.escape(", ".join(attribute_values(results, name)), strict=False) for name in names}
    return {
        "blocks": str(sum(result.attrs.get("blocks", 1) for result in results.values())),
        "hours": f"{sum(result.attrs['wall_seconds'] for result in results.values()) / 3600:.1f}",
        "device": every["device"],
        "dtype": every["dtype"],
        "commit": commits(results),
        "versions": ", ".join(f"{library} {every[name]}" for library, name in versions.items()),
        "claims": rows[0]["claims_hash"] if rows else "",
    }


class Missing(jinja2.StrictUndefined):
    """A value that a template uses and that is not defined; raises ValueError when it is rendered."""

    def __str__(self) -> str:
        place = f" of {self._undefined_obj}" if isinstance(self._undefined_obj, dict) else ""
        raise ValueError(
            f"a template of the paper uses {self._undefined_name!r}{place}, which is not defined: define it, usually "
            "in resources/published/<work>/settings.yaml"
        )


def environment(folder: Path) -> jinja2.Environment:
    """Jinja environment for the templates in `folder`: delimiters that suit LaTeX, filters for rows and settings."""
    loader = jinja2.FileSystemLoader(folder)
    delimiters = ("<%", "%>", "<<", ">>", "<#", "#>")
    options = {"trim_blocks": True, "keep_trailing_newline": True, "undefined": Missing}
    templates = jinja2.Environment(*delimiters, loader=loader, **options)
    escape = {
        "typeset": mathematics.typeset,
        "latex": lambda value, strict=True: latex.escape(str(value), strict),
        "split": str.split,
    }
    shown = (
        hyphenated,
        hundredths,
        percent,
        measured,
        radii,
        starts,
        drawn,
        dimensions,
        random_steps,
        grouped,
        without_remedy,
    )
    templates.filters |= escape | {each.__name__: each for each in shown}
    templates.globals["macro"] = latex.macro
    return templates


def judged(rows: list[dict]) -> list[list[dict]]:
    """Claims that were tested at least in part, as two lists: empirical claims, and identities.

    An entry is the row of a claim with two additional keys: `tests`, the rows of its primary cases that were tested,
    and `untested`, a sentence that names its other primary cases and the reasons why these were not tested. As `work`,
    hypotheses of this project have the project, whatever the work in whose file they stand.
    """
    tests = {}
    for row in rows:
        if row["case"] and " " not in row["case"]:
            tests.setdefault(row["id"].split(".")[0], []).append(row)
    found = []
    for row in rows:
        if not row["case"] and any(case["verdict"] != NOT_TESTED for case in tests.get(row["id"], [row])):
            known = tests.get(row["id"], [])
            reasons = {}
            for case in known:
                if case["verdict"] == NOT_TESTED:
                    reasons.setdefault(case["reason"], []).append(case["case"])
            said = "; ".join(f"{', '.join(names)} ({reason})" for reason, names in reasons.items())
            verdicts = [case for case in known if case["verdict"] != NOT_TESTED]
            work = _OWN_WORK if _OWN.match(row["id"]) else row["work"]
            untested = f"Not tested: {said}." if said else ""
            found.append({**row, "work": work, "tests": verdicts, "untested": untested})
    return [[row for row in found if (row["verdict"] in (HOLDS, FAILS)) is identity] for identity in (False, True)]


def untested(rows: list[dict]) -> str:
    """LaTeX sentences on the claims of which no part was tested, with statement and reason; empty if there are none."""
    known, found = {row["id"] for group in judged(rows) for row in group}, []
    for row in rows:
        if not row["case"] and row["id"] not in known:
            statement = mathematics.typeset(hyphenated(row["statement"].rstrip(".")))
            reason = row["reason"] and f" ({mathematics.typeset(hyphenated(row['reason']), strict=False)})"
            found.append(rf"\textbf{{{latex.escape(hyphenated(row['id']))}}} {statement}{reason}")
    return f"This run tests no part of these claims: {'; '.join(found)}." if found else ""


def hyphenated(text: str) -> str:
    """Text for readers, with hyphens for underscores in the names of claims, datasets and the like, as fashion-mnist.

    Symbols such as σ_z and r_out keep theirs.
    """
    return re.sub(r"(?<=[a-z0-9]{2})_(?=[a-z]{2})", "-", str(text))


def disagreements(rows: list[dict], entries: Iterable[dict]) -> list[dict[str, str]]:
    """Disagreements between works as dictionaries with the keys question and answer.

    `entries` are those of disagreements.yaml. An answer states both sides of the disagreement with the verdicts on
    their claims, and then the conclusion that belongs to these verdicts.
    """
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
