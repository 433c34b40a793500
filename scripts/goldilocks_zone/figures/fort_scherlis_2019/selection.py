"""Initial loss over the number of positive eigenvalues, and over other measures (Fort & Scherlis 2019, figure 6d)."""

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.ticker import MaxNLocator

from goldilocks_zone.claims.curves import LEAST_CORRELATED, partial_correlation
from goldilocks_zone.figures import curves, panels, style
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies

FIGURE = {"id": "selection", "studies": ["selection"], "axis": "radius"}
MEASURES = {
    "positive_eigenvalues": "number of positive eigenvalues",
    "trace_over_norm": r"$\mathrm{Tr}(H)/\Vert H\Vert$",
    "logits_std": r"deviation of logits $\sigma_z$",
}
GIVEN = "logits_std"


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    (study,) = studies.values()
    data = points(study)
    shown = panels.cells(study)
    figure, axes = panels.grid(len(shown), len(MEASURES), settings, room=1.25, sharex="col", sharey=True)
    for row, cell in zip(axes, shown):
        for number, (ax, name) in enumerate(zip(row, MEASURES)):
            here = data.sel(cell)
            x, loss = here[name].values, here["loss"].values
            ax.plot(x, loss, linestyle="none", **style.look(number, markersize=3, alpha=0.6, mew=0))
            curves.draw_regression(ax, x, loss, "k", "0.3", 0.25)
            ax.set_title("\n".join(correlations(here, name)), fontsize=plt.rcParams["legend.fontsize"])
        row[0].set_ylabel("initial loss (nat)")
        if len(shown) > 1:
            row[0].annotate(panels.cell_title(cell, shown), (0.03, 0.03), xycoords="axes fraction")
    for ax, label in zip(axes[-1], MEASURES.values()):
        ax.set_xlabel(label)
    axes[-1, 0].xaxis.set_major_locator(MaxNLocator(6, integer=True))
    return figure, data


def points(study: xr.Dataset) -> xr.Dataset:
    """Loss and the variables MEASURES (…, draw) of each initialisation at the radius nearest to r_X.

    All are for the study's largest number of examples and largest dimension of planes.
    """
    d = int(study["dimension"].max())
    here = study.isel(radius=curves.nearest_to_r_x(study)).sel(dimension=d, examples=study["examples"].max())
    data = here[["loss", *(name for name in MEASURES if name in here)]]
    data["positive_eigenvalues"] = (here["fraction_positive"] * d).round()
    data["positive_eigenvalues"].attrs = curves.described(f"number of positive eigenvalues of H_d, d = {d}")
    return data


def correlations(here: xr.Dataset, name: str) -> list[str]:
    """Lines of text with the correlation of the measure `name` and the loss, and their partial correlation given σ_z.

    Correlations are over the initialisations in `here`, with 95 % intervals; σ_z is the standard deviation of the
    logits. With too few initialisations, the only line says so.
    """
    if here.sizes["draw"] < LEAST_CORRELATED:
        return [f"fewer than {LEAST_CORRELATED} initialisations"]
    variables = {"correlation": [name, "loss"]}
    if name != GIVEN:
        variables[r"given $\sigma_z$"] = [name, "loss", GIVEN]
    rows = {words: np.array([here[each].values for each in names]) for words, names in variables.items()}
    found = {words: curves.bootstrapped(partial_correlation, each, "selection", name) for words, each in rows.items()}
    return [f"{words} {curves.in_words(*each)}" for words, each in found.items()]
