"""Accuracy over the radius and the dimension of planes and spheres (Fort & Scherlis 2019, figures 2a and 2b)."""

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from goldilocks_zone.figures import over_radius, panels, style
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies

FIGURE = {
    "id": "accuracy",
    "studies": ["planes", "spheres"],
    "axis": "radius",
    "published": "resources/published/fort_scherlis_2019/fig2a_planes.csv",
}

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)  # accuracies of contour lines
DISTINCT = 0.05  # least distance of a contour from chance, as closer ones show noise
BRIGHT = 0.65  # share of the largest accuracy above which contours are black, for contrast
OPEN = {"linestyle": "none", "markerfacecolor": "none", "markeredgewidth": 0.6, "markersize": 4.5}


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    families = [each for study in studies.values() for each in over_radius.families(study)]
    data = [over_radius.accuracy_curves(over_radius.with_fixed_rules(cells)) for _, cells in families]
    dimensions = sorted({d for curves in data for d in curves["dimension"].values.tolist()})
    looks = {d: style.look(i, markersize=2.5, linewidth=1) for i, d in enumerate(dimensions)}
    points_of = [published_points(published, cells) for _, cells in families]
    mapped = [i for i, curves in enumerate(data) if min(curves.sizes["subspace"], curves.sizes["radius"]) > 1]
    if not data:
        raise ValueError(panels.NOTHING)
    highest = max(float(curves["mean"].max()) for curves in data)
    top = max([highest, *(each[1].max() for points in points_of for each in points.values())])
    count = len(data) + len(mapped)
    columns = 2 if count > 3 else count
    figure, axes = panels.page(count, settings, columns, room=1.05, x_label=over_radius.X_LABEL)
    for ax, (_, cells), curves, points in zip(axes, families, data, points_of):
        for number, d in enumerate(curves["dimension"].values.tolist()):
            over_radius.draw(ax, curves.isel(subspace=number), number, curves.sizes["subspace"], looks[d])
            if d in points:
                ax.plot(*points[d], **looks[d] | OPEN)
        over_radius.frame(ax, cells, top)
        ax.set_ylabel(over_radius.Y_LABEL)
    shades = [
        draw_map(ax, data[i], highest, float(1 / families[i][1]["classes"])) for ax, i in zip(axes[len(data) :], mapped)
    ]
    if shades:
        figure.colorbar(shades[-1], ax=axes[len(data) :], label=over_radius.Y_LABEL, aspect=25)
    panels.letter_titles(axes, [families[i][0] for i in (*range(len(data)), *mapped)])
    handles = [panels.entry(f"$d={d}$", **looks[d]) for d in dimensions]
    if any(points_of):
        handles.append(panels.entry("published", **looks[dimensions[0]] | OPEN | {"color": "k"}))
    panels.legend_on_top(figure, handles, 7, columnspacing=1.2)
    return figure, panels.side_by_side({panels.letter(i): curves for i, curves in enumerate(data)})


def published_points(path: Published, cells: xr.Dataset) -> dict[int, np.ndarray]:
    """Published accuracies in the file at `path`, as {dimension: array (2, points)}.

    They are those of the dataset, network and planes in `cells`, a family of `over_radius.families`. The rows of an
    array are log10(r/r_X) and the accuracy. Dimensions without published points are left out.
    """
    points = {d: [] for d in cells["dimension"].values.tolist()}
    for row in over_radius.published_rows(path, cells):
        points.get(int(row["d"]), []).append((row["log10_r_over_rX"], row["accuracy"]))
    return {d: np.array(each, float).T for d, each in points.items() if each}


def draw_map(ax: Axes, data: xr.Dataset, highest: float, chance: float) -> plt.cm.ScalarMappable:
    """Draw the mean accuracy over log10(r/r_X) and the dimension, with contour lines; return the coloured mesh.

    `data` is a result of `over_radius.accuracy_curves`. Colours run from 0 to `highest`. There are no contours below or
    close above `chance`.
    """
    mean = data["mean"].transpose("subspace", "radius")
    x, d = data["x"].values / 2, data["dimension"].values
    shades = ax.pcolormesh(x, np.log10(d), mean, shading="nearest", vmin=0, vmax=highest, rasterized=True)
    ax.axvline(0, color="0.6", linewidth=0.5)
    levels = [level for level in LEVELS if max(float(mean.min()), chance + DISTINCT) < level < float(mean.max())]
    if levels:
        colours = ["k" if level > BRIGHT * highest else "w" for level in levels]
        lines = ax.contour(x, np.log10(d), mean, levels=levels, colors=colours, linewidths=0.8)
        ax.clabel(lines, fmt="%.1f", fontsize=plt.rcParams["legend.fontsize"])
    over_radius.label_dimensions(ax.yaxis, d)
    ax.set_ylabel("dimension $d$")
    return shades
