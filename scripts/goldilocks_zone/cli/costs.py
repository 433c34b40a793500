"""Estimates of the time and memory of jobs, from Snakemake's benchmark files of earlier jobs or from operation counts.

A block is the part of a study that one job measures. Depends on the names of rules and on the layout of the log folder;
imports nothing heavy.
"""

import csv
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from goldilocks_zone.config import kinds, models, studies
from goldilocks_zone.data import catalogue, drawn_shapes, official_shapes
from goldilocks_zone.models import labels

BENCHMARK = ".benchmark.tsv"
NOT_JOBS = ("all", "figures", "record")  # rules that take no time
MEASURED, ALIKE, BY_SIZE = "the same job", "jobs of the same rule", "the job's size"
# Seconds of jobs that belong to no study, by rule, and of all other rules.
OTHER_SECONDS = {"cuts": 10.0, "aggregate": 1.0}
USUAL_SECONDS = 3.0
USUAL_SHAPE = official_shapes.OFFICIAL["cifar10"]  # assumed for datasets that have not been read


@dataclass(frozen=True)
class Cost:
    """Estimated cost of a job.

    seconds: time. mib: memory in MiB, None if unknown. source: the basis of the time, which is MEASURED for an earlier
    run of the same job, ALIKE for other jobs that have run, and BY_SIZE for constants and the job's number of
    operations.
    """

    seconds: float
    mib: float | None
    source: str


class Costs:
    """Estimates of the costs of jobs of one run.

    `config` is the complete configuration of the run. `logs` is the log folder, with the benchmark files of this and
    other runs below it. `cards` are folders of dataset cards, from which the shapes of datasets are read.
    """

    def __init__(self, config: models.Configuration, logs: Path, cards: Sequence[Path] = ()):
        self._config, self._logs = config, logs
        folder = catalogue.data_folder(config.data_folder)
        self._shapes = catalogue.known_shapes(config.datasets, folder, cards)
        self._own, self._of_rule = {}, defaultdict(list)  # seconds and MiB, by path and by rule
        for path in sorted(logs.rglob(f"*{BENCHMARK}")):
            if found := _measured(path):
                self._own[path] = found
                self._of_rule[_rule_of(path.relative_to(logs))].append(found)
        self._speeds = self._measured_speeds()

    def of(self, rule: str, wildcards: dict, benchmark: str | None) -> Cost:
        """Estimate the cost of a job of `rule` with these `wildcards`; `benchmark` is the path of its benchmark file.

        The time is the first of these that is known: the time of the same job in an earlier run; for a block whose
        number of floating-point operations is known, an overhead plus this number divided by a speed; the mean time of
        earlier jobs of the rule; a constant. The speed is that of finished blocks or, without any, the one that the
        kind of study assumes. The memory is that of the same job or, if it has not run, the largest of earlier jobs of
        the rule.
        """
        if known := self._own.get(Path(benchmark or "")):
            seconds, mib = known
            return Cost(seconds, mib, MEASURED)
        others, work = self._of_rule.get(rule, []), self._work(wildcards)
        mib = max((mib for _, mib in others), default=None)
        if work is None and others:
            return Cost(sum(seconds for seconds, _ in others) / len(others), mib, ALIKE)
        study = self._config.studies.get(wildcards.get("study", "")) if "block" in wildcards else None
        kind = kinds.known()[study.kind] if study else None
        overhead = kind.seconds if kind else OTHER_SECONDS.get(rule, USUAL_SECONDS)
        if work is None or study is None or kind is None:
            return Cost(overhead, mib, BY_SIZE)
        speed = self._speeds.get((study.work, wildcards["study"])) or self._speeds.get((study.work, None))
        return Cost(overhead + work / (speed or kind.speeds[study.work]), mib, ALIKE if speed else BY_SIZE)

    def _measured_speeds(self) -> dict[tuple[str, str | None], float]:
        """Speeds of this run's completed jobs, in operations per second, as {(type of work, study): speed}.

        The type of work is `Study.work`. The speed under the study None is that of all jobs with this type of work.
        """
        names, sums = ("study", "dataset", "network", "subspace", "block"), defaultdict(lambda: [0.0, 0.0])
        for kind in kinds.known().values():
            place = self._logs / self._config.run / kind.name
            for path in sorted(set(place.rglob(f"*{BENCHMARK}")) & self._own.keys()):
                values = path.relative_to(place).with_name(path.name.removesuffix(BENCHMARK)).parts
                study = self._config.studies.get(values[0])
                # Logs can be older than the configuration, in which the study may be of another kind.
                if study is None or study.kind != kind.name or len(values) != len(names):
                    continue
                wildcards = dict(zip(names, values))
                if operations := self._work(wildcards):
                    for of in (values[0], None):
                        total = sums[study.work, of]
                        total[0] += operations
                        total[1] += max(self._own[path][0] - kind.seconds, 0.1)
        return {key: operations / seconds for key, (operations, seconds) in sums.items()}

    def _work(self, wildcards: dict) -> float | None:
        """Number of floating-point operations of the block that a job with these `wildcards` measures.

        The result is None if the job measures no block of this run's studies, or if the network is a user's own.
        """
        study = self._config.studies.get(wildcards.get("study", ""))
        if "block" not in wildcards or study is None or not labels.is_network(wildcards["network"]):
            return None
        name = wildcards["dataset"]
        shape = drawn_shapes.shape_of(name) or self._shapes.get(name) or USUAL_SHAPE
        draws, chosen = studies.read_block(wildcards["block"])
        size = len(draws), len(studies.radii(study)[chosen])
        return study.operations(labels.parse_network(wildcards["network"]), shape, wildcards["subspace"], *size)


def _measured(path: Path) -> tuple[float, float] | None:
    """Seconds and peak MiB of a job, from Snakemake's benchmark file at `path`; None if it has no numbers."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            row = next(csv.DictReader(file, delimiter="\t"), {})
        return float(row["s"]), float(row["max_rss"])
    except (KeyError, ValueError, TypeError, OSError):
        return None


def _rule_of(path: Path) -> str:
    """Name of the rule whose job wrote a benchmark file.

    `path` is relative to the log folder: {run}/{rule}/… or {run}/{rule}.benchmark.tsv.
    """
    name = path.parts[:2][-1].removesuffix(BENCHMARK)
    return "figure" if name == "figures" else name
