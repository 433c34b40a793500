"""Draw one figure of a run with the module that registers it."""

from goldilocks_zone.figures.drawing import draw_figure
from goldilocks_zone.jobs.log import job_log

with job_log(snakemake.log[0], snakemake.input, snakemake.params.module):
    draw_figure(
        name=snakemake.wildcards.figure,
        paths_to_studies=list(snakemake.input.studies),
        path_to_settings=snakemake.input.settings,
        path_to_published=next(iter(snakemake.input.published), None),
        path_to_pdf=snakemake.output.pdf,
        path_to_png=snakemake.output.png,
        path_to_data=snakemake.output.data,
    )
