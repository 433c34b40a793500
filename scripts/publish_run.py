"""Copies of the run built last: paper/paper.pdf, results/claims.csv, and its name in results/run.txt."""

import shutil
from pathlib import Path

from goldilocks_zone.jobs.log import job_log
from goldilocks_zone.storage import files


def publish_run(run: str, copies: dict[str, str], path_to_name: str, path_to_mark: str) -> None:
    """Copy files to where everybody looks. One run at a time has a mark that these are its own: others lose theirs."""
    mark = Path(path_to_mark)
    for other in mark.parents[1].glob(f"*/{mark.name}"):
        other.unlink()
    for path_from, path_to in copies.items():
        with files.whole_file(path_to) as temporary:
            shutil.copyfile(path_from, temporary)
    files.write_text(f"{run}\n", path_to_name)
    files.write_text("", mark)


if __name__ == "__main__":
    with job_log(snakemake.log[0], snakemake.input):
        publish_run(
            run=snakemake.params.run,
            copies={
                snakemake.input.paper: snakemake.output.paper,
                snakemake.input.claims: snakemake.output.claims,
            },
            path_to_name=snakemake.output.run,
            path_to_mark=snakemake.output.mark,
        )
