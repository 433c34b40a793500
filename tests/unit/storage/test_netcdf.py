"""NetCDF files: reading returns the same bits, or one sentence about the damage."""

import fcntl

import numpy as np
import pytest
import xarray as xr

from goldilocks_zone.storage import netcdf


def test_datasets_come_back_bit_for_bit(tmp_path):
    values = np.array([0.1, np.nan, 1e-300, -np.inf])
    netcdf.write_dataset(xr.Dataset({"v": ("i", values)}), tmp_path / "file.nc")
    assert np.array_equal(xr.load_dataset(tmp_path / "file.nc")["v"].values, values, equal_nan=True)


def test_a_flipped_bit_is_found(tmp_path):
    path = tmp_path / "file.nc"
    netcdf.write_dataset(xr.Dataset({"v": ("i", np.random.default_rng(1).random(5000))}), path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"file\.nc is damaged: delete it and run again"):
        netcdf.read_dataset(path)
    for content in (b"", b"no NetCDF file"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"file\.nc is damaged: delete it and run again"):
            netcdf.read_dataset(path)


def test_a_file_that_another_program_has_locked_is_read(tmp_path):
    """Applies to a result that is open in a notebook, or a drive without locks."""
    path = tmp_path / "file.nc"
    netcdf.write_dataset(xr.Dataset({"v": ("i", np.arange(5.0))}), path)
    with open(path, "rb+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert np.array_equal(netcdf.read_dataset(path)["v"], np.arange(5.0))
        path.write_bytes(path.read_bytes()[:1000])
        with pytest.raises(OSError, match=r"file\.nc cannot be read: another program has it open to write; close it"):
            netcdf.read_dataset(path)
