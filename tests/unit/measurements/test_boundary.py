"""Blocks of the decision boundary: minima of all kinds, degenerate networks, and invariance under rescaling."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr
import yaml

from goldilocks_zone.config import kinds, records
from goldilocks_zone.curvature import margin_estimate
from goldilocks_zone.data import planar
from goldilocks_zone.measurements import (
    aggregate,
    blocks,
    boundary_blocks,
    boundary_networks,
    checkpoints,
    jepa_worlds,
    minima,
)
from goldilocks_zone.models import networks
from goldilocks_zone.storage import netcdf

STUDY = {
    "kind": "boundary",
    "networks": ["fc-8x2-relu"],
    "draws": 2,
    "initialisation": "uniform",
    "epochs": [2, 6],
    "grid": 40,
    "fine_grid": 60,
    "test": 300,
}
MANY = {"minima": ["normal", "untrained", "adversarial-5", "adversarial-9", "large_norm-9"]}


def study_of(dataset, **changed):
    """Settings of a small boundary study of one dataset, with `changed` keys."""
    return kinds.known()["boundary"].model.model_validate({**STUDY, "datasets": [dataset], **changed})


def measured(folder, dataset="gauss", **changed):
    """Measure the block of a small study, with `changed` settings, and write it; returns the block and its path.

    The records of its settings, grid and code are written to `folder`.
    """
    study = study_of(dataset, **changed)
    (folder / "settings.yaml").write_text(records.dump(records.of_measurement(study, 1)))
    (folder / "grid.yaml").write_text(records.dump(records.of_grid(study)))
    (folder / "code.txt").write_text("code")
    path = folder / f"{dataset}/{study.networks[0]}/full-free/draws-000-001.nc"
    job = blocks.Job(
        "", str(folder / "settings.yaml"), str(folder / "code.txt"), None, "", dataset, study.networks[0], "full-free",
        path.stem, device="cpu", path_to_checkpoints=str(folder / "checkpoints"), checkpoint_seconds=1e9,
    )  # fmt: skip
    block = boundary_blocks.measure_block(job)
    netcdf.write_dataset(block, path)
    return block, path


def trainer(study, draws=(0, 1)):
    """Trainer of a study's networks outside of a job, its module, and its data."""
    name = study.datasets[0]
    data = minima.in_the_plane(study, name, 1, draws, torch.empty(0, dtype=torch.float64))
    job = SimpleNamespace(dataset=name, network=study.networks[0])
    work = blocks.Work(job, records.Block(study, 1, draws, [1.0]), "code", None, torch.device("cpu"), 0.0)
    module = work.network_of((1, 1, 2), data.classes)
    return minima.Trainer(work, study, module, data, draws), module, data


@pytest.fixture
def no_checkpoints(monkeypatch):
    monkeypatch.setattr(checkpoints, "checkpoint", lambda *_: None)


def test_variants_of_a_study_have_checkpoints_of_their_own(tmp_path, monkeypatch):
    """Else the second variant overwrites what the first has trained, and a resumed job starts the first again."""
    made = checkpoints.checkpoint
    taken = []

    def noted(*given):
        taken.append(made(*given))
        return taken[-1]

    monkeypatch.setattr(checkpoints, "checkpoint", noted)
    measured(tmp_path, minima=["normal"], vary={"loss": ["cross_entropy", "mean_squared_error"]})
    assert [each.path.name for each in taken] == ["001.pt", "002.pt"]
    assert len({each.key for each in taken}) == 2


def test_minima_start_where_they_are_said_to(no_checkpoints, monkeypatch):
    made, _, data = trainer(study_of("gauss", **MANY))
    runs, train = [], minima.Trainer.train

    def recorded(self, starts, examples, phase):
        runs.append((starts.clone(), examples, phase, train(self, starts, examples, phase)))
        return runs[-1][-1]

    monkeypatch.setattr(minima.Trainer, "train", recorded)
    found = made.minima()
    (fresh, random_examples, phase, on_random), (starts, examples, last, ends) = runs
    assert (phase.optimiser, phase.batch, list(phase.steps)) == ("adam", None, [5, 9])
    assert (last.optimiser, last.batch, list(last.steps)) == ("sgd", 64, [6, 18])
    assert not torch.equal(random_examples[1], data.training[1])
    # normal, adversarial-5, adversarial-9, large_norm-9, of two draws each, on the data of the draws.
    normal, first, second, large = starts.view(4, 2, -1)
    assert torch.equal(normal, fresh) and torch.equal(first, on_random[0]) and torch.equal(second, on_random[1])
    assert torch.allclose(large.norm(dim=1), on_random[1].norm(dim=1), rtol=1e-6)
    assert abs(torch.nn.functional.cosine_similarity(large, fresh)).max() < 0.4
    assert torch.equal(examples[1], torch.cat([data.training[1]] * 4))
    assert torch.equal(found["adversarial-9"].parameters, ends.view(2, 4, 2, -1)[:, 2])
    assert torch.isfinite(found["adversarial-9"].random_accuracy).all()
    assert torch.isnan(found["normal"].random_accuracy).all()


