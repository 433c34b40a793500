"""Where the radius of free training from inside of the zone ends: by the learning rate, and by rate times steps."""

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.ticker import NullFormatter, NullLocator

from goldilocks_zone.figures import curves
from goldilocks_zone.figures import style as figures_style
from goldilocks_zone.jobs.log import job_log

ORIGINAL = "original"
LABELS = {"original": "original labels", "shuffled": "shuffled labels"}
DODGE = 1.04  # between the points of two lines at one rate, as a factor
ROOM = 1.5  # for what stands above the panels, relative to a row of them
GREY = "0.55"
# Two readings of where training ends: the slope of log r over the log of the rate, and the line of its guide.
READINGS = {"slope 0: drawn to a radius": (0, "--"), "slope 1: rate × steps": (1, "-.")}


def plot_drawn(
    path_to_study: str, path_to_settings: str, path_to_pdf: str, path_to_png: str, path_to_data: str
) -> None:
    study, settings = figures_style.load(path_to_study, path_to_settings)
    data = relative_radii(curves.primary(study, "rate", "labels").isel(subspace=0).sortby("rate"))
    width, height = figures_style.page_size(1, settings)
    figure, (left, right) = plt.subplots(1, 2, figsize=(width, height * ROOM), sharey=True)
    draw_ends(left, data)
    draw_growth(right, data)
    for ax in (left, right):
        ax.axhline(1, color="0.6", linewidth=0.5, zorder=0)
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.yaxis.set_minor_formatter(NullFormatter())
    rates = data["rate"].values
    left.set_xticks(rates, [f"{rate:g}" for rate in rates])
    left.xaxis.set_minor_locator(NullLocator())
    left.set_ylabel(r"radius $r/r_X$")
    limit(left, data)
    columns = legend_columns(data)
    longest = max(map(len, columns))
    blank = [plt.Line2D([], [], linestyle="none", label=" ")]
    handles = [handle for column in columns for handle in column + blank * (longest - len(column))]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(columns))
    figures_style.save(figure, data, path_to_pdf, path_to_png, path_to_data)


def relative_radii(study: xr.Dataset) -> xr.Dataset:
    """log10(r/r_X) after the logged steps: mean over draws with its interval; and the budget, rate × steps over r_X."""
    norm = study["norm"]
    r_x = norm.isel(step=0, drop=True) / 10 ** (study["x"] / 2)
    relative = np.log10(norm / r_x).assign_attrs(units="1", long_name="log10(r/r_X)")
    data = curves.means(relative)
    budget = (study["rate"] * study["step"] / r_x.mean()).drop_attrs()
    data["budget"] = budget.assign_attrs(units="1", long_name="learning rate × steps, over r_X")
    return data.assign_attrs(study.attrs)


def draw_ends(ax: plt.Axes, data: xr.Dataset) -> None:
    """The radius at the end over the rate, a line for each start, and what two readings of the claim expect."""
    ends = data.isel(step=-1)
    starts, names = range(data.sizes["radius"]), data["labels"].values.tolist()
    lines = [(number, name) for name in names for number in starts]
    for i, (number, name) in enumerate(lines):
        here = ends.isel(radius=number).sel(labels=name).transpose("rate", ...)
        places = here["rate"].values * DODGE ** (i - (len(lines) - 1) / 2)
        style = look(figures_style.colour(number), figures_style.marker(0), name)
        draw_logarithms(ax, places, here, linestyle=line(name), capsize=1.5, **style)
    for number in starts:
        start = float(data["mean"].isel(radius=number, step=0).mean())
        ax.axhline(10**start, color=figures_style.colour(number), linewidth=0.7, linestyle=":", zorder=0)
    rates = data["rate"].values
    middle = ends["mean"].isel(labels=0, rate=len(rates) // 2).mean("radius")
    for slope, style in READINGS.values():
        guide = 10 ** float(middle) * (rates / rates[len(rates) // 2]) ** slope
        ax.plot(rates, guide, color=GREY, linewidth=0.7, linestyle=style, zorder=0)
    ax.set_xlabel("learning rate")
    ax.set_title(f"(a) after {int(data['step'][-1])} steps")


def draw_growth(ax: plt.Axes, data: xr.Dataset) -> None:
    """The radius over the budget, after every logged step of every run."""
    for number in range(data.sizes["radius"]):
        for i in range(data.sizes["rate"]):
            for name in data["labels"].values.tolist():
                here = data.isel(radius=number, rate=i, step=slice(1, None)).sel(labels=name).transpose("step", ...)
                colour, order = (figures_style.colour(number), 2) if name == ORIGINAL else (GREY, 1)
                style = {**look(colour, figures_style.marker(i), name), "linewidth": 0.6, "zorder": order}
                draw_logarithms(ax, here["budget"].values, here, linestyle=line(name), **style)
    ax.set_xlabel(r"learning rate $\times$ steps, over $r_X$")
    ax.set_title("(b) after all logged steps")


def draw_logarithms(ax: plt.Axes, x: np.ndarray, found: xr.Dataset, **style: object) -> None:
    """Means of logarithms, and their intervals, on an axis of the values themselves."""
    curves.draw_means(ax, x, 10 ** found[["mean", "low", "high"]], **style)


def look(colour: str, marker: str, name: str) -> dict:
    """Filled markers with original labels, open ones with others."""
    return {
        "color": colour,
        "marker": marker,
        "markersize": 3.5,
        "markeredgewidth": 0.8,
        "markerfacecolor": colour if name == ORIGINAL else "white",
    }


def line(name: str) -> str:
    """Full with original labels, broken with others."""
    return "-" if name == ORIGINAL else "--"


def limit(ax: plt.Axes, data: xr.Dataset) -> None:
    """Room for means; intervals of few draws may leave the axes."""
    low, high = float(data["mean"].min()), max(float(data["mean"].max()), 0.0)
    ax.set_ylim(10 ** (low - 0.06 * (high - low)), 10 ** (high + 0.06 * (high - low)))


def legend_columns(data: xr.Dataset) -> list[list[plt.Line2D]]:
    """Starts by colour, rates of the right panel by marker, labels by filling, and the readings of the left one."""
    starts = [
        plt.Line2D([], [], color=figures_style.colour(i), label=f"from $r={radius:.2g}\\,r_X$")
        for i, radius in enumerate(10 ** (data["x"].values / 2))
    ]
    rates = [
        plt.Line2D([], [], linestyle="none", label=f"rate {rate:g}", **look("k", figures_style.marker(i), ORIGINAL))
        for i, rate in enumerate(data["rate"].values)
    ]
    labels = [
        plt.Line2D(
            [], [], linestyle=line(name), label=LABELS.get(name, name), **look("k", figures_style.marker(0), name)
        )
        for name in data["labels"].values.tolist()
    ]
    readings = [
        plt.Line2D([], [], color=GREY, linewidth=0.7, linestyle=style, label=text)
        for text, (_, style) in READINGS.items()
    ]
    return [starts, rates, labels, readings]


if __name__ == "__main__":
    with job_log(snakemake.log[0], snakemake.input):
        plot_drawn(
            path_to_study=snakemake.input.studies[0],
            path_to_settings=snakemake.input.settings,
            path_to_pdf=snakemake.output.pdf,
            path_to_png=snakemake.output.png,
            path_to_data=snakemake.output.data,
        )
