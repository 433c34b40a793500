"""Checks of settings against datasets, networks, labels and one another; each mistake raises ConfigurationError.

In all functions, `path` is the path of a key in the configuration, such as studies.curvature, for the message. `shapes`
maps names of datasets to their shapes, and `networks` maps labels of networks to their descriptions.
"""

import itertools
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NoReturn

from goldilocks_zone.config import kinds, studies
from goldilocks_zone.config.values import ConfigurationError, nearest
from goldilocks_zone.data import planar_shapes, world_shapes
from goldilocks_zone.data.official_shapes import Shape
from goldilocks_zone.figures import registry
from goldilocks_zone.models import labels
from goldilocks_zone.subspaces import labels as subspace_labels

if TYPE_CHECKING:
    from goldilocks_zone.config.models import Configuration, Cuts, Networks, Shapes, Study


def refuse(sentence: str) -> NoReturn:
    """Raise ConfigurationError with the message `sentence`."""
    raise ConfigurationError(sentence)


def refuse_study(path: str, name: str, known: Iterable[str]) -> NoReturn:
    """Raise ConfigurationError with the message that no study is called `name`.

    The message suggests the nearest of the `known` names. `path` is the path of the key that names the study.
    """
    refuse(f"{path}: there is no study {name!r}; {nearest(name, known)}")


def require(condition: object, key: str, value: object, reason: str) -> None:
    """Raise ConfigurationError, with a `reason` why the `value` of `key` is impossible, unless `condition` is true."""
    if not condition:
        refuse(f"{key}: {value} is impossible; {reason}")


def refuse_unused(path: str, study: "Study", reasons: Mapping[str, str]) -> None:
    """Raise ConfigurationError if a `study` sets a key that changes nothing in its kind of study.

    `reasons` maps these keys to the reason. `path` is the path of the study.
    """
    for key, reason in reasons.items():
        varied = "vary." if key in study.vary else ""
        if varied or getattr(study, key) != type(study).model_fields[key].default:
            refuse(f"{path}.{varied}{key}: the key changes nothing here, because {reason}; leave it out")


def refuse_examples(path: str, count: int, validation: int, name: str, shape: Shape) -> None:
    """Raise ConfigurationError if `validation` holds out all training examples, or `count` exceeds those that are left.

    `path` is the path of the section with the keys validation and examples. `name` and `shape` describe the dataset.
    """
    known, left = shape.training_examples, shape.training_examples - validation
    reason = f"it leaves none of the {known} training examples of {name}, so hold out fewer"
    require(left > 0, f"{path}.validation", validation, reason)
    reason = f"{name} has {left} training examples left after validation, so use {left} at most"
    require(count <= left, f"{path}.examples", count, reason)


def refuse_sizes(path: str, study: "Study", shapes: "Shapes", networks: "Networks") -> None:
    """Raise ConfigurationError for more classes than a dataset has, or more dimensions than a network has parameters.

    Every variant of the study is checked, with every dataset in `shapes` and every built-in network in `networks`.
    `path` is the path of the study. Biases count as parameters only in variants with `bias_directions`.
    """
    for variant, (name, shape) in itertools.product(studies.variants(study), shapes.items()):
        each = study.at(variant)
        classes, key = each.classes or shape.classes, "vary.classes" if "classes" in study.vary else "classes"
        reason = f"{name} has {shape.classes} classes, so use {shape.classes} at most"
        require(classes <= shape.classes, f"{path}.{key}", classes, reason)
        for (i, subspace), (label, network) in itertools.product(enumerate(study.subspaces), networks.items()):
            dimension = getattr(subspace_labels.parse_subspace(subspace), "dimension", 0)
            count = (network.count_parameters if each.bias_directions else network.count_weights)(shape.image, classes)
            if dimension > count:
                reason = f"{label} has {count} parameters on {name} (without biases, unless bias_directions is true)"
                refuse(f"{path}.subspaces.{i}: {dimension} dimensions are impossible; {reason}, so use {count} at most")


def refuse_dataset(path: str, name: str, shapes: Mapping[str, Shape | None], study: "Study | None" = None) -> None:
    """Raise ConfigurationError if the dataset `name` is unknown, or drawn anew by jobs where `study` forbids this.

    Datasets of points in the plane and worlds have no file; jobs draw them anew. The study's kind says whether it
    allows this. Without a study, it is forbidden. `path` is the path of the key that names the dataset, and `shapes`
    has all known datasets.
    """
    if name not in shapes:
        advice = "to use one of your own, describe it under datasets, or put it in the folder GOLDILOCKS_DATA"
        refuse(f"{path}: the dataset {name!r} is unknown; {nearest(name, shapes)} ({advice})")
    known = kinds.known().values()
    if planar_shapes.of(name):
        able = [kind.name for kind in known if kind.draws_data]
    elif world_shapes.of(name):
        able = [kind.name for kind in known if kind.draws_worlds]
    else:
        return
    if not (study and study.kind in able):
        given = f"{path}: {name} is drawn anew for each initialisation"
        refuse(f"{given}, which only studies of kind {', '.join(able)} allow; use another dataset")


