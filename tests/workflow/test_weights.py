"""Trained weights in a run: exactly as in the README, and of a residual network, up to the report."""

import csv
import json
import os
import re
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch
import xarray as xr
from pypdf import PdfReader
from test_own import FIGURES_OF_MINE, blocks

from made_up import residual
from made_up.projects import Project, clean_environment

pytestmark = pytest.mark.slow
CONFIG, STUDY = "config/trained.yaml", "results/trained/aggregate/curvature.nc"
NETWORKS = ["small_cnn", "small_cnn epoch_1", "small_cnn epoch_5"]
PAPER = {"claims": 1, "agreement": 1, "numbers": 1, "captions": 1, "paper": 1, "publish": 1}
RESNET = """
run: resnet
only: [curvature]
networks:
  resnet: {file: networks.py, name: ResNet}
studies:
  curvature:
    networks: [resnet]
    weights: [late.safetensors, early.pt]
    inputs: unit_interval
    subspaces: [plane-10-sparse]
    dimensions: [5, 10]
    examples: [20]
    validation: 20
    radii: [0.5, 2]
    draws: 2
    bias_directions: true
cuts: null
figures: {loss: null, model_kappa: null, trace_and_norm: null}
execution: {draws_per_job: all}
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Project in which the README's section on a user's own trained weights has been followed exactly.

    Data and network are those of the section before it.
    """
    project = Project.create(tmp_path_factory.mktemp("trained"))
    data, network = blocks("python")
    (training,), (config,) = (blocks(kind, "Your own trained weights") for kind in ("python", "yaml"))
    (project.folder / "config/small_cnn.py").write_text(network)
    (project.folder / re.match(r"# (config/\S+)\n", config)[1]).write_text(config)
    for program in (data, training):
        subprocess.run([sys.executable, "-c", program], cwd=project.folder, check=True)
    (command,) = blocks("", "Your own trained weights")
    assert command.strip() == f".venv/bin/snakemake --cores all --configfile {CONFIG}"
    done = subprocess.run(
        command, shell=True, cwd=project.folder, capture_output=True, text=True, env=clean_environment()
    )
    assert done.returncode == 0, done.stderr
    return project


@pytest.fixture
def changed(trained, tmp_path):
    return trained.copy(tmp_path / "project")


def test_results_figures_and_claims_have_the_weights(trained):
    study = xr.load_dataset(trained.folder / STUDY)
    assert study["weights"].values.tolist() == ["none", "epoch_1", "epoch_5"]
    # Training lowers the loss near the radius of the weights themselves, and lengthens them.
    near = study["loss"].sel(examples=200, radius=1).mean("draw").squeeze()
    assert float(near.sel(weights="epoch_5")) < float(near.sel(weights="epoch_1")) < float(near.sel(weights="none"))
    own = study["own_radius"].isel(radius=0, examples=0).squeeze()
    assert float(own.sel(weights="epoch_5").std("draw")) == 0 < float(own.sel(weights="none").std("draw"))
    with xr.open_dataset(trained.folder / "results/trained/figures/trace_over_norm.nc") as data:
        assert data["network"].values.tolist() == NETWORKS
        expected = study["trace_over_norm"].mean("draw").sel(network="small_cnn", weights="epoch_5")
        assert np.allclose(data["mean"].sel(network=NETWORKS[2]).transpose(*expected.dims), expected)
    assert len(list((trained.folder / "figures/trained").glob("*.png"))) == FIGURES_OF_MINE
    with open(trained.folder / "results/trained/claims.csv", newline="") as file:
        cases = [row["case"] for row in csv.DictReader(file) if row["verdict"] != "not tested"]
    assert any(case.endswith("weights=epoch_5") for case in cases)


