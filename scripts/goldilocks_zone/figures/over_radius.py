"""Accuracy after training over the radius: families of subspaces, arms, and their curves.

A family is the set of all planes, or of all spheres, of a study for one dataset and network. An arm is a pair of rules
for how the learning rate and the temperature follow the radius. In a study of several rates, the rule of the rate is
`best`: each radius has the rate that is best for it.
"""

from itertools import product

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.lines import Line2D

from goldilocks_zone.claims.estimators import training
from goldilocks_zone.figures import curves, panels, profiles, style
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published

X_LABEL = r"$\log_{10}(r/r_X)$"
Y_LABEL = "test accuracy"
DIMENSION = 100  # dimension used by the claims about training
RULES = ("rate_rule", "temperature_rule")
RATES = {"fixed": "rate fixed", "proportional": "rate $∝r$", "best": "best rate at each radius"}
TEMPERATURES = {"fixed": "temperature fixed", "homogeneous": "temperature $∝r^{n_L}$"}
NUMBERS = {"fixed": 0, "proportional": 1, "best": 3}  # of colour and marker
APART = 0.045  # horizontal offset between two curves of a panel, in log10(r/r_X)
LEAST_GAP = 0.085  # smallest distance between two labels of an axis of dimensions, relative to its length
HIGHEST = 1.07  # upper end of an accuracy axis, relative to the largest mean


def families(study: xr.Dataset, named: bool = False) -> list[tuple[str, xr.Dataset]]:
    """List (title, data) of all families, one for the planes or spheres of each dataset and network.

    The data keep one subspace of each dimension, with the coordinate `dimension` (subspace) in ascending order. Titles
    name the dataset if there are several or if `named`, and the network if there are several.
    """
    study = first_values(study)
    names = {}
    for name in study["subspace"].values.tolist():
        if not name.startswith("full-"):
            names.setdefault(f"{name.split('-')[0]}s", []).append(name)
    found = []
    for dataset, network in product(study["dataset"].values.tolist(), study["network"].values.tolist()):
        parts = [panels.dataset_title(dataset)] if named or study.sizes["dataset"] > 1 else []
        parts += [network] if study.sizes["network"] > 1 else []
        for shape, members in names.items():
            cells = study.sel(dataset=dataset, network=network, subspace=members)
            dimensions, cells = training.dimensions_of(cells)
            dimensions, places = np.unique(dimensions, return_index=True)
            cells = cells.isel(subspace=places).assign_coords(dimension=("subspace", dimensions))
            cells["dimension"].attrs = curves.described("dimension of the plane or sphere")
            found.append((", ".join([*parts, shape]), cells))
    return found


def titled_cells(study: xr.Dataset, nearest_to: int | None = None, named: bool = False) -> list[tuple[str, xr.Dataset]]:
    """List (title, data) of all combinations of a dataset, a network, and a plane or sphere.

    With `nearest_to`, each family keeps only the plane or sphere with the dimension nearest to this number. `named` is
    passed to `families`.
    """
    found = []
    for title, family in families(study, named):
        dimensions = family["dimension"].values
        nearest = [] if nearest_to is None else [int(np.abs(dimensions - nearest_to).argmin())]
        found += [(f"{title}, $d={dimensions[i]}$", family.isel(subspace=i)) for i in nearest or range(len(dimensions))]
    return found


def first_values(study: xr.Dataset) -> xr.Dataset:
    """Reduce a study to the axes that curves over the radius use, by taking the first value on all others.

    The axes kept are dataset, network, subspace, radius, draw and temperature_rule. If the study varies the rate, the
    axis rate is kept too, otherwise the axis rate_rule.
    """
    kept = ["dataset", "network", "subspace", "radius", "draw", "temperature_rule"]
    kept.append("rate" if "rate" in study.dims else "rate_rule")
    return study.isel({axis: 0 for axis in study["test_accuracy"].dims if axis not in kept})


def with_fixed_rules(study: xr.Dataset) -> xr.Dataset:
    """Select the rule `fixed` for the rate and for the temperature, in a study that varies these rules.

    If the study varies a rule but lacks `fixed`, the first value of this rule is taken. A rule that it does not vary is
    left as it is.
    """
    varied = [rule for rule in RULES if rule in study.dims]
    return study.sel({rule: min(study[rule].values.tolist(), key=lambda value: value != "fixed") for rule in varied})


def rules(study: xr.Dataset) -> dict[str, list[str]]:
    settings = curves.settings_of(study)
    return {rule: study[rule].values.tolist() if rule in study.dims else [settings[rule]] for rule in RULES}


def arms(study: xr.Dataset) -> list[tuple[str, str, dict]]:
    """The arms of a study, each as (key of RATES, key of TEMPERATURES, axis labels that select the arm)."""
    found = []
    for rate, temperature in product(*rules(study).values()):
        place = {rule: value for rule, value in zip(RULES, (rate, temperature)) if rule in study.dims}
        found.append(("best" if "rate" in study.dims else rate, temperature, place))
    return found


def look(rate: str, temperature: str) -> dict:
    """Style of an arm: colour and marker show the rule of its `rate`, line and filling that of its `temperature`."""
    fixed = temperature == "fixed"
    filling = {"markersize": 3, "markerfacecolor": None if fixed else "white", "markeredgewidth": 0.7}
    return style.look(NUMBERS[rate], **filling, linestyle="-" if fixed else "--", linewidth=1.1 if fixed else 0.9)


