"""Names, sizes and bounding boxes of the datasets of points in the plane. Imports nothing heavy."""

import re
from dataclasses import dataclass

from goldilocks_zone.data.official_shapes import Shape

Box = tuple[tuple[float, float], tuple[float, float]]


@dataclass(frozen=True)
class Planar:
    """A dataset of points in the plane: its kind, and its numbers of classes and training examples.

    box: ranges of x and y around its points. sections: number of designed borders (see `planar`), which is the number
    of sectors in a pie and one less than the number of stripes; 0 if the dataset is not designed.
    """

    kind: str
    classes: int
    examples: int
    box: Box
    sections: int = 0

    @property
    def shape(self) -> Shape:
        """Shape of the dataset, with each point as an image of one row and two pixels."""
        return Shape((1, 1, 2), self.classes, self.examples)


WIDE, ROUND, MOONS, TALL = ((-4, 4), (-4, 4)), ((-2, 2), (-2, 2)), ((-1.7, 2.3), (-1.7, 2.3)), ((-3, 3), (-4, 4))
STRIPES = (-2.2, 2.2), (-1, 1)
PLANAR = {
    "gauss": Planar("gauss", 3, 150, WIDE),
    "gauss_published": Planar("gauss_published", 3, 150, WIDE),
    "circle": Planar("circle", 2, 100, ROUND),
    "half_moon": Planar("half_moon", 2, 100, MOONS),
    "half_moon_noisy": Planar("half_moon_noisy", 2, 100, MOONS),
    "hierarchical": Planar("hierarchical", 4, 150, WIDE),
    "checkerboard": Planar("checkerboard", 2, 200, TALL),
    "checkerboard_noisy": Planar("checkerboard_noisy", 2, 200, TALL),
    **{f"gaps_{classes}": Planar("gaps", classes, 200, STRIPES, 4) for classes in range(2, 6)},
    **{f"equal_gaps_{classes}": Planar("equal_gaps", classes, 200, STRIPES, 4) for classes in range(2, 6)},
}


def of(name: str) -> Planar | None:
    """Dataset in the plane with this name; None if there is none.

    Apart from the names in PLANAR, there are pies, such as pie_4_2 with 4 sectors and 2 classes, and stripes, such as
    stripes_3_2 with 3 borders and 2 classes. Classes alternate over sections. There must be as many sections as
    classes, or more. The number of sectors must not be one more than a multiple of the number of classes, because the
    last sector would have the class of the first one, its neighbour.
    """
    if found := re.fullmatch("(pie|stripes)_([1-9])_([2-9])", name):
        kind, sections, classes = found[1], int(found[2]), int(found[3])
        if kind == "pie" and classes <= sections and sections % classes != 1:
            return Planar(kind, classes, 200, ROUND, sections)
        if kind == "stripes" and classes <= sections + 1:
            return Planar(kind, classes, 200, STRIPES, sections)
    return PLANAR.get(name)


def known(name: str) -> Planar:
    """Dataset in the plane with this name, as from `of`, where a check of the configuration has made sure of it."""
    found = of(name)
    assert found is not None, f"{name} is no dataset in the plane"
    return found


def sections(name: str) -> int:
    """Number of designed borders in the dataset `name`; 0 if the dataset is not designed or not in the plane."""
    found = of(name)
    return found.sections if found else 0
