"""Layout of a dataset's folder: train/<class>/<image> and test/<class>/<image>, and the files to ignore.

The workflow uses this module to detect changes whenever it loads, so the module imports nothing heavy.
"""

import os
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

# Names of the splits' folders; upper and lower case count as equal.
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
# Files left behind by operating systems, file servers and browsers; upper and lower case count as equal.
_LEFT_BEHIND = frozenset({"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "icon\r", "$recycle.bin"})
_LEFT_BEHIND_END = ":zone.identifier"


class Place(NamedTuple):
    """Path inside a dataset, divided at the folder of its split (train, val or test).

    around: names of the folders above the split's folder. split: name of this folder, as spelled in the path. below:
    names of the folders and the file below it.
    """

    around: tuple[str, ...]
    split: str
    below: tuple[str, ...]


def is_left_behind(name: str) -> bool:
    """Whether the name of a file or folder marks it as hidden, or as left behind by a program."""
    folded = name.casefold()
    return name.startswith(".") or folded in _LEFT_BEHIND or folded.endswith(_LEFT_BEHIND_END)


def place_of(member: str) -> Place | None:
    """Divide the path `member` at the folder of its split; None if it is in no split or should be ignored.

    `member` is the path of a file or folder, relative to the dataset's folder. It is ignored if `is_left_behind` is
    true of any component.
    """
    parts = parts_of(member)
    split = next((i for i, part in enumerate(parts) if part.casefold() in SPLITS), None)
    if split is None or any(map(is_left_behind, parts)):
        return None
    return Place(parts[:split], parts[split], parts[split + 1 :])


def parts_of(member: str) -> tuple[str, ...]:
    """Components of the path `member`, relative to the dataset's folder, in the Unicode normal form NFC.

    The normal form is needed because macOS decomposes accents in file names.
    """
    return tuple(part for part in unicodedata.normalize("NFC", member).split("/") if part not in ("", "."))


def walk(folder: Path, onerror: Callable[[OSError], None] | None = None) -> Iterator[tuple[str, Path]]:
    """Yield, for each file and folder below `folder`, its path relative to `folder` and its full path.

    Files and folders that `is_left_behind` recognises, such as hidden ones, are left out. If a folder cannot be read,
    `onerror` is called with the error.
    """
    for place, subfolders, names in os.walk(folder, onerror=onerror):
        subfolders[:] = [name for name in subfolders if not is_left_behind(name)]
        around = os.path.relpath(place, folder)
        for name in (*subfolders, *(name for name in names if not is_left_behind(name))):
            yield f"{around}/{name}".removeprefix("./"), Path(place, name)
