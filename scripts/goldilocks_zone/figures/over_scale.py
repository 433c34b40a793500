"""What figures over the scale α of an initialisation share."""

from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

from goldilocks_zone.config.models import PageFigure
from goldilocks_zone.figures import panels
from goldilocks_zone.figures import style as figures_style
from goldilocks_zone.storage import netcdf

LABEL = r"$\log_{10}\alpha$"
WAYS = {"parameters": r"$\alpha\theta$", "temperature": r"$T=\alpha^{-n}$", "both": r"$\alpha\theta$, $T=\alpha^n$"}
MARGIN = 0.08  # above and below means, relative to their range
TITLES = {"fashion_mnist": "Fashion-MNIST", "cifar10": "CIFAR-10", "annuli": "annuli"}


def load_all(paths_to_studies: list[str], path_to_settings: str) -> tuple[dict[str, xr.Dataset], PageFigure]:
    """The studies that a run has, each under its name, and the figure's settings; sets the style.

    Their coordinate x is log10 α. Raises ValueError for a study whose radius is not such a factor.
    """
    settings, studies = figures_style.start(path_to_settings), {}
    for path in paths_to_studies:
        study = netcdf.read_dataset(path)
        if "x" in study.coords:
            raise ValueError(f"{path} has radii that are no factor: this figure needs radius_unit: init_scale")
        place = ("radius", np.log10(study["radius"].values), {"units": "1", "long_name": "log10 of the scale α"})
        studies[Path(path).stem] = study.assign_coords(x=place)
    return studies, settings


def first_cell(study: xr.Dataset) -> xr.Dataset:
    """The first dataset, network and subspace of a study, at its largest dimension and number of examples."""
    here = study.isel(dataset=0, network=0, subspace=0)
    largest = {axis: study[axis].max() for axis in ("dimension", "examples") if axis in study.dims}
    return here.sel(largest)


def parameters_rescaled(study: xr.Dataset) -> xr.Dataset:
    """The part of a study in which α rescales the parameters."""
    return study.sel(rescaled="parameters") if "rescaled" in study.dims else study


def curves(study: xr.Dataset, variables: dict[str, xr.DataArray]) -> xr.Dataset:
    """mean, low and high (…, radius) of each of `variables` by its name, as of `plotting.curves`."""
    found = {}
    for name, values in variables.items():
        here = figures_style.curves(study.assign({name: values}), name)
        for part in ("mean", "low", "high"):
            found[f"{name}_{part}"] = here[part].assign_attrs({"units": "1", **_units(values), **here[part].attrs})
    return xr.Dataset(found)


def _units(values: xr.DataArray) -> dict[str, str]:
    return {"units": values.attrs["units"]} if "units" in values.attrs else {}


def draw(ax: plt.Axes, data: xr.Dataset, name: str, number: int, label: str, line: str = "-") -> None:
    """A mean curve with its band."""
    x, colour = data["x"].values, figures_style.colour(number)
    style = {
        "color": colour,
        "linestyle": line,
        "marker": figures_style.marker(number),
        "markersize": 2.2,
        "markevery": 2,
    }
    ax.plot(x, data[f"{name}_mean"], label=label, **style)
    ax.fill_between(x, data[f"{name}_low"], data[f"{name}_high"], color=colour, alpha=0.25, linewidth=0)


def limit(ax: plt.Axes, data: xr.Dataset, *names: str) -> None:
    """Room for means; bands of few draws may leave the axes."""
    shown = np.concatenate([np.ravel(data[f"{name}_mean"]) for name in names])
    low, high = np.nanmin(shown), np.nanmax(shown)
    margin = MARGIN * (high - low or 1.0)
    ax.set_ylim(low - margin, high + margin)


def stacks(
    studies: dict[str, xr.Dataset],
    settings: PageFigure,
    heights: list[str],
    draw_stack: Callable[[list[plt.Axes], xr.Dataset], None],
    data: dict[str, xr.Dataset],
    titles: dict[str, str] | None = None,
    columns: int | None = None,
) -> plt.Figure:
    """A figure with a column for each study and a row for each of `heights`, the labels of the rows' axes.

    `draw_stack` draws a study's part of `data` into its panels, under its own of `titles` or what it is of; one legend
    above serves all. Of more studies than `columns` the rest stand below.
    """
    figure, columns = panels.stacked(len(studies), len(heights), settings, columns)
    for number, (name, stack) in enumerate(zip(studies, columns)):
        draw_stack(stack, data[name])
        stack[0].set_title(titles[name] if titles else title(studies[name]))
        stack[-1].set_xlabel(LABEL)
        if number == 0:
            for ax, label in zip(stack, heights):
                ax.set_ylabel(label)
    handles = {}
    for ax in columns[0]:
        for handle, label in zip(*ax.get_legend_handles_labels()):
            handles.setdefault(label, handle)
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=min(len(handles), 5))
    return figure


def title(study: xr.Dataset) -> str:
    """Dataset and network of a study of one cell."""
    dataset, network = (str(study[axis].values[0]) for axis in ("dataset", "network"))
    return f"{TITLES.get(dataset, dataset.replace('_', ' '))}, {panels.name_of('network', network)}"
