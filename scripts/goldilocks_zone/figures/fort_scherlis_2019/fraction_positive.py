"""The fraction of positive eigenvalues over the radius (Fort & Scherlis 2019, figure 3a)."""

from goldilocks_zone.figures import profiles
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies

FIGURE = {
    "id": "fraction_positive",
    "studies": ["curvature"],
    "axis": "radius",
    "wide": False,
    "published": "resources/published/fort_scherlis_2019/fig3a_fraction_positive.csv",
}


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    return profiles.draw_profile(FIGURE["id"], "fraction of positive eigenvalues", 0.5, studies, settings, published)
