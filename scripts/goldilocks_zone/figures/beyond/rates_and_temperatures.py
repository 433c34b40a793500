"""Accuracy over the radius with learning rates and temperatures that scale with it, and with the best rate at each
radius."""

import xarray as xr

from goldilocks_zone.figures import curves, over_radius
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies

FIGURE = {"id": "arms", "studies": ["planes", "tuned"], "axis": "radius"}


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    cells = []
    for name, study in studies.items():
        titled = over_radius.titled_cells(study, over_radius.DIMENSION if name == "planes" else None)
        cells += [(f"{title}\n{travel_budget(cell)}", cell) for title, cell in titled]
    return over_radius.draw_cells(cells, settings, min(len(cells), 3), room=1.25)


def travel_budget(cell: xr.Dataset) -> str:
    """Text that states rate × steps, in units of the parameters, for one `cell` of `over_radius.titled_cells`.

    It lists the products for all rates, once for each rule by which the rate follows the radius. For the proportional
    rule, the products have the factor r/r_X.
    """
    settings = curves.settings_of(cell)
    rates = cell["rate"].values.tolist() if "rate" in cell.dims else [settings["rate"]]
    budgets = ", ".join(f"{rate * settings['steps']:.3g}" for rate in rates)
    budgets = f"({budgets})" if len(rates) > 1 else budgets
    factors = {"fixed": "", "proportional": r"$\,r/r_X$"}
    found = " or ".join(f"{budgets}{factors[rule]}" for rule in over_radius.rules(cell)["rate_rule"])
    return rf"rate $\times$ steps: {found}"
