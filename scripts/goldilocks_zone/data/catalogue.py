"""Registry of official and users' own datasets: their shapes, files and licences, known before any dataset is loaded.

A card is a YAML file with a dataset's metadata, which is written when the dataset is read. The stamp of a dataset's
files is a hash of their names, sizes and times of change. Their identity is a hash of their names, their content and
the way of reading them. The way of reading is set by those keys of the dataset's entry in the configuration that
READING lists. This module imports nothing heavy, because it runs whenever the workflow loads.
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
from typing import Any

import yaml

from goldilocks_zone.data import folders
from goldilocks_zone.data.official_shapes import LICENCES, OFFICIAL, Shape
from goldilocks_zone.storage import files

Entries = Mapping[str, Any]  # the configuration's section `datasets`
LIMIT_MIB = 2048
# Of a folder of images, an .npz file of arrays, and archives of a folder; capitals are accepted too.
SUFFIXES = ("", ".npz", ".tar.xz", ".tar.gz", ".tgz", ".tar.bz2", ".tar", ".zip")
READING = ("channels", "white")  # keys of an entry that determine how its files are read
CARDS, OWN, VERIFIED = "cards", "own", "verified"  # folders below results/data
MISSING = "missing"  # identity of files that do not exist
_stamps: ContextVar[dict[Path, str]] = ContextVar("stamps")  # by path; set inside the context `one_look` only


@contextmanager
def one_look() -> Iterator[None]:
    """Context in which the stamp of each dataset's files (see the module) is computed only once.

    Within the context, the first stamp of a path is used again even if its files change.
    """
    token = _stamps.set({})
    try:
        yield
    finally:
        _stamps.reset(token)


def data_folder(configured: str | None) -> str | None:
    """Folder of the user's own data, with ~ expanded; None if none is set.

    The environment variable GOLDILOCKS_DATA overrides `configured`, the configuration's key data_folder.
    """
    folder = os.environ.get("GOLDILOCKS_DATA") or configured
    return os.path.expanduser(folder) if folder else None


def own_records(names: Iterable[str], entries: Entries, folder: str | None, place: Path) -> dict[str, dict]:
    """Records of the user's own datasets `names`, by name, as `_own_record` describes them.

    `entries` is the configuration's section `datasets`, `folder` the user's data folder or None, and `place` the folder
    results/data.
    """
    return {name: _own_record(name, entries, folder, place) for name in names}


def _own_record(name: str, entries: Entries, folder: str | None, place: Path) -> dict:
    """Record of the user's own dataset `name`: a dictionary with the location and identity of its files.

    Its keys are `path` of the files (None if nothing is there), `expected` (a text that says where they should be),
    `place` (the path in the configuration, or empty), `licence`, `limit_mib`, `identity`, and those keys READING that
    are set. If the files do not exist, the identity comes from the dataset's card or a copy of it, as long as the
    configured path and keys READING are those in the card. Otherwise, the identity of missing files is MISSING.
    `entries`, `folder` and `place` are as in `own_records`.
    """
    given, path = _given(name, entries, "path"), _path_of(name, entries, folder)
    reading = reading_of({key: _given(name, entries, key) for key in READING})
    record = {
        "path": path and str(path),
        "expected": given or f"{name} in the data folder {folder or '(GOLDILOCKS_DATA is not set)'}",
        "place": given or "",
        "licence": licence(name, entries),
        "limit_mib": _given(name, entries, "limit_mib") or LIMIT_MIB,
        **reading,
    }
    if path:
        return {**record, "identity": _identity(_content(name, path, place), reading)}
    paths = [place / folder / f"{name}.yaml" for folder in (CARDS, VERIFIED)]
    known = next((_read_card(path) for path in paths if path.exists()), {})
    # Without files, a path or a way of reading other than at the last reading is a mistake.
    same = known.get("place", record["place"]) == record["place"] and reading_of(known) == reading
    return {**record, "identity": (identity_read(known) if same else "") or MISSING}


def reading_of(known: Mapping) -> dict:
    """Those keys of `known` that are in READING and are set, with their values.

    `known` is a dataset's record, its card, or the attributes of its file.
    """
    return {key: known[key] for key in READING if known.get(key) is not None}


def identity_read(known: Mapping) -> str:
    """Identity that a dataset's files had when the dataset was read, as noted in `known`; empty if none is noted.

    `known` is the dataset's card or the attributes of its file.
    """
    return known.get("identity") or known.get("stamp") or ""  # Release 0.1.0 recorded a stamp.


def identity_now(record: Mapping) -> str:
    """Identity of the files at the path in `record`, computed from their present content.

    Hashes that `renew_stamps` stored are not used.
    """
    path = Path(record["path"])
    return _identity(_content_of_files(path, _stamp(path)), reading_of(record))


def identity_record(record: Mapping) -> str:
    """YAML text with the identity of a dataset's files and the keys READING that are set, both taken from its `record`.

    It is the content of results/data/own/{dataset}.{hash}.yaml.
    """
    return yaml.safe_dump({"identity": record["identity"], **reading_of(record)})


def renew_stamps(names: Iterable[str], entries: Entries, folder: str | None, place: Path) -> None:
    """Store a hash of the content of each dataset's files, so that loading the workflow need not read the files again.

    The hash is stored below `place`, together with the present stamp of the files. `_content` uses the hash until the
    stamp changes. This is done for the datasets `names` and for all datasets that have a card, except for official ones
    and those without files. `entries`, `folder` and `place` are as in `own_records`. No job depends on the stored
    hashes.
    """
    for name in {*names, *(path.stem for path in (place / CARDS).glob("*.yaml"))} - OFFICIAL.keys():
        if path := _path_of(name, entries, folder):
            stamp = _stamp(path)
            files.write_if_changed(f"{stamp} {_content(name, path, place, stamp)}\n", place / OWN / f"{name}.content")


def keep_datasets(place: Path) -> None:
    """Keep a copy, in the folder `verified`, of each dataset file in `place` that has no such copy yet; see `keep`.

    `place` is the folder results/data. Copies are needed because Snakemake deletes the outputs of a job before the job
    starts.
    """
    for path in place.glob("*.nc"):
        if not files.is_temporary(path) and not (place / VERIFIED / path.name).exists():
            keep(path, place / CARDS / f"{path.stem}.yaml")


def keep(path: Path, path_to_card: Path) -> None:
    """Keep copies of the dataset file at `path` and of its card, if they exist, in the folder `verified` beside `path`.

    Copies are hard links if possible.
    """
    for each in (path, path_to_card):
        if each.exists():
            files.link(each, path.parent / VERIFIED / each.name)


def licence(name: str, entries: Entries) -> str:
    """Licence of a dataset: the official one, or that in the dataset's entry in `entries`, or `licence not stated`."""
    return LICENCES.get(name) or _given(name, entries, "licence") or "licence not stated"


