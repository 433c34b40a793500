"""Drawing a figure of made-up studies by its own script."""

import importlib
import inspect

import yaml

from goldilocks_zone.storage import netcdf


def draw(name, chosen, folder):
    """One figure of some studies; returns its source data."""
    paths = []
    for study, content in chosen.items():
        paths.append(str(folder / f"{study}.nc"))
        netcdf.write_dataset(content, paths[-1])
    settings = folder / "settings.yaml"
    settings.write_text(
        yaml.safe_dump({"width_cm": 8.0, "height_cm": 6.4, "published": True, "studies": ["curvature"]})
    )
    function = getattr(importlib.import_module(f"plot_{name}"), f"plot_{name}")
    arguments = {"paths_to_studies": paths, "path_to_study": paths[0], "path_to_settings": str(settings)}
    arguments |= {
        f"path_to_{key}": str(folder / f"figure.{key.replace('data', 'nc')}") for key in ("pdf", "png", "data")
    }
    function(**{key: arguments[key] for key in inspect.signature(function).parameters})
    return netcdf.read_dataset(arguments["path_to_data"])
