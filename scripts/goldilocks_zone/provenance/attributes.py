"""Provenance attributes that every NetCDF file carries."""

import json
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import xarray as xr

from goldilocks_zone.storage import files, netcdf

ROOT = Path(__file__).parents[3]


def commit() -> str:
    """Abbreviated hash of the checkout's commit, with `-dirty` appended if tracked files differ from the commit.

    `unknown` if the checkout is not itself a git repository.
    """
    return _git("describe", "--always", "--dirty", "--abbrev=12", "--exclude=*") or "unknown"


def commit_day() -> str:
    """Date of the checkout's commit, such as 2026-01-31; empty if the checkout is not itself a git repository."""
    return _git("show", "--no-patch", "--format=%cs", "HEAD")


def _git(*arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in ("GIT_DIR", "GIT_WORK_TREE")}
    environment["GIT_CEILING_DIRECTORIES"] = str(ROOT.parent)
    command = ["git", "-C", str(ROOT), *arguments]
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=10, env=environment)
        return done.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def settings_hash(settings: dict) -> str:
    """SHA-256 of the settings of a job, independent of the order of their keys."""
    return files.sha256(json.dumps(settings, sort_keys=True))


def attributes(code: str, settings: dict, seconds: float, **more: str | int) -> dict[str, str | int | float]:
    """Provenance attributes of a result: commit, code fingerprint, settings and their hash, versions, time, and `more`.

    `code` is the fingerprint of the code, and `seconds` is the wall time of making the result.
    """
    return {
        "commit": commit(),
        "code_fingerprint": code,
        "settings": json.dumps(settings, sort_keys=True),
        "settings_hash": settings_hash(settings),
        "python": platform.python_version(),
        **{f"{name}_version": version(name) for name in ("torch", "numpy", "scipy")},
        "wall_seconds": round(seconds, 2),
        **more,
    }


def write_signed(content: xr.Dataset, code: str, seconds: float, path: str | Path, path_to_card: str | Path) -> None:
    """Write a dataset as a NetCDF file with provenance attributes, and its card, a YAML file of metadata.

    `content` is the dataset, to which the attributes are added. `code` is the fingerprint of the code that made it, and
    `seconds` is the time that this took. The file is written to `path` and the card to `path_to_card`.
    """
    content.attrs |= attributes(code, {"dataset": content.attrs["dataset"]}, seconds)
    netcdf.write_dataset(content, path)
    netcdf.write_card(content, path_to_card)


def refuse_stale(path: str | Path, code: str, settings: dict, network_fingerprint: str = "") -> None:
    """Raise ValueError if the block at `path`, a file of results, was made with another code, settings or network.

    `code` is the fingerprint of the code, and `settings` are the settings that the block must have been made with.
    `network_fingerprint` is the fingerprint of the user's own network, or empty for other networks.
    """
    expected = {
        "code_fingerprint": (code, "other code"),
        "settings_hash": (settings_hash(settings), "other settings"),
        "network_fingerprint": (network_fingerprint, "another version of its network"),
    }
    with netcdf.opened(path) as block:
        for name, (value, what) in expected.items():
            if block.attrs.get(name, "") != value:
                raise ValueError(f"{path} was made by {what} than the present: delete it and run again")
