"""Observables: measured variables, with the functions that measure them.

Each module that measures variables registers them, together with the measuring function, in a list `Observables`. This
determines the dimensions and attributes of a variable, its row in results/README.md, and how it is aggregated.
A study may list several values for a key in its section `vary`. Such a key is called varied, and results have a
dimension for it. Aggregates are the datasets that `aggregate` makes of the blocks of a study.
This module imports nothing heavy.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

# Attributes that control aggregation, in addition to units and long_name; absent by default.
OVER_PLANES, MISSING, AGGREGATED, ORDER, LENGTH = "over_planes", "missing", "aggregated", "order", "length"
MEAN_AND_VARIANCE, ALLOWED, LEFT_OUT, LAST, OF_NETWORK = "mean and variance", "allowed", "no", "last", "of the network"


class Shape(NamedTuple):
    """Settings and sizes that determine the labels of axes; the argument of `Axis.labels`.

    study: settings of the study. module: network that the study measures. image: shape (channels, height, width) of the
    inputs. classes: number of classes.
    """

    study: Any
    module: Any
    image: tuple[int, ...]
    classes: int


class Axis(NamedTuple):
    """An axis of results.

    labels: function that maps the `Shape` of a study to the labels along the axis. last: whether the axis comes after
    the draws in aggregates; otherwise it comes before, among the varied keys. of_network: whether the length of the
    axis depends on the network.
    """

    name: str
    labels: Callable[[Shape], Iterable]
    long_name: str = ""
    units: str = "1"
    last: bool = False
    of_network: bool = False

    @property
    def attributes(self) -> dict[str, str]:
        """Attributes of the axis's coordinate: units, long_name, and those that control its aggregation."""
        found = {"units": self.units, "long_name": self.long_name} if self.long_name else {}
        found |= {ORDER: LAST} if self.last else {}
        return found | ({LENGTH: OF_NETWORK} if self.of_network else {})


# Labels come from the block, which holds only some of a study's draws and radii.
DRAW = Axis("draw", lambda shape: [], "number of the random initialisation")
RADIUS = Axis("radius", lambda shape: [], "radius of the initialisation", "the study's radius unit")


class Variable(NamedTuple):
    """A measured variable.

    Its dimensions are the varied keys, then the `points` of the `Observables` that contain it, and then its `axes`.
    plane_variance: whether aggregates also hold the variance over planes. may_be_missing: whether values may be missing
    in aggregates. aggregated: whether aggregates contain the variable.
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
        """Attributes of the variable in a block: units, long_name, and those that control its aggregation."""
        found = {"units": self.units, "long_name": self.long_name}
        found |= {OVER_PLANES: MEAN_AND_VARIANCE} if self.plane_variance else {}
        found |= {MISSING: ALLOWED} if self.may_be_missing else {}
        return found | ({} if self.aggregated else {AGGREGATED: LEFT_OUT})


class Observable(NamedTuple):
    """Variables, and the function that measures them.

    `measure` takes an object of the class `of`, and returns the values of the `variables` by name. The variables are
    measured only in studies that set the key `key`, or in all studies if `key` is empty.
    """

    of: type
    key: str
    variables: tuple[Variable, ...]
    measure: Callable[[Any], Mapping[str, Any]]

    def wanted(self, study: Any) -> bool:
        """True if a study measures these variables, because it sets the key `key` or because `key` is empty."""
        return not self.key or bool(getattr(study, self.key))


class Observables(list):
    """List of the observables of one kind of study, and the axes `points` that all their variables share.

    Such axes are, for example, radius and draw. The dimensions of a variable are the varied keys, then `points`, and
    then the axes of this variable alone.
    """

    def __init__(self, *points: Axis):
        super().__init__()
        self.points = points

    def register(self, of: type, *variables: Variable, key: str = "") -> Callable[[Callable], Callable]:
        """Return a decorator that registers a function as the one that measures these `variables`.

        The function takes an object of the class `of`, and returns the values of the variables by name. If a `key` is
        given, the function is called only in studies that set this key.
        """

        def decorate(measure: Callable) -> Callable:
            self.append(Observable(of, key, variables, measure))
            return measure

        return decorate

    def measure(self, study: Any, seen: Any) -> dict[str, Any]:
        """Measure the object `seen` with all functions that are registered for its class and wanted by the `study`.

        Returns the values of all their variables by name.
        """
        chosen = [each for each in self if isinstance(seen, each.of) and each.wanted(study)]
        return {name: value for each in chosen for name, value in each.measure(seen).items()}
