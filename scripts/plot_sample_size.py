"""The zone over the number of examples: Tr(H)/‖H‖ over the radius, the zone's edges, and controls."""

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

from goldilocks_zone.claims import cells
from goldilocks_zone.claims.curves import outermost_crossings
from goldilocks_zone.figures import panels, style
from goldilocks_zone.jobs.log import job_log
from goldilocks_zone.models import labels
from goldilocks_zone.statistics import estimates

MAIN, CONTROLS = "sample_size", "sample_size_controls"
NETWORK = "fc-200x2-relu"  # of the curves, where the study has it
THRESHOLD = 1.0
# Where an edge is looked for, as in the claims: far outside, noise may pass the threshold.
LAST_INNER, FIRST_OUTER = 1.0, 0.0
Y_LABEL = r"$\mathrm{Tr}(H)/\Vert H\Vert$"
TITLES = {
    "mean_squared_error": "squared error",
    "shuffled": "shuffled labels",
    "gaussian": "Gaussian inputs",
}
ROOM = 1.15  # for what stands above the panels, relative to their rows
DODGE = 0.1  # between the points of two networks at one number of examples, relative


def plot_sample_size(
    paths_to_studies: list[str], path_to_settings: str, path_to_pdf: str, path_to_png: str, path_to_data: str
) -> None:
    studies, settings = panels.load_all(paths_to_studies, path_to_settings)
    studies = {name: primary(studies[name]) for name in (MAIN, CONTROLS) if name in studies}
    counts = sorted({count for study in studies.values() for count in study["examples"].values.tolist()})
    width, height = style.page_size(len(studies), settings)
    figure = plt.figure(figsize=(width, height * ROOM))
    rows = dict(zip(studies, np.atleast_1d(figure.subfigures(len(studies), 1))))
    parts, handles = {}, []
    if MAIN in studies:
        study = studies[MAIN]
        parts["curves"] = style.curves(study, "trace_over_norm")
        parts["edges"] = edges(study["trace_over_norm"])
        left, right = rows[MAIN].subplots(1, 2, width_ratios=(1, 1.1))
        network = NETWORK if NETWORK in study["network"].values else study["network"].values[0]
        draw_counts(left, parts["curves"].sel(network=network), counts)
        left.set_title(f"(a) {network}")
        style.limit(left, parts["curves"].sel(network=network))
        handles = left.get_legend_handles_labels()[0]
        draw_edges(right, parts["edges"])
    if CONTROLS in studies:
        study = studies[CONTROLS].isel(network=0)
        parts["controls"] = style.curves(study, "trace_over_norm")
        shown = controls(study)
        axes = rows[CONTROLS].subplots(1, max(len(shown), 1), squeeze=False, sharey=True)[0]
        for ax, letter, (title, place) in zip(axes, "cdefghij", shown):
            draw_counts(ax, parts["controls"].sel(place), counts)
            ax.set_title(f"({letter}) {title}")
        axes[0].set_ylabel(Y_LABEL)
        style.limit(axes[0], parts["controls"])
        handles = handles or axes[0].get_legend_handles_labels()[0]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(counts))
    style.save(figure, source_data(parts), path_to_pdf, path_to_png, path_to_data)


def primary(study: xr.Dataset) -> xr.Dataset:
    """The first dataset and kind of plane, at the dimension of the claims."""
    return study.isel(dataset=0, subspace=0).sel(dimension=style.shown_dimension(study))


def edges(values: xr.DataArray) -> xr.Dataset:
    """x of the zone's inner and outer edge: mean over the draws that have one, its 95 % interval, and their number."""
    networks, counts = values["network"].values.tolist(), values["examples"].values.tolist()
    found = np.full((4, 2, len(networks), len(counts)), np.nan)
    for place in np.ndindex(found.shape[1:]):
        outer = place[0] == 1
        inside = values["x"] >= FIRST_OUTER if outer else values["x"] <= LAST_INNER
        here = values.sel(network=networks[place[1]], examples=counts[place[2]]).isel(radius=inside.values)
        each = outermost_crossings(here, THRESHOLD, outer)
        each = each[np.isfinite(each)]
        found[(3, *place)] = len(each)
        if len(each):
            found[(0, *place)] = each.mean()
        if len(each) > 1:
            found[(1, *place)], found[(2, *place)] = estimates.mean(each).interval(style.LEVEL)
    meanings = {
        "mean": "log10(r²/r_X²) at which Tr(H)/‖H‖ crosses 1, mean over the draws in which it does",
        "low": "lower end of the mean's 95 % interval",
        "high": "upper end of the mean's 95 % interval",
        "draws": "number of draws in which it does",
    }
    variables = {
        name: (("edge", "network", "examples"), found[i], {"units": "1", "long_name": meaning})
        for i, (name, meaning) in enumerate(meanings.items())
    }
    return xr.Dataset(variables, {"edge": ["inner", "outer"], "network": networks, "examples": counts})


