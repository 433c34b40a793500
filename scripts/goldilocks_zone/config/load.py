"""The configuration: its defaults, and its validation in one sentence per mistake.

Imports nothing heavy: it runs whenever the workflow loads.
"""

import difflib
import itertools
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import jsonschema
import yaml

from goldilocks_zone.config import studies as config_studies
from goldilocks_zone.data import catalogue, official_shapes
from goldilocks_zone.models import labels, user_code
from goldilocks_zone.paper import latex
from goldilocks_zone.provenance import archive
from goldilocks_zone.subspaces import labels as subspace_labels

# What make data found out of which datasets can be had.
AVAILABLE = Path("results/data/available.yaml")
# Stricter than JSON: 8.0 is no integer, and a number is finite.
_Validator = jsonschema.validators.extend(
    jsonschema.Draft202012Validator,
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine_many(
        {
            "integer": lambda _, value: isinstance(value, int) and not isinstance(value, bool),
            "number": lambda _, value: (
                isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            ),
        }
    ),
)


class ConfigurationError(ValueError):
    """A key has a value that cannot be; the message is one sentence with the key's path."""


def complete(config: dict, schema: dict, cards: Sequence[Path] = ()) -> dict:
    """`config` checked against `schema`, with its defaults filled in and entries set to null left out.

    `cards` are folders of cards of the datasets that have been read. Substitutes stand in the studies' datasets.
    Raises ConfigurationError naming the first key that is unknown, of the wrong type or impossible.
    """
    _refuse_unnamed(config)
    known = list(config["studies"]) if isinstance(config.get("studies"), dict) else []
    config = _filled(_without_nulls(config), schema, schema)
    # A study's kind first: it decides what else is known.
    errors = sorted(
        _Validator(schema).iter_errors(config), key=lambda error: ("kind" not in error.path, list(map(str, error.path)))
    )
    if errors:
        raise ConfigurationError(_sentence(_innermost(errors[0])))
    for i, name in enumerate(config.get("only", [])):
        if name not in config["studies"]:
            _refuse(f"only.{i}", f"there is no study {name!r}", name, config["studies"])
    config["studies"] = {name: x for name, x in config["studies"].items() if name in config.get("only", [name])}
    for name in config["execution"]["draws_per_job"] if isinstance(config["execution"]["draws_per_job"], dict) else ():
        if name not in (*known, "others"):
            _refuse(f"execution.draws_per_job.{name}", f"there is no study {name!r}", name, [*known, "others"])
    shapes = _known_datasets(config, cards)
    for name, entry in config["networks"].items():
        if labels.is_network(name):
            raise ConfigurationError(f"networks.{name}: this name is the label of a network; choose another")
        config["networks"][name] = _parsed(f"networks.{name}", user_code.describe, entry)
    for name, study in config["studies"].items():
        for i, dataset in enumerate(study["datasets"]):
            _check_dataset(f"studies.{name}.datasets.{i}", dataset, shapes)
        study["datasets"] = list(dict.fromkeys(config["substitutes"].get(each, each) for each in study["datasets"]))
        _check_study(f"studies.{name}", study, shapes, config["networks"])
    if "cuts" in config:
        _check_dataset("cuts.dataset", config["cuts"]["dataset"], shapes)
        config["cuts"]["dataset"] = config["substitutes"].get(config["cuts"]["dataset"], config["cuts"]["dataset"])
        _check_cuts(config["cuts"], shapes[config["cuts"]["dataset"]], config["networks"])
    config["figures"] = _figures_of(config, known)
    return config


def _figures_of(config: dict, known: list[str]) -> dict:
    """The figures of which the run has a study, each with its list of them; `known` are those of other runs too."""
    for name, figure in config["figures"].items():
        for i, study in enumerate(figure.get("studies", [])):
            path = f"figures.{name}.studies.{i}"
            if study not in known:
                _refuse(path, f"there is no study {study!r}", study, known)
            if study not in config["studies"]:
                continue
            chosen = config["studies"][study]
            if name in OVER_SCALES and chosen["radius_unit"] != "init_scale":
                raise ConfigurationError(f"{path}: {study} has no radius_unit: init_scale, which this figure needs")
            if name not in OVER_SCALES and not config_studies.in_units_of_r_x(chosen):
                raise ConfigurationError(
                    f"{path}: {study} has radii that are not in units of r_X, which this figure needs"
                )
    return _drawable(config)