def arm_handles(drawn: list[tuple[str, str]]) -> list[Line2D]:
    """Legend entries for the styles of the arms (rate, temperature) `drawn`; temperatures only if one is not fixed."""
    rates, temperatures = {rate for rate, _ in drawn}, {temperature for _, temperature in drawn}
    looks = {RATES[rate]: look(rate, "fixed") for rate in RATES if rate in rates}
    if temperatures != {"fixed"}:
        looks |= {TEMPERATURES[t]: look("fixed", t) | {"color": "k"} for t in TEMPERATURES if t in temperatures}
    return [panels.entry(name, **arm) for name, arm in looks.items()]


def published_rows(path: Published, cells: xr.Dataset) -> list[dict[str, str]]:
    """Rows of the file of published values at `path`, as {column: text}, for the family of subspaces `cells`.

    Returns [] if `path` is None, if the family is of spheres, or if no values were published for its dataset and
    network.
    """
    on_planes = cells["subspace"].values[0].startswith("plane-")
    place = {axis: cells[axis].item() for axis in ("dataset", "network")}
    return profiles.published_rows(path, place) if on_planes else []


def accuracy_curves(study: xr.Dataset) -> xr.Dataset:
    """Means over draws of the final accuracy, with the variables of `curves.over_radii`; diverged runs count as chance.

    If the study varies the rate, the accuracy at each radius is for the rate with the highest mean accuracy on held-out
    examples there. The variable `best_rate` holds these rates, as they are at r_X.
    """
    values = training.accuracy(study)
    if "rate" in study.dims:
        values = values.rename(rate="best_rate")
    found = curves.over_radii(xr.Dataset({"test_accuracy": values}, attrs=study.attrs), "test_accuracy")
    if "rate" in study.dims:
        found = found.reset_coords("best_rate")
        meaning = "rate, at r_X, with the highest mean accuracy on held-out examples"
        found["best_rate"].attrs = curves.described(meaning, "parameters")
    return found


def draw(ax: Axes, curve: xr.Dataset, number: int, count: int, look: dict, apart: float = APART) -> None:
    """Draw the means in `curve`, a result of `accuracy_curves`, over log10(r/r_X), with error bars.

    The bars show the simultaneous band, because areas would hide other curves. The curve is number `number` of `count`
    in its panel. Neighbouring curves are offset horizontally by `apart`. `look` holds style arguments.
    """
    ax.errorbar(moved_aside(curve, number, count, apart), curve["mean"], curves.bars(curve), elinewidth=0.6, **look)


def moved_aside(curve: xr.Dataset, number: int, count: int, apart: float) -> np.ndarray:
    """Positions log10(r/r_X) of the points of `curve`, which is number `number` of `count` in its panel.

    They are offset so that the distance between neighbouring curves is `apart`.
    """
    return curve["x"].values / 2 + apart * curves.centred(number, count)


def draw_cells(cells: list[tuple[str, xr.Dataset]], settings: FigureSettings, columns: int, room: float) -> Drawn:
    """Draw one panel per cell, with one curve per arm, and return the figure and its source data.

    `cells` holds the title and data of each cell. Panels of one dataset have equal limits of the accuracy. `columns`
    and `room` are passed to `panels.page`.
    """
    figure, axes = panels.page(len(cells), settings, columns, room=room, x_label=X_LABEL)
    data = {panels.letter(number): accuracy_curves(cell) for number, (_, cell) in enumerate(cells)}
    tops, drawn = [(each["dataset"].item(), float(each["mean"].max())) for each in data.values()], []
    for i, (ax, name, (title, cell)) in enumerate(zip(axes, data, cells)):
        found = arms(cell)
        for number, (rate, temperature, place) in enumerate(found):
            draw(ax, data[name].sel(place), number, len(found), look(rate, temperature))
            drawn.append((rate, temperature))
        frame(ax, cell, max(top for dataset, top in tops if dataset == cell["dataset"].item()))
        size = plt.rcParams["legend.fontsize" if "\n" in title else "axes.titlesize"]
        ax.set_title(panels.lettered(i, title), fontsize=size)
    panels.legend_on_top(figure, arm_handles(drawn), columnspacing=1.2)
    panels.label_y(figure, Y_LABEL)
    return figure, panels.side_by_side(data)


def frame(ax: Axes, cell: xr.Dataset, highest: float) -> None:
    """Mark chance accuracy and r_X in grey, and limit the y-axis from zero to slightly above `highest`.

    `highest` is the largest mean accuracy; error bars of few draws may exceed the axis. `cell` gives the number of
    classes.
    """
    ax.axvline(0, **style.GREY)
    show_accuracy(ax, cell, highest)


def show_accuracy(ax: Axes, cell: xr.Dataset, highest: float) -> None:
    """Limit the y-axis from zero to slightly above the accuracy `highest`, and mark chance in grey.

    `cell` gives the number of classes.
    """
    ax.axhline(1 / float(cell["classes"]), **style.DASHED)
    ax.set_ylim(0, HIGHEST * highest)


def label_dimensions(axis: Axis, dimensions: np.ndarray) -> None:
    """Set ticks at `dimensions` on an axis in log10 d, skipping ticks closer than LEAST_GAP to the previous one."""
    places = np.log10(dimensions)
    kept = [0]
    for i in range(1, len(places)):
        if places[i] - places[kept[-1]] >= LEAST_GAP * (places[-1] - places[0]):
            kept.append(i)
    axis.set_ticks(places[kept], [str(d) for d in dimensions[kept]])
