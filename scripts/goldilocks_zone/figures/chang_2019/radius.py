"""Change of the radius in free training (Chang 2019), and with the same optimiser on gradients with random signs."""

from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from goldilocks_zone.claims.estimators import training
from goldilocks_zone.figures import curves, panels, style
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies

FIGURE = {"id": "chang_radius", "studies": ["chang", "chang_rates"], "axis": "radius"}
SUBSPACE = "full-free"
SMALL = -2.0  # growth is shown for initial radii r_0 with x up to this value, if the study has any
SPAN = 15  # ratio of the last to the first step of the fit; early steps share a direction and are no random walk
MEMORY = 0.9  # β₁ of Adam, which is the asymptotic cosine of successive steps on independent gradients
GRADIENTS = {"loss": ("-", "training"), "random_signs": ("--", "random signs")}
GUIDE = {"color": "0.5", "linewidth": 0.8, "linestyle": ":"}
ABOVE = {"textcoords": "offset points", "ha": "right", "fontsize": 7, "color": "0.3"}


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    studies = {name: study for name, study in studies.items() if SUBSPACE in study["subspace"]}
    drawn, shown, handles = {}, [], []
    if "chang" in studies:
        study = curves.primary(studies["chang"]).sel(subspace=SUBSPACE)
        relative = xr.ufuncs.log10(study["norm"] / (study["radius"] / 10 ** (study["x"] / 2)))
        drawn["chang"] = curves.prefixed({"radius": curves.means(relative, "log10(r/r_X)")})
        shown.append(("radius", draw_radii, drawn["chang"]))
    if "chang_rates" in studies:
        chosen = curves.primary(studies["chang_rates"], "rate", "gradients").sel(subspace=SUBSPACE)
        data = drawn["chang_rates"] = motion(chosen)
        shown += [("growth", draw_growth, data), ("cosine", draw_cosines, data)]
        # The label states the exponent for the smallest r_0.
        for here, look in curves_of(data.isel(radius=[0])):
            value, low, high = here["exponent"].values
            fitted = rf" (${value:.2f}\pm{(high - low) / 2:.2f}$)" if np.isfinite(low) else ""
            text = f"{float(here['rate']):g}, {GRADIENTS[here['gradients'].item()][1]}{fitted}"
            handles.append(panels.entry(text, **look))
    figure, axes = panels.page(len(shown), settings, room=1.25)
    dataset = panels.dataset_title(next(iter(studies.values()))["dataset"].values[0])
    for ax, (_, draw_panel, data) in zip(axes, shown):
        draw_panel(ax, data)
        ax.set_xlabel("steps")
    panels.letter_titles(axes, [title for title, *_ in shown])
    if handles:
        heading = f"{dataset}; learning rate, gradients (exponent of the growth)"
        panels.legend_on_top(figure, handles, 3, title=heading, title_fontsize=7)
    return figure, panels.side_by_side(drawn)


def motion(study: xr.Dataset) -> xr.Dataset:
    """Growth of the radius, its exponent, and cosines of successive steps, with their 95 % intervals over draws.

    The growth is log10(r² − r_0²), where r_0 is the initial radius. The cosine is the one between successive steps,
    averaged over the steps so far. Their means are {name}_mean, _low and _high (rate, gradients, radius, step), with
    `growth` or `cosine` as the name. `exponent` (rate, gradients, radius, quantity) is the slope of the growth over
    log10 of the step. The axis gradients holds the kinds of gradients (keys of GRADIENTS), the axis radius initial
    radii. Only those with log10(r_0²/r_X²) up to SMALL are kept or, if there are none, the smallest.
    """
    small, last = study["x"].values <= max(SMALL, float(study["x"].min())), int(study["step"].max())
    study = study[["norm", "step_cosine"]].isel(radius=small).transpose("rate", "gradients", "radius", ...)
    squares = study["norm"] ** 2
    growth = squares - squares.isel(step=0)
    growth = xr.ufuncs.log10(growth.where(growth > 0))
    exponents = np.empty((*growth.shape[:3], 3))
    for i, j, k in np.ndindex(exponents.shape[:3]):
        cell = study[["norm"]].isel(rate=i, gradients=j, radius=[k]).dropna("draw")
        exponents[i, j, k] = curves.of_claim(training.growth_exponent, cell, (-np.inf, np.inf), [last / SPAN, last])
    meaning = "slope of log10(r² − r_0²) over log10 of the steps, and its 95 % interval over draws"
    parts = {"growth": curves.means(growth, "log10 of r² − r_0², in squared units of the parameters")}
    parts["cosine"] = curves.means(study["step_cosine"], "mean cosine of successive steps so far")
    data = curves.prefixed(parts).assign_coords(quantity=["value", "low", "high"])
    data["exponent"] = (("rate", "gradients", "radius", "quantity"), exponents, curves.described(meaning))
    return data


