"""Dimension needed for an accuracy, over the radius, and accuracy over the dimension (Li et al. 2018)."""

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.lines import Line2D

from goldilocks_zone.claims.estimators import training
from goldilocks_zone.figures import curves, over_radius, panels, style
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies

FIGURE = {
    "id": "intrinsic_dimension",
    "studies": ["planes", "intrinsic_dimension"],
    "axis": "radius",
    "published": "resources/published/li_2018/accuracy.csv",
}

HALF = 0.5  # the accuracy that defines the dimension needed
APART = 0.1  # horizontal offset between two arms, in log10(r/r_X)
ROOM_BESIDE = 0.15  # margin beside the smallest and the largest dimension, in log10 d
SHARE = 0.9  # share of the full-space accuracy that defines the intrinsic dimension
WHOLE = "full-free"
NAME = "intrinsic_dimension"  # random stream of the intervals
MEASURED = style.look(0, markersize=3, linewidth=1)
IN_WHOLE_SPACE = {"color": style.colour(2), "linewidth": 1}
OF_WHOLE_SPACE = {"color": style.colour(2), "linewidth": 0.8, "linestyle": ":"}
REACHED = {"color": style.colour(1), "linestyle": "none", "marker": "D", "markersize": 4}
OPEN = {"linestyle": "none", "markerfacecolor": "none", "markeredgewidth": 0.7, "markersize": 4.5}
PUBLISHED = {**OPEN, "color": "k", "marker": "s"}
DIMENSION = curves.described("dimension of the plane or sphere")
BOUNDS = {1: ("^", "lower bound"), -1: ("v", "upper bound")}
PARTS = {"mean": "mean over draws", **curves.ends_of("the 95 % interval")}


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    shown = {name: over_radius.families(study) for name, study in studies.items()}
    at_one_radius = shown.get("intrinsic_dimension", [])
    at_all = [each for each in shown.get("planes", []) if each[1].sizes["subspace"] > 1 or not at_one_radius]
    count = len(at_all) + len(at_one_radius)
    figure, axes = panels.page(count, settings, columns=min(count, 2), room=1.2)
    drawn = {}
    for ax, (title, cells) in zip(axes, at_all):
        name = panels.letter(len(drawn))
        drawn[name] = dimensions_needed(cells)
        panels.legend_above(ax, f"({name}) {title}, accuracy of one half", draw_needed(ax, cells, drawn[name]))
    for ax, (title, cells) in zip(axes[len(drawn) :], at_one_radius):
        name = panels.letter(len(drawn))
        cell = at_r_x(studies["intrinsic_dimension"], cells)
        drawn[name] = over_dimensions(cell)
        points = [(float(row["d"]), float(row["accuracy"])) for row in over_radius.published_rows(published, cell)]
        handles = draw_over_dimensions(ax, cell, drawn[name], np.reshape(points, (-1, 2)).T)
        ratio = 10 ** (cell["x"].item() / 2)
        radius = "$r=r_X$" if np.isclose(ratio, 1) else rf"$r={ratio:.2g}\,r_X$"
        panels.legend_above(ax, f"({name}) {title}, {radius}", handles)
    return figure, panels.side_by_side(drawn)


def dimensions_needed(cells: xr.Dataset) -> xr.Dataset:
    """Mean over draws of log10 of the dimension needed for an accuracy of HALF: variables mean, low, high and bound.

    `cells` is a family of `over_radius.families`. All variables have the axes (…, radius), with the rules of rate and
    temperature that the study varies. low and high are the ends of the 95 % interval. `bound` is 1 if a draw stays
    below HALF in every dimension: the mean is a lower bound. Otherwise it is −1 if a draw reaches HALF already in the
    smallest dimension: the mean is an upper bound. It is 0 in all other cases. low and high are NaN unless it is 0.
    """
    values = training.accuracy(cells).drop_vars("rate", errors="ignore").transpose(..., "radius", "subspace", "draw")
    dimensions = cells["dimension"].values

    def needed(sample: np.ndarray) -> float:
        return float(np.mean([training.dimension_needed(dimensions, of_draw, HALF)[1] for of_draw in sample.T]))

    rows = []
    for sample in values.values.reshape(-1, *values.shape[-2:]):
        bound = 1 if (sample.max(0) < HALF).any() else -1 if (sample[0] >= HALF).any() else 0
        mean, *ends = curves.bootstrapped(needed, sample, NAME, "needed")
        rows.append([mean, *([np.nan, np.nan] if bound else ends), bound])
    parts = PARTS | {"bound": "1 where the mean is a lower bound, -1 an upper one:"}
    meanings = {name: f"{part} log10 of the dimension for an accuracy of {HALF}" for name, part in parts.items()}
    variables = curves.columns(values.dims[:-2], np.reshape(rows, (*values.shape[:-2], -1)), meanings)
    return xr.Dataset(variables, values.isel(subspace=0, draw=0, drop=True).coords, cells.attrs)


