"""What every figure shares: style, curves over the radius with their uncertainty, published values, saving."""

import csv
import math
from collections.abc import Callable
from itertools import product
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

from goldilocks_zone.config import records
from goldilocks_zone.config.models import PageFigure
from goldilocks_zone.statistics import bands as statistics_bands
from goldilocks_zone.statistics import estimates
from goldilocks_zone.storage import files, netcdf

# Okabe & Ito's colours, told apart by the colour-blind; markers and lines differ too, for grey print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")
LINES = ("-", "--", ":", "-.")
LEVEL = 0.95
DIMENSION = 50  # that of the claims
POWER_LAW_FROM = 2.0  # power laws are fitted from this x outwards, as claim fs7 does
X_LABEL = r"$\log_{10}(r^2/r_X^2)$"
CENTIMETRES_PER_INCH = 2.54
SEVERAL_PANELS_HEIGHT = 0.78  # relative to that of a panel on its own, for the same width
GUTTER_CM = 0.6  # between two panels of usual width; all three together are as wide as the paper's text


def load(path_to_study: str, path_to_settings: str, needed: tuple[str, ...] = ()) -> tuple[xr.Dataset, PageFigure]:
    """A study's results and the figure's settings; sets the style.

    Raises ValueError without radii in r_X, or without an axis that the figure needs.
    """
    settings, study = start(path_to_settings), netcdf.read_dataset(path_to_study)
    if "x" not in study.coords:
        raise ValueError(f"{path_to_study} has radii that are not in units of r_X: this figure needs radius_unit: r_X")
    for axis in needed:
        if axis not in study.dims:
            raise ValueError(
                f"{path_to_study} has no axis {axis}, which this figure needs: see the study in config.yaml"
            )
    return study, settings


def start(path_to_settings: str) -> PageFigure:
    """The figure's settings; sets the style."""
    set_style()
    return records.read_figure(path_to_settings)


def set_style() -> None:
    """The style of every figure, and of nothing else: not what a user's matplotlibrc asks for."""
    matplotlib.rcdefaults()
    plt.style.use(Path(__file__).with_name("goldilocks.mplstyle"))


def colour(number: int) -> str:
    """The colour of the curve of this number."""
    return COLOURS[number % len(COLOURS)]


def marker(number: int) -> str:
    """The marker of the curve of this number."""
    return MARKERS[number % len(MARKERS)]


def shown_dimension(study: xr.Dataset) -> int:
    """The dimension of the claims where the study has it, else its largest."""
    dimensions = study["dimension"].values
    return DIMENSION if DIMENSION in dimensions else int(dimensions.max())


def curves(study: xr.Dataset, variable: str) -> xr.Dataset:
    """mean, standard_deviation over draws, and low and high of the mean's simultaneous 95 % band over radii."""
    values = study[variable].transpose(..., "radius", "draw")
    flat = values.values.reshape(-1, study.sizes["radius"], study.sizes["draw"])
    bands = [statistics_bands.simultaneous_band(curve, LEVEL, variable) for curve in flat]
    shape = values.isel(draw=0, drop=True).shape
    result = xr.Dataset({"mean": values.mean("draw"), "standard_deviation": values.std("draw", ddof=1)})
    for i, name in enumerate(("low", "high")):
        result[name] = (values.dims[:-1], np.reshape([band[i] for band in bands], shape))
    units = study[variable].attrs.get("units", "1")
    for name, meaning in {
        "mean": "mean over draws",
        "standard_deviation": "standard deviation over draws",
        "low": "lower end of the mean's simultaneous 95 % band over radii",
        "high": "upper end of the mean's simultaneous 95 % band over radii",
    }.items():
        result[name].attrs = {"units": units, "long_name": f"{meaning} of {variable}"}
    result.attrs = study.attrs
    return result


def bootstrapped(
    statistic: Callable[[np.ndarray], float], samples: np.ndarray, *name: str
) -> tuple[float, float, float]:
    """A statistic of samples (…, n) with its 95 % interval over the last axis; without an interval for one draw."""
    try:
        found = estimates.bootstrapped(statistic, samples, *name)
    except estimates.TooFewDraws:
        return statistic(samples), math.nan, math.nan
    return found.value, *found.interval(LEVEL)


