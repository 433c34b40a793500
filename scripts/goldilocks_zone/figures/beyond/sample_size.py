"""Dependence of the zone on the number of examples: Tr(H)/‖H‖ over the radius, the zone's edges, and controls."""

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from goldilocks_zone.claims import cells
from goldilocks_zone.claims.curves import outermost_crossings
from goldilocks_zone.figures import curves, panels, profiles, style
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies
from goldilocks_zone.models import labels

FIGURE = {"id": "sample_size", "studies": ["sample_size", "sample_size_controls"], "axis": "radius"}

MAIN, CONTROLS = "sample_size", "sample_size_controls"
NETWORK = "fc-200x2-relu"  # shown as curves, if the study has it
THRESHOLD = 1.0
Y_LABEL = r"$\mathrm{Tr}(H)/\Vert H\Vert$"
TITLES = {"mean_squared_error": "squared error", "shuffled": "shuffled labels", "gaussian": "Gaussian inputs"}


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    studies = {name: primary(studies[name]) for name in (MAIN, CONTROLS) if name in studies}
    counts = sorted({count for study in studies.values() for count in study["examples"].values.tolist()})
    figure = plt.figure(figsize=panels.page_size(len(studies), settings, room=1.15))
    rows = dict(zip(studies, figure.subfigures(len(studies), 1, squeeze=False)[:, 0]))
    parts = {}
    if MAIN in studies:
        study = studies[MAIN]
        parts["curves"] = curves.over_radii(study, "trace_over_norm")
        parts["edges"] = zone_edges(study["trace_over_norm"])
        left, right = rows[MAIN].subplots(1, 2, width_ratios=(1, 1.1))
        network = NETWORK if NETWORK in study["network"].values else study["network"].values[0]
        draw_counts(left, parts["curves"].sel(network=network), counts)
        left.set_title(panels.lettered(0, network))
        curves.limit(left, parts["curves"].sel(network=network))
        draw_edges(right, parts["edges"])
    if CONTROLS in studies:
        study = studies[CONTROLS].isel(network=0)
        parts["controls"] = curves.over_radii(study, "trace_over_norm")
        shown = controls(study)
        axes = rows[CONTROLS].subplots(1, max(len(shown), 1), squeeze=False, sharey=True)[0]
        for number, (ax, (title, place)) in enumerate(zip(axes, shown), 2):
            draw_counts(ax, parts["controls"].sel(place), counts)
            ax.set_title(panels.lettered(number, title))
        axes[0].set_ylabel(Y_LABEL)
        curves.limit(axes[0], parts["controls"])
    panels.legend_on_top(figure, figure.axes[0], len(counts))
    return figure, panels.side_by_side(parts)


def primary(study: xr.Dataset) -> xr.Dataset:
    """Select the first dataset and the first kind of plane, at the dimension of `profiles.shown_dimension`."""
    return study.isel(dataset=0, subspace=0).sel(dimension=profiles.shown_dimension(study))


def zone_edges(values: xr.DataArray) -> xr.Dataset:
    """Inner and outer edge of the zone in x = log10(r²/r_X²): mean, low, high and draws (edge, network, examples).

    `values` are Tr(H)/‖H‖ (network, examples, radius, draw), and the zone is where they exceed 1. An edge is the
    outermost crossing of 1; inner edges are sought at x up to 1, outer ones from x = 0. Some draws may lack an edge.
    `draws` is the number of draws that have it; mean and its 95 % interval from low to high are over these draws.
    """
    networks, counts = values["network"].values.tolist(), values["examples"].values.tolist()
    found = np.full((2, len(networks), len(counts), 4), np.nan)
    for outer, network, count in np.ndindex(found.shape[:-1]):
        # Restrict x as the claims do: far outside the zone, noise crosses the threshold.
        inside = values["x"] >= 0 if outer else values["x"] <= 1
        here = values.isel(network=network, examples=count, radius=inside.values)
        crossings = xr.DataArray(outermost_crossings(here, THRESHOLD, outer == 1), dims="draw")
        found[outer, network, count] = *curves.means(crossings)[curves.PARTS].to_array().values, crossings.count()
    meanings = {
        "mean": "log10(r²/r_X²) at which Tr(H)/‖H‖ crosses 1, mean over the draws in which it does",
        **curves.ends_of("the mean's 95 % interval"),
        "draws": "number of draws in which it does",
    }
    coordinates = {"edge": ["inner", "outer"], "network": networks, "examples": counts}
    return xr.Dataset(curves.columns(tuple(coordinates), found, meanings), coordinates)


