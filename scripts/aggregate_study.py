"""Combine the blocks of a study, each the result of one job, into one NetCDF file with labelled axes."""

from goldilocks_zone.jobs.log import job_log
from goldilocks_zone.measurements.aggregate import aggregate_study
from goldilocks_zone.storage import netcdf

with job_log(snakemake.log[0], snakemake.input):
    study = aggregate_study(
        paths_to_blocks=list(snakemake.input.blocks),
        path_to_settings=snakemake.input.settings,
        path_to_grid=snakemake.input.grid,
        path_to_block_code=snakemake.input.block_code,
        paths_to_networks=list(snakemake.input.networks),
    )
    netcdf.write_dataset(study, snakemake.output[0])
