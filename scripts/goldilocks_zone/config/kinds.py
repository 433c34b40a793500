"""Kinds of studies, each registered as `KIND` by its module in `goldilocks_zone.measurements`."""

import functools
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

if TYPE_CHECKING:
    from goldilocks_zone.config.models import Study

PACKAGE, ROOM = "goldilocks_zone", "measurements"
USUAL = "curvature"  # the default kind of a study
CUTS = f"{ROOM}.loss_slices"  # the module that measures cuts


@dataclass(frozen=True)
class Kind:
    """A kind of study: `model`, the class of its settings, and properties of its jobs."""

    model: type["Study"]
    memory_mib: int  # for torch, data and results
    seconds: float  # overhead of a job, mostly imports
    speeds: Mapping[str, float]  # operations per second of one core of 2026, by `Study.work`
    priority: int = 0  # of its jobs; kinds with the longest jobs come first, so that no long job is left to the end
    draws_data: bool = False  # accepts datasets in the plane, drawn anew for each initialisation
    draws_worlds: bool = False  # accepts worlds, drawn anew for each initialisation and step
    module: str = ""  # defines `measure_block(job)` and OBSERVABLES; by default named after the kind

    @property
    def name(self) -> str:
        """Name of the kind, which is the value of the key `kind` in the settings of its studies."""
        return get_args(self.model.model_fields["kind"].annotation)[0]

    @property
    def path(self) -> str:
        """Name of the module that measures studies of this kind, relative to the package."""
        return f"{ROOM}.{self.module or self.name}"

    def load(self) -> Any:
        """Import and return the module that measures studies of this kind, which is slow to import."""
        return importlib.import_module(f"{PACKAGE}.{self.path}")


def changes_no_number(function: Callable) -> Callable:
    """Decorator that marks a function that only checks or plans; it returns the function unchanged.

    Fingerprints of code leave out marked functions, so that an edit to them does not make results obsolete.
    """
    return function


@functools.cache
def known() -> dict[str, Kind]:
    """All kinds of studies, by name; the first is USUAL, the default."""
    folder = Path(importlib.import_module(f"{PACKAGE}.{ROOM}").__path__[0])
    # Other modules there are slow to import.
    names = [path.stem for path in sorted(folder.glob("*.py")) if "\nKIND = " in path.read_text(encoding="utf-8")]
    kinds = [importlib.import_module(f"{PACKAGE}.{ROOM}.{name}").KIND for name in names]
    return {kind.name: kind for kind in sorted(kinds, key=lambda kind: kind.name != USUAL)}
