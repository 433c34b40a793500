"""Energies of compatible and incompatible pairs over the capacity of discrete and linear latents, and the information
of codes about the hidden cause (Dawid & LeCun 2023)."""

from collections.abc import Mapping

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from goldilocks_zone.figures import curves, embeddings, panels, style
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies

FIGURE = {
    "id": "jepa_latents",
    "studies": [
        "jepa_causes",
        "jepa_causes_slow",
        "jepa_causes_geometric",
        "jepa_causes_many",
        "jepa_causes_pixels",
        "jepa_latents",
    ],
}

ENERGIES = {
    "compatible": ("$F^+$", {"linestyle": "-"}),
    "incompatible": ("$F^-$", {"linestyle": "--", "markerfacecolor": "white"}),
}
CAUSES = {
    "jepa_causes": "",
    "jepa_causes_slow": ", slow angle",
    "jepa_causes_many": "",
    "jepa_causes_pixels": ", pixels",
}
GEOMETRIC = "jepa_causes_geometric"
LINES = {"markersize": 3.6, "linewidth": 1.0}


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    parts = {name: energies(studies[name], axis) for name, axis in AXES.items() if name in studies}
    told = informed({name: studies[name] for name in CAUSES if name in studies})
    if told.data_vars and GEOMETRIC in studies:
        told = told.assign(told_by_equal_factors(studies[GEOMETRIC], told["world"].values.tolist()))
    count = len(parts) + bool(told.data_vars)
    figure, axes = panels.page(max(1, count), settings, columns=max(2, count), room=1.3)
    for number, (name, ax) in enumerate(zip(parts, axes)):
        PAINTERS[name](ax, parts[name])
        panels.legend_above(ax, panels.lettered(number, TITLES[name]), columns=2)
    if told.data_vars:
        draw_information(axes[len(parts)], told)
        panels.legend_above(axes[len(parts)], panels.lettered(len(parts), "codes and causes"), columns=2)
    return figure, embeddings.source(parts | {"information": told})


def energies(study: xr.Dataset, axes: Mapping[str, int]) -> xr.Dataset:
    """Mean energies of compatible and of incompatible pairs, divided by the variance of what is predicted.

    A compatible pair is an input with its own target, an incompatible pair an input with the target of another one.
    {kind}_mean, _low and _high are the mean over draws and the ends of its 95 % interval, for the kinds compatible and
    incompatible. Their axes are the keys of `axes`, such as codes. If the study does not vary such a quantity, the axis
    has a single label: the study's setting of this name or, if there is none, the value in `axes`.
    """
    present = [axis for axis in axes if axis in study.dims]
    within = embeddings.values_of(study, "unexplained", *present, arm="full")
    between = within + embeddings.values_of(study, "gap", *present, arm="full")
    settings, found = curves.settings_of(study), {}
    for name, values in {"compatible": within, "incompatible": between}.items():
        missing = {axis: [settings.get(axis, usual)] for axis, usual in axes.items() if axis not in present}
        meaning = f"mean energy of {name} pairs over the variance of what is predicted"
        found[name] = curves.means(values.expand_dims(missing).transpose(*axes, "draw"), meaning)
    return curves.prefixed(found).assign_attrs(embedding=int(settings["embedding"]))


def draw_codes(ax: Axes, data: xr.Dataset) -> None:
    """Draw energies over the number of codes, with one pair of curves for each number of causes.

    `data` is a result of `energies` with the axes (causes, codes).
    """
    for number, causes in enumerate(data["causes"].values.tolist()):
        draw_pair(ax, data.sel(causes=causes), "codes", number, f"$K={causes}$")
    ax.set(xlabel="number $k$ of codes", ylabel="energy over variance", xscale="log")
    ax.set_xticks(data["codes"].values, [str(each) for each in data["codes"].values])
    ax.minorticks_off()
    ax.set_ylim(bottom=0)


def draw_columns(ax: Axes, data: xr.Dataset) -> None:
    """Draw energies over the number q of columns of a linear latent, with the line 2(1 − q/e) for the trivial solution.

    `data` is a result of `energies` with the axis columns, and e is the size of the embedding.
    """
    draw_pair(ax, data, "columns", 0, "")
    e = data.attrs["embedding"]
    ax.plot([0, e], [2, 0], **{**style.DASHED, "color": "0.4"}, label="$2(1-q/e)$")
    ax.set(xlabel="columns $q$ of $B$", ylabel="energy over variance")
    ax.set_ylim(bottom=0)


