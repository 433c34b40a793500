"""Iteration over the files of a dataset in a folder or an archive, without unpacking to the disk.

Names and kinds of members are checked all the same: an archive that is not plain is not trusted.
"""

import bz2
import gzip
import io
import lzma
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from goldilocks_zone.data import catalogue, folders

# Name below the dataset's folder, and a function that reads the file, to be called before the next; None for a folder.
Member = tuple[str, Callable[[], bytes] | None]
_TAR_ARCHIVES = {".tar.xz": lzma.open, ".tar.gz": gzip.open, ".tgz": gzip.open, ".tar.bz2": bz2.open, ".tar": open}
_HEADER_LIMIT = 1 << 14
_UTF_8_FLAG = 1 << 11


class Refused(ValueError):
    """A dataset cannot be used; the message is one sentence with the file, the reason and what to do."""


def members_of(path: Path, limit: int) -> Iterator[Member]:
    """Iterate over all files and folders of a dataset, unpacking at most `limit` bytes. Raises Refused."""
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

        def read(file=file):
            if not file.is_file():
                raise Refused(f"{file.name!r} is no file, or a link to none; remove it")
            if file.stat().st_size > limit:
                raise Refused(f"{file.name!r} has {file.stat().st_size >> 20} MiB, {beyond(limit)}")
            return file.read_bytes()

        is_folder = file.is_dir()
        if is_folder and file.is_symlink() and folders.place_of(name):
            raise Refused(f"{file.name!r} is a link to a folder; put the folder itself there")
        yield name, None if is_folder else read


def _zip_members(path: Path, limit: int) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        left = limit
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
                nonlocal left
                with archive.open(entry) as member:
                    content = member.read(left + 1)
                left -= len(content)
                if left < 0:
                    raise Refused(f"it unpacks to more than allowed, {beyond(limit)}")
                return content

            yield _name_of(entry), read


def _name_of(entry: zipfile.ZipInfo) -> str:
    """Name of a zip's member; many tools write UTF-8 without setting its flag."""
    if entry.flag_bits & _UTF_8_FLAG or entry.filename.isascii():
        return entry.filename
    try:
        return entry.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        raise Refused(
            f"the name of the member {entry.filename!r} is in an alphabet that the archive does not tell; archive it "
            "with names in UTF-8, or as .tar.gz"
        ) from None


def _tar_members(path: Path, unpack: Callable, limit: int) -> Iterator[Member]:
    with (
        unpack(path, "rb") as unpacked,
        tarfile.open(fileobj=_Limited(unpacked, limit), mode="r|", tarinfo=_ShortHeaders) as archive,
    ):
        for entry in archive:
            # The list of members would grow without bound.
            archive.members = []
            _refuse_outside(entry.name)
            if entry.isdir():
                yield entry.name, None
                continue
            # A sparse file may claim any size without a byte in the archive.
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


def beyond(limit: int) -> str:
    return f"beyond the limit of {limit >> 20} MiB; raise limit_mib if that is right"


def _refuse_outside(name: str) -> None:
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or "\\" in name or (parts and parts[0].endswith(":")):
        raise Refused(f"the member {name!r} lies outside of the archive's folder; make the archive again without it")


class _Limited(io.RawIOBase):
    """Unpacked content of an archive, up to a limit in bytes."""

    def __init__(self, unpacked: io.BufferedIOBase, limit: int):
        self._unpacked, self._left, self._limit = unpacked, limit, limit

    def read(self, size: int = -1) -> bytes:
        content = self._unpacked.read(size if 0 <= size <= self._left else self._left + 1)
        self._left -= len(content)
        if self._left < 0:
            raise Refused(f"it unpacks to more than allowed, {beyond(self._limit)}")
        return content
