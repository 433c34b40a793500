"""Margins on the checkerboard: decision regions at minima trained on it, the published margin estimate against the true
margin, and rival estimates (Sabanayagam et al. 2023)."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from goldilocks_zone.figures import boundaries, curves, panels, style
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies
from goldilocks_zone.spectra import alignments

FIGURE = {"id": "boundary_margins", "studies": ["boundary_margin"], "needs": ["start", "map_x"]}

EQUIVALENT = 1.25  # factor within which an estimate counts as equal to the true margin
RATIOS = {
    "margin_estimate": "estimate",
    "margin_of_extremes": "extreme\npoints",
    "smallest_linearised_margin": "linearised\nmargin",
}
DECADES = 200  # ratio of the ends of an axis up to which it has several ticks in each decade
NAMES = ["true_margin", *RATIOS]
MAPPED = ["map_class", "aligned_point", *boundaries.EXAMPLES]  # shown for the first draw
POINTS = {"linestyle": "none", "markersize": 3, "markeredgewidth": 0.6}
ALIGNED = {"color": "k", "marker": "*", "markersize": 6, "markeredgewidth": 0.5, "linestyle": "none"}
APART = 0.16  # horizontal offset between two kinds of minima


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    (study,) = studies.values()
    data = margins(study)
    minima = data["minimum"].values.tolist()
    width, height = panels.page_size(1, settings, room=1.2)
    spec = {"width_ratios": [0.75] * len(minima) + [1.2, 1.2]}
    figure, (axes,) = panels.grid(1, 2 + len(minima), settings, figsize=(width, height), gridspec_kw=spec)
    for ax, label in zip(axes, minima):
        draw_map(ax, data.sel(minimum=label), study["dataset"].values[0])
        ax.set_title(boundaries.title(label))
    draw_estimates(axes[-2], data)
    draw_ratios(axes[-1], data)
    panels.letter_titles(axes)
    panels.legend_on_top(figure, entries(data), columnspacing=1.2)
    return figure, data


def margins(study: xr.Dataset) -> xr.Dataset:
    """True and estimated margins (minimum, draw) in units of the plane, and their log ratios; maps of the first draw.

    `margin_estimate` also has the axis start. From each start, a descent seeks an aligned point: an input for which the
    squared alignment of the loss gradient with the top eigenvector is largest. `converged` (minimum, draw, start) marks
    the descents that converged. The log ratio is log10 of an estimate, a key of RATIOS, divided by the true margin.
    log_{estimate}_mean, _low and _high (minimum) are its mean over draws and the ends of its 95 % interval, and
    log_{estimate}_draws is the number of draws in which it is known. The variables MAPPED are those of the first draw.
    """
    place = ("minimum", "start", "example", "coordinate", "rank", *boundaries.AXES_OF_MAPS)
    here = boundaries.one(study, [*NAMES, *MAPPED, "alignment_reached", "map"], *place)
    true = here["true_margin"].where(here["true_margin"] > 0)
    aligned = alignments.converged(here["alignment_reached"], here["map"]).assign_attrs(
        curves.described("whether the descent from a start converged")
    )
    found = {}
    for name, words in RATIOS.items():
        values = here[name].where(here[name] > 0)
        if "start" in values.dims:  # a draw's estimate is the mean over its converged starts
            values = values.where(aligned).mean("start")
        ratio = xr.ufuncs.log10(values / true)
        meaning = f"log10 of the {words} over the true margin".replace("\n", " ")
        found[f"log_{name}"] = curves.means(ratio, meaning).assign(
            draws=ratio.notnull().sum("draw").assign_attrs(curves.described(f"draws with a {meaning}"))
        )
    drawn = {name: here[name].isel(draw=0, drop=True) for name in MAPPED if name in here}
    parts = [here[NAMES].assign(converged=aligned), xr.Dataset(drawn), curves.prefixed(found)]
    return boundaries.described_maps(xr.merge(parts, combine_attrs="drop_conflicts"))


def draw_map(ax: Axes, here: xr.Dataset, name: str) -> None:
    """Draw the decision regions, training points and aligned points of the first draw, for the dataset `name`.

    `here` is the part of `margins` for one minimum. Aligned points are filled if their descent converged.
    """
    boundaries.draw_classes(ax, here["map_class"], name)
    if "example_point" in here:
        boundaries.draw_points(ax, here)
    if "aligned_point" in here:
        first = here["converged"].isel(draw=0)
        for reached in (True, False):
            points = here["aligned_point"].where(first == reached).transpose("coordinate", "start")
            ax.plot(*points.values, **ALIGNED, markerfacecolor="k" if reached else "w")
    boundaries.number(ax)


def draw_estimates(ax: Axes, data: xr.Dataset) -> None:
    """Draw the margin estimate from every start over the true margin; markers are filled if the descent converged.

    `data` is a result of `margins`.
    """
    true, reached = data["true_margin"], data["converged"]
    for label in data["minimum"].values:
        x = true.sel(minimum=label).broadcast_like(data["margin_estimate"].sel(minimum=label))
        y, filled = (each.sel(minimum=label).transpose(*x.dims) for each in (data["margin_estimate"], reached))
        for full in (True, False):
            look = boundaries.look(label, **POINTS)
            look |= {} if full else {"markerfacecolor": "none", "alpha": 0.45}
            ax.plot(np.ravel(x), np.ravel(y.where(filled == full)), **look)
    shown = [xr.ufuncs.log10(each.where(each > 0)) for each in (true, data["margin_estimate"])]
    if all(bool(each.notnull().any()) for each in shown):
        ends = (panels.log_limits(each, margin=0.1) for each in shown)
        ax.set(xlim=next(ends), ylim=next(ends))
    else:
        boundaries.absent(ax, "no margin\nwas estimated")
        ax.set(xlim=(0.1, 1), ylim=(0.1, 1))
    line = np.array([1e-4, 1e4])
    ax.fill_between(line, line / EQUIVALENT, line * EQUIVALENT, color="0.9", linewidth=0, zorder=-1)
    ax.plot(line, line, **style.DASHED)
    ax.set(xscale="log", yscale="log", xlabel="true margin", ylabel="margin estimate", title="every start")
    for axis in (ax.xaxis, ax.yaxis):
        boundaries.logarithmic_ticks(axis, DECADES)


def draw_ratios(ax: Axes, data: xr.Dataset) -> None:
    """Draw the geometric mean over draws of each estimate divided by the true margin, with its interval.

    `data` is a result of `margins`.
    """
    ends, count = [0.0], data.sizes["minimum"]
    for number, label in enumerate(data["minimum"].values):
        x = np.arange(len(RATIOS)) + APART * curves.centred(number, count)
        found = xr.concat([curves.parts_of(data, f"log_{name}").sel(minimum=label) for name in RATIOS], "measure")
        for place, each in zip(x, range(len(RATIOS))):
            here = 10 ** found.isel(measure=each)
            curves.draw_means(
                ax, [place], here.expand_dims("at"), linestyle="none", **boundaries.look(label, markersize=4)
            )
        ends += [*found["mean"].values]
    ax.axhspan(1 / EQUIVALENT, EQUIVALENT, color="0.9", linewidth=0, zorder=-1)
    ax.axhline(1, **style.DASHED)
    ax.set(yscale="log", ylim=panels.log_limits(ends, margin=0.4), title="over the true margin", ylabel="ratio")
    ax.set_xticks(range(len(RATIOS)), RATIOS.values(), fontsize=6.5)
    ax.set_xlim(-0.5, len(RATIOS) - 0.5)
    boundaries.logarithmic_ticks(ax.yaxis, DECADES)
    for x, name in enumerate(RATIOS):
        if not data[f"log_{name}_mean"].notnull().any():
            ax.annotate("none", (x, 0.5), xycoords=("data", "axes fraction"), ha="center", color="0.4", fontsize=6.5)


def entries(data: xr.Dataset) -> list[Line2D]:
    """Legend entries for `data`, a result of `margins`, in two groups that begin with the letters of their panels.

    The first is for the panels of margins, whose colours show the minimum. The second is for the maps, if there are
    aligned points.
    """
    count = data.sizes["minimum"]
    maps, others = ("–".join(map(panels.letter, ends)) for ends in ((0, count - 1), (count, count + 1)))
    minima = [
        panels.entry(boundaries.title(each), **boundaries.look(each, **POINTS)) for each in data["minimum"].values
    ]
    hollow = {"color": "0.3", "marker": "o", "markerfacecolor": "none", **POINTS}
    handles = [panels.entry(f"({others}):", linestyle="none"), *minima, panels.entry("not converged", **hollow)]
    reached = [panels.entry(f"({maps}):", linestyle="none"), panels.entry("points $x_b$ reached", **ALIGNED)]
    return handles + reached * ("aligned_point" in data)
