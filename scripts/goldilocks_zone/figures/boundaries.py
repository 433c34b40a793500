"""Shared parts of figures of the decision boundary: kinds of minima, maps over the plane, and training points.

A minimum stands for the parameters after one kind of training, or before any. Its label names the kind of training:
`adversarial-300` was first trained for 300 steps on random labels. The plane is that of inputs with two coordinates. An
alignment is the cosine between a gradient with respect to the parameters and an eigenvector.
"""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import ListedColormap, Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator

from goldilocks_zone.data import planar_shapes
from goldilocks_zone.figures import curves, panels, style

# Title and style number (colour and marker) of each kind of minimum.
KINDS = {
    "normal": ("normal", 0),
    "adversarial": ("adversarial", 1),
    "large_norm": ("large norm", 2),
    "wide_margin": ("wide margin", 4),
    "untrained": ("untrained", 3),
}
PUBLISHED, MATCHED = "temperature-1", "entropy-0.05"
COLOURS = "PuOr_r"  # of alignments: white at zero and safe for colour-blind readers
BAR_CM = 0.35  # width of a colour bar
PALE = 0.75  # share of white in the colour of a class's region
NARROW, SHORT = 3, 20  # ratios of the ends of a logarithmic axis that change its ticks
DECADES = 5  # largest number of decades with a tick
SMALL: dict[str, Any] = {"fontsize": 6.5}
AXES_OF_MAPS = ("map_x", "map_y")
EXAMPLES = ["example_point", "example_label"]


def one(study: xr.Dataset, names: list[str], *kept: str, softmax: str = PUBLISHED) -> xr.Dataset:
    """Select the variables `names` from a study, with the axes `kept` and draw; reduce every other axis to one label.

    The axis softmax (outputs p that weight the Gauss–Newton matrix) is reduced to the label given as `softmax`. The
    axis epoch is reduced to the last epoch, and the axis scaling (of layers) to `none`. All other axes are reduced to
    their first label, and so is an axis that lacks the wanted one. Names that the study lacks are skipped.
    """
    data = study[[name for name in names if name in study]].drop_vars("classes", errors="ignore")
    for axis in [str(axis) for axis in data.dims if axis not in (*kept, "draw")]:
        labels = study[axis].values.tolist()
        wanted = {"epoch": max(labels), "softmax": softmax, "scaling": "none"}.get(axis, labels[0])
        data = data.isel({axis: labels.index(wanted) if wanted in labels else 0}, drop=True)
    return data.drop_encoding()  # the encoding may name axes that were dropped


def kind(minimum: str) -> str:
    """Kind of the minimum with this label: a key of KINDS, such as adversarial for the label adversarial-300."""
    return minimum.split("-")[0]


def steps(minimum: str) -> int:
    """Number of training steps on random labels, read from the label of a minimum (300 for adversarial-300).

    It is 0 if the label states no number.
    """
    return int(minimum.partition("-")[2] or 0)


def title(minimum: str) -> str:
    return KINDS[kind(minimum)][0]


def look(minimum: str, **more: Any) -> dict:
    """Matplotlib's keyword arguments for the colour and marker of a minimum; they depend on its kind alone.

    `minimum` is its label. `more` adds or overrides arguments.
    """
    return style.look(KINDS[kind(minimum)][1], **more)


def box(dataset: str) -> tuple[float, float, float, float]:
    """Bounding box (left, right, bottom, top) of the dataset of this name, whose inputs are points in the plane."""
    (left, right), (bottom, top) = planar_shapes.known(dataset).box
    return left, right, bottom, top


def aspect(dataset: str) -> float:
    """Aspect ratio of the box around a dataset: height over width."""
    left, right, bottom, top = box(dataset)
    return (top - bottom) / (right - left)


def in_plane(study: xr.Dataset) -> list[str]:
    """Names of those datasets of a study that consist of points in the plane."""
    return [name for name in study["dataset"].values.tolist() if planar_shapes.of(name)]


def examples(study: xr.Dataset, dataset: str) -> int:
    """Number N of training examples in one draw of a `dataset` in the plane.

    It is the study's setting or, if the study has none, the usual number for this dataset.
    """
    return curves.settings_of(study).get("examples") or planar_shapes.known(dataset).examples


def described_maps(data: xr.Dataset) -> xr.Dataset:
    """Describe the coordinates map_x and map_y of maps in a figure's source data, and return the data.

    The attributes units and long_name are set in place.
    """
    meanings = {
        name: f"node of the map along {name[-1]}, equally spaced over the dataset's box" for name in AXES_OF_MAPS
    }
    for name, meaning in meanings.items():
        data[name].attrs = curves.described(meaning)
    return data


def draw_alignment(ax: Axes, values: xr.DataArray, classes: xr.DataArray, dataset: str, largest: float = 1.0) -> None:
    """Draw a map over the plane of the alignments `values` (map_x, map_y), and the decision boundary.

    `classes` (map_x, map_y) holds the predicted classes, from which the boundary is drawn. The map covers the box of
    the dataset. Its colour scale runs from −`largest` to `largest`. If no value is finite, the panel states that none
    was measured.
    """
    image = values.transpose(*AXES_OF_MAPS).values.T
    if np.isfinite(image).any():
        ends = {"vmin": -largest, "vmax": largest, "cmap": COLOURS}
        ax.imshow(image, origin="lower", extent=box(dataset), interpolation="nearest", **ends)
    else:
        absent(ax)
    draw_boundary(ax, classes, dataset)
    frame(ax, dataset)


