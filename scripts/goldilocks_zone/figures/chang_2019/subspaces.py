"""Accuracy on random planes and spheres in the coordinates of one Gaussian over all parameters (Chang 2019)."""

import xarray as xr

from goldilocks_zone.claims.estimators import training
from goldilocks_zone.figures import curves, over_radius, panels, style
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies

FIGURE = {"id": "chang_subspaces", "studies": ["chang_subspaces"], "axis": "radius"}

X_LABEL = r"$\log_{10}(r_0/r_X)$"


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    (study,) = studies.values()
    families = over_radius.families(study)
    data = [final_accuracies(cells) for _, cells in families]
    dimensions = sorted({d for found in data for d in found["dimension"].values.tolist()})
    highest = max(float(found["mean"].max()) for found in data)
    figure, axes = panels.page(len(data), settings, min(len(data), 2), room=1.1, x_label=X_LABEL)
    named = study.sizes["dataset"] == 1
    for ax, (title, cells), found in zip(axes, families, data):
        for number in range(found.sizes["subspace"]):
            curve = found.isel(subspace=number)
            x = over_radius.moved_aside(curve, number, found.sizes["subspace"], 0.05)
            curves.draw_means(ax, x, curve, **look(dimensions.index(int(curve["dimension"]))))
        over_radius.frame(ax, cells, highest)
        ax.set_title(f"{panels.dataset_title(cells['dataset'].item())}, {title}" if named else title)
        ax.set_ylabel(over_radius.Y_LABEL)
    panels.letter_titles(axes)
    panels.legend_on_top(figure, [panels.entry(f"$d={d}$", **look(i)) for i, d in enumerate(dimensions)], 6)
    return figure, panels.side_by_side({panels.letter(number): found for number, found in enumerate(data)})


def final_accuracies(cells: xr.Dataset) -> xr.Dataset:
    """Means and intervals over draws, (subspace, radius), of the accuracy at the end."""
    values = training.accuracy(over_radius.with_fixed_rules(cells)).transpose("subspace", "radius", "draw")
    return curves.means(values, "test accuracy at the end, chance where training diverged")


def look(number: int) -> dict:
    """Colour, marker and line of the dimension of this number."""
    return style.look(number, linestyle=style.line(number), markersize=3)