def controls(study: xr.Dataset) -> list[tuple[str, dict]]:
    """List (title, axis labels) of the study's variants in which exactly one setting has an unusual value.

    The title names the unusual value, and the axis labels select the variant from the study. The usual value of a
    setting is the one that claims use. If the study lacks it, the study's first value counts as usual.
    """
    usual = {dim: cells.PRIMARY_SETTINGS[key] for key, dim in cells.VARIED.items() if dim in study.dims}
    usual = {dim: value if value in study[dim].values else study[dim].values[0] for dim, value in usual.items()}
    return [
        (TITLES.get(value, str(value).replace("_", " ")), {**usual, dim: value})
        for dim in sorted(usual, reverse=True)
        for value in study[dim].values.tolist()
        if value != usual[dim]
    ]


def draw_counts(ax: Axes, curve: xr.Dataset, counts: list[int]) -> None:
    """Draw Tr(H)/‖H‖ over the radius for each number of examples; `curve` is a result of `curves.over_radii`.

    `counts` lists all numbers of examples in the figure. The position of a number in this list chooses its colour.
    """
    ax.axhline(THRESHOLD, **style.DASHED)
    for count in curve["examples"].values.tolist():
        curves.draw_curve(ax, curve.sel(examples=count), counts.index(count), f"$N={count}$", deviations=False)
    place = ax.get_subplotspec()
    ax.set(xlabel=panels.X_LABEL, ylabel=Y_LABEL if place is not None and place.is_first_col() else "")


def draw_edges(ax: Axes, found: xr.Dataset) -> None:
    """Draw the zone's edges over the number of examples N, with thin lines that have the predicted slope.

    `found` is a result of `zone_edges`. The slope is that of x over log10 N: 0 for the inner edge, and 2/n for the
    outer edge of a network with n_L weight layers. Each line passes through the mean of its series of edges.
    """
    counts = found["examples"].values
    depths = {network: labels.depth(network) or 0 for network in found["network"].values.tolist()}
    networks = sorted(depths, key=depths.__getitem__)
    for number, network in enumerate(networks):
        colour = style.colour(number)
        places = counts * 1.1 ** curves.centred(number, len(networks))
        for edge, filling in (("outer", colour), ("inner", "white")):
            here = found.sel(network=network, edge=edge)
            curves.draw_means(ax, places, here, **style.look(number, markerfacecolor=filling, linestyle="none"))
            mean = here["mean"].values
            slope = 0.0 if edge == "inner" else 2 / depths[network] if depths[network] else np.nan
            seen = np.isfinite(mean)
            if seen.any():
                line = mean[seen].mean() + slope * (np.log10(counts) - np.log10(counts[seen]).mean())
                ax.plot(places, line, color=colour, linewidth=0.6, zorder=1)
    if found["mean"].notnull().any():
        # Limit by means, because error bars of few draws are wide.
        ax.set_ylim(float(found["mean"].min()) - 0.5, float(found["mean"].max()) + 0.5)
    ax.set_xscale("log")
    ax.set_xticks(counts, [str(count) for count in counts])
    ax.minorticks_off()
    title = panels.lettered(1, "edges of the zone")
    ax.set(xlabel="number of examples $N$", ylabel=rf"{panels.X_LABEL} of the edge", title=title)
    names = [name.removesuffix("-relu") + (f", $n_L={depths[name]}$" if depths[name] else "") for name in networks]
    handles = [panels.entry(name, linestyle="none", **style.look(i)) for i, name in enumerate(names)]
    dot = {"color": "k", "marker": "o", "linestyle": "none"}
    handles += [panels.entry("outer edge", **dot), panels.entry("inner edge", markerfacecolor="white", **dot)]
    handles.append(panels.entry("slope predicted", color="k", linewidth=0.6))
    ax.legend(handles=handles, loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=1.2)
