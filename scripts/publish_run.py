"""Copy the paper and tables of the latest run to fixed paths, and write the run's name into results/run.txt."""

import shutil
from pathlib import Path

from goldilocks_zone.jobs.log import job_log
from goldilocks_zone.storage import files


def publish_run(run: str, copies: dict[str, str], path_to_name: str, path_to_mark: str) -> None:
    """Copy files of a run to fixed paths, write its name to `path_to_name`, and mark it as the only published run.

    `copies` maps the path of each file to the path of its copy. The mark is an empty file `path_to_mark` among the
    run's results; the marks of other runs are deleted.
    """
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
            copies={snakemake.input[name]: snakemake.output[name] for name in ("paper", "claims", "agreement")},
            path_to_name=snakemake.output.run,
            path_to_mark=snakemake.output.mark,
        )