def _drawable(config: dict) -> dict:
    """Figures with those of their studies that the configuration has; not those without any, nor cuts without cuts."""
    figures = {}
    for name, figure in config["figures"].items():
        if "studies" not in figure:
            present = [name] if name in config else []
        else:
            present = [study for study in figure["studies"] if study in config["studies"]]
            figure = {**figure, "studies": present}
        if present:
            figures[name] = figure
    return figures


def datasets_of(config: dict) -> set[str]:
    """Names of all datasets that a complete configuration uses."""
    cuts = {config["cuts"]["dataset"]} if "cuts" in config else set()
    return cuts | {name for study in config["studies"].values() for name in study["datasets"]}


def read(paths: list[str | Path]) -> dict:
    """The configuration of several files, each laid over those before it, as Snakemake does."""
    config: dict = {}
    for path in paths:
        _lay_over(config, _read_mapping(Path(path)))
    return config


def _read_mapping(path: Path) -> dict:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read ({error.strerror}): name a file that is there") from None
    except yaml.YAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if getattr(error, "problem_mark", None) else ""
        raise ConfigurationError(f"{path}{line}: {getattr(error, 'problem', None) or 'no YAML'}; correct it") from None
    if not isinstance(content, dict):
        raise ConfigurationError(f"{path} holds no keys with values: write key: value, or delete the file")
    return content


def dump(settings: dict) -> str:
    """Settings as a text that changes only with them."""
    return yaml.safe_dump(settings, allow_unicode=True, sort_keys=True)


def without_missing(config: dict, available: dict) -> tuple[dict, dict[str, str]]:
    """`config` without the datasets that `available` records as not to be had, and a reason for each.

    Studies without a dataset, cuts through the loss of one, and their figures are left out too.
    """
    missing = [name for name, state in available.items() if not state["available"]]
    reasons = {name: available[name]["reason"] for name in missing if name in datasets_of(config)}
    studies = {}
    for name, study in config["studies"].items():
        left = [dataset for dataset in study["datasets"] if dataset not in missing]
        if left:
            studies[name] = {**study, "datasets": left}
    left = {**config, "studies": studies}
    if "cuts" in config and config["cuts"]["dataset"] in missing:
        del left["cuts"]
    return {**left, "figures": _drawable(left)}, reasons


def as_run(config: dict) -> tuple[dict, dict[str, str], dict[str, list[str]]]:
    """Configuration of a run, from a complete one: without the datasets that are unavailable, if they may be left out.

    With it, a reason for each dataset that is left out, and the datasets of each study that is left out with them.
    """
    if config["missing_datasets"] == "fail":
        return config, {}, {}
    left, reasons = without_missing(config, _available(config))
    studies = {name: study["datasets"] for name, study in config["studies"].items() if name not in left["studies"]}
    return left, reasons, studies


def _available(config: dict) -> dict:
    """Which datasets can be had: as make data found here, or else, of results from an archive, where they were made."""
    if AVAILABLE.exists():
        return read([AVAILABLE])
    return archive.available(config["results_from"]) if "results_from" in config else {}


# Figures over the scale of an initialisation; others are over r/r_X.
OVER_SCALES = (
    *("rescaling", "parts", "counterfactuals", "random_gradients", "confidence", "outside", "eigenvectors"),
    "not_homogeneous",
)


def load_schema(root: Path) -> dict:
    """The schema of the checkout `root`."""
    return yaml.safe_load((root / "workflow/schemas/config.schema.yaml").read_text(encoding="utf-8"))


def load(paths: list[str | Path], root: Path) -> dict:
    """The complete configuration of several files, checked by the schema of the checkout `root`.

    Raises ConfigurationError as `complete` does, and OSError.
    """
    return complete(read(paths), load_schema(root), [Path("results/data/cards")])


def _lay_over(config: dict, overlay: dict) -> None:
    for key, value in overlay.items():
        if isinstance(value, dict) and isinstance(config.get(key), dict):
            _lay_over(config[key], value)
        else:
            config[key] = value


