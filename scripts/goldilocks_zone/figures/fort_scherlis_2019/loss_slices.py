"""Cuts through the loss landscape at several radii (Fort & Scherlis 2019, figure 1, which is a drawing)."""

import math

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from goldilocks_zone.figures import curves, panels, style
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies

FIGURE = {"id": "cuts", "result": "cuts", "width_cm": 16.6, "height_cm": 9.6}
LEVELS = 10  # largest number of contour levels
SMALLEST_VALLEY = 0.05  # the contour of L(θ) is drawn if the loss falls below it by this share of the largest change
COLOURS_OF_LEVELS = "PuOr_r"  # purple below L(θ), orange above; safe for colour-blind readers


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    data = relative_losses(studies["cuts"])
    size = [length / panels.CENTIMETRES_PER_INCH for length in (settings.width_cm, settings.height_cm)]
    figure, axes = plt.subplots(2, data.sizes["radius"], figsize=size, squeeze=False, sharex=True, sharey="row")
    # Keep two-line titles clear of the upper edge.
    figure.set_layout_engine("constrained", rect=(0, 0, 1, 0.985))
    for (above, below), radius in zip(axes.T, data["radius"].values):
        here = data.sel(radius=radius)
        above.set_title(f"$r={radius:.3g}\\,r_X$\n$L(\\theta)={float(here['loss']):.4g}$ nat")
        draw_lines(above, here)
        draw_plane(below, here)
    axes[0, 0].set_ylabel(r"relative loss $L/L(\theta)$")
    axes[1, 0].set_ylabel("displacement,\nin units of $r$")
    axes[1, data.sizes["radius"] // 2].set_xlabel("displacement, in units of $r$")
    return figure, data


def relative_losses(cuts: xr.Dataset) -> xr.Dataset:
    """Losses on lines and on a plane through the initialisation θ, compared with the loss L(θ) there.

    `cuts` has the losses line_loss, plane_loss and loss. In the result, relative_loss is L/L(θ) on the lines,
    excess_loss is L − L(θ) on the plane in nat, and loss is L(θ).
    """
    drawn = cuts[["loss"]]
    drawn["relative_loss"] = cuts["line_loss"] / cuts["loss"]
    drawn["excess_loss"] = cuts["plane_loss"] - cuts["loss"]
    drawn["relative_loss"].attrs = curves.described("loss on lines over that at the initialisation")
    drawn["excess_loss"].attrs = curves.described("loss on the plane less that at the initialisation", "nat")
    return drawn


def draw_lines(ax: Axes, here: xr.Dataset) -> None:
    """Draw L/L(θ) over the displacement along each direction, as thin lines.

    `here` is the part of `relative_losses` for one radius.
    """
    for number, line in enumerate(here["relative_loss"].transpose("direction", "displacement")):
        ax.plot(here["displacement"], line, color=style.colour(number), linewidth=0.8, alpha=0.9)
    ax.plot(0, 1, color="k", marker="o", markersize=2.5)
    ax.tick_params(labelbottom=True)
    ax.set_box_aspect(1)


def draw_plane(ax: Axes, here: xr.Dataset) -> None:
    """Draw L − L(θ) as filled contours with a separate colour scale, and a line where it is zero.

    `here` is the part of `relative_losses` for one radius.
    """
    excess = here["excess_loss"].transpose("second", "first").values
    largest = np.abs(excess).max() or 1.0
    power = math.floor(math.log10(largest))
    power = 0 if abs(power) <= 1 else power
    scaled, bound = excess / 10.0**power, largest / 10.0**power
    levels = MaxNLocator(LEVELS).tick_values(min(scaled.min(), 0), max(scaled.max(), 0))
    grid = here["first"].values, here["second"].values
    # On a scale symmetric about L(θ), which is white, colour encodes the sign of L − L(θ) in every panel.
    filled = ax.contourf(*grid, scaled, levels=levels, cmap=COLOURS_OF_LEVELS, vmin=-bound, vmax=bound)
    filled.set_edgecolor("face")  # avoids gaps between levels in a PDF
    if excess.min() < -SMALLEST_VALLEY * largest and excess.max() > 0:
        ax.contour(*grid, scaled, levels=[0.0], colors="k", linewidths=0.6)
    ax.plot(0, 0, color="k", marker="o", markersize=2.5)
    ax.set_box_aspect(1)
    ax.xaxis.set_major_locator(MaxNLocator(2))
    ax.yaxis.set_major_locator(MaxNLocator(2))
    bar = ax.figure.colorbar(filled, ax=ax, orientation="horizontal", aspect=12, pad=0.04, shrink=0.95)
    bar.locator = MaxNLocator(nbins=4, steps=[1, 2, 5, 10])
    bar.update_ticks()
    bar.set_label(r"$L-L(\theta)$ (nat)" if power == 0 else rf"$L-L(\theta)$ ($10^{{{power}}}$ nat)")
