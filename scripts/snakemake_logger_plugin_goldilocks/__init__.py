"""A logger of Snakemake's (`--logger goldilocks`): how far a run is, and in a dry run which jobs would run.

Needs this folder's parent in PYTHONPATH, where Snakemake finds its plug-ins.
"""

import json
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from logging import ERROR, LogRecord
from pathlib import Path
from typing import Optional

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent
from snakemake_interface_logger_plugins.settings import LogHandlerSettingsBase

from goldilocks_zone.cli.costs import NOT_JOBS
from goldilocks_zone.cli.text_tables import duration


@dataclass
class LogHandlerSettings(LogHandlerSettingsBase):
    """Options of the command line, `--logger-goldilocks-…`."""

    jobs: Optional[Path] = field(  # noqa: UP045 — what Snakemake makes options from knows no other way
        default=None, metadata={"help": "File for one line of JSON for every job, in place of messages on the screen."}
    )


class LogHandler(LogHandlerBase):
    """Writes jobs to a file, or after each job that has ended how many are left and for about how long."""

    def __post_init__(self) -> None:
        self._jobs = self.settings.jobs if self.settings else None
        if self._jobs:
            self._jobs.write_text("", encoding="utf-8")
        self._left: Counter[str] = Counter()
        self._rules: dict[int, str] = {}
        self._started: dict[int, float] = {}
        self._seconds: dict[str, list[float]] = {}
        self._cores = 1

    def emit(self, record: LogRecord) -> None:
        """As of logging.Handler."""
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
            "resources": {name: each for name, each in dict(record.resources.items()).items() if name[0] != "_"},
        }
        with open(self._jobs, "a", encoding="utf-8") as file:
            print(json.dumps(job, default=str), file=file)

    def _follow(self, event: LogEvent | None, record: LogRecord) -> None:
        """Keep count of jobs, and say how far the run is when one has ended."""
        now = time.monotonic()
        if event == LogEvent.RUN_INFO:
            self._left = Counter({rule: n for rule, n in record.stats.items() if rule not in (*NOT_JOBS, "total")})
        elif event == LogEvent.RESOURCES_INFO and getattr(record, "cores", None):
            self._cores = int(record.cores)
        elif event == LogEvent.JOB_INFO:
            self._rules[record.jobid], self._started[record.jobid] = record.rule_name, now
        elif event == LogEvent.JOB_FINISHED:
            rule = self._rules.get(record.job_id)
            if rule in self._left:
                self._left[rule] -= 1
                self._seconds.setdefault(rule, []).append(now - self._started[record.job_id])
                print(self._sentence(now), file=sys.stderr, flush=True)

    def _sentence(self, now: float) -> str:
        """How many jobs are left, and the time for them if each takes what those of its rule took on average."""
        count = sum(self._left.values())
        if not count:
            return "all jobs are done"
        everything = [seconds for each in self._seconds.values() for seconds in each]
        usual = sum(everything) / len(everything)
        seconds = sum(
            n * (sum(self._seconds[rule]) / len(self._seconds[rule]) if rule in self._seconds else usual)
            for rule, n in self._left.items()
        )
        return f"{count} jobs left, about {duration(seconds / self._cores)}"

    @property
    def writes_to_stream(self) -> bool:
        """Whether Snakemake's own messages are left out."""
        return self._jobs is not None

    @property
    def writes_to_file(self) -> bool:
        """As of LogHandlerBase."""
        return False

    @property
    def has_filter(self) -> bool:
        """As of LogHandlerBase."""
        return True

    @property
    def has_formatter(self) -> bool:
        """As of LogHandlerBase."""
        return True

    @property
    def needs_rulegraph(self) -> bool:
        """As of LogHandlerBase."""
        return False
