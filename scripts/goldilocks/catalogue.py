"""Datasets by name: the official ones, a user's own, and what is known of each before it is read.

Imports nothing heavy: it runs whenever the workflow loads.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from goldilocks import files


@dataclass(frozen=True)
class Shape:
    """What validation needs of a dataset: channels, height and width of its images, classes, training examples."""

    image: tuple[int, int, int]
    classes: int
    training_examples: int


OFFICIAL = {
    "mnist": Shape((1, 28, 28), 10, 60_000),
    "fashion_mnist": Shape((1, 28, 28), 10, 60_000),
    "cifar10": Shape((3, 32, 32), 10, 50_000),
    "annuli": Shape((1, 1, 2), 3, 6_000),
}
LICENCES = {
    "mnist": "MNIST, Y. LeCun, C. Cortes, C. Burges; CC BY-SA 3.0",
    "fashion_mnist": "Fashion-MNIST, Zalando SE; MIT licence",
    "cifar10": "CIFAR-10, A. Krizhevsky, V. Nair, G. Hinton; no licence stated, free for research with citation",
    "annuli": "Three annuli, made by this project; CC0 1.0",
}
LIMIT_MIB = 2048
# What a user's own dataset may be: a folder of images, an archive of one, or arrays.
SUFFIXES = ("", ".npz", ".tar.xz", ".tar.gz", ".tar.bz2", ".tar", ".zip")


def data_folder(configured: str | None) -> str | None:
    """The folder of the user's own data: the variable GOLDILOCKS_DATA before the configuration's data_folder."""
    return os.environ.get("GOLDILOCKS_DATA") or configured or None


def record_own(names: Iterable[str], entries: dict[str, dict], folder: str | None, place: Path) -> None:
    """Write for each of a user's own datasets its settings and a stamp of its files, which changes only with them.

    `entries` is the configuration's section `datasets`. Where the files are gone the old stamp stays: what was read
    from them is still good.
    """
    for name in names:
        entry = entries.get(name, {})
        path = _path_of(name, entry, folder)
        settings = {
            "path": path and str(path),
            "expected": entry.get("path") or f"{name} in the data folder {folder or '(GOLDILOCKS_DATA is not set)'}",
            "licence": licence(name, entries),
            "limit_mib": entry.get("limit_mib", LIMIT_MIB),
        }
        settings_file, stamp_file = place / f"{name}.yaml", place / f"{name}.stamp"
        before = yaml.safe_load(settings_file.read_text(encoding="utf-8")) if settings_file.exists() else None
        files.write_if_changed(yaml.safe_dump(settings, allow_unicode=True), settings_file)
        # A place that was changed to one with nothing there is a mistake, not a file that is gone.
        mistaken = not before or before["expected"] != settings["expected"]
        if path or mistaken or not stamp_file.exists():
            files.write_if_changed(_stamp(path), stamp_file)


def licence(name: str, entries: dict[str, dict]) -> str:
    """The licence line of a dataset, official or of the configuration's section `datasets`."""
    return LICENCES.get(name) or entries.get(name, {}).get("licence") or "licence not stated"


def _path_of(name: str, entry: dict, folder: str | None) -> Path | None:
    """Where a user's own dataset lies: its `path`, or its name in the data folder; None where there is nothing."""
    if "path" in entry:
        path = Path(entry["path"]).expanduser()
        return path if path.exists() else None
    places = (Path(folder, name + suffix) for suffix in SUFFIXES) if folder else ()
    return next((path for path in places if path.exists() and path.is_dir() == (path.name == name)), None)


def known_shapes(entries: dict[str, dict], folder: str | None, cards: Sequence[Path]) -> dict[str, Shape | None]:
    """Shape of every dataset that can be named: official, in `entries`, in the data folder, or read in before.

    None for one that has not been read, or whose files have changed since; `cards` are folders of what reading left
    behind, of which the last that has a dataset counts. Raises ValueError if a card is damaged, OSError if it cannot be
    read.
    """
    shapes: dict[str, Shape | None] = {**dict.fromkeys(_names_in(folder)), **dict.fromkeys(entries)}
    for path in (path for each in cards for path in sorted(each.glob("*.yaml"))):
        name = path.stem
        try:
            card = yaml.safe_load(path.read_text(encoding="utf-8"))
            shape = Shape(tuple(card["image"]), card["classes"], card["training_examples"])
        except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, KeyError) as error:
            files.refuse_unreadable(path)
            raise ValueError(f"{path} is damaged: delete it and run again") from error
        place = _path_of(name, entries.get(name, {}), folder)
        shapes[name] = shape if place is None or card.get("stamp") == _stamp(place) else None
    return {**shapes, **OFFICIAL}


def _stamp(path: Path | None) -> str:
    """A text that changes when a file, or any file of a folder, is replaced; from names, sizes and ages alone."""
    if path is None:
        return "missing"
    digest = hashlib.sha256()
    for entry in [path] if path.is_file() else sorted(path.rglob("*")):
        # A link to nothing is refused when it is read.
        state = entry.stat() if entry.exists() else entry.lstat()
        if not entry.is_dir():
            digest.update(f"{entry.relative_to(path)}\0{state.st_size}\0{state.st_mtime_ns}\n".encode(errors="replace"))
    return digest.hexdigest()


def _names_in(folder: str | None) -> Iterator[str]:
    for path in sorted(Path(folder).iterdir()) if folder and Path(folder).is_dir() else ():
        for suffix in SUFFIXES:
            name = path.name.removesuffix(suffix)
            if re.fullmatch("[a-z0-9_]+", name) and path.is_dir() == (suffix == ""):
                yield name
