"""A training study in the workflow: its results, and its state after a kill."""

import os
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest
import xarray as xr

from made_up.projects import Project, clean_environment

CONFIG = "config/training.yaml"
STUDY = "results/tiny/aggregate/tried.nc"
CELL = "tried/mnist/fc-10x2-relu/plane-5-sparse"
BLOCK = f"results/tiny/training/{CELL}/draws-000-001.nc"
SETTINGS = """
run: tiny
only: [tried]
studies:
  tried:
    kind: training
    datasets: [mnist]
    networks: [fc-10x2-relu]
    subspaces: [plane-5-sparse]
    radii: [0.1, 1, 10]
    draws: 2
    steps: 600
    batch: 20
    validation: 20
    rate: 0.01
    logged: [10, 100, 400]
    vary: {rate_rule: [fixed, proportional], labels: [original, shuffled]}
cuts: null
execution: {draws_per_job: all, checkpoint_seconds: 0}
"""
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Project in which the training study of SETTINGS has been built without a disturbance."""
    project = Project.create(tmp_path_factory.mktemp("trained"))
    (project.folder / CONFIG).write_text(SETTINGS)
    done = project.snakemake(STUDY, config=CONFIG)
    assert done.returncode == 0, done.stderr
    return project


def test_a_study_of_training_is_complete_and_leaves_no_checkpoint(trained):
    study = xr.load_dataset(trained.folder / STUDY)
    assert dict(study["norm"].sizes) == {
        **dict.fromkeys(("dataset", "network", "subspace"), 1),
        **dict.fromkeys(("labels", "rate_rule", "draw"), 2),
        **{"radius": 3, "step": 5},
    }
    assert not study["diverged"].any() and study["test_accuracy"].notnull().all()
    assert study["step"].values.tolist() == [0, 10, 100, 400, 600]
    start = study["norm"].sel(step=0).transpose("radius", ...)
    assert np.allclose(start / start[1], study["radius"].values.reshape(-1, *[1] * (start.ndim - 1)), rtol=1e-6)
    # At r_X the arms are one; elsewhere they are not.
    apart = (study["norm"].sel(rate_rule="fixed") - study["norm"].sel(rate_rule="proportional")).isel(step=-1)
    assert np.allclose(apart.sel(radius=1), 0, atol=1e-5) and abs(apart.sel(radius=10)).min() > 1e-3
    assert not list((trained.folder / "results/tiny/checkpoints").rglob("*.pt"))
    again = trained.snakemake(STUDY, config=CONFIG)
    assert "Nothing to be done" in again.stdout + again.stderr


def jobs_at_work(folder):
    done = subprocess.run(["pgrep", "-f", "measure_block"], capture_output=True, text=True)
    found = []
    for process in map(int, done.stdout.split()):
        try:
            if os.readlink(f"/proc/{process}/cwd") == str(folder):
                found.append(process)
        except OSError:
            continue
    return found


def test_killed_twice_in_mid_training_it_goes_on_bit_for_bit(trained, tmp_path):
    project = trained.copy(tmp_path / "project")
    shutil.rmtree(project.folder / "results/tiny/training")
    (project.folder / STUDY).unlink()
    log = project.folder / f"logs/tiny/training/{CELL}/draws-000-001.log"
    log.unlink()
    checkpoints = project.folder / f"results/tiny/checkpoints/{CELL}"
    ages, resumed = {}, 0
    for _ in range(2):
        command = project.command(STUDY, config=CONFIG)
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        running = subprocess.Popen(command, cwd=project.folder, env=clean_environment(), **quiet)
        deadline = time.monotonic() + 120
        # Until there is progress beyond that of the last time.
        while time.monotonic() < deadline:
            found = {path: path.stat().st_mtime_ns for path in checkpoints.rglob("[!.]*.pt")}
            if any(age != ages.get(path) for path, age in found.items()) and jobs_at_work(project.folder):
                break
            assert running.poll() is None
            time.sleep(0.02)
        for process in jobs_at_work(project.folder):
            os.kill(process, signal.SIGKILL)
        assert running.wait(60) == 1
        resumed += log.read_text().count("goes on after step")
        ages = {path: path.stat().st_mtime_ns for path in checkpoints.rglob("[!.]*.pt")}
        assert ages and not (project.folder / BLOCK).exists()
    done = project.snakemake(STUDY, config=CONFIG)
    assert done.returncode == 0, done.stderr
    assert resumed + log.read_text().count("goes on after step") >= 2
    found, expected = (xr.load_dataset(folder / STUDY) for folder in (project.folder, trained.folder))
    assert found.equals(expected)
    assert not list(checkpoints.rglob("*"))


@pytest.mark.parametrize(
    "key, value, part",
    [
        ("subspaces", "[plane-0-sparse]", "studies.tried.subspaces.0"),
        ("subspaces", "[plane-200000-sparse]", "studies.tried.subspaces.0"),
        ("radii", "[0, 1]", "studies.tried.radii.0"),
        ("batch", "60000", "studies.tried.batch"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(trained, key, value, part, tmp_path):
    lines = [f"    {key}: {value}" if line.strip().startswith(f"{key}:") else line for line in SETTINGS.splitlines()]
    (trained.folder / "config/wrong.yaml").write_text("\n".join(lines).replace("run: tiny", "run: wrong"))
    done = trained.snakemake(STUDY, config="config/wrong.yaml")
    assert done.returncode != 0 and part in done.stderr
    assert not (trained.folder / "results/wrong").exists()


def test_a_batch_larger_than_what_the_dataset_turns_out_to_have(trained):
    """Only the job finds that there are fewer images than in MNIST: one sentence, and nothing is written."""
    (trained.folder / "config/large.yaml").write_text(SETTINGS.replace("batch: 20", "batch: 190"))
    done = trained.snakemake(BLOCK, "--force", config="config/large.yaml")
    log = (trained.folder / f"logs/tiny/training/{CELL}/draws-000-001.log").read_text()
    assert done.returncode != 0 and "batch: 190 examples cannot be drawn from 180; lower it" in log
    assert not (trained.folder / BLOCK).exists()


GEOMETRY = """
run: tiny
only: [shape, triangle]
studies:
  shape:
    kind: training
    datasets: [mnist]
    networks: [fc-10x2-relu-nobias]
    subspaces: [full-free]
    radii: [0.5, 1]
    draws: 2
    steps: 20
    batch: 20
    validation: 20
    rate: 0.002
    logged: [1, 10]
    geometry_examples: 20
    geometry_steps: [0, 10, 20]
    residual_steps: [20]
    eigenvalues: 8
    vary: {classes: [4, 5], geometry_examples: [10, 20]}
  triangle:
    kind: training
    datasets: [mnist]
    networks: [fc-10x2-relu-nobias]
    subspaces: [full-free]
    radii: [1]
    draws: 2
    steps: 10
    batch: 20
    validation: 20
    logged: [5]
    classes: 3
    outputs_examples: 15
