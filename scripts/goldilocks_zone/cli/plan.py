"""`make plan`: list the jobs that a run would execute, with reasons and costs."""

import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

from goldilocks_zone.cli import text_tables
from goldilocks_zone.cli.costs import ALIKE, BY_SIZE, MEASURED, NOT_JOBS, Cost, Costs
from goldilocks_zone.config import load, models

# Patterns of Snakemake's reasons, and what they mean here, where records of code and settings are inputs of every rule.
REASONS = (
    (r"Missing output files", "not made yet"),
    (r"(Updated input files|updated by another job):[^;]*fingerprints/", "code changed"),
    (r"(Updated input files|updated by another job):[^;]*settings/", "settings or text changed"),
    (r"Updated input files:[^;]*(config/|paper/|resources/)", "settings or text changed"),
    (r"Updated input files", "input is newer"),
    (r"Input files updated by another job|Set of input files has changed", "input is made anew"),
    (r"Incomplete", "was interrupted"),
    (r"Params have changed|Software environment|Code has changed", "settings or text changed"),
    (r"Forced execution", "asked for"),
)


def jobs_of(paths_to_configs: list[Path], cores: str) -> list[dict]:
    """Jobs that a run would execute, from Snakemake's dry run.

    Each job is a dictionary with the keys rule, reason, wildcards, benchmark, threads and resources. `paths_to_configs`
    are merged over the shipped configuration, and `cores` is Snakemake's option. If Snakemake refuses, raises
    ValueError with the last line of its message.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "jobs.jsonl"
        command = [sys.executable, "-m", "snakemake", "--dry-run", "--cores", cores, "--logger", "goldilocks"]
        command += ["--logger-goldilocks-jobs", str(path)]
        command += ["--configfile", *map(str, paths_to_configs)] if paths_to_configs else []
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise ValueError((done.stderr.strip().splitlines() or ["Snakemake could not plan this run"])[-1])
        jobs = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [job for job in jobs if job["rule"] not in NOT_JOBS]


def table_of(jobs: list[dict], costs: list[Cost]) -> list[tuple[str, ...]]:
    """Rows of the table of jobs, costliest first.

    A row sums up the jobs of a rule or, if they measure blocks, the jobs of a rule for one study. `costs` has one entry
    for each of `jobs`. The columns are rule, study, number of jobs, total time, memory of the largest job, and reasons
    why the jobs run, each with its count if there are several.
    """
    groups = defaultdict(list)
    for job, cost in zip(jobs, costs):
        study = job["wildcards"]["study"] if "block" in job["wildcards"] else ""
        groups[job["rule"], study].append((job, cost))
    rows = []
    for (rule, study), members in sorted(groups.items(), key=lambda group: -sum(cost.seconds for _, cost in group[1])):
        said = [job["reason"] for job, _ in members]
        reasons = Counter(next((known for pattern, known in REASONS if re.search(pattern, why)), why) for why in said)
        known = [mib for mib in itertools.starmap(_memory_of, members) if mib is not None]
        time = text_tables.duration(sum(cost.seconds for _, cost in members))
        memory = text_tables.memory(max(known)) if known else "?"
        why = ", ".join(f"{reason} ({n})" if len(reasons) > 1 else reason for reason, n in reasons.most_common())
        rows.append((rule, study, str(len(members)), time, memory, why))
    return rows


def _memory_of(job: dict, cost: Cost) -> float | None:
    """Memory of a job in MiB: the estimate in `cost` or, without one, the limit in its resources; None without both."""
    return cost.mib if cost.mib is not None else job["resources"].get("mem_mib")


def summary_of(run: str, jobs: list[dict], costs: list[Cost], cores: int) -> list[str]:
    """Sentences on the whole run: its estimated time on `cores` cores, its largest memory, and sources of the times.

    `costs` has one entry for each of `jobs`.
    """
    total, longest = sum(cost.seconds for cost in costs), max(cost.seconds for cost in costs)
    largest = max(filter(None, map(_memory_of, jobs, costs)), default=None)
    gpu = sum(cost.seconds * int(job["resources"].get("gpu", 0)) for job, cost in zip(jobs, costs))
    sources = Counter(cost.source for cost in costs)
    counts = ", ".join(f"{sources[source]} from {source}" for source in (MEASURED, ALIKE, BY_SIZE) if sources[source])
    return [
        f"run {run}: {len(jobs)} jobs, about {text_tables.duration(max(total / cores, longest))} on {cores} cores "
        f"({text_tables.duration(total)} one after another, the longest job {text_tables.duration(longest)})",
        f"largest job: {text_tables.memory(largest) if largest is not None else 'not known'}; "
        f"jobs that use a GPU: {gpu / 3600:.1f} hours, if they take as long as on the CPU",
        f"sources of these times: {counts}",
    ]


def weights_of(config: models.Configuration) -> dict[str, list[str]]:
    """Weights at which studies are measured, as {study: labels}, for those studies that vary the weights.

    A label names a file of trained weights, or is `none` for random initialisations.
    """
    found = {name: study.variations.get("weights") for name, study in config.studies.items()}
    return {name: labels for name, labels in found.items() if labels}


def run(configfiles: list[Path], cores: str) -> None:
    config, reasons, _ = load.as_run(load.load(configfiles))
    notes = [f"left out: {reason}" for reason in reasons.values()]
    jobs = jobs_of(configfiles, cores)
    if not jobs:
        return print(*notes, f"run {config.run}: nothing to be done", sep="\n")
    notes += [f"{name} is measured at the weights {', '.join(each)}" for name, each in weights_of(config).items()]
    estimates = Costs(config, Path("logs"), [Path("results/data/cards")])
    costs = [estimates.of(job["rule"], job["wildcards"], job["benchmark"]) for job in jobs]
    count = len(os.sched_getaffinity(0)) if cores == "all" else int(cores)
    header = ("rule", "study", "jobs", "time", "memory", "why")
    lines = text_tables.aligned([header, *table_of(jobs, costs)], right=(2, 3, 4))
    print(*lines, "", *notes, *summary_of(config.run, jobs, costs, count), sep="\n")
