"""Passive calls: they write nothing that belongs to a run, and predict exactly what the run does."""

import hashlib
import random
import shutil
import subprocess
import sys
import time

import pytest
import xarray as xr

from goldilocks_zone.provenance import records
from made_up.projects import BLOCK, RESULTS, STUDY, clean_environment

pytestmark = pytest.mark.slow
PLACES = ("results", "figures", "paper", "logs")
# Edits of tiny's configuration that reach blocks: of a study's settings, of its grid, and of its examples.
EDITS = (
    ("number: 3", "number: 2"),
    ("draws: 2", "draws: 3"),
    ("examples: [20, 50]", "examples: [20]"),
)
PASSIVE = (["-np"], ["--summary"], ["--lint"], ["-n", "--forceall"])


def contents(project):
    """Hash of the content and modification time of every file in a run's folders, by path."""
    paths = sorted(path for place in PLACES for path in (project.folder / place).rglob("*") if path.is_file())
    return {str(path): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns) for path in paths}


def unbuilt(project):
    """Remove the results of the run from a project: blocks, aggregates, data of figures, and claims.csv."""
    for place in ("curvature", "aggregate", "figures"):
        shutil.rmtree(project.folder / "results/tiny" / place)
    (project.folder / "results/tiny/claims.csv").unlink()


def edited(project, name, old, new):
    """Write config/<name>.yaml, the configuration of tiny with `old` replaced by `new`, and return its path.

    It configures the same run.
    """
    text = (project.folder / "config/tiny.yaml").read_text()
    assert old in text
    (project.folder / f"config/{name}.yaml").write_text(text.replace(old, new))
    return f"config/{name}.yaml"


@pytest.mark.parametrize("lost", [False, pytest.param(True, marks=pytest.mark.weekly)])
def test_passive_calls_write_nothing(project, lost):
    if lost:
        shutil.rmtree(project.folder / ".snakemake")
    before = contents(project)
    for number, edit in enumerate(EDITS):
        config = edited(project, f"other_{number}", *edit)
        assert project.dry_run(config=config)["curvature"] == 1
        # A file alone tells too.
        assert project.dry_run("results/tiny/claims.csv", config=config) == {
            "curvature": 1,
            "aggregate": 1,
            "claims": 1,
        }
        assert contents(project) == before
    for arguments in PASSIVE:
        done = project.snakemake(*arguments, config="config/other_0.yaml")
        assert done.returncode in (0, 1), done.stderr
        assert contents(project) == before, arguments
    for command in ("plan", "status"):
        assert project.make(command, "CONFIG=config/other_1.yaml").returncode == 0
        assert contents(project) == before, command


@pytest.mark.parametrize("lost", [pytest.param(False, marks=pytest.mark.weekly), True])
def test_what_is_planned_is_what_runs_also_on_the_way_back(project, lost):
    def run(config):
        if lost:
            shutil.rmtree(project.folder / ".snakemake")
        planned = project.dry_run(config=config)
        done = project.snakemake(*RESULTS, config=config)
        assert done.returncode == 0, done.stderr
        ran = {rule: done.stderr.count(f"(Rule: {rule})") for rule in planned}
        assert ran == planned
        assert project.dry_run(config=config) == {}
        return planned

    everything = {"curvature": 1, "aggregate": 1, "claims": 1, "figure": 4}
    other = edited(project, "other", *EDITS[0])
    assert run(other) == everything
    assert xr.load_dataset(project.folder / STUDY).sizes["radius"] == 2
    # The old value's record went when the new one came, so what was made by it is made again.
    assert run("config/tiny.yaml") == everything
    assert xr.load_dataset(project.folder / STUDY).sizes["radius"] == 3


def test_everything_that_a_run_promises_is_asked_for(project):
    def due():
        return project.dry_run("all")

    rest = {"agreement": 1, "numbers": 1, "captions": 1, "paper": 1, "publish": 1}
    assert due() == rest
    (project.folder / "results/tiny/figures/loss.nc").unlink()
    assert due() == {**rest, "figure": 1}
    (project.folder / "results/tiny/claims.csv").unlink()
    assert due() == {**rest, "figure": 1, "claims": 1}
    (project.folder / STUDY).unlink()
    assert due() == {**rest, "figure": 4, "claims": 1, "aggregate": 1}
    (project.folder / BLOCK).unlink()
    assert due() == {**rest, "figure": 4, "claims": 1, "aggregate": 1, "curvature": 1}


