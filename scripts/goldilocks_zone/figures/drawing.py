"""Draw one figure of a run: read its studies, call its module, and write the figure and its source data."""

import importlib.util
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from goldilocks_zone.claims import cells
from goldilocks_zone.config import records
from goldilocks_zone.figures import registry, style
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies
from goldilocks_zone.storage import files, netcdf


def draw_figure(
    name: str,
    paths_to_studies: list[str],
    path_to_settings: str,
    path_to_published: str | None,
    path_to_pdf: str,
    path_to_png: str,
    path_to_data: str,
) -> None:
    """Draw the figure `name` from its studies in a run, and write the figure and its source data atomically.

    The figure is written as PDF and PNG, the source data as NetCDF.
    """
    settings = records.read(FigureSettings, path_to_settings)
    figure = registry.of(name, settings.file)
    published = Path(path_to_published) if path_to_published and settings.published else None
    studies = {Path(path).stem: load(path, figure) for path in paths_to_studies}
    picture, data = drawn(figure, studies, settings, published)
    with files.whole_file(path_to_pdf) as pdf, files.whole_file(path_to_png) as png:
        picture.savefig(pdf, metadata={"CreationDate": None})  # a date would make every file different
        picture.savefig(png)
        netcdf.write_dataset(data, path_to_data)
    plt.close(picture)


def drawn(figure: registry.Figure, studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    """Draw a figure with its module, in the common style; return the picture and its source data.

    Raises ValueError unless the module's function draw returns a matplotlib Figure and an xarray Dataset.
    """
    style.set_style()
    specification = importlib.util.spec_from_file_location(f"figure_{figure.id}", figure.module)
    assert specification is not None and specification.loader is not None  # as the file is a Python file
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    match module.draw(studies, settings, published):
        case (Figure() as picture, xr.Dataset() as data):
            return picture, data
    raise ValueError(f"draw of {figure.module} must return a matplotlib Figure and an xarray Dataset")


def load(path: str | Path, figure: registry.Figure) -> xr.Dataset:
    """Load the results of a study for a figure.

    For figures over the scale α of an initialisation, the coordinate x is set to log10 α. In a study with the axis
    `weights`, each pair of network and weights becomes a network of its own, unless the figure needs this axis. Raises
    ValueError if radii have the wrong unit, or if an axis that the figure needs is missing.
    """
    study = netcdf.read_dataset(path)
    if figure.axis == "radius" and "x" not in study.coords:
        raise ValueError(f"{path} has radii that are not in units of r_X: this figure needs radius_unit: r_X")
    if figure.axis == "scale":
        if "x" in study.coords:
            raise ValueError(f"{path} has radii that are not scale factors: this figure needs radius_unit: init_scale")
        place = ("radius", np.log10(study["radius"].values), {"units": "1", "long_name": "log10 of the scale α"})
        study = study.assign_coords(x=place)
    for axis in figure.needs:
        if axis not in study.dims:
            raise ValueError(
                f"{path} has no axis {axis}, which this figure needs: give its study this axis, as in config/studies"
            )
    # Only figures that need the axis `weights` can handle it; for others, each label becomes a network.
    return study if "weights" in figure.needs else cells.weights_as_networks(study)
