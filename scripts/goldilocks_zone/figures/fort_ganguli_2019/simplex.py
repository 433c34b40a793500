"""Softmax outputs of three classes on the simplex during training, and of the random model (Fort & Ganguli 2019)."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.patches import Polygon

from goldilocks_zone.figures import curves, over_steps, panels, style
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies
from goldilocks_zone.randomness import stream
from goldilocks_zone.theory import random_model

FIGURE = {"id": "simplex", "studies": ["simplex"], "axis": "radius", "needs": ["output_example"]}

CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(3) / 2]])
LOOKS = [style.look(k, markersize=2.2, markeredgewidth=0) for k in range(len(CORNERS))]


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    (study,) = studies.values()
    data = outputs(study)
    size = (panels.page_size(1, settings)[0], 2 * 4.6 / panels.CENTIMETRES_PER_INCH)  # two rows of 4.6 cm
    figure, axes = panels.grid(2, data.sizes["step"], settings, figsize=size)
    for i, step in enumerate(data["step"].values):
        here = data.sel(step=step)
        draw_triangle(axes[0, i], here["outputs"].values, here["output_label"].values)
        draw_triangle(axes[1, i], here["model_outputs"].values, None)
        axes[0, i].set_title("start" if step == 0 else f"step {step}")
        axes[1, i].set_title(rf"$\sigma_z={float(here['model_spread']):.3g}$")
    for ax, label in zip(axes[:, 0], ("network", "random model")):
        ax.set_ylabel(label)
    panels.legend_on_top(figure, [panels.entry(f"class {k}", linestyle="none", **LOOKS[k]) for k in range(len(LOOKS))])
    return figure, data


def outputs(study: xr.Dataset) -> xr.Dataset:
    """Softmax outputs of the network at four steps of training, and as many outputs of the random model.

    The network is the first draw of the study's first run. If fewer than four steps were logged, all are taken.
    `outputs` and `model_outputs` have the axes (step, output_example, class), and `output_label` holds the labels of
    the examples. The model draws Gaussian logits with the standard deviation `model_spread` (step). `matching` chooses
    this number such that the mean of 1 − Σp² over examples is the same for the outputs p of model and network.
    """
    _, run = next(over_steps.runs(study))
    chosen = sorted({round(place) for place in np.linspace(0, run.sizes["step"] - 1, 4)})
    found = run[["outputs", "output_label"]].isel(draw=0, step=chosen).reset_coords(drop=True)
    random, spreads, made = stream("simplex"), [], []
    for step in found["step"].values:
        p = found["outputs"].sel(step=step).transpose("output_example", "class").values
        spreads.append(matching(1 - np.square(p).sum(1).mean(), p.shape[1]))
        count, classes = p.shape
        made.append(random_model.probabilities(count, classes, spreads[-1], random))
    found["model_outputs"] = (("step", "output_example", "class"), np.array(made))
    found["model_outputs"].attrs = curves.described("softmax outputs of independent Gaussian logits")
    meaning = "standard deviation of Gaussian logits whose outputs are as mixed as the network's"
    found["model_spread"] = ("step", spreads, curves.described(meaning))
    return found


def matching(mixing: float, classes: int) -> float:
    """Standard deviation of Gaussian logits for which the mean of 1 − Σp² over examples equals `mixing`.

    p is the softmax of the logits of an example; there is one logit for each of the `classes`. If no standard deviation
    gives this mean, returns 0 (uniform outputs) for `mixing` above 0.5, else 1e6 (saturated outputs).
    """
    try:
        return random_model.matching_spread(mixing, classes, stream("spread of the simplex"))
    except ValueError:
        return 0.0 if mixing > 0.5 else 1e6


def draw_triangle(ax: Axes, p: np.ndarray, labels: np.ndarray | None) -> None:
    """Draw points p (n, 3) of the simplex in a triangle, styled by their `labels` (n,); in grey if these are None."""
    ax.add_patch(Polygon(CORNERS, fill=False, edgecolor="0.5", linewidth=0.7))
    places = p @ CORNERS
    for k in range(len(CORNERS)):
        aside = 1.5 * (CORNERS[k] - CORNERS.mean(0))
        ax.annotate(str(k), CORNERS[k], aside, textcoords="offset fontsize", ha="center", va="center")
        if labels is not None:
            ax.plot(*places[labels == k].T, linestyle="none", alpha=0.6, **LOOKS[k])
    if labels is None:
        ax.plot(*places.T, linestyle="none", color="0.3", marker=".", markersize=2, alpha=0.6)
    ax.set(xlim=(-0.15, 1.15), ylim=(-0.15, 1.02), xticks=[], yticks=[], aspect="equal")
    ax.spines[:].set_visible(False)
