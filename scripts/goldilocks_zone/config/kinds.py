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
USUAL = "curvature"  # the kind of a study that names none
CUTS = f"{ROOM}.loss_slices"  # the module that measures cuts


@dataclass(frozen=True)
class Kind:
    """A kind of study: the model of its settings, and the cost of its jobs."""

    model: type["Study"]
    memory_mib: int  # for torch, data and results
    seconds: float  # overhead of a job, mostly imports
    speeds: Mapping[str, float]  # operations per second of one core of 2026, by `Study.work`
    priority: int = 0  # of its jobs: kinds with the longest ones first, so that no long job is left to the end
    draws_data: bool = False  # takes datasets in the plane, drawn anew for each initialisation
    draws_worlds: bool = False  # takes worlds, drawn anew for each initialisation and step
    module: str = ""  # has `measure_block(job)` and OBSERVABLES; by default the module named as the kind

    @property
    def name(self) -> str:
        """The value of a study's key `kind`."""
        return get_args(self.model.model_fields["kind"].annotation)[0]

    @property
    def path(self) -> str:
        """Name of the module that measures, below the package."""
        return f"{ROOM}.{self.module or self.name}"

    def load(self) -> Any:
        """Import the module that measures, which is slow."""
        return importlib.import_module(f"{PACKAGE}.{self.path}")


def changes_no_number(function: Callable) -> Callable:
    """Mark a function that only checks or plans, so that fingerprints leave it out."""
    return function


@functools.cache
def known() -> dict[str, Kind]:
    """All kinds by name, USUAL first."""
    folder = Path(importlib.import_module(f"{PACKAGE}.{ROOM}").__path__[0])
    # Other modules there are slow to import.
    names = [path.stem for path in sorted(folder.glob("*.py")) if "\nKIND = " in path.read_text(encoding="utf-8")]
    kinds = [importlib.import_module(f"{PACKAGE}.{ROOM}.{name}").KIND for name in names]
    return {kind.name: kind for kind in sorted(kinds, key=lambda kind: kind.name != USUAL)}
