"""Blocks of the curvature of joint embeddings, against full Hessians and closed forms, and for degenerate batches."""

import functools
import math

import numpy as np
import pytest
import torch
import xarray as xr

from goldilocks_zone.config import kinds, records
from goldilocks_zone.config.values import ConfigurationError
from goldilocks_zone.curvature import jets
from goldilocks_zone.data import datasets, views
from goldilocks_zone.data.official_shapes import Shape
from goldilocks_zone.measurements import aggregate, blocks, jepa_curvature_blocks, jepa_rays
from goldilocks_zone.models.embedding_losses import Vicreg
from goldilocks_zone.models.labels import parse_network
from goldilocks_zone.storage import netcdf

ALL = ["vicreg", "vicreg-0.4", "invariance", "variance", "covariance", "info_nce-dot-both", "cross_entropy"]
STUDY = {
    "kind": "jepa_curvature",
    "datasets": ["made"],
    "networks": ["fc-9x2-relu-nobias"],
    "subspaces": ["plane-6-dense"],
    "radii": [0.1, 1, 10],
    "draws": 2,
    "examples": [24],
    "embedding": 4,
    "validation": 10,
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    rng = np.random.default_rng(0)
    images, labels = np.zeros((80, 1, 28, 28), np.uint8), np.arange(80) % 4
    images[:, :, 6:22, 6:22] = rng.integers(0, 256, (80, 1, 16, 16))
    made = datasets.as_dataset("made", (images[:60], labels[:60]), (images[60:], labels[60:]), 4, "test", "none")
    path = tmp_path_factory.mktemp("data") / "made.nc"
    netcdf.write_dataset(made, path)
    return path


def study_of(**changed):
    return kinds.known()["jepa_curvature"].model.model_validate({**STUDY, **changed})


def job_of(folder, dataset, study):
    (folder / "settings.yaml").write_text(records.dump(records.of_measurement(study, 1)))
    (folder / "grid.yaml").write_text(records.dump(records.of_grid(study)))
    (folder / "code.txt").write_text("code")
    paths = (str(folder / name) for name in ("settings.yaml", "code.txt"))
    cell = "made", study.networks[0], study.subspaces[0], f"draws-000-{study.draws - 1:03d}"
    return blocks.Job(str(dataset), *paths, None, "", *cell, device="cpu")


def measured(folder, dataset, **changed):
    return jepa_curvature_blocks.measure_block(job_of(folder, dataset, study_of(**changed)))


def ray_of(folder, dataset, draw=0, **changed):
    study = study_of(**changed)
    work = blocks.begin(job_of(folder, dataset, study))
    images = views.images_of(dataset, "made", study.validation, 1)
    pairs = views.pairs(images, study.views, max(study.examples), 1, draw)
    return jepa_rays.Ray(work, study, pairs, images.classes, draw)


def whole_hessian(ray, label, radius):
    """Hessian (d, d) of the mean loss along the directions of a ray, at a `radius`, by automatic differentiation."""
    loss = ray.loss(label)

    def mean(t):
        return loss.total(ray.outputs(radius * ray.theta + t @ ray.directions), ray.labels) / len(ray.inputs)

    return torch.func.hessian(mean)(torch.zeros(len(ray.directions), dtype=torch.float64)).numpy()


@pytest.mark.parametrize(
    "changed",
    [
        {"criteria": ALL},
        {"networks": ["fc-9x2-tanh"], "predictor": True, "criteria": ["vicreg", "info_nce-distance"]},
        {"networks": ["fc-9x2-relu"], "bias_directions": True, "initialisation": "uniform", "views": "noise"},
    ],
)
def test_curves_are_those_of_whole_hessians(tmp_path, dataset, changed):
    block = measured(tmp_path, dataset, **changed)
    for draw in (0, 1):
        ray = ray_of(tmp_path, dataset, draw, **changed)
        for label in ray.study.criteria:
            for radius in ray.radii:
                here, expected = block.sel(criterion=label, radius=radius, draw=draw), whole_hessian(ray, label, radius)
                norm = np.linalg.norm(expected)
                assert here["frobenius_norm"].item() == pytest.approx(norm, rel=1e-9, abs=1e-250)
                assert here["trace"].item() == pytest.approx(np.trace(expected), abs=1e-9 * norm)
                both = here["gauss_newton_trace"] + here["residual_trace"]
                assert both.item() == pytest.approx(np.trace(expected), abs=1e-9 * norm)
                if norm:
                    share = np.mean(np.linalg.eigvalsh(expected) > 0)
                    assert here["fraction_positive"].item() == pytest.approx(share)


def test_deviations_are_those_of_the_outputs(tmp_path, dataset):
    block = measured(tmp_path, dataset)
    ray = ray_of(tmp_path, dataset)
    for radius in ray.radii:
        deviations = ray.outputs(radius * ray.theta).std(0).numpy()
        here = block.sel(draw=0, radius=radius)
        assert here["deviation"].item() == pytest.approx(np.sqrt(np.mean(deviations**2)))
        assert here["active_hinges"].item() == np.mean(deviations**2 + 1e-4 < 1)


def test_prefixes_of_the_batch_are_smaller_batches(tmp_path, dataset):
    both = measured(tmp_path, dataset, examples=[12, 24])
    alone = measured(tmp_path, dataset, examples=[24])
    xr.testing.assert_allclose(both.sel(examples=24, drop=True), alone.sel(examples=24, drop=True))
    assert not np.allclose(both["trace"].sel(examples=12), both["trace"].sel(examples=24))


def test_traces_change_their_sign_at_edges(tmp_path, dataset):
    labels = ["vicreg-0.2", "vicreg", "info_nce-dot-both"]
    changed = {"edges": labels, "embedding": 12, "networks": ["fc-30x2-relu-nobias"], "views": "shift_1"}
    block, ray = measured(tmp_path, dataset, draws=1, **changed), ray_of(tmp_path, dataset, **changed)
    ways = {
        "edge": (ray.jets, jepa_rays.trace),
        "last_layer_edge": (ray.last_layer, jepa_rays.trace),
        "ray_minimum": (ray.jets, jets.radial_derivatives),
    }
    found = []
    for name, (here, measure) in ways.items():
        for label in labels:
            x = block[name].sel(edge_loss=label, draw=0).item()
            if math.isnan(x):
                ends = measure(here, ray.loss(label), torch.tensor([0.01, 100.0], dtype=torch.float64), ray.labels)
                assert ends[0] >= 0 or ends[1] <= 0
                continue
            beside = 10 ** (torch.tensor([x - 2e-3, x + 2e-3], dtype=torch.float64) / 2)
            below, above = measure(here, ray.loss(label), beside, ray.labels)
            assert below < 0 < above
            found.append(label)
    assert len(found) >= 8 and {*found} == {*labels}
    assert np.isnan(block["edge_formula"].sel(edge_loss="info_nce-dot-both")).all()


def test_crossings_of_known_functions():
    grid = torch.logspace(-2, 2, 9, dtype=torch.float64)
    roots = torch.tensor([0.02, 1.0, 7.3, 1e-9, 1e9], dtype=torch.float64)
    function = lambda scales: scales - roots  # noqa: E731
    found = jepa_rays.crossings(function, grid[:, None] - roots, grid, 40)
    np.testing.assert_allclose(found[:3], 2 * np.log10(roots[:3].numpy()), atol=1e-9)
    # Of one sign on the whole grid.
    assert np.isnan(found[3:]).all()


def test_formula_holds_of_wide_networks(tmp_path, dataset):
    """Traces on a plane average to the formula's balance; for close views, R = 1 would lie elsewhere."""
    changed = {"edges": ["vicreg-0.1"], "networks": ["fc-120x2-relu-nobias"], "subspaces": ["plane-60-dense"]}
    block = measured(tmp_path, dataset, draws=8, views="shift_1", examples=[40], radii=[1], **changed)
    off = (block["edge"] - block["edge_formula"]).values.ravel()
    assert abs(off.mean()) < 4 * off.std() / math.sqrt(off.size) + 0.01
    assert off.std() < 0.05


def test_layer_traces_are_those_of_whole_layers(tmp_path, dataset):
    changed = {"layer_probes": 800, "criteria": ["vicreg", "cross_entropy"], "radii": [0.5]}
    block, ray = measured(tmp_path, dataset, draws=1, **changed), ray_of(tmp_path, dataset, **changed)
    for label in ray.study.criteria:
        loss = ray.loss(label)
        mean = lambda theta, loss=loss: loss.total(ray.outputs(theta), ray.labels) / len(ray.inputs)  # noqa: E731
        full = torch.func.hessian(mean)(0.5 * ray.theta).diagonal().numpy()
        for number in range(3):
            expected = (0.5 * ray.deviations[number]) ** 2 * full @ ray.layer(number)
            found = block["layer_trace"].sel(criterion=label, layer=number + 1).item()
            # The relative error of 800 probes is √(2/800) at most.
            assert found == pytest.approx(expected, rel=0.2)
    assert block["invariance_ratio"].values[..., -1].item() == 1


def test_identities_hold(tmp_path, dataset):
    block = measured(tmp_path, dataset, criteria=ALL, edges=ALL, checked_directions=4, collapse=True)
    assert (block["jets_error"] < 1e-10).all()
    assert (block["degree_error"].sel(criterion=["invariance", "covariance"]) < 1e-10).all()
    assert np.isnan(block["degree_error"].sel(criterion="vicreg")).all()
    error = block["collapse_error"]
    assert (error.sel(edge_loss=["vicreg", "vicreg-0.4", "invariance", "variance", "info_nce-dot-both"]) < 1e-10).all()
    assert np.isnan(error.sel(edge_loss="cross_entropy")).all()
    assert (block["gauss_newton_lowest"].sel(criterion="invariance") > -1e-12).all()
    active = block.sel(criterion="variance", radius=0.1)
    assert (active["gauss_newton_highest"] < 1e-12).all() and (active["gauss_newton_lowest"] < -0.1).all()


def test_the_collapse_point_is_a_minimum_below_its_threshold(tmp_path, dataset):
    threshold = measured(tmp_path, dataset, edges=["vicreg"], collapse=True, draws=1)["collapse_threshold"].item()
    labels = [f"vicreg-{factor * threshold:.6f}" for factor in (0.9, 1.1)]
    block = measured(tmp_path, dataset, edges=labels, collapse=True, draws=1)
    below, above = block["collapse_eigenvalue"].sel(unit=1).values.ravel()
    assert above < 0 <= below + 1e-12


def aggregated(folder, block, study):
    path = folder / f"made/{study.networks[0]}/{study.subspaces[0]}/draws-000-001.nc"
    netcdf.write_dataset(block, path)
    paths = (str(folder / name) for name in ("settings.yaml", "grid.yaml", "code.txt"))
    return aggregate.aggregate_study([str(path)], *paths, [])


def test_degenerate_points_are_recorded_and_aggregates_made(tmp_path, dataset):
    changed = {"criteria": ALL, "edges": ["vicreg"], "radii": [1e-60, 1, 1e6, 1e80]}
    block = measured(tmp_path, dataset, **changed)
    found = aggregated(tmp_path, block, study_of(**changed)).squeeze()
    hinges = found.sel(criterion="variance", radius=1e6)
    assert (hinges["flat"] == 1).all() and np.isnan(hinges["trace_over_norm"]).all() and (hinges["trace"] == 0).all()
    covariance = found["overflow"].sel(criterion="covariance")
    assert (covariance.sel(radius=1e80) == 1).all() and (covariance.sel(radius=[1, 1e6]) == 0).all()
    assert np.isnan(found["trace"].sel(criterion="covariance", radius=1e80)).all()
    assert (found["overflow"].sel(criterion="invariance", radius=1) == 0).all()
    assert found["x"].sel(radius=1).item() == 0


@pytest.mark.parametrize("criteria", [["covariance", "invariance"], ["invariance", "covariance"]])
def test_a_criterion_that_overflows_everywhere_leaves_the_others_alone(tmp_path, dataset, criteria):
    block = measured(tmp_path, dataset, criteria=criteria, radii=[1e40, 1e41], draws=1)
    overflow, trace = block["overflow"], block["trace"]
    assert (overflow.sel(criterion="covariance") == 1).all() and trace.sel(criterion="covariance").isnull().all()
    assert (overflow.sel(criterion="invariance") == 0).all() and trace.sel(criterion="invariance").notnull().all()


def test_dead_encoders_are_named(tmp_path, dataset, monkeypatch):
    """If all units of the first layer are off, the batch has collapsed, and everything else is finite or missing."""
    initialisation = blocks.Work.initialisation

    def dead(self, parameters, kind, draw):
        theta = initialisation(self, parameters, kind, draw)
        return np.where(np.arange(theta.size) < parameters[0].size, 0.0, theta)

    monkeypatch.setattr(blocks.Work, "initialisation", dead)
    changed = {"criteria": ALL, "edges": ["vicreg"], "collapse": True, "layer_probes": 3, "checked_directions": 2}
    block = measured(tmp_path, dataset, **changed)
    assert (block["dead_dimensions"] == 1).all() and (block["deviation"] == 0).all()
    assert np.isnan(block["edge_formula"]).all() and np.isnan(block["collapse_threshold"]).all()
    aggregated(tmp_path, block, study_of(**changed))


def refused(**changed):
    study = study_of(**changed)
    networks = {label: parse_network(label) for label in study.networks}
    with pytest.raises(ConfigurationError) as error:
        study.check("studies.s", {"made": Shape((1, 28, 28), 4, 60)}, networks)
    return str(error.value)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"networks": ["fc-9x2-tanh"], "edges": ["vicreg"]}, "needs homogeneous outputs"),
        ({"predictor": True, "collapse": True}, "set predictor: false"),
        ({"networks": ["conv-3x2-relu"]}, "use an encoder fc-"),
        ({"subspaces": ["plane-37-dense"]}, "the last layer of fc-9x2-relu-nobias has 36 weights"),
        ({"embedding": 3, "criteria": ["cross_entropy"]}, "needs 4 outputs at least"),
        ({"classes": 2}, "leave this key out"),
    ],
)
def test_studies_that_are_not_defined_are_refused(changed, message):
    assert message in refused(**changed)


def test_images_of_other_sizes_are_refused():
    with pytest.raises(ConfigurationError, match="28 × 28"):
        study_of().check("studies.s", {"made": Shape((3, 32, 32), 4, 60)}, {})


@pytest.mark.parametrize("label", ["vicreg-0", "vicreg-", "barlow", "info_nce"])
def test_unknown_losses_are_refused(label):
    with pytest.raises(ValueError, match="is unknown; use vicreg"):
        study_of(criteria=[label])


def test_labels_are_losses():
    make = functools.partial(jepa_rays.loss_of, study_of(epsilon=0.01), classes=4)
    assert make("vicreg") == Vicreg(4, 25, 25, 1, 0.01) and make("vicreg-0.4") == Vicreg(4, 25, 10, 1, 0.01)
    assert make("covariance") == Vicreg(4, 0, 0, 1, 0.01)
    assert make("info_nce-dot-both").both_directions and make("info_nce-distance").similarity == "distance"
