"""Observables: measured variables, each registered once, where it is measured.

From the registration follow the variable's place in a block, its attributes, the row of results/README.md, and how
studies aggregate it, which its attributes say. Imports nothing heavy.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

# Attributes by which an aggregate is made, beside units and long_name; absent where nothing special holds.
OVER_PLANES, MISSING, AGGREGATED, ORDER, LENGTH = "over_planes", "missing", "aggregated", "order", "length"
MEAN_AND_VARIANCE, ALLOWED, LEFT_OUT, LAST, OF_NETWORK = "mean and variance", "allowed", "no", "last", "of the network"


class Shape(NamedTuple):
    """What lengths of axes depend on: a study, its network, its images (channels, height, width) and its classes."""

    study: Any
    module: Any
    image: tuple[int, ...]
    classes: int


@dataclass(frozen=True)
class Axis:
    """An axis of results, with labels that may depend on a study, and its meaning.

    last: stands behind the draws in an aggregate, not among the keys that a study varies; of_network: networks of one
    study may differ in its length.
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


# Blocks have some of a study's draws, and of its radii.
DRAW = Axis("draw", lambda shape: [], "number of the random initialisation")
RADIUS = Axis("radius", lambda shape: [], "radius of the initialisation", "the study's radius unit")


@dataclass(frozen=True)
class Variable:
    """A measured variable: its unit, its meaning and its own axes, behind those of the points of a study.

    plane_variance: an aggregate keeps the variance over planes beside the mean; may_be_missing: an aggregate may lack
    values of it; aggregated: an aggregate has it.
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


@dataclass(frozen=True)
class Observable:
    """Variables that are measured together, of what a measurement yields (a class), where a study has the `key`.

    `measure` gives their values by name.
    """

    of: type
    key: str
    variables: tuple[Variable, ...]
    measure: Callable[[Any], Mapping[str, Any]]

    def wanted(self, study: Any) -> bool:
        """Whether a study asks for it."""
        return not self.key or bool(getattr(study, self.key))


class Observables(list):
    """The observables of a kind of study, and the axes of its `points`, which come first in every variable."""

    def __init__(self, *points: Axis):
        super().__init__()
        self.points = points

    def register(self, of: type, *variables: Variable, key: str = "") -> Callable[[Callable], Callable]:
        """A decorator for a function that measures `variables` of an object of the class `of`."""

        def decorate(measure: Callable) -> Callable:
            self.append(Observable(of, key, variables, measure))
            return measure

        return decorate

    def measure(self, study: Any, seen: Any) -> dict[str, Any]:
        """Values by name of all variables that the study asks for and that are measured of what is `seen`."""
        chosen = [each for each in self if isinstance(seen, each.of) and each.wanted(study)]
        return {name: value for each in chosen for name, value in each.measure(seen).items()}
