"""Everything that the paper takes from a run, as LaTeX macros: numbers, verdicts, tables, figures, provenance."""

import csv
from pathlib import Path

import numpy as np
import xarray as xr
import yaml

from goldilocks_zone.claims import synthesis, zone_map
from goldilocks_zone.jobs.log import job_log
from goldilocks_zone.paper import latex
from goldilocks_zone.statistics.hypotheses import FAILS, HOLDS, NOT_TESTED
from goldilocks_zone.storage import files, netcdf

MAIN_STUDY = "curvature"
FIGURES = ("cuts", "fraction_positive", "trace_over_norm", "loss", "trace_and_norm")
# Of many panels, as wide as the page whatever the studies.
WIDE_FIGURES = (
    *("other_networks", "other_losses", "sensitivity", "sample_size", "collapse"),
    *("plateaus", "layer_traces", "kinks", "selection"),
    *("accuracy", "arms", "other_accuracy", "intrinsic_dimension", "within_planes", "drawn", "early"),
    *("rate_temperature", "chang_radius", "chang_accuracy", "chang_subspaces", "zone_map"),
    *("rescaling", "parts", "counterfactuals", "random_gradients", "confidence", "outside", "eigenvectors"),
    *("not_homogeneous", "clustering", "growth", "simplex", "spectra", "confined", "sharpness", "model_kappa"),
)


