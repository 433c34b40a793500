"""World of two rooms: a point moves in the unit square, which a wall with a door divides, in steps of at most .1."""

import functools
import math
from dataclasses import dataclass

import numpy as np

from goldilocks_zone.data import world_shapes
from goldilocks_zone.data.worlds import SINGLE, Arrays
from goldilocks_zone.randomness import stream

WALL, DOOR, LONGEST = 0.5, (0.35, 0.65), 0.1
LEFT, RIGHT = ((0.05, 0.4), (0.05, 0.95)), ((0.6, 0.95), (0.05, 0.95))  # ranges of x and y of starts and goals


@dataclass(frozen=True)
class TwoRooms:
    """World of two rooms: 12 × 12 pixels show the place as a bump, and 24 more show noise, fresh in each frame.

    A place p is a point in the unit square. The bump is exp(−|p − g|²/(2 width²)) at the pixels' centres g. It is
    standardised by its mean and deviation over all pixels and places. Data are random walks that start at uniformly
    random places. Their steps are uniform in the disc of radius .1, and the wall acts on them as `moved` describes.
    States: place (…, 2); nuisance (…, 24), the noise before it is scaled. Variables between frames: step (…, 2), before
    the wall acts on it.

    width: width of the bump, in units of the square's side.
    nuisance: standard deviation of the noise.
    """

    seed: int
    width: float = 0.09
    nuisance: float = 0.5
    name = "two_rooms"

    def drawn(self, random: np.random.Generator, count: int, frames: int) -> tuple[Arrays, Arrays]:
        """Draw `count` random walks of `frames` frames: states (n, t, …), and steps (n, t − 1, 2) between frames."""
        places = np.empty((count, frames, 2), SINGLE)
        places[:, 0] = random.random((count, 2), SINGLE)
        radii = LONGEST * np.sqrt(random.random((count, frames - 1), SINGLE))
        angles = 2 * np.pi * random.random((count, frames - 1), SINGLE)
        steps = np.stack([radii * np.cos(angles), radii * np.sin(angles)], -1).astype(SINGLE)
        noise = random.standard_normal((count, frames, world_shapes.NUISANCE), SINGLE)
        for t in range(1, frames):
            places[:, t] = moved(places[:, t - 1], steps[:, t - 1])
        return {"place": places, "nuisance": noise}, {"step": steps}

    def seen(self, states: Arrays) -> np.ndarray:
        """Observations (…, 168) of states: the pixels of the bump, then those of the noise."""
        places, grid = states["place"], world_shapes.GRID
        mean, deviation = _moments(self.width)
        centres = ((np.arange(grid) + 0.5) / grid).astype(SINGLE)
        along = places[..., None] - centres
        along *= along
        along *= SINGLE(-1 / (2 * self.width**2))
        np.exp(along, out=along)
        along[..., 0, :] /= SINGLE(deviation)
        out = np.empty((*places.shape[:-1], grid**2 + world_shapes.NUISANCE), SINGLE)
        bump = along[..., 0, :, None] * along[..., 1, None, :]
        np.subtract(bump.reshape(*places.shape[:-1], -1), SINGLE(mean / deviation), out=out[..., : grid**2])
        np.multiply(states["nuisance"], SINGLE(self.nuisance), out=out[..., grid**2 :])
        return out

    def features(self, between: Arrays) -> np.ndarray:
        """Features (…, 2) of actions, which are the steps divided by .1, the length of the longest step."""
        return between["step"] / SINGLE(LONGEST)

    def at(self, places: np.ndarray, *purpose: str | int) -> np.ndarray:
        """Observations (…, 168) at given `places` (…, 2), with noise from the random stream that `purpose` names."""
        random = stream(self.seed, "world", self.name, *purpose)
        noise = random.standard_normal((*places.shape[:-1], world_shapes.NUISANCE), SINGLE)
        return self.seen({"place": places.astype(SINGLE), "nuisance": noise})


def moved(places: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Places (…, 2) after `steps` (…, 2) from `places` (…, 2): the exact dynamics, which a planner may use.

    A step longer than .1 is shortened to that length. Each coordinate is clipped to the square. A step that would hit
    the wall outside the door keeps only its component along the wall.
    """
    lengths = np.linalg.norm(steps, axis=-1, keepdims=True)
    ends = np.clip(places + steps * np.minimum(1, LONGEST / np.maximum(lengths, 1e-12)), 0, 1).astype(places.dtype)
    x, y = places[..., 0], places[..., 1]
    crosses = (x < WALL) != (ends[..., 0] < WALL)
    share = np.divide(WALL - x, ends[..., 0] - x, out=np.zeros_like(x), where=crosses)
    height = y + share * (ends[..., 1] - y)
    blocked = crosses & ~((DOOR[0] <= height) & (height <= DOOR[1]))
    ends[..., 0] = np.where(blocked, x, ends[..., 0])
    return ends


def tasks(random: np.random.Generator, count: int, same_room: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Draw `count` uniformly random starts (n, 2) in the left room, and as many goals (n, 2).

    Goals are in the right room or, if `same_room`, in the left one.
    """
    uniform = random.random((2, count, 2))
    boxes = np.array([LEFT, LEFT if same_room else RIGHT])[:, None]
    places = boxes[..., 0] + (boxes[..., 1] - boxes[..., 0]) * uniform
    return places[0], places[1]


@functools.cache
def _moments(width: float) -> tuple[float, float]:
    """Mean and standard deviation of a bump of this `width` over all pixels and uniformly distributed places.

    They are computed from integrals along one axis.
    """

    def integral(centre: float, width: float) -> float:
        reach = math.erf((1 - centre) / (math.sqrt(2) * width)) + math.erf(centre / (math.sqrt(2) * width))
        return width * math.sqrt(math.pi / 2) * reach

    centres = (np.arange(world_shapes.GRID) + 0.5) / world_shapes.GRID
    # A bump is a product of one-dimensional bumps along the axes; its square is a bump of width/√2.
    mean, square = (np.mean([integral(each, w) for each in centres]) ** 2 for w in (width, width / math.sqrt(2)))
    return float(mean), float(math.sqrt(square - mean**2))
