"""Labels of networks, such as `fc-200x2-relu-nobias`, with shapes of weights and counts of parameters and operations.

This module must not import torch, because the workflow loads it.
"""

import difflib
import math
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import pairwise

ACTIVATIONS = ("relu", "leakyrelu", "tanh", "softplus", "sigmoid", "identity")
HOMOGENEOUS = ("relu", "leakyrelu", "identity")
# Form and examples of the labels of each family of networks, for messages; _PATTERNS has the regular expressions.
_FAMILIES = {
    "fc": ("fc-<widths>-<activation>[-nobias][-res][-ln]", "fc-200x2-relu or fc-300-100-tanh-nobias"),
    "conv": ("conv-<channels>x<blocks>-<activation>[-nobias]", "conv-16x5-relu"),
    "lenet5": ("lenet5[-<activation>][-nobias]", "lenet5 or lenet5-tanh"),
}
_KIND = r"-(?P<activation>[a-z]+)(?P<nobias>-nobias)?"
_PATTERNS = {
    "fc": rf"fc-(?P<widths>\d+x\d+|\d+(?:-\d+)*){_KIND}(?P<residual>-res)?(?P<normalised>-ln)?",
    "conv": rf"conv-(?P<channels>\d+)x(?P<blocks>\d+){_KIND}",
    "lenet5": r"lenet5(?:-(?P<activation>(?!nobias)[a-z]+))?(?P<nobias>-nobias)?",
}


@dataclass(frozen=True)
class Network(ABC):
    """Description of a network by its label: architecture, activation, and whether it has biases.

    In all methods, `image` is the shape of one image, and `classes` the number k of classes.
    """

    activation: str
    biases: bool

    @property
    def depth(self) -> int:
        """Number n_L of layers with weights, which does not depend on the image."""
        return len(self.weight_shapes((1, 32, 32), 1))

    @property
    def homogeneous(self) -> bool:
        """True if logits at αθ are α^n_L times the logits at θ, for every θ and every α > 0."""
        return self.activation in HOMOGENEOUS and not self.biases

    @abstractmethod
    def weight_shapes(self, image: tuple[int, ...], classes: int) -> list[tuple[int, ...]]:
        """Shapes of the weights, first layer first: (o, i) if dense, (o, i, size, size) if convolutional."""

    def places(self, image: tuple[int, ...]) -> list[int]:
        """For each layer, the number of positions in an image at which its weights are applied: 1 if it is dense."""
        return [1] * self.depth

    def forward_flops(self, image: tuple[int, ...], classes: int) -> int:
        """Number of floating-point operations in the matrix products of a forward pass of one image."""
        shapes = self.weight_shapes(image, classes)
        return sum(2 * math.prod(shape) * places for shape, places in zip(shapes, self.places(image)))

    def count_parameters(self, image: tuple[int, ...], classes: int) -> int:
        """Number D of parameters: weights, and biases if the network has them."""
        biases = sum(outputs for outputs, *_ in self.weight_shapes(image, classes))
        return self.count_weights(image, classes) + self.biases * biases

    def count_weights(self, image: tuple[int, ...], classes: int) -> int:
        """Number of weights, without biases."""
        return sum(math.prod(shape) for shape in self.weight_shapes(image, classes))


@dataclass(frozen=True)
class FullyConnected(Network):
    """Fully connected network with hidden layers of the given `widths`.

    residual: True if there are residual connections, one around each hidden layer that is as wide as the hidden layer
    before it. normalised: True if layer normalisation precedes each activation.
    """

    widths: tuple[int, ...]
    residual: bool = False
    normalised: bool = False

    @property
    def homogeneous(self) -> bool:
        """True if the activation is homogeneous and there are no biases, residual connections or normalisation."""
        return super().homogeneous and not self.residual and not self.normalised

    def is_residual(self, number: int) -> bool:
        """Return whether hidden layer `number`, counted from 0, has a residual connection.

        The layer then computes a + φ(Wa + b), or a + φ(LN(Wa + b)) if normalised, from its inputs a.
        """
        return self.residual and number > 0 and self.widths[number] == self.widths[number - 1]

    def weight_shapes(self, image: tuple[int, ...], classes: int) -> list[tuple[int, ...]]:
        """Shape (outputs, inputs) of each layer's weights; images of any shape are flattened."""
        return [(n_out, n_in) for n_in, n_out in pairwise((math.prod(image), *self.widths, classes))]


