"""The decision boundary of a classifier among its inputs: points, length, margins, and the confidence around it.

Letters: b points of the boundary, n examples, k classes. Only the confidence depends on the temperature.
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
LARGEST = 1e12  # largest temperature; its inverse is the smallest


@dataclass(frozen=True)
class Crossings:
    """Points of the boundary (b, …), and the two classes (b, 2) that meet there."""

    points: Tensor
    classes: Tensor


@dataclass(frozen=True)
class Curve:
    """The boundary in a box of the plane: the two ends of each of s segments, (s, 2, 2)."""

    segments: Tensor

    @property
    def length(self) -> float:
        """Length of the boundary; 0 where there is none."""
        return float((self.segments[:, 1] - self.segments[:, 0]).norm(dim=1).sum())

    def distances(self, points: Tensor) -> Tensor:
        """Distances (n,) of points (n, 2) from the boundary; infinite where there is none."""
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
    """Classes (n,) of the largest logit for inputs (n, …)."""
    with torch.no_grad():
        return torch.cat([logits(some).argmax(1) for some in inputs.split(POINTS_AT_ONCE)])


def between(logits: Logits, first: Tensor, second: Tensor) -> Crossings:
    """Find the boundary between pairs of inputs (b, …) of different predicted classes by bisection."""
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
    """Find the boundary on the edges of a grid of nodes × nodes points over a `box`, the ranges of x and y.

    Points have the precision and device of `like`.
    """
    crossings, _ = _crossed_edges(logits, box, nodes, like)
    return crossings


def curve(logits: Logits, box: Box, nodes: int, like: Tensor) -> Curve:
    """The boundary as segments, one in each grid cell whose edges it crosses twice.

    A cell with more crossings, where several classes meet, has a segment from each crossing to their centre.
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
    """Crossings, and the index of each edge's crossing, −1 for none: (nodes − 1, nodes) along x, transposed along y."""
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
    """The boundary between at most `count` random pairs of the inputs (n, …) with different predicted classes."""
    classes = predicted(logits, inputs).cpu().numpy()
    pairs = np.argwhere(np.triu(classes[:, None] != classes))
    chosen = pairs[np.sort(random.permutation(len(pairs))[:count])]
    return between(logits, inputs[chosen[:, 0]], inputs[chosen[:, 1]])


def linearised_margins(logits: Logits, inputs: Tensor) -> Tensor:
    """Margins (n,) of inputs (n, …): min over l ≠ ŷ of (z_ŷ − z_l)/|∇_x (z_ŷ − z_l)|, with ŷ the predicted class."""
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
    """Mean entropy, in nats, of the softmax of logits (n, k) over a temperature."""
    return float(torch.special.entr(torch.softmax(logits.double() / temperature, 1)).sum(1).mean())


def matched_temperature(logits: Tensor, target: float) -> float:
    """Temperature at which the softmax of logits (n, k) has the mean entropy `target`, in nats.

    NaN if none exists: `target` is outside the range of the entropies, which is a single value for equal logits.
    """
    if not entropy(logits, 1 / LARGEST) < target < entropy(logits, LARGEST):
        return math.nan
    reach = math.log(LARGEST)
    found = scipy.optimize.brentq(lambda t: entropy(logits, math.exp(t)) - target, -reach, reach, xtol=1e-13)
    return math.exp(found)
