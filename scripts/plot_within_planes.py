"""The Hessian on a plane before and after training within it, and the spread of the accuracy over planes."""

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

from goldilocks_zone.claims.estimators import training
from goldilocks_zone.figures import curves
from goldilocks_zone.figures import style as figures_style
from goldilocks_zone.jobs.log import job_log
from goldilocks_zone.subspaces import labels

MEASURES = {
    "fraction_positive": ("eigenvalues", "fraction of positive eigenvalues"),
    "trace_over_norm": ("trace over norm", r"$\mathrm{Tr}(H)/\Vert H\Vert$"),
}
EXAMPLES = {"training": "training examples", "validation": "held-out examples"}
APART, STRIDE = 0.46, 0.24  # between two sets of examples, and from start to end; planes are 1 apart
JITTER = 0.12  # half the width of a strip of draws
LAST = 1.15  # width of the last panel, relative to the others
ROOM = 1.25  # for what stands above the panels, relative to a row of them


def plot_within_planes(
    path_to_study: str, path_to_settings: str, path_to_pdf: str, path_to_png: str, path_to_data: str
) -> None:
    study, settings = figures_style.load(path_to_study, path_to_settings)
    study = curves.primary(study)
    study = study.isel(radius=[curves.nearest_to_r_x(study)])
    data = measured(study)
    shown = [name for name in MEASURES if name in data]
    width, height = figures_style.page_size(1, settings)
    size, ratios = (width, height * ROOM), [1] * len(shown) + [LAST]
    figure, axes = plt.subplots(1, len(ratios), figsize=size, squeeze=False, width_ratios=ratios)
    for ax, letter, name in zip(axes[0], "ab", shown):
        draw_pairs(ax, data, name)
        ax.set_title(f"({letter}) {MEASURES[name][0]}")
        ax.set_ylabel(MEASURES[name][1])
    draw_strips(axes[0, -1], data)
    axes[0, -1].set_title(f"({'abc'[len(shown)]}) accuracy")
    for ax in axes[0]:
        ax.set_xticks(range(study.sizes["subspace"]), names_of(study["subspace"].values.tolist()))
        ax.set_xlim(-0.6, study.sizes["subspace"] - 0.4)
        ax.set_xlabel("plane")
    if shown:
        figure.legend(handles=legend_handles(data), loc="outside upper center", ncols=4)
    figures_style.save(figure, data, path_to_pdf, path_to_png, path_to_data)


def measured(study: xr.Dataset) -> xr.Dataset:
    """Measures of the Hessian and final accuracies of each draw, their means, and the accuracy's spread over draws.

    The spread (subspace, quantity) has the quantities value, low and high; it is missing for a single draw.
    """
    data = xr.Dataset({name: study[name].isel(radius=0) for name in MEASURES if name in study}, attrs=study.attrs)
    data["test_accuracy"] = training.accuracy(study).isel(radius=0)
    data["test_accuracy"].attrs = {
        "units": "1",
        "long_name": "test accuracy at the end, chance where training diverged",
    }
    for name in list(data.data_vars):
        found = curves.means(data[name])
        data = data.merge(found.rename({part: f"{name}_{part}" for part in found.data_vars}))
    spread = np.full((study.sizes["subspace"], 3), np.nan)
    for i, name in enumerate(study["subspace"].values):
        if study.sizes["draw"] > 1:
            estimate = training.spread_over_draws(study.sel(subspace=name))[0]
            spread[i] = estimate.value, *estimate.interval(figures_style.LEVEL)
    meaning = "standard deviation of the accuracy over draws, binomial variance taken off, with its 95 % interval"
    data["spread"] = (("subspace", "quantity"), spread, {"units": "1", "long_name": meaning})
    return data.assign_coords(quantity=["value", "low", "high"])


def places_of(data: xr.Dataset) -> list[tuple[int, int, np.ndarray]]:
    """Of each plane and set of examples: its numbers, and where start and end stand."""
    planes, sets = data.sizes["subspace"], data.sizes["examples_of"]
    return [
        (i, j, i + APART * (j - (sets - 1) / 2) + STRIDE * np.array([-0.5, 0.5]))
        for i in range(planes)
        for j in range(sets)
    ]


