"""Datasets that were verified and are kept a second time, for Snakemake deletes what a job makes before it starts.

They lie in results/data/verified, as second names of the same files, and serve where reading would give the same.
"""

import os
from pathlib import Path

from goldilocks_zone.data import catalogue, datasets
from goldilocks_zone.storage import files, netcdf


def attributes(path: Path) -> dict:
    """Attributes of the dataset that is kept for `path`; none if there is none, or not with the checksum it names."""
    try:
        with netcdf.opened(_kept(path)) as content:
            found = datasets.checksum(*(content[name].values for name in ("images", "labels", "split")))
            return content.attrs if found == content.attrs["checksum"] else {}
    except (FileNotFoundError, ValueError, KeyError):
        return {}


def restore(path: Path, path_to_card: Path) -> None:
    """Give the dataset that is kept for `path` its name back, and write its card."""
    files.link(_kept(path), path)
    # As new as if it had been read: its age is held against that of its code.
    os.utime(path)
    with netcdf.opened(path) as content:
        netcdf.write_card(content, path_to_card)


def _kept(path: Path) -> Path:
    return path.parent / catalogue.VERIFIED / path.name
