"""Prediction error over the horizon: level 1 unrolled, a predictor of a whole span at once, and level 2 (Dawid & LeCun
2023)."""

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import StrMethodFormatter

from goldilocks_zone.data import worlds
from goldilocks_zone.figures import curves, panels, style
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies

FIGURE = {"id": "jepa_horizons", "studies": ["jepa_horizons", "jepa_rooms"], "needs": ["horizon"]}

LEVELS = {"level_1": "level 1, unrolled", "direct": "level 1, a span at once", "level_2": "level 2"}
# Style of the decoders, which are fitted on predictions (own) or on embeddings of observations (observed).
DECODERS = {"own": {"linestyle": "-"}, "observed": {"linestyle": "--", "markerfacecolor": "white"}}
TARGETS = {"phi": "slow angle $\\varphi$", "theta": "fast angle $\\theta$", "place": "place"}
FLOOR = 0.0  # R² of predicting the mean, which a decoder can always do


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    parts = {name: measured(study) for name, study in studies.items()}
    shown = [(name, target) for name, part in parts.items() for target in part["target"].values.tolist()]
    count = len(shown) + len(parts)
    figure, axes = panels.page(count, settings, columns=min(count, 3), room=1.1)
    for ax, (name, target) in zip(axes, shown):
        draw_decoded(ax, parts[name].sel(target=target))
        title = TARGETS.get(target, target)
        ax.set(
            ylabel=f"$R^2$ of the {title}",
            ylim=panels.limits([1.0], axis_of(parts[name].sel(target=target)), margin=0.04),
        )
    for ax, part in zip(axes[len(shown) :], parts.values()):
        draw_unexplained(ax, part)
        ax.set(ylabel="own error, median (FVU)", yscale="log")
    titles = [str(TARGETS.get(target, target)) for _, target in shown]
    titles += [f"own space, {world(study)}" for study in studies.values()]
    owners = [name for name, _ in shown] + list(parts)
    for ax, name in zip(axes, owners):
        ends = parts[name]["horizon"].values[[0, -1]] * [0.8, 1.25]
        ax.set(xlabel="horizon (steps)", xlim=ends)
        ax.set_xscale("log", base=2)
        ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    panels.letter_titles(axes, titles)
    levels = [panels.entry(label, **look(level)) for level, label in LEVELS.items()]
    fitted = {"own": "decoder fitted on predictions", "observed": "on what is observed"}
    lines = [panels.entry(fitted[name], color="0.3", **each) for name, each in DECODERS.items()]
    panels.legend_on_top(figure, [*levels, *lines, panels.entry("best possible", **style.DASHED)], columns=3)
    return figure, panels.side_by_side(parts)


def world(study: xr.Dataset) -> str:
    return {"ring": "ring world", "two_rooms": "two rooms"}[study["dataset"].values[0]]


def measured(study: xr.Dataset) -> xr.Dataset:
    """Means over draws of decoded R² and of prediction errors, with 95 % intervals, and the best possible R².

    A level is a way to predict, a key of LEVELS. R² measures how well a target, such as an angle, is decoded from a
    prediction; negative values count as 0. Its means are decoded_mean, _low and _high (level, target, decoder,
    horizon). The error is the median squared error of predictions in the level's own embeddings, divided by that of
    predicting the mean. Its geometric means are unexplained_mean, _low and _high (level, horizon). best_possible
    (target, horizon) is NaN except in ring world.
    """
    axes = {"dataset": 0, "network": 0, "subspace": 0, "radius": 0}
    data = study[["r_squared", "unexplained"]].isel(axes, drop=True)
    about = "R² of what is decoded from predictions, negative ones as 0"
    found = {"decoded": curves.means(data["r_squared"].clip(min=FLOOR), about)}
    found["unexplained"] = curves.logarithmic_means(data["unexplained"])
    return curves.prefixed(found).assign(best_possible=best_possible(study, data))


def best_possible(study: xr.Dataset, data: xr.Dataset) -> xr.DataArray:
    """Largest R² (target, horizon) that any prediction can reach in ring world; NaN in other worlds.

    `study` gives the settings of the world; `data` gives the targets and horizons.
    """
    settings, targets = curves.settings_of(study), data["target"].values.tolist()
    values = np.full((len(targets), data.sizes["horizon"]), np.nan)
    if world(study) == "ring world":
        ring = worlds.Ring(settings["seed"], noise=settings["noise"])
        for i, horizon in enumerate(data["horizon"].values.tolist()):
            values[:, i] = [ring.predictable(horizon)[target] for target in targets]
    coordinates = {"target": targets, "horizon": data["horizon"].values}
    return xr.DataArray(values, coordinates, attrs=curves.described("largest R² of any prediction from now"))


def axis_of(data: xr.Dataset) -> np.ndarray:
    """Values for which the y-axis of a panel must have room: the finite means of R² in its `data`, or else [FLOOR]."""
    means = data["decoded_mean"].values
    return means[np.isfinite(means)] if np.isfinite(means).any() else np.array([FLOOR])


def look(level: str) -> dict:
    return style.look(list(LEVELS).index(level), markersize=3, linewidth=1.0)


def draw_decoded(ax: Axes, data: xr.Dataset) -> None:
    """Draw R² of each level over the horizon for both decoders, and the best possible R² as a broken line.

    `data` is a result of `measured`, reduced to one label of the axis target.
    """
    for level in LEVELS:
        for decoder, line in DECODERS.items():
            here = curves.parts_of(data.sel(level=level, decoder=decoder), "decoded")
            draw_known(ax, here, **{**look(level), **line})
    ax.plot(data["horizon"], data["best_possible"], **style.DASHED)


def draw_unexplained(ax: Axes, data: xr.Dataset) -> None:
    """Draw the prediction error of each level in its own embeddings over the horizon, and a broken line at 1.

    `data` is a result of `measured`.
    """
    for level in LEVELS:
        draw_known(ax, curves.parts_of(data.sel(level=level), "unexplained"), **look(level))
    ax.axhline(1, **style.GREY, linestyle=":")


def draw_known(ax: Axes, here: xr.Dataset, **how: Any) -> None:
    known = here.isel(horizon=here["mean"].notnull().values)
    if known.sizes["horizon"]:
        curves.draw_means(ax, known["horizon"].values, known, **how)