def suffix_of(file: str) -> str | None:
    """Suffix of a file name, if it is one of SUFFIXES; None otherwise.

    Upper and lower case count as equal. The suffix is returned in lower case.
    """
    return next((suffix for suffix in SUFFIXES if suffix and file.lower().endswith(suffix)), None)


def _given(name: str, entries: Entries, key: str) -> Any:
    """Value of `key` in the configuration's entry of the dataset `name`; None if the key or the entry is missing."""
    return getattr(entries.get(name), key, None)


def _path_of(name: str, entries: Entries, folder: str | None) -> Path | None:
    """Path of the files of the user's own dataset `name`; None if nothing is there.

    The path is the one in the dataset's entry in `entries`. Without such a path, it is the first one in `folder` that
    consists of the name and one of the SUFFIXES; a folder has no suffix, and any file has one.
    """
    if given := _given(name, entries, "path"):
        path = Path(os.path.expanduser(given))
        return path if path.exists() else None
    places = (Path(folder, name + end) for suffix in SUFFIXES for end in (suffix, suffix.upper())) if folder else ()
    return next((path for path in places if path.exists() and path.is_dir() == (path.name == name)), None)


def known_shapes(entries: Entries, folder: str | None, cards: Sequence[Path]) -> dict[str, Shape | None]:
    """Shapes of all known datasets, by name; None if a dataset must be read before its shape is known.

    Known datasets are the official ones, those in the section `entries`, those in the user's data `folder`, and those
    that have a card. The shape of a user's dataset comes from its card. It is None without a card, or if the files have
    changed since the card was written. `cards` are folders of cards; later folders override earlier ones. Raises
    ValueError if a card is damaged, OSError if it cannot be read.
    """
    shapes: dict[str, Shape | None] = {**dict.fromkeys(_names_in(folder)), **dict.fromkeys(entries)}
    # Copies of cards survive failed jobs.
    places = [place for each in cards for place in (each.parent / VERIFIED, each)]
    for name in {path.stem for place in places for path in place.glob("*.yaml")} - OFFICIAL.keys():
        path = next(place / f"{name}.yaml" for place in reversed(places) if (place / f"{name}.yaml").exists())
        card = _read_card(path)
        try:
            shape = Shape(tuple(card["image"]), card["classes"], card["training_examples"])
        except (TypeError, KeyError) as error:
            raise ValueError(f"{path} is damaged: delete it and run again") from error
        record = _own_record(name, entries, folder, cards[-1].parent)
        shapes[name] = shape if record["path"] is None or record["identity"] == identity_read(card) else None
    return {**shapes, **OFFICIAL}


