"""One line about the failed job, read from Snakemake's log."""

from pathlib import Path

import pytest

from goldilocks_zone.jobs import failures

# As Snakemake writes it: an attempt that failed, was repeated and done, and a job that failed for good.
SNAKEMAKES_LOG = """Job 2: x
[Thu Nov 26 00:52:20 2026]
Error in rule training:
    message: None
    jobid: 2
    log: other.log (check log file(s) for error details)
Trying to restart job 2.
[Thu Nov 26 00:52:21 2026]
Finished jobid: 2 (Rule: training)
RuleException:
CalledProcessError in file "workflow/rules/curvature.smk", line 37:
{command}[Thu Nov 26 00:52:21 2026]
Error in rule curvature:
    message: {message}
    jobid: 3
    log: job.log (check log file(s) for error details)
Shutting down, this might take some time.
"""


COMMAND = "Command 'set -euo pipefail;  python tmp.measure_block.py' {}.\n"


UNSAID = "2026-01-01 10:00:00,000 draw 1 measured\n"


@pytest.mark.parametrize(
    "job_log, command, message, reason",
    [
        ("Traceback\n2026-01-01 10:00:00,001 FAILED no such radius\n", "", None, "no such radius"),
        (UNSAID, "died with <Signals.SIGKILL: 9>", None, "killed (SIGKILL) without a message, perhaps because"),
        (None, "returned non-zero exit status 137", None, "killed (SIGKILL) without a message, perhaps because"),
        (UNSAID, "died with <Signals.SIGSEGV: 11>", None, "ended by SIGSEGV without giving a reason; run again"),
        (None, "returned non-zero exit status 127", None, "ended with status 127 without a reason in its log: see the"),
        (None, "", None, "ended without a reason in its log: see the output above"),
        (
            UNSAID,
            "",
            "SLURM-job '7' failed, SLURM status is: 'OUT_OF_MEMORY'. x",
            "SLURM reports OUT_OF_MEMORY, and the job",
        ),
    ],
)
def test_the_failed_job_is_named_in_one_line(job_log, command, message, reason, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(failures.FAILURE_VARIABLE, "failure.txt")
    if job_log:
        Path("job.log").write_text(job_log)
    command = COMMAND.format(command) if command else ""
    Path("workflow.log").write_text(SNAKEMAKES_LOG.format(command=command, message=message))
    failures.report_failed_job(["workflow.log"])
    sentence = Path("failure.txt").read_text()
    assert sentence.startswith(f"rule curvature failed: {reason}") and sentence.endswith("(log: job.log)\n")
    assert ("memory" in sentence) == ("SIGKILL" in sentence)
    # The first failure is the one that counts.
    failures.report("another one")
    assert Path("failure.txt").read_text() == sentence
