"""Accuracy on random planes and spheres in the coordinates of one Gaussian over all parameters (Chang 2019)."""

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

from goldilocks_zone.claims.estimators import training
from goldilocks_zone.figures import curves, over_radius, panels, style
from goldilocks_zone.jobs.log import job_log

X_LABEL = r"$\log_{10}(r_0/r_X)$"
DODGE = 0.05  # in log10(r_0/r_X), between the curves of two dimensions
ROOM = 1.1  # for the legend above the panels, relative to a row of them


def plot_chang_subspaces(
    paths_to_studies: list[str], path_to_settings: str, path_to_pdf: str, path_to_png: str, path_to_data: str
) -> None:
    study, settings = style.load(paths_to_studies[0], path_to_settings)
    families = over_radius.families(study)
    data = [final_accuracies(cells) for _, cells in families]
    dimensions = sorted({d for found in data for d in found["dimension"].values.tolist()})
    highest = max(float(found["mean"].max()) for found in data)
    figure, axes = panels.page(len(data), settings, min(len(data), 2))
    figure.set_size_inches(figure.get_size_inches() * [1, ROOM])
    for number, (ax, (title, cells), found) in enumerate(zip(axes, families, data)):
        draw_family(ax, found, dimensions)
        over_radius.frame(ax, cells, highest)
        if study.sizes["dataset"] == 1:
            title = f"{over_radius.dataset_name(cells['dataset'].item())}, {title}"
        ax.set_title(f"({over_radius.letter(number)}) {title}")
        ax.set_ylabel(over_radius.Y_LABEL)
        if ax.get_xlabel():
            ax.set_xlabel(X_LABEL)
    handles = [plt.Line2D([], [], label=f"$d={d}$", **look(i)) for i, d in enumerate(dimensions)]
    figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 6))
    drawn = {over_radius.letter(number): found for number, found in enumerate(data)}
    style.save(figure, panels.side_by_side(drawn), path_to_pdf, path_to_png, path_to_data)


def final_accuracies(cells: xr.Dataset) -> xr.Dataset:
    """Means and intervals over draws, (subspace, radius), of the accuracy at the end."""
    found = over_radius.with_fixed_rules(cells)
    values = training.accuracy(found).rename("test_accuracy")
    values.attrs = {"units": "1", "long_name": "test accuracy at the end, chance where training diverged"}
    return curves.means(values.transpose("subspace", "radius", "draw"))


def look(number: int) -> dict:
    """Colour, marker and line of the dimension of this number."""
    return {
        "color": style.colour(number),
        "marker": style.marker(number),
        "linestyle": style.LINES[number % len(style.LINES)],
        "markersize": 3,
    }


def draw_family(ax: plt.Axes, found: xr.Dataset, dimensions: list[int]) -> None:
    """A curve for each dimension, which looks as its number among all `dimensions`."""
    count = found.sizes["subspace"]
    for number in range(count):
        curve = found.isel(subspace=number)
        x = np.asarray(curve["x"].values / 2 + DODGE * (number - (count - 1) / 2))
        curves.draw_means(ax, x, curve, **look(dimensions.index(int(curve["dimension"]))))


if __name__ == "__main__":
    with job_log(snakemake.log[0], snakemake.input):
        plot_chang_subspaces(
            paths_to_studies=list(snakemake.input.studies),
            path_to_settings=snakemake.input.settings,
            path_to_pdf=snakemake.output.pdf,
            path_to_png=snakemake.output.png,
            path_to_data=snakemake.output.data,
        )
