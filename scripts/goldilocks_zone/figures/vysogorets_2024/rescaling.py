"""κ and the fraction of positive eigenvalues over the scale of the parameters, over the temperature, and over both."""

import xarray as xr
from matplotlib.axes import Axes

from goldilocks_zone.figures import over_scale, panels, style
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies

FIGURE = {"id": "rescaling", "studies": ["scale_fc", "scale_lenet5", "scale_annuli"], "axis": "scale"}

# Label and neutral value of each measure.
MEASURES = {"trace_over_norm": (r"$\kappa$", 1.0), "fraction_positive": ("fraction positive", 0.5)}
LINES = {"parameters": "-", "temperature": "--", "both": ":"}


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    data = {}
    for name, study in studies.items():
        here = over_scale.first_cell(study)
        here = here if "rescaled" in here.dims else here.expand_dims(rescaled=["parameters"])
        data[name] = over_scale.bands(here, {measure: here[measure] for measure in MEASURES})
    figure = over_scale.stacks(studies, settings, [label for label, _ in MEASURES.values()], draw_ways, data)
    return figure, panels.side_by_side(data)


def draw_ways(stack: list[Axes], data: xr.Dataset) -> None:
    for ax, (name, (_, reference)) in zip(stack, MEASURES.items()):
        for number, way in enumerate(data["rescaled"].values.tolist()):
            over_scale.draw(ax, data.sel(rescaled=way), name, number, over_scale.WAYS[way], LINES[way])
        ax.axhline(reference, **style.DASHED)
        ax.axvline(0, **style.GREY)
        over_scale.limit(ax, data, name)
