"""Alignment of the boundary with the top eigenvectors of the Hessian and of G over the radius to which networks without
biases are rescaled, and where the parts of the Hessian are equally large (claim by8)."""

from collections.abc import Iterator

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from goldilocks_zone.claims.curves import crossing_from
from goldilocks_zone.figures import boundaries, curves, panels, style
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies

FIGURE = {
    "id": "alignment_zone",
    "studies": ["boundary_radius", "boundary_radius_mnist", "boundary_radius_mnist_500"],
    "axis": "radius",
    "needs": ["hessian_rank"],
}

PARTS = {
    "captured_by_hessian": ("$H$", {"linestyle": "-"}),
    "captured_by_gauss_newton": ("$G$", {"linestyle": "--", "markerfacecolor": "white"}),
}
CROSSING = {"marker": "*", "markersize": 7, "markeredgecolor": "k", "markeredgewidth": 0.5, "linestyle": "none"}
ABOVE = 1.06  # height of the first crossing marker, above all shares; STEP is the distance to the next one
STEP = 0.07


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    shown = list(cells(studies))
    groups = list(dict.fromkeys((dataset, minimum) for dataset, minimum, _, _ in shown))
    options = {"columns": 2 if len(groups) > 1 else 1, "x_label": panels.X_LABEL, "sharey": True, "room": 1.15}
    figure, axes = panels.page(len(groups), settings, **options)
    counts = sorted({count for _, _, count, _ in shown})
    top = ABOVE + STEP * len(counts)
    for ax, group in zip(axes, groups):
        own = {count: found for *place, count, found in shown if tuple(place) == group}
        for count, found in own.items():
            draw_cell(ax, found, counts.index(count))
        mark_missing(ax, list(own.values()))
        ax.axvline(0, **style.GREY)
        ax.set_xlim(panels.limits(*(found["x"] for found in own.values()), margin=0.05))
        ax.set(
            title=f"{panels.dataset_title(group[0])}, {describe(group[1])}",
            ylim=(-0.03, top),
            yticks=np.linspace(0, 1, 6),
        )
    panels.letter_titles(axes)
    panels.label_y(figure, "share of normals, $E_{C-1}$")
    panels.legend_on_top(figure, entries(counts), columnspacing=1.2)
    names = {f"{dataset}_{boundaries.kind(minimum)}_{count}": found for dataset, minimum, count, found in shown}
    return figure, panels.side_by_side(names)


def describe(minimum: str) -> str:
    return "trained" if minimum == "normal" else boundaries.title(minimum)


def cells(studies: Studies) -> Iterator[tuple[str, str, int, xr.Dataset]]:
    """Yield (dataset, minimum, number of examples, result of `over_radius`) for each dataset and minimum of each study.

    The first two are labels. The order is that of studies, datasets and minima.
    """
    for study in studies.values():
        for dataset in study["dataset"].values.tolist():
            for minimum in study["minimum"].values.tolist():
                here = study.sel(dataset=[dataset], minimum=[minimum])
                yield dataset, minimum, boundaries.examples(study, dataset), over_radius(here)


