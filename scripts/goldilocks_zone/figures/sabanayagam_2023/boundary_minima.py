"""Decision boundary, alignment with the top eigenvectors of G, and spectrum of G at three kinds of minima (Sabanayagam
et al. 2023)."""

import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import MultipleLocator

from goldilocks_zone.figures import boundaries, panels
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies

FIGURE = {"id": "boundary_minima", "studies": ["boundary_maps"], "needs": ["map_x"]}

RANKS = 3
SMALLEST = 1e-6  # smallest eigenvalue shown, relative to the largest one of all minima
WIDER = 1.3  # width of a spectrum, relative to that of a map
BESIDE_CM, ABOVE_CM, APART_CM = 3.6, 1.6, 0.35  # space for labels and colour bar, for titles, and between rows


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    (study,) = studies.values()
    data, name = minima(study)
    labels, ranks = data["minimum"].values.tolist(), data["map"]["rank"].values[:RANKS].tolist()
    columns = len(ranks) + 2
    width = panels.page_size(1, settings)[0] * panels.CENTIMETRES_PER_INCH
    side = (width - BESIDE_CM) / (columns - 1 + WIDER) * boundaries.aspect(name)
    size = (width, len(labels) * (side + APART_CM) + ABOVE_CM)
    spec = {"width_ratios": [1] * (columns - 1) + [WIDER]}
    inches = [length / panels.CENTIMETRES_PER_INCH for length in size]
    figure, axes = panels.grid(len(labels), columns, settings, figsize=inches, gridspec_kw=spec)
    for row, (line, label) in enumerate(zip(axes, labels)):
        here = data.sel(minimum=label)
        boundaries.draw_classes(line[0], here["map_class"], name)
        if "example_point" in here:
            boundaries.draw_points(line[0], here)
        boundaries.number(line[0])
        line[0].set_ylabel(panels.lettered(row, boundaries.title(label)), labelpad=2)
        for ax, rank in zip(line[1:], ranks):
            boundaries.draw_alignment(ax, here["map"].sel(rank=rank), here["map_class"], name)
        draw_spectrum(line[-1], here, data)
        line[-1].set_box_aspect(boundaries.aspect(name) / WIDER)
    for ax, text in zip(axes[0], ["predicted class", *(f"$v_{{{rank}}}$" for rank in ranks), "spectrum of $G$"]):
        ax.set_title(text)
    for ax in axes[:-1, -1]:
        ax.tick_params(labelbottom=False)
    axes[-1, -1].set_xlabel("rank $i$", labelpad=1)
    boundaries.colour_bar(figure, list(axes[:, :-1].flat))
    held = [
        panels.entry("the first that hold 90 % of Tr($G$)", **spectral_look(True)),
        panels.entry("others", **spectral_look(False)),
    ]
    panels.legend_on_top(
        figure, boundaries.class_entries(int(study["classes"].sel(dataset=name))) + held, columnspacing=1.2
    )
    return figure, data


def minima(study: xr.Dataset) -> tuple[xr.Dataset, str]:
    """Results of the first draw for the study's first dataset in the plane, and the name of this dataset.

    The variables are `map` (minimum, rank, map_x, map_y), the alignments with eigenvectors of the Gauss–Newton matrix
    G; `map_class` (minimum, map_x, map_y), the predicted class; `gauss_newton_eigenvalue` (minimum, rank); `outliers`
    (minimum), the number of largest eigenvalues of G that hold 90 % of its trace; and the training examples.
    """
    names = ["map", "map_class", "gauss_newton_eigenvalue", "outliers", *boundaries.EXAMPLES]
    kept = ("dataset", "minimum", "rank", "example", "coordinate", *boundaries.AXES_OF_MAPS)
    name = next(iter(boundaries.in_plane(study)), None)
    if name is None:
        raise ValueError(panels.NOTHING)
    data = boundaries.one(study, names, *kept).isel(draw=0, drop=True).sel(dataset=name)
    return boundaries.described_maps(data), name


def spectral_look(held: bool) -> dict:
    return {"color": "k", "marker": "o", "linestyle": "none", "markersize": 3, "markerfacecolor": "k" if held else "w"}


def draw_spectrum(ax: Axes, here: xr.Dataset, data: xr.Dataset) -> None:
    """Draw the eigenvalues of G over their rank, filled for the leading ones that hold 90 % of the trace.

    `here` is the part of `data` for one minimum. `data` is a result of `minima`; its largest eigenvalue sets the
    y-limits.
    """
    held = here["rank"] <= here["outliers"]
    for filled in (True, False):
        ax.plot(here["rank"], here["gauss_newton_eigenvalue"].where(held == filled), **spectral_look(filled))
    ax.set(yscale="log", ylabel="eigenvalue (nat)", xlim=(0, int(here["rank"].max()) + 1))
    if (top := float(data["gauss_newton_eigenvalue"].max())) > 0:
        ax.set_ylim(SMALLEST * top, 3 * top)
    ax.yaxis.set_label_position("right")
    ax.yaxis.tick_right()
    ax.spines["right"].set_visible(True)
    ax.spines["left"].set_visible(False)
    ax.xaxis.set_major_locator(MultipleLocator(4))
    if not here["gauss_newton_eigenvalue"].notnull().any():
        boundaries.absent(ax, "no eigenvalue")
        ax.set_yticks([])
