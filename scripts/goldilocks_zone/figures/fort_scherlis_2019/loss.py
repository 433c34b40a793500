"""Mean loss over the radius with its power law (Fort & Scherlis 2019, figure 5a)."""

import math

from goldilocks_zone.figures import curves, panels, profiles, style
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies
from goldilocks_zone.models import labels

FIGURE = {"id": "loss", "studies": ["curvature"], "axis": "radius", "wide": False}
FIT = {"color": "k", "linestyle": ":", "linewidth": 0.9}


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    (study,) = studies.values()
    data = curves.over_radii(study, "loss")
    figure, axes = panels.for_each_cell(study, settings)
    for ax, cell in axes:
        for number, count in enumerate(sorted(study["examples"].values.tolist(), reverse=True)):
            curves.draw_curve(ax, data.sel(cell).sel(examples=count), number, f"$N={count}$")
        if curves.settings_of(study)["loss"] == "cross_entropy":
            classes = int(study["classes"].sel(dataset=cell["dataset"]))
            ax.axhline(math.log(classes), **style.GREY)
            place = (study["x"].values[0], math.log(classes))
            ax.annotate(rf"$\ln {classes}$", place, xytext=(0, 3), textcoords="offset points")
        x, mean = study["x"].values, data.sel(cell).sel(examples=max(study["examples"].values))["mean"].values
        handles = ax.get_legend_handles_labels()[0]
        if fitted := profiles.power_law(x, mean):
            slope, intercept = fitted
            line = 10 ** (intercept + slope * x / 2)
            shown = line > mean.min() / 3
            ax.plot(x[shown], line[shown], **FIT)
            depth = labels.depth(cell["network"])
            exponent = rf"$\propto r^{{{slope:.2f}}}$" + (f", $n_L={depth}$" if depth else "")
            ax.annotate(exponent, xy=(0.97, 0.17), xycoords="axes fraction", ha="right")
            handles.append(panels.entry("power law fitted", **FIT))
        ax.set_yscale("log")
        panels.legend(ax, handles, loc="upper left", bbox_to_anchor=(0.0, 0.95))
    panels.label_y(figure, "mean loss (nat)")
    return figure, data
