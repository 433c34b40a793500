"""Aggregates: one labelled file per study from its blocks, by what the attributes of their variables say.

Planes are averaged within an initialisation, their variance kept apart.
"""

import json
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import xarray as xr
import yaml

from goldilocks_zone.config import records, studies
from goldilocks_zone.config.models import Study
from goldilocks_zone.measurements import observables
from goldilocks_zone.provenance import attributes as provenance_attributes
from goldilocks_zone.storage import netcdf

CELL = ("dataset", "network", "subspace")
# Keys that a study varies, and axes of variables that do not come last, stand before these.
POINTS = ("examples", "radius", "dimension", "draw")
DESCRIBED = ("units", "long_name")


def aggregate_study(
    paths_to_blocks: Sequence[str],
    path_to_settings: str,
    path_to_grid: str,
    path_to_block_code: str,
    paths_to_networks: Sequence[str],
) -> xr.Dataset:
    """The study of these blocks. Raises ValueError if one is stale or incomplete, or was measured on other data."""
    study, seed = records.read_study(path_to_settings, **records.parse(Path(path_to_grid).read_text(encoding="utf-8")))
    settings = records.of_measurement(study, seed)
    code = Path(path_to_block_code).read_text().strip()
    own = [yaml.safe_load(Path(path).read_text(encoding="utf-8")) for path in paths_to_networks]
    fingerprints = {network["label"]: network["fingerprint"] for network in own}
    cells = {}
    for path in map(Path, paths_to_blocks):
        # A block's path ends in …/dataset/network/subspace/block.nc.
        cell = path.parts[-4:-1]
        provenance_attributes.refuse_stale(path, code, settings, fingerprints.get(cell[1], ""))
        cells.setdefault(cell, []).append(_read(path))
    blocks = [block for parts in cells.values() for block in parts]
    for dataset in study.datasets:
        checksums = {each.attrs["data_checksum"] for cell in cells if cell[0] == dataset for each in cells[cell]}
        if len(checksums) > 1:
            raise ValueError(f"blocks of {dataset} were measured on different data: delete them and run again")
    known = {name: array.attrs for block in blocks for name, array in block.variables.items()}
    result = _combined(cells, [name for name, each in known.items() if observables.LENGTH in each])
    result = result.sel({axis: getattr(study, f"{axis}s") for axis in CELL} | {"radius": studies.radii(study)})
    _refuse_missing(result, known)
    for name, attributes in known.items():
        result[name].attrs = {key: attributes[key] for key in DESCRIBED if key in attributes}
    result = _with_coordinates(result, study, {cell: parts[0].attrs for cell, parts in cells.items()})
    result.attrs = _provenance([block.attrs for block in blocks], study, settings)
    last = {name for name, each in known.items() if observables.ORDER in each}
    for name, array in result.data_vars.items():
        result[name] = array.transpose(*_ordered(array.dims, last))
    return result


def side_by_side(cells: Sequence[xr.Dataset], of_network: Collection[str] = ()) -> xr.Dataset:
    """Cells of a study in one dataset.

    Networks that are shorter than others along the axes `of_network` have missing values beyond their last label: axes
    that differ would be combined too, and every variable would get the axis.
    """
    for axis in of_network:
        labels = sorted({label for cell in cells if axis in cell.dims for label in cell[axis].values.tolist()})
        cells = [cell.reindex({axis: labels}) for cell in cells]
    return xr.combine_by_coords(cells, combine_attrs="drop") if len(cells) > 1 else cells[0]


def _read(path: Path) -> xr.Dataset:
    """One block of what aggregates have, averaged over planes where it has several for each draw."""
    with netcdf.opened(path) as file:
        left_out = [name for name, array in file.variables.items() if observables.AGGREGATED in array.attrs]
        block = file.drop_vars(left_out)
        block = block.drop_dims([dim for dim in block.dims if all(dim not in each.dims for each in block.values())])
        block = block.load()
    if "plane" not in block.dims:
        return block
    means = block.mean("plane", keep_attrs=True)
    if block.sizes["plane"] > 1:
        for name, array in block.data_vars.items():
            if observables.OVER_PLANES in array.attrs:
                meaning = f"variance over the planes of one draw: {array.attrs['long_name']}"
                means[f"{name}_plane_variance"] = array.var("plane", ddof=1).assign_attrs(
                    units=f"({array.attrs['units']})²", long_name=meaning
                )
    return means


def _combined(cells: dict[tuple[str, ...], list[xr.Dataset]], of_network: Collection[str]) -> xr.Dataset:
    """All blocks in one dataset, with axes for dataset, network and subspace."""
    parts = [
        xr.combine_by_coords(blocks, combine_attrs="drop").expand_dims(
            {axis: [label] for axis, label in zip(CELL, cell)}
        )
        for cell, blocks in cells.items()
    ]
    return side_by_side(parts, of_network)


def _refuse_missing(result: xr.Dataset, known: dict[str, dict]) -> None:
    """Refuse missing values of variables that may not lack any; where a point overflows, all may be missing."""
    overflown = result.get("overflow", xr.DataArray(0)) > 0
    whole = [name for name in result.data_vars if observables.MISSING not in known[name]]
    missing = [name for name in whole if bool((result[name].isnull() & ~overflown).any())]
    if missing:
        raise ValueError(f"the study would lack values of {', '.join(missing)}: a block is incomplete")


def _with_coordinates(result: xr.Dataset, study: Study, signatures: dict[tuple[str, ...], dict]) -> xr.Dataset:
    """The study with the number of classes of each dataset and, where radii have a common unit r_X, x."""
    classes, meaning = {cell[0]: each["classes"] for cell, each in signatures.items()}, "number of classes"
    values = [classes[name] for name in result["dataset"].values]
    result = result.assign_coords(classes=("dataset", values, {"units": "1", "long_name": meaning}))
    # In which unit radii are r/r_X.
    units = {"r_X": {1.0}, "norm": {each["r_x"] for each in signatures.values()}}.get(study.radius_unit, set())
    if len(units) != 1:
        return result
    x = 2 * np.log10(result["radius"].values / units.pop())
    return result.assign_coords(x=("radius", x, {"units": "1", "long_name": "log10(r²/r_X²)"}))


def _ordered(dims: Sequence[str], last: Collection[str]) -> list[str]:
    """Cell, what the study varies, the point, and axes that stand `last`."""
    between = [dim for dim in dims if dim not in (*CELL, *POINTS, *last)]
    groups = (CELL, between, POINTS, [dim for dim in dims if dim in last])
    return [dim for group in groups for dim in group if dim in dims]


def _provenance(attributes: Sequence[dict], study: Study, settings: dict) -> dict:
    def all_of(name: str) -> str:
        return ", ".join(sorted({str(each[name]) for each in attributes}))

    names = (
        *("commit", "code_fingerprint", "network_fingerprint", "settings_hash", "data_checksum"),
        *("seeds", "device", "dtype"),
    )
    versions = [name for name in attributes[0] if name.endswith("_version") or name == "python"]
    return {
        **{name: all_of(name) for name in (*names, *versions)},
        "settings": json.dumps(settings, sort_keys=True),
        **({"planes": study.planes} if hasattr(study, "planes") else {}),
        **({"test_examples": all_of("test_examples")} if "test_examples" in attributes[0] else {}),
        "wall_seconds": round(sum(each["wall_seconds"] for each in attributes), 1),
        "blocks": len(attributes),
    }
