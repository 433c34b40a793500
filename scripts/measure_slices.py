"""Slices of the loss landscape through one initialisation at several radii."""

from goldilocks_zone.jobs.log import job_log
from goldilocks_zone.measurements import loss_slices
from goldilocks_zone.measurements.setup import Job
from goldilocks_zone.storage import netcdf

if __name__ == "__main__":
    with job_log(snakemake.log[0], snakemake.input):
        job = Job(
            path_to_dataset=snakemake.input.dataset,
            path_to_settings=snakemake.input.settings,
            path_to_code=snakemake.input.code,
            path_to_network=next(iter(snakemake.input.network), None),
            network_file=snakemake.resources.network_file,
            device=snakemake.resources.device,
            threads=snakemake.threads,
        )
        netcdf.write_dataset(loss_slices.measure(job), snakemake.output[0])
