"""Measure one block of a study of any kind, or the cuts through the loss.

A block comprises some of a study's draws and radii, for one dataset, network and subspace.
"""

import importlib
import json
import shutil

from goldilocks_zone.jobs.log import job_log
from goldilocks_zone.measurements.blocks import Job
from goldilocks_zone.storage import netcdf

path = snakemake.params.module
module = importlib.import_module(f"goldilocks_zone.{path}")  # Before the log starts: it counts imports separately.
# Empty for cuts, whose settings name their dataset, network and subspace.
cell = {name: snakemake.wildcards.get(name, "") for name in ("dataset", "network", "subspace", "block")}
with job_log(snakemake.log[0], snakemake.input, path):
    job = Job(
        path_to_dataset=next(iter(snakemake.input.dataset), ""),
        path_to_settings=snakemake.input.settings,
        path_to_code=snakemake.input.code,
        path_to_network=next(iter(snakemake.input.network), None),
        network_file=snakemake.resources.network_file,
        weights_files=json.loads(snakemake.resources.weights_files),
        **cell,
        device=snakemake.resources.device,
        threads=snakemake.threads,
        memory_mib=snakemake.resources.memory_mib,
        checkpoint_seconds=float(snakemake.resources.checkpoint_seconds),
        path_to_checkpoints=snakemake.params.checkpoints,
    )
    netcdf.write_dataset(module.measure_block(job), snakemake.output[0])
    shutil.rmtree(job.path_to_checkpoints, ignore_errors=True)
