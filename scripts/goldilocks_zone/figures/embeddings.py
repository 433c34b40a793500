"""Shared parts of figures of joint embeddings: selection of data, names and styles of arms and worlds, and panels.

An arm is one way to train, such as VICReg without its variance term. A world is a simulated dataset.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from goldilocks_zone.figures import curves, panels, style

ARMS = {
    "full": "full",
    "no_variance": "without $V$",
    "no_covariance": "without $C$",
    "neither": "without $V$ and $C$",
    "random": "random encoder",
    "shuffled": "shuffled pairs",
    "infonce": "InfoNCE",
    "pixel_prediction": "pixel prediction",
    "pixel_autoencoder": "pixel autoencoder",
}
# Style numbers (colour and marker) of arms that are drawn as curves; the untrained arm is grey.
NUMBERS = {"full": 0, "infonce": 1, "pixel_prediction": 2, "pixel_autoencoder": 3}
UNTRAINED = {"color": "0.45", "marker": "x"}
WORLDS = {"ring": "ring world", "mnist": "MNIST"}
APART = 0.46  # distance of the first from the last series of a row, relative to the distance between rows
DOT = {"marker": ".", "linestyle": "none", "markersize": 3.5, "alpha": 0.45, "markeredgewidth": 0}
SMALL = {"fontsize": 6.5}


def one(study: xr.Dataset, names: Sequence[str], *kept: str, **chosen: Any) -> xr.Dataset:
    """Select the variables `names` from a study, with the axes `kept` and draw; reduce every other axis to one label.

    `chosen` holds labels by axis, such as arm="full". An axis that `chosen` does not name, or that lacks the chosen
    label, is reduced to its first label. Names that the study lacks are skipped.
    """
    data = study[[name for name in names if name in study]].drop_vars("classes", errors="ignore")
    for axis in [str(axis) for axis in data.dims if axis not in (*kept, "draw")]:
        labels = study[axis].values.tolist()
        wanted = chosen.get(axis)
        data = data.isel({axis: labels.index(wanted) if wanted in labels else 0}, drop=True)
    return data.drop_encoding()  # the encoding may name axes that were dropped


def values_of(study: xr.Dataset, name: str, *kept: str, **chosen: Any) -> xr.DataArray:
    """Variable `name` of a study, with the axes `kept` and `draw`; all NaN if the study lacks it.

    On each other axis one label is selected: the one in `chosen`, or else the one that `one` takes by itself.
    """
    data = one(study, [name], *kept, **chosen)
    if name in data:
        return data[name]
    axes = {axis: study[axis].values for axis in (*kept, "draw") if axis in study.dims}
    blank = np.full([len(labels) for labels in axes.values()], np.nan)
    return xr.DataArray(blank, axes, tuple(axes), name, curves.described(f"{name}, not measured"))


def look_of(arm: str, **more: Any) -> dict:
    """Matplotlib's keyword arguments for colour and marker of an arm's curve; `more` adds or overrides arguments."""
    return {**UNTRAINED, **more} if arm == "random" else style.look(NUMBERS.get(arm, 4), **more)


def world(dataset: str) -> str:
    """Title of the dataset with this label, a simulated world or images, such as ring world or MNIST."""
    return WORLDS.get(dataset) or panels.dataset_title(dataset)


def finite(*shown: ArrayLike, otherwise: tuple[float, float] = (0.0, 1.0)) -> np.ndarray:
    """All finite values of the arrays `shown`, as one vector; `otherwise` if there are none."""
    values = np.concatenate([np.ravel(each) for each in shown])
    values = values[np.isfinite(values)]
    return values if len(values) else np.array(otherwise)


def draw_known(ax: Axes, x: np.ndarray, found: xr.Dataset, **look: Any) -> None:
    """Draw means at positions `x`, joined by a line, with their intervals as error bars; leave out those that are NaN.

    `found` has the variables mean, low and high, with one axis. `look` holds style arguments.
    """
    known = np.isfinite(found["mean"].values) & np.isfinite(x)
    (axis,) = found["mean"].dims
    if known.any():
        curves.draw_means(ax, np.asarray(x)[known], found.isel({axis: known}), **look)


def draw_rows(ax: Axes, rows: Sequence[str], series: Sequence[tuple[dict, xr.DataArray]], floor: float) -> None:
    """Draw one row for each arm in `rows`: the values of all draws as dots, and their mean with its interval.

    `series` holds several sets of values, such as one for each dataset, as pairs (style, values (arm, draw)). Sets are
    offset vertically within a row. Values below `floor` are drawn at `floor`.
    """
    for number, (look, values) in enumerate(series):
        shift = APART * curves.centred(number, len(series)) / max(1, len(series) - 1)
        means = curves.means(values)
        for row, arm in enumerate(rows):
            if arm in values["arm"].values:
                own, here = values.sel(arm=arm), means.sel(arm=arm)
                ax.plot(own.clip(min=floor), np.full(own.size, row + shift), **{**look, **DOT})
                mean = np.maximum(here["mean"].values, floor)
                bars = [[max(0.0, each)] for each in (mean - np.maximum(here["low"], floor), here["high"] - mean)]
                if np.isfinite(mean):
                    ax.errorbar(mean, row + shift, xerr=np.nan_to_num(bars), elinewidth=0.9, markersize=4, **look)
    ax.set(ylim=(len(rows) - 0.5, -0.5))
    ax.set_yticks(range(len(rows)), [ARMS.get(arm, arm) for arm in rows])
    for row in range(1, len(rows)):
        ax.axhline(row - 0.5, **{**style.GREY, "color": "0.88"})


def arms_of(*studies: xr.Dataset) -> list[str]:
    """Labels of the arms that the studies have, without duplicates, in the order of ARMS."""
    known = {arm for study in studies for arm in study["arm"].values.tolist()}
    return [arm for arm in ARMS if arm in known]


def source(found: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """Merge the source data of a figure's parts, `found`, given by name; parts without variables are left out.

    Variables and axes get the name of their part as a prefix.
    """
    return panels.side_by_side({name: part for name, part in found.items() if part.data_vars})
