"""Cuts through the loss landscape at several radii of one initialisation (Fort & Scherlis 2019, figure 1)."""

import logging
import time
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from goldilocks_zone.config import records, studies
from goldilocks_zone.config.models import Cuts
from goldilocks_zone.curvature import loss_slices
from goldilocks_zone.data import datasets
from goldilocks_zone.jobs.log import job_log
from goldilocks_zone.measurements import setup
from goldilocks_zone.models import initialisation, networks, user_code
from goldilocks_zone.provenance import attributes
from goldilocks_zone.storage import netcdf, variables
from goldilocks_zone.subspaces import labels, planes

DRAW = 0  # the first initialisation that studies of this dataset and network have


def measure_cuts(
    path_to_dataset: str,
    path_to_settings: str,
    path_to_code: str,
    path_to_network: str | None,
    network_file: str,
    device: str,
    threads: int,
    path_to_output: str,
) -> None:
    """Write the losses on all cuts; `device` is auto, cpu or cuda.

    `path_to_network` leads to the record of the network if it is the user's own, and `network_file` to its code.
    """
    start = time.monotonic()
    # Read before measuring: code that changes meanwhile must not sign these numbers.
    code = Path(path_to_code).read_text().strip()
    cuts, seed = records.read_cuts(path_to_settings)
    own = user_code.recorded(path_to_network, network_file)
    device = setup.start_torch(device, threads)

    examples = datasets.load(
        path_to_dataset,
        cuts.dataset,
        count=cuts.examples,
        labels="original",
        inputs=cuts.inputs,
        validation=cuts.validation,
        seed=seed,
    )
    module = networks.build_named(cuts.network, own, examples.inputs.shape[1:], examples.classes).to(device)
    theta, directions = _draw(cuts, seed, initialisation.parameters_of(module))
    r_x = initialisation.glorot_radius(initialisation.parameters_of(module))
    inputs, targets = torch.as_tensor(examples.inputs, device=device), torch.as_tensor(examples.labels, device=device)
    result = _empty(cuts, len(directions))
    lines = loss_slices.line_coefficients(result["displacement"].values, len(directions))
    plane = loss_slices.plane_coefficients(result["first"].values, len(directions))
    directions, logits = torch.as_tensor(directions, device=device), networks.logits_function(module)
    for radius in result["radius"].values:
        point = torch.as_tensor(initialisation.rescaled(theta, radius, "r_X", r_x), device=device)
        # Displacements are in units of the point's own radius.
        for name, coefficients in {"line_loss": lines, "plane_loss": plane, "loss": np.zeros_like(lines[0, 0])}.items():
            found = loss_slices.mean_losses(logits, point, radius * r_x * directions, coefficients, inputs, targets)
            result[name].loc[{"radius": radius}] = found
        logging.info("radius %g measured after %.1f s", radius, time.monotonic() - start)
    result.attrs = attributes.attributes(
        code,
        records.of_measurement(cuts, seed),
        time.monotonic() - start,
        data_checksum=examples.checksum,
        classes=examples.classes,
        network_fingerprint=own.fingerprint if own else "",
        seeds=f"streams named {seed}, purpose, {cuts.dataset}, {cuts.network}, kind, {DRAW}",
        device=str(device),
        dtype="float64",
        threads=threads,
    )
    netcdf.write_dataset(result, path_to_output)


def _draw(cuts: Cuts, seed: int, parameters: list[initialisation.Parameter]) -> tuple[np.ndarray, np.ndarray]:
    """The initialisation θ (D,) that studies have too, and orthonormal directions (d, D) of the cuts' own."""
    plane = labels.parse_plane(cuts.subspace)
    available = sum(p.size for p in parameters if not p.is_bias)
    if plane.dimension > available:
        raise ValueError(
            f"cuts.subspace: {plane.dimension} dimensions cannot be; {cuts.network} has {available} weights on "
            f"{cuts.dataset}: ask for fewer"
        )
    eta = setup.metric(cuts, parameters)
    streams = setup.Streams(seed, cuts.dataset, cuts.network)
    raw = planes.directions(plane, eta, streams.stream("cut", plane.kind, DRAW))
    return streams.initialisation(parameters, cuts.initialisation, DRAW), loss_slices.orthonormal(raw)


def _empty(cuts: Cuts, directions: int) -> xr.Dataset:
    line, grid = (loss_slices.displacements(cuts.extent, steps) for steps in (cuts.steps, cuts.plane_steps))
    coordinates = {
        "radius": studies.radii(cuts),
        "direction": range(directions),
        "displacement": line,
        "second": grid,
        "first": grid,
    }
    axes = {
        "loss": ("radius",),
        "line_loss": ("radius", "direction", "displacement"),
        "plane_loss": ("radius", "second", "first"),
    }
    sizes = {name: len(values) for name, values in coordinates.items()}
    result = xr.Dataset(
        {name: (dims, np.full([sizes[dim] for dim in dims], np.nan)) for name, dims in axes.items()},
        {name: list(values) for name, values in coordinates.items()},
    )
    for name in result.variables:
        result[name].attrs = variables.meaning(name)
    result["radius"].attrs = {**result["radius"].attrs, "units": "r_X"}
    return result


if __name__ == "__main__":
    with job_log(snakemake.log[0], snakemake.input):
        measure_cuts(
            path_to_dataset=snakemake.input.dataset,
            path_to_settings=snakemake.input.settings,
            path_to_code=snakemake.input.code,
            path_to_network=next(iter(snakemake.input.network), None),
            network_file=snakemake.resources.network_file,
            device=snakemake.resources.device,
            threads=snakemake.threads,
            path_to_output=snakemake.output[0],
        )
