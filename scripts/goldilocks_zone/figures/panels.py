"""Panels of a figure: sizes, letters, titles, limits and legends.

`room` is the height of a figure relative to the height of its rows of panels; the excess is for legends and titles
above them.
"""

import math
from itertools import product
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike

from goldilocks_zone.figures.registry import FigureSettings

X_LABEL = r"$\log_{10}(r^2/r_X^2)$"
CENTIMETRES_PER_INCH = 2.54
SEVERAL_PANELS_HEIGHT = 0.78  # height relative to a single panel of the same width
GUTTER_CM = 0.6  # between two panels of usual width; together they are as wide as the paper's text
LONGEST_IN_TWO_COLUMNS = 18  # longest legend entry, in characters, that fits twice above one of three panels
NOTHING = "the studies of this figure have nothing that it shows: give it others, or leave it out by null"
DATASETS = {
    "mnist": "MNIST",
    "fashion_mnist": "Fashion-MNIST",
    "cifar10": "CIFAR-10",
    "cifar10_jpeg": "CIFAR-10 (JPEG)",
}


def page_size(rows: int, settings: FigureSettings, room: float = 1.0) -> tuple[float, float]:
    """Width and height in inches of a figure with `rows` rows of panels, as wide as the paper's text.

    `settings` has the width and height of a single panel; `room` is as in the docstring of this module.
    """
    width, height = 2 * settings.width_cm + GUTTER_CM, rows * SEVERAL_PANELS_HEIGHT * settings.height_cm
    return width / CENTIMETRES_PER_INCH, height / CENTIMETRES_PER_INCH * room


def grid(
    rows: int, columns: int, settings: FigureSettings, room: float = 1.0, **options: Any
) -> tuple[Figure, np.ndarray]:
    """Page-wide figure and its array of panels (`rows`, `columns`); `options` are passed to `plt.subplots`.

    `settings` and `room` are as in `page_size`. Raises ValueError if there is no panel.
    """
    if not rows * columns:
        raise ValueError(NOTHING)
    size = page_size(rows, settings, room)
    return plt.subplots(rows, columns, **{"figsize": size, "squeeze": False, **options})


def page(count: int, settings: FigureSettings, columns: int | None = None, **options: Any) -> tuple[Figure, list[Axes]]:
    """Page-wide figure and its `count` panels, row by row, with `columns` panels in a row (by default at most three).

    `options` are passed to `stacked`.
    """
    figure, stacks = stacked(count, 1, settings, columns, **options)
    return figure, [ax for (ax,) in stacks]


