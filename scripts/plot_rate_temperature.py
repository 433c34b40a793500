"""Accuracy over learning rate and temperature at r_X, and the path over this map that changing the radius takes."""

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

from goldilocks_zone.claims.estimators import training
from goldilocks_zone.figures import curves, panels
from goldilocks_zone.figures import style as figures_style
from goldilocks_zone.jobs.log import job_log
from goldilocks_zone.models import labels

MAP, PLANES = "rate_temperature", "planes"
ARM = {"rate_rule": "fixed", "temperature_rule": "fixed"}
SAME = 1e-3  # relative: how far a point of the path may lie from one of the map, as in claim by3
DODGE = 0.04  # of what was trained and what the map says, to either side, in log10(r/r_X)
ROOM = 1.5  # for what stands above the panels, relative to a row of them
SIZE = 7  # of text in cells, in points
PATH = {"marker": "o", "markersize": 4.5, "color": "white", "markeredgecolor": "black", "markeredgewidth": 0.8}
TRAINED = {"color": figures_style.colour(0), "marker": "o", "capsize": 1.5}
READ_OFF = {
    "color": figures_style.colour(1),
    "marker": "s",
    "capsize": 1.5,
    "markerfacecolor": "white",
    "markersize": 5,
}


def plot_rate_temperature(
    paths_to_studies: list[str], path_to_settings: str, path_to_pdf: str, path_to_png: str, path_to_data: str
) -> None:
    studies, settings = panels.load_all(paths_to_studies, path_to_settings)
    mapped = map_of(studies[MAP]) if MAP in studies else None
    over_radii = path_of(studies[PLANES], mapped) if PLANES in studies else None
    parts = {name: part for name, part in (("map", mapped), ("radii", over_radii)) if part is not None}
    width, height = figures_style.page_size(1, settings)
    size, ratios = (width, height * ROOM), (1.2, 1)[: len(parts)]
    figure, axes = plt.subplots(1, len(parts), figsize=size, squeeze=False, width_ratios=ratios)
    handles = []
    if mapped is not None:
        handles += draw_map(axes[0, 0], mapped, over_radii)
    if over_radii is not None:
        handles += draw_radii(axes[0, -1], over_radii)
    for ax, letter in zip(axes[0], "ab"):
        ax.set_title(f"({letter}) {ax.get_title()}")
    if handles:
        figure.legend(handles=handles, loc="outside upper center", ncols=3)
    figures_style.save(figure, panels.side_by_side(parts), path_to_pdf, path_to_png, path_to_data)


def map_of(study: xr.Dataset) -> xr.Dataset:
    """Test accuracy at the end over rate and temperature, at the radius nearest to r_X: its mean and interval."""
    here = curves.primary(study, "rate", "temperature").isel(subspace=0, radius=curves.nearest_to_r_x(study))
    # A rate by another name: a map shows all rates, not the best.
    accuracy = training.accuracy(here.rename(rate="map_rate")).rename(map_rate="rate")
    return summarised(accuracy).sortby(["rate", "temperature"]).transpose("temperature", "rate", ...)


