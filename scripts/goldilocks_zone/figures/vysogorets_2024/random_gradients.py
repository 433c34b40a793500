"""κ of the Gauss–Newton part G, measured and predicted by the model J = C + E of random logit gradients (Vysogorets et
al. 2024)."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from goldilocks_zone.figures import curves, over_scale, panels, style
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies
from goldilocks_zone.theory.laws import kappa_of_random_gradients

FIGURE = {"id": "random_gradients", "studies": ["scale_fc", "confidence"], "axis": "scale"}

SCALES = "scale_fc"
# Style number, line style and label of each form of the model's κ(G).
FORMS = {"finite": (1, "--", "model, any $d$"), "large": (2, ":", "model, large $d$")}
MEANINGS = {
    "measured": "κ(G) = Tr(G_d)/‖G_d‖_F as measured",
    "finite": "κ(G) of the model J = C + E, for any d",
    "large": "κ(G) of the model J = C + E, for large d",
}
LABEL = r"$\kappa(G)$"


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    data = {name: modelled(study) for name, study in studies.items()}
    if SCALES in data:
        means = {name: curves.means(data[SCALES][name])[curves.PARTS] for name in MEANINGS}
        data[SCALES] = data[SCALES].merge(curves.prefixed(means))
    figure, axes = panels.grid(1, len(data.keys() & {SCALES}) + 1, settings, room=1.35)
    if SCALES in data:
        draw_over_scales(axes[0, 0], data[SCALES])
    draw_one_by_one(axes[0, -1], data)
    panels.letter_titles(axes[0])
    return figure, panels.side_by_side(data)


def modelled(study: xr.Dataset) -> xr.Dataset:
    """κ(G) (radius, draw), measured and predicted by the model of random logit gradients; NaN where G underflows.

    κ(G) is Tr(G)/‖G‖ of the Gauss–Newton matrix G on planes of dimension d. The variable `measured` holds the measured
    values. The variables `finite` and `large` hold the predictions of the model for any d and for large d.
    """
    here = over_scale.first_cell(over_scale.parameters_rescaled(study))
    d, given = int(here["dimension"]), (here["class_gradient"], here["example_gradient"], here["softmax_ratio"])
    with np.errstate(divide="ignore", invalid="ignore"):
        found = {"measured": here["gauss_newton_trace"] / here["gauss_newton_norm"]}
        found |= {form: kappa_of_random_gradients(*given, d, form) for form in FORMS}
    known = np.isfinite(found["measured"])
    result = xr.Dataset({name: values.where(known & np.isfinite(values)) for name, values in found.items()})
    for name, meaning in {**MEANINGS, "radius": "scale α of the initialisation"}.items():
        result[name].attrs = curves.described(meaning)
    return result.transpose("radius", "draw")


def draw_over_scales(ax: Axes, data: xr.Dataset) -> None:
    x = data["x"].values
    for form, (number, line, label) in FORMS.items():
        curves.draw_band(ax, x, curves.parts_of(data, form), color=style.colour(number), linestyle=line, label=label)
    look = style.look(0, markersize=2.5, linestyle="none", label="measured")
    curves.draw_means(ax, x, curves.parts_of(data, "measured"), **look)
    bound = np.sqrt(float(data["dimension"]))
    for reference in (1, bound):
        ax.axhline(reference, **style.DASHED)
    # Error bars of few draws may leave these limits, but κ of a positive semi-definite matrix cannot.
    ax.set_ylim(panels.limits(1, bound, *(data[f"{name}_mean"] for name in MEANINGS), margin=0.05))
    ax.set(xlabel=over_scale.LABEL, ylabel=LABEL, title="over the scale")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 0.07), frameon=False)  # clear of the line at unity


def draw_one_by_one(ax: Axes, data: dict[str, xr.Dataset]) -> None:
    for name, here in data.items():
        model, measured = here["finite"], here["measured"]
        if name == SCALES:
            colours = here["x"].broadcast_like(model).transpose(*model.dims)
            look = {"c": colours, "cmap": "viridis", "s": 7, "linewidths": 0, "zorder": 3}
            points = ax.scatter(model, measured, label=r"each $\alpha$ of (a)", **look)
            bar = ax.figure.colorbar(points, ax=ax, aspect=30, pad=0.02, label=over_scale.LABEL)
            bar.outline.set_visible(False)
        else:
            look = {"marker": style.marker(1), "s": 9, "facecolors": "none", "linewidths": 0.6, "zorder": 2}
            ax.scatter(model, measured, edgecolors=style.colour(1), label=r"$\alpha=1$, more draws", **look)
    bound = max(float(here["dimension"]) for here in data.values()) ** 0.5
    shown = (here[name] for here in data.values() for name in ("finite", "measured"))
    ends = panels.limits(1, bound, *shown, margin=0.05)
    ax.plot(ends, ends, color="0.4", linewidth=0.6, zorder=1)
    ax.set(xlim=ends, ylim=ends, aspect="equal", title="single initialisations")
    ax.set(xlabel=rf"{LABEL} of the model, any $d$", ylabel=rf"{LABEL} measured")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(7, integer=True))
    ax.legend(loc="upper left", handletextpad=0.1)
