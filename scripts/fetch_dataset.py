"""Fetch or generate an official dataset, and write it as a NetCDF file with a card, a YAML file of its metadata."""

import logging
import time
from pathlib import Path

from goldilocks_zone.data import catalogue, official, official_shapes, verified
from goldilocks_zone.jobs.log import job_log
from goldilocks_zone.provenance import attributes


def fetch_dataset(
    dataset: str, folder: str | None, path_to_code: str | Path, path_to_output: str | Path, path_to_card: str | Path
) -> None:
    """Write a dataset file and its card, or restore them from the verified copy in results/data/verified.

    The copy is restored if it has the checksum in `official_shapes.CHECKSUMS`. For datasets without such a checksum, it
    is restored if the same code wrote it, or if no source provides the dataset. `folder` is the configured folder of
    the user's data, and the file `path_to_code` has the fingerprint of the code. Raises data.official.Unavailable if no
    source provides the dataset and no copy is restored.
    """
    start, code = time.monotonic(), Path(path_to_code).read_text().strip()
    path, card = Path(path_to_output), Path(path_to_card)
    kept, expected = verified.attributes(path), official_shapes.CHECKSUMS.get(dataset)
    if kept and (kept["checksum"] == expected if expected else kept.get("code_fingerprint") == code):
        logging.info("taken from results/data/verified, where it was kept")
        return verified.restore(path, card)
    try:
        content = official.fetch(dataset, catalogue.data_folder(folder))
    except official.Unavailable as reason:
        if not kept or expected:
            raise
        logging.warning("%s; the copy that an earlier version verified is taken from results/data/verified", reason)
        return verified.restore(path, card)
    attributes.write_signed(content, code, time.monotonic() - start, path, card)
    catalogue.keep(path, card)


if __name__ == "__main__":
    with job_log(snakemake.log[0], snakemake.input):
        fetch_dataset(
            dataset=snakemake.wildcards.dataset,
            folder=snakemake.resources.folder,
            path_to_code=snakemake.input.code,
            path_to_output=snakemake.output.data,
            path_to_card=snakemake.output.card,
        )
