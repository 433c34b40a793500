"""Decision boundary of a classifier in its input space: points, length, margins, and entropy of its predictions.

Letters: b points of the boundary, n examples, k classes. Functions that need the classifier take it as `logits`, a
function from inputs (n, …) to logits (n, k). Of the quantities, only the entropy depends on the softmax temperature.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

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
    """Points of the decision boundary, (b, …), and the two classes that meet at each, (b, 2)."""

    points: Tensor
    classes: Tensor


@dataclass(frozen=True)
class Curve:
    """Decision boundary in a box of the plane, as s straight segments with two ends each, (s, 2, 2)."""

    segments: Tensor

    @property
    def length(self) -> float:
        """Length of the boundary; 0 if there is none."""
        return float((self.segments[:, 1] - self.segments[:, 0]).norm(dim=1).sum())

    def distances(self, points: Tensor) -> Tensor:
        """Distances (n,) of points (n, 2) from the boundary; infinite if there is no boundary."""
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
    """Predicted classes (n,) for inputs (n, …): those with the largest of the logits that `logits` computes."""
    with torch.no_grad():
        return torch.cat([logits(some).argmax(1) for some in inputs.split(POINTS_AT_ONCE)])


def between(logits: Logits, first: Tensor, second: Tensor) -> Crossings:
    """Find a boundary point on the segment from each input in `first` (b, …) to the one in `second`, by bisection.

    The predicted classes of the two inputs must differ. At the boundary point, the class of the first input meets
    another one, which need not be the class of the second.
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
    """Find the boundary points on the edges of a grid of `nodes` × `nodes` points, for a classifier of points (x, y).

    `box` holds the ranges of x and y that the grid covers. Points have the precision and device of `like`.
    """
    crossings, _ = _crossed_edges(logits, box, nodes, like)
    return crossings


def curve(logits: Logits, box: Box, nodes: int, like: Tensor) -> Curve:
    """Boundary as segments between its crossings of the edges of a grid; arguments as for `on_grid`.

    A grid cell with two crossings has one segment between them. A cell with more crossings, where several classes meet,
    has a segment from each crossing to their centre.
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
    """Crossings as from `on_grid`, and for each edge of the grid the index of the crossing on it, or −1 if it has none.

    The indices are (nodes − 1, nodes) for edges along x, and (nodes, nodes − 1) for edges along y.
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
    """Find a boundary point between each of at most `count` random pairs of inputs with different predicted classes.

    The pairs are drawn without replacement from the inputs (n, …).
    """
    classes = predicted(logits, inputs).cpu().numpy()
    pairs = np.argwhere(np.triu(classes[:, None] != classes))
    chosen = pairs[np.sort(random.permutation(len(pairs))[:count])]
    return between(logits, inputs[chosen[:, 0]], inputs[chosen[:, 1]])


def linearised_margins(logits: Logits, inputs: Tensor) -> Tensor:
    """Linearised distances (n,) of inputs x (n, …) from the boundary.

    The distance is the minimum of (z_ŷ − z_l)/|∇_x (z_ŷ − z_l)| over classes l ≠ ŷ, where z are the logits and ŷ is the
    predicted class.
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
    """Mean entropy, in nats, of the softmax of logits (n, k) / `temperature`."""
    return float(torch.special.entr(torch.softmax(logits.double() / temperature, 1)).sum(1).mean())


def matched_temperature(logits: Tensor, target: float) -> float:
    """Temperature at which the softmax of logits (n, k) / temperature has the mean entropy `target`, in nats.

    NaN if no temperature between 1/LARGEST and LARGEST gives this entropy. If the logits of each example are equal, the
    entropy does not depend on the temperature, and the result is always NaN.
    """
    if not entropy(logits, 1 / LARGEST) < target < entropy(logits, LARGEST):
        return math.nan
    reach = math.log(LARGEST)
    found = scipy.optimize.brentq(lambda t: entropy(logits, math.exp(t)) - target, -reach, reach, xtol=1e-13)
    return math.exp(found)
