"""Figures of curvature over the radius, from made-up studies of any size, and the numbers that they show."""

import numpy as np
import pytest

from goldilocks_zone.figures import registry
from goldilocks_zone.figures.fort_scherlis_2019 import selection, trace_and_norm
from made_up.figures import at_weights, draw, is_described, zone

PROFILES = ("fraction_positive", "trace_over_norm", "loss", "trace_and_norm", "other_networks", "other_losses")


@pytest.mark.parametrize("draws", [1, 4])
@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.slow
def test_profiles_are_drawn_of_few_draws_and_of_many(name, draws, tmp_path):
    study = registry.figures()[name].studies[0]
    networks = ["fc-200x2-relu", "fc-200x3-relu"][:draws]
    assert is_described(draw(name, {study: zone(draws, [250, 1000], networks)}, tmp_path))


@pytest.mark.parametrize("name", (*PROFILES, "sensitivity", "selection", "collapse"))
@pytest.mark.slow
def test_figures_are_drawn_at_trained_weights(name, tmp_path):
    study, levels = registry.figures()[name].studies[0], {}
    if name == "sensitivity":
        levels = {"metric": ["shell", "identity"], "bias_directions": [False, True], "inputs": ["standardised"]}
    data = draw(name, {study: at_weights(zone(4, [250, 1000], **levels))}, tmp_path)
    assert is_described(data) and "weights" not in data.dims
    shown = [data[axis].values.tolist() for axis in data.coords if axis.endswith("network") and data[axis].dims]
    assert all(f"fc-200x2-relu {label}" in networks for networks in shown for label in ("early", "late"))


@pytest.mark.parametrize("draws", [1, 2, 60])
@pytest.mark.slow
def test_initialisations_are_drawn_of_few_draws_and_of_many(draws, tmp_path):
    assert is_described(draw("selection", {"selection": zone(draws, [1000], x=np.array([0.0]))}, tmp_path))


def test_every_crossing_of_one_is_an_edge():
    found = trace_and_norm.crossings_of_one(np.array([0.0, 1, 2, 3]), np.array([0.5, 1.5, 3, 0]))
    assert found == pytest.approx([0.5, 2 + 2 / 3])


def test_selection_counts_positive_eigenvalues():
    study = zone(60, [1000], x=np.array([0.0]))
    data = selection.points(study)
    assert data["positive_eigenvalues"].values == pytest.approx(
        50 * study["fraction_positive"].squeeze().values[None, None, None]
    )
