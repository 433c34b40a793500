"""Alignment of training gradients with the top eigenvectors of G, over their rank and by class (Sabanayagam et al.
2023)."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import MultipleLocator

from goldilocks_zone.figures import boundaries, curves, panels, style
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies

FIGURE = {"id": "example_alignments", "studies": ["boundary_maps"], "needs": ["example"]}

MINIMUM = "normal"
APART = 0.8  # share of the unit distance between ranks over which the classes are spread


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    (study,) = studies.values()
    data = alignments(study)
    names = data["dataset"].values.tolist()
    count = int(study["classes"].max())
    figure, axes = panels.page(len(names), settings, room=1.1, sharey=True)
    for ax, name in zip(axes, names):
        draw_examples(ax, data.sel(dataset=name), int(study["classes"].sel(dataset=name)))
        ax.set(title=panels.dataset_title(name), xlabel="rank $i$")
    panels.letter_titles(axes)
    panels.label_y(figure, "alignment $A_i$")
    panels.legend_on_top(figure, boundaries.class_entries(count))
    return figure, data


def alignments(study: xr.Dataset) -> xr.Dataset:
    """Alignments of training gradients with the top eigenvectors of the Gauss–Newton matrix, at one minimum.

    example_alignment (dataset, example, rank) is the cosine between the gradient of an example's loss for its predicted
    label and the eigenvector of a rank. example_class (dataset, example) is the predicted class. All are of the first
    draw. The minimum is MINIMUM or, if the study lacks it, the first one.
    """
    names, kept = ["example_alignment", "example_class"], ("dataset", "minimum", "example", "rank")
    data = boundaries.one(study, names, *kept).isel(draw=0, drop=True)
    minima = data["minimum"].values.tolist()
    data = data.sel(minimum=MINIMUM if MINIMUM in minima else minima[0])
    data["example"].attrs = curves.described("number of the training example")
    return data


def draw_examples(ax: Axes, here: xr.Dataset, count: int) -> None:
    """Draw the alignment of examples with each eigenvector, classes side by side and examples jittered.

    `here` is the part of `alignments` for one dataset, which has `count` classes.
    """
    ranks, width = here["rank"].values, APART / count
    ax.axhline(0, **style.GREY)
    for label in range(count):
        values = here["example_alignment"].isel(example=(here["example_class"] == label).values)
        values = values.transpose("example", "rank").values
        spread = np.linspace(-0.35, 0.35, len(values))[:, None] if len(values) > 1 else np.zeros((len(values), 1))
        places = ranks + width * (curves.centred(label, count) + spread)
        look = {"linestyle": "none", "markersize": 1.6, "markeredgewidth": 0, "alpha": 0.7}
        ax.plot(np.ravel(places), np.ravel(values), **style.look(label, **look))
    if not here["example_alignment"].notnull().any():
        boundaries.absent(ax, "no eigenvector")
    for rank in ranks[:-1]:
        ax.axvline(rank + 0.5, color="0.9", linewidth=0.4, zorder=0)
    ax.set(xlim=(ranks[0] - 0.5, ranks[-1] + 0.5), ylim=(-1.05, 1.05))
    ax.xaxis.set_major_locator(MultipleLocator(2))