@dataclass(frozen=True)
class Convolutional(Network):
    """Convolutional network: blocks of convolution, max pooling and activation, and then one dense layer.

    Convolutions are 3 × 3. Pooling is 2 × 2 and halves the sides, rounded up.
    """

    channels: int
    blocks: int

    def places(self, image: tuple[int, ...]) -> list[int]:
        """For each block, the number of pixels of its convolution's output; 1 for the dense layer."""
        _, height, width = _as_image(image)
        return [*(-(-height // 2**i) * -(-width // 2**i) for i in range(self.blocks)), 1]

    def weight_shapes(self, image: tuple[int, ...], classes: int) -> list[tuple[int, ...]]:
        """Shape (channels, input channels, 3, 3) of each convolution, and (classes, inputs) of the dense layer."""
        n_in, height, width = _as_image(image)
        shapes: list[tuple[int, ...]] = []
        for _ in range(self.blocks):
            shapes.append((self.channels, n_in, 3, 3))
            n_in, height, width = self.channels, -(-height // 2), -(-width // 2)
        return [*shapes, (classes, n_in * height * width)]


@dataclass(frozen=True)
class LeNet5(Network):
    """LeNet-5: two convolutions, each with activation and average pooling, and then three dense layers.

    The 5 × 5 convolutions have 6 and 16 output channels, and pooling is 2 × 2. The dense layers have 120, 84 and k
    outputs for k classes. Sides of images below 32 pixels are padded symmetrically with zeros, even sides to 32 and odd
    sides to 33 pixels.
    """

    def padding(self, image: tuple[int, ...]) -> tuple[int, int]:
        """Return two numbers: rows of zeros added at the top, and as many at the bottom; columns at left and right."""
        _, height, width = _as_image(image)
        return max(0, (33 - height) // 2), max(0, (33 - width) // 2)

    def places(self, image: tuple[int, ...]) -> list[int]:
        """For each convolution, the number of pixels of its output; 1 for each dense layer."""
        _, *sides = _as_image(image)
        first = [side + 2 * padding - 4 for side, padding in zip(sides, self.padding(image))]
        return [math.prod(first), math.prod(side // 2 - 4 for side in first), 1, 1, 1]

    def weight_shapes(self, image: tuple[int, ...], classes: int) -> list[tuple[int, ...]]:
        """Shapes (outputs, inputs, 5, 5) of two convolutions and (outputs, inputs) of three dense layers."""
        channels, *sides = _as_image(image)
        height, width = (((side + 2 * padding - 4) // 2 - 4) // 2 for side, padding in zip(sides, self.padding(image)))
        return [(6, channels, 5, 5), (16, 6, 5, 5), (120, 16 * height * width), (84, 120), (classes, 84)]


def _as_image(shape: tuple[int, ...]) -> tuple[int, int, int]:
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(
            f"a convolutional network cannot take images of shape {tuple(shape)}: channels, height and width are needed"
        )
    return shape


def parse_network(label: str) -> Network:
    """Parse a network label, such as `fc-300-100-tanh` or `lenet5`. Raises ValueError if the label is invalid."""
    family, match = _matched(label)
    if match is None:
        close = difflib.get_close_matches(label.split("-")[0], _FAMILIES, n=1)
        forms, examples = zip(*(_FAMILIES[each] for each in close or _FAMILIES))
        raise ValueError(
            f"network label {label!r} is unknown: write {' or '.join(forms)}, for example {' or '.join(examples)}"
        )
    activation, biases = match["activation"] or "relu", match["nobias"] is None
    if activation not in ACTIVATIONS:
        close = difflib.get_close_matches(activation, ACTIVATIONS, n=1)
        advice = f"did you mean {close[0]}?" if close else f"use one of {', '.join(ACTIVATIONS)}"
        raise ValueError(f"network label {label!r} names the unknown activation {activation!r}; {advice}")
    if family == "lenet5":
        return LeNet5(activation, biases)
    if family == "conv":
        channels, blocks = int(match["channels"]), int(match["blocks"])
        if not channels or not blocks:
            raise ValueError(f"network label {label!r} has an empty layer: channels and blocks start at 1")
        return Convolutional(activation, biases, channels, blocks)
    widths, *depth = (tuple(map(int, part.split("-"))) for part in match["widths"].split("x"))
    given = {key: match[key] is not None for key in ("residual", "normalised")}
    network = FullyConnected(activation, biases, widths * depth[0][0] if depth else widths, **given)
    if not network.widths or min(network.widths) < 1:
        raise ValueError(f"network label {label!r} has an empty layer: widths and depths start at 1")
    if network.residual and not any(map(network.is_residual, range(len(network.widths)))):
        raise ValueError(f"network label {label!r} has no hidden layer as wide as the one before: leave out -res")
    return network


def _matched(label: str) -> tuple[str, re.Match | None]:
    """Family of a network label (its first part), and its match with the pattern of that family.

    The match is None if the label does not fit the pattern, or if the family is unknown.
    """
    family = label.split("-")[0]
    return family, re.fullmatch(_PATTERNS[family], label) if family in _PATTERNS else None


def is_network(label: str) -> bool:
    """Return whether a name has the form of a network label; the name of a user's own network must not have it."""
    return _matched(label)[1] is not None


def depth(label: str) -> int | None:
    """Number n_L of layers with weights in the network of a `label`; None if the label names a user's own network.

    The label may be followed by a space and the name of trained weights, as in figures (`lenet5 epoch_1`); the name is
    ignored.
    """
    name = label.partition(" ")[0]
    return parse_network(name).depth if is_network(name) else None
