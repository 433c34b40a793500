"""Summary of the results: the zone and the accuracy over the radius, with rate and temperature fixed or scaled with it,
the zone for several numbers of examples, and the zone of a joint embedding."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from goldilocks_zone.claims import zone_map
from goldilocks_zone.figures import curves, over_radius, panels, style
from goldilocks_zone.figures.beyond import sample_size
from goldilocks_zone.figures.dawid_lecun_2023 import jepa_zone
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies

CURVATURE, TRAINING, SAMPLES, EMBEDDINGS = "map_curvature", "planes", "sample_size", "jepa_zone"
FIGURE = {
    "id": "story",
    "studies": ["map_curvature", "planes", "sample_size", "jepa_zone"],
    "axis": "radius",
    "height_cm": 4.7,
}

KAPPA = r"$\kappa=\mathrm{Tr}(H)/\Vert H\Vert$"
THRESHOLD = sample_size.THRESHOLD
CROSS_ENTROPY = jepa_zone.COLUMNS["other losses"][-1]
TINT = {"color": "#F0E442", "alpha": 0.35, "linewidth": 0, "zorder": -1}
ARMS = {
    ("fixed", "fixed"): "both fixed",
    ("proportional", "fixed"): "rate $∝r$",
    ("fixed", "homogeneous"): "temperature $∝r^{n_L}$",
    ("proportional", "homogeneous"): "both with $r$",
}
LOOKS = {"markersize": 2.6, "linewidth": 1.0}
LEGEND = {"fontsize": 6.5, "columnspacing": 0.8, "handlelength": 1.8}
ROOM_FOR_LEGEND = 1.9  # upper end of an axis, relative to the largest mean


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    parts = {}
    if CURVATURE in studies:
        parts["kappa"] = kappa_at_start(studies[CURVATURE])
    if TRAINING in studies:
        parts |= {f"accuracy_{'_'.join(arm)}": found for arm, found in accuracies(studies[TRAINING]).items()}
    if SAMPLES in studies:
        study = main_network(sample_size.primary(studies[SAMPLES]))
        parts["samples"] = curves.means(study["trace_over_norm"]).assign_coords(x=study["x"])
        parts["edges"] = sample_size.zone_edges(study["trace_over_norm"].expand_dims("network")).isel(network=0)
    if EMBEDDINGS in studies:
        known = jepa_zone.known(studies, [jepa_zone.FULL, CROSS_ENTROPY])
        parts |= {curve.criterion: jepa_zone.measured(studies[EMBEDDINGS], curve) for curve in known}
    figure, ((first, second), (third, fourth)) = panels.grid(2, 2, settings, room=1.0)
    draw_training(first, parts, [("fixed", "fixed")], zone=True)
    draw_training(second, parts, [arm for arm in ARMS if f"accuracy_{'_'.join(arm)}" in parts], zone=False)
    draw_samples(third, parts)
    draw_embeddings(fourth, parts)
    axes = [first, second, third, fourth]
    panels.letter_titles(
        axes, ["rate and temperature fixed", "rate and temperature with $r$", "number of examples", "joint embedding"]
    )
    for ax in axes:
        ax.axvline(0, **style.GREY)
    for ax in (third, fourth):
        ax.set_xlabel(over_radius.X_LABEL)
    return figure, panels.side_by_side(parts)


def main_network(study: xr.Dataset) -> xr.Dataset:
    """Select the network that claims use, or the first if the study lacks it."""
    names = study["network"].values.tolist()
    return study.isel(network=names.index(sample_size.NETWORK) if sample_size.NETWORK in names else 0)


def kappa_at_start(study: xr.Dataset) -> xr.Dataset:
    """Tr(H)/‖H‖ at initialisation over the radius, for the main network: variables of `curves.means` (radius)."""
    cells = main_network(zone_map.by_network(zone_map.of_curvature(study)))
    return curves.means(cells["kappa"]).assign_coords(x=study["x"])


def accuracies(study: xr.Dataset) -> dict[tuple[str, str], xr.Dataset]:
    """Accuracy after training over the radius, as {(rate rule, temperature rule): means}.

    The rules say how learning rate and temperature follow the radius; such a pair of rules is called an arm. The
    study's first dataset and network are taken, and the dimension nearest to the one that claims use. Means have the
    variables of `curves.means`.
    """
    ((_, cell), *_) = over_radius.titled_cells(study.isel(dataset=[0], network=[0]), over_radius.DIMENSION)
    found = curves.means(over_radius.training.accuracy(cell)).assign_coords(x=cell["x"], classes=cell["classes"])
    return {(rate, temperature): found.sel(place) for rate, temperature, place in over_radius.arms(cell)}


def draw_training(ax: Axes, parts: dict, arms: list[tuple[str, str]], zone: bool) -> None:
    """Draw the accuracy over the radius for each of the `arms`, and tint the radii inside the zone.

    An arm is a pair (rate rule, temperature rule), as in `accuracies`. `parts` holds the figure's source data by name.
    With `zone`, Tr(H)/‖H‖ at initialisation is added on a right-hand axis. Data that `parts` lacks are left out.
    """
    if "kappa" in parts:
        for low, high in intervals_above(parts["kappa"]):
            ax.axvspan(low, high, **TINT)
    for arm in arms:
        if (found := parts.get(f"accuracy_{'_'.join(arm)}")) is not None:
            x = found["x"].values / 2 + over_radius.APART * curves.centred(arms.index(arm), len(arms))
            label = "accuracy" if zone else ARMS[arm]
            curves.draw_means(ax, x, found, **{**over_radius.look(*arm), "label": label})
            ax.axhline(1 / float(found["classes"]), **style.DASHED)
    highest = max((float(found["mean"].max()) for name, found in parts.items() if "accuracy" in name), default=1.0)
    ax.set(ylabel=over_radius.Y_LABEL, ylim=(0, ROOM_FOR_LEGEND * highest))
    if not ax.get_legend_handles_labels()[0] and not (zone and "kappa" in parts):
        say_missing(ax)
    elif not zone:
        ax.legend(loc="upper left", ncols=2, **LEGEND)
    elif "kappa" in parts:
        right = ax.twinx()
        right.spines["right"].set_visible(True)
        look = {"color": "k", "marker": "x", "linestyle": "--", "label": r"$\kappa$ at the start"}
        curves.draw_means(right, parts["kappa"]["x"].values / 2, parts["kappa"], **LOOKS, **look)
        right.set_ylabel(KAPPA)
        right.set_ylim(panels.limits(parts["kappa"]["mean"], [0.0], above=ROOM_FOR_LEGEND - 1))
        handles = [*ax.get_legend_handles_labels()[0], *right.get_legend_handles_labels()[0]]
        right.legend(handles=handles, loc="upper left", **LEGEND)


def intervals_above(found: xr.Dataset) -> list[tuple[float, float]]:
    """Intervals (low, high) of log10(r/r_X) in which the mean of `found` exceeds 1, by linear interpolation.

    `found` has the variable mean (radius) and the coordinate x.
    """
    x = np.linspace(found["x"].values.min(), found["x"].values.max(), 2001)
    above = np.interp(x, found["x"].values, found["mean"].values) > THRESHOLD
    steps = np.flatnonzero(np.diff(np.concatenate([[0], above, [0]])))
    return [(x[low] / 2, x[high - 1] / 2) for low, high in zip(steps[::2], steps[1::2])]


def draw_samples(ax: Axes, parts: dict) -> None:
    """Draw Tr(H)/‖H‖ over the radius for each number of examples, with the outer edge of the zone as a triangle.

    `parts` holds the figure's source data by name; if it lacks these data, the panel says so.
    """
    ax.axhline(THRESHOLD, **style.DASHED)
    ax.set_ylabel(KAPPA)
    if "samples" not in parts:
        say_missing(ax)
        return
    found, edges = parts["samples"], parts["edges"]
    for number, count in enumerate(found["examples"].values.tolist()):
        here = found.sel(examples=count)
        look = style.look(number, **LOOKS, linestyle=style.line(number), label=f"$N={count:,}$".replace(",", r"\,"))
        curves.draw_band(ax, here["x"].values / 2, here, **look)
        edge = float(edges["mean"].sel(edge="outer", examples=count)) / 2
        ax.plot(edge, THRESHOLD, marker="v", color=style.colour(number), markersize=6, markeredgecolor="k")
    curves.limit(ax, found)
    ax.legend(loc="upper right", **LEGEND)


def draw_embeddings(ax: Axes, parts: dict) -> None:
    """Draw Tr(H)/‖H‖ over the radius for VICReg and for the cross-entropy.

    `parts` holds the figure's source data by name; curves that it lacks are left out.
    """
    ax.axhline(0, **style.DASHED)
    ax.set_ylabel(KAPPA)
    looks = {"vicreg": ("joint embedding", style.look(0)), "cross_entropy": ("cross-entropy", style.look(1))}
    for criterion, (label, look) in looks.items():
        if criterion in parts:
            here = curves.parts_of(parts[criterion], "trace_over_norm")
            curves.draw_band(ax, here["x"].values / 2, here, **{**look, **LOOKS, "label": label})
    if ax.get_legend_handles_labels()[0]:
        ax.legend(loc="lower right", **LEGEND)
    else:
        say_missing(ax)


def say_missing(ax: Axes) -> None:
    ax.text(0.5, 0.5, "no study of this run shows this", ha="center", va="center", transform=ax.transAxes)
