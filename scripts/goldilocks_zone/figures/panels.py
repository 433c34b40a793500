"""Figures across the page that show several studies, a panel for each."""

import math
from itertools import product
from pathlib import Path

import matplotlib.pyplot as plt
import xarray as xr

from goldilocks_zone.config.models import PageFigure
from goldilocks_zone.figures import style

TITLES = {
    "networks": "MNIST",
    "fashion_mnist": "Fashion-MNIST",
    "cifar10": "CIFAR-10",
    "tanh": "MNIST, activations",
    "cnn": "MNIST, convolutional",
}
LONGEST_IN_TWO_COLUMNS = 18  # characters of a legend's entry above one of three panels
OFFICIAL = ("mnist", "fashion_mnist", "cifar10")


def page(
    count: int, settings: PageFigure, columns: int | None = None, share_x: bool = True
) -> tuple[plt.Figure, list[plt.Axes]]:
    """A figure across the page with `count` panels, row by row; those at the bottom have the radius as their axis."""
    figure, stacks = stacked(count, 1, settings, columns, share_x)
    return figure, [ax for (ax,) in stacks]


def stacked(
    count: int, height: int, settings: PageFigure, columns: int | None = None, share_x: bool = True
) -> tuple[plt.Figure, list[list[plt.Axes]]]:
    """As `page`, with `count` stacks of `height` panels one below the other."""
    columns = columns or min(count, 3)
    rows = height * math.ceil(count / columns)
    size = style.page_size(rows, settings)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, sharex=share_x)
    stacks = [
        list(axes[start : start + height, column]) for start in range(0, rows, height) for column in range(columns)
    ]
    for number, stack in enumerate(stacks):
        if number >= count:
            for ax in stack:
                ax.remove()
        elif share_x and number + columns >= count:
            stack[-1].set_xlabel(style.X_LABEL)
            stack[-1].tick_params(labelbottom=True)
    return figure, stacks[:count]


def legend_above(ax: plt.Axes, heading: str, handles: list | None = None, columns: int | None = None) -> None:
    """A legend between a panel and its heading, where no curve is; in as many columns as fit, or in `columns`."""
    handles = ax.get_legend_handles_labels()[0] if handles is None else handles
    fit = len(handles) > 3 and max(len(each.get_label()) for each in handles) <= LONGEST_IN_TWO_COLUMNS
    ax.legend(
        handles=handles,
        title=heading,
        title_fontsize=plt.rcParams["axes.titlesize"],
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=columns or (2 if fit else 1),
        columnspacing=0.8,
        handlelength=1.4,
        labelspacing=0.25,
        fontsize=6.5,
        borderaxespad=0.1,
    )


def lines(study: xr.Dataset) -> list[tuple[str, dict]]:
    """A curve for each network, and for what else a study varies: its label, and its place in the study."""
    axes = [axis for axis in study.dims if axis not in ("dataset", "subspace", "radius", "draw", "dimension", "layer")]
    fixed = {axis: study[axis].values[0] for axis in ("dataset", "subspace")}
    result = []
    for values in product(*(study[axis].values.tolist() for axis in axes)):
        place = dict(zip(axes, values))
        parts = [name_of(axis, value) for axis, value in place.items()]
        result.append((", ".join(filter(None, parts)), {**fixed, **place}))
    return result


def name_of(axis: str, value: object) -> str:
    """How a legend names a value along an axis: briefly, and ReLU is understood."""
    if axis == "bias_directions":
        return "biases" if value else ""
    return str(value).replace("_", " ").replace("-relu", "")


def study_title(study: xr.Dataset, name: str) -> str:
    """The title of the panel of the study `name`; a dataset that is not the official one goes by its own name."""
    dataset = str(study["dataset"].values[0])
    return TITLES[name] if dataset in OFFICIAL else dataset.replace("_", " ")


def side_by_side(parts: dict[str, xr.Dataset]) -> xr.Dataset:
    """Source data of several studies in one dataset, whose variables and axes carry the study's name."""
    renamed = []
    for name, part in parts.items():
        names = {key: f"{name}_{key}" for key in (*part.data_vars, *part.coords)}
        renamed.append(part.rename({**names, **{d: f"{name}_{d}" for d in part.dims}}))
    return xr.merge(renamed, combine_attrs="drop_conflicts")


def load_all(paths_to_studies: list[str], path_to_settings: str) -> tuple[dict[str, xr.Dataset], PageFigure]:
    """As `plotting.load`, for a figure of several studies, any of which a run may lack: each under its name."""
    loaded = {Path(path).stem: style.load(path, path_to_settings) for path in paths_to_studies}
    return {name: study for name, (study, _) in loaded.items()}, next(iter(loaded.values()))[1]
