"""Trained weights as points of studies of curvature."""

import shutil

import numpy as np
import pytest
import safetensors.torch
import torch
import xarray as xr
from torch import nn

from goldilocks_zone.claims import cells
from goldilocks_zone.config import kinds, records
from goldilocks_zone.curvature.hessian import plane_hessian
from goldilocks_zone.measurements import aggregate, blocks, curvature_blocks, curvature_sweeps
from goldilocks_zone.models import initialisation, networks, user_networks
from goldilocks_zone.models.problem import Problem
from goldilocks_zone.subspaces import planes
from goldilocks_zone.subspaces.labels import Plane
from made_up import projects, residual
from oracles import brute_force

LABEL, PLANE = "resnet", "plane-4-dense"
STUDY = {
    "kind": "curvature", "datasets": ["mnist"], "networks": [LABEL], "subspaces": [PLANE], "dimensions": [3, 4],
    "examples": [10], "validation": 20, "draws": 2, "radii": [0.5, 1], "radius_unit": "init_scale",
    "inputs": "unit_interval", "bias_directions": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folder with made-up images, a residual network, and files of its weights after one and after two epochs."""
    folder = tmp_path_factory.mktemp("weights")
    projects.write_images(folder / "mnist.nc")
    with xr.open_dataset(folder / "mnist.nc") as data:
        images, labels = data["images"].values[:60] / 255, data["labels"].values[:60]
    network = residual.written(folder / "networks.py")
    (folder / "network.yaml").write_text(records.dump(network.record(LABEL)))
    (folder / "code.txt").write_text("code")

    def save(epoch, module):
        safetensors.torch.save_file(module.state_dict(), folder / f"epoch_{epoch}.safetensors")
        torch.save({"model": module.state_dict(), "epoch": epoch}, folder / f"epoch_{epoch}.pt")

    residual.trained(network, images, labels, 2, save)
    return folder


def study_of(**changed):
    return kinds.known()["curvature"].model.model_validate({**STUDY, **changed})


def measured(folder, place, network=LABEL, **changed):
    """Measure a block of a study, with `changed` settings, and write it below the folder `place`.

    Returns the block, its job, and its path. Data, network and weights are in `folder`.
    """
    study = study_of(networks=[network], **changed)
    (place / "settings.yaml").write_text(records.dump(records.of_measurement(study, 1)))
    (place / "grid.yaml").write_text(records.dump(records.of_grid(study)))
    own = (str(folder / "network.yaml"), str(folder / "networks.py")) if network == LABEL else (None, "")
    job = blocks.Job(
        str(folder / "mnist.nc"), str(place / "settings.yaml"), str(folder / "code.txt"), *own, "mnist", network, PLANE,
        "draws-000-001", device="cpu", weights_files=[each.file for each in study.weights or []],
    )  # fmt: skip
    block = curvature_blocks.measure_block(job)
    path = place / f"mnist/{network}/{PLANE}/draws-000-001.nc"
    path.parent.mkdir(parents=True)
    block.to_netcdf(path)
    return block, job, path


def trained(folder, file):
    """The residual network with the weights in a file, a module in double precision, and its parameters (D,)."""
    module = user_networks.build_named(LABEL, residual.written(folder / "networks.py"), (1, 28, 28), 10)
    module.load_state_dict(safetensors.torch.load_file(folder / file))
    return module, nn.utils.parameters_to_vector(module.parameters()).detach()


def test_a_point_of_weights_has_the_hessian_of_the_library_and_of_brute_force(folder, tmp_path, monkeypatch):
    """The point is r θ with the file's running means, on the same planes as initialisations of the same draw."""
    seen = []

    class Recorded(curvature_sweeps.Sweep):
        def seen(self):
            for each in super().seen():
                seen.append(each)
                yield each

    monkeypatch.setattr(curvature_blocks, "Sweep", Recorded)
    block, *_ = measured(folder, tmp_path, weights=str(folder / "epoch_2.safetensors"))
    module, theta = trained(folder, "epoch_2.safetensors")
    points = [each for each in seen if isinstance(each, curvature_sweeps.OnPlane)]
    assert block["weights"].values.tolist() == ["epoch_2"] and len(points) == 2 * len(STUDY["radii"])
    parameters = initialisation.parameters_of(module)
    sizes, are_biases = [p.size for p in parameters], [p.is_bias for p in parameters]
    for number, each in enumerate(points):
        draw, radius, sweep = number // 2, each.place["radius"], each.sweep
        eta = planes.metric(sizes, are_biases, initialisation.weight_deviations(parameters, "glorot"), "shell", True)
        stream = sweep.work.stream("plane", "dense", draw, 0)
        rows = torch.as_tensor(planes.directions(Plane(4, "dense"), eta, stream))
        data = sweep.inputs[:10], sweep.targets[:10]
        found = plane_hessian(Problem(module, *data), radius * theta, rows)
        expected = brute_force.picture(networks.logits_function(module), radius * theta, rows, *data).hessian
        # All round in double precision; sums of some thousand terms lose two digits.
        tolerance = 1e-11 * np.linalg.norm(expected)
        assert np.linalg.norm(each.measured.hessian - expected) < tolerance
        assert np.linalg.norm(found.hessian - expected) < tolerance
        here = block.sel(weights="epoch_2", draw=draw, radius=radius, examples=10).isel(plane=0)
        assert here["eigenvalue"].sel(dimension=4).values == pytest.approx(np.linalg.eigvalsh(expected), abs=tolerance)
        fresh = initialisation.glorot_radius(initialisation.parameters_of(sweep.module))
        assert float(here["own_radius"]) == pytest.approx(float(theta.norm()) / fresh)
        weights = [tensor.detach() for tensor in module.parameters() if tensor.ndim > 1]
        assert sweep.layers[1] == pytest.approx([float(tensor.square().mean().sqrt()) for tensor in weights])


@pytest.fixture(scope="module")
def trajectory(folder, tmp_path_factory):
    """A block measured at three weights, and its aggregate.

    The weights are those after the second epoch, random initialisations, and those after the first epoch.
    """
    place = tmp_path_factory.mktemp("trajectory")
    files = [str(folder / "epoch_2.pt"), "none", str(folder / "epoch_1.safetensors")]
    block, job, path = measured(folder, place, weights=files)
    paths = [str(path)], job.path_to_settings, str(place / "grid.yaml"), job.path_to_code
    return block, aggregate.aggregate_study(*paths, [job.path_to_network])


def test_a_radius_is_the_norm_of_rescaled_weights(folder, tmp_path, monkeypatch):
    """Radii are in units of r_X, which is that of initialisations for all weights."""
    norms = []
    curvature_at = curvature_sweeps.hessian.curvature_at

    def recorded(problem, theta, points, *more):
        norms.extend(scale * float(theta.norm()) for scale, _ in points)
        return curvature_at(problem, theta, points, *more)

    monkeypatch.setattr(curvature_sweeps.hessian, "curvature_at", recorded)
    block, *_ = measured(folder, tmp_path, weights=str(folder / "epoch_1.pt"), radius_unit="r_X", draws=1)
    fresh = user_networks.build_named(LABEL, residual.written(folder / "networks.py"), (1, 28, 28), 10)
    r_x = initialisation.glorot_radius(initialisation.parameters_of(fresh))
    assert block.attrs["r_x"] == r_x
    assert norms == pytest.approx([0.5 * r_x, r_x] * 2)


def test_a_trajectory_is_an_axis(trajectory):
    block, study = trajectory
    labels = ["epoch_2", "none", "epoch_1"]
    assert block["weights"].values.tolist() == study["weights"].values.tolist() == labels
    assert study["trace_over_norm"].dims[:4] == ("dataset", "network", "subspace", "weights")
    assert len({float(block["loss"].sel(weights=label).mean()) for label in labels}) == 3
    # Draws are of planes alone.
    assert float(block["loss"].sel(weights="epoch_2").std("draw").max()) < 1e-12
    assert float(block["trace"].sel(weights="epoch_2").std("draw").min()) > 0


def test_each_point_of_a_trajectory_is_as_on_its_own(trajectory, folder, tmp_path):
    """Includes initialisations after any weights, and weights in both file formats."""
    block, _ = trajectory
    for name, label, changed in (
        ("alone", "none", {}),
        ("one", "epoch_2", {"weights": str(folder / "epoch_2.safetensors")}),
    ):
        (tmp_path / name).mkdir()
        alone, *_ = measured(folder, tmp_path / name, **changed)
        found = block.sel(weights=label if name == "alone" else [label], drop=True)
        xr.testing.assert_equal(found.drop_vars("own_radius"), alone.drop_vars("own_radius", errors="ignore"))


def test_networks_at_weights_are_shown_as_networks(trajectory):
    _, study = trajectory
    shown = cells.weights_as_networks(study)
    names = {"resnet epoch_2": "epoch_2", "resnet": "none", "resnet epoch_1": "epoch_1"}
    assert shown["network"].values.tolist() == list(names) and shown.attrs == study.attrs
    for network, label in names.items():
        expected = study["loss"].sel(network="resnet", weights=label, drop=True)
        xr.testing.assert_identical(shown["loss"].sel(network=network, drop=True), expected)
    assert set(shown.coords) == set(study.coords) - {"weights"}
    assert cells.weights_as_networks(shown) is shown


def test_a_claims_primary_cell_has_no_weights(trajectory):
    """Claims are judged on initialisations; at weights they have secondary cells."""
    _, study = trajectory
    place = {"network": "resnet", "subspace": PLANE, "examples": 10}
    settings = {"bias_directions": True, "inputs": "unit_interval"}
    case = {"study": "mine", "cell": place, "settings": settings, "statement": "", "unit": "", "test": "positive"}
    assert cells.primary(case, {"mine": study}, {})["weights"].item() == "none"
    others = [cells.label(*each) for each in cells.secondary({"case": case}, {"mine": study})]
    assert others == [f"case mnist resnet {PLANE} N=10 weights=epoch_{number}" for number in (2, 1)]
    with pytest.raises(cells.NotTested, match="this run has no weights none in its study"):
        cells.primary(case, {"mine": study.sel(weights=["epoch_1"])}, {})


@pytest.mark.parametrize("form", ["safetensors", "pt"])
def test_weights_of_another_network_are_refused_with_file_and_key(form, folder, tmp_path):
    file = str(folder / f"epoch_1.{form}")
    with pytest.raises(ValueError) as refusal:
        measured(folder, tmp_path, network="fc-5x1-relu", weights=file)
    said = f"{file}, as weights of the network fc-5x1-relu: the network's tensor 1.weight is missing"
    assert said in str(refusal.value)


def test_weights_that_changed_meanwhile_are_refused(folder, tmp_path):
    file = tmp_path / "late.pt"
    shutil.copy2(folder / "epoch_1.pt", file)
    study = study_of(weights=str(file))
    (tmp_path / "settings.yaml").write_text(records.dump(records.of_measurement(study, 1)))
    shutil.copy2(folder / "epoch_2.pt", file)
    paths = [str(path) for path in (folder / "mnist.nc", tmp_path / "settings.yaml", folder / "code.txt")]
    own = str(folder / "network.yaml"), str(folder / "networks.py")
    cell = "mnist", LABEL, PLANE, "draws-000-001"
    job = blocks.Job(*paths, *own, *cell, device="cpu", weights_files=[str(file)])
    with pytest.raises(ValueError, match=r"late\.pt has changed since the workflow started: run again"):
        curvature_blocks.measure_block(job)