def controls(study: xr.Dataset) -> list[tuple[str, dict]]:
    """Each variant that differs from the claims' settings in one thing, with its title."""
    usual = {dim: cells.PRIMARY_SETTINGS[key] for key, dim in cells.VARIED.items() if dim in study.dims}
    usual = {dim: value if value in study[dim].values else study[dim].values[0] for dim, value in usual.items()}
    return [
        (TITLES.get(value, str(value).replace("_", " ")), {**usual, dim: value})
        for dim in sorted(usual, reverse=True)
        for value in study[dim].values.tolist()
        if value != usual[dim]
    ]


def draw_counts(ax: plt.Axes, curve: xr.Dataset, counts: list[int]) -> None:
    """One curve per number of examples; `counts` are those of the whole figure, which share colours."""
    ax.axhline(THRESHOLD, color="0.6", linewidth=0.5, linestyle="--", zorder=0)
    for count in curve["examples"].values.tolist():
        style.draw_curve(ax, curve.sel(examples=count), counts.index(count), f"$N={count}$", deviations=False)
    ax.set_xlabel(style.X_LABEL)
    ax.set_ylabel(Y_LABEL if ax.get_subplotspec().is_first_col() else "")


def draw_edges(ax: plt.Axes, found: xr.Dataset) -> None:
    """Edges over the number of examples, and thin lines of the predicted slopes through the mean of each row."""
    counts = found["examples"].values
    depths = {network: labels.depth(network) or 0 for network in found["network"].values.tolist()}
    networks = sorted(depths, key=depths.get)
    for number, network in enumerate(networks):
        colour = style.COLOURS[number % len(style.COLOURS)]
        places = counts * (1 + DODGE) ** (number - (len(networks) - 1) / 2)
        for edge, filling in (("outer", colour), ("inner", "white")):
            here = found.sel(network=network, edge=edge)
            mean = here["mean"].values
            bars = [mean - here["low"].values, here["high"].values - mean]
            look = {"marker": style.MARKERS[number % len(style.MARKERS)], "markerfacecolor": filling}
            ax.errorbar(places, mean, bars, color=colour, linestyle="none", elinewidth=0.8, **look)
            slope = 0.0 if edge == "inner" else 2 / depths[network] if depths[network] else np.nan
            seen = np.isfinite(mean)
            if seen.any():
                line = mean[seen].mean() + slope * (np.log10(counts) - np.log10(counts[seen]).mean())
                ax.plot(places, line, color=colour, linewidth=0.6, zorder=1)
    # Bars of few draws may leave the axes.
    if found["mean"].notnull().any():
        ax.set_ylim(float(found["mean"].min()) - 0.5, float(found["mean"].max()) + 0.5)
    ax.set_xscale("log")
    ax.set_xticks(counts, [str(count) for count in counts])
    ax.minorticks_off()
    ax.set_xlabel("number of examples $N$")
    ax.set_ylabel(rf"{style.X_LABEL} of the edge")
    ax.set_title("(b) edges of the zone")
    handles = [
        plt.Line2D(
            [],
            [],
            color=style.COLOURS[number % len(style.COLOURS)],
            marker=style.MARKERS[number % len(style.MARKERS)],
            linestyle="none",
            label=network.removesuffix("-relu") + (f", $n={depths[network]}$" if depths[network] else ""),
        )
        for number, network in enumerate(networks)
    ]
    kinds = [
        plt.Line2D([], [], color="k", marker="o", linestyle="none", label="outer edge"),
        plt.Line2D([], [], color="k", marker="o", markerfacecolor="white", linestyle="none", label="inner edge"),
        plt.Line2D([], [], color="k", linewidth=0.6, label="slope predicted"),
    ]
    ax.legend(handles=[*handles, *kinds], loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=1.2)


def source_data(parts: dict[str, xr.Dataset]) -> xr.Dataset:
    """All that is drawn in one dataset: variables and axes named after their part, as axes of parts differ."""
    named = [
        part.rename({name: f"{key}_{name}" for name in {*part.variables, *part.dims}}) for key, part in parts.items()
    ]
    return xr.merge(named, combine_attrs="drop_conflicts")


if __name__ == "__main__":
    with job_log(snakemake.log[0], snakemake.input):
        plot_sample_size(
            paths_to_studies=list(snakemake.input.studies),
            path_to_settings=snakemake.input.settings,
            path_to_pdf=snakemake.output.pdf,
            path_to_png=snakemake.output.png,
            path_to_data=snakemake.output.data,
        )
