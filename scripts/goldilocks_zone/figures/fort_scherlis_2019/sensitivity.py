"""Dependence of the zone on settings that the original leaves open, and the sources of its spread."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from goldilocks_zone.claims.curves import outermost_crossing, vertex_within_reach
from goldilocks_zone.figures import curves, panels, profiles, style
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies

FIGURE = {"id": "sensitivity", "studies": ["sensitivity", "isotropy"], "axis": "radius"}
# Factors of the study, with the level that the main study uses.
FACTORS = {
    "metric": "shell",
    "subspace": "plane-50-sparse",
    "bias_directions": False,
    "inputs": "standardised",
    "examples": 1000,
}
MEASURES = {
    "peak_height": "peak of\n" + r"$\mathrm{Tr}(H)/\Vert H\Vert$",
    "peak_place": "$x$ of\nthe peak",
    "inner_edge": "$x$ of the\ninner edge",
    "outer_edge": "$x$ of the\nouter edge",
}
PARTS = {"theta": r"initialisation $\theta$", "plane": "plane", "examples": "examples"}


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    size = (panels.page_size(1, settings)[0], 1.3 * (settings.height_cm / panels.CENTIMETRES_PER_INCH))
    figure, axes = panels.page(len(MEASURES) + 1, settings, len(MEASURES) + 1, figsize=size)
    drawn = {}
    if "sensitivity" in studies:
        drawn["variants"] = measures(studies["sensitivity"].isel(dataset=0, network=0))
        draw_levels(axes[:-1], drawn["variants"])
    if "isotropy" in studies:
        drawn["spread"] = spread(studies["isotropy"].isel(dataset=0, network=0, subspace=0))
        draw_parts(axes[-1], drawn["spread"])
    return figure, panels.side_by_side(drawn)


def measures(study: xr.Dataset) -> xr.Dataset:
    """The variables MEASURES, read off the mean over draws of Tr(H)/‖H‖, for every combination of settings.

    They are the height of the peak, its x = log10(r²/r_X²), and the x of the zone's inner and outer edge, NaN without
    this edge. Their axes are those of Tr(H)/‖H‖ in the study, without radius, draw and dimension.
    """
    ratio = (
        study["trace_over_norm"].sel(dimension=profiles.shown_dimension(study)).mean("draw").transpose(..., "radius")
    )
    x, found = study["x"].values, np.empty((*ratio.shape[:-1], len(MEASURES)))
    for place in np.ndindex(ratio.shape[:-1]):
        curve = ratio[place].values
        edges = [outermost_crossing(x, curve, 1.0, outer) for outer in (False, True)]
        found[place] = np.nanmax(curve), vertex_within_reach(x, curve)[1], *edges
    meanings = {name: text.replace("\n", " ") for name, text in MEASURES.items()}
    return xr.Dataset(curves.columns(ratio.dims[:-1], found, meanings), ratio.isel(radius=0, drop=True).coords)


def draw_levels(axes: list[Axes], measured: xr.Dataset) -> None:
    """Draw one row for each level of each factor, in every panel of `axes`; each panel shows one of MEASURES.

    A factor is a setting that the study varies, a key of FACTORS, and a level is one of its values. A row has a mark
    for every combination of settings with this level, and one for their median. A broken line marks the combination
    that the main study uses. `measured` is a result of `measures`.
    """
    rows = [(axis, level) for axis in FACTORS for level in measured[axis].values.tolist()]
    usual = {axis: level for axis, level in FACTORS.items() if level in measured[axis].values}
    for (name, text), ax in zip(MEASURES.items(), axes):
        if len(usual) == len(FACTORS):
            ax.axvline(float(measured[name].sel(usual)), color="0.3", linewidth=0.7, linestyle="--", zorder=0)
        for number, (axis, level) in enumerate(rows):
            if number and axis != rows[number - 1][0]:
                ax.axhline(number - 0.5, color="0.85", linewidth=0.5, zorder=0)
            values = measured[name].sel({axis: level}).values
            values, colour = values[np.isfinite(values)], style.colour(list(FACTORS).index(axis))
            ax.plot(values, np.full(len(values), number), "|", color=colour, markersize=5, alpha=0.6)
            if len(values):
                ax.plot(np.median(values), number, "D", color=colour, markeredgecolor="k", markersize=3.5)
        ax.set_yticks(range(len(rows)), [row_name(*row) for row in rows] if ax is axes[0] else [])
        ax.xaxis.set_major_locator(MaxNLocator(2))
        ax.set(ylim=(len(rows) - 0.5, -0.5), xlabel=text)


def row_name(axis: str, level: object) -> str:
    """Text beside the row for the `level` (value) of the factor `axis` (setting), such as $N=1000$ or shell."""
    names = {
        "bias_directions": "bias directions" if level else "weights only",
        "examples": f"$N={level}$",
        "subspace": f"{str(level).rsplit('-', 1)[-1]} plane",
    }
    return names.get(axis, str(level).replace("_", " "))


def spread(study: xr.Dataset) -> xr.Dataset:
    """Coefficient of variation of Tr(H)/‖H‖ due to each source of variance, with its 95 % interval.

    The variables are coefficient_of_variation, low and high (x, part). The first is the square root of the variance due
    to a source, divided by the absolute mean. The axis x is log10(r²/r_X²), and part names the source. `plane` is the
    variance over planes, and `examples` that over sets of examples on the same planes, both for a fixed initialisation.
    `theta` is the rest of the variance over initialisations. The bootstrap resamples initialisations.
    """
    study = study.sel(dimension=profiles.shown_dimension(study), examples=study["examples"].max())
    ratio = study["trace_over_norm"].transpose("radius", "draw", "example_set").values
    planes = study["trace_over_norm_plane_variance"].transpose("radius", "draw", "example_set").values
    number = int(study.attrs["planes"])

    def parts(sample: np.ndarray) -> np.ndarray:
        means, variances = np.moveaxis(sample, -1, 1)
        of_plane, of_set = variances.mean(), means.var(axis=1, ddof=1).mean()
        of_theta = max(means.mean(axis=1).var(ddof=1) - of_plane / number - of_set / means.shape[1], 0.0)
        return np.sqrt([of_theta, of_plane, of_set]) / abs(means.mean())

    found = np.full((study.sizes["radius"], len(PARTS), 3), np.nan)
    for i, pair in enumerate(zip(ratio, planes)):
        samples = np.moveaxis(np.array(pair), 1, -1)
        for j in range(len(PARTS)):
            found[i, j] = curves.bootstrapped(lambda sample, j=j: parts(sample)[j], samples, "spread", str(i))
    meanings = {name: f"{name} of Tr(H)/‖H‖ by source" for name in ("coefficient_of_variation", "low", "high")}
    coordinates = {"x": study["x"].values, "part": list(PARTS)}
    return xr.Dataset(curves.columns(("x", "part"), found, meanings), coordinates)


def draw_parts(ax: Axes, parts: xr.Dataset) -> None:
    for number, (part, text) in enumerate(PARTS.items()):
        here = parts.sel(part=part)
        place = here["x"].values + 0.05 * curves.centred(number, len(PARTS))
        look = {"color": style.colour(number), "fmt": style.marker(number), "markersize": 3, "linewidth": 0.8}
        curves.draw_means(ax, place, here.rename(coefficient_of_variation="mean"), label=text, capsize=1.5, **look)
    ax.set_ylim(bottom=0)
    ax.margins(x=0.2)
    ax.set_xticks(parts["x"].values, [f"${x:.1f}$" for x in parts["x"].values])
    ax.set(xlabel=panels.X_LABEL, ylabel="coefficient of variation")
    panels.legend_above(ax, "")
