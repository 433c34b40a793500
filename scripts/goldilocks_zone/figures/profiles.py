"""Measures of curvature over the radius, for several dimensions and numbers of examples."""

import csv
from collections.abc import Mapping

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from goldilocks_zone.figures import curves, panels, style
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies

DIMENSION = 50  # dimension used by the claims
PUBLISHED = {"linestyle": "none", "markerfacecolor": "none", "markeredgewidth": 0.6, "markersize": 4}
POWER_LAW_FROM = 2.0  # power laws are fitted from this x outwards, as in claim fs7


def shown_dimension(study: xr.Dataset) -> int:
    """Dimension of the planes that a figure shows: DIMENSION, as in claims, or the largest if the study lacks it."""
    dimensions = study["dimension"].values
    return DIMENSION if DIMENSION in dimensions else int(dimensions.max())


def draw_curves(ax: Axes, curve: xr.Dataset, number: int, label: str, deviations: bool = True) -> None:
    """Draw a mean over the radius for each number of examples, with thin broken lines for all but the largest.

    `curve` is a result of `curves.over_radii` with the axis examples. `number` chooses the colour, and `label` is the
    text in the legend. The largest number of examples has bands and, with `deviations`, error bars.
    """
    largest, *fewer = sorted(curve["examples"].values.tolist(), reverse=True)
    curves.draw_curve(ax, curve.sel(examples=largest), number, label, deviations)
    for line, count in enumerate(fewer, 1):
        thin = curve.sel(examples=count)
        ax.plot(thin["x"], thin["mean"], color=style.colour(number), linestyle=style.line(line), linewidth=0.7)


def example_handles(study: xr.Dataset) -> list[Line2D]:
    """Legend entries for the line styles of `draw_curves`, largest number of examples first."""
    counts = sorted(study["examples"].values.tolist(), reverse=True)
    return [
        panels.entry(f"$N={count}$", color="k", linestyle=style.line(i), linewidth=0.7 if i else 1.2)
        for i, count in enumerate(counts)
    ]


def power_law(x: np.ndarray, mean: np.ndarray) -> list[float]:
    """[slope, intercept] of the line fitted to log10 of `mean` (r,) over log10(r/r_X).

    The fit uses the radii at which `x` (r,), log10(r²/r_X²), is at least POWER_LAW_FROM. Returns [] for fewer than two
    such radii.
    """
    above = x >= POWER_LAW_FROM
    return np.polyfit(x[above] / 2, np.log10(mean[above]), 1).tolist() if above.sum() >= 2 else []


def published_rows(path: Published, cell: Mapping[str, str]) -> list[dict[str, str]]:
    """Rows of the file of published values at `path`, as {column: text}.

    Returns [] if `path` is None, or if the `cell` is of another dataset and network than MNIST and fc-200x2-relu.
    """
    if path is None or (cell["dataset"], cell["network"]) != ("mnist", "fc-200x2-relu"):
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def draw_profile(
    variable: str, label: str, reference: float, studies: Studies, settings: FigureSettings, published: Published
) -> Drawn:
    """Draw a study's `variable` over the radius, one curve per dimension, as in figure 3 of Fort & Scherlis (2019).

    `label` is the y-label. A broken line marks the value `reference`. Open markers show the values in the file
    `published`, if it is given. Returns the figure and its source data.
    """
    (study,) = studies.values()
    data = curves.over_radii(study, variable)
    figure, axes = panels.for_each_cell(study, settings)
    for ax, cell in axes:
        rows = published_rows(published, cell)
        for number, d in enumerate(study["dimension"].values.tolist()):
            draw_curves(ax, data.sel(cell).sel(dimension=d), number, f"$d={d}$")
            points = [(float(row["log10_r2_over_rX2"]), float(row["mean"])) for row in rows if int(row["d"]) == d]
            if rows:
                ax.plot(*zip(*points), **style.look(number, **PUBLISHED))
        ax.axvline(0, **style.GREY)
        ax.axhline(reference, **style.DASHED)
        handles = [*ax.get_legend_handles_labels()[0], *example_handles(study)]
        if rows:
            handles.append(panels.entry("published", color="k", linestyle="none", marker="o", markerfacecolor="none"))
        panels.legend(ax, handles, loc="best")
        curves.limit(ax, data)
    panels.label_y(figure, label)
    return figure, data