def draw_pair(ax: Axes, data: xr.Dataset, axis: str, number: int, label: str) -> None:
    for name, (symbol, line) in ENERGIES.items():
        look = style.look(number, label=f"{symbol}, {label}".rstrip(", "), **LINES, **line)
        embeddings.draw_known(ax, data[axis].values, curves.parts_of(data, name), **look)


def informed(studies: Studies) -> xr.Dataset:
    """Mutual information I(z; c) of the best code z and the hidden cause c, divided by the entropy H(c).

    The axis world combines each of the `studies` with each of its numbers of causes above 1 for which there are as many
    codes as causes. `information` (world, draw) is the measured value, and `information_by_chance` (world, draw) the
    value after the causes are permuted. {variable}_mean, _low and _high (world) are the mean over draws and the ends of
    its 95 % interval. The dataset is empty if there is no world.
    """
    worlds, found = [], {"information": [], "information_by_chance": []}
    for name, study in studies.items():
        settings = curves.settings_of(study)
        for causes in study["causes"].values.tolist() if "causes" in study.dims else [settings["causes"]]:
            codes = study["codes"].values.tolist() if "codes" in study.dims else [settings["codes"]]
            if causes > 1 and causes in codes:
                worlds.append(f"$K={causes}${CAUSES[name]}")
                for variable, values in found.items():
                    values.append(embeddings.values_of(study, variable, causes=causes, codes=causes))
    if not worlds:
        return xr.Dataset()
    data = {name: xr.concat(values, "world").assign_coords(world=worlds) for name, values in found.items()}
    for name, values in data.items():
        chance = " with causes permuted" if name.endswith("chance") else ""
        values.attrs = curves.described(f"I(z; c)/H(c) of the best code and the hidden cause{chance}")
    return curves.prefixed({name: curves.means(values) for name, values in data.items()}).assign(data)


def told_by_equal_factors(study: xr.Dataset, worlds: list[str]) -> xr.Dataset:
    """Mean information about the hidden cause after training in which β rises by equal factors, not by equal steps.

    β is the inverse temperature of the soft minimum over codes. The variables information_geometric_mean, _low and
    _high (world) are defined as in `informed`. They have the labels `worlds`, and are NaN for those that the study
    lacks.
    """
    settings = curves.settings_of(study)
    found = np.full((len(worlds), study.sizes["draw"]), np.nan)
    for slow in study["slow"].values.tolist() if "slow" in study.dims else [settings["slow"]]:
        world = f"$K={settings['causes']}${CAUSES['jepa_causes_slow' if slow else 'jepa_causes']}"
        if world in worlds:
            found[worlds.index(world)] = embeddings.values_of(study, "information", slow=slow)
    values = xr.DataArray(found, {"world": worlds}, ("world", "draw"))
    meaning = "I(z; c)/H(c) of the best code and the hidden cause, β of the soft minimum rising by equal factors"
    return curves.prefixed({"information_geometric": curves.means(values, meaning)})


def draw_information(ax: Axes, data: xr.Dataset) -> None:
    """Draw the information about the cause in each world, for every draw and the mean, and its chance level.

    `data` is a result of `informed`.
    """
    for name, face in {"information": {}, "information_by_chance": {"markerfacecolor": "white"}}.items():
        look = style.look(2, linestyle="none", markersize=4, **face)
        label = "permuted" if face else "measured"
        shift = 0.14 if face else -0.14
        places = np.arange(data.sizes["world"]) + shift
        for x, own in zip(places, data[name].transpose("world", "draw").values):
            ax.plot(np.full(len(own), x), own, **{**look, **embeddings.DOT})
        embeddings.draw_known(ax, places, curves.parts_of(data, name), label=label, **look)
    if "information_geometric_mean" in data:
        look = style.look(1, linestyle="none", markersize=4, label="equal factors")
        here = curves.parts_of(data, "information_geometric")
        embeddings.draw_known(ax, np.arange(data.sizes["world"]), here, **look)
    words = [label.replace(", ", ",\n").replace("slow angle", "slow") for label in data["world"].values.tolist()]
    ax.set_xticks(range(len(words)), words, fontsize=6.5)
    ax.set(ylabel="$I(z;c)/H(c)$", ylim=(-0.04, 1.04), xlim=(-0.5, len(words) - 0.5))


AXES = {"jepa_causes": {"causes": 1, "codes": 1}, "jepa_latents": {"columns": 0}}
PAINTERS = {"jepa_causes": draw_codes, "jepa_latents": draw_columns}
TITLES = {"jepa_causes": "codes", "jepa_latents": "linear latent"}
