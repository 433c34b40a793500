"""Reader of a dataset of images in folders or an archive: train/<class>/<image> and test/<class>/<image>.

Images are PNG or JPEG. Archives are not trusted: their members are checked, and never unpacked to disk.
"""

import bz2
import gzip
import io
import logging
import lzma
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np
from PIL import Image, ImageOps

from goldilocks_zone.data import catalogue, folders
from goldilocks_zone.storage import files

FORMATS = ("PNG", "JPEG")
# First bytes of other formats, to name them without decoding.
_OTHER_FORMATS = {b"BM": "BMP", b"II*\0": "TIFF", b"MM\0*": "TIFF", b"RIFF": "WebP", b"GIF8": "GIF"}
_PNG_BIT_DEPTH = 24  # position of the byte with the bit depth in a PNG file
_CONVERSION = (
    '.venv/bin/python -c "import pathlib, PIL.Image as I, PIL.ImageOps as O; '
    "[O.exif_transpose(I.open(p)){change} for p in pathlib.Path({folder!r}).rglob('*{suffix}')]\""
)
# Pillow clips 16-bit grey levels (modes I…) on conversion to 8 bits instead of scaling them.
_AS_8_BIT = {"I": ".convert('I').point(lambda v: v / 257).convert('L')", "L": ".convert('L')"}
_AS_COLOUR = ".convert('RGB')"

Key = tuple[str, str, str]  # split, class, file
# Name relative to the dataset's folder, and a function that reads the file. The function must be called before the next
# member is requested; it is None for a folder.
Member = tuple[str, Callable[[], bytes] | None]
_TAR_ARCHIVES = {".tar.xz": lzma.open, ".tar.gz": gzip.open, ".tgz": gzip.open, ".tar.bz2": bz2.open, ".tar": open}
_EXTENDED_HEADERS = {b"L", b"K", b"x", b"g", b"X"}  # GNU's long names and links, and headers of pax
_HEADER_LIMIT = 1 << 14
_UTF_8_FLAG = 1 << 11


def read(path: Path, limit: int) -> tuple[np.ndarray, np.ndarray, list[str], list[str]]:
    """Read the folder or archive of images at `path`.

    Returns images (n, c, h, w), uint8, class numbers (n,), the split of each image (train, val or test), and the names
    of the classes. Classes are sorted by name, or by value if all names are numbers. Raises Refused for invalid data,
    and before data take more than `limit` bytes.
    """
    found: dict[Key, np.ndarray] = {}
    classes: set[str] = set()
    for key, member, content in _placed(members_of(path, limit)):
        classes.add(key[1])
        if content is None:
            continue
        if key in found:
            raise Refused(f"{member!r} is there twice; keep one of them")
        expected = next((image.shape[1:] for image in found.values()), None)
        found[key] = _decoded(path, member, content(), expected, limit)
        # Count three channels each: greyscale images become colour if others are.
        pixels = 3 * found[key][0].size * len(found)
        if pixels > limit:
            raise Refused(f"its images take {pixels >> 20} MiB of memory, {beyond(limit)}")
    if not found:
        raise Refused("it holds no images in train/<class>/ and test/<class>/; put them there")
    order = sorted(found)
    names = sorted(classes, key=(lambda name: (int(name), name)) if all(map(str.isdecimal, classes)) else None)
    channels = max(len(image) for image in found.values())
    images = np.empty((len(order), channels, *found[order[0]].shape[1:]), np.uint8)
    for i, key in enumerate(order):
        images[i] = found.pop(key)
    numbers = {name: i for i, name in enumerate(names)}
    return images, np.array([numbers[name] for _, name, _ in order]), [split for split, *_ in order], names


def _placed(members: Iterator[Member]) -> Iterator[tuple[Key, str, Callable[[], bytes] | None]]:
    """Yield (key, name, reader) for each image, and for each class's folder, among `members`.

    The key is (split, class, file), the name is the member's path, and the reader is a function that returns the file's
    bytes. For a folder, the file in the key is empty and the reader is None. Files outside of all splits are left out,
    with a warning. Raises Refused if an image is not at train/<class>/<image> or the like, if there is a second
    dataset, or if two folders stand for the same split.
    """
    around, spelled, outside = set(), {}, set()
    for member, content in members:
        parts, place = folders.parts_of(member), folders.place_of(member)
        if place is None:
            if content and not any(map(folders.is_left_behind, parts)):
                outside.add(parts[0] if len(parts) == 1 else f"{parts[0]}/")
            continue
        # An archive may hold one folder around train and test.
        if len(place.around) > 1 or (content and len(place.below) != 2):
            raise Refused(f"{member!r} is out of place; put images into train/<class>/ and test/<class>/")
        around.add(place.around)
        if len(around) > 1:
            raise Refused(f"{member!r} belongs to another dataset than the files before it; keep only one dataset")
        split = folders.SPLITS[place.split.casefold()]
        if spelled.setdefault(split, place.split) != place.split:
            both = f"{spelled[split]!r} and {place.split!r}"
            raise Refused(f"the folders {both} stand for the same split; keep one of them")
        if content:
            folder, file = place.below
            yield (split, folder, file), member, content
        elif len(place.below) == 1:
            yield (split, place.below[0], ""), member, None
    if outside:
        logging.warning("left out, for it lies in neither train/ nor test/: %s", ", ".join(sorted(outside)))


