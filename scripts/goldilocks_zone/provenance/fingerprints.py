"""Fingerprints: hashes of code that change only if its results could change.

Comments, docstrings and the version of Python do not enter them; pinned versions of libraries do. A record is a text
that holds one fingerprint.
"""

import ast
import functools
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from goldilocks_zone.storage.files import sha256, write_text

Reader = Callable[[Path], tuple[str, set[str]]]
# Hash of a module's code, the names that it imports, and the modules that it imports from, relative to the package.
Summary = tuple[str, list[str], list[str]]
Entry = TypeVar("Entry")  # of a cache: a summary, or the hash of a file's content
PREFIX = "goldilocks_zone."
PACKAGE = Path(__file__).parents[1]
# Rooms (subpackages) and modules that cannot change a number: import-linter forbids them to import array libraries.
EXCLUDED = (
    *("storage", "provenance", "jobs", "data.catalogue", "data.download"),
    # These modules produce the records of settings, which are inputs of jobs and tell them what to compute.
    *("config.checks", "config.documentation", "config.kinds", "config.load", "config.models"),
    *("config.records", "config.values", "config.weights", "figures.registry"),
)
PINNED = ("torch", "numpy", "scipy")
# Fields that differ between versions of Python although the code is the same.
_IGNORED_FIELDS = frozenset({"type_params", "kind", "ctx", "type_comment"})
_OWN_TEXT = Path(__file__).read_text(encoding="utf-8")
CACHE_LIMIT = 1000  # Number of newest entries that are kept, about 0.3 MB.


def records(codes: Iterable[tuple[Path, *tuple[str, ...]]]) -> list[str]:
    """Records of the fingerprints of several `codes`, as texts that end in a line break.

    Each code is a sequence of the path of a script and the modules that the script imports by name at run time. These
    modules must be listed; other imports are found. A module is given by its name relative to the package, or by a path
    that ends in .py.
    """
    read, lock = functools.cache(_read), "requirements.txt"
    found = [code_fingerprint(script, script.parents[1] / lock, read, more) + "\n" for script, *more in codes]
    _cache_of_user().save()
    return found


def record(script: Path, *modules: str) -> str:
    """Record of the fingerprint of one script and the `modules` that it imports by name at run time (see `records`)."""
    return records([(script, *modules)])[0]


def refuse_changed(script: Path, path_to_record: str | Path, *modules: str) -> None:
    """Raise ValueError if the code of a script has changed since its fingerprint was recorded.

    `path_to_record` is a file that contains the result of `record`. The code consists of the script, the `modules` that
    it imports by name at run time, and all that these import from the package.
    """
    if record(script, *modules) != Path(path_to_record).read_text(encoding="utf-8"):
        name = script.name
        raise ValueError(f"scripts/{name}, or code that it uses, has changed since this run was started: run again")


def file_fingerprint(path: Path) -> str:
    """SHA-256 of a file's content, cached while its path, size and times of change stay the same.

    Raises OSError if it cannot be read.
    """
    state = os.stat(path)
    key = sha256(f"{path.absolute()}\0{state.st_size}\0{state.st_mtime_ns}\0{state.st_ctime_ns}")
    return _cache_of_user().recall(key, lambda: _content_hash(path))


