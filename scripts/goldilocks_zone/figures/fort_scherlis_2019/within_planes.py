"""The Hessian on a plane before and after training within it, and the spread of the accuracy over planes."""

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from goldilocks_zone.claims.estimators import training
from goldilocks_zone.figures import curves, panels, style
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies
from goldilocks_zone.subspaces import labels

FIGURE = {"id": "within_planes", "studies": ["plane_spread"], "axis": "radius"}
MEASURES = {
    "fraction_positive": ("eigenvalues", "fraction of positive eigenvalues"),
    "trace_over_norm": ("trace over norm", r"$\mathrm{Tr}(H)/\Vert H\Vert$"),
}
EXAMPLES = {"training": "training examples", "validation": "held-out examples"}
APART, STRIDE = 0.46, 0.24  # offsets between sets of examples, and from start to end; planes are 1 apart
JITTER = 0.12  # half the width of a strip of draws
LAST = 1.15  # width of the last panel, relative to the others


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    (study,) = studies.values()
    study = curves.primary(study).isel(radius=[curves.nearest_to_r_x(study)])
    data = measured(study)
    shown = [name for name in MEASURES if name in data]
    ratios = [1] * len(shown) + [LAST]
    figure, axes = panels.grid(1, len(ratios), settings, room=1.25, width_ratios=ratios)
    for ax, name in zip(axes[0], shown):
        draw_pairs(ax, data, name)
        ax.set_ylabel(MEASURES[name][1])
    draw_strips(axes[0, -1], data)
    panels.letter_titles(axes[0], [*(MEASURES[name][0] for name in shown), "accuracy"])
    for ax in axes[0]:
        ax.set_xticks(range(study.sizes["subspace"]), names_of(study["subspace"].values.tolist()))
        ax.set(xlim=(-0.6, study.sizes["subspace"] - 0.4), xlabel="plane")
    if shown:
        sets = enumerate(data["examples_of"].values.tolist())
        handles = [panels.entry(EXAMPLES[name], **style.look(j, linestyle=style.line(j))) for j, name in sets]
        dot = {"linestyle": "none", "marker": "o", "color": "k", "markersize": 4.5}
        handles.append(panels.entry("start of training", markerfacecolor="white", **dot))
        panels.legend_on_top(figure, [*handles, panels.entry("end of training", **dot)], 4)
    return figure, data


def measured(study: xr.Dataset) -> xr.Dataset:
    """Select the variables MEASURES and the final test accuracy of each draw; add means over draws and `spread`.

    {name}_mean, _low and _high are the mean and the ends of its 95 % interval. `spread` (subspace, quantity) is the
    standard deviation of accuracies over draws, with its interval; the labels along quantity are value, low and high.
    The binomial variance of accuracies on the test examples is subtracted from their variance. `spread` is NaN for too
    few draws.
    """
    data = xr.Dataset({name: study[name].isel(radius=0) for name in MEASURES if name in study}, attrs=study.attrs)
    data["test_accuracy"] = training.accuracy(study).isel(radius=0)
    data["test_accuracy"].attrs = curves.described("test accuracy at the end, chance where training diverged")
    data = data.merge(curves.prefixed({name: curves.means(data[name]) for name in map(str, data.data_vars)}))
    planes = [study.isel(subspace=i) for i in range(study.sizes["subspace"])]
    spread = [curves.of_claim(training.spread_over_draws, plane) for plane in planes]
    meaning = "standard deviation of the accuracy over draws, binomial variance taken off, with its 95 % interval"
    data["spread"] = (("subspace", "quantity"), spread, curves.described(meaning))
    return data.assign_coords(quantity=["value", "low", "high"])


def draw_pairs(ax: Axes, data: xr.Dataset, name: str) -> None:
    """Draw the measure `name` before and after training on each plane: a thin line per draw, a thick one for the mean.

    `data` is a result of `measured`.
    """
    sets = data.sizes["examples_of"]
    for i, j in np.ndindex(data.sizes["subspace"], sets):
        here = data.isel(subspace=i, examples_of=j)
        places = i + APART * curves.centred(j, sets) + STRIDE * np.array([-0.5, 0.5])
        pairs = here[name].transpose("moment", "draw").values
        ax.plot(places, pairs, color=style.colour(j), linewidth=0.5, alpha=0.5)
        found, look = curves.parts_of(here, name), style.look(j, markersize=4.5, capsize=1.5)
        at_start = {"linestyle": style.line(j), "linewidth": 1.6, "markerfacecolor": "white"}
        curves.draw_means(ax, places, found, **look, **at_start)
        curves.draw_means(ax, places[1:], found.isel(moment=[1]), **look)
    ax.set_ylim(panels.limits(data[name], margin=0.06))


def draw_strips(ax: Axes, data: xr.Dataset) -> None:
    """Draw the final accuracy of each draw, with the mean and its interval beside them, and the spread in words.

    `data` is a result of `measured`.
    """
    accuracies = data["test_accuracy"].transpose("subspace", "draw").values
    across = np.linspace(-JITTER, JITTER, data.sizes["draw"]) - 0.1
    for i, samples in enumerate(accuracies):
        here = data.isel(subspace=i)
        ax.plot(i + across, samples, linestyle="none", marker="o", markersize=2.5, color="k", alpha=0.5, mew=0)
        found = curves.parts_of(here, "test_accuracy").expand_dims("place")
        curves.draw_means(ax, np.array([i + 0.2]), found, fmt="D", markersize=4, color=style.colour(2), capsize=2)
        value, low, high = here["spread"].values
        if np.isfinite(value):
            interval = f"\n[{low:.3f}, {high:.3f}]" if len(accuracies) <= 2 else ""
            words = f"$s={value:.3f}${interval}"
            text = {"fontsize": plt.rcParams["legend.fontsize"], "bbox": {"color": "w", "pad": 0.5}, "zorder": 4}
            ax.annotate(words, (i, 0.99), xycoords=("data", "axes fraction"), ha="center", va="top", **text)
    ax.axhline(float(1 / data["classes"]), **style.DASHED)
    ax.set(ylim=panels.limits(accuracies, margin=0.06, above=0.3), ylabel="test accuracy at the end")


def names_of(subspaces: list[str]) -> list[str]:
    """Names of planes for an axis: their dimensions if these all differ, else the labels `subspaces`."""
    dimensions = [getattr(labels.parse_subspace(name), "dimension", None) for name in subspaces]
    if None in dimensions or len(set(dimensions)) < len(dimensions):
        return [name.replace("-", "\n") for name in subspaces]
    return [f"$d={dimension}$" for dimension in dimensions]
