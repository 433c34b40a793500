"""Networks and other variants of a study, in figures of other networks and datasets."""

from itertools import product

import xarray as xr

from goldilocks_zone.figures import panels

SUFFIXES = {"tanh": ", activations", "cnn": ", convolutional"}  # of titles, by study


def of_study(study: xr.Dataset) -> list[tuple[str, dict]]:
    """The label of each network and variant of a study, and its place in it."""
    axes = [axis for axis in study.dims if axis not in ("dataset", "subspace", "radius", "draw", "dimension", "layer")]
    fixed = {axis: study[axis].values[0] for axis in ("dataset", "subspace")}
    result = []
    for values in product(*(study[axis].values.tolist() for axis in axes)):
        place = dict(zip(axes, values))
        names = {axis: panels.network_title(str(value)) for axis, value in place.items()}
        if "bias_directions" in place:
            names["bias_directions"] = "biases" if place["bias_directions"] else ""
        result.append((", ".join(filter(None, names.values())), {**fixed, **place}))
    return result


def title(study: xr.Dataset, name: str) -> str:
    """The title of the panel of the study `name`."""
    return panels.dataset_title(str(study["dataset"].values[0])) + SUFFIXES.get(name, "")
