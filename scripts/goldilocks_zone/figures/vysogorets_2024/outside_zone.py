"""Full-batch gradient descent from every scale α: accuracy compared with the zone, and the states in which training
ends (Vysogorets et al. 2024)."""

import itertools
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.container import ErrorbarContainer
from matplotlib.patches import Patch

from goldilocks_zone.claims import cells
from goldilocks_zone.claims.estimators import hessian_parts, training
from goldilocks_zone.config import studies as config_studies
from goldilocks_zone.figures import curves, over_scale, panels, style
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies
from goldilocks_zone.models import labels
from goldilocks_zone.theory.laws import null_bound

FIGURE = {"id": "outside", "studies": ["outside", "outside_tuned", "scale_fc"], "axis": "scale"}

PUBLISHED, TUNED, CURVATURE = "outside", "outside_tuned", "scale_fc"
EXAMPLES = 1000  # number used by the claims about the zone
STRIP = 0.93  # lower end of the strip with hatching, relative to the height of a panel
# Name, tint and hatching of the background; hatching, in a strip at the top, distinguishes regimes in greyscale print.
REGIMES = {
    "divergent": ("divergent", style.colour(1), "////"),
    "zero": ("zero logits", style.colour(4), "...."),
    "lazy": ("lazy", "0.4", ""),
    "healthy": ("healthy", "white", ""),
}
# Name, unit and label of the candidate measures of panel (d), which shows the first one available.
SIZES = {
    "sharpness": ("sharpness", "nat", r"$\log_{10}$ sharpness"),
    "gradient_norm": ("norm of the gradient", "nat", r"$\log_{10}\Vert\nabla L\Vert$"),
}
ACCURACY = "test accuracy at the end"
ASIDE = 0.02  # offset of two curves of a panel to either side, in log10 α
REFERENCE: dict[str, Any] = {"color": "0.45", "linewidth": 0.7, "linestyle": "--", "zorder": 1}


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    if {PUBLISHED, TUNED} <= studies.keys():
        studies = {**studies, TUNED: cells.with_rate_of(studies[TUNED], studies[PUBLISHED])}
    data = {name: MEASURES[name](study) for name, study in studies.items()}
    shown = [draw_panel for draw_panel, names in PANELS.items() if data.keys() & names]
    width, height = panels.page_size(len(shown), settings, room=0.72)
    size = (width, height + 1 / panels.CENTIMETRES_PER_INCH)  # 1 cm for the legend above
    figure, axes = panels.grid(len(shown), 1, settings, figsize=size, sharex=True)
    for number, (ax, draw_panel) in enumerate(zip(axes[:, 0], shown)):
        draw_panel(ax, data)
        ax.set_title(panels.lettered(number, ax.get_title()), loc="left", pad=3)
        ax.set_title("")
        handles, _ = ax.get_legend_handles_labels()
        handles.sort(key=lambda handle: not isinstance(handle, ErrorbarContainer))  # points with bars, then lines
        ax.legend(handles=handles, loc="center left", bbox_to_anchor=(1.01, 0.5), borderaxespad=0)
    axes[-1, 0].set_xlabel(over_scale.LABEL)
    if PUBLISHED in data:
        spans = draw_regimes(axes[:, 0], data[PUBLISHED])
        panels.legend_on_top(figure, [panels.entry("training ends:", linestyle="none"), *spans])
    for each in data.values():
        each["radius"].attrs = curves.described("scale α of the initialisation")
    return figure, panels.side_by_side(data)


def summarised(measures: dict[str, xr.DataArray]) -> xr.Dataset:
    """Means over draws with 95 % intervals, as {name}_mean, _low and _high (radius).

    `measures` holds values (radius, draw) by name.
    """
    means = {name: curves.means(values.transpose("radius", "draw")) for name, values in measures.items()}
    return curves.prefixed({name: found[curves.PARTS] for name, found in means.items()})


