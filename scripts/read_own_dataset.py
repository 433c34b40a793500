"""Check a user's own dataset, and write it as a NetCDF file with a card, a YAML file of its metadata."""

import logging
import time
from pathlib import Path

import yaml

from goldilocks_zone.data import catalogue, datasets, user_datasets, verified
from goldilocks_zone.jobs.log import job_log
from goldilocks_zone.provenance import attributes


def read_own_dataset(
    dataset: str, record: dict, path_to_code: str | Path, path_to_output: str | Path, path_to_card: str | Path
) -> None:
    """Read a user's files and write them as a dataset file with its card, or restore both from the verified copy.

    The copy in results/data/verified is restored if the same code read it from the same files or, if the files no
    longer exist, if any code did. `record` comes from `catalogue.own_records`, and the file `path_to_code` has the
    fingerprint of the code. Raises FileNotFoundError if there are neither files nor such a copy,
    data.image_folders.Refused for invalid data, and ValueError if files have changed since the workflow started.
    """
    start, code = time.monotonic(), Path(path_to_code).read_text().strip()
    path, card = Path(path_to_output), Path(path_to_card)
    kept = verified.attributes(path)
    if kept and catalogue.identity_read(kept) == record["identity"]:
        if record["path"] is None:
            logging.warning("there is nothing at %s: the copy that was read from it before is used", record["expected"])
        if record["path"] is None or kept.get("code_fingerprint") == code:
            logging.info("taken from results/data/verified, where it was kept")
            return verified.restore(path, card)
    if record["path"] is None:
        advice = f"put it there, or name its place under datasets.{dataset}.path"
        raise FileNotFoundError(f"dataset {dataset} is unavailable: there is nothing at {record['expected']}; {advice}")
    reading = catalogue.reading_of(record)
    content = user_datasets.read(dataset, Path(record["path"]), record["licence"], record["limit_mib"], **reading)
    content = datasets.in_balanced_order(content)
    # A file that was replaced meanwhile must not get the identity of the earlier file.
    if catalogue.identity_now(record) != record["identity"]:
        raise ValueError(f"{record['path']} has changed since the workflow started: run again")
    content.attrs |= {"identity": record["identity"], "place": record["place"], **reading}
    attributes.write_signed(content, code, time.monotonic() - start, path, card)
    catalogue.keep(path, card)


if __name__ == "__main__":
    with job_log(snakemake.log[0], snakemake.input):
        read_own_dataset(
            dataset=snakemake.wildcards.dataset,
            record={
                **yaml.safe_load(Path(snakemake.input.files).read_text(encoding="utf-8")),
                **{key: getattr(snakemake.resources, key) for key in ("expected", "place", "licence", "limit_mib")},
                "path": snakemake.resources.path or None,
            },
            path_to_code=snakemake.input.code,
            path_to_output=snakemake.output.data,
            path_to_card=snakemake.output.card,
        )
