"""Aggregation of a study's blocks into one labelled dataset.

The attributes of each measured variable, which `observables` defines, determine how it is aggregated. A cell is one
combination of dataset, network and subspace. A varied key is a setting for which the study lists several values.
"""

import json
from collections.abc import Collection, Hashable, Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from goldilocks_zone.config import records, studies
from goldilocks_zone.config.models import Study
from goldilocks_zone.measurements import observables
from goldilocks_zone.provenance import attributes as provenance_attributes
from goldilocks_zone.storage import netcdf

CELL = ("dataset", "network", "subspace")
# Varied keys, and the axes of variables that are not marked as `last`, precede these axes.
POINTS = ("examples", "radius", "dimension", "draw")


def aggregate_study(
    paths_to_blocks: Sequence[str],
    path_to_settings: str,
    path_to_grid: str,
    path_to_block_code: str,
    paths_to_networks: Sequence[str],
) -> xr.Dataset:
    """Combine the blocks of a study into one dataset, labelled by dataset, network and subspace.

    path_to_settings: record of the study's settings, without those in the next record. path_to_grid: record of the
    study's datasets, networks, subspaces and draws, which name the blocks. path_to_block_code: file with the
    fingerprint of the code that makes blocks. paths_to_networks: records of the user's own networks.
    Raises ValueError if a block was made by other code, settings or networks, if blocks of one dataset were measured on
    different versions of its data, or if values are missing.
    """
    grid = records.parse(Path(path_to_grid).read_text(encoding="utf-8"))
    study, seed = records.read_measurement(path_to_settings, **grid)
    settings = records.of_measurement(study, seed)
    code = Path(path_to_block_code).read_text().strip()
    networks = [records.parse(Path(path).read_text(encoding="utf-8")) for path in paths_to_networks]
    fingerprints = {network["label"]: network["fingerprint"] for network in networks}
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
            raise ValueError(
                f"blocks of {dataset} were measured on different versions of its data: delete all blocks of {dataset} "
                "in this study and run again"
            )
    known = {name: array.attrs for block in blocks for name, array in block.variables.items()}
    merged = {cell: _combined(parts) for cell, parts in cells.items()}
    merged = [found.expand_dims(dict(zip(CELL, ([label] for label in cell)))) for cell, found in merged.items()]
    result = side_by_side(merged, [name for name, each in known.items() if observables.LENGTH in each])
    result = result.sel({axis: getattr(study, f"{axis}s") for axis in CELL} | {"radius": studies.radii(study)})
    _refuse_missing(result, known)
    for name, attributes in known.items():
        result[name].attrs = {key: attributes[key] for key in ("units", "long_name") if key in attributes}
    result = _with_coordinates(result, study, {cell: parts[0].attrs for cell, parts in cells.items()})
    result.attrs = _provenance([block.attrs for block in blocks], study, seed)
    last = {name for name, each in known.items() if observables.ORDER in each}
    for name, array in result.data_vars.items():
        result[name] = array.transpose(*_ordered(array.dims, last))
    return result


def side_by_side(cells: Sequence[xr.Dataset], of_network: Collection[str] = ()) -> xr.Dataset:
    """Combine the results of several `cells` of a study into one dataset.

    Each cell has a single dataset, network and subspace. `of_network` names the axes whose length depends on the
    network. Such an axis gets the labels of all cells. At labels that a cell does not have, its values are missing.
    """
    # If cells had different labels of such an axis, combining would add the axis to every variable.
    for axis in of_network:
        labels = sorted({label for cell in cells if axis in cell.dims for label in cell[axis].values.tolist()})
        cells = [cell.reindex({axis: labels}) for cell in cells]
    return _combined(cells) if len(cells) > 1 else cells[0]


def _combined(parts: Sequence[xr.Dataset]) -> xr.Dataset:
    found = xr.combine_by_coords(parts, combine_attrs="drop")
    assert isinstance(found, xr.Dataset)  # An array results from arrays only.
    return found


