"""Atomic writing, linking and removal of files, and reasons for failures of the disk.

A file is written under a temporary name and renamed once it is complete, so that a file with its final name is whole.
"""

import errno
import fcntl
import hashlib
import os
import re
import shutil
import socket
import tarfile
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

FULL_DISK_BYTES = 1 << 20  # A disk with less free space counts as full.
# Errors of broken disks and network drives.
_FAULTS_OF_DRIVES = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EREMOTEIO, errno.EHOSTDOWN)
_TEMPORARY = re.compile(r"\..*\.(?P<host>[^.]*)-(?P<process>\d+)-[0-9a-f]{32}(\.\w+)?")


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Create the folder of `path`; explain by an OSError of one sentence why the with statement fails to write there.

    The explanations are a full disk, a read-only disk and missing rights. If none applies, the exception passes
    unchanged.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except Exception as error:
        if reason := _unwritable(path, error):
            raise OSError(f"{path} cannot be written: {reason} and run again") from error
        raise


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Context that yields a temporary path beside `path`, at which the with statement writes a file.

    The file is renamed to `path` if the with statement succeeds, and removed if it fails. Raises OSError with one
    sentence if the disk is full or the folder is not writable.
    """
    path = Path(path)
    owner = f"{_host()}-{os.getpid()}-{uuid.uuid4().hex}"
    temporary = path.with_name(f".{path.stem[:80]}.{owner}{path.suffix}")
    with writing(path):
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def member(archive: tarfile.TarFile, entry: tarfile.TarInfo | str) -> bytes:
    """Content of a member of a tar archive, given by its entry or name; it must be a regular file, or a link to one."""
    content = archive.extractfile(entry)
    assert content is not None, f"{entry} is no regular file"
    return content.read()


def write_text(text: str, path: str | Path) -> None:
    """Write a text in UTF-8, atomically."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_if_changed(text: str, path: str | Path) -> None:
    """Write a text unless the file already has this content, so that its modification time stays."""
    path = Path(path)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_text(text, path)


def link(source: str | Path, path: str | Path) -> None:
    """Make `path` a hard link to the file `source` or, where links are impossible, a copy of it; this is atomic."""
    source = Path(source).resolve()
    with whole_file(path) as temporary:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copy2(source, temporary)


def remove_leftovers(folders: Iterable[str | Path]) -> None:
    """Remove the temporary files below `folders` that killed processes of this machine left behind."""
    for folder in folders:
        for path in Path(folder).rglob(".*-*-*"):
            match = _TEMPORARY.fullmatch(path.name)
            if match and match["host"] == _host() and not is_alive(int(match["process"])):
                path.unlink(missing_ok=True)


def remove(path: Path) -> None:
    """Remove a file or a folder; keep a link to a folder, which redirects storage, and remove the folder's content.

    Raises OSError with one sentence if something cannot be removed.
    """
    try:
        if path.is_symlink() and path.is_dir():
            for each in path.iterdir():
                remove(each)
        elif path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    except OSError as error:
        if error.strerror is None:
            raise
        place = error.filename or path
        raise OSError(f"{place} cannot be removed ({error.strerror}): remove it and run again") from error


def sha256(content: str | bytes) -> str:
    """SHA-256 of bytes, or of a text in UTF-8, as hexadecimal digits."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def is_temporary(path: Path) -> bool:
    """Whether a path has the form of the temporary paths of `whole_file`."""
    return bool(_TEMPORARY.fullmatch(path.name))


def refuse_unwritable(folders: Iterable[str | Path]) -> None:
    """Raise OSError with one sentence if a folder is not writable, is on a full disk or is a broken link.

    Folders that do not exist are accepted.
    """
    for folder in map(Path, folders):
        if folder.is_symlink() and not folder.exists():
            place = folder.readlink()
            raise OSError(f"{folder} is a link to {place}, which is not there: make that folder and run again")
        if folder.exists():
            code = None if os.access(folder, os.W_OK) else errno.EROFS
            if reason := _unwritable(folder / "file", OSError(code, "")):
                raise OSError(f"{folder} cannot be written: {reason} and run again")


def refuse_unreadable(path: str | Path) -> None:
    """Raise OSError with one sentence if a file cannot be read for a reason that `unreadable` knows.

    Called after a failure to read the file, to distinguish an unreadable file from a damaged one.
    """
    try:
        with open(path, "rb") as file:
            while file.read(1 << 20):
                pass
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        if reason := unreadable(error):
            raise OSError(f"{path} cannot be read: {reason} and run again") from error


def unreadable(error: BaseException) -> str | None:
    """Reason, with advice, why reading a file failed with the exception `error`: rights, a lock, or a faulty drive.

    None for other errors, which may come from the content of the file.
    """
    code = getattr(error, "errno", None)
    if code in (errno.EACCES, errno.EPERM):
        return "this user may not read it; change its mode"
    if code == errno.EAGAIN:
        return "another program has it open to write; close it there"
    if code in _FAULTS_OF_DRIVES:
        return f"its drive says {os.strerror(code)}; check the drive"
    return None


def _host() -> str:
    return socket.gethostname().split(".")[0]


def is_alive(process: int) -> bool:
    """Whether a process with this ID is running on this machine."""
    try:
        os.kill(process, 0)
    except OSError as error:
        return isinstance(error, PermissionError)
    return True


def _unwritable(path: Path, error: Exception) -> str | None:
    """Reason, with advice, why writing to `path` failed with the exception `error`; None if the reason is unknown.

    Always checks for a full disk, because some libraries, such as netCDF, report only that writing failed.
    """
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    code = getattr(error, "errno", None)
    if code in (errno.ENOSPC, errno.EDQUOT) or shutil.disk_usage(folder).free < FULL_DISK_BYTES:
        return "the disk is full; make room"
    if code == errno.EROFS:
        return f"{folder} is read-only; make it writable"
    if code in (errno.EACCES, errno.EPERM):
        return f"this user has no right to write in {folder}; change its mode"
    return None
