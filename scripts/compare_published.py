"""Write agreement.csv: the distances between a run's means and published values."""

import csv
import io
from pathlib import Path

from goldilocks_zone.claims import agreement
from goldilocks_zone.jobs.log import job_log
from goldilocks_zone.storage import files, netcdf


def compare_published(paths_to_comparisons: list[str], paths_to_studies: dict[str, str], path_to_output: str) -> None:
    studies = {name: netcdf.read_dataset(path) for name, path in paths_to_studies.items()}
    text = io.StringIO()
    writer = csv.DictWriter(text, agreement.COLUMNS, lineterminator="\n")
    writer.writeheader()
    for path in paths_to_comparisons:
        for row in agreement.evaluate(path, studies):
            writer.writerow({key: f"{value:.4g}" if isinstance(value, float) else value for key, value in row.items()})
    files.write_text(text.getvalue(), path_to_output)


if __name__ == "__main__":
    with job_log(snakemake.log[0], snakemake.input):
        compare_published(
            paths_to_comparisons=list(snakemake.input.comparisons),
            paths_to_studies={Path(path).stem: path for path in snakemake.input.studies},
            path_to_output=snakemake.output[0],
        )