def draw_radii(ax: Axes, data: xr.Dataset) -> None:
    """Draw r/r_X over steps, with one curve and its band for each initial radius r_0.

    `data` has the variables radius_mean, radius_low and radius_high (radius, step), in log10(r/r_X).
    """
    shades = plt.cm.Greys(np.linspace(0.95, 0.45, data.sizes["radius"]))  # colours show rates in the other panels
    for shade, radius in zip(shades, data["radius"].values):
        here = data.sel(radius=radius)
        curves.draw_band(ax, here["step"], 10 ** curves.parts_of(here, "radius"), linewidth=1, color=shade)
        ax.plot(0, 10 ** float(here["radius_mean"][0]), "o", color=shade, markersize=3, clip_on=False)
    ax.axhline(1, **style.DASHED)
    ax.set_xscale("symlog", linthresh=1, linscale=0.4)
    ax.set(xlim=(0, float(data["step"].max())), yscale="log", ylabel="$r/r_X$")
    ax.set_ylim(panels.log_limits(data["radius_mean"]))
    ax.minorticks_off()


def curves_of(data: xr.Dataset) -> Iterator[tuple[xr.Dataset, dict]]:
    """Yield the data and style of each curve in `data`, a result of `motion`.

    There is one curve for each rate, kind of gradients and initial radius. The colour shows the rate, the line style
    the kind of gradients. Lines are thin for all initial radii but the first.
    """
    for number, j, i in np.ndindex(*(data.sizes[axis] for axis in ("rate", "gradients", "radius"))):
        here = data.isel(rate=number, gradients=j, radius=i)
        line = GRADIENTS[here["gradients"].item()][0]
        yield here, {"color": style.colour(number), "linestyle": line, "linewidth": 0.6 if i else 1.1}


def draw_growth(ax: Axes, data: xr.Dataset) -> None:
    """Draw r² − r_0² over steps for the curves of `curves_of`, with a guide proportional to the number of steps.

    `data` is a result of `motion`, and r_0 the initial radius.
    """
    for here, look in curves_of(data):
        curves.draw_band(ax, here["step"], 10 ** curves.parts_of(here, "growth"), **look)
    last, top = float(data["step"].max()), float(data["growth_mean"].max())
    ax.plot([1, last], [2 * 10**top / last, 2 * 10**top], **GUIDE)
    ax.annotate(r"$\propto$ steps", (np.sqrt(last), 2 * 10**top / np.sqrt(last)), (-3, 3), **ABOVE)
    ax.set(xscale="log", yscale="log", ylabel="$r^2-r_0^2$")
    ax.set_ylim(panels.log_limits(data["growth_mean"], top + np.log10(2)))


def draw_cosines(ax: Axes, data: xr.Dataset) -> None:
    """Draw the mean cosine of successive steps, with a grey line at the value that Adam's momentum alone would give.

    `data` is a result of `motion`.
    """
    for here, look in curves_of(data):
        curves.draw_band(ax, here["step"], curves.parts_of(here, "cosine"), alpha=0.2, **look)
    ax.axhline(MEMORY, **style.GREY)
    ax.set(xscale="log", ylim=(min(0.0, float(data["cosine_mean"].min())), 1))
    ax.set_ylabel("mean cosine of\nsuccessive steps")
