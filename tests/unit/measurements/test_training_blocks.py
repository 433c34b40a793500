"""Blocks of training studies on made-up images: what their settings must reach, and checkpoints of groups."""

from types import SimpleNamespace

import numpy as np
import pytest

from goldilocks_zone.config import kinds, records
from goldilocks_zone.data import datasets
from goldilocks_zone.measurements import aggregate, blocks, checkpoints, training_blocks
from goldilocks_zone.storage import netcdf

STUDY = {
    "kind": "training", "datasets": ["made"], "networks": ["fc-6-relu"], "subspaces": ["plane-5-dense"],
    "radii": [1.0], "draws": 2, "steps": 4, "batch": 10, "validation": 10, "logged": [2], "test": 20,
}  # fmt: skip


def write_dataset(folder, name="made", classes=4):
    random, labels = np.random.default_rng(0), np.arange(80) % classes
    images = random.integers(0, 120, (80, 1, 4, 4), dtype=np.uint8)
    images[np.arange(80), 0, labels] += 100
    made = datasets.as_dataset(name, (images[:60], labels[:60]), (images[60:], labels[60:]), classes, "s", "l")
    netcdf.write_dataset(made, folder / f"{name}.nc")


def measured(folder, dataset="made", **changed):
    """Measure the block of a small study with `changed` settings in `folder`, and write it; returns block and path."""
    study = kinds.known()["training"].model.model_validate({**STUDY, "datasets": [dataset], **changed})
    write_dataset(folder, dataset, 4 if dataset == "made" else 3)
    (folder / "settings.yaml").write_text(records.dump(records.of_measurement(study, 1)))
    (folder / "code.txt").write_text("code")
    path = folder / f"{dataset}/fc-6-relu/{study.subspaces[0]}/draws-000-001.nc"
    job = blocks.Job(
        str(folder / f"{dataset}.nc"), str(folder / "settings.yaml"), str(folder / "code.txt"), None, "", dataset,
        "fc-6-relu", study.subspaces[0], path.stem, device="cpu", path_to_checkpoints=str(folder / "checkpoints"),
        checkpoint_seconds=1e9,
    )  # fmt: skip
    block = training_blocks.measure_block(job)
    netcdf.write_dataset(block, path)
    return block, path


def test_curvature_on_the_plane_is_that_of_the_loss_and_temperature_of_training(tmp_path):
    """At the start, all have the same parameters; at a high temperature κ is that of small radii."""
    found = {}
    for number, changed in enumerate(({}, {"loss": "mean_squared_error"}, {"temperature": 50.0})):
        folder = tmp_path / str(number)
        folder.mkdir()
        block, _ = measured(folder, curvature_examples=20, dtype="float64", **changed)
        found[number] = block["trace_over_norm"].sel(moment="start").values
    assert abs(found[0] - found[1]).min() > 1e-3 and abs(found[0] - found[2]).min() > 1e-3


def test_labels_of_which_one_is_text_can_be_varied(tmp_path):
    block, _ = measured(tmp_path, vary={"batch": [10, "all"]})
    assert block["training_loss"].notnull().all() and block["batch"].values.tolist() == ["10", "all"]
    last = block["training_loss"].isel(step=-1)
    assert (last.sel(batch="10") != last.sel(batch="all")).all()


def test_outputs_of_datasets_with_other_numbers_of_classes_lie_side_by_side(tmp_path):
    study = kinds.known()["training"].model.model_validate(
        {**STUDY, "datasets": ["made", "other"], "outputs_examples": 5}
    )
    paths = [str(measured(tmp_path, name, outputs_examples=5)[1]) for name in study.datasets]
    (tmp_path / "grid.yaml").write_text(records.dump(records.of_grid(study)))
    (tmp_path / "settings.yaml").write_text(records.dump(records.of_measurement(study, 1)))
    settings = [str(tmp_path / name) for name in ("settings.yaml", "grid.yaml", "code.txt")]
    found = aggregate.aggregate_study(paths, *settings, [])
    assert "class" not in found["training_loss"].dims and found["outputs"].sizes["class"] == 4
    assert found["outputs"].sel(dataset="other").isel({"class": 3}).isnull().all()


def test_one_group_of_classes_is_refused(tmp_path):
    with pytest.raises(ValueError, match="labels: groups_of_five leaves one class of the 4 of made: merge fewer"):
        measured(tmp_path, labels="groups_of_five")


def test_a_checkpoint_is_that_of_its_members(tmp_path):
    study = kinds.known()["training"].model.model_validate(STUDY)
    job = SimpleNamespace(network="fc-6-relu", path_to_checkpoints=str(tmp_path), checkpoint_seconds=1.0)
    work = SimpleNamespace(job=job, own=None, code="code", block=SimpleNamespace(seed=1))
    keys = [
        checkpoints.checkpoint(work, study, {"checksum": "0", "members": members}, 0).key
        for members in ([{"draw": 0}], [{"draw": 0}, {"draw": 1}], [{"draw": 0}])
    ]
    assert keys[0] == keys[2] != keys[1]