def one_rate(study: xr.Dataset) -> xr.Dataset:
    """Measures of training at the published rate, and the share of draws that end in each regime.

    {name}_mean, _low and _high (radius) are a mean over draws and the ends of its 95 % interval. The names are
    accuracy; zeros, the share of logits that are exactly zero; cosine, of the angle between the end and the start of
    training; and start and end, log10 of the first measure in SIZES that the study has, at these moments.
    `regime_share` (regime, radius) is the share of draws in each of REGIMES, and `chance` is the accuracy of guessing.
    For gradient descent with a measured sharpness, `stable` (radius) is log10 of 2/rate.
    """
    cell = curves.primary(study).isel(subspace=0)
    start, end = (cell.isel(step=step, drop=True) for step in (0, -1))
    measures = {"accuracy": training.accuracy(cell).assign_attrs(curves.described(ACCURACY))}
    for name, variable, meaning in (
        ("zeros", "zero_logits", "share of the logits that are exactly zero at the end"),
        ("cosine", "start_cosine", "cosine of the angle between end and start of training"),
    ):
        measures[name] = end[variable].where(cell["diverged"] == 0).assign_attrs(long_name=meaning)
    size = next(name for name in SIZES if name in cell)
    name, unit, _ = SIZES[size]
    for moment, here in (("start", start), ("end", end)):
        # If all logits are zero, there is no logarithm.
        meaning = curves.described(f"log10 of the {name} in {unit} at the {moment}")
        measures[moment] = xr.ufuncs.log10(here[size].where(here[size] > 0)).assign_attrs(meaning)
    result = summarised(measures)
    shares = xr.concat([found.mean("draw") for found in hessian_parts.regimes(cell).values()], "regime")
    meaning = curves.described("share of the draws whose training ends in this regime")
    shares = shares.drop_vars("step", errors="ignore").drop_attrs().assign_coords(regime=list(REGIMES))
    result["regime_share"] = shares.assign_attrs(meaning)
    result["chance"] = (1 / cell["classes"]).assign_attrs(curves.described("accuracy of guessing"))
    settings = curves.settings_of(study)
    if size == "sharpness" and settings["optimiser"] == "sgd":
        meaning = curves.described("log10 of the sharpness in nat above which gradient descent is not stable")
        exponent = config_studies.rate_exponent(settings["rate_rule"], labels.depth(cell["network"].item()))
        rates = settings["rate"] * cell["radius"].values ** float(exponent)
        result["stable"] = ("radius", np.log10(2 / rates), meaning)
    return result.assign_attrs(size=size)


def best_rate(study: xr.Dataset) -> xr.Dataset:
    """Mean accuracy (radius) at the best rate for each radius, with its interval, and `best_rate` (radius).

    The radius is the scale α of the initialisation. `best_rate` is the rate as it is at α = 1. At other α, the rule of
    the rate multiplies it by a power of α.
    """
    cell = curves.primary(study, "rate").isel(subspace=0)
    accuracy = training.accuracy(cell)
    result = summarised({"accuracy": accuracy.drop_vars("rate").assign_attrs(curves.described(ACCURACY))})
    meaning = curves.described("rate at α = 1 that has the highest mean accuracy on held-out examples")
    result["best_rate"] = accuracy["rate"].drop_vars("rate").drop_attrs().assign_attrs(meaning)
    result["chance"] = (1 / cell["classes"]).assign_attrs(curves.described("accuracy of guessing"))
    return result


def curvature(study: xr.Dataset) -> xr.Dataset:
    """Mean κ = Tr(H)/‖H‖ (radius) over draws at initialisation, with its interval, and the bound `null_bound`.

    `null_bound` is the 97.5 % point of κ of random symmetric matrices. The number of examples is EXAMPLES if the study
    has it, otherwise the study's largest.
    """
    study = over_scale.parameters_rescaled(study)
    if EXAMPLES in study["examples"].values:
        study = study.sel(examples=[EXAMPLES])
    cell = over_scale.first_cell(study)
    result = summarised({"kappa": cell["trace_over_norm"].assign_attrs(long_name="κ = Tr(H_d)/‖H_d‖_F at the start")})
    meaning = curves.described("97.5 % point of κ of random symmetric matrices of this dimension")
    return result.assign(null_bound=((), null_bound(int(cell["dimension"])), meaning))


def draw_curve(ax: Axes, data: xr.Dataset, name: str, number: int, aside: float = 0, **look: Any) -> None:
    look = style.look(number, markersize=3.5, capsize=1.5) | look
    curves.draw_means(ax, data["x"].values + aside, curves.parts_of(data, name), **look)


