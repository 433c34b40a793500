"""The LaTeX macros that the paper takes from a run: numbers, verdicts, tables, figures and provenance."""

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import xarray as xr
import yaml

from goldilocks_zone.claims import synthesis, zone_map
from goldilocks_zone.claims.curves import vertex_within_reach
from goldilocks_zone.config import records
from goldilocks_zone.config.models import Cuts
from goldilocks_zone.config.records import PaperRecord
from goldilocks_zone.paper import check, figures, latex, tables
from goldilocks_zone.statistics.hypotheses import (
    HOLDS,
    INCONCLUSIVE,
    NOT_REPRODUCED,
    NOT_TESTED,
    REPRODUCED,
)
from goldilocks_zone.storage import files, netcdf

MAIN_STUDY = "curvature"
VERDICTS = (REPRODUCED, NOT_REPRODUCED, INCONCLUSIVE)
NOT_COMPUTED = r"\emph{not computed}"


def write_numbers(
    path_to_claims: str,
    paths_to_studies: list[str],
    path_to_cuts: str | None,
    paths_to_cards: list[str],
    path_to_settings: str,
    paths_to_published: list[str],
    path_to_disagreements: str,
    paths_to_sections: list[str],
    paths_to_templates: list[str],
    path_to_output: str,
    path_to_shown_settings: str,
) -> None:
    """Write the macros, and the settings as the report shows them.

    Sections bear the names of works; published settings lie in folders of these names.
    """
    with open(path_to_claims, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    settings = records.read(PaperRecord, path_to_settings)
    studies = {Path(path).stem: netcdf.read_dataset(path) for path in paths_to_studies}
    results = studies | ({"cuts": netcdf.read_dataset(path_to_cuts)} if path_to_cuts else {})
    sections = {Path(path).stem: Path(path).read_text(encoding="utf-8") for path in paths_to_sections}
    known = figures.known(settings)
    works = check.works(sections, list(dict.fromkeys(row["id"].split(".")[0] for row in rows)), known)
    in_sections = check.shown(sections[work] for work in works)
    published = {Path(path).parent.name: _read(path) for path in paths_to_published}
    template = tables.environment(Path(paths_to_templates[0]).parent).get_template("generated.tex.jinja")
    text = template.render(
        rows=rows,
        settings=settings,
        works=works,
        macros=claim_macros(rows) | {"setting": setting_macros(settings, studies, results, rows)},
        figures=[figure for figure in known.values() if figure.drawn or figure.name in in_sections],
        appendix=[figure for figure in known.values() if figure.drawn and figure.name not in in_sections],
        verdicts=tables.verdicts(rows),
        disagreements=tables.disagreements(rows, _read(path_to_disagreements).values()),
        published={kind: in_order(published, works, kind) for kind in ("curvature", "training")},
        cards={Path(path).stem: _read(path) for path in paths_to_cards},
        provenance=provenance(results, rows),
    )
    files.write_text(text, path_to_output)
    shown = settings.model_dump(exclude={"registered"}, exclude_none=True)
    files.write_text(records.dump(shown), path_to_shown_settings)


def _read(path: str) -> dict:
    return yaml.safe_load(Path(path).read_text(encoding="utf-8"))


def in_order(published: dict[str, dict], works: list[str], kind: str) -> dict[str, dict]:
    """Published settings of the studies of one kind by study, works in the order of their sections."""
    names = [*works, *sorted(set(published) - set(works))]
    return {study: each for name in names for study, each in published.get(name, {}).get(kind, {}).items()}


def claim_macros(rows: list[dict]) -> dict[str, dict[str, str]]:
    """Verdict of each claim that has cases, estimate and verdict of each primary case."""
    primary = [row for row in rows if row["case"] and " " not in row["case"]]
    tested = {row["id"].split(".")[0] for row in primary}
    return {
        "verdict": {row["id"]: row["verdict"] for row in rows if row["id"] in tested},
        "estimate": {row["id"]: described(row) for row in primary},
    }


def described(row: dict) -> str:
    """Estimate, interval, number of initialisations and verdict of a case, or the reason why it has none."""
    if not row["estimate"]:
        return r"\emph{not computed: " + latex.escape(row["reason"], strict=False) + "}"
    return f"{tables.measured(row)} ($n={row['n']}$, {row['verdict']})"


def setting_macros(
    settings: PaperRecord, studies: dict[str, xr.Dataset], results: dict[str, xr.Dataset], rows: list[dict]
) -> dict[str, str]:
    """What the text quotes of a run; `results` are all that it shows, studies among them."""
    counted = Counter(row["verdict"] for row in rows if not row["case"])
    return {
        "run": latex.escape(settings.run),
        **{name.replace(" ", "-"): str(counted[name]) for name in (*VERDICTS, NOT_TESTED)},
        "identities": str(counted[HOLDS]),
        "commit": commits(results),
        "cuts": cuts_setting(settings.cuts if "cuts" in results else None),
        "sigma-z": logits_deviation_at_peak(studies.get(MAIN_STUDY)),
        **sensitivity(studies.get("sensitivity"), rows),
        **{
            f"flips-{axis.lower().replace('_', '-')}": f"{count} of {total}"
            for axis, (count, total) in synthesis.flips(rows).items()
        },
        **map_numbers(studies.get("map_training"), studies.get("map_curvature")),
    }


def cuts_setting(cuts: Cuts | None) -> str:
    """Dataset, network and number of examples of the cuts."""
    if cuts is None:
        return NOT_COMPUTED
    return f"{latex.escape(cuts.dataset)}, {latex.escape(cuts.network)}, $N={cuts.examples}$"


def logits_deviation_at_peak(study: xr.Dataset | None) -> str:
    """σ_z where the mean Tr(H)/‖H‖ at the largest d and N is highest, in the first cell; mean and deviation."""
    if study is None:
        return NOT_COMPUTED
    cell = study.isel(dataset=0, network=0, subspace=0).sel(examples=study["examples"].max())
    top = int(cell["trace_over_norm"].sel(dimension=study["dimension"].max()).mean("draw").argmax())
    values = cell["logits_std"].isel(radius=top).values
    if len(values) < 2:
        return f"${values.mean():.2g}$"
    spread = np.std(values, ddof=1)
    return f"${latex.number(values.mean(), -spread, spread)} \\pm {spread:.2g}$"


def sensitivity(study: xr.Dataset | None, rows: list[dict]) -> dict[str, str]:
    """Range of height and place of the peak of the mean Tr(H)/‖H‖ over the study's variants, and verdicts on them."""
    counts = [f"variants-{name.replace(' ', '-')}" for name in VERDICTS]
    names = ("lowest-peak", "highest-peak", "first-peak", "last-peak", "variants", *counts)
    if study is None:
        return dict.fromkeys(names, NOT_COMPUTED)
    curves = study["trace_over_norm"].sel(dimension=study["dimension"].max()).mean("draw")
    heights = curves.max("radius")
    places = xr.apply_ufunc(
        lambda x, curve: vertex_within_reach(x, curve)[1],
        *(study["x"], curves),
        input_core_dims=[["radius"], ["radius"]],
        vectorize=True,
    )
    extremes = [f"${float(value):.2g}$" for value in (heights.min(), heights.max(), places.min(), places.max())]
    reached = [row["verdict"] for row in rows if " sensitivity " in row["case"] and row["verdict"] != NOT_TESTED]
    return dict(zip(names, [*extremes, f"${len(reached)}$", *(f"${reached.count(name)}$" for name in VERDICTS)]))


def map_numbers(training: xr.Dataset | None, curvature: xr.Dataset | None) -> dict[str, str]:
    """Rank correlations of accuracy with curvature at the start, and what curvature adds to the logits' deviation."""
    names = ("kappa", "fraction", "sigma", "gain")
    if training is None or curvature is None:
        return {f"map-{name}": NOT_COMPUTED for name in names}
    estimates = zone_map.statistics(training, curvature)
    return {
        f"map-{name}": latex.interval(*estimates[name])
        if np.isfinite(estimates[name]).all()
        else r"\emph{not computed: too few networks}"
        for name in names
    }


def attribute_values(results: dict[str, xr.Dataset], name: str) -> list[str]:
    """Every value that an attribute has among the results' blocks."""
    return sorted({value for result in results.values() for value in str(result.attrs[name]).split(", ")})


def commits(results: dict[str, xr.Dataset]) -> str:
    """Every commit that results were made at, with the reason where one is not known."""
    known = attribute_values(results, "commit") or ["unknown"]
    return ", ".join("unknown (no git repository of its own)" if each == "unknown" else each for each in known)


def provenance(results: dict[str, xr.Dataset], rows: list[dict]) -> dict[str, str]:
    """Where the results come from: work and time, devices, versions, and hashes of data and claims."""

    def every(name: str) -> str:
        return ", ".join(attribute_values(results, name))

    return {
        "blocks": str(sum(result.attrs.get("blocks", 1) for result in results.values())),
        "minutes": f"{sum(result.attrs['wall_seconds'] for result in results.values()) / 60:.1f}",
        "device": every("device"),
        "dtype": every("dtype"),
        "commit": commits(results),
        "versions": ", ".join(f"{name} {every(f'{name}_version')}" for name in ("torch", "numpy", "scipy")),
        "data": ", ".join(value[:12] for value in attribute_values(results, "data_checksum")),
        "claims": rows[0]["claims_hash"] if rows else "",
    }
