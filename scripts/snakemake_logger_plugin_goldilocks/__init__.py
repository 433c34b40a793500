"""Logger plugin of Snakemake (`--logger goldilocks`): progress of a run, or the jobs of a dry run as JSON.

Snakemake finds the plugin if the parent folder is in PYTHONPATH.
"""

import json
import sys
import time
from dataclasses import dataclass, field
from logging import ERROR, LogRecord
from pathlib import Path
from typing import Optional

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent
from snakemake_interface_logger_plugins.settings import LogHandlerSettingsBase

from goldilocks_zone.cli.costs import NOT_JOBS
from goldilocks_zone.cli.text_tables import duration

# Expected seconds of the jobs to run, by their ids. The workflow sets them when a run starts.
expected: dict[int, float] = {}
# Times of finished jobs correct the expected time of the others. The correction is damped until the finished jobs make
# up much more than this share of the whole expected time.
PRIOR = 0.1


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
        self._left = 0  # jobs
        self._started: dict[int, tuple[str, float]] = {}  # rule and time of each job
        self._done: dict[int, float] = {}  # seconds that each job took
        self._cores = 1

    def emit(self, record: LogRecord) -> None:
        """Handle one of Snakemake's log records: write a planned job to the file, or print the progress of the run."""
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
            self._left = sum(n for rule, n in record.stats.items() if rule not in (*NOT_JOBS, "total"))
        elif event == LogEvent.RESOURCES_INFO and getattr(record, "cores", None):
            self._cores = int(record.cores)
        elif event == LogEvent.JOB_INFO:
            self._started[record.jobid] = record.rule_name, now
        elif event == LogEvent.JOB_FINISHED:
            rule, start = self._started.get(record.job_id, ("all", now))
            if rule not in NOT_JOBS:
                self._left -= 1
                self._done[record.job_id] = now - start
                print(self._sentence(), file=sys.stderr, flush=True)

    def _sentence(self) -> str:
        """Progress message: the number of jobs left and, if times are `expected`, about how long they will take.

        The expected times are corrected by the times that finished jobs took.
        """
        if not self._left:
            return "all jobs are done"
        jobs = f"{self._left} job{'s' * (self._left > 1)} left"
        if not expected:
            return jobs
        total = sum(expected.values())
        done = sum(expected.get(job, 0.0) for job in self._done)
        ratio = (sum(self._done.values()) + PRIOR * total) / (done + PRIOR * total)
        return f"{jobs}, about {duration((total - done) * ratio / self._cores)}"

    @property
    def writes_to_stream(self) -> bool:
        """Whether this handler replaces Snakemake's own messages on the screen."""
        return self._jobs is not None