def draw_needed(ax: Axes, cells: xr.Dataset, data: xr.Dataset) -> list[Line2D]:
    """Draw the dimension needed over the radius, with one curve for each arm of `cells`; return legend entries.

    `data` is a result of `dimensions_needed`. Curves are interrupted at bounds, which have their own markers.
    """
    arms = over_radius.arms(cells)
    for number, (rate, temperature, place) in enumerate(arms):
        curve, look = data.sel(place), over_radius.look(rate, temperature)
        over_radius.draw(ax, curve.where(curve["bound"] == 0), number, len(arms), look, APART)
        for bound, (marker, _) in BOUNDS.items():
            here = curve.isel(radius=(curve["bound"] == bound).values)
            x = over_radius.moved_aside(here, number, len(arms), APART)
            ax.plot(x, here["mean"], color=look["color"], marker=marker, **OPEN)
    ax.axvline(0, **style.GREY)
    ax.set(xlabel=over_radius.X_LABEL, ylabel="dimension needed")
    show_dimensions(ax.yaxis, cells["dimension"].values)
    bounds = [BOUNDS[bound] for bound in BOUNDS if (data["bound"] == bound).any()]
    handles = over_radius.arm_handles([arm[:2] for arm in arms])
    return handles + [panels.entry(label, color="k", marker=marker, **OPEN) for marker, label in bounds]


def show_dimensions(axis: Axis, dimensions: np.ndarray) -> None:
    """Set ticks and limits of an axis in log10 d, with room for all `dimensions`."""
    over_radius.label_dimensions(axis, dimensions)
    low, high = np.log10(dimensions[[0, -1]])
    axis.set_view_interval(low - ROOM_BESIDE, high + ROOM_BESIDE, ignore=True)


def at_r_x(study: xr.Dataset, cells: xr.Dataset) -> xr.Dataset:
    """Select from a study the family `cells` and, if there is any, training in the full space, at one radius.

    `cells` is a family of `over_radius.families`. The radius is the one nearest to r_X; its axis is kept, of length 1.
    Rules of rate and temperature are selected by `over_radius.with_fixed_rules`.
    """
    whole = [WHOLE] if WHOLE in study["subspace"].values else []
    place = {axis: cells[axis].item() for axis in ("dataset", "network")}
    study = over_radius.with_fixed_rules(over_radius.first_values(study)).sel(place)
    study = study.sel(subspace=[*cells["subspace"].values.tolist(), *whole])
    return study.isel(radius=[curves.nearest_to_r_x(study)])


def over_dimensions(cell: xr.Dataset) -> xr.Dataset:
    """Mean accuracy over draws in each dimension: mean, low and high (subspace), for a `cell` with one radius.

    low and high are the ends of the 95 % interval. If the cell has training in the full space, whole_mean, whole_low
    and whole_high are the same for its accuracy. The intrinsic dimension is the smallest that reaches the share SHARE
    of the full-space accuracy. intrinsic_mean, intrinsic_low and intrinsic_high are its log10 with the interval; they
    are left out unless it is larger than the smallest dimension of the cell and at most the largest.
    """
    dimensions, ordered = training.dimensions_of(cell)
    rows = [mean_accuracy(ordered.isel(subspace=i)) for i in range(len(dimensions))]
    found: dict[str, tuple[tuple[str, ...], Any, str]] = {"": (("subspace",), rows, "test accuracy")}
    if WHOLE in cell["subspace"].values:
        found["whole_"] = ((), mean_accuracy(cell.sel(subspace=WHOLE)), "test accuracy in the whole space")
    intrinsic = curves.of_claim(training.intrinsic_dimension, cell, SHARE, 1, NAME)
    if intrinsic[0] > np.log10(dimensions[0]):
        found["intrinsic_"] = ((), intrinsic, "log10 of the intrinsic dimension")
    data = xr.Dataset(coords={"dimension": ("subspace", dimensions, DIMENSION)}, attrs=cell.attrs)
    for name, (dims, values, quantity) in found.items():
        meanings = {f"{name}{part}": f"{meaning}, {quantity}" for part, meaning in PARTS.items()}
        data.update(curves.columns(dims, np.array(values), meanings))
    return data


def mean_accuracy(cell: xr.Dataset) -> curves.WithInterval:
    return curves.bootstrapped(np.mean, training.accuracy(cell).isel(radius=0).values, NAME, "accuracy")


def draw_over_dimensions(ax: Axes, cell: xr.Dataset, data: xr.Dataset, published: np.ndarray) -> list[Line2D]:
    """Draw accuracy over log10 of the dimension d, with published and full-space accuracies; return legend entries.

    `data` is a result of `over_dimensions` for the `cell`. The rows of `published` (2, points) are dimensions and
    accuracies.
    """
    dimensions = data["dimension"].values
    ax.errorbar(np.log10(dimensions), data["mean"], curves.bars(data), elinewidth=0.8, **MEASURED)
    handles = [panels.entry("measured", **MEASURED)]
    if published.size:
        handles += ax.plot(np.log10(published[0]), published[1], label="published", **PUBLISHED)
    highest = [data["mean"].max(), *published[1]]
    if "whole_mean" in data:
        whole = float(data["whole_mean"])
        handles.append(ax.axhline(whole, label="whole space", **IN_WHOLE_SPACE))
        handles.append(ax.axhline(SHARE * whole, label="nine tenths of it", **OF_WHOLE_SPACE))
        ax.axhspan(
            float(data["whole_low"]), float(data["whole_high"]), color=IN_WHOLE_SPACE["color"], alpha=0.2, linewidth=0
        )
        highest.append(whole)
        if "intrinsic_mean" in data:
            x, low, high = (float(data[f"intrinsic_{part}"]) for part in PARTS)
            ax.plot([low, high], [SHARE * whole] * 2, color=REACHED["color"], linewidth=0.8)
            ax.plot(x, SHARE * whole, **REACHED)
            handles.append(panels.entry("smallest $d$ to reach it", **REACHED))
    over_radius.show_accuracy(ax, cell, float(max(highest)))
    show_dimensions(ax.xaxis, np.union1d(dimensions, published[0]).astype(int))
    ax.set(xlabel="dimension $d$", ylabel=over_radius.Y_LABEL)
    return handles