cuts: null
execution: {draws_per_job: 1}
"""


def test_softmax_outputs_of_held_out_examples_are_kept(trained, tmp_path):
    project = trained.copy(tmp_path / "project")
    (project.folder / CONFIG).write_text(GEOMETRY)
    path = "results/tiny/aggregate/triangle.nc"
    done = project.snakemake(path, config=CONFIG)
    assert done.returncode == 0, done.stderr
    study = xr.load_dataset(project.folder / path).squeeze(("dataset", "network", "subspace", "radius"))
    assert dict(study["outputs"].sizes) == {"draw": 2, "step": 3, "output_example": 15, "class": 3}
    assert abs(study["outputs"].sum("class") - 1).max() < 1e-6 and (study["outputs"].std("step") > 0).any()
    assert (study["output_label"].isel(step=0) == study["output_label"]).all()
    assert set(np.unique(study["output_label"])) <= {0, 1, 2}


def test_the_geometry_of_a_run_is_measured_at_its_steps(trained, tmp_path):
    project = trained.copy(tmp_path / "project")
    (project.folder / CONFIG).write_text(GEOMETRY)
    path = "results/tiny/aggregate/shape.nc"
    done = project.snakemake(path, config=CONFIG)
    assert done.returncode == 0, done.stderr
    study = xr.load_dataset(project.folder / path)
    at = study.sel(step=[0, 10, 20])
    for name in ("gauss_newton_eigenvalue", "hessian_eigenvalue", "gradient_power", "clustering", "centred_edge"):
        assert at[name].notnull().all() and study[name].sel(step=1).isnull().all()
        assert study[name].attrs["units"] and study[name].attrs["long_name"]
    residual = study["residual_extreme"]
    assert residual.sel(step=20).notnull().all() and residual.sel(step=[0, 10]).isnull().all()
    assert (residual.sel(step=20, end="smallest") < 0).all() and (residual.sel(step=20, end="largest") > 0).all()
    values = at["gauss_newton_eigenvalue"]
    assert (values.diff("rank") <= 0).all() and (values.sum("rank") <= at["gauss_newton_full_trace"] * 1.0001).all()
    assert study["gauss_newton_eigenvalue"].sizes == study["hessian_eigenvalue"].sizes
    assert dict(study["gradient_power"].sizes) == {
        **dict.fromkeys(("dataset", "network", "subspace"), 1),
        **{"class_count": 2, "geometry_examples": 2, "radius": 2, "draw": 2, "step": 4, "gradient_of": 5, "rank": 8},
    }
    # The same runs, whatever is measured of them.
    losses = study["training_loss"]
    assert (losses.isel(geometry_examples=0) == losses.isel(geometry_examples=1)).all()
    assert "Nothing to be done" in project.snakemake(path, config=CONFIG).stderr
    project.edit(CONFIG, "classes: [4, 5]", "classes: [2, 5]")
    refused = project.snakemake(path, config=CONFIG)
    assert refused.returncode != 0 and "geometry_examples: 20 is too large, because these classes" in refused.stderr