def is_well_known(samples: np.ndarray) -> bool:
    """Whether the mean of samples (n,) can be a denominator: its 95 % interval lies within half of it, or n is 1."""
    if len(samples) < 2:
        return True
    estimate = estimates.mean(samples)
    return estimate.interval(LEVEL)[1] - estimate.value < abs(estimate.value) / 2


def cells(study: xr.Dataset) -> list[dict]:
    """Every dataset, network and subspace of a study."""
    return [
        dict(zip(("dataset", "network", "subspace"), labels))
        for labels in product(*(study[axis].values.tolist() for axis in ("dataset", "network", "subspace")))
    ]


def title(cell: dict, all_cells: list[dict]) -> str:
    """What tells a cell from the others of its study; its network where there are no others."""
    told_apart = [axis for axis in cell if len({each[axis] for each in all_cells}) > 1]
    return ", ".join(cell[axis] for axis in told_apart or ["network"])


def page_size(rows: int, settings: PageFigure) -> tuple[float, float]:
    """Width and height in inches of a figure as wide as the paper's text, with rows of panels."""
    width = 2 * settings.width_cm + GUTTER_CM
    return width / CENTIMETRES_PER_INCH, rows * SEVERAL_PANELS_HEIGHT * settings.height_cm / CENTIMETRES_PER_INCH


def panels(study: xr.Dataset, settings: PageFigure) -> tuple[plt.Figure, list[tuple[plt.Axes, dict]]]:
    """A figure with one panel per dataset, network and subspace.

    Several panels share axes and fill the width of a page; each is titled by what tells it from the others.
    """
    shown = cells(study)
    width, height = (each / CENTIMETRES_PER_INCH for each in (settings.width_cm, settings.height_cm))
    if len(shown) == 1:
        figure, ax = plt.subplots(figsize=(width, height))
        ax.set_xlabel(X_LABEL)
        return figure, [(ax, shown[0])]
    columns = max(2, math.ceil(math.sqrt(len(shown))))
    rows = math.ceil(len(shown) / columns)
    size = (2 * width, rows * SEVERAL_PANELS_HEIGHT * height * 2 / columns)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, sharex=True, sharey=True)
    for number, ax in enumerate(axes.flat):
        if number >= len(shown):
            ax.remove()
            continue
        ax.set_title(title(shown[number], shown))
        if number + columns >= len(shown):
            ax.set_xlabel(X_LABEL)
            ax.tick_params(labelbottom=True)
    return figure, list(zip(axes.flat, shown))


def label_y(figure: plt.Figure, text: str) -> None:
    """The label of the y-axis, which all panels share."""
    if len(figure.axes) == 1:
        figure.axes[0].set_ylabel(text)
    else:
        figure.supylabel(text, fontsize=plt.rcParams["axes.labelsize"])


def legend(ax: plt.Axes, handles: list, **place: object) -> None:
    """The legend of a panel; above several panels, one for all."""
    if len(ax.figure.axes) == 1:
        ax.legend(handles=handles, **place)
    elif ax is ax.figure.axes[0]:
        ax.figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 5))


def draw_curve(ax: plt.Axes, curve: xr.Dataset, number: int, label: str, deviations: bool = True) -> None:
    """Mean, its simultaneous band, and bars of one standard deviation over draws."""
    x, colour = curve["x"].values, COLOURS[number % len(COLOURS)]
    ax.plot(x, curve["mean"], color=colour, marker=MARKERS[number % len(MARKERS)], markersize=2.2, label=label)
    ax.fill_between(x, curve["low"], curve["high"], color=colour, alpha=0.25, linewidth=0)
    if deviations:
        ax.errorbar(x, curve["mean"], curve["standard_deviation"], fmt="none", ecolor=colour, elinewidth=0.5, alpha=0.7)


