"""Datasets by name: the official ones, a user's own, and what is known of each before it is read.

Imports nothing heavy: it runs whenever the workflow loads.
"""

import functools
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from stat import S_ISDIR

import yaml

from goldilocks_zone.data import folders, official_shapes
from goldilocks_zone.storage import files

LIMIT_MIB = 2048
# What a user's own dataset may be, in capitals or not: a folder of images, an archive of one, or arrays.
SUFFIXES = ("", ".npz", ".tar.xz", ".tar.gz", ".tgz", ".tar.bz2", ".tar", ".zip")
# Keys of a dataset's entry that say how its files are read.
READING = ("channels", "white")
CARDS, OWN, VERIFIED = "cards", "own", "verified"  # folders below results/data
MISSING = "missing"  # the identity of files that are not there


# Stamps of files that were looked at inside a block `one_look`, by path; None outside of one.
_stamps: ContextVar[dict[Path, str] | None] = ContextVar("stamps", default=None)


@contextmanager
def one_look() -> Iterator[None]:
    """Look at the files of each dataset once, however often the block asks whether they have changed."""
    token = _stamps.set({})
    try:
        yield
    finally:
        _stamps.reset(token)


def data_folder(configured: str | None) -> str | None:
    """The folder of the user's own data: the variable GOLDILOCKS_DATA before the configuration's data_folder."""
    folder = os.environ.get("GOLDILOCKS_DATA") or configured
    return os.path.expanduser(folder) if folder else None


def own_records(names: Iterable[str], entries: dict[str, dict], folder: str | None, place: Path) -> dict[str, dict]:
    """For each of a user's own datasets where it lies and how it is read, and the `identity` of its files.

    The identity changes with the content of the files, and with the keys `READING`, and with nothing else. Where the
    files are gone, it is that of the last reading: what was read from them is still good. `entries` is the
    configuration's section `datasets`, `place` the folder results/data. Writes nothing.
    """
    return {name: _own_record(name, entries, folder, place) for name in names}


def _own_record(name: str, entries: dict[str, dict], folder: str | None, place: Path) -> dict:
    entry = entries.get(name, {})
    path, reading = _path_of(name, entry, folder), reading_of(entry)
    record = {
        "path": path and str(path),
        "expected": entry.get("path") or f"{name} in the data folder {folder or '(GOLDILOCKS_DATA is not set)'}",
        "place": entry.get("path", ""),
        "licence": licence(name, entries),
        "limit_mib": entry.get("limit_mib", LIMIT_MIB),
        **reading,
    }
    if path:
        return {**record, "identity": _identity(_content(name, path, place), reading)}
    known = _card(name, place)
    # Another place, with nothing there, is a mistake; so is another way to read what cannot be read again.
    same = known.get("place", record["place"]) == record["place"] and reading_of(known) == reading
    return {**record, "identity": (identity_read(known) if same else "") or MISSING}


def reading_of(known: Mapping) -> dict:
    """How files are read, by an entry of the configuration, a record, a card or a dataset's attributes."""
    return {key: known[key] for key in READING if known.get(key) is not None}


def identity_read(known: Mapping) -> str:
    """The identity of the files that a dataset was read from, by its card or attributes, if they tell."""
    # Earlier versions knew a stamp alone.
    return known.get("identity") or known.get("stamp") or ""


def identity_now(record: Mapping) -> str:
    """The identity that a record's files have at this moment."""
    path = Path(record["path"])
    return _identity(_content_of_files(path, _stamp(path)), reading_of(record))


def identity_record(record: Mapping) -> str:
    """The part of a record that says what is read and how: the text of results/data/own/{dataset}.{hash}.yaml."""
    return yaml.safe_dump({"identity": record["identity"], **reading_of(record)})


def renew_stamps(names: Iterable[str], entries: dict[str, dict], folder: str | None, place: Path) -> None:
    """Remember the contents of files by their ages, so that they need not be read whenever the workflow loads.

    Of the datasets `names` and of those that have a card. Changes nothing that a job depends on.
    """
    for name in {*names, *(path.stem for path in (place / CARDS).glob("*.yaml"))} - official_shapes.OFFICIAL.keys():
        if path := _path_of(name, entries.get(name, {}), folder):
            stamp = _stamp(path)
            files.write_if_changed(f"{stamp} {_content(name, path, place, stamp)}\n", _memory_of(name, place))


def keep_datasets(place: Path) -> None:
    """Keep each dataset that has been read a second time, unless one is kept: jobs that begin lose their outputs."""
    for path in place.glob("*.nc"):
        if not files.is_temporary(path) and not (place / VERIFIED / path.name).exists():
            keep(path, place / CARDS / f"{path.stem}.yaml")


def keep(path: Path, path_to_card: Path) -> None:
    """Keep a dataset file and its card a second time, beside what Snakemake deletes."""
    for each in (path, path_to_card):
        if each.exists():
            files.link(each, path.parent / VERIFIED / each.name)


def licence(name: str, entries: dict[str, dict]) -> str:
    """The licence line of a dataset, official or of the configuration's section `datasets`."""
    return official_shapes.LICENCES.get(name) or entries.get(name, {}).get("licence") or "licence not stated"


def suffix_of(file: str) -> str | None:
    """The one of SUFFIXES that a file's name ends in, in capitals or not; None if it ends in none."""
    return next((suffix for suffix in SUFFIXES if suffix and file.lower().endswith(suffix)), None)


