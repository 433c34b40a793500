"""A user's own network: the definitions of a Python file, run only where a job needs them, and their fingerprint."""

import ast
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import yaml

from goldilocks_zone.provenance import fingerprints


@dataclass(frozen=True)
class UserNetwork:
    """A class or function `name` of a Python file, its arguments, and a fingerprint of its code, not of its path."""

    file: str
    name: str
    arguments: dict
    fingerprint: str

    def record(self, label: str) -> dict:
        """Entries of the network's record: everything but the path of its file."""
        return {"label": label, "name": self.name, "arguments": self.arguments, "fingerprint": self.fingerprint}


def describe(file: str, name: str, arguments: dict) -> UserNetwork:
    """The network of a Python file. Raises ValueError if the file is missing, not Python, or without the name."""
    path = Path(file).expanduser()
    try:
        tree = ast.parse(path.read_bytes())
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}): give the path of a Python file") from None
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"{path} is not valid Python ({error}): correct it") from None
    defined = sorted(node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef))
    if name not in defined:
        others = ", ".join(defined) or "none"
        raise ValueError(f"{path} defines no class or function {name!r}: it has {others}")
    return UserNetwork(str(path), name, arguments, fingerprints.tree_fingerprint(tree, name, arguments))


def recorded(path_to_record: str | Path | None, file: str) -> UserNetwork | None:
    """Read a network from its record and its file; None without a record, for networks that are not the user's own."""
    if path_to_record is None:
        return None
    known = yaml.safe_load(Path(path_to_record).read_text(encoding="utf-8"))
    return UserNetwork(file, known["name"], known["arguments"], known["fingerprint"])


def load(network: UserNetwork) -> Callable:
    """Import the class or function. Raises ValueError if its file has changed since `describe`, or fails when run."""
    path = Path(network.file)
    if describe(network.file, network.name, network.arguments) != network:
        raise ValueError(f"{path} has changed since the workflow started: run again")
    module = ModuleType(f"own_code_{path.stem}")
    module.__file__ = str(path)
    # Dataclasses, for example, look up their module by name.
    sys.modules[module.__name__] = module
    try:
        exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        raise ValueError(
            f"{path} fails when it is run ({type(error).__name__}: {error}): correct it, and let it need no other file"
        ) from error
    return getattr(module, network.name)
