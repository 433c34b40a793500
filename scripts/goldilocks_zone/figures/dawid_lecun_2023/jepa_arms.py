"""Deviation of embeddings, dimensions in use, and discrimination of pairs by the energy, by arm (Dawid & LeCun
2023)."""

import xarray as xr

from goldilocks_zone.figures import curves, embeddings, panels, style
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies

FIGURE = {
    "id": "jepa_arms",
    "studies": ["jepa_arms", "jepa_arms_mnist"],
    "needs": ["arm"],
}

MEASURES = {
    "deviation": r"deviation $\sigma$",
    "dimensions_in_use": "dimensions in use",
    "auc": "AUC of the energy",
}
LEAST = 1e-4  # smaller deviations are drawn at this value


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    parts = {name: measured(study) for name, study in studies.items()}
    rows = embeddings.arms_of(*studies.values())
    figure, axes = panels.page(3, settings, columns=3, room=1.2 if len(rows) > 4 else 1, sharey=True)
    looks = [style.look(number, linestyle="none") for number in range(len(parts))]
    for ax, (name, label) in zip(axes, MEASURES.items()):
        series = [(look, part[name]) for look, part in zip(looks, parts.values())]
        embeddings.draw_rows(ax, rows, series, floor=LEAST if name == "deviation" else -1)
        ax.set(xlabel=label)
    values = [part["deviation"].clip(min=LEAST) for part in parts.values()]
    top = float(embeddings.finite(*values).max())
    axes[0].set(xscale="log", xlim=(0.6 * LEAST, 2.5 * max(top, 1)))
    axes[0].minorticks_off()
    axes[1].set_xlim(left=-0.5)
    axes[2].set_xlim(min(0.45, *embeddings.finite(*(part["auc"] for part in parts.values()))) - 0.03, 1.03)
    axes[2].axvline(0.5, **style.DASHED)
    panels.letter_titles(axes, ["spread", "rank", "energy"])
    handles = [panels.entry(world(study), **look) for look, study in zip(looks, studies.values())]
    panels.legend_on_top(figure, handles)
    return figure, embeddings.source(parts)


def world(study: xr.Dataset) -> str:
    return embeddings.world(study["dataset"].values.tolist()[0])


def measured(study: xr.Dataset) -> xr.Dataset:
    """Select the variables MEASURES (arm, draw) from a study, and add their means over draws.

    An arm is one way to train. {measure}_mean, _low and _high (arm) are the mean over draws and the ends of its 95 %
    interval.
    """
    found = {name: embeddings.values_of(study, name, "arm") for name in MEASURES}
    whole = curves.prefixed({name: curves.means(values) for name, values in found.items()})
    return whole.assign(found)
