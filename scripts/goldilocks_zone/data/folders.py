"""Layout of a dataset's folder: train/<class>/<image> and test/<class>/<image>, and the files to ignore.

Used for reading and, whenever the workflow loads, for detecting changes: imports nothing heavy.
"""

import os
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

# Names of the splits' folders, in either case.
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
# Files left behind by operating systems, file servers and browsers, in either case.
_LEFT_BEHIND = frozenset({"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "icon\r", "$recycle.bin"})
_LEFT_BEHIND_END = ":zone.identifier"


class Place(NamedTuple):
    """Parts of a path: the folders above the split's folder, this folder as spelled, and the rest (class and image)."""

    around: tuple[str, ...]
    split: str
    below: tuple[str, ...]


def is_left_behind(name: str) -> bool:
    """Whether the name of a file or folder says that it is hidden or that a program left it behind."""
    folded = name.casefold()
    return name.startswith(".") or folded in _LEFT_BEHIND or folded.endswith(_LEFT_BEHIND_END)


def place_of(member: str) -> Place | None:
    """Place of a file or folder below the dataset's folder; None if it lies in no split or should be ignored."""
    parts = parts_of(member)
    split = next((i for i, part in enumerate(parts) if part.casefold() in SPLITS), None)
    if split is None or any(map(is_left_behind, parts)):
        return None
    return Place(parts[:split], parts[split], parts[split + 1 :])


def parts_of(member: str) -> tuple[str, ...]:
    """Folders and file of a member's name, with accents composed: macOS decomposes them."""
    return tuple(part for part in unicodedata.normalize("NFC", member).split("/") if part not in ("", "."))


def walk(folder: Path, onerror: Callable[[OSError], None] | None = None) -> Iterator[tuple[str, Path]]:
    """Walk over all files and folders below `folder`; yields names relative to `folder`, and paths.

    Leaves out those that `is_left_behind` recognises. Calls `onerror` for each folder that cannot be read.
    """
    for place, subfolders, names in os.walk(folder, onerror=onerror):
        subfolders[:] = [name for name in subfolders if not is_left_behind(name)]
        around = os.path.relpath(place, folder)
        for name in (*subfolders, *(name for name in names if not is_left_behind(name))):
            yield f"{around}/{name}".removeprefix("./"), Path(place, name)
