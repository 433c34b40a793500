"""Check the paper's sources and compile them to PDF."""

from goldilocks_zone.jobs.log import job_log
from goldilocks_zone.paper.build import build_paper

with job_log(snakemake.log[0], snakemake.input):
    build_paper(
        paths_to_sources=list(snakemake.input.sources),
        path_to_generated=snakemake.input.generated,
        paths_to_figures=list(snakemake.input.figures),
        path_to_output=snakemake.output[0],
    )
