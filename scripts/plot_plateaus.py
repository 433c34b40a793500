"""Tr(H)/‖H‖ over the radius for several numbers of classes, with and without bias directions."""

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.ticker import MaxNLocator

from goldilocks_zone.figures import style
from goldilocks_zone.jobs.log import job_log
from goldilocks_zone.theory.laws import finite_dimension_law

DODGE = 0.05  # in x, between the curves of two numbers of classes
ROOM = 1.2  # for what stands above the panels, relative to a row of them


def plot_plateaus(
    path_to_study: str, path_to_settings: str, path_to_pdf: str, path_to_png: str, path_to_data: str
) -> None:
    study, settings = style.load(path_to_study, path_to_settings, needed=("class_count", "bias_directions"))
    d = style.shown_dimension(study)
    study = study.sel(dimension=d, examples=max(study["examples"].values))
    data = style.curves(study, "trace_over_norm")
    data["predicted"] = predicted(study, d)
    shown = style.cells(study)
    rows, columns = -(-len(shown) // 2), min(2, len(shown))
    width, height = style.page_size(rows, settings)
    size = (width, height * ROOM)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, sharex=True, sharey=True)
    classes = data["class_count"].values.tolist()
    directions = data["bias_directions"].values.tolist()
    for ax in axes.flat[len(shown) :]:
        ax.remove()
    for number, (ax, cell) in enumerate(zip(axes.flat, shown)):
        for i, count in enumerate(classes):
            for biases in directions:
                curve = data.sel(cell).sel(class_count=count, bias_directions=biases)
                draw_variant(ax, curve, DODGE * (i - (len(classes) - 1) / 2), i, bool(biases))
            law = float(data["predicted"].sel(class_count=count))
            ax.axhline(law, color=style.COLOURS[i % len(style.COLOURS)], linestyle=":", linewidth=0.9)
        ax.axhline(1, color="0.6", linewidth=0.5, linestyle="--", zorder=0)
        ax.set_title(style.title(cell, shown))
        if number + columns >= len(shown):
            ax.set_xlabel(style.X_LABEL)
            ax.tick_params(labelbottom=True)
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        if number % columns == 0:
            ax.set_ylabel(r"$\mathrm{Tr}(H)/\Vert H\Vert$")
    limit(axes.flat[0], data)
    handles = legend_handles(classes, directions)
    figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 7), columnspacing=1.2)
    style.save(figure, data, path_to_pdf, path_to_png, path_to_data)


def predicted(study: xr.Dataset, dimension: int) -> xr.DataArray:
    """The finite-d law at κ = √(C − 1), per number of classes C."""
    values = finite_dimension_law(np.sqrt(study["class_count"] - 1), dimension)
    values.attrs = {"units": "1", "long_name": f"finite-d law at √(C − 1), d = {dimension}, C the number of classes"}
    return values


def draw_variant(ax: plt.Axes, curve: xr.Dataset, place: float, number: int, biases: bool) -> None:
    """Filled markers and full lines with bias directions, open and broken ones without.

    Bars are the simultaneous band of the mean, which as areas would hide each other; curves lie `place` apart.
    """
    mean = curve["mean"].values
    bars = [mean - curve["low"].values, curve["high"].values - mean]
    colour = style.COLOURS[number % len(style.COLOURS)]
    ax.errorbar(curve["x"].values + place, mean, bars, color=colour, elinewidth=0.6, **look(number, biases))


def look(number: int, biases: bool) -> dict:
    """Marker and line of a variant."""
    return {
        "marker": style.MARKERS[number % len(style.MARKERS)],
        "markersize": 3,
        "markerfacecolor": None if biases else "white",
        "markeredgewidth": 0.7,
        "linestyle": "-" if biases else "--",
        "linewidth": 1.2 if biases else 0.8,
    }


def legend_handles(classes: list[int], directions: list[bool]) -> list[plt.Line2D]:
    """Numbers of classes by colour and marker, bias directions by line and filling, and the law."""
    counts = [
        plt.Line2D([], [], color=style.COLOURS[i % len(style.COLOURS)], label=f"$C={count}$", **look(i, True))
        for i, count in enumerate(classes)
    ]
    names = {True: "with bias directions", False: "without"}
    kinds = [
        plt.Line2D([], [], color="k", label=names[bool(biases)], **look(0, bool(biases)))
        for biases in sorted(directions, reverse=True)
    ]
    return [*counts, *kinds, plt.Line2D([], [], color="k", linestyle=":", linewidth=0.9, label="predicted plateau")]


def limit(ax: plt.Axes, data: xr.Dataset) -> None:
    """Room for means and predictions; bands of few draws may leave the axes."""
    low = min(float(data["mean"].min()), 0.0)
    high = max(float(data["mean"].max()), float(data["predicted"].max()))
    ax.set_ylim(low - 0.08 * (high - low), high + 0.08 * (high - low))


if __name__ == "__main__":
    with job_log(snakemake.log[0], snakemake.input):
        plot_plateaus(
            path_to_study=snakemake.input.studies[0],
            path_to_settings=snakemake.input.settings,
            path_to_pdf=snakemake.output.pdf,
            path_to_png=snakemake.output.png,
            path_to_data=snakemake.output.data,
        )
