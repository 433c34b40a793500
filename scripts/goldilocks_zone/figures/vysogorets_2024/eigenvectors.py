"""The top eigenvectors of the Hessian in full space as images in the first layer, over the scale α (Vysogorets et al.
2024)."""

import math

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

from goldilocks_zone.figures import curves, over_scale, panels
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies

FIGURE = {"id": "eigenvectors", "studies": ["eigenvectors"], "axis": "scale"}

BAR_CM = 2.0  # space for the colour bar and the row labels
TEXT_CM = 0.8  # space for the text above and below the images of a row
LARGEST_CM = 3.0  # largest side of an image


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    data = images(next(iter(studies.values())))
    rows, columns = data.sizes["eigenvector"], data.sizes["radius"]
    width, _ = panels.page_size(1, settings)
    width_cm = width * panels.CENTIMETRES_PER_INCH
    side = min((width_cm - BAR_CM) / columns, LARGEST_CM)
    size = (width, rows * (side + TEXT_CM) / panels.CENTIMETRES_PER_INCH)
    figure, axes = panels.grid(rows, columns, settings, figsize=size)
    share = min(1.0, (columns * (side + 0.3) + BAR_CM) / width_cm)  # few images, 0.3 cm apart, are centred
    figure.set_layout_engine("constrained", rect=((1 - share) / 2, 0, share, 1))
    drawn = []
    for (i, j), ax in np.ndenumerate(axes):
        here = data.isel(eigenvector=i, radius=j)
        # Zero is white, positive orange and negative purple: safe for colour-blind readers.
        drawn.append(ax.imshow(here["image"], cmap="PuOr_r", vmin=-1, vmax=1, interpolation="nearest"))
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set(visible=True, color="0.7")
        if np.isfinite(here["image"]).all():
            eigenvalue = rf"$\lambda={compact(float(here['top_eigenvalue']))}$"
            ax.set_xlabel(eigenvalue, fontsize=plt.rcParams["legend.fontsize"], labelpad=2)
        else:
            ax.annotate("not finite", (0.5, 0.5), xycoords="axes fraction", ha="center", va="center", fontsize=7)
    for ax, alpha in zip(axes[0], data["radius"].values):
        ax.set_title(rf"$\alpha={alpha:.4g}$")
    for ax, number in zip(axes[:, 0], data["eigenvector"].values):
        ax.set_ylabel(f"eigenvector {number}")
    bar = figure.colorbar(drawn[-1], ax=axes, aspect=25, pad=0.02, ticks=[-1, 0, 1], label="relative to the largest")
    bar.outline.set_visible(False)
    return figure, data


def images(study: xr.Dataset) -> xr.Dataset:
    """Top eigenvectors of the Hessian as images, with their eigenvalues, for the first initialisation.

    `image` (eigenvector, radius, row, column) is the part of an eigenvector in the first layer, averaged over units and
    channels, and divided by its largest absolute value. `top_eigenvalue` has the axes (eigenvector, radius), where the
    radius is the scale α of the initialisation.
    """
    here = over_scale.first_cell(over_scale.parameters_rescaled(study)).isel(draw=0)
    largest = abs(here["eigenvector_image"]).max(("row", "column"))
    result = here[["top_eigenvalue"]]
    result["image"] = here["eigenvector_image"] / largest.where(largest > 0, 1)
    meaning = "first layer's part of an eigenvector, averaged over units and channels, over its largest absolute value"
    result["image"].attrs = curves.described(meaning)
    axes = {axis: f"{axis} of the input image" for axis in ("row", "column")}
    for axis, meaning in {**axes, "radius": "scale α of the initialisation"}.items():
        result[axis].attrs = curves.described(meaning)
    return result.transpose("eigenvector", "radius", "row", "column")


def compact(value: float) -> str:
    """Format a number to three digits, with a power of ten if its magnitude is below 0.01 or at least 1000."""
    power = math.floor(math.log10(abs(value))) if value else 0
    return f"{value:.3g}" if -2 <= power < 3 else rf"{value / 10.0**power:.2f}\cdot10^{{{power}}}"
