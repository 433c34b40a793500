"""Alignment of the boundary's normals with eigenvectors of G, outliers of G, and test error on the digits 0, 1 and 7
(Sabanayagam et al. 2023).
"""

from collections.abc import Iterator

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MultipleLocator

from goldilocks_zone.figures import boundaries, curves, panels, style
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies

FIGURE = {"id": "boundary_mnist", "studies": ["boundary_mnist"], "needs": ["softmax", "rank"]}

# Minimum, softmax output, variable and label of each alignment curve.
CAPTURED = {
    "own": ("normal", boundaries.PUBLISHED, "captured", "eigenvectors of $G$"),
    "permuted": ("normal", "permuted", "captured", "outputs permuted"),
    "untrained": ("untrained", boundaries.PUBLISHED, "captured", "untrained"),
    "most": ("normal", boundaries.PUBLISHED, "captured_at_most", "best space"),
}
# Heading and axis label of each measure of minima.
BARS = {
    "outliers": ("outliers", "outliers $k_{90}$"),
    "encoding_share": ("encoding eigenvectors", "$N_\\mathrm{enc}/p_\\theta$"),
    "test_error": ("generalisation", "test error"),
}
TEMPERATURES = {boundaries.PUBLISHED: ("$T=1$", {}), boundaries.MATCHED: ("$T^*$", {"markerfacecolor": "white"})}
APART = 0.24  # horizontal offset between two temperatures
LOOKS = {"markersize": 2.4, "linewidth": 1.0}


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    (study,) = studies.values()
    alignment, measures = alignments(study), by_minimum(study)
    figure, axes = panels.page(1 + len(BARS), settings, columns=2, room=1.05)
    draw_alignment(axes[0], alignment, int(study["classes"][0]))
    panels.legend_above(axes[0], panels.lettered(0, "alignment with the boundary"), columns=2)
    for number, (ax, (name, (heading, label))) in enumerate(zip(axes[1:], BARS.items()), start=1):
        draw_measure(ax, measures, name)
        panels.legend_above(ax, panels.lettered(number, heading), temperatures(measures[name]), columns=2)
        ax.set(ylabel=label)
    return figure, xr.merge([alignment, measures], combine_attrs="drop_conflicts")


def alignments(study: xr.Dataset) -> xr.Dataset:
    """Alignment E_k of the boundary over k, for those curves in CAPTURED that the study has.

    E_k is the mean share of the boundary's normals in the span of the first k eigenvectors of the Gauss–Newton matrix
    G. For the curve `most`, it is the share in the best space of k dimensions instead. {curve}_mean, _low and _high
    (rank) are the mean over draws and the ends of its 95 % interval, and the axis rank holds k.
    """
    found = {}
    for name, (minimum, softmax, variable, words) in CAPTURED.items():
        if minimum in study["minimum"].values and softmax in study["softmax"].values:
            values = boundaries.one(study, [variable], "minimum", "rank", softmax=softmax)[variable]
            meaning = f"{study[variable].attrs['long_name']}: {minimum}, {words}"
            found[name] = curves.means(values.sel(minimum=minimum, drop=True), meaning)
    return curves.prefixed(found)


def by_minimum(study: xr.Dataset) -> xr.Dataset:
    """Outliers, encoding share and test error of the trained minima, for every draw, and their means over draws.

    `outliers` (minimum, softmax, draw) is the number of largest eigenvalues of the Gauss–Newton matrix G that hold 90 %
    of its trace. `encoding_share` (minimum, softmax, draw) is the number of eigenvectors of G that align with training
    gradients more than a random vector does, divided by the number of parameters. The axis softmax holds temperatures
    of the softmax outputs that weight G, keys of TEMPERATURES. `test_error` has the axes (minimum, draw). {name}_mean,
    _low and _high are the mean over draws and the ends of its 95 % interval. Untrained networks are left out.
    """
    present = [each for each in TEMPERATURES if each in study["softmax"].values]
    names = ["outliers", "encoding_share", "test_accuracy"]
    data = boundaries.one(study, names, "minimum", "softmax").sel(softmax=present)
    data = data.sel(minimum=[each for each in data["minimum"].values if each != "untrained"])
    error = 1 - data["test_accuracy"]
    data["test_error"] = error.assign_attrs(curves.described("share of test images classified wrongly"))
    data = data.drop_vars("test_accuracy")
    return data.merge(
        curves.prefixed({name: curves.means(data[name]) for name in BARS}), combine_attrs="drop_conflicts"
    )


