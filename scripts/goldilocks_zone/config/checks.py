"""What no type can say: settings against datasets, networks, labels and one another, in one sentence per mistake."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from goldilocks_zone.config import studies
from goldilocks_zone.config.messages import ConfigurationError, nearest
from goldilocks_zone.data.official_shapes import Shape
from goldilocks_zone.figures import registry
from goldilocks_zone.models import labels
from goldilocks_zone.subspaces import labels as subspace_labels

if TYPE_CHECKING:
    from goldilocks_zone.config.models import Configuration, Cuts, Study


def refuse(sentence: str) -> None:
    """Raise ConfigurationError."""
    raise ConfigurationError(sentence)


def refuse_unknown(path: str, why: str, value: str, known: Iterable[str]) -> None:
    """Refuse a name, and tell the nearest one that is known."""
    refuse(f"{path}: {why}; {nearest(value, known)}")


def refuse_validation(path: str, count: int, name: str, shape: Shape) -> None:
    """Refuse to hold out all training examples of a dataset."""
    if count >= shape.training_examples:
        refuse(
            f"{path}.validation: {count} is impossible; it leaves none of the {shape.training_examples} training "
            f"examples of {name}"
        )


def refuse_examples(path: str, count: int, name: str, shape: Shape, validation: int) -> None:
    """Refuse more training examples than a dataset has beside those held out."""
    available = shape.training_examples - validation
    if count > available:
        refuse(f"{path}: {count} is impossible; {name} has {available} training examples left")


def refuse_dimensions(
    path: str,
    study: "Study",
    subspaces: Sequence[subspace_labels.Plane | subspace_labels.Sphere | subspace_labels.FullSpace],
    name: str,
    shape: Shape,
    classes: int,
    networks: Mapping[str, labels.Network],
) -> None:
    """Refuse subspaces with more dimensions than a network has parameters."""
    for (i, subspace), (label, network) in itertools.product(enumerate(subspaces), networks.items()):
        count = network.count_parameters if study.bias_directions else network.count_weights
        if getattr(subspace, "dimension", 0) > count(shape.image, classes):
            refuse(
                f"{path}.subspaces.{i}: {subspace.dimension} dimensions are impossible; "
                f"{label} has {count(shape.image, classes)} parameters on {name}"
            )


def refuse_dataset(path: str, name: str, shapes: Mapping[str, Shape | None]) -> None:
    """Refuse the name of a dataset that there is none of."""
    if name not in shapes:
        advice = "one of your own is described under datasets, or lies in the folder GOLDILOCKS_DATA"
        refuse(f"{path}: the dataset {name!r} is unknown; {nearest(name, shapes)} ({advice})")


def check_networks(config: "Configuration") -> None:
    """Names and code of the user's own networks."""
    for name, network in config.networks.items():
        if labels.is_network(name):
            refuse(f"networks.{name}: this name is the label of a network; choose another")
        try:
            network.code  # noqa: B018
        except ValueError as error:
            refuse(f"networks.{name}: {error}")


def check_names(config: "Configuration", known: Sequence[str]) -> None:
    """Studies that other keys name; `known` are those of other runs too."""
    for i, name in enumerate(config.only or []):
        if name not in config.studies:
            refuse_unknown(f"only.{i}", f"there is no study {name!r}", name, config.studies)
    split = config.execution.draws_per_job
    for name in split if isinstance(split, dict) else ():
        if name not in (*known, "others"):
            place = f"execution.draws_per_job.{name}"
            refuse_unknown(place, f"there is no study {name!r}", name, [*known, "others"])


def check_study(path: str, study: "Study", shapes: Mapping[str, Shape | None], own_networks: Iterable[str]) -> None:
    """A study's labels of networks, and what its kind checks; its datasets are known by name."""
    networks = {}
    for i, label in enumerate(study.networks):
        if label not in own_networks:
            networks[label] = _parsed(f"{path}.networks.{i}", label)
    known = {name: shapes[name] for name in study.datasets if shapes[name] is not None}
    study.check(path, known, networks)


def check_cuts(cuts: "Cuts", shape: Shape | None, own_networks: Iterable[str]) -> None:
    """The label of a network, examples against the dataset, directions against the network."""
    network = None if cuts.network in own_networks else _parsed("cuts.network", cuts.network)
    if shape is None:
        return
    refuse_validation("cuts", cuts.validation, cuts.dataset, shape)
    refuse_examples("cuts.examples", cuts.examples, cuts.dataset, shape, cuts.validation)
    weights = network.count_weights(shape.image, shape.classes) if network else math.inf
    plane = subspace_labels.parse_plane(cuts.subspace)
    if plane.dimension > weights:
        refuse(
            f"cuts.subspace: {plane.dimension} dimensions are impossible; "
            f"{cuts.network} has {weights} weights on {cuts.dataset}"
        )


def check_figures(config: "Configuration", given: Mapping, known: Iterable[str]) -> None:
    """The studies of figures, and the units of their radii.

    `given` are the figures of the configuration itself, which may name no studies but the `known` ones of any run.
    """
    for name, figure in config.figures.items():
        registered = registry.of(name, figure.file)
        axis = registered.axis
        if not (figure.studies or registered.result):
            refuse(f"figures.{name}: name the studies that this figure shows, as studies: [curvature]")
        for i, study in enumerate(figure.studies):
            path = f"figures.{name}.studies.{i}"
            if study not in known and "studies" in (given.get(name) or {}):
                refuse_unknown(path, f"there is no study {study!r}", study, known)
            if study not in config.studies:
                continue
            chosen = config.studies[study]
            if axis == "scale" and chosen.radius_unit != "init_scale":
                refuse(f"{path}: {study} has no radius_unit: init_scale, which this figure needs")
            if axis == "radius" and not studies.in_units_of_r_x(chosen):
                refuse(f"{path}: {study} has radii that are not in units of r_X, which this figure needs")


def _parsed(path: str, label: str) -> labels.Network:
    try:
        return labels.parse_network(label)
    except ValueError as error:
        raise ConfigurationError(f"{path}: {error}") from None
