"""What jobs of a run will cost: from benchmark files of earlier jobs, or from the size of the job.

Knows of rules and of the folder of logs, as Snakemake leaves it; imports nothing heavy.
"""

import csv
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from goldilocks_zone.config import studies
from goldilocks_zone.data import catalogue, official_shapes
from goldilocks_zone.models import labels
from goldilocks_zone.subspaces import labels as subspace_labels

BENCHMARK = ".benchmark.tsv"
# Rules that only collect, and records, which take no time.
NOT_JOBS = ("all", "figures", "record")
MEASURED, ALIKE, BY_SIZE = "the same job", "jobs of the same rule", "the job's size"
# Seconds of a job beside its own work, most of them for imports; operations in a second, of a core of 2026.
OVERHEAD = {"curvature": 5.0, "training": 5.0, "cuts": 10.0}
OTHER_SECONDS = 3.0
SPEED = {"curvature": 4e10, "training": 2.5e10, "full batch": 8e10}
RULES = ("curvature", "training")
# Of the whole Hessian's largest eigenvalue, and of the geometry: forward passes over its examples that take as long.
SHARPNESS_PASSES, GEOMETRY_PASSES = 60, 1500
# Of a dataset that nobody has read yet.
USUAL_SHAPE = official_shapes.OFFICIAL["cifar10"]
# Varied keys whose values are points of one sweep.
SWEPT = ("rescaled", "temperature")


@dataclass(frozen=True)
class Cost:
    """Seconds and memory (MiB; None where nothing is known) of a job, and what they were taken from."""

    seconds: float
    mib: float | None
    source: str


class Costs:
    """Estimates for the jobs of one run, with what its benchmark files and those of other runs say.

    `config` is complete; `cards` are folders of cards of datasets that have been read; `logs` that of all runs' logs.
    """

    def __init__(self, config: dict, logs: Path, cards: Sequence[Path] = ()):
        self._config, self._logs = config, logs
        folder = catalogue.data_folder(config.get("data_folder"))
        self._shapes = catalogue.known_shapes(config["datasets"], folder, cards)
        self._of_rule: dict[str, list[tuple[float, float]]] = defaultdict(list)
        self._own = {}
        for path in sorted(logs.rglob(f"*{BENCHMARK}")):
            found = _measured(path)
            if found:
                self._own[path] = found
                self._of_rule[_rule_of(path.relative_to(logs))].append(found)
        self._speeds = self._measured_speeds()

    def of(self, rule: str, wildcards: dict, benchmark: str | None) -> Cost:
        """The cost of a job of `rule`, from its wildcards and the path of its benchmark file."""
        known = self._own.get(Path(benchmark)) if benchmark else None
        if known:
            return Cost(*known, MEASURED)
        others, work = self._of_rule.get(rule, []), self._work(rule, wildcards)
        mib = max((mib for _, mib in others), default=None)
        if work is None:
            if others:
                return Cost(sum(seconds for seconds, _ in others) / len(others), mib, ALIKE)
            return Cost(OVERHEAD.get(rule, OTHER_SECONDS), mib, BY_SIZE)
        study = wildcards["study"]
        usual = "full batch" if self._config["studies"][study].get("batch") == "all" else rule
        speed = self._speeds.get((rule, study)) or self._speeds.get((usual, None))
        return Cost(OVERHEAD[rule] + work / (speed or SPEED[usual]), mib, ALIKE if speed else BY_SIZE)

    def _measured_speeds(self) -> dict[tuple[str, str | None], float]:
        """Operations in a second of this run's jobs so far, by rule and study, and of all studies of a rule (None)."""
        sums = defaultdict(lambda: [0.0, 0.0])
        for rule in RULES:
            place = self._logs / self._config["run"] / rule
            for path in sorted(place.rglob(f"*{BENCHMARK}")):
                names = ("study", "dataset", "network", "subspace", "block")
                values = path.relative_to(place).with_name(path.name.removesuffix(BENCHMARK)).parts
                wildcards = dict(zip(names, values, strict=True))
                work = self._work(rule, wildcards)
                if work and path in self._own:
                    for study in (wildcards["study"], None):
                        sums[rule, study][0] += work
                        sums[rule, study][1] += max(self._own[path][0] - OVERHEAD[rule], 0.1)
        return {key: work / seconds for key, (work, seconds) in sums.items()}

    def _work(self, rule: str, wildcards: dict) -> float | None:
        """Floating-point operations of a block; None for other jobs, and networks of a user's own."""
        study = self._config["studies"].get(wildcards.get("study", ""))
        shape = self._shapes.get(wildcards.get("dataset", "")) or USUAL_SHAPE
        if rule not in RULES or study is None or not labels.is_network(wildcards["network"]):
            return None
        network = labels.parse_network(wildcards["network"])
        forward = network.forward_flops(shape.image, shape.classes)
        draws, chosen = studies.read_block(wildcards["block"])
        radii = len(studies.radii(study)[chosen])
        if rule == "training":
            members = len(draws) * radii * len(studies.variants(study))
            batch = study.get("examples") or shape.training_examples if study["batch"] == "all" else study["batch"]
            evaluated = len(studies.logged_steps(study)) * study["evaluated"]
            sharpness = len(studies.logged_steps(study)) * study["sharpness_examples"] * SHARPNESS_PASSES
            largest = max(study["vary"].get("geometry_examples", [study["geometry_examples"]]))
            geometry = len(study["geometry_steps"]) * largest * GEOMETRY_PASSES
            return members * forward * (3 * study["steps"] * batch + evaluated + sharpness + geometry)
        plane = subspace_labels.parse_plane(wildcards["subspace"])
        sizes = {key: len(values) for key, values in study["vary"].items()}
        points = radii * math.prod(size for key, size in sizes.items() if key in SWEPT)
        sweeps = math.prod(size for key, size in sizes.items() if key not in SWEPT)
        shares = network.activation in labels.HOMOGENEOUS and not getattr(network, "residual", False)
        passes = 3 * forward * (1 if shares else points) + 6 * points * shape.classes * plane.dimension
        return len(draws) * study["planes"] * sweeps * max(study["examples"]) * plane.dimension * passes


def _measured(path: Path) -> tuple[float, float] | None:
    """Seconds and MiB of a benchmark file; None if it is empty or has no numbers."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            row = next(csv.DictReader(file, delimiter="\t"), {})
        return float(row["s"]), float(row["max_rss"])
    except (KeyError, ValueError, TypeError, OSError):
        return None


def _rule_of(path: Path) -> str:
    """The rule of a benchmark file {run}/{rule}/… or {run}/{rule}.benchmark.tsv below the folder of logs."""
    name = path.parts[1].removesuffix(BENCHMARK) if len(path.parts) > 1 else path.name.removesuffix(BENCHMARK)
    return {"figures": "figure"}.get(name, name)
