"""κ over the scale of the parameters, unchanged and with one factor of the Hessian frozen at its value at α = 1."""

import xarray as xr
from matplotlib.axes import Axes

from goldilocks_zone.figures import over_scale, panels, style
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies

FIGURE = {"id": "counterfactuals", "studies": ["scale_fc", "scale_lenet5", "scale_annuli"], "axis": "scale"}

CURVES = {
    "trace_over_norm": "as it is",
    "frozen_softmax": r"$p$ frozen in $G$",
    "frozen_residual": r"$p-y$ frozen in $H'$",
    "frozen_scale": r"scale of logit gradients frozen in $G$",
}


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    cells = {name: over_scale.first_cell(over_scale.parameters_rescaled(study)) for name, study in studies.items()}
    data = {name: over_scale.bands(cell, {name: cell[name] for name in CURVES}) for name, cell in cells.items()}
    figure = over_scale.stacks(studies, settings, [r"$\kappa$"], draw_curves, data)
    return figure, panels.side_by_side(data)


def draw_curves(stack: list[Axes], data: xr.Dataset) -> None:
    (ax,) = stack
    for number, (name, label) in enumerate(CURVES.items()):
        over_scale.draw(ax, data, name, number, label, style.line(number))
    ax.axhline(1, **style.DASHED)
    over_scale.limit(ax, data, *CURVES)