def _content_hash(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree_fingerprint(tree: ast.Module, *more: object) -> str:
    """SHA-256 of the syntax `tree` of a user's file, without docstrings, and of `more` values.

    The values must be serialisable as JSON.
    """
    return sha256(json.dumps([_canonical(tree, _is_docstring), *more], sort_keys=True))


def code_fingerprint(script: Path, requirements: Path, read: Reader | None = None, modules: Iterable[str] = ()) -> str:
    """SHA-256 of the code of a script and of `modules`, all that they import from the package, and library versions.

    `requirements` is the lock file, from which the pinned versions are read. `read` is a function from the path of a
    module to the hash of its code and the names of its imports; by default, it is `_read`.
    """
    read, modules = read or _read, list(modules)
    paths = {path.name: path for path in (script, *map(module_path, filter(_is_path, modules)))}
    paths |= {name: module_path(name) for name in imported_modules(script, read, modules)}
    lines = [f"{name} {read(path)[0]}" for name, path in sorted(paths.items())]
    return sha256("\n".join([*lines, *pinned_versions(requirements)]))


def imported_modules(script: Path, read: Reader | None = None, modules: Iterable[str] = ()) -> set[str]:
    """Names of the package's modules that `script` and `modules` import, directly or indirectly.

    The names among `modules` are included, and paths are not. Imports in EXCLUDED are left out. `read` is as in
    `code_fingerprint`.
    """
    read, waiting = read or _read, [script, *map(module_path, modules)]
    found = {name for name in modules if not _is_path(name)}
    while waiting:
        for name in read(waiting.pop())[1]:
            if name not in found and not any(f"{name}.".startswith(f"{excluded}.") for excluded in EXCLUDED):
                found.add(name)
                waiting.append(module_path(name))
    return found


def module_path(name: str) -> Path:
    """Path of a module, given by its name relative to the package or by its path."""
    return Path(name) if _is_path(name) else PACKAGE / (name.replace(".", "/") + ".py")


def _is_path(name: str) -> bool:
    return name.endswith(".py")


def pinned_versions(requirements: Path) -> list[str]:
    """Lines such as `numpy==2.1.0` of a lock file, for the libraries PINNED, whose versions can change a number."""
    pattern = re.compile(rf"(?:{'|'.join(PINNED)})==\S+")
    return sorted(match[0] for match in map(pattern.match, requirements.read_text().splitlines()) if match)


def _read(path: Path) -> tuple[str, set[str]]:
    """Hash of a module's code, and the names of the modules that it imports, relative to the package.

    An imported subpackage counts as all its modules.
    """
    text = path.read_text(encoding="utf-8")
    left_out = _changes_no_number if PACKAGE.parent in path.absolute().parents else _is_docstring
    # The key contains the text of this module, on which summaries depend too.
    key = sha256(_OWN_TEXT + left_out.__name__ + text)
    code, names, origins = _cache_of_user().recall(key, lambda: _summary(text, left_out))
    folders = {name: PACKAGE / name.replace(".", "/") for name in names}
    discovered = {f"{name}.{path.stem}" for name, folder in folders.items() for path in folder.glob("[!_]*.py")}
    return code, discovered | {name for name in {*names, *origins} if module_path(name).is_file()}


def _summary(text: str, left_out: Callable[[ast.AST], bool]) -> Summary:
    tree = ast.parse(text)
    names, origins = (
        sorted(name.removeprefix(PREFIX) for name in names if name.startswith(PREFIX)) for names in _imports(tree)
    )
    return sha256(_canonical(tree, left_out)), names, origins


class Cache:
    """Cache of hashes of files and of summaries of modules (see Summary).

    It is kept in the file `path` or, if `path` is None, only in memory. The key of an entry is a hash of what the entry
    is computed from, such as a module's text. A file that is missing, damaged or not writable is ignored. Without the
    cache, every call that loads the workflow would spend half a second on parsing a hundred modules, and more on
    reading files of weights.
    """

    def __init__(self, path: Path | None):
        self._path, self._entries, self._changed = path, {}, False
        if path is None:
            return
        with suppress(OSError, ValueError):
            checksum, _, content = path.read_text(encoding="utf-8").partition("\n")
            if checksum == sha256(content):
                self._entries = json.loads(content)

    def recall(self, key: str, compute: Callable[[], Entry]) -> Entry:
        """Return the entry of `key`; if there is none, compute it with `compute` and store it."""
        if key not in self._entries:
            self._entries[key], self._changed = compute(), True
        return self._entries[key]

    def save(self) -> None:
        """Write new entries, if possible; if two processes save at once, one may lose its entries."""
        if self._changed and self._path:
            content = json.dumps(dict(list(self._entries.items())[-CACHE_LIMIT:]))
            with suppress(OSError):
                write_text(f"{sha256(content)}\n{content}", self._path)
        self._changed = False


def _cache_of_user() -> Cache:
    """The cache in the user's cache folder, which is read once per process.

    The folder is that in XDG_CACHE_HOME or, by default, ~/.cache. A relative path in the variable is ignored, as XDG
    specifies.
    """
    folder = os.environ.get("XDG_CACHE_HOME", "")
    path = Path(folder if os.path.isabs(folder) else os.path.expanduser("~/.cache"), "goldilocks/fingerprints.json")
    return _opened(path if path.is_absolute() else None)


_opened = functools.cache(Cache)


def _imports(tree: ast.Module) -> tuple[set[str], set[str]]:
    """Full names of all that a syntax tree imports, and names of the modules after `from`, as two sets.

    `from a import b` gives a.b in the first set and a in the second; `import a` gives a in the first. Raises ValueError
    for relative imports.
    """
    names, origins = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(
                    f"the relative import in line {node.lineno} cannot be traced: import modules by their full name"
                )
            origins.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names, origins


def _canonical(node: object, left_out: Callable[[ast.AST], bool]) -> str:
    """Text of a syntax tree that is the same on every supported version of Python.

    Statements for which `left_out` is true are left out.
    """
    if isinstance(node, list):
        return "[" + ",".join(_canonical(each, left_out) for each in node) + "]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = []
    for name, value in ast.iter_fields(node):
        if name == "body" and isinstance(value, list):
            value = [part for part in value if not left_out(part)]
        if name not in _IGNORED_FIELDS and value not in (None, []):
            fields.append(f"{name}={_canonical(value, left_out)}")
    return f"{type(node).__name__}({','.join(fields)})"


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _changes_no_number(node: ast.AST) -> bool:
    """Whether a statement of the package cannot change a result.

    Such statements are docstrings, functions marked by `config.kinds.changes_no_number`, and assignments to KIND, which
    register a kind of study with the costs of its jobs.
    """
    if _is_docstring(node):
        return True
    if isinstance(node, ast.Assign):
        return [getattr(target, "id", "") for target in node.targets] == ["KIND"]
    return any(getattr(mark, "id", "") == "changes_no_number" for mark in getattr(node, "decorator_list", ()))
