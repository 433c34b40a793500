"""Tr(H)/‖H‖ over the radius for several numbers of classes, with and without bias directions."""

import numpy as np
from matplotlib.ticker import MaxNLocator

from goldilocks_zone.figures import curves, panels, profiles, style
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies
from goldilocks_zone.theory.laws import finite_dimension_law

FIGURE = {"id": "plateaus", "studies": ["plateaus"], "axis": "radius", "needs": ["class_count", "bias_directions"]}


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    (study,) = studies.values()
    d = profiles.shown_dimension(study)
    study = study.sel(dimension=d, examples=max(study["examples"].values))
    data = curves.over_radii(study, "trace_over_norm")
    data["predicted"] = finite_dimension_law(np.sqrt(study["class_count"] - 1), d)
    data["predicted"].attrs = curves.described(f"finite-d law at √(C − 1), d = {d}, C the number of classes")
    shown = panels.cells(study)
    figure, axes = panels.page(len(shown), settings, min(2, len(shown)), room=1.2, x_label=panels.X_LABEL, sharey=True)
    classes, directions = (data[axis].values.tolist() for axis in ("class_count", "bias_directions"))
    for ax, cell in zip(axes, shown):
        for i, count in enumerate(classes):
            for biases in directions:
                curve = data.sel(cell).sel(class_count=count, bias_directions=biases)
                x = curve["x"].values + 0.05 * curves.centred(i, len(classes))
                # Simultaneous bands are drawn as error bars, since areas would hide each other.
                curves.draw_means(ax, x, curve, elinewidth=0.6, **look(i, biases))
            ax.axhline(
                data["predicted"].sel(class_count=count).item(), color=style.colour(i), linestyle=":", linewidth=0.9
            )
        ax.axhline(1, **style.DASHED)
        ax.set_title(panels.cell_title(cell, shown))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        if ax in axes[::2]:
            ax.set_ylabel(r"$\mathrm{Tr}(H)/\Vert H\Vert$")
    axes[0].set_ylim(panels.limits(data["mean"], data["predicted"], 0.0))
    handles = [panels.entry(f"$C={count}$", **look(i, True)) for i, count in enumerate(classes)]
    for biases in sorted(directions, reverse=True):
        label = "with bias directions" if biases else "without"
        handles.append(panels.entry(label, **look(0, biases) | {"color": "k"}))
    handles.append(panels.entry("predicted plateau", color="k", linestyle=":", linewidth=0.9))
    panels.legend_on_top(figure, handles, 7, columnspacing=1.2)
    return figure, data


def look(number: int, biases: bool) -> dict:
    """Style of a curve, as keyword arguments; `number` chooses colour and marker.

    With `biases`, the directions of the plane include biases: markers are filled, and the line is solid. Without,
    markers are open, and the line is broken.
    """
    filling, line, width = (None, "-", 1.2) if biases else ("white", "--", 0.8)
    more = {"markerfacecolor": filling, "linestyle": line, "linewidth": width}
    return style.look(number, markersize=3, markeredgewidth=0.7, **more)
