"""The top eigenvectors of the Hessian in full space as images in the first layer, over the scale α (Vysogorets et al.
2024)."""

import math

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

from goldilocks_zone.figures import curves, over_scale, panels
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies

FIGURE = {"id": "eigenvectors", "studies": ["eigenvectors"], "axis": "scale"}

COLOURS = "PuOr_r"  # orange above zero, purple below: told apart by the colour-blind
BAR_CM = 2.0  # for the colour bar and the labels of the rows
TEXT_CM = 0.8  # for what stands above and below the images of a row
GAP_CM = 0.3  # between images, where they are of the largest size
LARGEST_CM = 3.0  # side of an image
PLAIN = (-2, 3)  # powers of ten that are written out


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    data = images(next(iter(studies.values())))
    rows, columns = data.sizes["eigenvector"], data.sizes["radius"]
    width, _ = panels.page_size(1, settings)
    side = min((width * panels.CENTIMETRES_PER_INCH - BAR_CM) / columns, LARGEST_CM)
    size = (width, rows * (side + TEXT_CM) / panels.CENTIMETRES_PER_INCH)
    figure, axes = panels.grid(rows, columns, settings, figsize=size)
    # Centre few images on the page.
    share = min(1.0, (columns * (side + GAP_CM) + BAR_CM) / (width * panels.CENTIMETRES_PER_INCH))
    figure.get_layout_engine().set(rect=((1 - share) / 2, 0, share, 1))
    for i, j in np.ndindex(axes.shape):
        drawn = draw_image(axes[i, j], data.isel(eigenvector=i, radius=j))
    for ax, alpha in zip(axes[0], data["radius"].values):
        ax.set_title(rf"$\alpha={alpha:.4g}$")
    for ax, number in zip(axes[:, 0], data["eigenvector"].values):
        ax.set_ylabel(f"eigenvector {number}")
    bar = figure.colorbar(drawn, ax=axes, aspect=25, pad=0.02, ticks=[-1, 0, 1], label="relative to the largest")
    bar.outline.set_visible(False)
    return figure, data


def images(study: xr.Dataset) -> xr.Dataset:
    """image (eigenvector, radius, row, column) in units of its own largest absolute value, and top_eigenvalue
    (eigenvector, radius), of the first initialisation."""
    here = over_scale.first_cell(over_scale.parameters_rescaled(study)).isel(draw=0)
    largest = np.abs(here["eigenvector_image"]).max(("row", "column"))
    result = here[["top_eigenvalue"]]
    result["image"] = here["eigenvector_image"] / largest.where(largest > 0, 1)
    meaning = "first layer's part of an eigenvector, averaged over units and channels, over its largest absolute value"
    result["image"].attrs = curves.described(meaning)
    for axis in ("row", "column"):
        result[axis].attrs = curves.described(f"{axis} of the input image")
    result["radius"].attrs = curves.described("scale α of the initialisation")
    return result.transpose("eigenvector", "radius", "row", "column")


def draw_image(ax: plt.Axes, here: xr.Dataset) -> plt.matplotlib.image.AxesImage:
    """Draw one image (row, column) with zero in white, its eigenvalue below."""
    drawn = ax.imshow(here["image"], cmap=COLOURS, vmin=-1, vmax=1, interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set(visible=True, color="0.7")
    value = float(here["top_eigenvalue"])
    if np.isfinite(here["image"]).all():
        ax.set_xlabel(rf"$\lambda={compact(value)}$", fontsize=plt.rcParams["legend.fontsize"], labelpad=2)
    else:
        ax.annotate("not finite", (0.5, 0.5), xycoords="axes fraction", ha="center", va="center", fontsize=7)
    return drawn


def compact(value: float) -> str:
    """Format a number to three digits, with a power of ten if it is large or small."""
    power = math.floor(math.log10(abs(value))) if value else 0
    if PLAIN[0] <= power < PLAIN[1]:
        return f"{value:.3g}"
    return rf"{value / 10.0**power:.2f}\cdot10^{{{power}}}"
