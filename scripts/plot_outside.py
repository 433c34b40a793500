"""Full-batch gradient descent from every scale α: accuracy beside the zone, and what training ends in outside of it
(Vysogorets et al. 2024)."""

import itertools
import json

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.colors import to_rgba
from matplotlib.container import ErrorbarContainer
from matplotlib.patches import Patch

from goldilocks_zone.claims import cells
from goldilocks_zone.claims.estimators import hessian_parts, training
from goldilocks_zone.config import studies as config_studies
from goldilocks_zone.figures import curves, over_radius, over_scale
from goldilocks_zone.figures import panels as figures_panels
from goldilocks_zone.figures import style as figures_style
from goldilocks_zone.jobs.log import job_log
from goldilocks_zone.models import labels
from goldilocks_zone.theory.laws import null_bound

PUBLISHED, TUNED, CURVATURE = "outside", "outside_tuned", "scale_fc"
EXAMPLES = 1000  # of the claims about the zone
# Name, colour of the tint and hatching behind the curves, which are told apart in grey print too.
REGIMES = {
    "divergent": ("divergent", figures_style.colour(1), "////"),
    "zero": ("zero logits", figures_style.colour(2), "...."),
    "lazy": ("lazy", figures_style.colour(5), ""),
    "healthy": ("healthy", "white", ""),
}
TINT, HATCHING = 0.2, "0.78"
NAMES = {
    "accuracy": "test accuracy at the end",
    "kappa": "κ = Tr(H_d)/‖H_d‖_F at the start",
    "zeros": "share of the logits that are exactly zero at the end",
    "cosine": "cosine of the angle between end and start of training",
    "start": "log10 of the {} at the start",
    "end": "log10 of the {} at the end",
}
# What (d) shows, the first that was measured: its meaning, title and label.
SIZES = {
    "sharpness": ("sharpness in nat", "sharpness", "$\\log_{10}$ sharpness\n(nat)"),
    "gradient_norm": (
        "norm of the gradient in nat per parameter",
        "norm of the gradient",
        "$\\log_{10}\\Vert\\nabla L\\Vert$\n(nat per parameter)",
    ),
}
MARKS = {"markersize": 3.5, "capsize": 1.5}
OPEN = {"markerfacecolor": "white", "markeredgewidth": 0.8}
DODGE = 0.02  # of two curves of a panel, to either side, in log10 α
MARGIN = 0.08  # above and below means, relative to their range
LOW = 0.72  # height of a panel, relative to that of others across a page
LEGEND_CM = 1.0  # above the panels


def plot_outside(
    paths_to_studies: list[str], path_to_settings: str, path_to_pdf: str, path_to_png: str, path_to_data: str
) -> None:
    studies, settings = over_scale.load_all(paths_to_studies, path_to_settings)
    if {PUBLISHED, TUNED} <= studies.keys():
        studies[TUNED] = cells.with_rate_of(studies[TUNED], studies[PUBLISHED])
    data = {name: MEASURES[name](study) for name, study in studies.items()}
    panels = [draw for names, draw in PANELS if data.keys() & names]
    width, height = figures_style.page_size(len(panels), settings)
    size = (width, height * LOW + LEGEND_CM / figures_style.CENTIMETRES_PER_INCH)
    figure, axes = plt.subplots(len(panels), 1, figsize=size, squeeze=False, sharex=True)
    for number, (ax, draw) in enumerate(zip(axes[:, 0], panels)):
        draw(ax, data)
        ax.set_title(f"({over_radius.letter(number)}) {ax.get_title()}", loc="left", pad=3)
        ax.set_title("")
        legend_beside(ax)
    axes[-1, 0].set_xlabel(over_scale.LABEL)
    if PUBLISHED in data:
        spans = draw_regimes(axes[:, 0], data[PUBLISHED])
        heading = plt.Line2D([], [], linestyle="none", label="training ends:")
        figure.legend(handles=[heading, *spans], loc="outside upper center", ncols=len(spans) + 1)
    for each in data.values():
        each["radius"].attrs = {"units": "1", "long_name": "scale α of the initialisation"}
    figures_style.save(figure, figures_panels.side_by_side(data), path_to_pdf, path_to_png, path_to_data)


def summarised(measures: dict[str, xr.DataArray]) -> xr.Dataset:
    """Means over draws of measures (radius, draw) with their intervals: {name}_mean, _low and _high (radius)."""
    found = {}
    for name, values in measures.items():
        means = curves.means(values.transpose("radius", "draw"))
        found |= {f"{name}_{part}": means[part] for part in ("mean", "low", "high")}
    return xr.Dataset(found)


