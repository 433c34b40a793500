"""One labelled file per study from its blocks: planes averaged within an initialisation, their variance apart."""

import json
from pathlib import Path

import numpy as np
import xarray as xr
import yaml

from goldilocks_zone.config import records, studies
from goldilocks_zone.config.models import Study
from goldilocks_zone.jobs.log import job_log
from goldilocks_zone.provenance import attributes as provenance_attributes
from goldilocks_zone.storage import netcdf, variables

CELL = ("dataset", "network", "subspace")
# What a study varies stands between.
ORDER = (*CELL, ..., "examples", "radius", "dimension", "draw")
LAST = ("step", "tensor", "moment", "examples_of", "gradient_of", "pair", "layers", "end", "rung", "rank")
AVERAGED = (
    *("fraction_positive", "trace_over_norm", "trace", "frobenius_norm", "spectral_norm"),
    *("gauss_newton_trace", "gauss_newton_norm", "gauss_newton_spectral_norm", "residual_norm"),
    *("residual_spectral_norm", "effective_examples"),
)
# Networks of a study may differ in their number of layers; what counterfactuals are about is not rescaled otherwise.
OF_LAYERS = ("layer", "tensor")
INCOMPLETE = ("layer_trace", "layer_residual", "frozen_softmax", "frozen_residual", "frozen_scale")
# Of a run of training that diverged all else is missing.
WHOLE = {studies.TRAINING: ["diverged"]}


def aggregate_study(
    paths_to_blocks: list[str],
    path_to_settings: str,
    path_to_grid: str,
    path_to_block_code: str,
    paths_to_networks: list[str],
    path_to_output: str,
) -> None:
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
        cells.setdefault(cell, []).append(path)
    blocks = {cell: [_read(path) for path in paths] for cell, paths in cells.items()}
    for dataset in study.datasets:
        of_dataset = [block for cell, parts in blocks.items() for block in parts if cell[0] == dataset]
        if len({block.attrs["data_checksum"] for block in of_dataset}) > 1:
            raise ValueError(f"blocks of {dataset} were measured on different data: delete them and run again")
    parts = [
        xr.combine_by_coords(datasets, combine_attrs="drop").expand_dims(
            {axis: [label] for axis, label in zip(CELL, cell)}
        )
        for cell, datasets in blocks.items()
    ]
    result = side_by_side(parts)
    result = result.sel({axis: getattr(study, f"{axis}s") for axis in CELL} | {"radius": studies.radii(study)})
    whole = WHOLE.get(study.kind, [name for name in result if name not in INCOMPLETE])
    overflown = result.get("overflow", xr.DataArray(0)) > 0
    missing = [name for name in whole if bool((result[name].isnull() & ~overflown).any())]
    if missing:
        raise ValueError(f"{path_to_output} would lack values of {', '.join(missing)}: a block is incomplete")
    classes = {cell[0]: datasets[0].attrs["classes"] for cell, datasets in blocks.items()}
    result = result.assign_coords(classes=("dataset", [classes[name] for name in study.datasets]))
    units = {parts[0].attrs["r_x"] for parts in blocks.values()}
    if study.radius_unit == "r_X":
        result = result.assign_coords(x=("radius", 2 * np.log10(result["radius"].values)))
    elif study.radius_unit == "norm" and len(units) == 1:
        result = result.assign_coords(x=("radius", 2 * np.log10(result["radius"].values / units.pop())))
    for name in (*result.data_vars, *result.coords):
        result[name].attrs = variables.meaning(name)
    result.attrs = _provenance([block.attrs for datasets in blocks.values() for block in datasets], study, settings)
    order = [name for name in ORDER if name in result.dims or name is ...]
    last = [name for name in LAST if name in result.dims]
    netcdf.write_dataset(result.transpose(*order, *last), path_to_output)


def side_by_side(cells: list[xr.Dataset]) -> xr.Dataset:
    """Cells of a study in one dataset.

    Networks of fewer layers than others have missing values beyond their last: axes that differ would be combined
    too, and every variable would get the axis of the layers.
    """
    for axis in OF_LAYERS:
        layers = sorted({layer for cell in cells if axis in cell.dims for layer in cell[axis].values.tolist()})
        if layers:
            cells = [cell.reindex({axis: layers}) for cell in cells]
    return xr.combine_by_coords(cells, combine_attrs="drop") if len(cells) > 1 else cells[0]


def _read(path: Path) -> xr.Dataset:
    """One block without its spectra, averaged over planes where it has several for each draw."""
    with netcdf.opened(path) as file:
        block = file.drop_vars(["eigenvalue", "index"], errors="ignore").load()
    if "plane" not in block.dims:
        return block
    means = block.mean("plane")
    if block.sizes["plane"] > 1:
        for name in AVERAGED:
            means[f"{name}_plane_variance"] = block[name].var("plane", ddof=1)
    means.attrs = block.attrs
    return means


def _provenance(attributes: list[dict], study: Study, settings: dict) -> dict:
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
        **({"planes": study.planes} if hasattr(study, "planes") else {"test_examples": all_of("test_examples")}),
        "wall_seconds": round(sum(each["wall_seconds"] for each in attributes), 1),
        "blocks": len(attributes),
    }


if __name__ == "__main__":
    with job_log(snakemake.log[0], snakemake.input):
        aggregate_study(
            paths_to_blocks=list(snakemake.input.blocks),
            path_to_settings=snakemake.input.settings,
            path_to_grid=snakemake.input.grid,
            path_to_block_code=snakemake.input.block_code,
            paths_to_networks=list(snakemake.input.networks),
            path_to_output=snakemake.output[0],
        )
