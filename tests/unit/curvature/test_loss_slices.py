"""Cuts through the loss against the loss written out, point by point."""

import math
from itertools import product

import numpy as np
import pytest
import torch
import yaml

from goldilocks_zone.curvature import loss_slices
from goldilocks_zone.data import datasets
from goldilocks_zone.measurements import blocks
from goldilocks_zone.measurements import loss_slices as measured_slices
from goldilocks_zone.models import initialisation, labels, networks, user_code
from goldilocks_zone.models.problem import Problem
from goldilocks_zone.randomness import stream
from goldilocks_zone.storage import netcdf
from goldilocks_zone.subspaces import labels as subspace_labels
from goldilocks_zone.subspaces import planes
from made_up.figures import draw, is_described
from made_up.networks import model

PLACES = loss_slices.displacements(0.8, 3)


def made_up(label="fc-7x2-relu", count=4):
    network = model(label)
    raw = stream("test", "cut").standard_normal((count, sum(p.size for p in network.parameters)))
    return network, network.initialisation(0, 1.5), torch.as_tensor(loss_slices.orthonormal(raw))


def losses(network, theta, directions, coefficients, **options):
    problem = Problem(network.logits, network.inputs, network.targets)
    return loss_slices.mean_losses(problem, theta, directions, coefficients, **options)


def test_directions_are_orthonormal_and_span_what_the_raw_ones_do():
    raw = stream("test", "raw").standard_normal((5, 40)) * np.linspace(1, 9, 40)
    found = loss_slices.orthonormal(raw)
    assert np.allclose(found @ found.T, np.eye(5), atol=1e-12)
    for k in range(1, 6):
        # What is left of the raw directions outside of the span of the first k.
        assert np.allclose(raw[:k] - raw[:k] @ found[:k].T @ found[:k], 0, atol=1e-11)


def test_places_are_symmetric_and_hold_zero():
    assert PLACES[3] == 0 and np.array_equal(PLACES, -PLACES[::-1])
    assert len(PLACES) == 7 and PLACES[-1] == pytest.approx(0.8)


@pytest.mark.parametrize("label", ["fc-7x2-relu", "fc-6x1-tanh", "fc-5x2-relu-nobias"])
def test_losses_on_lines_are_those_of_the_points(label):
    network, theta, directions = made_up(label)
    found = losses(network, theta, directions, loss_slices.line_coefficients(PLACES, 4))
    assert found.shape == (4, 7)
    for i, j in product(range(4), range(7)):
        # Sums over 30 examples in another order.
        expected = float(network.loss(theta + PLACES[j] * directions[i]))
        assert found[i, j] == pytest.approx(expected, rel=1e-13)


def test_losses_on_the_plane_are_those_of_the_points():
    network, theta, directions = made_up()
    found = losses(network, theta, directions, loss_slices.plane_coefficients(PLACES, 4))
    assert found.shape == (7, 7)
    for second, first in product(range(7), repeat=2):
        point = theta + PLACES[first] * directions[0] + PLACES[second] * directions[1]
        assert found[second, first] == pytest.approx(float(network.loss(point)), rel=1e-13)


def test_the_plane_holds_the_first_two_lines_and_all_meet_in_the_point():
    network, theta, directions = made_up()
    lines = losses(network, theta, directions, loss_slices.line_coefficients(PLACES, 4))
    plane = losses(network, theta, directions, loss_slices.plane_coefficients(PLACES, 4))
    assert np.array_equal(plane[3], lines[0]) and np.array_equal(plane[:, 3], lines[1])
    centre = losses(network, theta, directions, np.zeros(4))
    assert (lines[:, 3] == centre).all()
    assert centre == pytest.approx(float(network.loss(theta)), rel=1e-13)


@pytest.mark.parametrize("chunk", [1, 7, 29])
def test_losses_do_not_depend_on_how_examples_are_chunked(chunk):
    network, theta, directions = made_up()
    coefficients = loss_slices.line_coefficients(PLACES, 4)
    whole = losses(network, theta, directions, coefficients)
    assert np.allclose(losses(network, theta, directions, coefficients, examples_per_chunk=chunk), whole, rtol=1e-13)


def test_a_loss_that_is_not_finite_is_refused():
    network, theta, directions = made_up()
    with pytest.raises(ValueError, match="not finite on a cut"):
        losses(network, theta, directions, np.full((1, 4), 1e200))


NETWORK = """
from torch import nn

class Small(nn.Sequential):
    def __init__(self, image, classes, width=5):
        super().__init__(nn.Flatten(), nn.Linear(36, width), nn.Tanh(), nn.Linear(width, classes))
"""
SETTINGS = {
    "dataset": "made_up",
    "network": "fc-6x2-relu",
    "radii": [2.0, 0.5],
    "examples": 30,
    "subspace": "plane-3-sparse",
    "extent": 1.5,
    "steps": 3,
    "plane_steps": 2,
    "metric": "shell",
    "initialisation": "glorot",
    "inputs": "standardised",
    "validation": 10,
    "seed": 4,
}


@pytest.fixture
def files(tmp_path):
    random = np.random.default_rng(0)

    def images(n):
        return random.integers(0, 256, (n, 1, 6, 6), dtype=np.uint8), np.arange(n) % 3

    netcdf.write_dataset(datasets.as_dataset("made_up", images(60), images(9), 3, "a test", "none"), tmp_path / "d.nc")
    (tmp_path / "code.txt").write_text("code\n")
    return tmp_path


