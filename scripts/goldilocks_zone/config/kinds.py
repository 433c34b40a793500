"""Kinds of studies: each is registered by its module in `goldilocks_zone.measurements`, as `KIND`, and nowhere else."""

import functools
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

if TYPE_CHECKING:
    from goldilocks_zone.config.models import Study

F = TypeVar("F", bound=Callable)
PACKAGE, ROOM = "goldilocks_zone", "measurements"
USUAL = "curvature"  # the kind of a study that names none


@dataclass(frozen=True)
class Kind:
    """A kind of study: the model of its settings, and what a job of it needs beside what `execution` says.

    `memory_mib` is for torch, the data and the results. `seconds` is a job's overhead, most of it for imports. `speeds`
    are operations in a second of one core of 2026, by the kinds of work that `Study.work` names. `module` has
    `measure_block(job)` and OBSERVABLES; it is the kind's own where it has no other.
    """

    model: type["Study"]
    memory_mib: int
    seconds: float
    speeds: Mapping[str, float]
    module: str = ""

    @property
    def name(self) -> str:
        """The value of a study's key `kind`."""
        return get_args(self.model.model_fields["kind"].annotation)[0]

    @property
    def path(self) -> str:
        """The module that measures, by its name below the package."""
        return f"{ROOM}.{self.module or self.name}"

    def load(self) -> Any:
        """The module that measures, which is slow to import."""
        return importlib.import_module(f"{PACKAGE}.{self.path}")


def changes_no_number(function: F) -> F:
    """Mark a function of a measurement's module that fingerprints leave out, for it only checks or plans."""
    return function


@functools.cache
def known() -> dict[str, Kind]:
    """All kinds by name, the usual one first."""
    folder = Path(importlib.import_module(f"{PACKAGE}.{ROOM}").__path__[0])
    # Beside them lie modules that are slow to import.
    names = [path.stem for path in sorted(folder.glob("*.py")) if "\nKIND = " in path.read_text(encoding="utf-8")]
    kinds = [importlib.import_module(f"{PACKAGE}.{ROOM}.{name}").KIND for name in names]
    return {kind.name: kind for kind in sorted(kinds, key=lambda kind: kind.name != USUAL)}
