"""A run of ten thousand blocks: Snakemake plans it within seconds and a laptop's memory."""

import re
import subprocess
import sys

import pytest
import yaml

from made_up.projects import clean_environment

BLOCKS, SECONDS, MIB = 10_000, 40, 400
# Prints the seconds of processors and the memory that a command took: seen from the tests' own process, which is large
# where it is forked, it would have the memory of that.
LAUNCHER = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:]).returncode
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_utime + used.ru_stime, used.ru_maxrss / 2**10)
sys.exit(code)
"""
pytestmark = pytest.mark.weekly


def test_ten_thousand_blocks_are_planned_in_seconds(project):
    study = {"subspaces": [f"plane-{d}-sparse" for d in range(10, 20)], "dimensions": [5], "draws": BLOCKS // 10}
    overlay = {"studies": {"curvature": study}, "execution": {"draws_per_job": 1}}
    (project.folder / "large.yaml").write_text(yaml.safe_dump(overlay))
    command = project.command(
        "results/tiny/aggregate/curvature.nc",
        "--dry-run",
        "--quiet",
        "rules",
        config=["config/tiny.yaml", "large.yaml"],
    )
    launched = [sys.executable, "-c", LAUNCHER, *command]
    done = subprocess.run(launched, cwd=project.folder, capture_output=True, text=True, env=clean_environment())
    assert done.returncode == 0, done.stderr
    assert re.search(rf"^curvature +{BLOCKS}$", done.stdout + done.stderr, re.MULTILINE), done.stderr
    seconds, mib = map(float, done.stdout.splitlines()[-1].split())
    assert seconds < SECONDS
    assert mib < MIB