def test_an_untrained_network_prefers_no_class(no_checkpoints):
    made, module, data = trainer(study_of("hierarchical", minima=["untrained"]))
    found = made.minima()["untrained"].parameters
    assert len(found) == 2 and torch.equal(found[0], found[1])
    for point, inputs in zip(found[0], data.training[0]):
        means = networks.logits_function(module)(point.double(), inputs).mean(0)
        assert means.max() - means.min() < 1e-6
    assert torch.equal(found[0][:, :-4], made.fresh()[:, :-4])


def test_members_that_stopped_are_where_they_would_be_alone(no_checkpoints):
    """Holds although members leave the joint computation at steps at which nothing is measured."""
    settings = {
        "batch": "all",
        "optimiser": "adam",
        "rate": 0.01,
        "epochs": [150, 400],
        "stop_at": 0.3,
        "dtype": "float64",
    }
    made, *_ = trainer(study_of("gauss", **settings))
    found = made.minima()["normal"].parameters
    assert found.shape[:2] == (2, 2)
    for draw in (0, 1):
        alone, *_ = trainer(study_of("gauss", **settings, draws=1), (draw,))
        torch.testing.assert_close(alone.minima()["normal"].parameters[:, 0], found[:, draw], rtol=1e-9, atol=1e-12)
    losses = made.classified(found[1], *made.training)["loss"]
    assert ((losses <= 0.3) & (losses > 0.2)).all()


def test_a_wide_margin_starts_from_the_noisy_checkerboard(no_checkpoints):
    made, _, data = trainer(study_of("checkerboard", minima=["normal", "wide_margin"]))
    noisy = minima.in_the_plane(made.study, "checkerboard_noisy", 1, (0, 1), data.training[0])
    assert (noisy.training[0] - data.training[0]).abs().max() > 0.3
    found = made.minima()
    alone = made.train(made.fresh(), (noisy.training[0].float(), noisy.training[1]), made._last)
    expected = made.train(alone[-1], made.training, made._last)
    torch.testing.assert_close(found["wide_margin"].parameters, expected, rtol=1e-5, atol=1e-6)


def test_a_block_becomes_an_aggregate(tmp_path):
    """The aggregate has every variable, and is the same when it is made again."""
    everything = {
        "minima": ["normal", "untrained"],
        "softmax": ["temperature-1", "entropy-0.05", "uniform", "permuted"],
        "scalings": ["none", "2-0.5-1"],
        "radii": [1, 2],
        "map": 5,
        "examples_kept": 4,
        "explicit": ["float32", "float64"],
        "estimate_steps": 3,
        "hessian_eigenvectors": 2,
    }
    block, path = measured(tmp_path, "gaps_2", **everything)
    paths = [str(tmp_path / name) for name in ("settings.yaml", "grid.yaml", "code.txt")]
    found = aggregate.aggregate_study([str(path)], *paths, [])
    assert set(block.data_vars) == set(found.data_vars)
    assert not [name for name, array in found.data_vars.items() if array.isnull().all() and name != "random_accuracy"]
    kept = found.squeeze(drop=True).isel(draw=1, minimum=0, epoch=0, radius=0, scaling=0)
    points, labels = planar.drawn("gaps_2", 1, "training", 1)
    assert np.array_equal(kept["example_point"], points[:4]) and np.array_equal(kept["example_label"], labels[:4])
    assert found["border_rank"].sizes["border"] == 4 and found["map"].sizes["map_x"] == 5
    for name in ("flip_error", "fixed_label_jump", "logits_error"):
        assert found[name].max() < 1e-6, name
    # Lanczos iteration against the dual form.
    ours = found["captured"].sel(softmax="temperature-1", rank=[1, 2]).transpose(..., "rank")
    theirs = found["captured_by_gauss_newton"].transpose(*ours.drop_vars("rank").dims[:-1], "hessian_rank")
    assert np.array_equal(np.isnan(ours.values), np.isnan(theirs.values)) and ours.notnull().any()
    assert np.nanmax(np.abs(ours.values - theirs.values)) < 1e-5


