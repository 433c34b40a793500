"""Final radius of free training from inside the zone, over the learning rate and over rate times steps."""

from itertools import product, zip_longest

import xarray as xr
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter, NullLocator

from goldilocks_zone.figures import curves, panels, style
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies

FIGURE = {"id": "drawn", "studies": ["drawn"], "axis": "radius"}

ORIGINAL = "original"
LABELS = {"original": "original labels", "shuffled": "shuffled labels"}
GREY = "0.55"
# Two hypotheses on the final radius: the slope of log r over the log of the rate, and the line style of the guide.
READINGS = {"slope 0: drawn to a radius": (0, "--"), "slope 1: rate × steps": (1, "-.")}


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    (study,) = studies.values()
    data = relative_radii(curves.primary(study, "rate", "labels").isel(subspace=0).sortby("rate"))
    figure, ((left, right),) = panels.grid(1, 2, settings, room=1.5, sharey=True)
    draw_ends(left, data)
    draw_growth(right, data)
    for ax in (left, right):
        ax.axhline(1, **style.GREY)
        ax.set(xscale="log", yscale="log")
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.yaxis.set_minor_formatter(NullFormatter())
    rates = data["rate"].values
    left.set_xticks(rates, [f"{rate:g}" for rate in rates])
    left.xaxis.set_minor_locator(NullLocator())
    limits = panels.log_limits(data["mean"], 0.0 if float(data["mean"].max()) < 0 else data["mean"])
    left.set(ylabel=r"radius $r/r_X$", ylim=limits)
    rows, blank = list(zip_longest(*legend_columns(data))), panels.entry(" ", linestyle="none")
    panels.legend_on_top(figure, [handle or blank for column in zip(*rows) for handle in column], len(rows[0]))
    return figure, data


def relative_radii(study: xr.Dataset) -> xr.Dataset:
    """Mean over draws of log10(r/r_X) at each logged step, with its interval, and the variable `budget`.

    The variables of the mean are those of `curves.means`. Their axes are step, radius (the initial radius), rate and
    labels, in any order. `budget` (rate, step) is the learning rate times the number of steps, divided by r_X.
    """
    norm = study["norm"]
    r_x = norm.isel(step=0, drop=True) / 10 ** (study["x"] / 2)
    data = curves.means(xr.ufuncs.log10(norm / r_x), "log10(r/r_X)")
    budget = (study["rate"] * study["step"] / r_x.mean()).drop_attrs()
    data["budget"] = budget.assign_attrs(curves.described("learning rate × steps, over r_X"))
    return data.assign_attrs(study.attrs)


def draw_ends(ax: Axes, data: xr.Dataset) -> None:
    """Draw the final radius over the rate, with one line per initial radius and kind of labels.

    `data` is a result of `relative_radii`. Dotted lines mark the initial radii, and grey guides show the two hypotheses
    in READINGS.
    """
    ends, rates = data.isel(step=-1), data["rate"].values
    starts = range(data.sizes["radius"])
    names: list[str] = data["labels"].values.tolist()
    lines = list(product(names, starts))
    for i, (name, number) in enumerate(lines):
        here = 10 ** ends[curves.PARTS].isel(radius=number).sel(labels=name).transpose("rate", ...)
        places = rates * 1.04 ** curves.centred(i, len(lines))
        curves.draw_means(ax, places, here, capsize=1.5, **look(style.colour(number), 0, name))
    for number in starts:
        start = float(data["mean"].isel(radius=number, step=0).mean())
        ax.axhline(10**start, color=style.colour(number), linewidth=0.7, linestyle=":", zorder=0)
    middle = ends["mean"].isel(labels=0, rate=len(rates) // 2).mean("radius")
    for slope, line in READINGS.values():
        guide = 10 ** float(middle) * (rates / rates[len(rates) // 2]) ** slope
        ax.plot(rates, guide, color=GREY, linewidth=0.7, linestyle=line, zorder=0)
    ax.set(xlabel="learning rate", title=panels.lettered(0, f"after {int(data['step'][-1])} steps"))


def draw_growth(ax: Axes, data: xr.Dataset) -> None:
    names: list[str] = data["labels"].values.tolist()
    for number, i, name in product(range(data.sizes["radius"]), range(data.sizes["rate"]), names):
        here = data.isel(radius=number, rate=i, step=slice(1, None)).sel(labels=name).transpose("step", ...)
        colour, order = (style.colour(number), 2) if name == ORIGINAL else (GREY, 1)
        more = look(colour, i, name) | {"linewidth": 0.6, "zorder": order}
        curves.draw_means(ax, here["budget"].values, 10 ** here[curves.PARTS], **more)
    ax.set(xlabel=r"learning rate $\times$ steps, over $r_X$", title=panels.lettered(1, "after all logged steps"))


def look(colour: str, number: int, name: str) -> dict:
    """Style of a curve in a `colour`, as keyword arguments; `number` chooses the marker.

    `name` is the kind of labels that the network was trained on. If they are the original labels, markers are filled
    and the line is solid. If they are others, such as shuffled labels, markers are open and the line is broken.
    """
    filling, line = (colour, "-") if name == ORIGINAL else ("white", "--")
    more = {"color": colour, "markerfacecolor": filling, "linestyle": line}
    return style.look(number, markersize=3.5, markeredgewidth=0.8, **more)


def legend_columns(data: xr.Dataset) -> list[list[Line2D]]:
    """Columns of legend entries: initial radii (colour), rates (marker), labels (filling), and hypotheses.

    `data` is a result of `relative_radii`. The column of hypotheses explains the guides of `draw_ends`.
    """
    radii = enumerate(10 ** (data["x"].values / 2))
    starts = [panels.entry(f"from $r={radius:.2g}\\,r_X$", color=style.colour(i)) for i, radius in radii]
    dots = [look("k", i, ORIGINAL) | {"linestyle": "none"} for i in range(data.sizes["rate"])]
    rates = [panels.entry(f"rate {rate:g}", **dot) for rate, dot in zip(data["rate"].values, dots)]
    names: list[str] = data["labels"].values.tolist()
    labels = [panels.entry(LABELS.get(name, name), **look("k", 0, name)) for name in names]
    readings = [panels.entry(text, color=GREY, linewidth=0.7, linestyle=line) for text, (_, line) in READINGS.items()]
    return [starts, rates, labels, readings]
