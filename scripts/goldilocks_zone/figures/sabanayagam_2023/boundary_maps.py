"""Alignment of the gradient of the predicted label's loss with the top eigenvectors of G, and with a random direction,
over the plane (Sabanayagam et al. 2023)."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from goldilocks_zone.figures import boundaries, panels
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies

FIGURE = {"id": "boundary_maps", "studies": ["boundary_maps"], "needs": ["map_x"]}

MINIMUM = "normal"
RANKS = 4
CONTROLS = {"map_random": "random $v$", "map_random_fixed": "random $v$,\nfixed label"}
BESIDE_CM, ABOVE_CM, APART_CM = 2.6, 1.0, 0.35  # space for labels and colour bar, for titles, and between rows


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    (study,) = studies.values()
    data = maps(study)
    datasets, ranks = data["dataset"].values.tolist(), data["rank"].values.tolist()
    columns = len(ranks) + len(CONTROLS)
    width = panels.page_size(1, settings)[0] * panels.CENTIMETRES_PER_INCH
    ratios = [boundaries.aspect(name) for name in datasets]
    side = (width - BESIDE_CM) / columns
    height = sum(ratios) * side + len(datasets) * APART_CM + ABOVE_CM
    size = (width / panels.CENTIMETRES_PER_INCH, height / panels.CENTIMETRES_PER_INCH)
    spec = {"height_ratios": ratios}
    figure, axes = panels.grid(len(datasets), columns, settings, figsize=size, gridspec_kw=spec)
    for row, (line, name) in enumerate(zip(axes, datasets)):
        draw_row(line, data.sel(dataset=name), name)
        line[0].set_ylabel(panels.lettered(row, panels.dataset_title(name)), labelpad=2)
        boundaries.number(line[0])
    for ax, text in zip(axes[0], [*(f"$v_{{{rank}}}$" for rank in ranks), *CONTROLS.values()]):
        ax.set_title(text)
    boundaries.colour_bar(figure, list(axes.flat))
    return figure, data


def maps(study: xr.Dataset) -> xr.Dataset:
    """Maps of alignments and of predicted classes over the plane, for the first draw of one minimum.

    `map` (dataset, rank, map_x, map_y) is the cosine between the gradient of the predicted label's loss and each of the
    first RANKS eigenvectors of the Gauss–Newton matrix. `map_class` (dataset, map_x, map_y) is the predicted class. The
    variables CONTROLS (dataset, map_x, map_y) are cosines with a random direction instead of an eigenvector. The
    minimum is MINIMUM or, if the study lacks it, the first one.
    """
    names = ["map", "map_class", *CONTROLS]
    kept = ("dataset", "minimum", "rank", *boundaries.AXES_OF_MAPS)
    data = boundaries.one(study, names, *kept).isel(draw=0, drop=True)
    minima = data["minimum"].values.tolist()
    data = data.sel(minimum=MINIMUM if MINIMUM in minima else minima[0], dataset=boundaries.in_plane(study))
    return boundaries.described_maps(data.isel(rank=slice(RANKS)))


def draw_row(line: list[Axes], here: xr.Dataset, name: str) -> None:
    """Draw the maps of the dataset `name` into `line`, a row of panels: alignments by rank, then the controls.

    `here` is the part of `maps` for this dataset. The controls are small, so their colours are scaled to their largest
    absolute value.
    """
    ranks = here["rank"].values
    for ax, rank in zip(line, ranks):
        boundaries.draw_alignment(ax, here["map"].sel(rank=rank), here["map_class"], name)
    for ax, control in zip(line[len(ranks) :], CONTROLS):
        largest = float(np.abs(here[control]).max())
        boundaries.draw_alignment(ax, here[control], here["map_class"], name, largest or 1.0)
        if np.isfinite(largest):
            ax.set_xlabel(f"up to {largest:.2g}", labelpad=2, **boundaries.SMALL)
