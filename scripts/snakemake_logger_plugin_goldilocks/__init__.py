"""Logger plugin of Snakemake (`--logger goldilocks`): progress of a run, or the jobs of a dry run as JSON.

Snakemake finds the plugin if the parent folder is in PYTHONPATH.
"""

import itertools
import json
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from logging import ERROR, LogRecord
from pathlib import Path
from statistics import fmean
from typing import Optional

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent
from snakemake_interface_logger_plugins.settings import LogHandlerSettingsBase

from goldilocks_zone.cli.costs import NOT_JOBS
from goldilocks_zone.cli.text_tables import duration


@dataclass
class LogHandlerSettings(LogHandlerSettingsBase):
    """Command-line options, `--logger-goldilocks-…`."""

    jobs: Optional[Path] = field(  # noqa: UP045 — Snakemake cannot parse Path | None
        default=None, metadata={"help": "File for one line of JSON per job, instead of messages on the screen."}
    )


class LogHandler(LogHandlerBase):
    """Writes planned jobs to a file, or prints after each job how many are left and for about how long."""

    writes_to_file = needs_rulegraph = False
    has_filter = has_formatter = True

    def __post_init__(self) -> None:
        self._jobs = self.settings.jobs if self.settings else None
        if self._jobs:
            self._jobs.write_text("", encoding="utf-8")
        self._left: Counter[str] = Counter()
        self._started: dict[int, tuple[str, float]] = {}  # rule and time of each job
        self._seconds: dict[str, list[float]] = {}
        self._cores = 1

    def emit(self, record: LogRecord) -> None:
        """Handle an event of Snakemake."""
        event = getattr(record, "event", None)
        if self._jobs:
            if event == LogEvent.JOB_INFO:
                self._write(record)
            elif record.levelno >= ERROR:
                print(record.getMessage(), file=sys.stderr)
        elif not self.common_settings.dryrun:
            self._follow(event, record)

    def _write(self, record: LogRecord) -> None:
        job = {
            "rule": record.rule_name,
            "reason": record.reason,
            "wildcards": dict(record.wildcards or {}),
            "benchmark": str(record.benchmark) if record.benchmark else None,
            "threads": record.threads,
            "resources": {name: size for name, size in record.resources.items() if name[0] != "_"},
        }
        with open(self._jobs, "a", encoding="utf-8") as file:
            print(json.dumps(job, default=str), file=file)

    def _follow(self, event: LogEvent | None, record: LogRecord) -> None:
        now = time.monotonic()
        if event == LogEvent.RUN_INFO:
            self._left = Counter({rule: n for rule, n in record.stats.items() if rule not in (*NOT_JOBS, "total")})
        elif event == LogEvent.RESOURCES_INFO and getattr(record, "cores", None):
            self._cores = int(record.cores)
        elif event == LogEvent.JOB_INFO:
            self._started[record.jobid] = record.rule_name, now
        elif event == LogEvent.JOB_FINISHED:
            rule, start = self._started.get(record.job_id, ("", now))
            if rule in self._left:
                self._left[rule] -= 1
                self._seconds.setdefault(rule, []).append(now - start)
                print(self._sentence(), file=sys.stderr, flush=True)

    def _sentence(self) -> str:
        """Number of jobs left, and their time at the mean of their rules so far."""
        count = sum(self._left.values())
        if not count:
            return "all jobs are done"
        overall = fmean(itertools.chain(*self._seconds.values()))
        seconds = sum(n * fmean(self._seconds.get(rule, [overall])) for rule, n in self._left.items())
        return f"{count} jobs left, about {duration(seconds / self._cores)}"

    @property
    def writes_to_stream(self) -> bool:
        """Whether this replaces Snakemake's own messages on the screen."""
        return self._jobs is not None