def _refuse_unnamed(node: object, path: str = "") -> None:
    """Keys that YAML reads as numbers or truth values cannot be names."""
    for key, value in node.items() if isinstance(node, dict) else []:
        if not isinstance(key, str):
            raise ConfigurationError(f"{path}{key}: a name must be text; put it into quotes")
        _refuse_unnamed(value, f"{path}{key}.")


def _without_nulls(node: object) -> object:
    if isinstance(node, dict):
        return {key: _without_nulls(value) for key, value in node.items() if value is not None}
    return node


def _resolved(entry: dict, root: dict, value: object = None) -> dict:
    """What a schema's entry refers to; of the two that a condition chooses from, the one for `value`."""
    if "if" in entry:
        entry = entry["then" if _Validator(entry["if"]).is_valid(value) else "else"]
    while "$ref" in entry:
        target = root
        for key in entry["$ref"].split("/")[1:]:
            target = target[key]
        entry = target
    return entry


def _filled(value: object, schema: dict, root: dict) -> object:
    """`value` with the schema's defaults where keys are missing."""
    schema = _resolved(schema, root, value)
    if not isinstance(value, dict):
        return value
    known = schema.get("properties", {})
    other = schema.get("additionalProperties", {})
    result = {
        key: _filled(item, known.get(key, other if isinstance(other, dict) else {}), root)
        for key, item in value.items()
    }
    for key, entry in known.items():
        entry = _resolved(entry, root) | entry
        if key not in result and "default" in entry:
            result[key] = _filled(entry["default"], entry, root)
    return result


def _innermost(error: jsonschema.ValidationError) -> jsonschema.ValidationError:
    """The most telling error below an anyOf: the one that got deepest, or that has the right type."""
    while error.context:
        error = max(error.context, key=lambda e: (len(e.path), e.validator != "type"))
    return error


def _sentence(error: jsonschema.ValidationError) -> str:
    path = ".".join(map(str, error.absolute_path)) or "the configuration"
    value = error.instance
    if error.validator == "additionalProperties":
        known = list(error.schema.get("properties", {}))
        unknown = next(key for key in value if key not in known)
        place = ".".join(map(str, [*error.absolute_path, unknown]))
        return f"{place}: this key is unknown; {_nearest(unknown, known)}"
    if error.validator == "required":
        missing = next(key for key in error.validator_value if key not in value)
        return (
            f"{path}: the key {missing} is missing; {error.schema['properties'][missing].get('description', 'add it')}"
        )
    if error.validator in ("enum", "const"):
        valid = error.validator_value if error.validator == "enum" else [error.validator_value]
        return f"{path}: {value!r} is not valid here; {_nearest(value, valid)}"
    if error.validator == "propertyNames" or error.validator == "pattern":
        advice = "that name is taken" if value == "data" else "use lower-case letters, digits and underscores"
        return f"{path}: {value!r} is not valid here; {advice}"
    if error.validator == "type":
        advice = "; YAML takes it for text, write 0.001 or 1.0e-3" if _is_number_as_text(value) else ""
        needed = _types(error.validator_value)
        return f"{path}: {value!r} has the wrong type; a value of type {needed} is needed{advice}"
    limits = {
        "exclusiveMinimum": "must be greater than",
        "minimum": "must be at least",
        "maximum": "must be at most",
    }
    if error.validator in limits:
        return f"{path}: {value!r} is impossible; it {limits[error.validator]} {error.validator_value}"
    if error.validator == "minItems":
        return f"{path}: the list is empty; name at least {error.validator_value}"
    if error.validator == "uniqueItems":
        return f"{path}: {value!r} names something twice; name each once"
    return f"{path}: {error.message}"


