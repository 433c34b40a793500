"""Observables: measured variables, each registered once, where it is measured. Imports nothing heavy.

The registration determines a variable's dimensions and attributes, its row in results/README.md and its aggregation.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

# Attributes that control aggregation, in addition to units and long_name; absent by default.
OVER_PLANES, MISSING, AGGREGATED, ORDER, LENGTH = "over_planes", "missing", "aggregated", "order", "length"
MEAN_AND_VARIANCE, ALLOWED, LEFT_OUT, LAST, OF_NETWORK = "mean and variance", "allowed", "no", "last", "of the network"


class Shape(NamedTuple):
    """Arguments of the function that gives an axis its labels.

    They are a study, its network, the shape (channels, height, width) of its images, and the number of classes.
    """

    study: Any
    module: Any
    image: tuple[int, ...]
    classes: int


class Axis(NamedTuple):
    """An axis of results, whose `labels` are a function of the study's `Shape`.

    last: in aggregates, the axis comes after the draws, not among the varied keys. of_network: the axis has a length
    that depends on the network.
    """

    name: str
    labels: Callable[[Shape], Sequence]
    long_name: str = ""
    units: str = "1"
    last: bool = False
    of_network: bool = False

    @property
    def attributes(self) -> dict[str, str]:
        """Attributes of the coordinate."""
        found = {"units": self.units, "long_name": self.long_name} if self.long_name else {}
        found |= {ORDER: LAST} if self.last else {}
        return found | ({LENGTH: OF_NETWORK} if self.of_network else {})


# Labels come from the block, which holds only some of a study's draws and radii.
DRAW = Axis("draw", lambda shape: [], "number of the random initialisation")
RADIUS = Axis("radius", lambda shape: [], "radius of the initialisation", "the study's radius unit")


class Variable(NamedTuple):
    """A measured variable; its own `axes` follow the axes of points, see `Observables`.

    plane_variance: aggregates also keep the variance over planes; may_be_missing: values may be missing in aggregates;
    aggregated: aggregates contain the variable.
    """

    name: str
    units: str
    long_name: str
    axes: tuple[Axis, ...] = ()
    plane_variance: bool = False
    may_be_missing: bool = False
    aggregated: bool = True

    @property
    def attributes(self) -> dict[str, str]:
        """Attributes of the variable in a block."""
        found = {"units": self.units, "long_name": self.long_name}
        found |= {OVER_PLANES: MEAN_AND_VARIANCE} if self.plane_variance else {}
        found |= {MISSING: ALLOWED} if self.may_be_missing else {}
        return found | ({} if self.aggregated else {AGGREGATED: LEFT_OUT})


class Observable(NamedTuple):
    """Variables, and the function `measure` that computes them, by name, from an object of the class `of`.

    They are measured only in studies that set the key `key`, or in all studies if `key` is empty.
    """

    of: type
    key: str
    variables: tuple[Variable, ...]
    measure: Callable[[Any], Mapping[str, Any]]

    def wanted(self, study: Any) -> bool:
        """Return whether a study has these variables: it sets the key `key`, or `key` is empty."""
        return not self.key or bool(getattr(study, self.key))


class Observables(list):
    """Observables of one kind of study; the axes `points`, such as radius and draw, come first in every variable."""

    def __init__(self, *points: Axis):
        super().__init__()
        self.points = points

    def register(self, of: type, *variables: Variable, key: str = "") -> Callable[[Callable], Callable]:
        """Decorate a function that measures `variables` of an object of the class `of`, in studies that set `key`."""

        def decorate(measure: Callable) -> Callable:
            self.append(Observable(of, key, variables, measure))
            return measure

        return decorate

    def measure(self, study: Any, seen: Any) -> dict[str, Any]:
        """Measure all variables of the study that are defined for an object `seen`; return values by name."""
        chosen = [each for each in self if isinstance(seen, each.of) and each.wanted(study)]
        return {name: value for each in chosen for name, value in each.measure(seen).items()}
