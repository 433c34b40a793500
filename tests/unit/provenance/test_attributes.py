"""Attributes of results: their provenance, and refusal of results of other code or settings."""

import subprocess

import pytest
import xarray as xr

from goldilocks_zone.provenance import attributes as provenance_attributes
from goldilocks_zone.storage import netcdf


def test_stale_blocks_are_refused_by_name(tmp_path):
    for name, attributes in [
        ("good", provenance_attributes.attributes("code", {"a": 1, "b": 2}, 1.0)),
        ("code", provenance_attributes.attributes("other", {"a": 1, "b": 2}, 1.0)),
        ("settings", provenance_attributes.attributes("code", {"a": 1, "b": 3}, 1.0)),
    ]:
        netcdf.write_dataset(xr.Dataset(attrs=attributes), tmp_path / f"{name}.nc")
    provenance_attributes.refuse_stale(tmp_path / "good.nc", "code", {"b": 2, "a": 1})
    for name in ("code", "settings"):
        with pytest.raises(ValueError, match=rf"{name}\.nc was made by other {name}"):
            provenance_attributes.refuse_stale(tmp_path / f"{name}.nc", "code", {"a": 1, "b": 2})
    with pytest.raises(ValueError, match=r"good\.nc was made by another version of its network"):
        provenance_attributes.refuse_stale(tmp_path / "good.nc", "code", {"a": 1, "b": 2}, "of a network")


def test_provenance_names_commit_versions_and_settings():
    found = provenance_attributes.attributes("code", {"a": 1}, 1.234, device="cpu")
    assert {"commit", "settings_hash", "torch_version", "numpy_version", "scipy_version", "device"} <= set(found)
    assert found["wall_seconds"] == 1.23


def repository(folder):
    """Make a folder a git repository with one commit, and return the commit's hash, shortened to 12 digits or more."""
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-qm", "first", "--allow-empty"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    shown = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=folder, capture_output=True, text=True)
    return shown.stdout.strip()


def test_the_commit_is_that_of_the_checkout_and_of_no_repository_around_it(tmp_path, monkeypatch):
    checkout = tmp_path / "outer/checkout"
    checkout.mkdir(parents=True)
    (checkout / "file").touch()
    repository(tmp_path / "outer")
    monkeypatch.setattr(provenance_attributes, "ROOT", checkout)
    assert provenance_attributes.commit() == "unknown"
    # As git sets it in a hook.
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "outer/.git"))
    assert provenance_attributes.commit() == "unknown"
    monkeypatch.delenv("GIT_DIR")
    assert repository(checkout) == provenance_attributes.commit()
    (checkout / "file").write_text("changed")
    assert provenance_attributes.commit().endswith("-dirty")