def _path_of(name: str, entry: dict, folder: str | None) -> Path | None:
    """Where a user's own dataset lies: its `path`, or its name in the data folder; None where there is nothing."""
    if "path" in entry:
        path = Path(os.path.expanduser(entry["path"]))
        return path if path.exists() else None
    places = (Path(folder, name + end) for suffix in SUFFIXES for end in (suffix, suffix.upper())) if folder else ()
    return next((path for path in places if path.exists() and path.is_dir() == (path.name == name)), None)


def known_shapes(
    entries: dict[str, dict], folder: str | None, cards: Sequence[Path]
) -> dict[str, official_shapes.Shape | None]:
    """Shape of every dataset that can be named: official, in `entries`, in the data folder, or read in before.

    None for one that has not been read, or whose files have changed since; `cards` are folders of what reading left
    behind, of which the last that has a dataset counts. Raises ValueError if a card is damaged, OSError if it cannot be
    read.
    """
    shapes: dict[str, official_shapes.Shape | None] = {**dict.fromkeys(_names_in(folder)), **dict.fromkeys(entries)}
    # Beside the cards lie those of datasets that are kept, which a job that failed leaves alone.
    places = [place for each in cards for place in (each.parent / VERIFIED, each)]
    for name in {path.stem for place in places for path in place.glob("*.yaml")} - official_shapes.OFFICIAL.keys():
        path = [place / f"{name}.yaml" for place in places if (place / f"{name}.yaml").exists()][-1]
        card = _read_card(path)
        try:
            shape = official_shapes.Shape(tuple(card["image"]), card["classes"], card["training_examples"])
        except (TypeError, KeyError) as error:
            raise ValueError(f"{path} is damaged: delete it and run again") from error
        record = _own_record(name, entries, folder, cards[-1].parent)
        shapes[name] = shape if record["path"] is None or record["identity"] == identity_read(card) else None
    return {**shapes, **official_shapes.OFFICIAL}


def _card(name: str, place: Path) -> dict:
    """Card of a dataset that was read; empty without one."""
    paths = [place / folder / f"{name}.yaml" for folder in (CARDS, VERIFIED)]
    return next((_read_card(path) for path in paths if path.exists()), {})


def _read_card(path: Path) -> dict:
    try:
        card = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        files.refuse_unreadable(path)
        raise ValueError(f"{path} is damaged: delete it and run again") from error
    if not isinstance(card, dict):
        raise ValueError(f"{path} is damaged: delete it and run again")
    return card


def _identity(content: str, reading: dict) -> str:
    return hashlib.sha256(json.dumps([content, reading], sort_keys=True).encode()).hexdigest()


def _content(name: str, path: Path, place: Path, stamp: str | None = None) -> str:
    """The hash of a dataset's files: that remembered, where neither names nor sizes nor ages have changed since."""
    stamp, memory = stamp or _stamp(path), _memory_of(name, place)
    remembered = memory.read_text(encoding="utf-8").split() if memory.exists() else []
    return remembered[1] if remembered[:1] == [stamp] and len(remembered) == 2 else _content_of_files(path, stamp)


def _memory_of(name: str, place: Path) -> Path:
    return place / OWN / f"{name}.content"


@functools.cache
def _content_of_files(path: Path, stamp: str) -> str:
    """A hash of the names and the bytes of the files that reading looks at; `stamp` is theirs."""
    digest = hashlib.sha256()
    for name, file in _files_read(path):
        digest.update(f"{name}\0".encode(errors="surrogateescape"))
        try:
            if not file.is_dir():
                with open(file, "rb") as content:
                    digest.update(hashlib.file_digest(content, "sha256").digest())
        except OSError:
            # Refused when it is read, in a sentence.
            digest.update(b"unreadable")
    return digest.hexdigest()


def _stamp(path: Path) -> str:
    """A text that changes whenever one of the files could have been replaced; from names, sizes and ages alone."""
    stamps = _stamps.get()
    if stamps is not None and path in stamps:
        return stamps[path]
    digest = hashlib.sha256()
    for name, file in _files_read(path):
        try:
            state = os.stat(file)
        except OSError:
            # A link to nothing is refused when it is read.
            state = os.lstat(file)
        ages = "" if S_ISDIR(state.st_mode) else f"{state.st_size}\0{state.st_mtime_ns}\0{state.st_ctime_ns}"
        digest.update(f"{name}\0{ages}\n".encode(errors="surrogateescape"))
    stamp = digest.hexdigest()
    if stamps is not None:
        stamps[path] = stamp
    return stamp


def _files_read(path: Path) -> list[tuple[str, Path]]:
    """Name and path of what reading looks at, in the order of the names: a file itself, or what lies in the splits."""
    if path.is_file():
        return [("", path)]
    read = (each for each in folders.walk(path) if folders.place_of(each[0]))
    return sorted(("/".join(folders.parts_of(name)), file) for name, file in read)


def _names_in(folder: str | None) -> Iterator[str]:
    for path in sorted(Path(folder).iterdir()) if folder and Path(folder).is_dir() else ():
        suffix = "" if path.is_dir() else suffix_of(path.name)
        if suffix is not None and re.fullmatch("[a-z0-9_]+", name := path.name[: len(path.name) - len(suffix)]):
            yield name