def draw_alignment(ax: Axes, data: xr.Dataset, classes: int) -> None:
    """Draw the mean share of the boundary's normals that the first k eigenvectors capture, over k.

    `data` is a result of `alignments`. A grey line marks k = `classes`.
    """
    for number, (name, (*_, label)) in enumerate(CAPTURED.items()):
        if f"{name}_mean" in data:
            look = style.look(number, linestyle=style.line(number), label=label, **LOOKS)
            curves.draw_band(ax, data["rank"].values, curves.parts_of(data, name), **look)
    if not any(data[f"{name}_mean"].notnull().any() for name in CAPTURED if f"{name}_mean" in data):
        boundaries.absent(ax, "no boundary")
    ax.axvline(classes, **style.GREY)
    ax.set(
        xlabel="number $k$ of eigenvectors", ylabel="$E_k$", ylim=(-0.02, 1.03), xlim=(0.5, data.sizes["rank"] + 0.5)
    )
    ax.xaxis.set_major_locator(MultipleLocator(2))


def series(data: xr.Dataset, name: str) -> Iterator[tuple[dict, xr.DataArray, xr.Dataset, float]]:
    """Yield what to draw of the measure `name`: (style, values (minimum, draw), means (minimum), horizontal offset).

    There is one such tuple for each temperature of the softmax, and a single one for a measure that does not depend on
    temperature. `data` is a result of `by_minimum`.
    """
    found = curves.parts_of(data, name)
    if "softmax" not in found.dims:
        yield {}, data[name], found, 0.0
        return
    for number, softmax in enumerate(found["softmax"].values):
        shift = APART * curves.centred(number, found.sizes["softmax"])
        yield TEMPERATURES[softmax][1], data[name].sel(softmax=softmax), found.sel(softmax=softmax), shift


def draw_measure(ax: Axes, data: xr.Dataset, name: str) -> None:
    """Draw the measure `name` by kind of minimum: its value in every draw, and the mean over draws with its interval.

    `data` is a result of `by_minimum`; intervals are of 95 %.
    """
    minima = data["minimum"].values.tolist()
    for more, values, found, shift in series(data, name):
        for x, minimum in enumerate(minima):
            look, own = boundaries.look(minimum), values.sel(minimum=minimum)
            spread = np.linspace(-0.05, 0.05, own.size)
            ax.plot(x + shift + spread, own, ".", color=look["color"], markersize=4, alpha=0.5, markeredgewidth=0)
            here = found.sel(minimum=minimum).expand_dims("at")
            curves.draw_means(ax, [x + shift], here, linestyle="none", **{**look, "markersize": 4, **more})
    if not data[name].notnull().any():
        boundaries.absent(ax)
    ax.set_xticks(range(len(minima)), [boundaries.title(each).replace(" ", "\n") for each in minima])
    ax.set(xlim=(-0.5, len(minima) - 0.5), ylim=panels.limits([0], data[name], margin=0.06, above=0.12))


def temperatures(values: xr.DataArray) -> list[Line2D]:
    """Legend entries for the temperatures of a measure; none if its `values` do not depend on temperature."""
    grey = {"color": "0.3", "marker": "o", "linestyle": "none", "markersize": 4}
    shown = [TEMPERATURES[each] for each in values["softmax"].values] if "softmax" in values.dims else []
    return [panels.entry(label, **grey, **more) for label, more in shown]