def _decoded(path: Path, member: str, content: bytes, expected: tuple[int, int] | None, limit: int) -> np.ndarray:
    """Decode `content`, the bytes of an image, to an array (1 or 3, h, w), rotated as its EXIF metadata say.

    `expected` is the required size (h, w), or None for any size. Raises Refused for another size, for unsupported
    formats, and, before decoding, for an image that takes more than `limit` bytes. The message names `member`, the path
    of the image, and advises for all images of the dataset at `path`.
    """
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            width, height = image.size
            if width * height * 3 > limit:
                raise Refused(f"{member!r} has {width}×{height} pixels, which take memory {beyond(limit)}")
            depth = content[_PNG_BIT_DEPTH] if image.format == "PNG" else 8
            plain = image.mode in ("1", "P") or (image.mode in ("L", "LA", "RGB", "RGBA") and depth == 8)
            if not plain:
                bits = f", {depth} bits" if image.format == "PNG" else ""
                advice = _converted(path, member, f"{_AS_8_BIT.get(image.mode[:1], _AS_COLOUR)}.save(p)")
                raise Refused(f"{member!r} has the colour mode {image.mode}{bits}; save it as 8-bit, {advice}")
            image = ImageOps.exif_transpose(image)
            if expected and image.size != (expected[1], expected[0]):
                sizes = f"{image.size[0]}×{image.size[1]} pixels, but images before it {expected[1]}×{expected[0]}"
                advice = _converted(path, member, f".resize(({expected[1]}, {expected[0]})).save(p)")
                raise Refused(f"{member!r} has {sizes}; give all images one size, {advice}")
            return _levels(path, member, image)
    except Refused:
        raise
    except Exception:
        found = next((name for start, name in _OTHER_FORMATS.items() if content.startswith(start)), None)
        if not found:
            raise Refused(f"{member!r} is no readable image; use PNG or JPEG") from None
        advice = _converted(path, member, ".save(p.with_suffix('.png')) or p.unlink()")
        sentence = f"{member!r} is a {found}, but only PNG and JPEG can be read; replace it by a PNG, {advice}"
        raise Refused(sentence) from None


def _levels(path: Path, member: str, image: Image.Image) -> np.ndarray:
    """Grey levels (1, h, w) or colours (3, h, w) of an image, from 0 to 255.

    Black-and-white images get the levels 0 and 255. Images with a palette become colours, or grey levels if all their
    colours are grey. Raises Refused for images that are transparent anywhere. The message names `member`, the path of
    the image, and advises for all images of the dataset at `path`.
    """
    has_palette = image.mode == "P"
    if image.has_transparency_data:
        image = image.convert("LA" if image.mode in ("1", "L", "LA") else "RGBA")
        if np.asarray(image.getchannel("A")).min() < 255:
            advice = _converted(path, member, ".convert('RGBA').convert('RGB').save(p)")
            raise Refused(f"{member!r} is transparent in places; make it opaque, {advice}")
    grey = image.mode in ("1", "L", "LA")
    array = np.asarray(image.convert("L" if grey else "RGB"))
    if has_palette and (array == array[:, :, :1]).all():
        array, grey = array[:, :, 0], True
    return array[None] if grey else array.transpose(2, 0, 1)


def _converted(path: Path, member: str, change: str) -> str:
    """Advice for the message of an error: a shell command that converts images of the dataset at `path`.

    The command opens every image with the same suffix as the image `member`, and applies the Python code `change` to
    it. `change` is a chain of method calls, such as `.save(p)`, where p is the path of the image.
    """
    folder = str(path) if path.is_dir() else "."
    place = "for example with" if path.is_dir() else "for example, in the folder that you unpack it to, with"
    return f"{place}: {_CONVERSION.format(change=change, folder=folder, suffix=Path(member).suffix)}"


class Refused(ValueError):
    """Error: a dataset cannot be used; the message has the reason."""


