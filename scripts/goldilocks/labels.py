"""The small grammar of labels: networks (`fc-200x2-relu-nobias`) and subspaces (`plane-100-sparse`).

Free of torch, so that a workflow can check labels and count parameters while it loads.
"""

import difflib
import re
from dataclasses import dataclass
from itertools import pairwise

ACTIVATIONS = ("relu", "leakyrelu", "tanh", "softplus", "identity")
PLANE_KINDS = ("sparse", "dense")

_NETWORK = re.compile(r"fc-(?P<widths>\d+x\d+|\d+(?:-\d+)*)-(?P<activation>[a-z]+)(?P<nobias>-nobias)?")
_SUBSPACE = re.compile(r"plane-(?P<dimension>\d+)-(?P<kind>[a-z]+)")


@dataclass(frozen=True)
class Network:
    """A fully connected network: widths of its hidden layers, activation, biases or none."""

    widths: tuple[int, ...]
    activation: str
    biases: bool

    def layer_shapes(self, inputs: int, classes: int) -> list[tuple[int, int]]:
        """(outputs, inputs) of each weight matrix, first layer first."""
        sizes = (inputs, *self.widths, classes)
        return [(n_out, n_in) for n_in, n_out in pairwise(sizes)]

    def count_parameters(self, inputs: int, classes: int) -> int:
        """D: weights, and biases where the network has them."""
        return sum(n_out * (n_in + self.biases) for n_out, n_in in self.layer_shapes(inputs, classes))

    def count_weights(self, inputs: int, classes: int) -> int:
        """Number of weights, biases left out."""
        return sum(n_out * n_in for n_out, n_in in self.layer_shapes(inputs, classes))


@dataclass(frozen=True)
class Plane:
    """A random hyperplane: number of directions and how its columns are drawn."""

    dimension: int
    kind: str


def parse_network(label: str) -> Network:
    """Read `fc-<widths>-<activation>[-nobias]`, widths as `200x2` or `300-100`.

    Raises ValueError in one sentence if the label is not of that form.
    """
    match = _NETWORK.fullmatch(label)
    if not match:
        raise ValueError(
            f"network label {label!r} is unknown: write fc-<widths>-<activation>[-nobias], "
            "for example fc-200x2-relu or fc-300-100-tanh-nobias"
        )
    if match["activation"] not in ACTIVATIONS:
        close = difflib.get_close_matches(match["activation"], ACTIVATIONS, n=1)
        advice = f"did you mean {close[0]}?" if close else f"use one of {', '.join(ACTIVATIONS)}"
        raise ValueError(f"network label {label!r} names the unknown activation {match['activation']!r}; {advice}")
    if "x" in match["widths"]:
        width, depth = map(int, match["widths"].split("x"))
        widths = (width,) * depth
    else:
        widths = tuple(map(int, match["widths"].split("-")))
    if not widths or min(widths) < 1:
        raise ValueError(f"network label {label!r} has an empty layer: widths and depths start at 1")
    return Network(widths, match["activation"], biases=match["nobias"] is None)


def depth(label: str) -> int | None:
    """Number of weight layers n_L of a network label; None for a network of the user's own."""
    return len(parse_network(label).widths) + 1 if _NETWORK.fullmatch(label) else None


def parse_subspace(label: str) -> Plane:
    """Read `plane-<dimension>-<sparse|dense>`.

    Raises ValueError in one sentence if the label is not of that form.
    """
    match = _SUBSPACE.fullmatch(label)
    if not match or match["kind"] not in PLANE_KINDS or int(match["dimension"]) < 1:
        raise ValueError(
            f"subspace label {label!r} is unknown: write plane-<dimension>-sparse or plane-<dimension>-dense, "
            "for example plane-100-sparse"
        )
    return Plane(int(match["dimension"]), match["kind"])
