"""Tr(H)/‖H‖ over the radius (Fort & Scherlis 2019, figure 3b)."""

from goldilocks_zone.figures import profiles
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies

FIGURE = {
    "id": "trace_over_norm",
    "studies": ["curvature"],
    "axis": "radius",
    "wide": False,
    "published": "resources/published/fort_scherlis_2019/fig3b_trace_over_norm.csv",
}


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    return profiles.draw_profile(FIGURE["id"], r"$\mathrm{Tr}(H)/\Vert H\Vert$", 1.0, studies, settings, published)