def disturb(project, built, calls):
    """Make the results repeatedly during passive calls, such as dry runs, with edited configurations.

    Asserts that the results equal those of `built`, and returns the number of calls, `calls`.
    """
    configs = [edited(project, f"other_{number}", *edit) for number, edit in enumerate(EDITS)]
    kinds = ["--dry-run", "--summary", "--report"]
    chance, fired = random.Random(calls), 0
    while fired < calls:
        unbuilt(project)
        run = subprocess.Popen(
            project.command(*RESULTS), cwd=project.folder, stderr=subprocess.PIPE, text=True, env=clean_environment()
        )
        while run.poll() is None and fired < calls:
            config, kind = chance.choice(configs), chance.choice([*kinds, "plan"])
            if kind == "plan":
                project.make("plan", f"CONFIG={config}")
            else:
                project.snakemake(kind, config=config)
            fired += 1
        _, said = run.communicate()
        assert run.returncode == 0, said
        for path in (STUDY, BLOCK):
            found, expected = (xr.load_dataset(each.folder / path) for each in (project, built))
            assert found.equals(expected) and found.attrs["settings_hash"] == expected.attrs["settings_hash"]
    return fired


def test_a_run_is_not_disturbed_by_passive_calls(project, built):
    assert disturb(project, built, 8) == 8


@pytest.mark.weekly
def test_a_run_is_not_disturbed_by_many_passive_calls(project, built):
    assert disturb(project, built, 200) == 200


def test_a_job_refuses_code_that_was_changed_after_its_run_was_started(project):
    unbuilt(project)
    log = project.folder / "logs" / BLOCK.removeprefix("results/").replace(".nc", ".log")
    log.unlink()
    run = subprocess.Popen(
        project.command(*RESULTS), cwd=project.folder, stderr=subprocess.PIPE, text=True, env=clean_environment()
    )
    while not log.exists():
        assert run.poll() is None
        time.sleep(0.01)
    project.edit("scripts/goldilocks_zone/measurements/aggregate.py", "CELL = (", "CHANGED = 1\nCELL = (")
    _, said = run.communicate()
    assert run.returncode == 1
    assert "scripts/aggregate_study.py, or code that it uses, has changed since this run was started: run again" in said


def cluster_job(project, config="config/tiny.yaml"):
    """Run a job as an executor starts it on another node: by a separate call of Snakemake, which loads the workflow.

    Returns the completed process.
    """
    cell = "study=curvature,dataset=mnist,network=fc-10x2-relu,subspace=plane-10-sparse,block=draws-000-001,run=tiny"
    job = ["--target-jobs", f"curvature:{cell}", "--allowed-rules", "curvature", "--mode", "remote", "--force"]
    job += ["--nolock", "--ignore-incomplete", "--no-hooks", "--executor", "local"]
    return project.snakemake(*job, config=config)


def test_a_clusters_job_measures_what_its_run_was_started_with(project, built):
    (project.folder / BLOCK).unlink()
    before = contents(project)
    # Edited while the job waits in the queue.
    for edit in EDITS[::2]:
        project.edit("config/tiny.yaml", *edit)
    done = cluster_job(project)
    assert done.returncode == 0, done.stderr
    assert xr.load_dataset(project.folder / BLOCK).equals(xr.load_dataset(built.folder / BLOCK))
    kept = ("settings", "fingerprints")
    after = contents(project)
    assert {path: after[path] for path in before if any(f"/{place}/" in path for place in kept)} == {
        path: known for path, known in before.items() if any(f"/{place}/" in path for place in kept)
    }
    project.edit(
        "scripts/goldilocks_zone/spectra/summaries.py", "import numpy as np", "import numpy as np\n\nCHANGED = 1"
    )
    done = cluster_job(project)
    assert done.returncode == 1
    assert "measure_block.py, or code that it uses, has changed since this run was started: run again" in done.stderr
    settings = records.versions(project.folder / "results/tiny/settings/study-curvature.yaml")
    settings[0].unlink()
    assert "did not leave exactly one such record: start the run again" in cluster_job(project).stderr


def test_a_second_run_is_refused_however_it_is_called_and_changes_nothing(project):
    """-call is not -c with a passive option; the folder of the first run does not change."""
    hold = "import sys; sys.path.insert(0, 'scripts'); from goldilocks_zone.jobs import locks\n"
    hold += "locks.enter_run(); print(); input()"
    holder = subprocess.Popen(
        [sys.executable, "-c", hold], cwd=project.folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    holder.stdout.readline()
    before = contents(project)
    config = edited(project, "other", *EDITS[0])
    for arguments in (["-call", "-Rcurvature"], ["-c2", "-qall"], ["--touch"], ["--delete-all-output"]):
        done = project.snakemake(*RESULTS, *arguments, config=config)
        assert done.returncode == 1, (arguments, done.stderr)
        # Asked to be quiet, Snakemake says nothing at all.
        sentence = f"another run is at work in this folder (process {holder.pid} on "
        assert sentence in done.stdout + done.stderr or "-qall" in arguments
        assert contents(project) == before, arguments
    holder.kill()
    holder.wait()
    # A killed run is in nobody's way.
    done = project.snakemake(STUDY, "-call")
    assert done.returncode == 0, done.stderr
