"""Number of outliers in the spectrum of G against the number m of designed borders and the number C of classes
(Sabanayagam et al. 2023)."""

from collections.abc import Iterator

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, MultipleLocator

from goldilocks_zone.data import planar_shapes
from goldilocks_zone.figures import boundaries, curves, panels, style
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies

FIGURE = {"id": "outlier_counts", "studies": ["boundary_sections"], "needs": ["softmax"]}

DESIGNS = {"pie": "sectors $m$", "stripes": "borders $m$"}
# Title of each column, variable with the count by one rule, and label of the softmax output.
COUNTS = (
    ("$k_{90}$", "outliers", boundaries.PUBLISHED),
    ("largest gap", "outliers_by_gap", boundaries.PUBLISHED),
    ("$k_{90}$, $T=3$", "outliers", "temperature-3"),
    ("$k_{90}$, $p=1/C$", "outliers", "uniform"),
)
REACHED = 1.01  # tolerance: the stopping rule evaluates the loss in single precision
APART = 0.08  # horizontal offset between two numbers of classes, in m


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    (study,) = studies.values()
    shown = [count for count in COUNTS if count[2] in study["softmax"].values]
    data = counts(study, shown)
    designs = [name for name in DESIGNS if (data["design"] == name).any()]
    options = {"room": 1.15, "sharey": "row", "sharex": "row"}
    figure, axes = panels.grid(len(designs), len(shown), settings, **options)
    classes = sorted(set(data["class_count"].values.tolist()))
    for line, design in zip(axes, designs):
        here = data.isel(dataset=(data["design"] == design).values)
        means = [here[f"{key(name, softmax)}_mean"] for _, name, softmax in shown]
        for ax, (_, name, softmax) in zip(line, shown):
            draw_counts(ax, curves.parts_of(here, key(name, softmax)), classes)
            ax.set_xlabel(DESIGNS[design])
        low, high = panels.limits([0], here["section_count"], *means, margin=0, above=0.15)
        line[0].set(ylabel=f"outliers, {design}", ylim=(low, high))
    titles = [title for title, *_ in shown] * len(designs)
    panels.letter_titles(list(axes.flat), titles)
    handles = [panels.entry(f"$C={each}$", **look(classes, each)) for each in classes]
    panels.legend_on_top(figure, [*handles, panels.entry("$m$ outliers", **style.DASHED)])
    return figure, data


def key(name: str, softmax: str) -> str:
    """Name of a count in the figure's source data, made of its variable `name` and its softmax output `softmax`."""
    return f"{name}_{softmax.replace('-', '_')}"


def counts(study: xr.Dataset, shown: list[tuple[str, str, str]]) -> xr.Dataset:
    """Mean numbers of outliers over draws for each dataset, with the dataset's design, sections m and classes C.

    `shown` lists the counts to average, each as a triple of COUNTS. {count}_mean, _low and _high (dataset) are the mean
    over draws and the ends of its 95 % interval, where `key` gives the name of a count. Networks that diverged or did
    not reach their stopping loss are left out; `draws` (dataset) is the number of those that are averaged.
    """
    known = {name: planar_shapes.known(name) for name in boundaries.in_plane(study)}
    known = {name: design for name, design in known.items() if design.kind in DESIGNS}
    study = study.sel(dataset=list(known))
    ended = reached(study)
    parts = {}
    for _, name, softmax in shown:
        values = boundaries.one(study, [name], "dataset", softmax=softmax)[name].where(ended)
        parts[key(name, softmax)] = curves.means(values, f"{study[name].attrs['long_name']}, outputs p: {softmax}")
    data = curves.prefixed(parts)
    meanings = {"design": "design of a dataset", "section_count": "m, sectors or borders", "class_count": "C, classes"}
    values = [[getattr(each, part) for each in known.values()] for part in ("kind", "sections", "classes")]
    for (name, meaning), column in zip(meanings.items(), values):
        data = data.assign_coords({name: ("dataset", column, curves.described(meaning))})
    data["draws"] = ended.sum("draw").assign_attrs(curves.described("draws that reached the loss where training stops"))
    return data


def reached(study: xr.Dataset) -> xr.DataArray:
    """Mask (dataset, draw) of the networks whose final training loss has reached the stopping loss.

    The stopping loss counts as reached if the loss is at most REACHED times as large. In a study without a stopping
    loss, the mask is True unless the loss is NaN.
    """
    loss = boundaries.one(study, ["training_loss"], "dataset")["training_loss"]
    stop = curves.settings_of(study).get("stop_at")
    return loss.notnull() if stop is None else loss <= REACHED * stop


def look(classes: list[int], count: int) -> dict:
    return style.look(classes.index(count), markersize=3.2, linewidth=0.9)


def draw_counts(ax: Axes, here: xr.Dataset, classes: list[int]) -> None:
    """Draw mean counts of outliers over m, with one line for each number of classes, and the diagonal.

    `here` has the variables mean, low and high (dataset) of one count, for datasets of one design with m sections;
    `classes` lists all numbers of classes.
    """
    for number, count, found in by_classes(here, classes):
        x = found["section_count"].values + APART * curves.centred(number, len(classes))
        curves.draw_means(ax, x, found, **look(classes, count))
    if not here["mean"].notnull().any():
        boundaries.absent(ax, "no network\nreached the loss")
    ends = np.array([here["section_count"].min(), here["section_count"].max()])
    ax.plot(ends, ends, **style.DASHED)
    ax.xaxis.set_major_locator(MultipleLocator(1))
    ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))


def by_classes(here: xr.Dataset, classes: list[int]) -> Iterator[tuple[int, int, xr.Dataset]]:
    """Yield (index in `classes`, number of classes, results sorted by m) for every number of classes that occurs.

    `here` holds the results of all datasets of one design.
    """
    for number, count in enumerate(classes):
        found = here.isel(dataset=(here["class_count"] == count).values)
        if found.sizes["dataset"]:
            yield number, count, found.sortby("section_count")