def test_the_paper_the_settings_and_the_plan_show_them(changed):
    text = " ".join(page.extract_text() for page in PdfReader(changed.folder / "paper/paper.pdf").pages)
    assert "glorot and the weights epoch_1, epoch_5" in " ".join(text.split())
    shown = (changed.folder / "results/trained/paper/paper.yaml").read_text()
    assert "label: epoch_5" in shown and "safetensors" not in shown
    assert changed.dry_run("all", config=CONFIG) == {}
    (changed.folder / STUDY).unlink()
    plan = changed.make("plan", f"CONFIG={CONFIG}").stdout
    assert "curvature is measured at the weights none, epoch_1, epoch_5" in plan


def test_other_content_measures_them_again_and_another_age_or_place_does_not(changed):
    file = changed.folder / "epoch_5.safetensors"
    os.utime(file)
    assert changed.dry_run("all", config=CONFIG) == {}
    (changed.folder / "runs").mkdir()
    file.rename(changed.folder / "runs/epoch_5.safetensors")
    changed.edit(CONFIG, "epoch_5.safetensors", "runs/epoch_5.safetensors")
    assert changed.dry_run("all", config=CONFIG) == {}
    state = safetensors.torch.load_file(changed.folder / "runs/epoch_5.safetensors")
    safetensors.torch.save_file(
        {key: 2 * each for key, each in state.items()}, changed.folder / "runs/epoch_5.safetensors"
    )
    jobs = changed.dry_run("all", config=CONFIG)
    assert jobs == {"curvature": 1, "aggregate": 1, "figure": FIGURES_OF_MINE, **PAPER}


def test_weights_of_another_network_stop_the_run_in_one_sentence(changed):
    changed.edit(CONFIG, "filters: 3", "filters: 2")
    done = changed.snakemake(STUDY, config=CONFIG)
    sentence = "epoch_1.safetensors, as weights of the network small_cnn: 0.weight has the shape (3, 1, 3, 3), but in"
    assert done.returncode != 0 and sentence in done.stderr
    changed.edit(CONFIG, "epoch_1.safetensors", "epoch_2.safetensors")
    done = changed.snakemake(STUDY, config=CONFIG)
    assert "studies.curvature.weights: epoch_2.safetensors cannot be read (No such file" in done.stderr


def test_a_residual_network_goes_from_weights_to_figures_and_report_by_one_command(tmp_path):
    """Batch normalisation in evaluation mode, shortcuts and a PReLU, trained here on the made-up images."""
    project = Project.create(tmp_path / "project")
    with xr.open_dataset(project.folder / "results/data/mnist.nc") as data:
        images, labels = data["images"].values[:200] / 255, data["labels"].values[:200]

    def save(epoch, module):
        if epoch == 1:
            torch.save({"state_dict": module.state_dict(), "epoch": epoch}, project.folder / "early.pt")
        if epoch == 3:
            safetensors.torch.save_file(module.state_dict(), project.folder / "late.safetensors")

    residual.trained(residual.written(project.folder / "networks.py"), images, labels, 3, save)
    (project.folder / "config/resnet.yaml").write_text(RESNET)
    done = project.make("report", "CONFIG=config/resnet.yaml")
    assert done.returncode == 0, done.stderr
    study = xr.load_dataset(project.folder / "results/resnet/aggregate/curvature.nc")
    assert study["weights"].values.tolist() == ["late", "early"]
    assert bool(study["trace_over_norm"].notnull().all()) and not bool(study["overflow"].any())
    assert json.loads(study.attrs["settings"])["weights"][0]["label"] == "late"
    with zipfile.ZipFile(project.folder / "report.zip") as report:
        names = report.namelist()
    assert any(name.endswith("report.html") for name in names)
    figures = {path.stem for path in (project.folder / "figures/resnet").glob("*.png")}
    assert figures == {"fraction_positive", "trace_over_norm"}
    with xr.open_dataset(project.folder / "results/resnet/figures/fraction_positive.nc") as data:
        assert data["network"].values.tolist() == ["resnet late", "resnet early"]
