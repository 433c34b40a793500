"""Datasets of points in the plane, drawn anew for each initialisation: from Sabanayagam et al. (2023), or designed.

A designed dataset consists of sections, which are parallel stripes or the sectors of a pie. Neighbouring sections
belong to different classes, so that the borders between classes are known. Points are (n, 2), labels (n,). Random
streams are named by seed, dataset, purpose and draw, the number of an initialisation.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from goldilocks_zone.data import planar_shapes
from goldilocks_zone.randomness import stream

Points = tuple[np.ndarray, np.ndarray]
RING, FREE = (1.0, 1.5), 0.15  # inner and outer radius of a pie, and the angle without points on each side of a border
REACH, HEIGHT, GAP = 2.0, 0.3, 0.3  # stripes: half their total width, standard deviation of y, gap between two
GAPS = 0.1, 0.2, 0.35, 0.55


@dataclass(frozen=True)
class Borders:
    """Designed borders between the sections of a dataset, in ascending order.

    places: positions of the borders, which are x between stripes and angles in radians in a pie. gaps: widths of the
    gaps around the borders, in the same units. Gaps contain no points.
    """

    places: np.ndarray
    gaps: np.ndarray


def borders(name: str, seed: int, draw: int) -> Borders | None:
    """Designed borders of the dataset `name`; None if the dataset is not designed.

    `seed` and the number `draw` name the random stream that orders the gaps between stripes.
    """
    known = planar_shapes.known(name)
    if not known.sections:
        return None
    if known.kind == "pie":
        return Borders(2 * np.pi * np.arange(known.sections) / known.sections, np.full(known.sections, 2 * FREE))
    widths = GAPS if known.kind == "gaps" else [GAP] * known.sections
    gaps = stream(seed, "borders", name, draw).permutation(widths)
    # Stripes of equal width fill the rest of [−2, 2].
    width = (2 * REACH - gaps.sum()) / (len(gaps) + 1)
    return Borders(-REACH + width * np.arange(1, len(gaps) + 1) + np.cumsum(gaps) - gaps / 2, gaps)


def drawn(name: str, seed: int, purpose: str, draw: int, count: int | None = None) -> Points:
    """Draw `count` points (n, 2) of the dataset `name` and their labels (n,); by default, as many as for training.

    `seed`, `purpose`, such as training, and the number `draw` name the random streams. Designed borders are the same
    for all purposes of a draw. In a designed dataset, a point is equally likely to fall into each of the sections. In
    other datasets, class counts differ by at most one, except in the published points of `gauss`.
    """
    known = planar_shapes.known(name)
    count = count or known.examples
    counts = np.full(known.classes, count // known.classes)
    counts[: count % known.classes] += 1
    points, labels = SAMPLERS[known.kind](counts, stream(seed, purpose, name, draw), borders(name, seed, draw))
    order = stream(seed, "order", purpose, name, draw).permutation(count)
    return points[order], labels[order]


def published_gauss() -> Points:
    """The 150 points (n, 2) and labels (n,) of `gauss` in the published code, reproduced exactly.

    That code draws 300 points with numpy's RandomState(42), point by point and class by class. It keeps the first 150
    in the order of torch's randperm with the seed 42. Both generators are Mersenne twisters.
    """
    random = np.random.RandomState(42)
    points = [random.normal(mean, deviation) for mean, deviation in GAUSS for _ in range(100)]
    labels = np.repeat(np.arange(len(GAUSS)), 100)
    # As its next entry, torch's randperm takes number raw % length of those that are left.
    raw, order = np.random.RandomState(42)._bit_generator.random_raw(len(labels)), np.arange(len(labels))
    for i, number in enumerate(raw):
        other = i + int(number) % (len(order) - i)
        order[[i, other]] = order[[other, i]]
    return np.array(points)[order[:150]], labels[order[:150]]


def _blobs(centres, counts: np.ndarray, random: np.random.Generator, borders: Borders | None) -> Points:
    """Draw points (n, 2) from Gaussian blobs, and their labels (n,); `counts` has the number of points of each class.

    `centres` lists (mean, deviation) of each blob, both pairs of numbers for x and y. Blobs are listed class by class,
    equally many for each class. A point is equally likely to come from each blob of its class. `borders` is not used;
    all samplers have this argument.
    """
    labels = np.repeat(np.arange(len(counts)), counts)
    of_class = len(centres) // len(counts)
    number = labels * of_class + (random.integers(0, of_class, len(labels)) if of_class > 1 else 0)
    means, deviations = (np.array(each)[number] for each in zip(*centres))
    return means + deviations * random.standard_normal((len(labels), 2)), labels


def _around(
    curve: Callable, noise: float, counts: np.ndarray, random: np.random.Generator, borders: Borders | None
) -> Points:
    """Draw points (n, 2) near the curve of each class, and their labels (n,); `counts` has the points of each class.

    `curve` maps parameters (n,), drawn uniformly from [0, 1], and labels (n,) to points on the curves. Gaussian noise
    with the standard deviation `noise` is added. `borders` is not used; all samplers have this argument.
    """
    labels = np.repeat(np.arange(len(counts)), counts)
    points = curve(random.random(len(labels)), labels)
    return points + noise * random.standard_normal(points.shape), labels


def _circles(t: np.ndarray, labels: np.ndarray) -> np.ndarray:
    radii = np.where(labels == 0, 1.0, 0.5)
    return radii[:, None] * np.stack([np.cos(2 * np.pi * t), np.sin(2 * np.pi * t)], 1)


def _moons(t: np.ndarray, labels: np.ndarray) -> np.ndarray:
    x, y = np.cos(np.pi * t), np.sin(np.pi * t)
    return np.where(labels[:, None] == 0, np.stack([x, y], 1), np.stack([1 - x, 0.5 - y], 1))


def _noisy(centres, counts: np.ndarray, random: np.random.Generator, borders: Borders | None) -> Points:
    """Draw points and labels as `_blobs` does, and add noise to both coordinates, uniform in [−0.5, 0.5]."""
    points, labels = _blobs(centres, counts, random, borders)
    return points + random.uniform(-0.5, 0.5, points.shape), labels


def _published(counts: np.ndarray, random: np.random.Generator, borders: Borders | None) -> Points:
    """Points and labels of `published_gauss` if `counts` add up to 150; otherwise new ones from the same Gaussians."""
    return published_gauss() if counts.sum() == 150 else _blobs(GAUSS, counts, random, borders)


def _pie(counts: np.ndarray, random: np.random.Generator, borders: Borders) -> Points:
    sections = len(borders.places)
    number = random.integers(0, sections, counts.sum())
    width = 2 * np.pi / sections - borders.gaps[0]
    angles = borders.places[number] + borders.gaps[0] / 2 + width * random.random(len(number))
    radii = random.uniform(*RING, len(number))
    return radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1), number % len(counts)


def _in_stripes(counts: np.ndarray, random: np.random.Generator, borders: Borders) -> Points:
    starts = np.concatenate([[-REACH], borders.places + borders.gaps / 2])
    ends = np.concatenate([borders.places - borders.gaps / 2, [REACH]])
    number = random.integers(0, len(starts), counts.sum())
    x = starts[number] + (ends - starts)[number] * random.random(len(number))
    return np.stack([x, HEIGHT * random.standard_normal(len(number))], 1), number % len(counts)


GAUSS = [((2, -1), (0.5, 0.5)), ((-2, 0), (0.5, 1)), ((0, 2), (0.5, 0.5))]
HIERARCHICAL = [((x, y), (0.5, 0.55)) for x in (-2, 2) for y in (-1, 1)]
CHECKERBOARD = [((x, y), (0.3, 0.1)) for x, y in ((0.8, -3), (0.8, 1), (-0.8, -1), (-0.8, 3))]
SAMPLERS: dict[str, Callable[[np.ndarray, np.random.Generator, Any], Points]] = {  # Any: Borders, or None without any
    "gauss": functools.partial(_blobs, GAUSS),
    "gauss_published": _published,
    "circle": functools.partial(_around, _circles, 0.1),
    "half_moon": functools.partial(_around, _moons, 0.1),
    "half_moon_noisy": functools.partial(_around, _moons, 0.2),
    "hierarchical": functools.partial(_blobs, HIERARCHICAL),
    "checkerboard": functools.partial(_blobs, CHECKERBOARD),
    "checkerboard_noisy": functools.partial(_noisy, CHECKERBOARD),
    "pie": _pie,
    **dict.fromkeys(("stripes", "gaps", "equal_gaps"), _in_stripes),
}
