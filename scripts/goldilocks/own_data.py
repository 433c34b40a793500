"""A user's own dataset: arrays in an .npz file, or images in folders, also as an archive.

Nothing is unpacked onto the disk and nothing that a file holds is executed: members of archives are read one by
one, within a limit on what they may unpack to.
"""

import bz2
import gzip
import io
import lzma
import os
import stat
import tarfile
import tokenize
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import xarray as xr
from PIL import Image

from goldilocks import catalogue, files
from goldilocks.datasets import TEST, TRAIN, as_dataset

SPLITS = {"train": TRAIN, "test": TEST}
IMAGE_FORMATS = ("PNG", "JPEG")
# Folders and files that operating systems leave in archives.
_IGNORED = ("__MACOSX", "Thumbs.db")
_TAR_ARCHIVES = {".tar.xz": lzma.open, ".tar.gz": gzip.open, ".tar.bz2": bz2.open, ".tar": open}
_PNG_BIT_DEPTH = 24  # place of this byte in a PNG file
_HEADER_LIMIT = 1 << 14


class Refused(ValueError):
    """A dataset cannot be used; the message is one sentence with the file, the reason and what to do."""


def read(name: str, path: Path, licence: str, limit_mib: int = catalogue.LIMIT_MIB) -> xr.Dataset:
    """The dataset at `path`: <file>.npz, a folder, or an archive (.tar, .tar.xz, .tar.gz, .tar.bz2, .zip) of one.

    An .npz file holds `images` of shape (n, height, width) or (n, channels, height, width) with grey levels 0 to
    255, `labels` (n,) from 0 to k − 1, `split` (n,), 0 for training and 1 for test, and optionally `class_names` (k,).
    Folders and archives hold train/<class>/<image> and test/<class>/<image>, PNG or JPEG of 8 bits; classes are
    numbered by the alphabet. Raises Refused if anything about it cannot be, before more than `limit_mib` MiB are
    unpacked, and OSError if it cannot be read; memory is three to four times that of the images.
    """
    try:
        read_arrays = _arrays if path.suffix == ".npz" else _image_folders
        images, labels, split, class_names = read_arrays(path, limit_mib << 20)
        _check(images, labels, split, class_names)
    except Refused as refusal:
        raise Refused(f"{path}: {refusal}") from None
    except Exception as error:
        if reason := files.unreadable(error):
            raise OSError(
                f"{getattr(error, 'filename', None) or path} cannot be read: {reason} and run again"
            ) from error
        # The libraries' errors about hostile or damaged files are of every kind.
        raise Refused(f"{path}: it is damaged or of another kind ({error}); make it again") from error
    training, test = ((images[split == part], labels[split == part]) for part in (TRAIN, TEST))
    return as_dataset(name, training, test, len(class_names), f"the user's {path.name}", licence, class_names)


def _check(images: np.ndarray, labels: np.ndarray, split: np.ndarray, class_names: list[str]) -> None:
    for part, number in SPLITS.items():
        if not np.any(split == number):
            raise Refused(f"it has no {part} examples; both train and test are needed")
    if len(class_names) < 2:
        raise Refused("it has one class; at least two are needed")
    for name in class_names:
        if not name.isprintable() or not name.strip() or "," in name:
            raise Refused(f"the class name {name!r} cannot be written; use letters, digits and the like")
    folded = [name.casefold() for name in class_names]
    if len(set(folded)) < len(folded):
        twice = next(name for name in class_names if folded.count(name.casefold()) > 1)
        raise Refused(f"the class {twice} is there twice, perhaps in capitals; keep one")
    counts = np.bincount(labels[split == TRAIN], minlength=len(class_names))
    if not counts.all():
        empty = class_names[int(np.argmin(counts))]
        raise Refused(f"the class {empty} has no training example; add some, or leave the class out")
    training = images[split == TRAIN]
    if training.min() == training.max():
        raise Refused("all training images have one and the same grey level, so they cannot be standardised")