def test_scales_leave_the_boundary(tmp_path):
    """Radii change no prediction without biases; layer-wise factors of product 1 change none, even with biases."""
    boundary = ["boundary_points", "boundary_length", "true_margin", "linearised_margin", "test_accuracy"]
    block, _ = measured(tmp_path, "circle", networks=["fc-8x2-relu-nobias"], radii=[0.5, 1, 3], epochs=[6])
    for name in boundary:
        first = block[name].isel(radius=0, drop=True).broadcast_like(block[name])
        xr.testing.assert_allclose(block[name].transpose(*first.dims), first, rtol=1e-6)
    assert np.ptp(block["entropy"].values[:, 0]) > 1e-3
    block, _ = measured(tmp_path, "circle", scalings=["none", "0.2-5-1", "20-0.05-1"], epochs=[6])
    for name in [*boundary, "training_loss", "entropy", "live_share"]:
        first = block[name].isel(scaling=0, drop=True).broadcast_like(block[name])
        xr.testing.assert_allclose(block[name].transpose(*first.dims), first, rtol=1e-6)
    assert np.ptp(block["gauss_newton_trace"].values[:, 0]) > 0.1


def test_temperatures_leave_the_boundary_and_give_the_entropy(tmp_path):
    block, _ = measured(tmp_path, softmax=["temperature-1", "temperature-3", "entropy-0.05"], epochs=[6])
    captured = block["captured"].isel(rank=2, epoch=0, minimum=0, scaling=0, radius=0)
    assert (abs(captured.diff("softmax")) > 1e-6).all()
    assert "softmax" not in block["boundary_dimension"].dims
    network = block.isel(epoch=0, minimum=0, scaling=0, radius=0)
    assert (network["temperature"].sel(softmax="temperature-3") == 3).all()
    # The training set is too uncertain at temperature 1: it must be cooled.
    assert (network["entropy"] > 0.05).all() and (network["temperature"].sel(softmax="entropy-0.05") < 1).all()


def constant(network):
    """Change a network so that it predicts the first class everywhere, by a margin far above rounding."""
    with torch.no_grad():
        point = torch.zeros_like(network.point)
        point[-3] = 2000
    network.point = point
    return network


def test_degenerate_networks_are_recorded_as_such(tmp_path, monkeypatch):
    """A single predicted class, a saturated softmax and divergence give missing values where allowed, and no error."""
    create = boundary_networks.Network

    def of_draw(study, module, points, data):
        made = create(study, module, points, data)
        number = next(numbers)
        if number == 0:
            made.point = torch.full_like(made.point, math.nan)
        return constant(made) if number == 1 else made

    numbers = iter(range(2))
    monkeypatch.setattr(boundary_blocks, "Network", of_draw)
    settings = {"epochs": [2], "softmax": ["temperature-1", "entropy-0.05", "permuted"], "estimate_steps": 2}
    block, path = measured(tmp_path, **settings, explicit=["float32"], hessian_eigenvectors=2, map=4)
    diverged, flat = (block.squeeze(drop=True).isel(draw=draw) for draw in (0, 1))
    assert diverged["diverged"] == 1 and flat["diverged"] == 0
    assert flat["boundary_points"] == 0 and flat["boundary_length"] == 0
    for name in ("captured", "true_margin", "linearised_margin", "margin_estimate", "captured_by_hessian"):
        assert flat[name].isnull().all(), name
    # Saturated at temperature 1, and not where it is heated.
    assert flat["outliers"].isnull().values.tolist() == [True, False, True]
    assert flat["temperature"].sel(softmax="entropy-0.05") > 100
    assert [name for name, each in diverged.data_vars.items() if each.notnull().any()] == ["diverged"]
    paths = [str(tmp_path / name) for name in ("settings.yaml", "grid.yaml", "code.txt")]
    aggregate.aggregate_study([str(path)], *paths, [])


def test_what_the_margin_estimate_and_datasets_need_is_said():
    layers = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.LayerNorm(2))
    with pytest.raises(ValueError, match=r"only for an nn\.Sequential"):
        margin_estimate.aligned_points(layers, *[torch.ones(1, 10)] * 2, torch.ones(1, 1, 2))
    work = SimpleNamespace(job=SimpleNamespace(dataset="mine", path_to_dataset="mine.nc"), block=None)
    with pytest.raises(ValueError, match="no key examples: say how many images of mine"):
        minima.data_of(work, study_of("gauss"), torch.ones(1))
    with pytest.raises(ValueError, match="no key views: say which views of an image of mine"):
        jepa_worlds.of(SimpleNamespace(views=None), "mine", "mine.nc", 0)


@pytest.mark.parametrize(
    "changed, sentence",
    [
        ({"minima": ["worst"]}, "use normal, untrained, wide_margin, adversarial-<steps> or large_norm-<steps>"),
        ({"softmax": ["entropy"]}, "use temperature-<T>, entropy-<nats>, uniform or permuted"),
        ({"scalings": ["2-2-2"]}, "a factor for each layer, with product 1"),
    ],
)
def test_labels_that_are_none(changed, sentence):
    with pytest.raises(ValueError, match=sentence):
        study_of("gauss", **changed)


def test_the_settings_are_read_as_they_were_written(tmp_path):
    study = study_of("gauss", **MANY)
    text = records.dump(records.of_measurement(study, 7))
    assert yaml.safe_load(text)["minima"] == MANY["minima"]