def measured(files, settings, path_to_network=None, network_file=""):
    (files / "settings.yaml").write_text(yaml.safe_dump(settings))
    paths = [str(files / name) for name in ("d.nc", "settings.yaml", "code.txt")]
    job = blocks.Job(*paths, path_to_network, network_file, device="cpu")
    netcdf.write_dataset(measured_slices.measure_block(job), files / "cuts.nc")
    return netcdf.read_dataset(files / "cuts.nc")


def test_cuts_go_through_the_initialisation_of_studies_in_units_of_its_radius(files):
    result = measured(files, SETTINGS)
    assert result["radius"].values.tolist() == [0.5, 2.0]
    chosen = {key: SETTINGS[key] for key in ("inputs", "validation", "seed")}
    examples = datasets.load(files / "d.nc", "made_up", 30, labels="original", **chosen)
    module = networks.build(labels.parse_network("fc-6x2-relu"), (1, 6, 6), 3).double()
    parameters = initialisation.parameters_of(module)
    theta = initialisation.initialise(parameters, "glorot", stream(4, "initialisation", "made_up", "fc-6x2-relu", 0))
    sizes, biases = [p.size for p in parameters], [p.is_bias for p in parameters]
    eta = planes.metric(sizes, biases, initialisation.weight_deviations(parameters, "glorot"), "shell", False)
    plane = subspace_labels.parse_plane("plane-3-sparse")
    raw = planes.directions(plane, eta, stream(4, "cut", "made_up", "fc-6x2-relu", "sparse", 0))
    directions = np.linalg.qr(raw.T)[0].T
    directions *= np.sign((directions * raw).sum(1))[:, None]
    cross_entropy = torch.nn.CrossEntropyLoss()
    for radius in (0.5, 2.0):
        r = radius * initialisation.glorot_radius(parameters)
        for place in ({"direction": 2, "displacement": -1.5}, {"direction": 1, "displacement": 0.5}):
            point = r * (theta / np.linalg.norm(theta) + place["displacement"] * directions[place["direction"]])
            torch.nn.utils.vector_to_parameters(torch.as_tensor(point), module.parameters())
            expected = cross_entropy(module(torch.as_tensor(examples.inputs)), torch.as_tensor(examples.labels))
            found = result["line_loss"].sel(radius=radius, **place)
            assert float(found) == pytest.approx(float(expected.detach()), rel=1e-12)
    assert np.array_equal(result["loss"], result["line_loss"].sel(displacement=0, direction=2))
    assert np.array_equal(result["loss"], result["plane_loss"].sel(first=0, second=0))


def test_every_variable_has_a_unit_and_the_file_its_provenance(files):
    result = measured(files, SETTINGS)
    for name in result.variables:
        assert result[name].attrs["units"] and result[name].attrs["long_name"], name
        assert not result[name].isnull().any()
    assert result.attrs["code_fingerprint"] == "code" and result.attrs["network_fingerprint"] == ""
    assert {"commit", "settings_hash", "data_checksum", "seeds", "torch_version", "wall_seconds"} <= set(result.attrs)


def test_networks_of_the_users_own_are_cut_too(files):
    (files / "small.py").write_text(NETWORK)
    own = user_code.describe(str(files / "small.py"), "Small", {"width": 4})
    (files / "network.yaml").write_text(yaml.safe_dump(own.record("small")))
    result = measured(files, {**SETTINGS, "network": "small"}, str(files / "network.yaml"), own.file)
    assert result.attrs["network_fingerprint"] == own.fingerprint
    assert float(result["loss"].sel(radius=0.5)) == pytest.approx(math.log(3), rel=0.3)


def test_more_directions_than_weights_are_refused(files):
    with pytest.raises(
        ValueError, match=r"cuts\.subspace: a plane of 400 dimensions is impossible; fc-6x2-relu has 270 weights"
    ):
        measured(files, {**SETTINGS, "subspace": "plane-400-sparse"})


def test_the_figure_keeps_the_numbers_that_it_draws(files):
    cut = measured(files, SETTINGS)
    drawn = draw("cuts", {"cuts": cut}, files, width_cm=8.0, height_cm=8.0)
    assert (drawn["relative_loss"].sel(displacement=0) == 1).all()
    assert (drawn["excess_loss"].sel(first=0, second=0) == 0).all()
    assert np.allclose(drawn["excess_loss"] + cut["loss"], cut["plane_loss"])
    assert drawn.attrs["settings_hash"] == cut.attrs["settings_hash"]
    assert is_described(drawn)


def test_losses_per_token_are_those_of_torch():
    """Outputs (n, T, k), which are flattened to (n, T k) before the loss."""
    module = torch.nn.Linear(5, 3).double()
    inputs, labels = torch.randn(6, 4, 5, dtype=torch.float64), torch.randint(3, (6, 4))
    theta, rows = torch.randn(18, dtype=torch.float64), torch.eye(18, dtype=torch.float64)[:2]
    found = loss_slices.mean_losses(Problem(module, inputs, labels), theta, rows, np.array([[0.0, 0.0], [0.5, 2.0]]))
    for value, point in zip(found, (theta, theta + 0.5 * rows[0] + 2 * rows[1])):
        outputs = inputs @ point[:15].view(3, 5).T + point[15:]
        expected = torch.nn.functional.cross_entropy(outputs.flatten(0, 1), labels.flatten())
        assert value == pytest.approx(float(expected), rel=1e-13)
