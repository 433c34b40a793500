"""Accuracy and Tr(H)/‖H‖ over the radius of one Gaussian over all parameters (Chang 2019), with the published learning
rates and with the best rate for each radius."""

import xarray as xr
from matplotlib.axes import Axes

from goldilocks_zone.claims.curves import vertex_of_neighbours
from goldilocks_zone.figures import curves, over_radius, panels, style
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies

FIGURE = {"id": "chang_accuracy", "studies": ["chang", "chang_tuned", "chang_curvature"], "axis": "radius"}
X_LABEL = r"$\log_{10}(r_0/r_X)$"
CURVATURE = "chang_curvature"
ZONE = {"color": "k", "linewidth": 0.8, "linestyle": ":"}
SUBSPACES = {"full-free": "radius free", "full-fixed": "radius fixed"}


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    dataset = panels.dataset_title(next(iter(studies.values()))["dataset"].values[0])
    measured = studies.pop(CURVATURE, None)
    trainings = {name: over_radius.first_values(study).isel(dataset=0, network=0) for name, study in studies.items()}
    drawn = {name: over_radius.accuracy_curves(study) for name, study in trainings.items()}
    shown = [label for label in SUBSPACES if any(label in study["subspace"] for study in trainings.values())]
    figure, axes = panels.page(len(shown) + (measured is not None), settings, room=1.15, x_label=X_LABEL)
    highest = max((float(data["mean"].max()) for data in drawn.values()), default=1.0)
    arms = []
    for ax, label in zip(axes, shown):
        here = {name: study.sel(subspace=label) for name, study in trainings.items() if label in study["subspace"]}
        found = [(name, *arm) for name, study in here.items() for arm in over_radius.arms(study)]
        for number, (name, rate, temperature, place) in enumerate(found):
            curve = drawn[name].sel(subspace=label, **place)
            over_radius.draw(ax, curve, number, len(found), over_radius.look(rate, temperature))
            arms.append((rate, temperature))
        over_radius.frame(ax, next(iter(here.values())), highest)
        ax.set_ylabel(over_radius.Y_LABEL)
    titles = [SUBSPACES[label] for label in shown]
    if measured is not None:
        drawn[CURVATURE] = curvature(measured)
        draw_curvature(axes[-1], drawn[CURVATURE])
        titles.append("curvature")
        for ax in axes:
            ax.axvline(float(drawn[CURVATURE]["zone"][0]) / 2, **ZONE, zorder=0)
    panels.letter_titles(axes, [f"{dataset}, {title}" for title in titles])
    handles = over_radius.arm_handles(arms)
    if measured is not None:
        handles.append(panels.entry(r"$r_\mathrm{zone}$", **ZONE))
    panels.legend_on_top(figure, handles, 3)
    return figure, panels.side_by_side(drawn)


def curvature(study: xr.Dataset) -> xr.Dataset:
    """Tr(H)/‖H‖ over the radius, for the largest number of examples and dimension, and the location of its peak.

    The result has the variables of `curves.over_radii` and, for the peak, the variable `zone` (quantity). This is the
    x = log10(r²/r_X²) at which the mean curve is largest. The labels along quantity are value and, for the ends of its
    95 % interval, low and high.
    """
    study = study.isel(dataset=0, network=0, subspace=0)
    study = study.sel(examples=study["examples"].max(), dimension=study["dimension"].max())
    data = curves.over_radii(study, "trace_over_norm")
    x, values = study["x"].values, study["trace_over_norm"].transpose("radius", "draw").values
    names = ("chang_accuracy", "zone")
    peak = curves.bootstrapped(lambda sample: vertex_of_neighbours(x, sample.mean(1))[1], values, *names)
    meaning = "x at the peak of Tr(H)/‖H‖ (r_zone), and its 95 % interval over draws"
    return data.merge(curves.statistics({"zone": peak}, {"zone": meaning}))


def draw_curvature(ax: Axes, data: xr.Dataset) -> None:
    """Draw Tr(H)/‖H‖ with its simultaneous band, and above it the location of its peak with its interval.

    `data` is a result of `curvature`.
    """
    curves.draw_curve(ax, data.assign_coords(x=data["x"] / 2), 2, "", deviations=False)
    ax.axhline(1, **style.DASHED)
    ax.axvline(0, **style.GREY)
    curves.limit(ax, data)
    bottom, top = ax.get_ylim()
    ax.set_ylim(bottom, top + 0.08 * (top - bottom))
    value, low, high = data["zone"].values / 2
    ax.errorbar(value, top, xerr=[[value - low], [high - value]], color="k", marker="v", markersize=4, capsize=2)
    ax.set_ylabel(r"$\mathrm{Tr}(H)/\Vert H\Vert$")
