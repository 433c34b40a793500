"""Types of the interface between a figure's module and the script that draws it; see the docstring of the package."""

from pathlib import Path

import matplotlib.figure
import xarray as xr

from goldilocks_zone.figures.registry import FigureSettings

__all__ = ["Drawn", "FigureSettings", "Published", "Studies"]

Studies = dict[str, xr.Dataset]
Published = Path | None
Drawn = tuple[matplotlib.figure.Figure, xr.Dataset]