def _is_number_as_text(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[-+]?[0-9.]+[eE][-+]?[0-9]+", value) is not None


def _types(given: str | list[str]) -> str:
    return given if isinstance(given, str) else " or ".join(given)


def _nearest(value: object, valid: object) -> str:
    names = [str(name) for name in valid]
    close = difflib.get_close_matches(str(value), names, n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else f"valid are {', '.join(names)}"


def _refuse(path: str, why: str, value: object, valid: object) -> None:
    raise ConfigurationError(f"{path}: {why}; {_nearest(value, valid)}")


def _known_datasets(config: dict, cards: Sequence[Path]) -> dict[str, official_shapes.Shape | None]:
    """Every dataset that a study may name, and its shape where that is known before it is read."""
    for name, entry in config["datasets"].items():
        if name in official_shapes.OFFICIAL:
            raise ConfigurationError(f"datasets.{name}: this name belongs to an official dataset; choose another")
        if unknown := latex.unprintable(entry.get("licence", "")):
            raise ConfigurationError(
                f"datasets.{name}.licence: {unknown[0]!r} cannot be printed in the paper; write it in Latin letters"
            )
    folder = catalogue.data_folder(config.get("data_folder"))
    shapes = catalogue.known_shapes(config["datasets"], folder, cards)
    for name, substitute in config["substitutes"].items():
        for dataset in (name, substitute):
            _check_dataset(f"substitutes.{name}", dataset, shapes)
    return shapes


def _check_dataset(path: str, name: str, shapes: dict) -> None:
    if name not in shapes:
        advice = "one of your own is described under datasets, or lies in the folder GOLDILOCKS_DATA"
        raise ConfigurationError(f"{path}: the dataset {name!r} is unknown; {_nearest(name, shapes)} ({advice})")


def _check_study(path: str, study: dict, shapes: dict, own_networks: dict) -> None:
    """What no schema can say: labels, dimensions against planes and networks, examples and classes against datasets."""
    known = {name: shapes[name] for name in study["datasets"] if shapes[name] is not None}
    networks = {
        label: _parsed(f"{path}.networks.{i}", labels.parse_network, label)
        for i, label in enumerate(study["networks"])
        if label not in own_networks
    }
    given = study["radii"]
    if isinstance(given, dict) and given["last"] <= given["first"]:
        raise ConfigurationError(f"{path}.radii.last: {given['last']} is impossible; it must be greater than first")
    check = _check_training if study["kind"] == config_studies.TRAINING else _check_curvature
    check(path, study, known, networks)


def _check_curvature(
    path: str, study: dict, known: dict[str, official_shapes.Shape], networks: dict[str, labels.Network]
) -> None:
    for name, shape in known.items():
        _check_validation(path, study, name, shape)
        most, available = max(study["examples"]), shape.training_examples - study["validation"]
        if most > available:
            raise ConfigurationError(
                f"{path}.examples: {most} is impossible; {name} has {available} training examples left"
            )
    planes = [
        _parsed(f"{path}.subspaces.{i}", subspace_labels.parse_plane, x) for i, x in enumerate(study["subspaces"])
    ]
    for plane, label in zip(planes, study["subspaces"]):
        if max(study["dimensions"]) > plane.dimension:
            raise ConfigurationError(
                f"{path}.dimensions: {max(study['dimensions'])} is impossible; "
                f"the plane {label} has {plane.dimension} dimensions"
            )
    _check_parts(path, study, networks)
    for variant in config_studies.variants(study):
        _check_variant(path, {**study, **variant}, known, networks, planes)


def _check_validation(path: str, study: dict, name: str, shape: official_shapes.Shape) -> None:
    if study["validation"] >= shape.training_examples:
        raise ConfigurationError(
            f"{path}.validation: {study['validation']} is impossible; it leaves none of the {shape.training_examples} "
            f"training examples of {name}"
        )


def _check_parts(path: str, study: dict, networks: dict[str, labels.Network]) -> None:
    """What some measures ask of networks; of the user's own too little is known."""
    for label in study["networks"]:
        network = networks.get(label)
        if study["counterfactuals"] and not (network and network.homogeneous):
            raise ConfigurationError(
                f"{path}.counterfactuals: {label} is impossible; use a network of relu, leakyrelu or identity without "
                "biases, residual connections and normalisation, whose logits are homogeneous"
            )
        if study["eigenvectors"] and not isinstance(network, labels.FullyConnected):
            raise ConfigurationError(
                f"{path}.eigenvectors: {label} is impossible; use a network fc-…, whose first layer sees whole images"
            )
    if study["counterfactuals"] and "parameters" not in study["vary"].get("rescaled", [study["rescaled"]]):
        raise ConfigurationError(f"{path}.counterfactuals: true is impossible without rescaled: parameters; add it")


def _check_training(
    path: str, study: dict, known: dict[str, official_shapes.Shape], networks: dict[str, labels.Network]
) -> None:
    """Steps against their logging, batches and sets of examples against datasets, subspaces against networks."""
    subspaces = [
        _parsed(f"{path}.subspaces.{i}", subspace_labels.parse_subspace, x) for i, x in enumerate(study["subspaces"])
    ]
    if isinstance(study["logged"], list) and max(study["logged"]) > study["steps"]:
        raise ConfigurationError(
            f"{path}.logged: {max(study['logged'])} is impossible; there are {study['steps']} steps"
        )
    _check_geometry(path, study)
    for i, subspace in enumerate(subspaces):
        if study["curvature_examples"] and getattr(subspace, "kind", "") not in subspace_labels.PLANE_KINDS:
            raise ConfigurationError(
                f"{path}.subspaces.{i}: {study['subspaces'][i]} is impossible; "
                "curvature_examples asks for planes, sparse or dense"
            )
    for variant, (name, shape) in itertools.product(config_studies.variants(study), known.items()):
        _check_trained(path, {**study, **variant}, name, shape, networks, subspaces)


def _check_geometry(path: str, study: dict) -> None:
    """The steps of the geometry of the loss against those logged, and what it takes for granted."""
    for key, known, name in (
        ("geometry_steps", config_studies.logged_steps(study), "logged steps"),
        ("residual_steps", study["geometry_steps"], "geometry_steps"),
    ):
        for step in study[key]:
            if step not in known:
                values = ", ".join(map(str, known)) or "none"
                raise ConfigurationError(f"{path}.{key}: {step} is impossible; choose from the {name}, {values}")
    if study["outputs_examples"] and "classes" in study["vary"]:
        raise ConfigurationError(
            f"{path}.outputs_examples: outputs of several numbers of classes have no common axis; set classes to one"
        )
    if not study["geometry_examples"]:
        if study["geometry_steps"]:
            raise ConfigurationError(f"{path}.geometry_steps: there are no geometry_examples; say how many")
        return
    usual = {"loss": "cross_entropy", "temperature": 1, "temperature_rule": "fixed"}
    for key, value in usual.items():
        if study["vary"].get(key, [study[key]]) != [value]:
            raise ConfigurationError(f"{path}.{key}: the geometry of the loss is measured with {value} alone; use it")


def _check_trained(
    path: str,
    study: dict,
    name: str,
    shape: official_shapes.Shape,
    networks: dict[str, labels.Network],
    subspaces: list[subspace_labels.Plane | subspace_labels.Sphere | subspace_labels.FullSpace],
) -> None:
    _check_validation(path, study, name, shape)
    available = shape.training_examples - study["validation"]
    most = study.get("examples", available)
    asked = {key: (study[key], most) for key in ("curvature_examples", "sharpness_examples")}
    asked["examples"] = (most, available)
    # Two sets are of training, one is held out.
    count = study["geometry_examples"]
    if 2 * count > most or count > study["validation"]:
        raise ConfigurationError(
            f"{path}.geometry_examples: {count} is impossible; twice as many must be trained on, and as many held out "
            f"(validation), of {name}: {most} and {study['validation']} are"
        )
    if study["outputs_examples"] > study["validation"]:
        raise ConfigurationError(
            f"{path}.outputs_examples: {study['outputs_examples']} is impossible; {study['validation']} examples are "
            "held out (validation)"
        )
    if study["batch"] != "all":
        asked["vary.batch" if "batch" in study["vary"] else "batch"] = (study["batch"], most)
    for key, (count, limit) in asked.items():
        if count > limit:
            raise ConfigurationError(f"{path}.{key}: {count} is impossible; {name} has {limit} training examples left")
    for (i, subspace), (label, network) in itertools.product(enumerate(subspaces), networks.items()):
        count = network.count_parameters if study["bias_directions"] else network.count_weights
        if getattr(subspace, "dimension", 0) > count(shape.image, shape.classes):
            raise ConfigurationError(
                f"{path}.subspaces.{i}: {subspace.dimension} dimensions are impossible; "
                f"{label} has {count(shape.image, shape.classes)} parameters on {name}"
            )


def _check_variant(
    path: str,
    study: dict,
    shapes: dict[str, official_shapes.Shape],
    networks: dict[str, labels.Network],
    planes: list[subspace_labels.Plane],
) -> None:
    """Classes against datasets, planes against networks: for a study whose varied keys have one value each."""
    for name, shape in shapes.items():
        classes = study.get("classes", shape.classes)
        if classes > shape.classes:
            place = f"{path}.vary.classes" if "classes" in study["vary"] else f"{path}.classes"
            raise ConfigurationError(f"{place}: {classes} is impossible; {name} has {shape.classes} classes")
        for (i, plane), (label, network) in itertools.product(enumerate(planes), networks.items()):
            count = network.count_parameters if study["bias_directions"] else network.count_weights
            if plane.dimension > count(shape.image, classes):
                raise ConfigurationError(
                    f"{path}.subspaces.{i}: {plane.dimension} dimensions are impossible; "
                    f"{label} has {count(shape.image, classes)} parameters on {name}"
                )


def _check_cuts(cuts: dict, shape: official_shapes.Shape | None, own_networks: dict) -> None:
    """Labels, examples against the dataset, directions against the network."""
    network = None
    if cuts["network"] not in own_networks:
        network = _parsed("cuts.network", labels.parse_network, cuts["network"])
    plane = _parsed("cuts.subspace", subspace_labels.parse_plane, cuts["subspace"])
    if plane.dimension < 2:
        raise ConfigurationError(
            f"cuts.subspace: {cuts['subspace']} has one dimension; the two-dimensional cut needs two or more"
        )
    if shape is None:
        return
    _check_validation("cuts", cuts, cuts["dataset"], shape)
    available = shape.training_examples - cuts["validation"]
    if cuts["examples"] > available:
        raise ConfigurationError(
            f"cuts.examples: {cuts['examples']} is impossible; {cuts['dataset']} has {available} training examples left"
        )
    weights = network.count_weights(shape.image, shape.classes) if network else math.inf
    if plane.dimension > weights:
        raise ConfigurationError(
            f"cuts.subspace: {plane.dimension} dimensions are impossible; "
            f"{cuts['network']} has {weights} weights on {cuts['dataset']}"
        )


def _parsed(path: str, parse: Callable, value: str | dict):
    try:
        return parse(value)
    except ValueError as error:
        raise ConfigurationError(f"{path}: {error}") from None


def documentation(schema: dict) -> str:
    """The schema as Markdown tables, for config/README.md: one for the top level and one per section."""
    sections = {
        "The whole": schema,
        **{name.replace("_", " ").capitalize(): entry for name, entry in schema["$defs"].items()},
    }
    return "\n".join(f"### {title}\n\n{_table(section, schema)}" for title, section in sections.items())


def _table(section: dict, schema: dict) -> str:
    lines = ["| key | values | default | meaning |", "|---|---|---|---|"]
    for key, entry in section["properties"].items():
        if "description" not in entry:
            entry = _resolved(entry, schema)
        if "description" not in entry:
            continue
        default = "(required)" if key in section.get("required", []) else _shown(entry.get("default", {}))
        lines.append(f"| `{key}` | {_values(entry)} | {default} | {entry['description']} |")
    return "\n".join(lines) + "\n"


def _shown(default: object) -> str:
    return "" if default == {} else f"`{yaml.safe_dump(default, default_flow_style=True).splitlines()[0]}`"


def _values(entry: dict) -> str:
    if "enum" in entry:
        return ", ".join(f"`{value}`" for value in entry["enum"])
    if "anyOf" in entry:
        return " or ".join(_values(option) for option in entry["anyOf"])
    if "const" in entry:
        return f"`{entry['const']}`"
    if "$ref" in entry or entry["type"] == "object":
        return "section"
    if entry["type"] == "array":
        return f"list of {_values(entry['items'])}"
    limits = {"exclusiveMinimum": "> ", "minimum": "≥ ", "maximum": "≤ "}
    bounds = [f"{sign}{entry[name]}" for name, sign in limits.items() if name in entry]
    return ", ".join([entry["type"], *bounds])
