"""Copies of the run built last: paper/paper.pdf, results/claims.csv, and its name in results/run.txt."""

import shutil

from goldilocks import files
from goldilocks.logs import job_log


def publish_run(copies: dict[str, str]) -> None:
    for path_from, path_to in copies.items():
        with files.whole_file(path_to) as temporary:
            shutil.copyfile(path_from, temporary)


if __name__ == "__main__":
    with job_log(snakemake.log[0]):
        publish_run(
            {
                snakemake.input.paper: snakemake.output.paper,
                snakemake.input.claims: snakemake.output.claims,
                snakemake.input.run: snakemake.output.run,
            }
        )
