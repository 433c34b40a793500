"""Accuracy on random planes and spheres in the coordinates of one Gaussian over all parameters (Chang 2019)."""

from goldilocks_zone.claims.estimators import training
from goldilocks_zone.figures import curves, over_radius, panels, style
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies

FIGURE = {"id": "chang_subspaces", "studies": ["chang_subspaces"], "axis": "radius"}
MEANING = "test accuracy at the end, chance where training diverged"
X_LABEL = r"$\log_{10}(r_0/r_X)$"


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    (study,) = studies.values()
    families = over_radius.families(study, named=True)
    accuracies = [training.accuracy(over_radius.with_fixed_rules(cells)) for _, cells in families]
    data = [curves.means(each.transpose("subspace", "radius", "draw"), MEANING) for each in accuracies]
    dimensions = sorted({d for found in data for d in found["dimension"].values.tolist()})
    looks = {d: style.look(i, linestyle=style.line(i), markersize=3) for i, d in enumerate(dimensions)}
    highest = max(float(found["mean"].max()) for found in data)
    figure, axes = panels.page(len(data), settings, min(len(data), 2), room=1.1, x_label=X_LABEL)
    for ax, (_, cells), found in zip(axes, families, data):
        for number in range(found.sizes["subspace"]):
            curve = found.isel(subspace=number)
            x = over_radius.moved_aside(curve, number, found.sizes["subspace"], 0.05)
            curves.draw_means(ax, x, curve, **looks[int(curve["dimension"])])
        over_radius.frame(ax, cells, highest)
        ax.set_ylabel(over_radius.Y_LABEL)
    panels.letter_titles(axes, [title for title, _ in families])
    panels.legend_on_top(figure, [panels.entry(f"$d={d}$", **looks[d]) for d in dimensions], 6)
    return figure, panels.side_by_side({panels.letter(number): found for number, found in enumerate(data)})
