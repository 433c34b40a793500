"""Submission of many jobs with the project's SLURM profile, against stand-ins for SLURM's own commands."""

import os
import signal
import subprocess
import sys
from itertools import product

import pytest

from made_up.projects import clean_environment

pytestmark = pytest.mark.slow
RULES = ("curvature", "figure")
# Of each rule, and how many are submitted in how short a time: fewer than are ready, as on a real cluster.
JOBS, RATE = 80, "100/5s"
SNAKEFILE = f"""
rule all:
    input:
        expand("{{rule}}/{{number}}", rule={RULES}, number=range({JOBS})),
"""
RULE = """
rule {name}:
    output:
        "{name}/{{number}}",
    shell:
        "false"
"""
# sbatch makes at once what the job would make and notes it; squeue says that every job noted is done.
COMMANDS = {
    "sbatch": r"""
output=$(sed -E 's/.*rule_([a-z]+)_wildcards_([0-9]+).*/\1\/\2/' <<< "$*")
mkdir -p "${output%/*}" && touch "$output"
exec 9>> submitted && flock 9 && echo "$output" >&9 && wc -l < submitted
""",
    "squeue": "seq $(wc -l < submitted) | sed 's/$/|COMPLETED/'",
    "scontrol": "echo MinJobAge = 3600",
    **dict.fromkeys(("sinfo", "sacct", "scancel"), "true"),
}
HERE = [
    *("--max-jobs-per-timespan", RATE, "--slurm-no-account", "--slurm-status-command", "squeue"),
    *("--slurm-init-seconds-before-status-checks", "1", "--seconds-between-status-checks", "1"),
]


def test_every_job_of_a_wave_is_submitted(executor, profile, tmp_path):
    (tmp_path / "bin").mkdir()
    for name, script in COMMANDS.items():
        path = tmp_path / "bin" / name
        path.write_text(f"#!/bin/bash\n{script}\n")
        path.chmod(0o755)
    (tmp_path / "Snakefile").write_text(SNAKEFILE + "".join(RULE.format(name=name) for name in RULES))
    submitted, output = tmp_path / "submitted", tmp_path / "output.txt"
    submitted.touch()
    search = os.pathsep.join([str(tmp_path / "bin"), os.environ["PATH"]])
    with open(output, "w") as file:
        running = subprocess.Popen(
            [sys.executable, "-m", "snakemake", "--workflow-profile", str(profile), *HERE],
            cwd=tmp_path,
            env=clean_environment(PYTHONPATH=str(executor), PATH=search),
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        running.wait(60)
    except subprocess.TimeoutExpired:
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
    expected = {f"{rule}/{number}" for rule, number in product(RULES, range(JOBS))}
    found = submitted.read_text().split()
    assert set(found) == expected and len(found) == len(expected), output.read_text()[-2000:]
    assert running.returncode == 0, output.read_text()[-2000:]
