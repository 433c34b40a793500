"""Studies and their blocks: the grid of a measurement and its split into jobs.

A varied key of a study has several values, listed in the section `vary`. A variant {key: value} has one value for each
varied key. A block is the part of a study that one job measures: one dataset, one network, one subspace, and some of
the draws and radii, with all variants.
"""

import itertools
import math
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from goldilocks_zone.config.models import Configuration, Cuts, Study

# Keys of a study that name its blocks; every other key changes their contents.
AXES = ("datasets", "networks", "subspaces", "draws")


def radii(study: "Study | Cuts") -> list[float]:
    """Radii of a study or of cuts in ascending order, in the study's unit; a range is spaced logarithmically.

    The unit of radii of cuts is r_X.
    """
    given = study.radii
    if isinstance(given, list):
        return sorted(map(float, given))
    step = math.log10(given.last / given.first) / max(given.number - 1, 1)
    return [float(f"{given.first * 10 ** (i * step):.12g}") for i in range(given.number)]


def in_units_of_r_x(study: "Study") -> bool:
    """Whether results of a study can be shown as functions of r/r_X.

    This is so if radii are in units of r_X, or if they are norms and there is only one network and one dataset.
    """
    unit = study.radius_unit
    return unit == "r_X" or (unit == "norm" and len(study.networks) == 1 and len(study.datasets) == 1)


def variants(study: "Study", keys: list[str] | None = None) -> list[dict]:
    """Variants of a study: all combinations of the values of its varied keys, each as {key: value}.

    `keys` selects some of the varied keys and orders them; by default, all are taken in alphabetical order. The last
    key varies fastest.
    """
    # In alphabetical order, as in files of settings.
    known = study.variations
    keys = sorted(known) if keys is None else keys
    return [dict(zip(keys, values)) for values in itertools.product(*(known[key] for key in keys))]


def split(study: "Study", together: Collection[str]) -> tuple[list[dict], list[dict]]:
    """Two lists of variants: over the varied keys that are not in `together`, and over those that are.

    A job measures the variants of the first list one after another. For each of them, it measures those of the second
    list in a single sweep or ensemble.
    """
    alone, shared = ([key for key in sorted(study.variations) if (key in together) == each] for each in (False, True))
    return variants(study, alone), variants(study, shared)


def dimension(key: str) -> str:
    """Name of the results' dimension that belongs to a varied `key`.

    It is the key itself, unless a variable of the results already has this name.
    """
    return {"loss": "loss_function", "classes": "class_count"}.get(key, key)


def varied(study: "Study") -> dict[str, list]:
    """Values of a study's varied keys, by the names of the dimensions of the results."""
    return {dimension(key): values for key, values in sorted(study.variations.items())}


def place(variant: dict) -> dict:
    """Place of a variant in the results, as {dimension: value}."""
    return {dimension(key): value for key, value in variant.items()}


def described(variant: dict) -> str:
    """Text that describes a variant, such as `, metric shell`, to be appended to a line of a log."""
    return "".join(f", {key} {value}" for key, value in variant.items())


def rate_exponent(rule: str, depth: int | None) -> int:
    """Exponent p of a learning-rate rule: the rate is proportional to r^p for the radius r at the start of training.

    p is 0 for the `rule` fixed, 1 for proportional, 2 for square, and 2 − `depth` for homogeneous. `depth` is the
    number of weight layers; other rules do not use it.
    """
    return {"fixed": 0, "proportional": 1, "square": 2, "homogeneous": 2 - (depth or 0)}[rule]


def block_paths(config: "Configuration", name: str) -> list[str]:
    """Paths of the files with all blocks of the study `name` of a configuration, relative to the run's results."""
    study = config.studies[name]
    places = itertools.product(study.datasets, study.networks, study.subspaces, blocks(config, name))
    return [f"{study.kind}/{name}/{'/'.join(place)}.nc" for place in places]


def blocks(config: "Configuration", name: str) -> Iterator[str]:
    """Yield the names of the blocks of the study `name`, without dataset, network and subspace.

    The section `execution` of the configuration says how many draws and radii a block has. A block that has all radii
    is called `draws-000-019`, with the first and the last draw. Other blocks are called `draws-000-019-radii-000-004`,
    with the indices of the first and the last of their radii in ascending order.
    """
    study, execution = config.studies[name], config.execution
    step = execution.draws_per_job
    if isinstance(step, dict):
        step = step.get(name, step.get("others", "all"))
    for first, last in _split(study.draws, step):
        block = f"draws-{first:03d}-{last:03d}"
        if execution.radii_per_job == "all":
            yield block
        else:
            for start, stop in _split(len(radii(study)), execution.radii_per_job):
                yield f"{block}-radii-{start:03d}-{stop:03d}"


def read_block(name: str) -> tuple[range, slice]:
    """Parse the name of a block (see `blocks`) into its draws and a slice of the study's radii."""
    numbers = list(map(int, (part for part in name.split("-") if part.isdigit())))
    draws = range(numbers[0], numbers[1] + 1)
    return draws, slice(numbers[2], numbers[3] + 1) if len(numbers) == 4 else slice(None)


def _split(count: int, step: int | Literal["all"]) -> Iterator[tuple[int, int]]:
    step = count if step == "all" else step
    for first in range(0, count, step):
        yield first, min(first + step, count) - 1
