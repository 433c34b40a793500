"""Write claims.csv: a verdict on every claim, from the studies of a run."""

import csv
import io
from pathlib import Path

from goldilocks_zone.claims import definitions, evaluate
from goldilocks_zone.config import records
from goldilocks_zone.jobs.log import job_log
from goldilocks_zone.storage import files, netcdf


def judge_claims(
    path_to_claims: str, path_to_settings: str, paths_to_studies: dict[str, str], run: str, path_to_output: str
) -> None:
    ledger = definitions.load(path_to_claims)
    studies = {name: netcdf.read_dataset(path) for name, path in paths_to_studies.items()}
    known = records.read(records.ClaimsRecord, path_to_settings)
    rows = evaluate.evaluate(ledger, studies, run, known.substitutes, known.left_out)
    text = io.StringIO()
    writer = csv.DictWriter(text, evaluate.COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()})
    files.write_text(text.getvalue(), path_to_output)


if __name__ == "__main__":
    with job_log(snakemake.log[0], snakemake.input):
        judge_claims(
            path_to_claims=snakemake.params.claims,
            path_to_settings=snakemake.input.settings,
            paths_to_studies={Path(path).stem: path for path in snakemake.input.studies},
            run=snakemake.wildcards.run,
            path_to_output=snakemake.output[0],
        )
