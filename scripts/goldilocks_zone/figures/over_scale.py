"""Curves over the scale α of an initialisation, with one column per study."""

from collections.abc import Callable

import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from goldilocks_zone.figures import curves, panels, style
from goldilocks_zone.figures.registry import FigureSettings

LABEL = r"$\log_{10}\alpha$"
WAYS = {
    "parameters": r"$\alpha\theta$",
    "temperature": r"$T=\alpha^{-n_L}$",
    "both": r"$\alpha\theta$, $T=\alpha^{n_L}$",
}


def first_cell(study: xr.Dataset) -> xr.Dataset:
    """Select the first dataset, network and subspace, at the largest dimension and number of examples."""
    largest = {axis: study[axis].max() for axis in ("dimension", "examples") if axis in study.dims}
    return study.isel(dataset=0, network=0, subspace=0).sel(largest)


def parameters_rescaled(study: xr.Dataset) -> xr.Dataset:
    """Select the part of a study in which the scale α multiplies the parameters.

    A study with the axis rescaled also has parts in which α sets the temperature instead, or both. A study without this
    axis is returned unchanged.
    """
    return study.sel(rescaled="parameters") if "rescaled" in study.dims else study


def bands(study: xr.Dataset, variables: dict[str, xr.DataArray]) -> xr.Dataset:
    """Means over draws of `variables`, {name: values (…, radius, draw)}, with simultaneous 95 % bands over radii.

    The values have the axes and coordinates of `study`. For each name, the result has the variables {name}_mean, _low
    and _high, with the axes (…, radius).
    """
    found = {name: curves.over_radii(study.assign({name: values}), name) for name, values in variables.items()}
    return xr.Dataset({f"{name}_{part}": each[part] for name, each in found.items() for part in curves.PARTS})


def draw(ax: Axes, data: xr.Dataset, name: str, number: int, label: str, line: str = "-") -> None:
    look = style.look(number, linestyle=line, markersize=2.2, markevery=2, label=label)
    curves.draw_band(ax, data["x"].values, curves.parts_of(data, name), **look)


def limit(ax: Axes, data: xr.Dataset, *names: str) -> None:
    """Set the y-limits to show {name}_mean of `data` for all `names`, but not bands, which are wide for few draws."""
    ax.set_ylim(panels.limits(*(data[f"{name}_mean"] for name in names)))


def stacks(
    studies: dict[str, xr.Dataset],
    settings: FigureSettings,
    heights: list[str],
    draw_stack: Callable[[list[Axes], xr.Dataset], None],
    data: dict[str, xr.Dataset],
    titles: dict[str, str] | None = None,
    columns: int | None = None,
) -> Figure:
    """Draw a figure with one stack of panels for each study.

    `heights` holds the y-label of each panel of a stack, from top to bottom. `draw_stack` is called for each study,
    with the panels of its stack and its entry in `data`. `titles` holds the title of each stack; by default, it names
    dataset and network. All panels share one legend at the top. There are at most `columns` stacks side by side, by
    default 3; further ones are placed below.
    """
    figure, stacked = panels.stacked(len(studies), len(heights), settings, columns, x_label=LABEL)
    for name, stack in zip(studies, stacked):
        draw_stack(stack, data[name])
        dataset, network = (str(studies[name][axis].values[0]) for axis in ("dataset", "network"))
        usual = f"{panels.dataset_title(dataset)}, {panels.network_title(network)}"
        stack[0].set_title(titles[name] if titles else usual)
        stack[-1].set_xlabel(LABEL)
    handles = {}
    for ax, text in zip(stacked[0], heights):
        ax.set_ylabel(text)
        for handle, label in zip(*ax.get_legend_handles_labels()):
            handles.setdefault(label, handle)
    panels.legend_on_top(figure, list(handles.values()), 5)
    return figure
