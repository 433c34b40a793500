"""Networks that users define in Python files: fingerprints of their code, which runs only in the jobs that need it."""

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
    """Network that the class or function `name` in a Python `file` returns when it is called with `arguments`.

    `fingerprint` depends on the code, the name and the arguments, not on the path of the file.
    """

    file: str
    name: str
    arguments: dict
    fingerprint: str

    def record(self, label: str) -> dict:
        """Return the dictionary that is recorded about the network: its `label`, and all fields but the file's path."""
        return {"label": label, "name": self.name, "arguments": self.arguments, "fingerprint": self.fingerprint}


def describe(file: str, name: str, arguments: dict) -> UserNetwork:
    """Describe a network that a Python file defines, without running the file.

    `arguments` are the keyword arguments with which its class or function `name` is called. Raises ValueError if the
    file cannot be read, is not valid Python, or defines no class or function `name`.
    """
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
        raise ValueError(f"{path} defines no class or function {name!r}: correct the name; it defines {others}")
    return UserNetwork(str(path), name, arguments, fingerprints.tree_fingerprint(tree, name, arguments))


def recorded(path_to_record: str | Path | None, file: str) -> UserNetwork | None:
    """Read the description of a user's network from its record, a YAML file, and add the path `file` of its code.

    Returns None if `path_to_record` is None, which means that the network is not a user's own.
    """
    if path_to_record is None:
        return None
    known = yaml.safe_load(Path(path_to_record).read_text(encoding="utf-8"))
    return UserNetwork(file, known["name"], known["arguments"], known["fingerprint"])


def load(network: UserNetwork) -> Callable:
    """Run the file of a network and return its class or function.

    Raises ValueError if the code has changed since `describe`, or if the file fails when it is run.
    """
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
            f"{path} fails when it is run ({type(error).__name__}: {error}): correct it, and let it import no other "
            "file"
        ) from error
    return getattr(module, network.name)