def path_of(planes: xr.Dataset, mapped: xr.Dataset | None) -> xr.Dataset | None:
    """Accuracy over the radius with fixed rate and temperature on the map's plane, and what the map foretells of it.

    The radius α r_X is trained as r_X is with the rate over α and the temperature α⁻ⁿ, n the number of weight layers:
    map_mean, map_low and map_high where the map has that point. None if the study did not train in this way there.
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
    foretold = {
        f"map_{part}": [read_off(mapped[part], *place) for place in zip(*places.values())]
        for part in ("mean", "low", "high")
    }
    if not np.isfinite(foretold["map_mean"]).any():
        return result
    for axis, values in places.items():
        meaning = f"{axis} at r_X that is the same as this radius"
        result[f"map_{axis}"] = ("radius", values, {"units": "1", "long_name": meaning})
    for name, values in foretold.items():
        result[name] = ("radius", values, mapped[name.removeprefix("map_")].attrs)
    return result


def summarised(accuracy: xr.DataArray) -> xr.Dataset:
    """Mean accuracy over draws with its interval, and what is known of its place."""
    found = curves.means(accuracy.assign_attrs(units="1", long_name="test accuracy at the end"))
    return found.drop_vars("standard_deviation")


def read_off(table: xr.DataArray, rate: float, temperature: float) -> float:
    """The value of a map (temperature, rate) at a point; NaN where the map has none."""
    place = {"rate": rate, "temperature": temperature}
    there = table.isel(
        {axis: int(np.abs(np.log(table[axis].values / value)).argmin()) for axis, value in place.items()}
    )
    return float(there) if all(np.isclose(float(there[axis]), place[axis], rtol=SAME) for axis in place) else np.nan


def draw_map(ax: plt.Axes, mapped: xr.Dataset, over_radii: xr.Dataset | None) -> list:
    """Accuracies in cells, each with its interval's half-width in its last digits; on them the path of the radius.

    Returns entries of a legend.
    """
    across, up = (edges(np.log10(mapped[axis].values)) for axis in ("rate", "temperature"))
    mean, half = mapped["mean"].values, (mapped["high"] - mapped["low"]).values / 2
    cells = ax.pcolormesh(across, up, mean, cmap="cividis", edgecolors="white", linewidth=0.3)
    middle = (mean.min() + mean.max()) / 2
    for i, j in np.ndindex(mean.shape):
        place = {"xy": (across[j], up[i + 1]), "xytext": (2, -3), "textcoords": "offset points"}
        colour = "white" if mean[i, j] < middle else "black"
        text = f"{mean[i, j]:.2f}" + (f"({100 * half[i, j]:.0f})" if np.isfinite(half[i, j]) else "")
        ax.annotate(text, **place, ha="left", va="top", color=colour, fontsize=SIZE)
    bar = ax.figure.colorbar(cells, ax=ax, aspect=30, pad=0.02)
    bar.set_label("test accuracy")
    bar.outline.set_visible(False)
    ax.set_xticks(*ticks(mapped["rate"].values))
    ax.set_yticks(*ticks(mapped["temperature"].values))
    ax.set_xlabel(r"learning rate, $\log_{10}$")
    ax.set_ylabel(r"temperature of the loss, $\log_{10}$")
    ax.set_title("from $r_X$, by rate and temperature")
    if over_radii is None or "map_mean" not in over_radii:
        return []
    return draw_path(ax, over_radii.isel(radius=np.isfinite(over_radii["map_mean"].values)))


def draw_path(ax: plt.Axes, points: xr.Dataset) -> list:
    """The points of the map that stand for radii, each with its log10(r/r_X); returns the entry of a legend."""
    x, y = (np.log10(points[axis].values) for axis in ("map_rate", "map_temperature"))
    ax.plot(x, y, color="black", linewidth=2)
    ax.plot(x, y, color="white", linewidth=1)
    dots = ax.plot(x, y, linestyle="none", label=r"path of $r$, with $\log_{10}(r/r_X)$", **PATH)
    for place in zip(x, y, points["x"].values / 2):
        text = f"{round(place[2], 2) + 0:g}".replace("-", "−")
        style = {"color": "black", "fontsize": SIZE, "bbox": {"color": "white", "pad": 0.6, "alpha": 0.85}}
        ax.annotate(text, place[:2], (5, -4), textcoords="offset points", ha="left", va="top", **style)
    return dots


def draw_radii(ax: plt.Axes, over_radii: xr.Dataset) -> list:
    """The accuracy over the radius as trained, and as read off the map at r_X; returns entries of a legend."""
    x, shown = over_radii["x"].values / 2, [over_radii["mean"]]
    curves.draw_means(ax, x - DODGE, over_radii, **TRAINED)
    handles = [plt.Line2D([], [], label="trained from $r$", **without_caps(TRAINED))]
    if "map_mean" in over_radii:
        found = xr.Dataset({part: over_radii[f"map_{part}"] for part in ("mean", "low", "high")})
        curves.draw_means(ax, x + DODGE, found, linestyle="none", **READ_OFF)
        handles.append(plt.Line2D([], [], linestyle="none", label="read off the map", **without_caps(READ_OFF)))
        shown.append(found["mean"])
    chance = float(1 / over_radii["classes"])
    ax.axhline(chance, color="0.6", linewidth=0.5, linestyle="--", zorder=0)
    ax.axvline(0, color="0.6", linewidth=0.5, zorder=0)
    values = np.concatenate([[chance], *shown])
    low, high = np.nanmin(values), np.nanmax(values)
    ax.set_ylim(low - 0.06 * (high - low), high + 0.06 * (high - low))
    ax.set_xlabel(r"$\log_{10}(r/r_X)$")
    ax.set_ylabel("test accuracy at the end")
    ax.set_title("over the radius")
    return handles


def without_caps(style: dict) -> dict:
    """A style of bars as that of a line in a legend."""
    return {key: value for key, value in style.items() if key != "capsize"}


def edges(values: np.ndarray) -> np.ndarray:
    """Half-way places between ascending values (n,), and as far beyond the ends: (n + 1,)."""
    if len(values) == 1:
        return values[0] + np.array([-0.5, 0.5])
    half = np.diff(values) / 2
    return np.concatenate([[values[0] - half[0]], values[:-1] + half, [values[-1] + half[-1]]])


def ticks(values: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Places and labels of ticks at the logarithms of values."""
    places = np.log10(values)
    return places, [f"{round(place, 1) + 0:g}".replace("-", "−") for place in places]


if __name__ == "__main__":
    with job_log(snakemake.log[0], snakemake.input):
        plot_rate_temperature(
            paths_to_studies=list(snakemake.input.studies),
            path_to_settings=snakemake.input.settings,
            path_to_pdf=snakemake.output.pdf,
            path_to_png=snakemake.output.png,
            path_to_data=snakemake.output.data,
        )
