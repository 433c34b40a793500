"""Measures of generalisation against the test error of minima of every kind and strength, and Kendall's τ between them
(Sabanayagam et al. 2023)."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import scipy.stats
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from goldilocks_zone.figures import boundaries, curves, panels, style
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies

FIGURE = {"id": "generalisation", "studies": ["boundary_family"]}

# Label, variable, softmax output, and True for a logarithmic axis.
MEASURES = {
    "published": ("$G_\\theta$, rule (a)", "published_measure", None, False),
    "encoding": ("$N_\\mathrm{enc}/p_\\theta$", "encoding_share", boundaries.PUBLISHED, False),
    "encoding_matched": ("$N_\\mathrm{enc}/p_\\theta$, $T^*$", "encoding_share", boundaries.MATCHED, False),
    "trace": ("Tr$(G)$ (nat)", "gauss_newton_trace", boundaries.PUBLISHED, True),
    "trace_matched": ("Tr$(G)$ (nat), $T^*$", "gauss_newton_trace", boundaries.MATCHED, True),
    "top": ("$\\lambda_1$ (nat)", "gauss_newton_eigenvalue", boundaries.PUBLISHED, True),
    "top_matched": ("$\\lambda_1$ (nat), $T^*$", "gauss_newton_eigenvalue", boundaries.MATCHED, True),
    "norm": ("norm of parameters", "norm", None, False),
    "loss": ("training loss (nat)", "training_loss", None, True),
    "rise": ("loss rise (nat)", "loss_rise", None, True),
    "margin": ("linearised margin", "linearised_margin", None, False),
}
COLUMNS = 4
LEAST = 3  # fewest minima of a draw for which τ is computed
APART = 0.2  # horizontal offset between two datasets
POINTS = {"linestyle": "none", "markeredgewidth": 0, "alpha": 0.5}
SIZES = (1.4, 3.2)  # marker sizes for the fewest and the most steps on random labels
TAU_ROWS = 1.2  # height of the τ panel, in rows of the other panels


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    (study,) = studies.values()
    data = measured(study)
    names = [name for name in MEASURES if name in data]
    rows = -(-(len(names) + 1) // COLUMNS)  # the legend takes one place
    size = panels.page_size(1, settings)
    figure = plt.figure(figsize=(size[0], size[1] * 0.8 * (rows + TAU_ROWS)))
    places = figure.add_gridspec(rows + 1, COLUMNS, height_ratios=[1] * rows + [TAU_ROWS])
    axes = [figure.add_subplot(places[divmod(number, COLUMNS)]) for number in range(len(names))]
    first = data["dataset"].values[0]
    for number, (ax, name) in enumerate(zip(axes, names)):
        draw_errors(ax, data.sel(dataset=first), name)
        ax.tick_params(labelleft=number % COLUMNS == 0)
        if number % COLUMNS == 0:
            ax.set_ylabel("test error")
    below = figure.add_subplot(places[rows, :])
    draw_taus(below, data, names)
    panels.letter_titles(axes, [""] * len(names))
    heading = panels.lettered(len(names), "Kendall's τ with the test error, over the minima of a draw")
    panels.legend_above(below, heading, columns=data.sizes["dataset"])
    corner = figure.add_subplot(places[rows - 1, COLUMNS - 1])
    corner.axis("off")
    heading = f"{panels.dataset_title(first)}, every draw"
    corner.legend(handles=entries(data["minimum"].values.tolist()), title=heading, loc="center", borderaxespad=0)
    return figure, data


def measured(study: xr.Dataset) -> xr.Dataset:
    """Every measure and test_error (dataset, minimum, draw), with Kendall's τ between each measure and the test error.

    τ is computed over the minima of a draw. {measure}_tau_mean, _low and _high (dataset) are its mean over draws and
    the ends of the mean's 95 % interval. Some measures are taken at a matched temperature, at which the mean entropy of
    the softmax has a given value; they are NaN where no temperature does this.
    """
    data, taus = xr.Dataset(), {}
    kept = ("dataset", "minimum", "rank", "precision")
    error = 1 - boundaries.one(study, ["test_accuracy"], *kept)["test_accuracy"]
    data["test_error"] = error.assign_attrs(curves.described("share of fresh examples classified wrongly"))
    for name, (_, variable, softmax, _) in MEASURES.items():
        if variable not in study or (softmax and softmax not in study["softmax"].values):
            continue
        values = boundaries.one(study, [variable], *kept, softmax=softmax or boundaries.PUBLISHED)[variable]
        values = values.isel({axis: 0 for axis in ("rank", "precision") if axis in values.dims}, drop=True)
        words = study[variable].attrs["long_name"] + (f", outputs p: {softmax}" if softmax else "")
        data[name] = values.assign_attrs(long_name=words)
        tau = xr.apply_ufunc(kendall, values, error, input_core_dims=[["minimum"]] * 2, vectorize=True)
        taus[f"{name}_tau"] = curves.means(tau, f"Kendall's τ with the test error of: {words}")
    return data.merge(curves.prefixed(taus), combine_attrs="drop_conflicts")


def kendall(values: np.ndarray, errors: np.ndarray) -> float:
    """Kendall's τ_b of a measure's `values` and test `errors`, one of each per minimum; pairs with NaN are left out.

    NaN if fewer than LEAST pairs are left, or if values or errors are constant.
    """
    there = np.isfinite(values) & np.isfinite(errors)
    if there.sum() < LEAST or min(np.ptp(values[there]), np.ptp(errors[there])) == 0:
        return np.nan
    found: Any = scipy.stats.kendalltau(values[there], errors[there])
    return found.statistic


def draw_errors(ax: Axes, here: xr.Dataset, name: str) -> None:
    """Draw the test error over the measure `name`, with one point for every minimum of every draw.

    `here` is the part of `measured` for one dataset.
    """
    label, *_, logarithmic = MEASURES[name]
    values = here[name].where(here[name] > 0) if logarithmic else here[name]
    sizes = marker_sizes(here["minimum"].values.tolist())
    for minimum in here["minimum"].values:
        look = boundaries.look(minimum, markersize=sizes[minimum], **POINTS)
        ax.plot(values.sel(minimum=minimum), here["test_error"].sel(minimum=minimum), **look)
    ax.set(
        xlabel=label,
        xscale="log" if logarithmic else "linear",
        ylim=panels.limits([0], here["test_error"], margin=0.06),
    )
    if not values.notnull().any():
        boundaries.absent(ax, "not measured")
    elif logarithmic:
        ax.set_xlim(panels.log_limits(np.log10(values)))
        boundaries.logarithmic_ticks(ax.xaxis)


def marker_sizes(minima: list[str]) -> dict[str, float]:
    """Marker size of each minimum, as {label: size}; it grows with the number of training steps on random labels.

    Minima without such steps have the mean of SIZES. So have all minima if there is only one number of steps.
    """
    strengths = sorted({boundaries.steps(each) for each in minima if boundaries.steps(each)})
    sizes = dict(zip(strengths, np.linspace(*SIZES, len(strengths)))) if len(strengths) > 1 else {}
    return {each: sizes.get(boundaries.steps(each), np.mean(SIZES)) for each in minima}


def draw_taus(ax: Axes, data: xr.Dataset, names: list[str]) -> None:
    """Draw the mean of Kendall's τ, with its interval, for each measure in `names` and each dataset.

    `data` is a result of `measured`.
    """
    datasets = data["dataset"].values.tolist()
    for number, dataset in enumerate(datasets):
        here = xr.concat([curves.parts_of(data, f"{name}_tau").sel(dataset=dataset) for name in names], "measure")
        x = np.arange(len(names)) + APART * curves.centred(number, len(datasets))
        look = {"color": f"{0.65 * number / max(1, len(datasets) - 1):.2f}", "marker": style.marker(number)}
        curves.draw_means(ax, x, here, linestyle="none", label=panels.dataset_title(dataset), **look)
    ax.axhline(0, **style.GREY)
    labels = [MEASURES[name][0].replace(" (nat)", "").replace(", ", ",\n").replace(" ", "\n") for name in names]
    ax.set_xticks(range(len(names)), labels, fontsize=6.5)
    ax.set(xlim=(-0.5, len(names) - 0.5), ylim=(-1.05, 1.05), ylabel="τ")


def entries(minima: list[str]) -> list[Line2D]:
    """Legend entries for kinds of minima, and for numbers of training steps on random labels by marker size."""
    kinds = {boundaries.kind(each): each for each in minima}
    handles = [
        panels.entry(boundaries.title(each), **boundaries.look(each, markersize=3.5, **POINTS))
        for each in kinds.values()
    ]
    sizes = {boundaries.steps(each): size for each, size in marker_sizes(minima).items() if boundaries.steps(each)}
    grey = {"color": "0.4", "marker": "o", **POINTS}
    return handles + [panels.entry(f"{each:,} steps", markersize=sizes[each], **grey) for each in sorted(sizes)]