def draw_pairs(ax: plt.Axes, data: xr.Dataset, name: str) -> None:
    """A measure at the start and at the end of training: a thin line for each draw, a thick one for their mean."""
    for i, j, places in places_of(data):
        here = data.isel(subspace=i, examples_of=j)
        pairs = here[name].transpose("moment", "draw").values
        ax.plot(places, pairs, color=figures_style.colour(j), linewidth=0.5, alpha=0.5)
        found = xr.Dataset({part: here[f"{name}_{part}"] for part in ("mean", "low", "high")})
        style = {"color": figures_style.colour(j), "marker": figures_style.marker(j), "markersize": 4.5, "capsize": 1.5}
        at_start = {"linestyle": figures_style.LINES[j], "linewidth": 1.6, "markerfacecolor": "white"}
        curves.draw_means(ax, places, found, **style, **at_start)
        curves.draw_means(ax, places[1:], found.isel(moment=[1]), **style)
    limit(ax, data[name].values, 0.06)


def draw_strips(ax: plt.Axes, data: xr.Dataset) -> None:
    """Final accuracy of each draw, the mean with its interval beside them, and the spread over draws in words."""
    accuracies = data["test_accuracy"].transpose("subspace", "draw").values
    across = np.linspace(-JITTER, JITTER, data.sizes["draw"]) - 0.1
    for i, samples in enumerate(accuracies):
        here = data.isel(subspace=i)
        ax.plot(i + across, samples, linestyle="none", marker="o", markersize=2.5, color="k", alpha=0.5, mew=0)
        found = xr.Dataset(
            {part: ("place", [float(here[f"test_accuracy_{part}"])]) for part in ("mean", "low", "high")}
        )
        curves.draw_means(
            ax, np.array([i + 0.2]), found, fmt="D", markersize=4, color=figures_style.COLOURS[2], capsize=2
        )
        value, low, high = here["spread"].values
        if np.isfinite(value):
            interval = f"\n[{low:.3f}, {high:.3f}]" if len(accuracies) <= 2 else ""
            words = f"$s={value:.3f}${interval}"
            style = {"fontsize": plt.rcParams["legend.fontsize"], "bbox": {"color": "w", "pad": 0.5}, "zorder": 4}
            ax.annotate(words, (i, 0.99), xycoords=("data", "axes fraction"), ha="center", va="top", **style)
    ax.axhline(float(1 / data["classes"]), color="0.6", linewidth=0.5, linestyle="--", zorder=0)
    limit(ax, accuracies, 0.06, 0.3)
    ax.set_ylabel("test accuracy at the end")


def limit(ax: plt.Axes, values: np.ndarray, below: float, above: float | None = None) -> None:
    """Room for the values, and shares of their range below and above; intervals of few draws may leave the axes."""
    low, high = np.nanmin(values), np.nanmax(values)
    span = (high - low) or 0.1
    ax.set_ylim(low - below * span, high + (below if above is None else above) * span)


def names_of(subspaces: list[str]) -> list[str]:
    """How planes are called: by their dimension where it tells them apart."""
    dimensions = [getattr(labels.parse_subspace(name), "dimension", None) for name in subspaces]
    if None in dimensions or len(set(dimensions)) < len(dimensions):
        return [name.replace("-", "\n") for name in subspaces]
    return [f"$d={dimension}$" for dimension in dimensions]


def legend_handles(data: xr.Dataset) -> list[plt.Line2D]:
    """Sets of examples by colour, line and marker; start and end by filling."""
    sets = data["examples_of"].values.tolist()
    handles = [
        plt.Line2D(
            [],
            [],
            color=figures_style.colour(j),
            marker=figures_style.marker(j),
            linestyle=figures_style.LINES[j],
            label=EXAMPLES[name],
        )
        for j, name in enumerate(sets)
    ]
    dot = {"linestyle": "none", "marker": "o", "color": "k", "markersize": 4.5}
    return [
        *handles,
        plt.Line2D([], [], markerfacecolor="white", label="start of training", **dot),
        plt.Line2D([], [], label="end of training", **dot),
    ]


if __name__ == "__main__":
    with job_log(snakemake.log[0], snakemake.input):
        plot_within_planes(
            path_to_study=snakemake.input.studies[0],
            path_to_settings=snakemake.input.settings,
            path_to_pdf=snakemake.output.pdf,
            path_to_png=snakemake.output.png,
            path_to_data=snakemake.output.data,
        )