def write_numbers(
    path_to_claims: str,
    paths_to_studies: list[str],
    path_to_cuts: str | None,
    paths_to_cards: list[str],
    path_to_settings: str,
    path_to_published: str,
    path_to_published_training: str,
    path_to_disagreements: str,
    path_to_output: str,
    path_to_shown_settings: str,
) -> None:
    """Write the macros, and the settings as the report shows them."""
    with open(path_to_claims, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    studies = {Path(path).stem: netcdf.read_dataset(path) for path in paths_to_studies}
    settings = yaml.safe_load(Path(path_to_settings).read_text(encoding="utf-8"))
    results = studies | ({"cuts": netcdf.read_dataset(path_to_cuts)} if path_to_cuts else {})
    cards = {Path(path).stem: yaml.safe_load(Path(path).read_text(encoding="utf-8")) for path in paths_to_cards}
    published, training, disagreements = (
        yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        for path in (path_to_published, path_to_published_training, path_to_disagreements)
    )
    lines = [
        *claim_macros(rows),
        *setting_macros(settings, studies, results, rows),
        *figure_macros(settings),
        r"\newcommand{\claimstable}{" + claims_table(rows) + "}%",
        r"\newcommand{\synthesistable}{" + synthesis_table(rows) + "}%",
        r"\newcommand{\disagreements}{" + disagreement_paragraphs(rows, disagreements) + "}%",
        r"\newcommand{\settingstable}{" + settings_table(settings["studies"].get(MAIN_STUDY), published) + "}%",
        r"\newcommand{\trainingtable}{" + training_table(settings["studies"], training) + "}%",
        r"\newcommand{\datatable}{" + data_table(settings, cards) + "}%",
        r"\newcommand{\provenance}{" + provenance(settings, results, rows) + "}%",
    ]
    files.write_text("\n".join(lines) + "\n", path_to_output)
    files.write_text(Path(path_to_settings).read_text(encoding="utf-8"), path_to_shown_settings)


def claim_macros(rows: list[dict]) -> list[str]:
    """Estimate and verdict of each primary case, verdict of each claim that has cases."""
    primary = [row for row in rows if row["case"] and " " not in row["case"]]
    tested = {row["id"].split(".")[0] for row in primary}
    lines = [latex.macro("verdict", row["id"], row["verdict"]) for row in rows if row["id"] in tested]
    for row in primary:
        lines.append(latex.macro("estimate", row["id"], described(row)))
    return lines


def described(row: dict) -> str:
    if not row["estimate"]:
        return r"\emph{not computed: " + latex.escape(row["reason"], strict=False) + "}"
    estimate, low, high = (float(row[key]) for key in ("estimate", "low", "high"))
    # An identity's largest error has no interval.
    text = latex.interval(estimate, low, high) if low < high else f"${latex.number(estimate, low, high)}$"
    return f"{text} ($n={row['n']}$, {row['verdict']})"


def setting_macros(
    settings: dict, studies: dict[str, xr.Dataset], results: dict[str, xr.Dataset], rows: list[dict]
) -> list[str]:
    """What the text quotes of a run; `results` are all that it shows, studies among them."""
    counted = {}
    for row in rows:
        if not row["case"]:
            counted[row["verdict"]] = counted.get(row["verdict"], 0) + 1
    values = {
        "run": latex.escape(settings["run"]),
        "reproduced": str(counted.get("reproduced", 0)),
        "not-reproduced": str(counted.get("not reproduced", 0)),
        "inconclusive": str(counted.get("inconclusive", 0)),
        "not-tested": str(counted.get("not tested", 0)),
        "identities": str(counted.get("identity holds", 0)),
        "commit": commits(results),
        "cuts": cuts_setting(settings["cuts"] if "cuts" in results else None),
        "sigma-z": logits_deviation_at_peak(studies.get(MAIN_STUDY)),
        **sensitivity(studies.get("sensitivity"), rows),
        **{
            f"flips-{axis.lower().replace('_', '-')}": f"{count} of {total}"
            for axis, (count, total) in synthesis.flips(rows).items()
        },
        **map_numbers(studies.get("map_training"), studies.get("map_curvature")),
    }
    return [latex.macro("setting", name, text) for name, text in values.items()]


def cuts_setting(cuts: dict | None) -> str:
    """What the cuts are of: dataset, network and number of examples."""
    if cuts is None:
        return r"\emph{not computed}"
    return f"{latex.escape(cuts['dataset'])}, {latex.escape(cuts['network'])}, $N={cuts['examples']}$"


def logits_deviation_at_peak(study: xr.Dataset | None) -> str:
    """σ_z where the mean Tr(H)/‖H‖ at the largest d and N is highest, in the first cell; mean and deviation."""
    if study is None:
        return r"\emph{not computed}"
    cell = study.isel(dataset=0, network=0, subspace=0).sel(examples=study["examples"].max())
    top = int(cell["trace_over_norm"].sel(dimension=study["dimension"].max()).mean("draw").argmax())
    values = cell["logits_std"].isel(radius=top).values
    if len(values) < 2:
        return f"${values.mean():.2g}$"
    spread = np.std(values, ddof=1)
    return f"${latex.number(values.mean(), -spread, spread)} \\pm {spread:.2g}$"


def sensitivity(study: xr.Dataset | None, rows: list[dict]) -> dict[str, str]:
    """How far the peak of the mean Tr(H)/‖H‖ moves over the study's variants, and the verdicts reached on them."""
    verdicts = {f"variants-{name.replace(' ', '-')}": name for name in ("reproduced", "not reproduced", "inconclusive")}
    names = ("lowest-peak", "highest-peak", "first-peak", "last-peak", "variants", *verdicts)
    if study is None:
        return dict.fromkeys(names, r"\emph{not computed}")
    curves = study["trace_over_norm"].sel(dimension=study["dimension"].max()).mean("draw")
    heights = curves.max("radius")
    places = xr.apply_ufunc(
        lambda x, curve: curves.vertex_within_reach(x, curve)[1],
        *(study["x"], curves),
        input_core_dims=[["radius"], ["radius"]],
        vectorize=True,
    )
    extremes = (heights.min(), heights.max(), places.min(), places.max())
    reached = [row["verdict"] for row in rows if " sensitivity " in row["case"] and row["verdict"] != NOT_TESTED]
    counts = [len(reached), *(reached.count(name) for name in verdicts.values())]
    return dict(zip(names, [f"${float(value):.2g}$" for value in extremes] + [f"${count}$" for count in counts]))


def map_numbers(training: xr.Dataset | None, curvature: xr.Dataset | None) -> dict[str, str]:
    """How accuracy goes with the curvature of the start, and what that adds to the logits' deviation."""
    names = ("kappa", "fraction", "sigma", "gain")
    if training is None or curvature is None:
        return {f"map-{name}": r"\emph{not computed}" for name in names}
    found = zone_map.statistics(training, curvature)
    return {
        f"map-{name}": latex.interval(*found[name])
        if np.isfinite(found[name]).all()
        else r"\emph{not computed: too few networks}"
        for name in names
    }


def figure_macros(settings: dict) -> list[str]:
    """The picture of each figure, or why this run has none."""
    reasons = " ".join(left_out(settings))
    lines = []
    for name in (*FIGURES, *WIDE_FIGURES):
        wide = name in WIDE_FIGURES or (name in settings["figures"] and panels(settings, name) > 1)
        lines.append(latex.macro("width", name, r"\linewidth" if wide else r".49\linewidth"))
        if name in settings["figures"]:
            text = rf"\includegraphics[width=\linewidth]{{{name}.pdf}}"
        else:
            reason = reasons or f"the run {latex.escape(settings['run'])} does not draw it"
            text = rf"\fbox{{\parbox{{.9\linewidth}}{{Not computed: {reason}.}}}}"
        lines.append(latex.macro("figure", name, text))
    return lines


def panels(settings: dict, figure: str) -> int:
    """How many panels a figure has; several fill the width of the page."""
    if figure == "cuts":
        return 2 * len(settings["cuts"]["radii"])
    study = settings["studies"][settings["figures"][figure][0]]
    return len(study["datasets"]) * len(study["networks"]) * len(study["subspaces"])


def claims_table(rows: list[dict]) -> str:
    """Claims and their primary cases; cases on other cells stand in claims.csv."""
    lines = []
    for row in rows:
        if " " in row["case"]:
            continue
        name = latex.escape(row["id"]) if not row["case"] else rf"\quad {row['case']}"
        result = ""
        if row["case"]:
            result = described(row).rsplit(", ", 1)[0] + ")" if row["estimate"] else "not computed"
        lines.append(rf"{name} & {latex.escape(row['statement'])} & {result} & {row['verdict']} \\")
    return "%\n" + "%\n".join(lines) + "%\n"


def synthesis_table(rows: list[dict]) -> str:
    """Every claim with its verdict, identities below the others."""
    claims = [row for row in rows if not row["case"]]
    identities = [row for row in claims if row["verdict"] in (HOLDS, FAILS)]
    others = [row for row in claims if row not in identities]

    def lines(rows: list[dict]) -> list[str]:
        cells = ((row["id"], row["work"], row["statement"]) for row in rows)
        return [" & ".join(map(latex.escape, each)) + rf" & {row['verdict']} \\" for row, each in zip(rows, cells)]

    parts = [*lines(others), *([r"\midrule"] if identities else []), *lines(identities)]
    return "%\n" + "%\n".join(parts) + "%\n"


def disagreement_paragraphs(rows: list[dict], disagreements: dict) -> str:
    """A paragraph for each disagreement: what both sides say, their claims' verdicts, and what follows from these."""
    verdicts = {row["id"]: row["verdict"] for row in rows if not row["case"]}
    lines = []
    for entry in disagreements.values():
        said = []
        for side in entry["sides"]:
            found = ", ".join(f"{claim} {verdicts.get(claim, 'not tested')}" for claim in side["claims"])
            said.append(f"{latex.escape(side['says'])} ({latex.escape(found)})")
        result = synthesis.outcome(verdicts, [side["claims"] for side in entry["sides"]])
        sentence = f"{'; '.join(said)}. {latex.escape(entry[result])}"
        lines.append(rf"\paragraph{{{latex.escape(entry['question'])}}} {sentence[0].upper()}{sentence[1:]}\par")
    return "%\n" + "%\n".join(lines) + "%\n"


def settings_table(study: dict | None, published: dict) -> str:
    """The published settings beside those of this run's main study."""
    if study is None:
        return r"\multicolumn{3}{l}{This run has no study called " + MAIN_STUDY + r".} \\"
    radii = study["radii"]
    if isinstance(radii, dict):
        first, last = (2 * np.log10(radii[key]) for key in ("first", "last"))
        radii_text = f"{radii['number']}, $x$ from ${first:g}$ to ${last:g}$"
    else:
        radii_text = f"{len(radii)}"
    kinds = sorted({label.rsplit("-", 1)[1] for label in study["subspaces"]})
    here = {
        "network": latex.escape(", ".join(study["networks"])),
        "dataset": latex.escape(", ".join(study["datasets"])),
        "loss": latex.escape(study["loss"].replace("_", "-")),
        "initialisation": f"{study['initialisation']}, all parameters times one factor",
        "radii": radii_text,
        "dimensions": ", ".join(map(str, study["dimensions"])),
        "draws": f"{study['draws']} initialisations",
        "planes": f"{study['planes']} per initialisation",
        "planes_kind": ", ".join(kinds),
        "metric": latex.escape(study["metric"].replace("_", " ")),
        "bias_directions": "yes" if study["bias_directions"] else "no",
        "examples": ", ".join(map(str, study["examples"])) + " training examples, class-balanced",
        "inputs": latex.escape(study["inputs"].replace("_", " ")),
        "dtype": study["dtype"],
    }
    names = {
        "planes_kind": "kind of plane",
        "bias_directions": "bias directions",
        "dtype": "precision",
        "radii": "radii",
        "dimensions": "dimensions $d$",
        "examples": "examples $N$",
        "inputs": "preprocessing",
        "draws": "draws per radius",
    }
    lines = [rf"{names.get(key, key)} & {published[key]} & {text} \\" for key, text in here.items()]
    return "%\n" + "%\n".join(lines) + "%\n"


def training_table(studies: dict, published: dict) -> str:
    """The published settings of training, each row above that of this run's study."""
    keys = ("network", "dataset", "rate", "steps", "batch", "radii", "subspaces", "draws")
    lines = []
    for name, original in published.items():
        lines.append(rf"{original['work']} & " + " & ".join(str(original[key]) for key in keys) + r" \\")
        if name not in studies:
            lines.append(rf"\quad this run & \multicolumn{{{len(keys)}}}{{l}}{{\emph{{not computed}}}} \\")
            continue
        study = studies[name]
        radii = study["radii"]
        dimensions = sorted({label.split("-")[1] for label in study["subspaces"]}, key=lambda each: (len(each), each))
        here = {
            "network": ", ".join(study["networks"]),
            "dataset": ", ".join(study["datasets"]),
            "radii": str(radii["number"] if isinstance(radii, dict) else len(radii)),
            "subspaces": ", ".join(dimensions),
            **{key: f"{study[key]}" for key in ("rate", "steps", "batch", "draws")},
        }
        lines.append(r"\quad this run & " + " & ".join(latex.escape(here[key]) for key in keys) + r" \\")
    return "%\n" + "%\n".join(lines) + "%\n"


def data_table(settings: dict, cards: dict[str, dict]) -> str:
    """Each dataset with its size, the licence under which it is used, and the checksum of its content."""
    replaced = {substitute: name for name, substitute in settings["substitutes"].items()}
    lines = []
    for name, card in cards.items():
        label = latex.escape(name)
        if name in replaced:
            label += f", in place of {latex.escape(replaced[name])}"
        channels, height, width = card["image"]
        size = rf"${channels}\times{height}\times{width}$, {card['classes']} classes"
        counts = rf"{card['training_examples']:,} + {card['test_examples']:,}"
        licence = latex.escape(settings["licences"][name], strict=False)
        lines.append(rf"{label} & {size} & {counts} & {licence} & \texttt{{{card['checksum'][:12]}}} \\")
    column = r"@{}>{\raggedright\arraybackslash}p{.97\linewidth}"
    lines += [rf"\multicolumn{{5}}{{{column}}}{{Left out: {reason}.}} \\" for reason in left_out(settings)]
    return "%\n" + "%\n".join(lines) + "%\n"


def left_out(settings: dict) -> list[str]:
    """What a run leaves out, without the remedy that follows the reason."""
    return [latex.escape(reason.split("): ")[0] + ")", strict=False) for reason in settings["left_out"]]


def attribute_values(results: dict[str, xr.Dataset], name: str) -> list[str]:
    """Every value that an attribute has among the results' blocks."""
    return sorted({value for result in results.values() for value in str(result.attrs[name]).split(", ")})


def commits(results: dict[str, xr.Dataset]) -> str:
    """Every commit that results were made at, with the reason where one is not known."""
    known = attribute_values(results, "commit") or ["unknown"]
    return ", ".join("unknown (no git repository of its own)" if each == "unknown" else each for each in known)


def provenance(settings: dict, results: dict[str, xr.Dataset], rows: list[dict]) -> str:
    def all_of(name: str) -> str:
        return latex.escape(", ".join(attribute_values(results, name)))

    minutes = sum(result.attrs["wall_seconds"] for result in results.values()) / 60
    blocks = sum(result.attrs.get("blocks", 1) for result in results.values())
    checksum = rows[0]["claims_hash"] if rows else ""
    data = ", ".join(value[:12] for value in all_of("data_checksum").split(", "))
    versions = ", ".join(f"{name} {all_of(f'{name}_version')}" for name in ("torch", "numpy", "scipy"))
    return (
        f"Run {latex.escape(settings['run'])}: {blocks} blocks, {minutes:.1f} minutes of computing on "
        f"{all_of('device')} in {all_of('dtype')}; commit {commits(results)}; {versions}; data {data}; "
        f"claims {checksum}."
    )


if __name__ == "__main__":
    with job_log(snakemake.log[0], snakemake.input):
        write_numbers(
            path_to_claims=snakemake.input.claims,
            paths_to_studies=list(snakemake.input.studies),
            path_to_cuts=next(iter(snakemake.input.cuts), None),
            paths_to_cards=list(snakemake.input.cards),
            path_to_settings=snakemake.input.settings,
            path_to_published=snakemake.input.published,
            path_to_published_training=snakemake.input.published_training,
            path_to_disagreements=snakemake.input.disagreements,
            path_to_output=snakemake.output.generated,
            path_to_shown_settings=snakemake.output.settings,
        )
