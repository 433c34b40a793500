"""A run that is killed repeatedly, on a disk that fills up, with a damaged result: its final results are the same."""

import os
import random
import signal
import subprocess
import time

import pytest
import xarray as xr
import yaml
from test_faults import BLOCKS, FULL, needs_mounts, processes, run_mounted

from made_up.projects import RESULTS, STUDY, clean_environment

KILLS, SECONDS = 20, 900
JOBS = ("measure_", "aggregate_", "plot_", "judge_")
OVERLAY = {
    "execution": {"draws_per_job": 1, "checkpoint_seconds": 0.2},
    "only": ["curvature", "planes"],
    "studies": {
        "planes": {
            "networks": ["fc-10x2-relu"],
            "subspaces": ["plane-5-sparse"],
            "radii": [0.5, 2],
            "draws": 2,
            "validation": 20,
            "batch": 20,
            "steps": 300,
            "evaluated": 20,
            "vary": {"rate_rule": ["fixed", "proportional"]},
        }
    },
}
TRAINING = "results/tiny/aggregate/planes.nc"
pytestmark = pytest.mark.weekly


def run_of(project):
    """Start the whole run of a project in its own process group, and return the process."""
    with open(project.folder / "output.txt", "w") as output:
        return subprocess.Popen(
            [*project.command(*RESULTS, STUDY, TRAINING), "overlay.yaml"],
            cwd=project.folder,
            env=clean_environment(),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )


def finish(project):
    """Run the project to its end, without disturbance; asserts that all results exist within 120 s."""
    running = run_of(project)
    assert running.wait(120) == 0, (project.folder / "output.txt").read_text()


def results(project):
    return {path: xr.load_dataset(project.folder / path) for path in (STUDY, TRAINING)}


@pytest.fixture
def undisturbed(project, tmp_path):
    (project.folder / "overlay.yaml").write_text(yaml.safe_dump(OVERLAY))
    copy = project.copy(tmp_path / "undisturbed")
    finish(copy)
    return results(copy)


def jobs_of(project):
    """IDs of the processes of all jobs that are running."""
    return sorted(job for name in JOBS for job in processes(name, project.folder))


def jobs_at_work(running, project):
    """Wait until jobs are running, and return the IDs of their processes; empty if the run is over."""
    while running.poll() is None and not (jobs := jobs_of(project)):
        time.sleep(0.05)
    return jobs if running.poll() is None else []


def hit(running, project, chance):
    """Kill a job or Snakemake, or interrupt the whole run as from the keyboard, at a random time.

    `chance` is the generator of random choices. Returns whether the run was alive.
    """
    kind, delay = chance.choice(["job", "job", "snakemake", "keyboard"]), chance.uniform(0, 2)
    if kind == "job":
        jobs_at_work(running, project)
    else:
        delay += 1
    time.sleep(delay)
    jobs = jobs_at_work(running, project) if kind == "job" else []
    if running.poll() is not None:
        return False
    if kind == "job":
        os.kill(chance.choice(jobs), signal.SIGKILL)
    elif kind == "snakemake":
        os.kill(running.pid, signal.SIGKILL)
    else:
        os.killpg(running.pid, signal.SIGINT)
    return True


@needs_mounts
def test_a_soaked_run_ends_as_an_undisturbed_one(project, undisturbed):
    start, chance, kills = time.monotonic(), random.Random(20261122), 0
    while kills < KILLS:
        assert time.monotonic() - start < SECONDS, f"{kills} kills in {SECONDS} s"
        running = run_of(project)
        try:
            kills += hit(running, project, chance)
        except ProcessLookupError:
            continue
        finally:
            # The jobs beside a killed one are left to end, on a slow machine for long.
            running.wait(300)
        if all((project.folder / path).exists() for path in (STUDY, TRAINING)):
            # Something is left to be killed.
            for path in sorted((project.folder / BLOCKS).rglob("*.nc")):
                path.unlink()
            (project.folder / TRAINING).unlink()
    assert "the disk is full; make room and run again" in run_mounted(project, full(project))
    finish(project)
    damaged = chance.choice(sorted((project.folder / BLOCKS).rglob("*.nc")))
    age = damaged.stat()
    damaged.write_bytes(damaged.read_bytes()[: age.st_size // 2])
    os.utime(damaged, ns=(age.st_atime_ns, age.st_mtime_ns))
    (project.folder / STUDY).unlink()
    running = run_of(project)
    assert running.wait(60) == 1
    assert (
        f"{damaged.relative_to(project.folder)} is damaged: delete it and run again"
        in (project.folder / "output.txt").read_text()
    )
    damaged.unlink()
    finish(project)
    for path, expected in undisturbed.items():
        assert results(project)[path].equals(expected), path
    hidden = [path for place in ("results", "figures") for path in (project.folder / place).rglob(".*")]
    assert not hidden and not list((project.folder / "results/tiny/checkpoints").rglob("*.pt"))


def full(project):
    """Remove the study's results, and return a command that mounts a disk for blocks that is too small for one."""
    for path in sorted((project.folder / BLOCKS).rglob("*.nc")):
        path.unlink()
    (project.folder / BLOCKS).mkdir(parents=True, exist_ok=True)
    (project.folder / STUDY).unlink(missing_ok=True)
    return FULL.format(size="16k", folder=BLOCKS)
