"""The published measure G_θ over its threshold in single and double precision, with the rank bound, the live share and
an untrained network (Sabanayagam et al. 2023)."""

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from goldilocks_zone.data import planar_shapes
from goldilocks_zone.figures import boundaries, curves, panels, style
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies
from goldilocks_zone.models import labels

FIGURE = {"id": "published_measure", "studies": ["boundary_measure"], "needs": ["precision", "epsilon"]}

PUBLISHED_EPSILON = 1e-6
PRECISIONS = {"float32": ("rule (a), float32", 0), "float64": ("rule (a), float64", 1)}
IN_RANGE = {"markersize": 5, "markerfacecolor": "white", "linestyle": "none"}
BY_MEAN = (
    "rule (b), eigenvectors of $G$",
    {"color": style.colour(2), "linestyle": "--", "marker": "^", "markersize": 2.2},
)
LIVE: tuple[str, dict[str, Any]] = ("live share", {"color": style.colour(3), "linestyle": ":"})
BOUND = ("rank bound", {"color": "0.3", "linestyle": "-.", "linewidth": 0.9})
SHOWN = ("published_measure_above", "published_measure_in_range", "encoding_share_above", "live_share")


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    (study,) = studies.values()
    data = measures(study)
    minima = data["minimum"].values.tolist()
    figure, axes = panels.page(len(minima), settings, room=1.35, sharey=True, sharex=True)
    for ax, label in zip(axes, minima):
        draw_minimum(ax, data.sel(minimum=label))
        ax.set(title=boundaries.title(label), xlabel=r"threshold $\varepsilon$")
    panels.letter_titles(axes)
    axes[0].set(ylabel=r"$G_\theta$, share of parameters", ylim=(-0.03, 1.03))
    panels.legend_on_top(figure, list(entries(data)), 4, columnspacing=1.2)
    return figure, data


def measures(study: xr.Dataset) -> xr.Dataset:
    """Means over draws of the variables SHOWN, as {name}_mean, _low and _high, and `rank_bound`, if it is known.

    low and high are the ends of a 95 % interval. The published measure is the share of eigenvectors that align with
    training gradients by more than a threshold ε. By rule (a), these are eigenvectors of the Hessian, each with its
    largest alignment over training examples. It gives published_measure_above (minimum, precision, epsilon) and, at ε =
    PUBLISHED_EPSILON, published_measure_in_range (minimum, precision), which counts only eigenvectors whose eigenvalues
    are above rounding errors. By rule (b), these are eigenvectors of the Gauss–Newton matrix, each with its mean
    alignment: encoding_share_above (minimum, epsilon). live_share (minimum) is the share of parameters on which the
    logits of some training example depend. `rank_bound` is that of the function of this name.
    """
    here = boundaries.one(study, list(SHOWN), "minimum", "precision", "epsilon")
    data = curves.prefixed({name: curves.means(here[name]) for name in SHOWN})
    if (bound := rank_bound(study)) is not None:
        data["rank_bound"] = ((), bound, curves.described("bound on the Hessian's rank over the number of parameters"))
    return data


def rank_bound(study: xr.Dataset) -> float | None:
    """Upper bound on the rank of the Hessian divided by its size p_θ: (2 (p_1 + p_3) + n (C − 1))/p_θ, at most 1.

    p_l is the number of parameters of layer l, and p_θ that of all layers; n is the number of examples, C of classes.
    The bound holds for ReLU networks with three weight layers and biases on datasets in the plane. Returns None for
    other networks and datasets.
    """
    known, label = planar_shapes.of(study["dataset"].values[0]), study["network"].values[0]
    if known is None or not labels.is_network(label):
        return None
    network = labels.parse_network(label)
    if network.depth != 3 or network.activation != "relu" or not network.biases:
        return None
    shapes = network.weight_shapes(known.shape.image, known.classes)
    first, _, last = (outputs * (inputs + 1) for outputs, inputs in shapes)
    examples = boundaries.examples(study, study["dataset"].values[0])
    whole = network.count_parameters(known.shape.image, known.classes)
    return min(1.0, (2 * (first + last) + examples * (known.classes - 1)) / whole)


def draw_minimum(ax: Axes, here: xr.Dataset) -> None:
    """Draw shares of parameters over the threshold ε; shares that do not depend on ε are horizontal lines.

    `here` is the part of `measures` for one minimum.
    """
    epsilon = here["epsilon"].values
    for precision in here["precision"].values:
        look = style.look(PRECISIONS[precision][1], markersize=2.2)
        curves.draw_band(ax, epsilon, curves.parts_of(here, SHOWN[0]).sel(precision=precision), **look)
        at = curves.parts_of(here, SHOWN[1]).sel(precision=precision).expand_dims("at")
        curves.draw_means(ax, [PUBLISHED_EPSILON], at, **{**look, **IN_RANGE})
    curves.draw_band(ax, epsilon, curves.parts_of(here, SHOWN[2]), **BY_MEAN[1])
    live = curves.parts_of(here, SHOWN[3])
    ax.axhline(float(live["mean"]), **LIVE[1])
    ax.axhspan(float(live["low"]), float(live["high"]), color=LIVE[1]["color"], alpha=0.2, linewidth=0)
    if "rank_bound" in here:
        ax.axhline(float(here["rank_bound"]), **BOUND[1])
    ax.axvline(PUBLISHED_EPSILON, **style.GREY)
    ax.set(xscale="log", xlim=panels.log_limits(np.log10(epsilon)))
    if not here[f"{SHOWN[0]}_mean"].notnull().any():
        boundaries.absent(ax)


def entries(data: xr.Dataset) -> list[Line2D]:
    """Legend entries: rule (a) in each precision, eigenvectors above rounding, rule (b) and the horizontal lines."""
    shown = [PRECISIONS[precision] for precision in data["precision"].values]
    handles = [panels.entry(words, **style.look(number, markersize=2.2)) for words, number in shown]
    handles.append(panels.entry("above rounding only", **{"color": "0.3", "marker": "o", **IN_RANGE}))
    lines = [BY_MEAN, LIVE, *([BOUND] if "rank_bound" in data else [])]
    return handles + [panels.entry(words, **look) for words, look in lines]
