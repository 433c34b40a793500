"""Tr(H)/‖H‖ and the fraction of positive eigenvalues over the radius: VICReg and its terms, InfoNCE and cross-entropy,
and other batches and networks (Dawid & LeCun 2023)."""

from typing import NamedTuple

import numpy as np
import xarray as xr

from goldilocks_zone.figures import curves, embeddings, panels, style
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies

FIGURE = {
    "id": "jepa_zone",
    "studies": [
        "jepa_zone",
        "jepa_zone_info_nce",
        "jepa_zone_examples",
        "jepa_zone_predictor",
        "jepa_zone_tanh",
        "jepa_zone_biases",
    ],
    "axis": "radius",
    "needs": ["criterion"],
}

MEASURES = {"trace_over_norm": r"$\mathrm{Tr}(H)/\Vert H\Vert$", "fraction_positive": "fraction positive"}


class Curve(NamedTuple):
    """A curve of the figure: where its data come from, and how it is drawn.

    study: name of the study. criterion: label of the loss. label: text in the legend. number: style number (colour,
    marker and line), None for dark grey. examples: number of examples, None for the study's first.
    """

    study: str
    criterion: str
    label: str
    number: int | None
    examples: int | None = None


FULL = Curve("jepa_zone", "vicreg", "full", 0)
COLUMNS = {
    "VICReg and its terms": [
        FULL,
        Curve("jepa_zone", "invariance", "$I$ alone", 1),
        Curve("jepa_zone", "variance", "$V$ alone", 2),
        Curve("jepa_zone", "covariance", "$C$ alone", 3),
    ],
    "other losses": [
        FULL,
        Curve("jepa_zone_info_nce", "info_nce-dot-both", "InfoNCE, products", 4),
        Curve("jepa_zone_info_nce", "info_nce-distance", "InfoNCE, distances", 5),
        Curve("jepa_zone", "cross_entropy", "cross-entropy", None),
    ],
    "full, other settings": [
        Curve("jepa_zone_examples", "vicreg", "$N=64$", 1, 64),
        Curve("jepa_zone_examples", "vicreg", "$N=256$", 0, 256),
        Curve("jepa_zone_examples", "vicreg", "$N=1024$", 2, 1024),
        Curve("jepa_zone_predictor", "vicreg", "predictor", 3),
        Curve("jepa_zone_tanh", "vicreg", "tanh", 4),
        Curve("jepa_zone_biases", "vicreg", "biases", 5),
    ],
}
LOOKS = {"markersize": 2.4, "linewidth": 1.0}


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    columns = {title: known(studies, found) for title, found in COLUMNS.items()}
    columns = {title: found for title, found in columns.items() if found}
    parts = {name(curve): measured(studies[curve.study], curve) for found in columns.values() for curve in found}
    size = {"room": 1.22, "sharex": True, "sharey": "row"}
    figure, axes = panels.grid(2, max(1, len(columns)), settings, **size)
    for number, (title, found) in enumerate(columns.items()):
        for ax, measure in zip(axes[:, number], MEASURES):
            for curve in found:
                here = curves.parts_of(parts[name(curve)], measure)
                curves.draw_band(ax, here["x"].values, here, **look_of(curve))
            ax.axvline(0, **style.GREY)
        panels.legend_above(axes[0, number], panels.lettered(number, title), columns=2)
        axes[1, number].set(xlabel=panels.X_LABEL)
    for row, measure in zip(axes, MEASURES):
        row[0].set(ylabel=MEASURES[measure], ylim=ends(parts, measure))
        for ax in row:
            ax.axhline(0 if measure == "trace_over_norm" else 0.5, **style.DASHED)
    return figure, embeddings.source(parts)


def look_of(curve: Curve) -> dict:
    """Matplotlib's keyword arguments for style and label of a curve; dark grey if it has no style number."""
    if curve.number is None:
        return {"color": "0.25", "marker": "x", "label": curve.label, "linestyle": "-", **LOOKS}
    return style.look(curve.number, label=curve.label, linestyle=style.line(curve.number), **LOOKS)


def known(studies: Studies, column: list[Curve]) -> list[Curve]:
    """Those curves in `column` whose study is among `studies` and has their loss and number of examples."""
    return [curve for curve in column if curve.study in studies and has(studies[curve.study], curve)]


def has(study: xr.Dataset, curve: Curve) -> bool:
    """Return True if `study` has the loss and the number of examples of `curve`."""
    counted = curve.examples is None or curve.examples in study["examples"].values
    return counted and curve.criterion in study["criterion"].values


def name(curve: Curve) -> str:
    """Name of a curve in the figure's source data: its study, loss and number of examples, joined by underscores."""
    return "_".join([curve.study, curve.criterion.replace("-", "_"), *([str(curve.examples)] * bool(curve.examples))])


def measured(study: xr.Dataset, curve: Curve) -> xr.Dataset:
    """Means over draws of the variables MEASURES over the radius, for one curve.

    The curve's loss and number of examples are selected from the study. {measure}_mean, _low and _high (radius) are the
    mean and the ends of its 95 % interval.
    """
    chosen = {"criterion": curve.criterion, "examples": curve.examples}
    found = {}
    for measure in MEASURES:
        found[measure] = curves.means(embeddings.values_of(study, measure, "radius", **chosen))
    return curves.prefixed(found).assign_coords(x=study["x"])


def ends(parts: dict[str, xr.Dataset], measure: str) -> tuple[float, float]:
    """Lower and upper end of the y-axis of a measure, with room for the means of all curves in `parts`."""
    if measure == "fraction_positive":
        return -0.03, 1.03
    return panels.limits(embeddings.finite(*(part[f"{measure}_mean"] for part in parts.values())), np.zeros(1))
