"""Accuracy over the radius and the dimension of planes and spheres (Fort & Scherlis 2019, figures 2a and 2b)."""

import csv

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

from goldilocks_zone.figures import over_radius
from goldilocks_zone.figures import panels as figures_panels
from goldilocks_zone.figures import style as figures_style
from goldilocks_zone.jobs.log import job_log

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)  # of lines of equal accuracy
DISTINCT = 0.05  # from chance: nearer to it such lines show noise
BRIGHT = 0.65  # of the largest accuracy: lines are black from here on, to be seen on the map
OPEN = {"linestyle": "none", "markerfacecolor": "none", "markeredgewidth": 0.6, "markersize": 4.5}
ROOM = 1.05  # for the legend above the panels, relative to all rows of them


def plot_accuracy(
    paths_to_studies: list[str],
    path_to_settings: str,
    path_to_published: str,
    path_to_pdf: str,
    path_to_png: str,
    path_to_data: str,
) -> None:
    studies, settings = figures_panels.load_all(paths_to_studies, path_to_settings)
    families = [each for study in studies.values() for each in over_radius.families(study)]
    data = [over_radius.curves(over_radius.with_fixed_rules(cells)) for _, cells in families]
    dimensions = sorted({d for curves in data for d in curves["dimension"].values.tolist()})
    published = [published_points(path_to_published, cells) if settings.published else {} for _, cells in families]
    mapped = [i for i, curves in enumerate(data) if min(curves.sizes["subspace"], curves.sizes["radius"]) > 1]
    highest = max(float(curves["mean"].max()) for curves in data)
    top = max([highest, *(each[1].max() for points in published for each in points.values())])
    figure, axes = panels(len(data) + len(mapped), settings)
    for ax, (_, cells), curves, points in zip(axes, families, data, published):
        draw_family(ax, curves, points, dimensions)
        over_radius.frame(ax, cells, top)
        ax.set_ylabel(over_radius.Y_LABEL)
    for ax, i in zip(axes[len(data) :], mapped):
        shades = draw_map(ax, data[i], highest, float(1 / families[i][1]["classes"]))
    if mapped:
        figure.colorbar(shades, ax=axes[len(data) :], label=over_radius.Y_LABEL, aspect=25)
    for number, (ax, i) in enumerate(zip(axes, [*range(len(data)), *mapped])):
        ax.set_title(f"({over_radius.letter(number)}) {families[i][0]}")
    handles = [plt.Line2D([], [], label=f"$d={d}$", **look(i)) for i, d in enumerate(dimensions)]
    if any(published):
        handles.append(plt.Line2D([], [], label="published", **look(0) | OPEN | {"color": "k"}))
    figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 7), columnspacing=1.2)
    drawn = {over_radius.letter(i): curves for i, curves in enumerate(data)}
    figures_style.save(figure, figures_panels.side_by_side(drawn), path_to_pdf, path_to_png, path_to_data)


def panels(count: int, settings: dict) -> tuple[plt.Figure, list[plt.Axes]]:
    """Panels over log10(r/r_X), in two columns, or three of them in a row."""
    columns = 2 if count > 3 else count
    width, height = figures_style.page_size(-(-count // columns), settings)
    size = (width, height * ROOM)
    figure, axes = plt.subplots(-(-count // columns), columns, figsize=size, squeeze=False, sharex=True)
    for ax in axes.flat[count:]:
        ax.remove()
    for ax in axes.flat[max(count - columns, 0) : count]:
        ax.set_xlabel(over_radius.X_LABEL)
        ax.tick_params(labelbottom=True)
    return figure, list(axes.flat[:count])


def look(number: int) -> dict:
    """Colour, marker and line of the dimension of this number."""
    return {
        "color": figures_style.colour(number),
        "marker": figures_style.marker(number),
        "markersize": 2.5,
        "linewidth": 1,
    }


def draw_family(ax: plt.Axes, data: xr.Dataset, published: dict[int, np.ndarray], dimensions: list[int]) -> None:
    """A curve per dimension, in the look of its number among all `dimensions`, and its published points."""
    for number, d in enumerate(data["dimension"].values.tolist()):
        style = look(dimensions.index(d))
        over_radius.draw(ax, data.isel(subspace=number), number, data.sizes["subspace"], style)
        if d in published:
            ax.plot(*published[d], **style | OPEN)


def published_points(path: str, cells: xr.Dataset) -> dict[int, np.ndarray]:
    """Published log10(r/r_X) and accuracies, shape (2, points), for each dimension of a family; {} if it is another."""
    place = {axis: cells[axis].item() for axis in ("dataset", "network")}
    if not figures_style.is_published_network(place) or not cells["subspace"].values[0].startswith("plane-"):
        return {}
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found = {}
    for d in cells["dimension"].values.tolist():
        points = [(float(row["log10_r_over_rX"]), float(row[f"d{d}"])) for row in rows if row.get(f"d{d}")]
        if points:
            found[d] = np.array(points).T
    return found


def draw_map(ax: plt.Axes, data: xr.Dataset, highest: float, chance: float) -> plt.cm.ScalarMappable:
    """Mean accuracy over log10(r/r_X) and the dimension, and lines of equal accuracy, interpolated between them."""
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


if __name__ == "__main__":
    with job_log(snakemake.log[0], snakemake.input):
        plot_accuracy(
            paths_to_studies=list(snakemake.input.studies),
            path_to_settings=snakemake.input.settings,
            path_to_published=snakemake.input.published,
            path_to_pdf=snakemake.output.pdf,
            path_to_png=snakemake.output.png,
            path_to_data=snakemake.output.data,
        )
