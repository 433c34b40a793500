"""Write the captions of the paper's figures for the report."""

from goldilocks_zone.jobs.log import job_log
from goldilocks_zone.paper.captions import write_captions

with job_log(snakemake.log[0], snakemake.input):
    write_captions(
        paths_to_texts=[*snakemake.input.sections, snakemake.input.generated],
        path_to_references=snakemake.input.references,
        path_to_template=snakemake.input.template,
        path_to_output=snakemake.output[0],
    )
