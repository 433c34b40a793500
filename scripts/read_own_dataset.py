"""A user's own dataset as a NetCDF file and its card, checked before anything is written."""

import time
from pathlib import Path

import yaml

from goldilocks import own_data, provenance
from goldilocks.logs import job_log


def read_own_dataset(
    dataset: str,
    path_to_settings: str | Path,
    path_to_stamp: str | Path,
    path_to_code: str | Path,
    path_to_output: str | Path,
    path_to_card: str | Path,
) -> None:
    """Write the dataset file. Raises FileNotFoundError if there is nothing to read, and goldilocks.own_data.Refused."""
    start, code, stamp = time.monotonic(), Path(path_to_code).read_text().strip(), Path(path_to_stamp).read_text()
    settings = yaml.safe_load(Path(path_to_settings).read_text(encoding="utf-8"))
    if settings["path"] is None:
        raise FileNotFoundError(
            f"dataset {dataset} cannot be had: there is nothing at {settings['expected']}; put it there, or name its "
            f"place under datasets.{dataset}.path"
        )
    content = own_data.read(dataset, Path(settings["path"]), settings["licence"], settings["limit_mib"])
    # Read before the files: a card may be older than they are, never newer.
    content.attrs["stamp"] = stamp
    provenance.write_signed(content, code, time.monotonic() - start, path_to_output, path_to_card)


if __name__ == "__main__":
    with job_log(snakemake.log[0], snakemake.input):
        read_own_dataset(
            dataset=snakemake.wildcards.dataset,
            path_to_settings=snakemake.params.settings,
            path_to_stamp=snakemake.input.files,
            path_to_code=snakemake.input.code,
            path_to_output=snakemake.output.data,
            path_to_card=snakemake.output.card,
        )