def members_of(path: Path, limit: int) -> Iterator[Member]:
    """Yield (name, reader) for each file and folder of the dataset at `path`, which is a folder or an archive.

    The reader is a function that returns the file's bytes; for a folder, it is None. It must be called before the next
    member is requested. Raises Refused for unsafe or unknown content, and for content beyond `limit` bytes.
    """
    kind = catalogue.suffix_of(path.name)
    if path.is_dir():
        yield from _folder_members(path, limit)
    elif kind == ".zip":
        yield from _zip_members(path, limit)
    elif kind in _TAR_ARCHIVES:
        yield from _tar_members(path, _TAR_ARCHIVES[kind], limit)
    else:
        raise Refused(f"its kind is unknown; use a folder or {', '.join(filter(None, catalogue.SUFFIXES))}")


def _folder_members(path: Path, limit: int) -> Iterator[Member]:
    def fail(error):
        raise error

    for name, file in folders.walk(path, onerror=fail):

        def read(name=name, file=file):
            if not file.is_file():
                raise Refused(f"{name!r} is not a regular file, or is a broken link; remove it")
            if file.stat().st_size > limit:
                raise Refused(f"{file.name!r} has {file.stat().st_size >> 20} MiB, {beyond(limit)}")
            return file.read_bytes()

        if file.is_dir() and file.is_symlink() and folders.place_of(name):
            raise Refused(f"{file.name!r} is a link to a folder; put the folder itself there")
        yield name, None if file.is_dir() else read


def _zip_members(path: Path, limit: int) -> Iterator[Member]:
    limited = _Limited(limit)
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            _refuse_outside(entry.filename)
            if stat.S_ISLNK(entry.external_attr >> 16):
                raise Refused(f"the member {entry.filename!r} is a link; archive the file itself")
            if entry.flag_bits & 1:
                raise Refused(f"the member {entry.filename!r} is encrypted; archive it without a password")
            if entry.is_dir():
                yield _name_of(entry), None
                continue

            def read(entry=entry):
                with archive.open(entry) as limited.unpacked:
                    return limited.read()

            yield _name_of(entry), read


def _name_of(entry: zipfile.ZipInfo) -> str:
    """Name of a zip archive's member, decoded as UTF-8 even if a tool did not set the flag for this encoding.

    Raises Refused for other encodings.
    """
    if entry.flag_bits & _UTF_8_FLAG or entry.filename.isascii():
        return entry.filename
    try:
        return entry.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        name = f"the name of the member {entry.filename!r} is in an encoding that the archive does not state"
        raise Refused(f"{name}; archive it with names in UTF-8, or as .tar.gz") from None


def _tar_members(path: Path, unpack: Callable, limit: int) -> Iterator[Member]:
    with (
        unpack(path, "rb") as unpacked,
        tarfile.open(fileobj=_Limited(limit, unpacked), mode="r|", tarinfo=_ShortHeaders) as archive,
    ):
        for entry in archive:
            # This list would grow without bound.
            archive.members = []  # pyright: ignore[reportAttributeAccessIssue]
            _refuse_outside(entry.name)
            if entry.isdir():
                yield entry.name, None
                continue
            # A sparse file may claim any size without a byte in the archive.
            if not entry.isreg() or entry.issparse():
                raise Refused(f"the member {entry.name!r} is not a regular file; archive the file itself")
            yield entry.name, lambda entry=entry: files.member(archive, entry)


class _ShortHeaders(tarfile.TarInfo):
    """Member of a tar archive, with a limit on the length of its extended header.

    Reading the archive raises Refused for a header beyond the limit, which some versions of tarfile take hours to read.
    """

    def _proc_member(self, archive):
        if self.type in _EXTENDED_HEADERS and self.size > _HEADER_LIMIT:
            raise Refused("it has a member with an extended header of unusual length; make the archive again")
        return super()._proc_member(archive)  # pyright: ignore[reportAttributeAccessIssue]


def beyond(limit: int) -> str:
    return f"beyond the limit of {limit >> 20} MiB; raise limit_mib if it is meant to be so large"


def _refuse_outside(name: str) -> None:
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or "\\" in name or (parts and parts[0].endswith(":")):
        raise Refused(f"the member {name!r} lies outside of the archive's folder; make the archive again without it")


class _Limited(io.RawIOBase):
    """Reader of unpacked content, with a limit on the total number of bytes.

    The content is a whole archive, or members of an archive that are assigned to `unpacked` one after another. Raises
    Refused once more than `limit` bytes have been read in total.
    """

    def __init__(self, limit: int, unpacked: IO[bytes] | None = None):
        self.unpacked, self._left, self._limit = unpacked, limit, limit

    def read(self, size: int = -1) -> bytes:
        assert self.unpacked is not None  # A member is assigned before it is read.
        content = self.unpacked.read(size if 0 <= size <= self._left else self._left + 1)
        self._left -= len(content)
        if self._left < 0:
            raise Refused(f"it unpacks to more than allowed, {beyond(self._limit)}")
        return content
