"""The run `tiny` on a real SLURM cluster of one node: jobs with GPUs, a cancelled job, and a drained node."""

import os
import signal
import subprocess
import sys

import pytest
import xarray as xr
import yaml
from cluster import NODE, Cluster, obstacle

from made_up.projects import RESULTS, STUDY, clean_environment
from needs import missing

pytestmark = pytest.mark.weekly
# One node has little to wait for, and no accounting. Snakemake ends as long after its last job as its rate looks back.
HERE = [
    *("--max-jobs-per-timespan", "5/5s"),
    *("--slurm-no-account", "--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "2"),
    *("--seconds-between-status-checks", "2", "--latency-wait", "5"),
]
OVERLAY = {"execution": {"gpus": 1, "draws_per_job": 1, "runtime": 10}}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    if reason := obstacle():
        missing(f"no SLURM: {reason}")
    made = Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        made.start()
        yield made
    finally:
        made.stop()


def of_rule(jobs, rule):
    return [job for job in jobs if f"rule_{rule}" in job.get("Comment", "")]


def test_a_run_with_faults_gives_what_a_local_one_does(cluster, executor, profile, project, built):
    for path in ("results/tiny/curvature", "results/tiny/aggregate", "figures/tiny"):
        subprocess.run(["rm", "-r", project.folder / path], check=True)
    (project.folder / "results/tiny/claims.csv").unlink()
    (project.folder / "overlay.yaml").write_text(yaml.safe_dump(OVERLAY))
    command = [sys.executable, "-m", "snakemake", "--workflow-profile", str(profile), *HERE, *RESULTS]
    command += ["--configfile", "config/tiny.yaml", "overlay.yaml"]
    search = os.pathsep.join([str(executor), "scripts"])
    environment = clean_environment(PYTHONPATH=search)
    with open(project.folder / "output.txt", "w") as output:
        running = subprocess.Popen(
            command,
            cwd=project.folder,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:

        def at_work():
            assert running.poll() is None, (project.folder / "output.txt").read_text()
            return [job for job in of_rule(cluster.jobs(), "curvature") if job["JobState"] == "RUNNING"]

        (first, *_) = cluster.wait_for(at_work, 180)
        # Asked kindly it would finish.
        cluster.run("scancel", "--signal=KILL", "--full", first["JobId"])
        cluster.run("scontrol", "update", f"nodename={NODE}", "state=drain", "reason=test")
        cluster.wait_for(lambda: "dr" in cluster.run("sinfo", "--noheader", "--format=%t"), 20)
        cluster.run("scontrol", "update", f"nodename={NODE}", "state=resume")
        assert running.wait(600) == 0, (project.folder / "output.txt").read_text()
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
    jobs = cluster.jobs()
    assert len(jobs) <= 14, [job.get("Comment") for job in jobs]
    (cancelled,) = [job for job in jobs if job["JobId"] == first["JobId"]]
    assert cancelled["JobState"] in ("CANCELLED", "FAILED"), cancelled
    for rule, gpu in (("curvature", True), ("aggregate", False), ("figure", False), ("claims", False)):
        of_this = of_rule(jobs, rule)
        assert of_this and all(("gres/gpu=1" in job["TRES"] or "gres:gpu:1" in str(job)) == gpu for job in of_this), (
            of_this
        )
    assert 3 <= len({job["JobId"] for job in of_rule(jobs, "curvature")}) <= 4
    expected, found = (xr.load_dataset(each.folder / STUDY) for each in (built, project))
    assert found.drop_attrs().equals(expected.drop_attrs())
    assert (project.folder / "results/tiny/claims.csv").exists()
    assert list((project.folder / "logs/slurm").rglob("*"))