def _arrays(path: Path, limit: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    if not zipfile.is_zipfile(path):
        raise Refused("it is no .npz file, a zip archive of arrays; write it with numpy.savez_compressed")
    with zipfile.ZipFile(path) as archive:
        images = _images(_array(archive, "images", limit))
        labels = _whole_numbers(_array(archive, "labels", limit), "labels", len(images))
        split = _whole_numbers(_array(archive, "split", limit), "split", len(images))
        named = "class_names.npy" in archive.namelist()
        given = _array(archive, "class_names", limit, most_names=len(images)) if named else None
    if not np.isin(split, (TRAIN, TEST)).all():
        example = int(np.flatnonzero(~np.isin(split, (TRAIN, TEST)))[0])
        raise Refused(f"split is {split[example]} in example {example}; use 0 for training and 1 for test")
    classes = len(given) if given is not None else int(labels.max(initial=0)) + 1
    if labels.min() > 0:
        raise Refused(f"labels starts at {labels.min()}; number the classes from 0")
    # More classes than examples: a label far out, before its number of names would fill the memory.
    wrong = (labels < 0) | (labels >= (classes if classes <= len(labels) else len(labels)))
    if wrong.any():
        example = int(np.flatnonzero(wrong)[0])
        raise Refused(f"labels is {labels[example]} in example {example}; number the classes from 0 without gaps")
    names = [str(name) for name in given] if given is not None else [str(number) for number in range(classes)]
    return images, labels, split, names


def _array(archive: zipfile.ZipFile, key: str, limit: int, most_names: int | None = None) -> np.ndarray:
    """One array of an .npz file, after a look at its header; with `most_names`, one of at most so many texts."""
    if f"{key}.npy" not in archive.namelist():
        raise Refused(f"the array {key} is missing; images, labels and split are needed")
    with archive.open(f"{key}.npy") as member:
        try:
            version = np.lib.format.read_magic(member)
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = header(member)
        except (ValueError, tokenize.TokenError, MemoryError, RecursionError):
            raise Refused(f"{key} is no array; write it with numpy.savez_compressed") from None
    if dtype.hasobject:
        raise Refused(f"{key} holds Python objects, which are never loaded; save plain numbers")
    if most_names is not None and (dtype.kind != "U" or len(shape) != 1 or shape[0] > most_names):
        raise Refused(f"{key} has the type {dtype} and shape {shape}; a list of texts, one for each class, is needed")
    size = int(np.prod(shape, dtype=object)) * max(dtype.itemsize, 1)
    if size > limit:
        raise Refused(f"{key} unpacks to {size >> 20} MiB, {_beyond(limit)}")
    with archive.open(f"{key}.npy") as member:
        return np.lib.format.read_array(member, allow_pickle=False)


def _images(images: np.ndarray) -> np.ndarray:
    """Grey levels as uint8 of shape (n, c, h, w); nothing is rounded or rescaled in silence."""
    if images.ndim == 4 and images.shape[3] <= 4 < images.shape[2]:
        raise Refused(f"images has the shape {images.shape} with channels last; use images.transpose(0, 3, 1, 2)")
    if images.ndim not in (3, 4) or 0 in images.shape:
        expected = "(n, height, width) or (n, channels, height, width)"
        raise Refused(f"images has the shape {images.shape}; {expected} is needed")
    if images.dtype != np.uint8:
        if images.dtype.kind not in "iuf":
            raise Refused(f"images has the type {images.dtype}; grey levels of type uint8 are needed")
        wrong = ~np.isfinite(images)
        reason = "is not finite"
        if not wrong.any():
            wrong = (images != np.floor(images)) | (images < 0) | (images > 255)
            reason = "is no whole number from 0 to 255"
        if wrong.any():
            example = int(np.flatnonzero(wrong.reshape(len(images), -1).any(axis=1))[0])
            value = images[example][wrong[example]].flat[0]
            raise Refused(f"images has the value {value} in example {example}, which {reason}; scale to uint8 first")
        images = images.astype(np.uint8)
    return images[:, None] if images.ndim == 3 else images


def _whole_numbers(array: np.ndarray, key: str, length: int) -> np.ndarray:
    if array.shape != (length,):
        raise Refused(f"{key} has the shape {array.shape}; ({length},) is needed, one for each image")
    if array.dtype.kind not in "iu":
        raise Refused(f"{key} has the type {array.dtype}; whole numbers are needed")
    return array.astype(np.int64)


def _image_folders(path: Path, limit: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    found: dict[tuple[str, ...], np.ndarray] = {}
    prefixes: set[tuple[str, ...]] = set()
    pixels = 0
    for member, content in _members(path, limit):
        parts = [part for part in PurePosixPath(member).parts if part != "."]
        if any(part.startswith(".") or part in _IGNORED for part in parts):
            continue
        place = next((i for i, part in enumerate(parts) if part in SPLITS), None)
        if place is None:
            continue
        # An archive may hold one folder around train and test.
        if place > 1 or len(parts) != place + 3:
            raise Refused(f"{member!r} is out of place; images lie in train/<class>/ and test/<class>/")
        prefixes.add(tuple(parts[:place]))
        if len(prefixes) > 1:
            raise Refused(f"{member!r} belongs to another dataset than the files before it; keep one dataset")
        key = tuple(parts[place:])
        if key in found:
            raise Refused(f"{member!r} is there twice; keep one of them")
        expected = next(iter(found.values())).shape[1:] if found else None
        found[key] = _decoded(member, content(), expected, limit)
        # Three channels each: greyscale images become colour beside others.
        pixels += 3 * found[key][0].size
        if pixels > limit:
            raise Refused(f"its images take {pixels >> 20} MiB, {_beyond(limit)}")
    if not found:
        raise Refused("it holds no images in train/<class>/ and test/<class>/")
    order = sorted(found)
    classes = {name: i for i, name in enumerate(sorted({name for part, name, _ in order if part == "train"}))}
    for _, name, _ in order:
        if name not in classes:
            raise Refused(f"the class {name!r} has no training example; add some, or leave the class out")
    channels = max(len(image) for image in found.values())
    images = np.empty((len(order), channels, *found[order[0]].shape[1:]), np.uint8)
    for i, key in enumerate(order):
        images[i] = found.pop(key)
    labels = np.array([classes[name] for _, name, _ in order])
    return images, labels, np.array([SPLITS[part] for part, _, _ in order]), list(classes)


def _decoded(member: str, content: bytes, expected: tuple[int, int] | None, limit: int) -> np.ndarray:
    """One image of shape (1 or 3, h, w), its size checked before it is unpacked."""
    try:
        with Image.open(io.BytesIO(content), formats=IMAGE_FORMATS) as image:
            width, height = image.size
            if width * height * 3 > limit:
                raise Refused(f"{member!r} has {width}×{height} pixels, {_beyond(limit)}")
            if expected and (height, width) != expected:
                others = f"{expected[1]}×{expected[0]}"
                raise Refused(f"{member!r} has {width}×{height} pixels and others {others}; use one size")
            if image.mode not in ("L", "RGB") or (image.format == "PNG" and content[_PNG_BIT_DEPTH] != 8):
                depth = f", {content[_PNG_BIT_DEPTH]} bits" if image.format == "PNG" else ""
                raise Refused(f"{member!r} has the colour mode {image.mode}{depth}; save it as 8-bit greyscale or RGB")
            array = np.asarray(image)
    except Refused:
        raise
    except Exception:
        raise Refused(f"{member!r} is no readable image; PNG and JPEG can be read") from None
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def _members(path: Path, limit: int) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Name below the dataset's folder of each file in it, and a function that reads it, to be called at once or never.

    Names and kinds of members are checked although nothing is unpacked: an archive that is not plain is not trusted.
    """
    if path.is_dir():
        yield from _folder_members(path, limit)
    elif path.suffix == ".zip":
        yield from _zip_members(path, limit)
    elif kind := next((suffix for suffix in _TAR_ARCHIVES if path.name.endswith(suffix)), None):
        yield from _tar_members(path, _TAR_ARCHIVES[kind], limit)
    else:
        raise Refused(f"its kind is unknown; use a folder or {', '.join(filter(None, catalogue.SUFFIXES))}")


def _folder_members(path: Path, limit: int) -> Iterator[tuple[str, Callable[[], bytes]]]:
    def fail(error):
        raise error

    for folder, subfolders, names in os.walk(path, onerror=fail):
        for name in subfolders:
            if Path(folder, name).is_symlink():
                raise Refused(f"{name!r} is a link to a folder; put the folder itself there")
        for name in names:
            file = Path(folder, name)

            def read(file=file):
                if not file.is_file():
                    raise Refused(f"{file.name!r} is no file, or a link to none; remove it")
                if file.stat().st_size > limit:
                    raise Refused(f"{file.name!r} has {file.stat().st_size >> 20} MiB, {_beyond(limit)}")
                return file.read_bytes()

            yield file.relative_to(path).as_posix(), read


def _zip_members(path: Path, limit: int) -> Iterator[tuple[str, Callable[[], bytes]]]:
    with zipfile.ZipFile(path) as archive:
        left = limit
        for entry in archive.infolist():
            _refuse_outside(entry.filename)
            if stat.S_ISLNK(entry.external_attr >> 16):
                raise Refused(f"the member {entry.filename!r} is a link; archive the file itself")
            if entry.flag_bits & 1:
                raise Refused(f"the member {entry.filename!r} is encrypted; archive it without a password")
            if entry.is_dir():
                continue

            def read(entry=entry):
                nonlocal left
                with archive.open(entry) as member:
                    content = member.read(left + 1)
                left -= len(content)
                if left < 0:
                    raise Refused(f"it unpacks to more than allowed, {_beyond(limit)}")
                return content

            yield entry.filename, read


def _tar_members(path: Path, unpack: Callable, limit: int) -> Iterator[tuple[str, Callable[[], bytes]]]:
    with (
        unpack(path, "rb") as unpacked,
        tarfile.open(fileobj=_Limited(unpacked, limit), mode="r|", tarinfo=_ShortHeaders) as archive,
    ):
        for entry in archive:
            # What the archive remembers of its members would grow without end.
            archive.members = []
            _refuse_outside(entry.name)
            if entry.isdir():
                continue
            # A sparse file could claim any size without a byte in the archive.
            if not entry.isreg() or entry.issparse():
                raise Refused(f"the member {entry.name!r} is no ordinary file; archive the file itself")
            yield entry.name, lambda entry=entry: archive.extractfile(entry).read()


class _ShortHeaders(tarfile.TarInfo):
    """Members without long extended headers, which some versions of tarfile take hours to read."""

    def _proc_pax(self, archive):
        return self._refuse_long() or super()._proc_pax(archive)

    def _proc_gnulong(self, archive):
        return self._refuse_long() or super()._proc_gnulong(archive)

    def _refuse_long(self):
        if self.size > _HEADER_LIMIT:
            raise Refused("it has a member with an extended header of unusual length; make the archive again")


def _beyond(limit: int) -> str:
    return f"beyond the limit of {limit >> 20} MiB; raise limit_mib if that is right"


def _refuse_outside(name: str) -> None:
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or "\\" in name or (parts and parts[0].endswith(":")):
        raise Refused(f"the member {name!r} lies outside of the archive's folder; make the archive again without it")


class _Limited(io.RawIOBase):
    """What an archive unpacks to, up to a limit."""

    def __init__(self, unpacked: io.BufferedIOBase, limit: int):
        self._unpacked, self._left, self._limit = unpacked, limit, limit

    def read(self, size: int = -1) -> bytes:
        content = self._unpacked.read(size if 0 <= size <= self._left else self._left + 1)
        self._left -= len(content)
        if self._left < 0:
            raise Refused(f"it unpacks to more than allowed, {_beyond(self._limit)}")
        return content
