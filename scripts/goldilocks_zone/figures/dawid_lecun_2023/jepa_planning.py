"""Success of planners against the number of evaluations of their predictors, with sub-goals from level 2 and without
(Dawid & LeCun 2023).
"""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from goldilocks_zone.figures import curves, panels, style
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies
from goldilocks_zone.models import planner_labels
from goldilocks_zone.models.planner_labels import Flat

FIGURE = {"id": "jepa_planning", "studies": ["jepa_rooms"], "needs": ["planner"]}

ROOMS = {"other": "goals in the other room", "same": "goals in the same room"}
COSTS = {"level1": "level-1 cost", "level2": "level-2 cost"}
# Labels of planners with sub-goals, in drawing order.
HIERARCHICAL = {
    "hierarchical": "sub-goals of level 2",
    "hierarchical-random": "random sub-goals",
    "hierarchical-true": "sub-goals, true dynamics",
}
SPREAD = 0.6  # horizontal range over which planners with equal calls are spread, in log2 of the calls


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    (study,) = studies.values()
    data = measured(study)
    rooms = [room for room in ROOMS if data["success_mean"].sel(rooms=room).notnull().any()] or ["other"]
    figure, axes = panels.grid(1, max(2, len(rooms)), settings, room=1.3, sharey=True)
    for ax in axes.flat[len(rooms) :]:
        ax.remove()
    for ax, room in zip(axes.flat, rooms):
        draw_room(ax, data.sel(rooms=room))
    axes[0, 0].set_ylabel("share of goals reached")
    panels.letter_titles(list(axes.flat[: len(rooms)]), [ROOMS[room] for room in rooms])
    panels.legend_on_top(figure, entries(data["planner"].values.tolist()), columns=4)
    return figure, data


def measured(study: xr.Dataset) -> xr.Dataset:
    """Means over draws: the share of goals reached (success), and the number of evaluations of predictors (calls).

    success_mean, success_low and success_high are the mean share and the ends of its 95 % interval; `calls` is the mean
    number. All have the axes (planner, rooms).
    """
    data = study[["success", "calls"]].isel({"dataset": 0, "network": 0, "subspace": 0, "radius": 0}, drop=True)
    found = curves.prefixed({"success": curves.means(data["success"])})
    return found.assign(calls=data["calls"].mean("draw").assign_attrs(data["calls"].attrs))


def shown(label: str) -> dict | None:
    """Style of the point for the planner with this `label`, as keyword arguments; None if no point is drawn for it.

    Points are drawn for the labels in HIERARCHICAL and for flat planners, except those that use the true dynamics or
    the cost of the last state alone.
    """
    if label in HIERARCHICAL:
        number = 2 + list(HIERARCHICAL).index(label)
        return {"color": style.colour(number), "marker": "*v^"[number - 2], "markersize": 8 if number == 2 else 5}
    planner = planner_labels.parse(label)
    if not isinstance(planner, Flat) or planner.true or planner.end:
        return None
    colour = style.colour(list(COSTS).index(planner.cost))
    marker = {8: "s", 16: "o"}.get(planner.steps, "D")
    return {"color": colour, "marker": marker, "markersize": 4, "markerfacecolor": colour if planner.held else "white"}


def draw_room(ax: Axes, data: xr.Dataset) -> None:
    """Draw the share of goals reached by each planner over its number of calls.

    `data` is a result of `measured`, reduced to one label of the axis rooms. Planners with equal numbers of calls are
    drawn side by side. Broken lines mark the success of planners that know the exact path length.
    """
    calls = data["calls"].values
    for value in np.unique(calls[np.isfinite(calls)]):
        looks = {label: shown(label) for label in data["planner"].values[calls == value].tolist()}
        here = {label: look for label, look in looks.items() if look}
        for number, (label, look) in enumerate(here.items()):
            x = value * 2 ** (SPREAD * curves.centred(number, len(here)) / max(6, len(here)))
            means = curves.parts_of(data.sel(planner=[label]), "success")
            curves.draw_means(ax, [x], means, linestyle="none", **look)
    for label in data["planner"].values.tolist():
        if "exact" in label and np.isfinite(top := data["success_mean"].sel(planner=label).item()):
            ax.axhline(top, **style.DASHED)
    known = sorted({round(float(each)) for each in calls[np.isfinite(calls)]})
    ax.set(xlabel="calls per start and plan", xscale="log", ylim=(-0.03, 1.05))
    ax.set_xticks(known, [str(each) for each in known])
    ax.minorticks_off()


def entries(planners: list[str]) -> list[Line2D]:
    """Legend entries: one for each planner with sub-goals, and one for each property that flat planners have.

    Of flat planners, colour shows the cost, filling whether actions are held, and the marker the number of steps.
    """
    found = [
        panels.entry(HIERARCHICAL[label], linestyle="none", **(shown(label) or {}))
        for label in HIERARCHICAL
        if label in planners
    ]
    flat = [planner_labels.parse(label) for label in planners]
    flat = [each for each in flat if isinstance(each, Flat) and not each.true]
    grey = {"color": "0.3", "linestyle": "none", "markersize": 4}
    for number, (cost, label) in enumerate(COSTS.items()):
        if any(each.cost == cost for each in flat):
            found.append(panels.entry(f"flat, {label}", **{**grey, "color": style.colour(number), "marker": "o"}))
    for held, label in {True: "actions held", False: "actions free"}.items():
        if any(each.held == held for each in flat):
            found.append(panels.entry(label, marker="o", **grey, **({} if held else {"markerfacecolor": "white"})))
    for steps, marker in {8: "s", 16: "o"}.items():
        if any(each.steps == steps for each in flat):
            found.append(panels.entry(f"{steps} steps ahead", marker=marker, **grey))
    if any("exact" in label for label in planners):
        found.append(panels.entry("exact way, true dynamics", **style.DASHED))
    return found
