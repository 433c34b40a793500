"""Decision boundary of a classifier in its input space: points, length, margins, and entropy of its predictions.

Letters: b points of the boundary, n examples, k classes. Functions that need the classifier take it as `logits`, a
function from inputs (n, …) to logits (n, k). Entropy depends on the temperature of the softmax; points, length and
margins do not.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.optimize
import torch
from torch import Tensor

Logits = Callable[[Tensor], Tensor]
Box = tuple[tuple[float, float], tuple[float, float]]
POINTS_AT_ONCE = 20_000
BISECTIONS = 40
LARGEST = 1e12  # largest temperature that is tried; its inverse is the smallest


@dataclass(frozen=True)
class Crossings:
    """Points of the decision boundary, `points` (b, …), and the two classes that meet at each, `classes` (b, 2)."""

    points: Tensor
    classes: Tensor


@dataclass(frozen=True)
class Curve:
    """Decision boundary in a rectangle of the plane, as s straight segments.

    `segments` (s, 2, 2) holds the coordinates x and y (last axis) of both ends (middle axis) of each segment.
    """

    segments: Tensor

    @property
    def length(self) -> float:
        """Total length of all segments; 0 if there is no boundary."""
        return float((self.segments[:, 1] - self.segments[:, 0]).norm(dim=1).sum())

    def distances(self, points: Tensor) -> Tensor:
        """Distances (n,) of `points` (n, 2) from the nearest segment; infinite if there is no boundary."""
        found = points.new_full((len(points),), math.inf)
        for ends in self.segments.split(1000):
            start, along = ends[:, 0], ends[:, 1] - ends[:, 0]
            apart = points[:, None] - start
            squares = along.square().sum(1)
            shares = torch.where(squares > 0, (apart * along).sum(2) / squares, 0).clamp(0, 1)
            distances = (apart - shares[..., None] * along).norm(dim=2)
            found = torch.cat([found[:, None], distances], 1).amin(1)
        return found


def predicted(logits: Logits, inputs: Tensor) -> Tensor:
    """Predicted class (n,) of each of the `inputs` (n, …): the class with the largest logit."""
    with torch.no_grad():
        return torch.cat([logits(some).argmax(1) for some in inputs.split(POINTS_AT_ONCE)])


def between(logits: Logits, first: Tensor, second: Tensor) -> Crossings:
    """Find a boundary point between each input in `first` (b, …) and the corresponding one in `second`, by bisection.

    The point lies on the straight segment between the two inputs, whose predicted classes must differ. The two classes
    returned for it are the class of the first input, and the class just beyond the point. The latter need not be the
    class of the second input.
    """
    inside, outside, own = first, second, predicted(logits, first)
    other = predicted(logits, second)
    for _ in range(BISECTIONS):
        middle = (inside + outside) / 2
        found = predicted(logits, middle)
        same = found == own
        there = same.view(-1, *(1,) * (middle.ndim - 1))
        inside, outside = torch.where(there, middle, inside), torch.where(there, outside, middle)
        other = torch.where(same, other, found)
    return Crossings((inside + outside) / 2, torch.stack([own, other], 1))


def on_grid(logits: Logits, box: Box, nodes: int, like: Tensor) -> Crossings:
    """Find where the boundary of a classifier of points (x, y) crosses the edges of a grid of `nodes` × `nodes` points.

    `box` holds the ranges of x and y that the grid covers. An edge joins two neighbouring points of the grid. It has a
    crossing if the predicted classes of its two ends differ. Precision and device are those of `like`.
    """
    crossings, _ = _crossed_edges(logits, box, nodes, like)
    return crossings


def curve(logits: Logits, box: Box, nodes: int, like: Tensor) -> Curve:
    """Approximate the boundary by straight segments between its crossings with the edges of a grid.

    The crossings are those that `on_grid` finds. A grid cell with two crossings has one segment, which joins them. A
    cell with more crossings, where several classes meet, has one segment from each crossing to the mean of the cell's
    crossings. Arguments are as for `on_grid`.
    """
    crossings, edges = _crossed_edges(logits, box, nodes, like)
    horizontal, vertical = edges
    around = torch.stack([horizontal[:, :-1], horizontal[:, 1:], vertical[:-1], vertical[1:]], -1).flatten(0, 1)
    counts = (around >= 0).sum(1)
    twice = around[counts == 2]
    pairs = crossings.points[twice[twice >= 0].view(-1, 2)]
    often = around[counts > 2]
    there = often >= 0
    ends = crossings.points[often.clamp_min(0)] * there[..., None]
    centres = ends.sum(1, keepdim=True) / there.sum(1)[:, None, None]
    spokes = torch.stack([ends, centres.expand_as(ends)], 2)[there]
    return Curve(torch.cat([pairs, spokes]))


def _crossed_edges(logits: Logits, box: Box, nodes: int, like: Tensor) -> tuple[Crossings, tuple[Tensor, Tensor]]:
    """Crossings as from `on_grid`, and the index of the crossing on each edge of the grid, −1 where there is none.

    The indices are two integer tensors: (nodes − 1, nodes) for edges along x, (nodes, nodes − 1) for edges along y.
    """
    axes = [torch.linspace(*ends, nodes, dtype=like.dtype, device=like.device) for ends in box]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)
    classes = predicted(logits, grid.flatten(0, 1)).view(nodes, nodes)
    ends = [(grid[:-1], grid[1:]), (grid[:, :-1], grid[:, 1:])]
    crossed = [classes[:-1] != classes[1:], classes[:, :-1] != classes[:, 1:]]
    found = between(logits, *(torch.cat([pair[i][at] for pair, at in zip(ends, crossed)]) for i in (0, 1)))
    numbers, count = [], 0
    for at in crossed:
        number = torch.full(at.shape, -1, device=like.device)
        number[at] = torch.arange(count, count + int(at.sum()), device=like.device)
        numbers.append(number)
        count += int(at.sum())
    return found, tuple(numbers)


def between_pairs(logits: Logits, inputs: Tensor, count: int, random: np.random.Generator) -> Crossings:
    """Draw random pairs of inputs with different predicted classes, and find a boundary point between each two.

    At most `count` pairs are drawn, without replacement, from all such pairs of the `inputs` (n, …). The function
    `between` finds the points.
    """
    classes = predicted(logits, inputs).cpu().numpy()
    pairs = np.argwhere(np.triu(classes[:, None] != classes))
    chosen = pairs[np.sort(random.permutation(len(pairs))[:count])]
    return between(logits, inputs[chosen[:, 0]], inputs[chosen[:, 1]])


def linearised_margins(logits: Logits, inputs: Tensor) -> Tensor:
    """Linearised distances (n,) of `inputs` x (n, …) from the boundary.

    The distance is the minimum of (z_ŷ − z_l)/|∇_x (z_ŷ − z_l)| over classes l ≠ ŷ, where z are the logits and ŷ is the
    predicted class. A class l counts as infinitely far if this gradient is zero.
    """
    inputs = inputs.detach().requires_grad_()
    outputs = logits(inputs)
    slopes = [torch.autograd.grad(z.sum(), inputs, retain_graph=True)[0].flatten(1) for z in outputs.T]
    slopes, own = torch.stack(slopes, 1), outputs.argmax(1)
    rows = torch.arange(len(inputs), device=inputs.device)
    apart = outputs[rows, own][:, None] - outputs.detach()
    steepness = (slopes[rows, own][:, None] - slopes).norm(dim=2)
    ratios = torch.where(steepness > 0, apart.detach() / steepness, math.inf)
    return ratios.scatter(1, own[:, None], math.inf).amin(1)


def entropy(logits: Tensor, temperature: float = 1.0) -> float:
    """Entropy of the softmax of `logits` (n, k) divided by `temperature`, in nats, averaged over the n examples."""
    return float(torch.special.entr(torch.softmax(logits.double() / temperature, 1)).sum(1).mean())


def matched_temperature(logits: Tensor, target: float) -> float:
    """Temperature at which the mean `entropy` of `logits` (n, k) equals `target`, in nats.

    The result is NaN if no temperature between 1/LARGEST and LARGEST gives this entropy. It is always NaN if all k
    logits of an example are equal, for every example, because the entropy then does not depend on the temperature.
    """
    if not entropy(logits, 1 / LARGEST) < target < entropy(logits, LARGEST):
        return math.nan
    reach = math.log(LARGEST)
    found: Any = scipy.optimize.brentq(lambda t: entropy(logits, math.exp(t)) - target, -reach, reach, xtol=1e-13)
    return math.exp(found)
