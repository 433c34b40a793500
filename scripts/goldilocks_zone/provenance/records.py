"""Records of the settings and code fingerprints of a run: files whose names contain a hash of their content.

A changed setting gives a file with another name. A dry run therefore knows what a change affects without writing
anything, and a job reads the settings with which its run was started, even if they have been edited since. The place of
a record is its path without the hash: settings/loss.0123456789abcdef.yaml is a record at the place settings/loss.yaml.
Imports nothing heavy.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from goldilocks_zone.storage import files

HASH = "[0-9a-f]{16}"
_RECORD = re.compile(rf"(?P<name>.+)\.(?P<hash>{HASH})\.\w+")


def path_of(place: str | Path, text: str) -> Path:
    """Path of the record with the content `text` at a `place`."""
    place = Path(place)
    return place.with_name(f"{place.stem}.{files.sha256(text)[:16]}{place.suffix}")


def place_of(path: str | Path) -> Path:
    """Place of the record at `path`: the path without the hash."""
    return Path(path).with_name(name_of(path) + Path(path).suffix)


def name_of(path: str | Path) -> str:
    """Name of a record: `loss` for the path settings/loss.0123456789abcdef.yaml."""
    match = _RECORD.fullmatch(Path(path).name)
    assert match is not None, f"{path} is no record"
    return match["name"]


def versions(place: str | Path) -> list[Path]:
    """Paths of all records at a place, whatever their content."""
    place = Path(place)
    found = ((path, _RECORD.fullmatch(path.name)) for path in place.parent.glob(f"{place.stem}.*{place.suffix}"))
    return sorted(path for path, match in found if match and match["name"] == place.stem)


def write(place: str | Path, text: str) -> Path:
    """Write the record of `text` at `place`, unless it exists, delete all other records there, and return its path."""
    path = path_of(place, text)
    if not path.exists():
        files.write_text(text, path)
    for other in {*versions(place)} - {path}:
        other.unlink(missing_ok=True)
    return path


def refuse_changed(paths: Iterable[str | Path]) -> None:
    """Raise ValueError if a record among `paths` is missing, or its content does not match the hash in its name.

    Paths of files that are no records are ignored.
    """
    for path in map(Path, paths):
        match = _RECORD.fullmatch(path.name)
        if match and (not path.exists() or files.sha256(path.read_text(encoding="utf-8"))[:16] != match["hash"]):
            raise ValueError(f"{path} is missing or has changed since this run started: start the run again")