def stacked(
    count: int, height: int, settings: FigureSettings, columns: int | None = None, x_label: str = "", **options: Any
) -> tuple[Figure, list[list[Axes]]]:
    """Page-wide figure and its `count` stacks of panels; a stack is `height` panels one above the other.

    There are `columns` stacks side by side, by default at most three. With `x_label`, all panels share the x-axis, and
    the lowest panel of each column carries the label. `options` are passed to `grid`.
    """
    columns = columns or max(1, min(count, 3))
    rows = height * math.ceil(count / columns)
    figure, axes = grid(rows, columns, settings, **{"sharex": bool(x_label), **options})
    stacks = [list(axes[i * height : (i + 1) * height, j]) for i, j in np.ndindex(rows // height, columns)]
    for number, stack in enumerate(stacks):
        if number >= count:
            for ax in stack:
                ax.remove()
        elif x_label and number + columns >= count:
            stack[-1].set_xlabel(x_label)
            stack[-1].tick_params(labelbottom=True)
    return figure, stacks[:count]


def for_each_cell(study: xr.Dataset, settings: FigureSettings) -> tuple[Figure, list[tuple[Axes, dict]]]:
    """Figure with one panel per cell of a study, and a list of pairs (panel, labels of its cell).

    A cell is a combination of dataset, network and subspace. If there are several panels, they share their axes, and
    their titles name the labels that differ between cells.
    """
    shown = cells(study)
    width, height = (length / CENTIMETRES_PER_INCH for length in (settings.width_cm, settings.height_cm))
    if len(shown) == 1:
        figure, ax = plt.subplots(figsize=(width, height))
        ax.set_xlabel(X_LABEL)
        return figure, [(ax, shown[0])]
    columns = max(2, math.ceil(math.sqrt(len(shown))))
    size = (2 * width, math.ceil(len(shown) / columns) * SEVERAL_PANELS_HEIGHT * height * 2 / columns)
    figure, axes = page(len(shown), settings, columns, x_label=X_LABEL, figsize=size, sharey=True)
    for ax, cell in zip(axes, shown):
        ax.set_title(cell_title(cell, shown))
    return figure, list(zip(axes, shown))


def cells(study: xr.Dataset) -> list[dict]:
    """Labels {axis: label} of every combination of dataset, network and subspace of a study."""
    axes = ("dataset", "network", "subspace")
    return [dict(zip(axes, labels)) for labels in product(*(study[axis].values.tolist() for axis in axes))]


def cell_title(cell: dict, all_cells: list[dict]) -> str:
    """Title of a cell: its labels that differ between `all_cells` of the study, or its network if none differs.

    Cells are as in `cells`.
    """
    differing = [axis for axis in cell if len({each[axis] for each in all_cells}) > 1]
    shown = cell | {"dataset": dataset_title(cell["dataset"])}
    return ", ".join(shown[axis] for axis in differing or ["network"])


def dataset_title(label: str) -> str:
    """Title of a dataset: its usual name if it is well known, else its label with blanks for underscores."""
    return DATASETS.get(label, label.replace("_", " "))


def network_title(label: str) -> str:
    """Title of a network: its label without `-relu` and with blanks for underscores."""
    return label.replace("_", " ").replace("-relu", "")


def letter(number: int) -> str:
    """Letter of panel `number` (a for 0, b for 1, …), as used in titles and in names of source data."""
    return chr(ord("a") + number)


def lettered(number: int, title: str) -> str:
    return f"({letter(number)}) {title}"


def letter_titles(axes: list[Axes], titles: list[str] | None = None) -> None:
    """Put the letters (a), (b), … before the titles of panels; `titles` replaces their present titles."""
    for number, (ax, title) in enumerate(zip(axes, titles or [ax.get_title() for ax in axes])):
        ax.set_title(lettered(number, title))


def label_y(figure: Figure, text: str) -> None:
    if len(figure.axes) == 1:
        figure.axes[0].set_ylabel(text)
    else:
        figure.supylabel(text, fontsize=plt.rcParams["axes.labelsize"])


def limits(*shown: ArrayLike, margin: float = 0.08, above: float | None = None) -> tuple[float, float]:
    """Lower and upper end of an axis that has room for all values in the arrays `shown`; NaN are ignored.

    `margin` is the room at either end, relative to the range of the values; `above` replaces it at the upper end.
    """
    values = np.concatenate([np.ravel(each) for each in shown])
    low, high = np.nanmin(values), np.nanmax(values)
    span = (high - low) or 1.0
    return low - margin * span, high + (margin if above is None else above) * span


def log_limits(*logarithms: ArrayLike, margin: float = 0.06) -> tuple[float, float]:
    """Lower and upper end of a logarithmic axis that has room for values given as decimal `logarithms`.

    `margin` is the room at either end, relative to the range of the logarithms.
    """
    low, high = limits(*logarithms, margin=margin)
    return 10**low, 10**high


def entry(label: str, **look: Any) -> Line2D:
    return Line2D([], [], label=label, **look)


def legend(ax: Axes, handles: list, **place: Any) -> None:
    """Place a legend inside the only panel of a figure or, if there are several panels, above all of them.

    If there are several, only the call for the first panel places a legend. `place` holds options of `Axes.legend` for
    the only panel.
    """
    if len(ax.figure.axes) == 1:
        ax.legend(handles=handles, **place)
    elif ax is ax.figure.axes[0]:
        legend_on_top(ax.figure, handles, 5)


def legend_on_top(figure: FigureBase, handles: list | Axes, columns: int = 10, **options: Any) -> None:
    """Place one legend above all panels, in at most `columns` columns.

    `handles` are its entries, or the panel whose entries it shows. `options` are passed to `Figure.legend`.
    """
    handles = handles.get_legend_handles_labels()[0] if isinstance(handles, Axes) else handles
    figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), columns), **options)


def legend_above(ax: Axes, heading: str, handles: list | None = None, columns: int | None = None) -> None:
    """Place a legend between a panel and its `heading`, clear of the curves.

    `handles` are by default the panel's own entries. The number of `columns` is by default 2 if there are more than
    three entries and all have short labels, else 1.
    """
    handles = ax.get_legend_handles_labels()[0] if handles is None else handles
    fit = len(handles) > 3 and max(len(each.get_label()) for each in handles) <= LONGEST_IN_TWO_COLUMNS
    place: dict[str, Any] = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "ncols": columns or (2 if fit else 1)}
    look: dict[str, Any] = {
        "columnspacing": 0.8,
        "handlelength": 1.4,
        "labelspacing": 0.25,
        "fontsize": 6.5,
        "borderaxespad": 0.1,
    }
    ax.legend(handles=handles, title=heading, title_fontsize=plt.rcParams["axes.titlesize"], **place, **look)


def side_by_side(parts: dict[str, xr.Dataset]) -> xr.Dataset:
    """Merge the datasets `parts`, source data by name of the part.

    Each variable and axis gets the name of its part as a prefix.
    """
    names = {key: {name: f"{key}_{name}" for name in {*part.variables, *part.dims}} for key, part in parts.items()}
    return xr.merge([part.rename(names[key]) for key, part in parts.items()], combine_attrs="drop_conflicts")
