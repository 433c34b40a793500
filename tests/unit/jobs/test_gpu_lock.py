"""One job per GPU, on stand-in devices: any names suffice, because only locks matter."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from goldilocks_zone.jobs import locks

ROOT = Path(__file__).parents[3]
JOB = """
import sys, time
sys.path.insert(0, {scripts!r})
from goldilocks_zone.jobs import locks
locks.POLL_SECONDS = 0.05
print(locks.claim_gpu({names!r}, {folder!r}), flush=True)
time.sleep(60)
"""


def start(folder, names):
    code = JOB.format(scripts=str(ROOT / "scripts"), names=names, folder=str(folder))
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


def test_concurrent_jobs_spread_over_devices_and_wait_for_a_free_one(tmp_path):
    jobs = [start(tmp_path, ["a", "b"]) for _ in range(2)]
    try:
        assert sorted(int(job.stdout.readline()) for job in jobs) == [0, 1]
        jobs.append(start(tmp_path, ["a", "b"]))
        time.sleep(1.0)
        freed = jobs[0]
        freed.kill()
        freed.wait()
        # Whatever the first had, however it ended.
        assert int(jobs[2].stdout.readline()) in (0, 1)
        time.sleep(0.2)
        assert jobs[1].poll() is None and jobs[2].poll() is None
    finally:
        for job in jobs:
            job.kill()


def test_the_same_device_under_two_orders_of_names_is_one(tmp_path):
    job = start(tmp_path, ["a", "b"])
    try:
        assert job.stdout.readline() == "0\n"
        assert locks.claim_gpu(["b", "a"], tmp_path) == 0
    finally:
        job.kill()


def test_no_device_is_refused():
    with pytest.raises(ValueError, match=r"no GPU that CUDA can see; set execution\.device"):
        locks.claim_gpu([])