def draw_classes(ax: Axes, classes: xr.DataArray, dataset: str) -> None:
    """Draw the regions of the predicted `classes` (map_x, map_y) in pale colours, and the decision boundary.

    The map covers the box of the `dataset`.
    """
    image, count = classes.transpose(*AXES_OF_MAPS).values.T, planar_shapes.known(dataset).classes
    pale = ListedColormap([PALE + (1 - PALE) * np.array(to_rgb(style.colour(each))) for each in range(count)])
    ends: dict[str, Any] = {"vmin": -0.5, "vmax": count - 0.5}
    ax.imshow(image, origin="lower", extent=box(dataset), interpolation="nearest", cmap=pale, **ends)
    if not np.isfinite(image).any():
        absent(ax)
    draw_boundary(ax, classes, dataset)
    frame(ax, dataset)


def draw_boundary(ax: Axes, classes: xr.DataArray, dataset: str) -> None:
    """Draw the decision boundary between the predicted `classes` (map_x, map_y), interpolated between nodes.

    It is drawn as the outline of every class but the first. The map covers the box of the `dataset`.
    """
    image = classes.transpose(*AXES_OF_MAPS).values.T
    left, right, bottom, top = box(dataset)
    x, y = np.linspace(left, right, image.shape[1]), np.linspace(bottom, top, image.shape[0])
    for label in np.unique(image[np.isfinite(image)])[1:]:
        ax.contour(x, y, (image == label).astype(float), [0.5], colors="k", linewidths=0.6)


def draw_points(ax: Axes, here: xr.Dataset) -> None:
    """Draw the training examples in `here` as points in the plane, with colour and marker by class.

    `here` has the variables example_point (example, coordinate) and example_label (example), the class.
    """
    points, labels = here["example_point"].transpose("coordinate", "example").values, here["example_label"].values
    for label in np.unique(labels[np.isfinite(labels)]):
        look = {"markersize": 2.2, "markeredgecolor": "white", "markeredgewidth": 0.2, "linestyle": "none"}
        ax.plot(*points[:, labels == label], **style.look(int(label), **look))


def class_entries(count: int, **more: Any) -> list[Line2D]:
    """Legend entries for `count` classes; `more` overrides the style of the markers."""
    look = {"linestyle": "none", "markersize": 3, **more}
    return [panels.entry(f"class {label + 1}", **style.look(label, **look)) for label in range(count)]


def frame(ax: Axes, dataset: str) -> None:
    """Limit the axes of a map to the box of its dataset, with equal aspect and unlabelled ticks at the ends."""
    left, right, bottom, top = box(dataset)
    ax.set(xlim=(left, right), ylim=(bottom, top), xticks=[left, right], yticks=[bottom, top], aspect="equal")
    ax.tick_params(labelbottom=False, labelleft=False, length=2)
    ax.spines[:].set(visible=True, color="0.7")


def number(ax: Axes) -> None:
    """Label the ticks that `frame` has put at the ends of a map's axes with their values."""
    ax.tick_params(labelbottom=True, labelleft=True, labelsize=6.5, pad=1.5)
    for labels, places in ((ax.get_xticklabels(), ("left", "right")), (ax.get_yticklabels(), ("bottom", "top"))):
        for label, place in zip(labels, places):
            label.set(**{"ha" if place in ("left", "right") else "va": place})


def absent(ax: Axes, text: str = "not measured") -> None:
    """Write `text` in the middle of a panel that has no data."""
    ax.annotate(text, (0.5, 0.5), xycoords="axes fraction", ha="center", va="center", color="0.4", **SMALL)


def logarithmic_ticks(axis: Axis, short: float = SHORT) -> None:
    """Set the ticks of a logarithmic axis, depending on the ratio of its upper to its lower end.

    If the ratio is below NARROW, ticks are at 1, 1.5, 2, 3, 5 and 7 times each power of ten or, if fewer than two of
    these lie inside, at equal steps of the value. If it is below `short`, they are at 1, 2 and 5 times each power of
    ten. Otherwise they are at powers of ten, of which some are skipped if there are more than DECADES.
    """
    low, high = axis.get_view_interval()
    powers = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    if high / low < NARROW:
        ticks = np.concatenate([digit * powers for digit in (1, 1.5, 2, 3, 5, 7)])
        if np.count_nonzero((ticks >= low) & (ticks <= high)) < 2:
            ticks = MaxNLocator(4).tick_values(low, high)
    else:
        powers = powers[:: -(-len(powers) // DECADES)] if high / low >= short else powers
        ticks = np.concatenate([digit * powers for digit in ((1, 2, 5) if high / low < short else (1,))])
    inside = sorted(tick for tick in ticks if low <= tick <= high)
    words = [f"{tick:g}" if high / low < short else f"$10^{{{np.log10(tick):.0f}}}$" for tick in inside]
    axis.set_ticks(inside, words)
    axis.set_minor_locator(NullLocator())


def colour_bar(figure: Figure, axes: list[Axes]) -> None:
    """Add one colour bar, for alignments from −1 to 1, beside the maps in the panels `axes`."""
    mappable = plt.cm.ScalarMappable(Normalize(-1, 1), COLOURS)
    aspect = figure.get_size_inches()[1] * panels.CENTIMETRES_PER_INCH / BAR_CM
    bar = figure.colorbar(mappable, ax=axes, aspect=aspect, pad=0.015, ticks=[-1, -0.5, 0, 0.5, 1])
    bar.set_label("alignment $A_i$", labelpad=1, **SMALL)
    bar.outline.set_visible(False)
