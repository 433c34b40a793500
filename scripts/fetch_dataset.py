"""One dataset as a NetCDF file, from the first source that has it with the right checksum."""

from pathlib import Path

from goldilocks import sources, store
from goldilocks.logs import job_log


def fetch_dataset(dataset: str, folder: str | None, path_to_output: str | Path) -> None:
    store.write_dataset(sources.fetch(dataset, sources.data_folder(folder)), path_to_output)


if __name__ == "__main__":
    with job_log(snakemake.log[0]):
        fetch_dataset(
            dataset=snakemake.wildcards.dataset,
            folder=snakemake.params.folder,
            path_to_output=snakemake.output[0],
        )
