"""One official dataset as a NetCDF file and its card, from the first source that has it with the right checksum."""

import time
from pathlib import Path

from goldilocks import catalogue, provenance, sources
from goldilocks.logs import job_log


def fetch_dataset(
    dataset: str, folder: str | None, path_to_code: str | Path, path_to_output: str | Path, path_to_card: str | Path
) -> None:
    """Write the dataset file. Raises goldilocks.sources.Unavailable if no source has it."""
    start, code = time.monotonic(), Path(path_to_code).read_text().strip()
    content = sources.fetch(dataset, catalogue.data_folder(folder))
    provenance.write_signed(content, code, time.monotonic() - start, path_to_output, path_to_card)


if __name__ == "__main__":
    with job_log(snakemake.log[0], snakemake.input):
        fetch_dataset(
            dataset=snakemake.wildcards.dataset,
            folder=snakemake.resources.folder,
            path_to_code=snakemake.input.code,
            path_to_output=snakemake.output.data,
            path_to_card=snakemake.output.card,
        )