def _read(path: Path) -> xr.Dataset:
    """Read a block, and average it over the planes of each draw.

    Variables that are marked to be left out of aggregates are not read. If there are several planes, each variable with
    the attribute `observables.OVER_PLANES` also yields its variance over planes, as the variable <name>_plane_variance.
    """
    with netcdf.opened(path) as file:
        block = file[[name for name, array in file.data_vars.items() if observables.AGGREGATED not in array.attrs]]
        block = block.load()
    if "plane" not in block.dims:
        return block
    means = block.mean("plane", keep_attrs=True)
    if block.sizes["plane"] > 1:
        for name, array in block.data_vars.items():
            if observables.OVER_PLANES in array.attrs:
                units, meaning = (array.attrs[key] for key in ("units", "long_name"))
                attributes = {"units": f"({units})²", "long_name": f"variance over the planes of one draw: {meaning}"}
                means[f"{name}_plane_variance"] = array.var("plane", ddof=1).assign_attrs(attributes)
    return means


def _refuse_missing(result: xr.Dataset, known: dict[str, dict]) -> None:
    """Raise ValueError if `result` lacks values that it must have.

    Values may be missing where the variable `overflow` is set, and in variables with the attribute
    `observables.MISSING`. `known` maps the name of each variable to the attributes that the variable has in blocks.
    """
    overflown = result.get("overflow", xr.DataArray(0)) > 0
    whole = [name for name in map(str, result.data_vars) if observables.MISSING not in known[name]]
    missing = [name for name in whole if bool((result[name].isnull() & ~overflown).any())]
    if missing:
        raise ValueError(
            f"the study would lack values of {', '.join(missing)}: a block is incomplete; delete the study's blocks "
            "and run again"
        )


def _with_coordinates(result: xr.Dataset, study: Study, signatures: dict[tuple[str, ...], dict]) -> xr.Dataset:
    """Return `result` with two more coordinates, `classes` and `x`.

    `classes` is the number of classes of each dataset. `x` is log10(r²/r_X²) for each radius r. It is added only if the
    study's radii are in units of r_X, or if they are plain norms and r_X is the same in all cells. `signatures` maps
    each cell (dataset, network, subspace) to the attributes of one of its blocks.
    """
    classes = {cell[0]: each["classes"] for cell, each in signatures.items()}
    values = [classes[name] for name in result["dataset"].values]
    result = result.assign_coords(classes=("dataset", values, {"units": "1", "long_name": "number of classes"}))
    # r_X in the study's unit of radii.
    units = {"r_X": {1.0}, "norm": {each["r_x"] for each in signatures.values()}}.get(study.radius_unit, set())
    if len(units) != 1:
        return result
    x = 2 * np.log10(result["radius"].values / units.pop())
    return result.assign_coords(x=("radius", x, {"units": "1", "long_name": "log10(r²/r_X²)"}))


def _ordered(dims: Sequence[Hashable], last: Collection[Hashable]) -> list[Hashable]:
    """Sort the names `dims` of a variable's dimensions.

    First come the names in CELL, then all names that the other groups do not contain, such as varied keys, then those
    in POINTS, and finally those in `last`.
    """
    between = [dim for dim in dims if dim not in (*CELL, *POINTS, *last)]
    groups = (CELL, between, POINTS, [dim for dim in dims if dim in last])
    return [dim for group in groups for dim in group if dim in dims]


def _provenance(attributes: Sequence[dict], study: Study, seed: int) -> dict:
    names = ["commit", "code_fingerprint", "network_fingerprint", "settings_hash", "data_checksum"]
    names += ["seeds", "device", "dtype"]
    names += [name for name in attributes[0] if name.endswith("_version") or name in ("python", "test_examples")]
    planes = getattr(study, "planes", None)
    return {
        **{name: ", ".join(sorted({str(each[name]) for each in attributes})) for name in names},
        "settings": json.dumps(records.of_measurement(study, seed), sort_keys=True),
        **({} if planes is None else {"planes": planes}),
        "wall_seconds": round(sum(each["wall_seconds"] for each in attributes), 1),
        "blocks": len(attributes),
    }
