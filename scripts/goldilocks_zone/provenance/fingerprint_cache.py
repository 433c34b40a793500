"""Cache of what fingerprints need of modules, by the hash of their text, in the user's cache folder.

Parsing a hundred modules takes half a second, which every call that loads the workflow would pay. The cache saves time
and nothing else: one that is missing or damaged is ignored, and so is one that cannot be written.
"""

import functools
import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from goldilocks_zone.storage import files

# Hash of a module's code, and names below the package that it imports, and imports from.
Summary = tuple[str, list[str], list[str]]
# The newest entries that are kept, about 0.3 MB.
LIMIT = 1000


class Cache:
    """The entries of the file `path`, or of none; those of a damaged file are ignored."""

    def __init__(self, path: Path | None):
        self._path, self._entries, self._changed = path, {}, False
        with suppress(OSError, ValueError, AttributeError):
            checksum, _, content = path.read_text(encoding="utf-8").partition("\n")
            if checksum == _checksum(content):
                self._entries = json.loads(content)

    def recall(self, key: str, compute: Callable[[], Summary]) -> Summary:
        """The entry of `key`, computed if it is new."""
        if key not in self._entries:
            self._entries[key], self._changed = compute(), True
        return self._entries[key]

    def save(self) -> None:
        """Write new entries, if that is possible; of two processes at once, one may lose its own."""
        if self._changed and self._path:
            content = json.dumps(dict(list(self._entries.items())[-LIMIT:]))
            with suppress(OSError):
                files.write_text(f"{_checksum(content)}\n{content}", self._path)
        self._changed = False


def of_user() -> Cache:
    """The cache in the user's cache folder, read once a process; relative folders do not count, as XDG specifies."""
    folder = os.environ.get("XDG_CACHE_HOME", "")
    path = Path(folder if os.path.isabs(folder) else os.path.expanduser("~/.cache"), "goldilocks/fingerprints.json")
    return _opened(path if path.is_absolute() else None)


_opened = functools.cache(Cache)


def _checksum(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()
