"""Records of settings: files that change only with the settings a job depends on, and functions that read them.

A block is the part of a study that one job measures. The grid of a study consists of the keys `studies.AXES`: datasets,
networks, subspaces and draws. These keys name the blocks; every other key changes the contents of blocks.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml

from goldilocks_zone.config import kinds, studies
from goldilocks_zone.config.models import Cuts, Study, StudyOfAnyKind
from goldilocks_zone.config.values import Section
from goldilocks_zone.figures.registry import InPaper

R = TypeVar("R", bound=Section)
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class Block(NamedTuple):
    """The part of a study that one job measures, and the seed of the run.

    `study` has a single dataset, network and subspace. `draws` are the numbers of the initialisations to measure, and
    `radii` some of the study's radii.
    """

    study: Study
    seed: int
    draws: range
    radii: list[float]


class ClaimsRecord(Section):
    """Settings that claims depend on, besides the studies' results.

    `studies` names the studies of the run. `left_out` maps each study that the run omits to the datasets that it lacks.
    `substitutes` maps datasets to those used instead.
    """

    studies: list[str]
    left_out: dict[str, list[str]]
    substitutes: dict[str, str]


class PaperRecord(Section):
    """Settings that the paper depends on, besides results, figures and claims.

    `figures` maps each figure to its studies. `registered` maps all known figures to their properties in the paper.
    `left_out` has the reasons for omitted datasets. `lacking` names the figures that may be missing because datasets
    are omitted. `licences` maps datasets to their licences. `substitutes` maps datasets to those used instead.
    """

    run: str
    studies: dict[str, StudyOfAnyKind]
    figures: dict[str, list[str]]
    registered: dict[str, InPaper]
    cuts: Cuts | None = None
    left_out: list[str]
    lacking: list[str]
    licences: dict[str, str]
    substitutes: dict[str, str]


def parse(text: str | bytes) -> Any:
    """Parse a YAML text. Raises yaml.YAMLError."""
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError:
        # libyaml may report the line after the mistake.
        return yaml.safe_load(text)


def without_nulls(node: Any) -> Any:
    """Copy of `node`, a parsed YAML text, without the keys that are null, at any depth.

    A configuration file sets a key to null to drop the entry of an earlier file.
    """
    if isinstance(node, dict):
        return {key: without_nulls(value) for key, value in node.items() if value is not None}
    return node


def dump(content: Section | Mapping) -> str:
    """Text of a record with this `content`: YAML with sorted keys.

    If `content` is a section, keys whose value is None are left out.
    """
    if isinstance(content, Section):
        content = content.model_dump(exclude_none=True)
    return yaml.dump(dict(content), Dumper=_Dumper, allow_unicode=True, sort_keys=True)


def of_measurement(settings: Study | Cuts, seed: int) -> dict:
    """Content of the record of settings that the numbers in a study's blocks, or in cuts, depend on.

    `settings` is the study or the cuts, and `seed` that of the run. The keys of a study's grid are left out.
    """
    kept = settings.model_dump(exclude={*studies.AXES}, exclude_none=True)
    return {**kept, "radii": studies.radii(settings), "seed": seed}


def of_grid(study: Study) -> dict:
    """The keys of a study's grid, with their values."""
    return study.model_dump(include={*studies.AXES})


def read_measurement(path_to_settings: str | Path, **grid: Any) -> tuple[Any, int]:
    """Read a record made by `of_measurement`; return its study or cuts, and the seed of the run.

    For a study, `grid` gives the keys `studies.AXES`, which the record lacks.
    """
    settings = parse(Path(path_to_settings).read_text(encoding="utf-8")) | grid
    seed, kind = settings.pop("seed"), settings.get("kind")
    return (kinds.known()[kind].model if kind else Cuts).model_validate(settings), seed


def read_block(path_to_settings: str | Path, dataset: str, network: str, subspace: str, name: str) -> Block:
    """Read the block `name` of a study from the study's record.

    `path_to_settings` is a record made by `of_measurement`. The block's study is restricted to the given dataset,
    network and subspace. The name of the block gives its draws and radii (see `studies.read_block`).
    """
    draws, chosen = studies.read_block(name)
    cell = {"datasets": [dataset], "networks": [network], "subspaces": [subspace], "draws": len(draws)}
    study, seed = read_measurement(path_to_settings, **cell)
    return Block(study, seed, draws, studies.radii(study)[chosen])


def read(model: type[R], path: str | Path) -> R:
    """Read the record at `path`, and validate it with a `model`, such as PaperRecord."""
    return model.model_validate(parse(Path(path).read_text(encoding="utf-8")))