def check_networks(config: "Configuration") -> None:
    """Raise ConfigurationError for a user's network that has the name of a built-in network, or bad code.

    Code is bad if its file is missing, is not valid Python or does not define the network.
    """
    for name, network in config.networks.items():
        if labels.is_network(name):
            refuse(f"networks.{name}: this name is the label of a built-in network; choose another name")
        try:
            network.code  # noqa: B018
        except ValueError as error:
            refuse(f"networks.{name}: {error}")


def check_names(config: "Configuration", known: list[str]) -> None:
    """Raise ConfigurationError if the configuration's key `only` or `draws_per_job` names an unknown study.

    `only` may name the studies of `config`. `draws_per_job` may name all `known` studies, which include those that a
    later configuration file has set to null.
    """
    for i, name in enumerate(config.only or []):
        if name not in config.studies:
            refuse_study(f"only.{i}", name, config.studies)
    split = config.execution.draws_per_job
    for name in split if isinstance(split, dict) else ():
        if name not in (*known, "others"):
            refuse_study(f"execution.draws_per_job.{name}", name, [*known, "others"])


def check_study(path: str, study: "Study", config: "Configuration", shapes: Mapping[str, Shape | None]) -> "Study":
    """Check a study's datasets, networks and settings; return the study with datasets replaced by their substitutes.

    Raises ConfigurationError for the first mistake. `path` is the path of the study. `shapes` maps known datasets to
    their shapes, or to None if the shape is unknown before the dataset is read. The section `substitutes` of `config`
    names the substitutes.
    """
    for i, dataset in enumerate(study.datasets):
        refuse_dataset(f"{path}.datasets.{i}", dataset, shapes, study)
    datasets = list(dict.fromkeys(config.substitutes.get(each, each) for each in study.datasets))
    study = study.model_copy(update={"datasets": datasets})
    named = [(i, label) for i, label in enumerate(study.networks) if label not in config.networks]
    networks = {label: _parsed(f"{path}.networks.{i}", label) for i, label in named}
    study.check(path, {name: shape for name in datasets if (shape := shapes[name]) is not None}, networks)
    return study


def check_cuts(cuts: "Cuts", shape: Shape | None, own_networks: Iterable[str]) -> None:
    """Check the section `cuts`: the label of its network, and its numbers of examples and directions.

    Raises ConfigurationError if the dataset, of this `shape`, has too few examples or the network too few weights. If
    `shape` is None, no number is checked. For a network in `own_networks`, only the number of examples is checked.
    """
    network = None if cuts.network in own_networks else _parsed("cuts.network", cuts.network)
    if shape is None:
        return
    refuse_examples("cuts", cuts.examples, cuts.validation, cuts.dataset, shape)
    weights = network.count_weights(shape.image, shape.classes) if network else math.inf
    plane = subspace_labels.parse_plane(cuts.subspace)
    if plane.dimension > weights:
        reason = f"{cuts.network} has {weights} weights on {cuts.dataset}, so use {weights} at most"
        refuse(f"cuts.subspace: {plane.dimension} dimensions are impossible; {reason}")


def check_figures(config: "Configuration", given: Mapping, known: Iterable[str]) -> None:
    """Raise ConfigurationError if a figure has nothing to show, names an unknown study, or cannot show a study's radii.

    `given` is the section `figures` as the configuration file has it. Figures there may name `known` studies only. A
    figure may need radii in units of r_X, or scale factors of the initialisation.
    """
    for name, figure in config.figures.items():
        registered = registry.of(name, figure.file)
        if not (figure.studies or registered.result):
            refuse(
                f"figures.{name}: the key studies is missing or empty; name the studies to show, as studies: "
                "[curvature]"
            )
        for i, study in enumerate(figure.studies):
            path = f"figures.{name}.studies.{i}"
            if study not in known and "studies" in (given.get(name) or {}):
                refuse_study(path, study, known)
            if study not in config.studies:
                continue
            chosen = config.studies[study]
            if registered.axis == "scale" and chosen.radius_unit != "init_scale":
                refuse(f"{path}: this figure needs a study with radius_unit: init_scale, unlike {study}; name another")
            if registered.axis == "radius" and not studies.in_units_of_r_x(chosen):
                refuse(
                    f"{path}: this figure needs radii in units of r_X, unlike those of {study}; set its radius_unit: "
                    "r_X"
                )


def _parsed(path: str, label: str) -> labels.Network:
    try:
        return labels.parse_network(label)
    except ValueError as error:
        raise ConfigurationError(f"{path}: {error}") from None
