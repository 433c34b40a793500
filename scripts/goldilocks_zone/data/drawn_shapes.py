"""Shapes of the datasets that have no file because jobs draw them anew. Imports nothing heavy."""

from goldilocks_zone.data import planar_shapes, world_shapes
from goldilocks_zone.data.official_shapes import Shape

NAMES = (*planar_shapes.PLANAR, *world_shapes.WORLDS)  # further names contain numbers, such as pie_4_2


def shape_of(name: str) -> Shape | None:
    """Shape of the dataset `name` if it has points in the plane or observations of a world; None for all others."""
    known = planar_shapes.of(name) or world_shapes.of(name)
    return known.shape if known else None
