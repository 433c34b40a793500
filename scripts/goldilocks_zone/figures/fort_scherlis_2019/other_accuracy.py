"""Accuracy over the radius on other data, on planes and on spheres."""

import math

from goldilocks_zone.figures import over_radius
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies

FIGURE = {"id": "other_accuracy", "studies": ["other_data"], "axis": "radius"}


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    (study,) = studies.values()
    cells = over_radius.titled_cells(study, named=True)
    return over_radius.draw_cells(cells, settings, math.ceil(math.sqrt(len(cells))), room=1.12)
