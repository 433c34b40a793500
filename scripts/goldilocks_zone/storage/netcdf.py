"""Reading and writing of NetCDF files."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import xarray as xr
import yaml

from goldilocks_zone.storage.files import refuse_unreadable, whole_file, write_text

# Attributes of a user's own dataset that describe the files from which it was read.
OF_OWN_FILES = ("identity", "place", "channels", "white", "stamp")
# Must be set before HDF5 is loaded. With locking, HDF5 would refuse files on drives without locks and files that are
# open in a notebook. Locks are not needed, because a file with its final name is complete.
os.environ["HDF5_USE_FILE_LOCKING"] = "FALSE"


def write_dataset(dataset: xr.Dataset, path: str | Path) -> None:
    """Write an xarray dataset to a NetCDF file, atomically, with lossless compression and checksums."""
    protected = {"zlib": True, "complevel": 1, "fletcher32": True}
    encoding = {name: protected for name, array in dataset.data_vars.items() if array.ndim}
    with whole_file(path) as temporary:
        dataset.to_netcdf(temporary, encoding=encoding, engine="netcdf4")


@contextmanager
def opened(path: str | Path) -> Iterator[xr.Dataset]:
    """Context that yields the dataset of a NetCDF file, whose arrays are read when they are used.

    Raises ValueError if the file is damaged and OSError if it cannot be read, on opening or within the with statement.
    """
    try:
        with xr.open_dataset(path, engine="netcdf4") as dataset:
            yield dataset
    except FileNotFoundError:
        raise
    except (OSError, RuntimeError) as error:
        refuse_unreadable(path)
        raise ValueError(f"{path} is damaged: delete it and run again") from error


def read_dataset(path: str | Path) -> xr.Dataset:
    """Read a whole NetCDF file. Raises ValueError if it is damaged, OSError if it cannot be read."""
    with opened(path) as dataset:
        return dataset.load()


def write_card(dataset: xr.Dataset, path: str | Path) -> None:
    """Write the card of a dataset of images: a YAML file of metadata, which the workflow reads instead of the dataset.

    It has the shape of an image, the numbers of examples, and some of the dataset's attributes, such as its licence.
    """
    training = int((dataset["split"] == 0).sum())
    card = {
        "image": list(dataset["images"].shape[1:]),
        "training_examples": training,
        "test_examples": dataset.sizes["example"] - training,
        **{name: dataset.attrs[name] for name in ("classes", "checksum", "source", "licence")},
        **{name: value for name, value in dataset.attrs.items() if name in OF_OWN_FILES},
    }
    # YAML has no numpy types, which numbers read from a file have.
    card = {name: value.item() if hasattr(value, "item") else value for name, value in card.items()}
    write_text(yaml.safe_dump(card, allow_unicode=True), path)