def one_rate(study: xr.Dataset) -> xr.Dataset:
    """What is drawn of training at the published rate, and the share of draws in each regime (regime, radius)."""
    cell = curves.primary(study).isel(subspace=0)
    start, end = (cell.isel(step=step, drop=True) for step in (0, -1))
    whole = cell["diverged"] == 0
    size = next(name for name in SIZES if name in cell)
    measures = {
        "accuracy": training.accuracy(cell).assign_attrs(units="1", long_name=NAMES["accuracy"]),
        "zeros": end["zero_logits"].where(whole).assign_attrs(long_name=NAMES["zeros"]),
        "cosine": end["start_cosine"].where(whole).assign_attrs(long_name=NAMES["cosine"]),
    }
    for moment, here in (("start", start), ("end", end)):
        # Where all logits are zero there is nothing to take the logarithm of.
        meaning = {"units": "1", "long_name": NAMES[moment].format(SIZES[size][0])}
        measures[moment] = np.log10(here[size].where(here[size] > 0)).assign_attrs(meaning)
    result = summarised(measures)
    shares = xr.concat([found.mean("draw") for found in hessian_parts.regimes(cell).values()], "regime")
    meaning = {"units": "1", "long_name": "share of the draws whose training ends in this regime"}
    shares = shares.drop_vars("step", errors="ignore").drop_attrs().assign_coords(regime=list(REGIMES))
    result["regime_share"] = shares.assign_attrs(meaning)
    result["chance"] = (1 / cell["classes"]).assign_attrs(units="1", long_name="accuracy of guessing")
    settings = json.loads(study.attrs["settings"])
    if size == "sharpness" and settings["optimiser"] == "sgd":
        meaning = {
            "units": "1",
            "long_name": "log10 of the sharpness in nat above which gradient descent is not stable",
        }
        result["stable"] = ("radius", np.log10(2 / rates(cell, settings)), meaning)
    return result.assign_attrs(size=size)


def rates(cell: xr.Dataset, settings: dict) -> np.ndarray:
    """The learning rate at each α (radius,)."""
    exponent = config_studies.rate_exponent(settings["rate_rule"], labels.depth(cell["network"].item()))
    return settings["rate"] * cell["radius"].values ** float(exponent)


def best_rate(study: xr.Dataset) -> xr.Dataset:
    """Accuracy at the best rate for each radius, and that rate relative to its rule's power of α."""
    cell = curves.primary(study, "rate").isel(subspace=0)
    accuracy = training.accuracy(cell)
    chosen = accuracy["rate"].drop_vars("rate")
    measures = {"accuracy": accuracy.drop_vars("rate").assign_attrs(units="1", long_name=NAMES["accuracy"])}
    result = summarised(measures)
    meaning = "rate at α = 1 that has the highest mean accuracy on held-out examples"
    result["best_rate"] = chosen.drop_attrs().assign_attrs(units="1", long_name=meaning)
    result["chance"] = (1 / cell["classes"]).assign_attrs(units="1", long_name="accuracy of guessing")
    return result


def curvature(study: xr.Dataset) -> xr.Dataset:
    """κ at the start for the number of examples of the claims, or the largest, and the bound of no excess."""
    study = over_scale.parameters_rescaled(study)
    if EXAMPLES in study["examples"].values:
        study = study.sel(examples=[EXAMPLES])
    cell = over_scale.first_cell(study)
    result = summarised({"kappa": cell["trace_over_norm"].assign_attrs(long_name=NAMES["kappa"])})
    bound = null_bound(int(cell["dimension"]))
    meaning = "97.5 % point of κ of random symmetric matrices of this dimension"
    return result.assign(null_bound=((), bound, {"units": "1", "long_name": meaning}))


def legend_beside(ax: plt.Axes) -> None:
    """A legend on the right of a panel: points with bars first, then lines."""
    handles = ax.get_legend_handles_labels()[0]
    handles = sorted(handles, key=lambda handle: not isinstance(handle, ErrorbarContainer))
    ax.legend(handles=handles, loc="center left", bbox_to_anchor=(1.01, 0.5), borderaxespad=0)


def draw_curve(ax: plt.Axes, data: xr.Dataset, name: str, number: int, aside: float = 0, **style: object) -> None:
    """Means of a measure with their intervals as bars, slightly `aside`."""
    found = xr.Dataset({part: data[f"{name}_{part}"] for part in ("mean", "low", "high")})
    look = {"color": figures_style.colour(number), "marker": figures_style.marker(number), **MARKS}
    curves.draw_means(ax, data["x"].values + aside, found, **{**look, **style})


def reference(ax: plt.Axes, height: float, **style: object) -> None:
    """A grey line across."""
    ax.axhline(height, **{"color": "0.45", "linewidth": 0.7, "linestyle": "--", "zorder": 1, **style})


def limit(ax: plt.Axes, *values: object) -> None:
    """Room for values; bars of few draws may leave the axes."""
    shown = np.concatenate([np.ravel(each) for each in values])
    low, high = np.nanmin(shown), np.nanmax(shown)
    margin = MARGIN * (high - low or 1.0)
    ax.set_ylim(low - margin, high + margin)


def draw_accuracy(ax: plt.Axes, data: dict[str, xr.Dataset]) -> None:
    """Test accuracy at the published rate, and at the best of several for each α."""
    here = {name: data[name] for name in (PUBLISHED, TUNED) if name in data}
    looks = {PUBLISHED: (0, -DODGE, "published rate"), TUNED: (3, DODGE, "best rate\nat each $\\alpha$")}
    for name, part in here.items():
        number, aside, label = looks[name]
        line = {"linestyle": figures_style.LINES[name == TUNED], "label": label}
        draw_curve(ax, part, "accuracy", number, aside, **line)
    chance = float(next(iter(here.values()))["chance"])
    reference(ax, chance, label="chance")
    limit(ax, 0.0, chance, *(part["accuracy_mean"] for part in here.values()))
    ax.set_ylabel("test accuracy")
    ax.set_title("accuracy at the end of training")


