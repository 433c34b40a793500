"""Accuracy of probes after training over the initial deviation of embeddings, with κ at initialisation (Dawid & LeCun
2023)."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from goldilocks_zone.figures import curves, embeddings, panels, style
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies

FIGURE = {
    "id": "jepa_starts",
    "studies": ["jepa_deviations", "jepa_radii"],
    "needs": ["arm"],
}

RESULT, KAPPA = "label_accuracy", "start_trace_over_norm"
APART = 0.06  # horizontal offset between two curves of a panel, in x
LINES = {"markersize": 3.6, "linewidth": 1.0}
RATES = ("rate", "rate_rule")


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    parts = {}
    if "jepa_deviations" in studies:
        parts["deviations"] = over_deviation(studies["jepa_deviations"])
    if "jepa_radii" in studies:
        parts["radii"] = over_radius(studies["jepa_radii"])
    count = 3 * ("deviations" in parts) + ("radii" in parts)
    figure, axes = panels.page(max(1, count), settings, columns=2, room=1.15)
    if "deviations" in parts:
        draw_deviations(axes[:3], parts["deviations"])
    if "radii" in parts:
        draw_radii(axes[-1], parts["radii"])
        panels.legend_above(axes[-1], panels.lettered(count - 1, "best rate at each radius"), columns=2)
    return figure, embeddings.source(parts)


def over_deviation(study: xr.Dataset) -> xr.Dataset:
    """Final accuracy of probes (`result`) and κ = Tr(H)/‖H‖ at initialisation (`kappa`), over the initial deviation.

    This is the standard deviation of embeddings before training, the axis start_deviation. Both variables have the axes
    (start_deviation, draw). They are for the arm full, which trains with all terms of the loss. {name}_mean, _low and
    _high (start_deviation) are the mean over draws and the ends of its 95 % interval.
    """
    axes, found = [axis for axis in ("start_deviation",) if axis in study.dims], {}
    for name, variable in {"result": RESULT, "kappa": KAPPA}.items():
        values = embeddings.values_of(study, variable, *axes, arm="full")
        given = curves.settings_of(study).get("start_deviation") or np.nan
        found[name] = values if axes else values.expand_dims(start_deviation=[given]).assign_attrs(values.attrs)
    return curves.prefixed({name: curves.means(values) for name, values in found.items()}).assign(found)


def over_radius(study: xr.Dataset) -> xr.Dataset:
    """Final accuracy of probes over the radius, at the best rate, for the arms full and random.

    The arm full trains the encoder with all terms of the loss; the encoder of the arm random is not trained. For each
    draw, the rate is the one that is best for the other draws, as in `of_best`. {arm}_mean, _low and _high (radius) are
    the mean over draws and the ends of its 95 % interval.
    """
    kept, found = [axis for axis in RATES if axis in study.dims], {}
    for arm in ("full", "random"):
        if arm in study["arm"].values:
            values = embeddings.values_of(study, RESULT, *kept, "radius", arm=arm)
            found[arm] = curves.means(of_best(values, kept), f"{study[RESULT].attrs['long_name']}, {arm}, best rate")
    return curves.prefixed(found).assign_coords(x=study["x"])


def of_best(values: xr.DataArray, axes: list[str]) -> xr.DataArray:
    """Reduce `values` to the axes (radius, draw), by choosing the best place along the other `axes` (such as the rate).

    The place is chosen for each draw and radius: the one with the largest mean over the other draws at this radius. If
    there is only one draw, its own values select the place. NaN if no place has a finite mean.
    """
    if not axes:
        return values
    flat = values.stack(place=axes).transpose("radius", "draw", "place")
    found = np.full(flat.shape[:2], np.nan)
    for radius, draw in np.ndindex(found.shape):
        others = np.delete(flat.values[radius], draw, 0) if flat.sizes["draw"] > 1 else flat.values[radius]
        judged = others.mean(0)
        if np.isfinite(judged).any():
            found[radius, draw] = flat.values[radius, draw, np.nanargmax(judged)]
    return xr.DataArray(found, {name: values[name] for name in ("radius", "draw")}, ("radius", "draw"))


def draw_deviations(axes: list[Axes], data: xr.Dataset) -> None:
    """Draw the accuracy of probes and κ over the initial deviation, and the accuracy over κ, in three panels `axes`.

    `data` is a result of `over_deviation`.
    """
    places = data["start_deviation"].values
    words = {"result": "accuracy of probes", "kappa": r"$\kappa$ at the start"}
    for ax, (name, label) in zip(axes, words.items()):
        for x, own in zip(places, data[name].transpose("start_deviation", "draw").values):
            ax.plot(np.full(len(own), x), own, **{"color": style.colour(0), **embeddings.DOT})
        embeddings.draw_known(ax, places, curves.parts_of(data, name), **style.look(0, **LINES))
        ax.set(xlabel=r"$\sigma$ at the start", ylabel=label, xscale="log")
        if np.isfinite(places).all():
            ax.set(xlim=(places.min() / 1.6, places.max() * 1.6))
            ax.set_xticks(places, [f"{each:g}" for each in places])
        ax.minorticks_off()
    for number, value in enumerate(places.tolist()):
        here = data.isel(start_deviation=number)
        look = style.look(number, linestyle="none", markersize=2.8, label=rf"$\sigma={value:g}$")
        axes[2].plot(here["kappa"].values, here["result"].values, **look)
    axes[2].set(xlabel=words["kappa"], ylabel=words["result"])
    panels.letter_titles(axes[:2], ["result", "curvature"])
    panels.legend_above(axes[2], panels.lettered(2, "result over curvature"), columns=3)


def draw_radii(ax: Axes, data: xr.Dataset) -> None:
    """Draw the accuracy of probes over the radius, for the trained and for the frozen random encoder.

    `data` is a result of `over_radius`.
    """
    for number, arm in enumerate(("full", "random")):
        if f"{arm}_mean" in data:
            places = data["x"].values + APART * curves.centred(number, 2)
            look = embeddings.look_of(arm, label=embeddings.ARMS[arm], **LINES)
            embeddings.draw_known(ax, places, curves.parts_of(data, arm), **look)
    ax.axvline(0, **style.GREY)
    ax.set(xlabel=panels.X_LABEL, ylabel="accuracy of probes")
