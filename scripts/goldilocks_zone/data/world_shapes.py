"""Names and sizes of the worlds from which studies of joint embeddings draw data anew. Imports nothing heavy."""

import re
from dataclasses import dataclass

from goldilocks_zone.data.official_shapes import Shape

RING, RINGS, DETAIL = 24, 12, 8  # pixels of a ring in ring world, pixels of one of m rings, dimension of the detail
GRID, NUISANCE = 12, 24  # pixels along a side of two rooms, and pixels without a meaning
PAIRS = 20  # dimensions of Gaussian pairs
SIDE = 14  # pixels along a side of an image or a pane
IMAGES = {"panes": 2, "shift_1": 1, "shift_2": 1, "noise": 1}  # number of panes by kind of views


@dataclass(frozen=True)
class WorldShape:
    """Sizes of a world: dimension of an observation (a frame), and number of features of an action between frames."""

    observation: int
    action: int = 0

    @property
    def shape(self) -> Shape:
        """Shape of the observations as a dataset of images with one row and a single class.

        The number of examples is 2³¹, which stands for no limit.
        """
        return Shape((1, 1, self.observation), 1, 2**31)


WORLDS = {
    "ring": WorldShape(3 * RING, 2),
    "two_rooms": WorldShape(GRID**2 + NUISANCE, 2),
    "gaussian_pairs": WorldShape(PAIRS),
}


def of(name: str) -> WorldShape | None:
    """Sizes of the world ring, two_rooms, gaussian_pairs or rings_<m> (m from 1 to 16); None for any other name."""
    if found := re.fullmatch("rings_([1-9]|1[0-6])", name):
        return WorldShape(RINGS * int(found[1]))
    return WORLDS.get(name)


def known(name: str) -> WorldShape:
    """Sizes of the world with this name, as from `of`, where a check of the configuration has made sure of it."""
    found = of(name)
    assert found is not None, f"{name} is no world"
    return found


def of_views(views: str) -> WorldShape:
    """Sizes of an `ImageWorld` with this kind of `views`: panes, shift_1, shift_2 or noise."""
    return WorldShape(IMAGES[views] * SIDE**2)
