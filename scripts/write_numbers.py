"""Write the LaTeX macros, tables and figure references that the paper reads."""

from goldilocks_zone.jobs.log import job_log
from goldilocks_zone.paper.numbers import write_numbers

with job_log(snakemake.log[0], snakemake.input):
    write_numbers(
        path_to_claims=snakemake.input.claims,
        path_to_agreement=snakemake.input.agreement,
        paths_to_studies=list(snakemake.input.studies),
        path_to_cuts=next(iter(snakemake.input.cuts), None),
        paths_to_cards=list(snakemake.input.cards),
        path_to_settings=snakemake.input.settings,
        paths_to_published=list(snakemake.input.published),
        path_to_disagreements=snakemake.input.disagreements,
        path_to_findings=snakemake.input.findings,
        paths_to_sections=list(snakemake.input.sections),
        paths_to_works=list(snakemake.input.works),
        paths_to_templates=list(snakemake.input.templates),
        path_to_output=snakemake.output.generated,
        path_to_shown_settings=snakemake.output.settings,
    )
