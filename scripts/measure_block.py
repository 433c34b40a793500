"""One block of a study of any kind: some draws and radii of one dataset, network and subspace."""

import shutil

from goldilocks_zone.config import kinds
from goldilocks_zone.jobs.log import job_log
from goldilocks_zone.measurements.setup import Job
from goldilocks_zone.storage import netcdf

if __name__ == "__main__":
    kind = kinds.known()[snakemake.params.kind]
    module = kind.load()  # The log counts imports separately.
    with job_log(snakemake.log[0], snakemake.input, kind.path):
        job = Job(
            path_to_dataset=snakemake.input.dataset,
            path_to_settings=snakemake.input.settings,
            path_to_code=snakemake.input.code,
            path_to_network=next(iter(snakemake.input.network), None),
            network_file=snakemake.resources.network_file,
            dataset=snakemake.wildcards.dataset,
            network=snakemake.wildcards.network,
            subspace=snakemake.wildcards.subspace,
            block=snakemake.wildcards.block,
            device=snakemake.resources.device,
            threads=snakemake.threads,
            memory_mib=snakemake.resources.memory_mib,
            checkpoint_seconds=float(snakemake.resources.checkpoint_seconds),
            path_to_checkpoints=snakemake.params.checkpoints,
        )
        netcdf.write_dataset(module.measure_block(job), snakemake.output[0])
        shutil.rmtree(job.path_to_checkpoints, ignore_errors=True)
