"""Read, complete and check configurations from YAML files. Imports nothing heavy."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import yaml
from pydantic import ValidationError

from goldilocks_zone.config import checks, records
from goldilocks_zone.config.models import Configuration
from goldilocks_zone.config.values import ConfigurationError, sentence
from goldilocks_zone.data import catalogue, drawn_shapes, official_shapes
from goldilocks_zone.data.official_shapes import Shape
from goldilocks_zone.figures import registry
from goldilocks_zone.paper import latex
from goldilocks_zone.provenance import archive

ROOT = Path(__file__).parents[3]
AVAILABLE = Path("results/data/available.yaml")  # written by make data


def complete(given: dict, cards: Sequence[Path] = ()) -> Configuration:
    """Check the configuration `given`, and complete it with default values.

    Entries that are null are dropped. Datasets are replaced by their substitutes. The result has only studies that the
    key `only` keeps, and only figures for which it has something to show. `cards` are folders with the cards of
    datasets read before. Raises ConfigurationError for the first invalid key.
    """
    _refuse_unnamed(given)
    # A study that an overlay sets to null may still be named by figures and `draws_per_job`.
    known = list(given["studies"]) if isinstance(given.get("studies"), dict) else []
    own_figures = given.get("figures")
    given = records.without_nulls(_with_figures(given))
    try:
        config = Configuration.model_validate(given)
    except ValidationError as error:
        raise ConfigurationError(sentence(error, given)) from None
    checks.check_names(config, known)
    kept = {name: study for name, study in config.studies.items() if name in (config.only or known)}
    shapes = _known_datasets(config, cards)
    checks.check_networks(config)
    studies = {name: checks.check_study(f"studies.{name}", study, config, shapes) for name, study in kept.items()}
    config = config.model_copy(update={"studies": studies})
    if config.cuts:
        checks.refuse_dataset("cuts.dataset", config.cuts.dataset, shapes)
        dataset = config.substitutes.get(config.cuts.dataset, config.cuts.dataset)
        cuts = config.cuts.model_copy(update={"dataset": dataset})
        config = config.model_copy(update={"cuts": cuts})
        checks.check_cuts(cuts, shapes[dataset], config.networks)
    checks.check_figures(config, own_figures or {}, known)
    return config.model_copy(update={"figures": _drawable(config)})


def _known_datasets(config: Configuration, cards: Sequence[Path]) -> dict[str, Shape | None]:
    """Map every dataset that a study may name to its shape, or to None if the shape is unknown before reading it.

    `cards` are folders with the cards of datasets read before. Raises ConfigurationError for an invalid entry of the
    configuration's sections datasets and substitutes.
    """
    for name, entry in config.datasets.items():
        if name in official_shapes.OFFICIAL or drawn_shapes.shape_of(name):
            checks.refuse(f"datasets.{name}: this name belongs to an official dataset; choose another name")
        if unknown := latex.unprintable(entry.licence or ""):
            reason = f"{unknown[0]!r} cannot be printed in the paper; write it in Latin letters"
            checks.refuse(f"datasets.{name}.licence: {reason}")
    shapes = catalogue.known_shapes(config.datasets, catalogue.data_folder(config.data_folder), cards)
    for name, substitute in config.substitutes.items():
        for dataset in (name, substitute):
            checks.refuse_dataset(f"substitutes.{name}", dataset, shapes)
    named = {*drawn_shapes.NAMES, *(name for study in config.studies.values() for name in study.datasets)}
    return shapes | {name: shape for name in sorted(named) if (shape := drawn_shapes.shape_of(name))}


def _with_figures(given: dict) -> dict:
    """Return the configuration `given` with settings of all registered figures, except those that it sets to null.

    Raises ConfigurationError for an invalid entry of the section `figures`.
    """
    section = given.get("figures", {})
    if not isinstance(section, dict):
        return given
    try:
        return {**given, "figures": registry.with_defaults(section)}
    except ValueError as error:
        raise ConfigurationError(f"figures.{error}") from None


def _drawable(config: Configuration) -> dict[str, registry.FigureSettings]:
    """Figures that the configuration can draw, as {name: settings}.

    A figure shows studies or another result. It can be drawn if at least one of its studies, or its result, is in
    `config`. Studies that are not in `config` are removed from its settings.
    """
    found = {}
    for name, figure in config.figures.items():
        present = [study for study in figure.studies if study in config.studies]
        result = registry.of(name, figure.file).result
        if present or (result and getattr(config, result)):
            found[name] = figure.model_copy(update={"studies": present})
    return found


def datasets_of(config: Configuration) -> set[str]:
    """Names of the datasets that a complete configuration uses and that have a file.

    Datasets without a file, which jobs draw anew, are not among them.
    """
    named = {name for study in config.studies.values() for name in study.datasets}
    cuts = {config.cuts.dataset} if config.cuts else set()
    return cuts | {name for name in named if not drawn_shapes.shape_of(name)}


def read(paths: Iterable[str | Path]) -> dict:
    """Read the YAML files at `paths`, and merge them in this order, as Snakemake does.

    In a merge, sections are merged key by key, and other values of later files replace those of earlier ones. Raises
    ConfigurationError if a file cannot be read or is invalid.
    """
    config: dict = {}
    for path in paths:
        _lay_over(config, _read_mapping(Path(path)))
    return config


def _read_mapping(path: Path) -> dict:
    try:
        content = records.parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read ({error.strerror}): name a file that is there") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "no valid YAML"
        raise ConfigurationError(f"{path}{line}: {problem}; correct it") from None
    if not isinstance(content, dict):
        raise ConfigurationError(
            f"{path} holds no keys with values: write lines of the form 'key: value', or leave the file out"
        )
    return content


def without_missing(config: Configuration, available: Mapping) -> tuple[Configuration, dict[str, str]]:
    """Omit unavailable datasets from a configuration.

    Returns the configuration without them, and the reason for each omitted dataset. `available` is {dataset:
    {"available": True or False, "reason": text}}. Studies, cuts and figures that have no dataset left are omitted too.
    """
    missing = [name for name, state in available.items() if not state["available"]]
    reasons = {name: available[name]["reason"] for name in missing if name in datasets_of(config)}
    studies = {}
    for name, study in config.studies.items():
        if left := [dataset for dataset in study.datasets if dataset not in missing]:
            studies[name] = study.model_copy(update={"datasets": left})
    cuts = config.cuts if config.cuts and config.cuts.dataset not in missing else None
    left = config.model_copy(update={"studies": studies, "cuts": cuts})
    return left.model_copy(update={"figures": _drawable(left)}), reasons


def as_run(config: Configuration) -> tuple[Configuration, dict[str, str], dict[str, list[str]]]:
    """Omit unavailable datasets from a complete configuration if its key `missing_datasets` is `leave_out`.

    `make data` or, if it has not run, the archive `results_from` says which datasets are unavailable. Returns the
    configuration, the reason for each omitted dataset, and the datasets of each study that is omitted for lack of data.
    """
    if config.missing_datasets == "fail":
        return config, {}, {}
    if AVAILABLE.exists():
        available = read([AVAILABLE])
    else:
        available = archive.available(config.results_from) if config.results_from else {}
    left, reasons = without_missing(config, available)
    studies = {name: study.datasets for name, study in config.studies.items() if name not in left.studies}
    return left, reasons, studies


def shipped() -> list[Path]:
    """Configuration files of the full reproduction, in the order in which the workflow reads them."""
    return [ROOT / "config/config.yaml", *sorted((ROOT / "config/studies").glob("*.yaml"))]


def load(overlays: Iterable[str | Path] = ()) -> Configuration:
    """Load the complete configuration of the full reproduction, with the files `overlays` merged over it.

    Raises ConfigurationError for a mistake, ValueError or OSError for a damaged or unreadable card of a dataset.
    """
    return complete(read([*shipped(), *overlays]), [Path("results/data/cards")])


def _lay_over(config: dict, overlay: dict) -> None:
    for key, value in overlay.items():
        if isinstance(value, dict) and isinstance(config.get(key), dict):
            _lay_over(config[key], value)
        else:
            config[key] = value


def _refuse_unnamed(node: object, path: str = "") -> None:
    """Raise ConfigurationError if a key in `node`, at any depth, is no text, such as a number or a boolean.

    `path` is the path of `node` in the configuration; it ends in a dot unless it is empty.
    """
    for key, value in node.items() if isinstance(node, dict) else []:
        if not isinstance(key, str):
            raise ConfigurationError(f"{path}{key}: a name must be text, not a number, true or false; put it in quotes")
        _refuse_unnamed(value, f"{path}{key}.")
