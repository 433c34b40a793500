"""Clustering of logit gradients along training, for several datasets, networks and arms (Fort & Ganguli 2019)."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from goldilocks_zone.figures import curves, over_steps, panels, style
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies

FIGURE = {
    "id": "clustering",
    "studies": ["geometry", "geometry_networks", "geometry_data", "geometry_inputs", "geometry_labels"],
    "axis": "radius",
}

# Name, style number and marker filling of each pair of logit gradients or inputs.
PAIRS = {
    "same_logit_same_class": ("same logit, same class", 0, True),
    "same_logit": ("same logit, any classes", 1, True),
    "other_logit": ("different logits", 2, True),
    "other_logit_absolute": ("different logits, absolute", 2, False),
    "same_class": ("inputs, same class", 3, True),
    "any_classes": ("inputs, any classes", 3, False),
}


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    data = cosines(studies)
    height_cm, stages = 2.6 + 0.75 * data.sizes["run"], data["stage"].values.tolist()
    size = (panels.page_size(1, settings)[0], height_cm / panels.CENTIMETRES_PER_INCH)
    figure, axes = panels.page(len(stages), settings, figsize=size, sharex=True, sharey=True)
    for ax, stage in zip(axes, stages):
        draw_stage(ax, data.sel(stage=stage))
    panels.letter_titles(axes, [over_steps.STAGES[stage] for stage in stages])
    axes[0].set_yticks(range(data.sizes["run"]), data["run"].values.tolist())
    axes[0].set_ylim(data.sizes["run"] - 0.5, -0.5)
    panels.legend_on_top(figure, axes[0], 3)
    return figure, data


def cosines(studies: dict[str, xr.Dataset]) -> xr.Dataset:
    """Mean cosines between logit gradients and between inputs, for every run of `studies` and three stages of training.

    The variables mean, low and high (run, stage, of) are the mean over draws and the ends of its 95 % interval. The
    labels along the axis `of` are the kinds of pairs, keys of PAIRS. Runs and stages are as in `over_steps.runs` and
    `over_steps.stages`.
    """
    parts: list[xr.Dataset] = []
    for name, run in (named for study in studies.values() for named in over_steps.runs(study)):
        of_logits = run["clustering"].sel(layers="all", drop=True).rename(pair="of")
        both = xr.concat([of_logits, run["input_cosine"].rename(input_pair="of")], "of")
        places = over_steps.stages(run, "gradient_power")
        values = xr.concat([both.sel(step=step, drop=True) for step in places.values()], "stage")
        values = values.assign_coords(stage=list(places)).reset_coords(drop=True).expand_dims(run=[name])
        # Runs are averaged one by one because their studies may differ in the number of draws.
        parts.append(curves.means(values, "mean cosine")[curves.PARTS])
    return xr.concat(parts, "run")


def draw_stage(ax: Axes, data: xr.Dataset) -> None:
    rows = np.arange(data.sizes["run"])
    for i, (of, (label, number, filled)) in enumerate(PAIRS.items()):
        here, look = data.sel(of=of), over_steps.points(number, filled)
        places = rows + 0.13 * curves.centred(i, len(PAIRS))
        ax.errorbar(here["mean"], places, xerr=curves.bars(here), label=label, **look)
    ax.axvline(0, **style.GREY)
    ax.set(xlim=(-0.25, 1.05), xlabel="mean cosine")
    for row in rows[1:]:
        ax.axhline(row - 0.5, color="0.9", linewidth=0.5, zorder=0)
