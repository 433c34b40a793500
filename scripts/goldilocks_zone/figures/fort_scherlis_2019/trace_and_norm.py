"""Tr(H) and ‖H‖ over the radius, with the zone's edges (Fort & Scherlis 2019, figure 5b)."""

import numpy as np
import xarray as xr

from goldilocks_zone.figures import curves, panels, profiles
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies

FIGURE = {"id": "trace_and_norm", "studies": ["curvature"], "axis": "radius", "wide": False}
MEASURES = {"trace": r"$\mathrm{Tr}(H)$", "frobenius_norm": r"$\Vert H\Vert$"}
EDGE = {"color": "0.4", "linewidth": 0.7, "linestyle": "--"}


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    (study,) = studies.values()
    d = profiles.shown_dimension(study)
    study = study.sel(dimension=d)
    data = xr.concat([curves.over_radii(study, name) for name in MEASURES], dim="quantity", combine_attrs="override")
    data = data.assign_coords(quantity=list(MEASURES))
    ratio = study["trace_over_norm"].sel(examples=study["examples"].max()).mean("draw")
    # Inside the zone, the mean trace is noise around zero: show it on the logarithmic axis only above its error.
    error = data["standard_deviation"].fillna(0) / np.sqrt(study.sizes["draw"])
    visible = data.where(data["mean"] > error)
    figure, axes = panels.for_each_cell(study, settings)
    for ax, cell in axes:
        for number, (name, label) in enumerate(MEASURES.items()):
            curve = visible.sel(cell).sel(quantity=name)
            profiles.draw_curves(ax, curve, number, f"{label}, $d={d}$", deviations=False)
        for place in crossings_of_one(study["x"].values, ratio.sel(cell).values):
            ax.axvline(place, **EDGE, zorder=0)
        # Clip bands that reach down to zero at the axis.
        ax.set_yscale("log", nonpositive="clip")
        ax.set_ylim(float(visible["mean"].min()) / 3, float(visible["mean"].max()) * 5)
        edge = panels.entry(r"$\mathrm{Tr}(H)/\Vert H\Vert=1$", **EDGE)
        handles = [*ax.get_legend_handles_labels()[0], edge, *profiles.example_handles(study)]
        panels.legend(ax, handles, loc="upper left")
    panels.label_y(figure, r"$\mathrm{Tr}(H)$, $\Vert H\Vert$ (nat)")
    return figure, data


def crossings_of_one(x: np.ndarray, ratio: np.ndarray) -> list[float]:
    """Every x at which `ratio` (r,) over `x` (r,) crosses 1, by linear interpolation."""
    before = np.flatnonzero(np.diff(np.sign(ratio - 1)))
    return [float(x[i] + (1 - ratio[i]) / (ratio[i + 1] - ratio[i]) * (x[i + 1] - x[i])) for i in before]
