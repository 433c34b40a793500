"""Copies of verified dataset files in results/data/verified, which are hard links if possible.

A dataset file is restored from its copy if reading or fetching the dataset again would give the same file, or if the
source of the dataset is gone.
"""

import os
from pathlib import Path

from goldilocks_zone.data import catalogue, datasets
from goldilocks_zone.storage import files, netcdf


def attributes(path: Path) -> dict:
    """NetCDF attributes of the copy of the dataset file at `path`; empty if it is missing or has a wrong checksum."""
    try:
        with netcdf.opened(_kept(path)) as content:
            found = datasets.checksum(*(content[name].values for name in ("images", "labels", "split")))
            return content.attrs if found == content.attrs["checksum"] else {}
    except (FileNotFoundError, ValueError, KeyError):
        return {}


def restore(path: Path, path_to_card: Path) -> None:
    """Restore the dataset file at `path` from its copy, and write its card to `path_to_card`."""
    files.link(_kept(path), path)
    # Snakemake compares the modification times of the file and of the code's record.
    os.utime(path)
    with netcdf.opened(path) as content:
        netcdf.write_card(content, path_to_card)


def _kept(path: Path) -> Path:
    return path.parent / catalogue.VERIFIED / path.name
