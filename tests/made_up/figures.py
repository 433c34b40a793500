"""Made-up studies of curvature, and figures of made-up studies, drawn as a run draws them."""

import json
from pathlib import Path
from unittest import mock

import numpy as np
import xarray as xr
import yaml
from matplotlib.figure import Figure

from goldilocks_zone.claims import cells
from goldilocks_zone.figures import drawing, registry
from goldilocks_zone.models.labels import depth
from goldilocks_zone.randomness import stream
from goldilocks_zone.storage import netcdf
from made_up.meanings import meaning

ROOT = Path(__file__).parents[2]
ZONE_X = np.linspace(-2, 4, 19)


def rendered(figure, path, **options):
    """Draw a figure once, for the file of pixels, in place of Matplotlib's savefig, which takes five times as long.

    The quick run saves every figure.
    """
    if str(path).endswith("png"):
        figure.canvas.draw()
    Path(path).write_text("drawn")


def draw(name, studies, folder, file=None, **settings):
    """Draw the figure `name` of the results `studies`, by name of the study, and return its source data.

    The figure is a registered one or, if `file` is given, a user's own. All files are written to `folder`, those of the
    picture without the picture (see `rendered`).
    """
    paths = {each: folder / f"{each}.nc" for each in studies}
    for each, content in studies.items():
        netcdf.write_dataset(content, paths[each])
    settings |= {"file": str(file)} if file else {}
    figure = registry.of(name, settings.get("file"))
    path_to_settings = folder / "settings.yaml"
    path_to_settings.write_text(yaml.safe_dump({**figure.defaults(), **settings}))
    outputs = [str(folder / f"figure.{ending}") for ending in ("pdf", "png", "nc")]
    published = figure.published and str(ROOT / figure.published)
    with mock.patch.object(Figure, "savefig", rendered):
        drawing.draw_figure(name, list(map(str, paths.values())), str(path_to_settings), published, *outputs)
    for output in outputs:
        assert Path(output).stat().st_size > 0
    return netcdf.read_dataset(outputs[2])


def is_described(data):
    """Whether every variable of source data has units and a meaning."""
    return bool(data.data_vars) and all(array.attrs["units"] and array.attrs["long_name"] for array in data.values())


def at_weights(study):
    """Repeat a study along a new axis `weights`: random initialisations, and two points of a training trajectory."""
    labels = ["none", "early", "late"]
    return study.map(
        lambda array: (
            array.expand_dims(weights=labels, axis=array.dims.index("subspace") + 1)
            if "subspace" in array.dims
            else array
        ),
        keep_attrs=True,
    )


def zone(draws, counts, networks=("fc-200x2-relu",), x=ZONE_X, **varied):
    """Made-up curvature study in which κ is large from x = -1/2 to log10(N²)/n - 1, with n weight layers.

    `counts` are the numbers of examples N. The noise that raises κ lowers the loss. `varied` adds axes by name.
    """
    coordinates = {
        "dataset": ["mnist"],
        "network": list(networks),
        "subspace": ["plane-50-sparse"],
        **varied,
        "examples": list(counts),
        "radius": 10 ** (x / 2),
        "dimension": [50],
        "draw": range(draws),
    }
    dims = tuple(coordinates)
    shape = tuple(map(len, coordinates.values()))
    noise = xr.DataArray(stream("zone", *map(str, shape)).standard_normal(shape), coordinates, dims)
    layers = xr.DataArray([depth(network) for network in networks], {"network": list(networks)}, ("network",))
    place = xr.DataArray(x, {"radius": coordinates["radius"]}, ("radius",))
    outer = 2 * np.log10(noise["examples"]) / layers - 1
    kappa = 6 / (1 + np.exp(-6 * (place + 0.5))) / (1 + np.exp(6 * (place - outer))) + 0.1 * noise
    point = noise.isel(dimension=0, drop=True)
    study = xr.Dataset(
        {
            "trace_over_norm": kappa,
            "trace": 3 + 0.2 * noise,
            "frobenius_norm": 1 + 0.1 * noise,
            "fraction_positive": (40 + (3 * noise).round()) / 50,
            "loss": 2.5 - 0.1 * point,
            "logits_std": 1 + 0.05 * point**2,
            "radial_derivative": (1 + 0.1 * point) * layers,
        },
        attrs={"settings": json.dumps(cells.PRIMARY_SETTINGS)},
    ).assign_coords(x=("radius", x), classes=("dataset", [10]))
    for name in study.data_vars:
        study[name].attrs = meaning(name)
    return study.transpose(*dims)