def draw_published(ax: plt.Axes, path: str, dimension: int, number: int) -> None:
    """Published means as open markers."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if int(row["d"]) == dimension]
    ax.plot(
        [float(row["log10_r2_over_rX2"]) for row in rows],
        [float(row["mean"]) for row in rows],
        linestyle="none",
        marker=MARKERS[number % len(MARKERS)],
        markerfacecolor="none",
        markeredgecolor=COLOURS[number % len(COLOURS)],
        markeredgewidth=0.6,
        markersize=4,
    )


def draw_fewer_examples(ax: plt.Axes, curve: xr.Dataset, counts: list[int], number: int) -> None:
    """Means for the smaller numbers of examples, as thin broken lines."""
    for line, count in zip(LINES[1:], counts[1:]):
        thin = curve.sel(examples=count)
        ax.plot(thin["x"], thin["mean"], color=COLOURS[number % len(COLOURS)], linestyle=line, linewidth=0.7)


def example_handles(counts: list[int]) -> list[plt.Line2D]:
    """Legend entries for the numbers of examples, largest first."""
    return [
        plt.Line2D([], [], color="k", linestyle=line, linewidth=1.2 if line == "-" else 0.7, label=f"$N={count}$")
        for line, count in zip(LINES, counts)
    ]


def numbers_of_examples(study: xr.Dataset) -> list[int]:
    """Largest first: it is drawn in full, the others as thin broken lines."""
    return sorted(study["examples"].values.tolist(), reverse=True)


def plot_radial_profile(
    variable: str,
    label: str,
    reference: float,
    path_to_study: str,
    path_to_settings: str,
    path_to_published: str,
    path_to_pdf: str,
    path_to_png: str,
    path_to_data: str,
) -> None:
    """Figure 3 of Fort & Scherlis (2019): a measure over the radius, one curve per dimension."""
    study, settings = load(path_to_study, path_to_settings)
    data = curves(study, variable)
    figure, axes = panels(study, settings)
    counts = numbers_of_examples(study)
    for ax, cell in axes:
        published = settings.published and is_published_network(cell)
        for number, d in enumerate(study["dimension"].values.tolist()):
            here = data.sel(cell).sel(dimension=d)
            draw_curve(ax, here.sel(examples=counts[0]), number, f"$d={d}$")
            draw_fewer_examples(ax, here, counts, number)
            if published:
                draw_published(ax, path_to_published, d, number)
        ax.axvline(0, color="0.6", linewidth=0.5, zorder=0)
        ax.axhline(reference, color="0.6", linewidth=0.5, linestyle="--", zorder=0)
        handles = [*ax.get_legend_handles_labels()[0], *example_handles(counts)]
        if published:
            open_marker = {"linestyle": "none", "marker": "o", "markerfacecolor": "none"}
            handles.append(plt.Line2D([], [], color="k", label="published", **open_marker))
        legend(ax, handles, loc="best")
        limit(ax, data)
    label_y(figure, label)
    save(figure, data, path_to_pdf, path_to_png, path_to_data)


def is_published_network(cell: dict) -> bool:
    """Whether the published curves of figure 3 show this dataset and network."""
    return cell["dataset"] == "mnist" and cell["network"] == "fc-200x2-relu"


def limit(ax: plt.Axes, data: xr.Dataset) -> None:
    """Room for means and deviations; bands of few draws may leave the axes."""
    low = float((data["mean"] - data["standard_deviation"].fillna(0)).min())
    high = float((data["mean"] + data["standard_deviation"].fillna(0)).max())
    ax.set_ylim(low - 0.08 * (high - low), high + 0.08 * (high - low))


def save(figure: plt.Figure, data: xr.Dataset, path_to_pdf: str, path_to_png: str, path_to_data: str) -> None:
    """Write the figure and its source data, each whole or not at all, without a date that would differ each time."""
    with files.whole_file(path_to_pdf) as pdf, files.whole_file(path_to_png) as png:
        figure.savefig(pdf, metadata={"CreationDate": None})
        figure.savefig(png)
        netcdf.write_dataset(data, path_to_data)
    plt.close(figure)