def draw_kappa(ax: plt.Axes, data: dict[str, xr.Dataset]) -> None:
    """κ at the start, with the height that bounds the zone and the one that bounds what shows no excess."""
    here = data[CURVATURE]
    colour, x = figures_style.colour(0), here["x"]
    ax.plot(x, here["kappa_mean"], color=colour, label=r"$\kappa$")
    ax.fill_between(x, here["kappa_low"], here["kappa_high"], color=colour, alpha=0.3, linewidth=0)
    reference(ax, 1.0, label=r"$\kappa=1$")
    reference(ax, float(here["null_bound"]), linestyle=":", label="bound of\nno excess")
    limit(ax, 0.0, 1.0, here["kappa_mean"])
    ax.set_ylabel(r"$\kappa$")
    ax.set_title("excess of positive curvature at the start")


def draw_states(ax: plt.Axes, data: dict[str, xr.Dataset]) -> None:
    """The share of zero logits at the end, and the cosine between end and start."""
    here = data[PUBLISHED]
    draw_curve(ax, here, "cosine", 0, -DODGE, label="cosine\nto the start")
    draw_curve(ax, here, "zeros", 2, DODGE, linestyle="--", label="share of\nzero logits")
    limit(ax, 0.0, 1.0, here["cosine_mean"])
    ax.set_ylabel("share, cosine")
    ax.set_title("zero logits and angle to the start, at the end")


def draw_sizes(ax: plt.Axes, data: dict[str, xr.Dataset]) -> None:
    """Sharpness (or the norm of the gradient) at the start and at the end, on logarithmic axes."""
    here = data[PUBLISHED]
    draw_curve(ax, here, "start", 0, -DODGE, label="start", linestyle="--", **OPEN)
    draw_curve(ax, here, "end", 1, DODGE, label="end")
    shown = [here["start_mean"], here["end_mean"]]
    if "stable" in here:
        ax.plot(here["x"], here["stable"], color="0.3", linewidth=0.9, linestyle=":", label="2/rate")
        shown.append(here["stable"])
    limit(ax, *shown)
    _, title, label = SIZES[here.attrs["size"]]
    ax.set_title(title)
    ax.set_ylabel(label)


def draw_regimes(axes: np.ndarray, data: xr.Dataset) -> list[Patch]:
    """Tints behind all panels where most draws end in a regime, each half-way to the next α; entries of a legend.

    Where as many end in another, the tint is of both.
    """
    places, shares = edges(data["x"].values), data["regime_share"].transpose("radius", "regime").values
    kinds = [tuple(name for name, share in zip(REGIMES, row) if share == row.max()) for row in shares]
    looks = {kind: look(kind) for kind in kinds}
    for kind, members in itertools.groupby(range(len(kinds)), lambda i: kinds[i]):
        together = list(members)
        for ax in axes:
            ax.axvspan(places[together[0]], places[together[-1] + 1], zorder=0, **looks[kind])
    axes[0].set_xlim(places[0], places[-1])
    names = {kind: " or ".join(REGIMES[name][0] for name in kind) for kind in sorted(looks, key=kinds.index)}
    return [Patch(label=label, **{**looks[kind], "linewidth": 0.5}) for kind, label in names.items()]


def look(kind: tuple[str, ...]) -> dict:
    """Of a tint: the first regime's colour, the hatches of all."""
    hatch = "".join(REGIMES[name][2] for name in kind)
    colour = to_rgba(REGIMES[kind[0]][1], TINT)
    return {"facecolor": colour, "edgecolor": HATCHING, "linewidth": 0, "hatch": hatch}


def edges(places: np.ndarray) -> np.ndarray:
    """Half-way places between ascending ones (n,), and as far beyond the ends: (n + 1,)."""
    if len(places) == 1:
        return places[0] + np.array([-0.5, 0.5])
    half = np.diff(places) / 2
    return np.concatenate([[places[0] - half[0]], places[:-1] + half, [places[-1] + half[-1]]])


MEASURES = {PUBLISHED: one_rate, TUNED: best_rate, CURVATURE: curvature}
# Of each panel, the studies of which one is enough for it.
PANELS = (
    ({PUBLISHED, TUNED}, draw_accuracy),
    ({CURVATURE}, draw_kappa),
    ({PUBLISHED}, draw_states),
    ({PUBLISHED}, draw_sizes),
)


if __name__ == "__main__":
    with job_log(snakemake.log[0], snakemake.input):
        plot_outside(
            paths_to_studies=list(snakemake.input.studies),
            path_to_settings=snakemake.input.settings,
            path_to_pdf=snakemake.output.pdf,
            path_to_png=snakemake.output.png,
            path_to_data=snakemake.output.data,
        )
