"""Accuracy over learning rate and temperature at r_X, and the path across this map that is equivalent to a change of
radius."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from goldilocks_zone.claims.estimators import training
from goldilocks_zone.figures import curves, panels, style
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies
from goldilocks_zone.models import labels

FIGURE = {"id": "rate_temperature", "studies": ["rate_temperature", "planes"], "axis": "radius"}

MAP, PLANES = "rate_temperature", "planes"
ARM = {"rate_rule": "fixed", "temperature_rule": "fixed"}
ASIDE = 0.04  # offset of trained and predicted accuracies to either side, in log10(r/r_X)
PATH = {"marker": "o", "markersize": 4.5, "color": "white", "markeredgecolor": "black", "markeredgewidth": 0.8}
READ_OFF = style.look(1, markerfacecolor="white", markersize=5, linestyle="none")


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    mapped = map_of(studies[MAP]) if MAP in studies else None
    over_radii = path_of(studies[PLANES], mapped) if PLANES in studies else None
    parts = {name: part for name, part in (("map", mapped), ("radii", over_radii)) if part is not None}
    figure, axes = panels.grid(1, len(parts), settings, room=1.5, width_ratios=(1.2, 1)[: len(parts)])
    handles = [] if mapped is None else draw_map(axes[0, 0], mapped, over_radii)
    handles += [] if over_radii is None else draw_radii(axes[0, -1], over_radii)
    panels.letter_titles(axes[0])
    if handles:
        panels.legend_on_top(figure, handles, 3)
    return figure, panels.side_by_side(parts)


def map_of(study: xr.Dataset) -> xr.Dataset:
    """Mean final test accuracy over the learning rate and the temperature, with its 95 % interval.

    The variables mean, low and high have the axes (temperature, rate). Training starts at the radius nearest to r_X.
    """
    here = curves.primary(study, "rate", "temperature").isel(subspace=0, radius=curves.nearest_to_r_x(study))
    # `training.accuracy` would reduce an axis `rate` to its best value; the map shows all rates.
    accuracy = training.accuracy(here.rename(rate="map_rate")).rename(map_rate="rate")
    return summarised(accuracy).sortby(["rate", "temperature"]).transpose("temperature", "rate", ...)


def path_of(planes: xr.Dataset, mapped: xr.Dataset | None) -> xr.Dataset | None:
    """Mean accuracy over the radius at a fixed rate and temperature, and its prediction from the map `mapped`.

    The study `planes` has the accuracies after training on planes from several radii. Its part for the dataset, network
    and plane of the map is taken, with a rate and a temperature that do not change with the radius. Returns None if the
    study lacks this part. If `mapped` is None, the study's first plane and first rules are taken, and nothing is
    predicted. The result has the variables mean, low and high (radius).

    The prediction: training from α r_X is equivalent to training from r_X with the rate divided by α and the
    temperature divided by α to the power of the number of weight layers. map_rate and map_temperature (radius) are
    these equivalent values. map_mean, map_low and map_high (radius) are the map's values there, NaN where the map has
    no such node. These variables are left out if the number of layers is unknown or if every map_mean is NaN.
    """
    here = curves.primary(planes, *ARM, "rate", "temperature").isel(rate=0, temperature=0)
    if mapped is None:
        return summarised(training.accuracy(here.isel(subspace=0, rate_rule=0, temperature_rule=0)))
    wanted = {**ARM, "subspace": str(mapped["subspace"].values)}
    same = all(str(here[axis].values) == str(mapped[axis].values) for axis in ("dataset", "network"))
    if not same or any(value not in here[axis].values for axis, value in wanted.items()):
        return None
    result = summarised(training.accuracy(here.sel(wanted)))
    depth, ratio = labels.depth(str(here["network"].values)), 10 ** (result["x"].values / 2)
    if depth is None:
        return result
    places = {"rate": float(here["rate"]) / ratio, "temperature": float(here["temperature"]) * ratio**-depth}
    predicted = {part: [read_off(mapped[part], *place) for place in zip(*places.values())] for part in curves.PARTS}
    if not np.isfinite(predicted["mean"]).any():
        return result
    for axis, values in places.items():
        result[f"map_{axis}"] = ("radius", values, curves.described(f"{axis} at r_X that is the same as this radius"))
    for part, values in predicted.items():
        result[f"map_{part}"] = ("radius", values, mapped[part].attrs)
    return result


def summarised(accuracy: xr.DataArray) -> xr.Dataset:
    return curves.means(accuracy, "test accuracy at the end")[curves.PARTS]


def read_off(table: xr.DataArray, rate: float, temperature: float) -> float:
    """Value of a map `table` (temperature, rate) at the node of this `rate` and `temperature`.

    NaN if no node has both within 0.1 %, as in claim by3.
    """
    place = {"rate": rate, "temperature": temperature}
    nearest = {axis: int(np.abs(np.log(table[axis].values / value)).argmin()) for axis, value in place.items()}
    there = table.isel(nearest)
    return float(there) if all(np.isclose(float(there[axis]), place[axis], rtol=1e-3) for axis in place) else np.nan


def draw_map(ax: Axes, mapped: xr.Dataset, over_radii: xr.Dataset | None) -> list:
    """Draw the map of accuracies and, across it, the path equivalent to a change of radius; return legend entries.

    `mapped` is a result of `map_of`. The path is from `over_radii`, a result of `path_of`; it is left out if this is
    None or has no prediction. The text in each cell of the map is its mean and, in brackets, half the length of its
    interval, in units of the last digit.
    """
    across, up = (curves.bin_edges(np.log10(mapped[axis].values)) for axis in ("rate", "temperature"))
    mean, half = mapped["mean"].values, (mapped["high"] - mapped["low"]).values / 2
    cells = ax.pcolormesh(across, up, mean, cmap="cividis", edgecolors="white", linewidth=0.3)
    middle = (mean.min() + mean.max()) / 2
    for i, j in np.ndindex(mean.shape):
        place = {"xy": (across[j], up[i + 1]), "xytext": (2, -3), "textcoords": "offset points"}
        colour = "white" if mean[i, j] < middle else "black"
        text = f"{mean[i, j]:.2f}" + (f"({100 * half[i, j]:.0f})" if np.isfinite(half[i, j]) else "")
        ax.annotate(text, **place, ha="left", va="top", color=colour, fontsize=7)
    bar = ax.figure.colorbar(cells, ax=ax, aspect=30, pad=0.02, label="test accuracy")
    bar.outline.set_visible(False)
    for axis, name in ((ax.xaxis, "rate"), (ax.yaxis, "temperature")):
        places = np.log10(mapped[name].values)
        axis.set_ticks(places, [f"{round(place, 1) + 0:g}".replace("-", "−") for place in places])
    ax.set(xlabel=r"learning rate, $\log_{10}$", ylabel=r"temperature of the loss, $\log_{10}$")
    ax.set_title("from $r_X$, by rate and temperature")
    if over_radii is None or "map_mean" not in over_radii:
        return []
    # Points of the map that are equivalent to a radius, labelled by log10(r/r_X).
    points = over_radii.isel(radius=np.isfinite(over_radii["map_mean"].values))
    x, y = (np.log10(points[axis].values) for axis in ("map_rate", "map_temperature"))
    ax.plot(x, y, color="black", linewidth=2)
    ax.plot(x, y, color="white", linewidth=1)
    dots = ax.plot(x, y, linestyle="none", label=r"path of $r$, with $\log_{10}(r/r_X)$", **PATH)
    look = {"color": "black", "fontsize": 7, "bbox": {"color": "white", "pad": 0.6, "alpha": 0.85}}
    for rate, temperature, radius in zip(x, y, points["x"].values / 2):
        text = f"{round(radius, 2) + 0:g}".replace("-", "−")
        ax.annotate(text, (rate, temperature), (5, -4), textcoords="offset points", ha="left", va="top", **look)
    return dots


def draw_radii(ax: Axes, over_radii: xr.Dataset) -> list:
    """Draw accuracy over the radius, as trained and as predicted by the map at r_X; return legend entries.

    `over_radii` is a result of `path_of`.
    """
    x, shown = over_radii["x"].values / 2, [over_radii["mean"]]
    curves.draw_means(ax, x - ASIDE, over_radii, capsize=1.5, **style.look(0))
    handles = [panels.entry("trained from $r$", **style.look(0))]
    if "map_mean" in over_radii:
        found = curves.parts_of(over_radii, "map")
        curves.draw_means(ax, x + ASIDE, found, capsize=1.5, **READ_OFF)
        handles.append(panels.entry("read off the map", **READ_OFF))
        shown.append(found["mean"])
    chance = float(1 / over_radii["classes"])
    ax.axhline(chance, **style.DASHED)
    ax.axvline(0, **style.GREY)
    ax.set(xlabel=r"$\log_{10}(r/r_X)$", ylabel="test accuracy at the end", title="over the radius")
    ax.set_ylim(panels.limits(chance, *shown, margin=0.06))
    return handles