def over_radius(study: xr.Dataset) -> xr.Dataset:
    """Alignment E_{C−1} of the boundary with H and with G over the radius, for C classes, and where ‖G‖₂ = ‖H′‖₂.

    `study` has one dataset and one minimum. H is the Hessian, G its Gauss–Newton part, and H′ = H − G. E_k is the mean
    share of the boundary's normals in the span of the first k eigenvectors of H or G. {name}_mean, _low and _high are a
    mean over draws and the ends of its 95 % interval, for three names: captured_by_hessian (radius) and
    captured_by_gauss_newton (radius) are E_{C−1}, and crossing is the x = log10(r²/r_X²) at which ‖G‖₂ = ‖H′‖₂. Not
    every draw has such an x; crossing_draws is the number of draws that do.
    """
    order = int(study["classes"][0]) - 1
    rank = min(max(order, 1), int(study["hessian_rank"].max()))
    names = [*PARTS, "gauss_newton_top_eigenvalue", "residual_spectral_norm"]
    here = boundaries.one(study, names, "radius", "hessian_rank")
    found = {}
    for name in PARTS:
        values = here[name].sel(hessian_rank=rank, drop=True)
        found[name] = curves.means(values, f"{study[name].attrs['long_name']}, k = {rank}")
    parts = here["gauss_newton_top_eigenvalue"].isel(hessian_rank=0) / here["residual_spectral_norm"]
    ratio, share = xr.ufuncs.log10(parts), here["captured_by_hessian"].sel(hessian_rank=rank)
    x, draws = study["x"].values, range(here.sizes["draw"])
    places = [crossing(x, *(each.isel(draw=draw).values for each in (ratio, share))) for draw in draws]
    where = xr.DataArray(places, dims="draw")
    found["crossing"] = curves.means(where, "log10(r²/r_X²) where ‖G‖₂ = ‖H′‖₂")
    count = where.notnull().sum().assign_attrs(curves.described("draws with a place where ‖G‖₂ = ‖H′‖₂"))
    return curves.prefixed(found).assign(crossing_draws=count)


def crossing(x: np.ndarray, logarithm: np.ndarray, share: np.ndarray) -> float:
    """The x at which log10(‖G‖₂/‖H′‖₂) crosses 0, on the way from the x with the largest alignment to smaller x.

    G is the Gauss–Newton part of the Hessian, and H′ the rest. `logarithm` (r,) holds this logarithm and `share` (r,)
    the alignments with H, both at the ascending `x` (r,). The first crossing is returned, by linear interpolation. NaN
    if all alignments are NaN, if the logarithm is not positive where the alignment is largest, or if there is no
    crossing.
    """
    if not np.isfinite(share).any():
        return np.nan
    top = int(np.nanargmax(share))
    return crossing_from(top, x, logarithm, 0.0, outer=False) if logarithm[top] > 0 else np.nan


def draw_cell(ax: Axes, found: xr.Dataset, number: int) -> None:
    """Draw the alignments with H and with G over the radius, and above them the x of the crossing with its interval.

    `found` is a result of `over_radius`. `number` chooses colour and marker, and the height of the crossing.
    """
    for name, (_, look) in PARTS.items():
        here = curves.parts_of(found, name)
        ends = here.assign({end: here[end].clip(0, 1) for end in ("low", "high")})
        curves.draw_band(ax, found["x"].values, ends, 0.18, **style.look(number, markersize=2.6, linewidth=1.0, **look))
    x, low, high = (float(found[f"crossing_{part}"]) for part in curves.PARTS)
    if np.isfinite(x):
        height = ABOVE + STEP * number
        ax.plot([low, high], [height] * 2, color=style.colour(number), linewidth=0.9)
        ax.plot([x], [height], color=style.colour(number), **CROSSING)
        ax.plot([x, x], [0, height], color=style.colour(number), linewidth=0.5, linestyle=":")


def mark_missing(ax: Axes, cells: list[xr.Dataset]) -> None:
    """Write "no G" into a panel at each radius at which all alignments are NaN.

    `cells` are the results of `over_radius` that the panel shows.
    """
    there = [found[f"{name}_mean"].notnull() for found in cells for name in PARTS]
    for x in cells[0]["x"].values:
        if not any((each & (each["x"] == x)).any() for each in there):
            ax.annotate("no $G$", (x, 0.02), ha="center", va="bottom", rotation=90, color="0.4", **boundaries.SMALL)


def entries(counts: list[int]) -> list[Line2D]:
    handles = [
        panels.entry(f"$N={count}$", **style.look(number, markersize=2.6)) for number, count in enumerate(counts)
    ]
    handles += [panels.entry(label, color="0.3", marker="o", markersize=2.6, **look) for label, look in PARTS.values()]
    return [*handles, panels.entry(r"$\Vert G\Vert_2=\Vert H'\Vert_2$", color="0.8", **CROSSING)]
