"""A user's own network: what a Python file defines, and a fingerprint that reruns follow.

Imports nothing heavy, and runs none of the file's code before a job needs it.
"""

import ast
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import yaml

from goldilocks_zone.provenance import fingerprints


def describe(entry: dict) -> dict:
    """Settings of a network of the configuration's section `networks`: its entry, and a fingerprint.

    The fingerprint is that of the file's code, the name and the arguments; where the file lies does not enter it.
    Raises ValueError in one sentence if the file is missing, is not Python, or does not define the name.
    """
    path = Path(entry["file"]).expanduser()
    try:
        tree = ast.parse(path.read_bytes())
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}): give the path of a Python file") from None
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"{path} is not valid Python ({error}): correct it") from None
    defined = sorted(node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef))
    if entry["name"] not in defined:
        others = ", ".join(defined) or "none"
        raise ValueError(f"{path} defines no class or function {entry['name']!r}: it has {others}")
    fingerprint = fingerprints.tree_fingerprint(tree, entry["name"], entry["arguments"])
    return {**entry, "file": str(path), "fingerprint": fingerprint}


def record(label: str, settings: dict) -> dict:
    """Record of a network that `describe` described: all but the place of its file."""
    return {"label": label, **{key: value for key, value in settings.items() if key != "file"}}


def recorded(path_to_record: str | Path | None, file: str) -> dict | None:
    """The settings of a network from its record and its file; None for a network that is not the user's own."""
    if path_to_record is None:
        return None
    return {**yaml.safe_load(Path(path_to_record).read_text(encoding="utf-8")), "file": file}


def load(settings: dict) -> Callable:
    """The class or function itself, from a file that must still be the one that `describe` saw.

    Raises ValueError in one sentence if the file has changed since or fails when it is run.
    """
    path = Path(settings["file"])
    if describe(settings)["fingerprint"] != settings["fingerprint"]:
        raise ValueError(f"{path} has changed since the workflow started: run again")
    module = ModuleType(f"own_code_{path.stem}")
    module.__file__ = str(path)
    # Dataclasses and the like look their module up by its name.
    sys.modules[module.__name__] = module
    try:
        exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        raise ValueError(
            f"{path} fails when it is run ({type(error).__name__}: {error}): it must be complete in itself"
        ) from error
    return getattr(module, settings["name"])
