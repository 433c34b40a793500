"""κ and the fraction of positive eigenvalues over the scale of parameters, over temperature, and over both."""

import matplotlib.pyplot as plt
import xarray as xr

from goldilocks_zone.figures import over_scale, panels, style
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies

FIGURE = {"id": "rescaling", "studies": ["scale_fc", "scale_lenet5", "scale_annuli"], "axis": "scale"}

HEIGHTS = [r"$\kappa$", "fraction positive"]
LINES = {"parameters": "-", "temperature": "--", "both": ":"}


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    data = {name: shown(study) for name, study in studies.items()}
    figure = over_scale.stacks(studies, settings, HEIGHTS, draw_ways, data)
    return figure, panels.side_by_side(data)


def shown(study: xr.Dataset) -> xr.Dataset:
    """Curves (rescaled, radius) of both measures."""
    here = over_scale.first_cell(study)
    if "rescaled" not in here.dims:
        here = here.expand_dims(rescaled=["parameters"])
    return over_scale.bands(here, {name: here[name] for name in ("trace_over_norm", "fraction_positive")})


def draw_ways(stack: list[plt.Axes], data: xr.Dataset) -> None:
    """Draw one curve for each way to rescale."""
    for ax, name, reference in zip(stack, ("trace_over_norm", "fraction_positive"), (1.0, 0.5)):
        for number, way in enumerate(data["rescaled"].values.tolist()):
            over_scale.draw(ax, data.sel(rescaled=way), name, number, over_scale.WAYS[way], LINES[way])
        ax.axhline(reference, **style.DASHED)
        ax.axvline(0, **style.GREY)
        over_scale.limit(ax, data, name)