def draw_accuracy(ax: Axes, data: dict[str, xr.Dataset]) -> None:
    here = {name: data[name] for name in (PUBLISHED, TUNED) if name in data}
    looks = {PUBLISHED: (0, -ASIDE, "published rate"), TUNED: (3, ASIDE, "best rate\nat each $\\alpha$")}
    for name, part in here.items():
        number, aside, label = looks[name]
        draw_curve(ax, part, "accuracy", number, aside, linestyle=style.LINES[name == TUNED], label=label)
    chance = float(next(iter(here.values()))["chance"])
    ax.axhline(chance, label="chance", **REFERENCE)
    limits = panels.limits(0.0, chance, *(part["accuracy_mean"] for part in here.values()))
    ax.set(ylim=limits, ylabel="test accuracy", title="accuracy at the end of training")


def draw_kappa(ax: Axes, data: dict[str, xr.Dataset]) -> None:
    here, look = data[CURVATURE], {"color": style.colour(0), "label": r"$\kappa$"}
    curves.draw_band(ax, here["x"], curves.parts_of(here, "kappa"), alpha=0.3, **look)
    ax.axhline(1, label=r"$\kappa=1$", **REFERENCE)
    dotted: dict[str, Any] = REFERENCE | {"linestyle": ":"}
    ax.axhline(float(here["null_bound"]), label="bound of\nno excess", **dotted)
    title = "excess of positive curvature at the start"
    ax.set(ylim=panels.limits(0.0, 1.0, here["kappa_mean"]), ylabel=r"$\kappa$", title=title)


def draw_states(ax: Axes, data: dict[str, xr.Dataset]) -> None:
    here = data[PUBLISHED]
    draw_curve(ax, here, "cosine", 0, -ASIDE, label="cosine\nto the start")
    draw_curve(ax, here, "zeros", 2, ASIDE, linestyle="--", label="share of\nzero logits")
    title = "zero logits and angle to the start, at the end"
    ax.set(ylim=panels.limits(0.0, 1.0, here["cosine_mean"]), ylabel="share, cosine", title=title)


def draw_sizes(ax: Axes, data: dict[str, xr.Dataset]) -> None:
    here, white = data[PUBLISHED], {"markerfacecolor": "white", "markeredgewidth": 0.8}
    draw_curve(ax, here, "start", 0, -ASIDE, label="start", linestyle="--", **white)
    draw_curve(ax, here, "end", 1, ASIDE, label="end")
    shown = [here["start_mean"], here["end_mean"]]
    if "stable" in here:
        ax.plot(here["x"], here["stable"], color="0.3", linewidth=0.9, linestyle=":", label="2/rate")
        shown.append(here["stable"])
    title, unit, label = SIZES[here.attrs["size"]]
    ax.set(ylim=panels.limits(*shown), title=title, ylabel=f"{label}\n({unit})")


def draw_regimes(axes: np.ndarray, data: xr.Dataset) -> list[Patch]:
    """Tint all panels `axes` by the regime in which most draws end, at each radius; return legend entries.

    `data` is a result of `one_rate`. Ties have the hatchings of all tied regimes, on the tint of the first.
    """
    places, shares = curves.bin_edges(data["x"].values), data["regime_share"].transpose("radius", "regime").values
    kinds = [tuple(name for name, share in zip(REGIMES, row) if share == row.max()) for row in shares]
    looks = {}
    for kind in kinds:
        tint, hatch = to_rgba(REGIMES[kind[0]][1], 0.16), "".join(REGIMES[name][2] for name in kind)
        looks[kind] = {"facecolor": tint, "edgecolor": "0.6", "linewidth": 0, "hatch": hatch}
    for kind, members in itertools.groupby(range(len(kinds)), lambda i: kinds[i]):
        together = list(members)
        ends, look = (places[together[0]], places[together[-1] + 1]), looks[kind]
        for ax in axes:
            ax.axvspan(*ends, zorder=0, **look | {"hatch": ""})
            ax.axvspan(*ends, ymin=STRIP, zorder=0, **look)
    axes[0].set_xlim(places[0], places[-1])
    names = {kind: " or ".join(REGIMES[name][0] for name in kind) for kind in looks}
    return [Patch(label=label, **looks[kind] | {"linewidth": 0.5}) for kind, label in names.items()]


MEASURES = {PUBLISHED: one_rate, TUNED: best_rate, CURVATURE: curvature}
# Each panel is drawn if the run has one of its studies.
PANELS = {draw_accuracy: {PUBLISHED, TUNED}, draw_kappa: {CURVATURE}, draw_states: {PUBLISHED}, draw_sizes: {PUBLISHED}}