def _read_card(path: Path) -> dict:
    try:
        return dict(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError, yaml.YAMLError) as error:
        files.refuse_unreadable(path)
        raise ValueError(f"{path} is damaged: delete it and run again") from error


def _identity(content: str, reading: dict) -> str:
    return files.sha256(json.dumps([content, reading], sort_keys=True))


def _content(name: str, path: Path, place: Path, stamp: str | None = None) -> str:
    """Hash of the content of the files of the dataset `name` at `path`.

    If `renew_stamps` stored the hash below `place`, and the files still have the stamp that they had then, the stored
    hash is returned. Otherwise the files are read. `stamp` is the present stamp of the files; if it is None, it is
    computed.
    """
    stamp, memory = stamp or _stamp(path), place / OWN / f"{name}.content"
    remembered = memory.read_text(encoding="utf-8").split() if memory.exists() else []
    return remembered[1] if remembered[:1] == [stamp] and len(remembered) == 2 else _content_of_files(path, stamp)


@functools.cache
def _content_of_files(path: Path, stamp: str) -> str:
    """Hash of the names and bytes of the files of the dataset at `path`.

    `stamp` is part of the key of the cache only, so that the hash is computed again once the files have changed.
    """
    digest = hashlib.sha256()
    for name, file in _files_read(path):
        digest.update(f"{name}\0".encode(errors="surrogateescape"))
        try:
            if not file.is_dir():
                with open(file, "rb") as content:
                    digest.update(hashlib.file_digest(content, "sha256").digest())
        except OSError:
            digest.update(b"unreadable")  # Reading reports it.
    return digest.hexdigest()


def _stamp(path: Path) -> str:
    """Hash of the names, sizes and times of change of the files of the dataset at `path`."""
    stamps = _stamps.get({})
    if path in stamps:
        return stamps[path]
    digest = hashlib.sha256()
    for name, file in _files_read(path):
        try:
            state = os.stat(file)
        except OSError:
            state = os.lstat(file)  # Reading reports a broken link.
        ages = "" if S_ISDIR(state.st_mode) else f"{state.st_size}\0{state.st_mtime_ns}\0{state.st_ctime_ns}"
        digest.update(f"{name}\0{ages}\n".encode(errors="surrogateescape"))
    return stamps.setdefault(path, digest.hexdigest())


def _files_read(path: Path) -> list[tuple[str, Path]]:
    """Names and paths of the files of the dataset at `path`, sorted by name.

    For a dataset in a single file, the name is empty. For a dataset in a folder, the list contains the folder of each
    split, such as train, and all folders and files in it that `folders.place_of` does not ignore. Names are then paths
    relative to the dataset's folder.
    """
    if path.is_file():
        return [("", path)]
    walk = folders.walk(path)
    return sorted(("/".join(folders.parts_of(name)), file) for name, file in walk if folders.place_of(name))


def _names_in(folder: str | None) -> Iterator[str]:
    for path in sorted(Path(folder).iterdir()) if folder and Path(folder).is_dir() else ():
        suffix = "" if path.is_dir() else suffix_of(path.name)
        if suffix is not None and re.fullmatch("[a-z0-9_]+", name := path.name[: len(path.name) - len(suffix)]):
            yield name
