"""Curves over training steps: names of runs, the steps at which variables are measured, and drawing."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from goldilocks_zone.claims.estimators import local_geometry
from goldilocks_zone.config import studies
from goldilocks_zone.figures import curves, panels, style

WORDS = {
    "standardised": "",
    "unit_interval": "images in [0, 1]",
    "mean_image_removed": "mean image removed",
    "original": "",
    "shuffled": "shuffled labels",
    "groups_of_two": "groups of two",
    "groups_of_five": "groups of five",
    "adam": "Adam",
    "sgd": "",
    "mean_squared_error": "squared errors",
    "cross_entropy": "",
    "all": "all examples",
}
PRIMARY = {"dataset": "mnist", "network": "fc-200x2-relu-nobias"}
USUAL = "usual"
STAGES = {"start": "start", "learnt": "after learning", "end": "end"}
KEYS = ("optimiser", "batch")  # settings that a run's name lists even if its study does not vary them
NARROW, WIDE = 4.0, 1000.0  # ratios of the ends of a logarithmic axis that change its ticks


def runs(study: xr.Dataset) -> Iterator[tuple[str, xr.Dataset]]:
    """Yield the name and data (draw, step, …) of each run of a study, at its first radius and subspace.

    A run has one dataset, one network and one value of each setting that the study varies. Its name lists those of them
    that differ from the usual ones, and is USUAL if none does.
    """
    settings = curves.settings_of(study)
    varied = [studies.dimension(key) for key in settings["vary"]]
    common = [WORDS.get(str(settings[key]), "") for key in KEYS if key not in varied]
    for values in product(*(study[axis].values.tolist() for axis in ("dataset", "network", *varied))):
        dataset, network, *others = values
        parts = [
            "" if dataset == PRIMARY["dataset"] else panels.dataset_title(dataset),
            "" if network == PRIMARY["network"] else network.removesuffix("-nobias"),
            *common,
            *(WORDS.get(str(value), f"{axis} {value}") for axis, value in zip(varied, others)),
        ]
        place = dict(zip(("dataset", "network", *varied), values))
        yield ", ".join(filter(None, parts)) or USUAL, study.sel(place).isel(radius=0, subspace=0)


def stages(run: xr.Dataset, variable: str) -> dict[str, int]:
    """Steps of the three stages start, learnt and end of training, as {stage: step}.

    Candidates are the steps at which `variable` was measured in every draw of the `run`. start and end are the first
    and the last of them. learnt is the first at which the training loss, averaged over draws, is below
    `local_geometry.LEARNT` times ln C, for C classes. If there is none, learnt is the middle one.
    """
    steps = local_geometry.measured(run[variable])["step"].values
    losses = run["training_loss"].sel(step=steps).mean("draw").values
    learnt = steps[losses < local_geometry.LEARNT * np.log(int(run["classes"]))]
    found = {"start": steps[0], "learnt": learnt[0] if len(learnt) else steps[len(steps) // 2], "end": steps[-1]}
    return {name: int(step) for name, step in found.items()}


def draw_over_steps(ax: Axes, found: xr.Dataset, number: int, label: str, **look: Any) -> None:
    """Draw the variable mean of `found` over the axis step, with a band from its variable low to its variable high.

    `number` chooses colour and marker; `label` is the text in the legend.
    """
    look = style.look(number, markersize=2.5, linewidth=1.0, label=label) | look
    curves.draw_band(ax, found["step"], found, **look)


def points(number: int, filled: bool) -> dict:
    """Style of points with error bars and without a line, in the colour and marker of curve `number`.

    Markers are white inside unless `filled`.
    """
    more = {"markersize": 3, "markeredgewidth": 0.8, "elinewidth": 0.7, "linestyle": "none"}
    return style.look(number, markerfacecolor=style.colour(number) if filled else "white", **more)


def step_axis(ax: Axes, steps: np.ndarray) -> None:
    """Set up an x-axis of steps: linear up to step 1, so that step 0 is visible, then logarithmic."""
    ax.set_xscale("symlog", linthresh=1, linscale=0.3)
    last = int(np.floor(np.log10(steps.max())))
    ax.set(xticks=[0, *10.0 ** np.arange(last + 1)], xlim=(-0.3, steps.max() * 1.25))
    ax.minorticks_off()
    ax.set_xlabel("step")


def logarithmic_axis(ax: Axes, *shown: xr.DataArray | float) -> None:
    """Make the y-axis logarithmic, with plain tick labels and room for the values `shown`.

    Intervals of these values may extend beyond the axis.
    """
    low, high = panels.log_limits(*(np.log10(each) for each in shown), margin=0.08)
    ax.set(yscale="log", ylim=(low, high))
    if high / low < NARROW:
        ticks = MaxNLocator(4).tick_values(low, high)
    else:
        powers = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
        ticks = np.concatenate([digit * powers for digit in ((1, 2, 5) if high / low < WIDE else (1,))])
    inside = sorted(tick for tick in ticks if low <= tick <= high)
    ax.set_yticks(inside, [f"{tick:g}" for tick in inside])
    ax.minorticks_off()
