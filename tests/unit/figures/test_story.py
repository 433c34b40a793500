"""The figure on the first page of the paper, from made-up studies."""

import json

import numpy as np
import pytest
import xarray as xr

from goldilocks_zone.figures.beyond import story
from made_up.figures import draw, is_described, zone
from made_up.meanings import meaning

X = np.linspace(-4, 4, 9)
RULES = {"rate_rule": ["fixed", "proportional"], "temperature_rule": ["fixed", "homogeneous"]}


def trained(subspaces=("plane-10-sparse", "plane-100-sparse")):
    """Made-up training study with the accuracy .8 up to r_X, or at any radius if the rate scales with it.

    Elsewhere, the accuracy is .3. On planes of 10 dimensions, it is .1 everywhere.
    """
    axes = {"dataset": ["mnist"], "network": ["fc-200x2-relu"], "subspace": list(subspaces), **RULES}
    axes |= {"radius": 10 ** (X / 2), "draw": range(3)}
    values = xr.DataArray(np.full([len(each) for each in axes.values()], 0.8), axes, tuple(axes))
    values = values.where((values["rate_rule"] == "proportional") | (values["radius"] <= 1), 0.3)
    values = values.where(values["subspace"] != "plane-10-sparse", 0.1) + 0.01 * values["draw"]
    study = xr.Dataset({"test_accuracy": values.assign_attrs(meaning("test_accuracy"))})
    study = study.assign_coords(x=("radius", X), classes=("dataset", [10]))
    settings = {"rate_rule": "fixed", "temperature_rule": "fixed", "rate": 0.016}
    return study.assign_attrs(settings=json.dumps(settings), test_examples="10000")


def embedded():
    """Made-up curvature study with two criteria: a one-sided zone for VICReg, a two-sided one for the cross-entropy."""
    study = zone(3, [256])
    other = study.copy()
    other["trace_over_norm"] = xr.where(study["x"] < 0, -6.0, 6.0) + 0 * study["trace_over_norm"]
    found = xr.concat([other, study], "criterion").assign_coords(criterion=["vicreg", "cross_entropy"])
    for name in found.data_vars:
        found[name].attrs = meaning(name)
    return found


def studies():
    return {
        "map_curvature": zone(3, [250, 1000]),
        "planes": trained(),
        "sample_size": zone(3, [250, 4000], ["fc-200x1-relu", "fc-200x2-relu"]),
        "jepa_zone": embedded(),
    }


def test_it_shows_means_of_the_claims_network_and_planes(tmp_path):
    data = draw("story", studies(), tmp_path)
    assert is_described(data)
    assert data["accuracy_fixed_fixed_mean"].values == pytest.approx([0.81] * 5 + [0.31] * 4)
    assert data["accuracy_proportional_homogeneous_mean"].values == pytest.approx([0.81] * 9)
    assert data["samples_network"].item() == "fc-200x2-relu" == data["edges_network"].item()
    outer = data["edges_mean"].sel(edges_edge="outer").values
    assert np.diff(outer) == pytest.approx([2 / 3 * np.log10(16)], abs=0.1)
    assert (data["vicreg_trace_over_norm_mean"].values > 1).sum() == 13


@pytest.mark.parametrize("missing", ["map_curvature", "planes", "sample_size", "jepa_zone"])
def test_a_panel_without_a_study_says_so(missing, tmp_path):
    known = {name: study for name, study in studies().items() if name != missing}
    assert is_described(draw("story", known, tmp_path))
    assert draw("story", {missing: studies()[missing]}, tmp_path).data_vars


def test_the_zone_is_where_the_mean_exceeds_unity():
    found = xr.Dataset({"mean": ("radius", [0.0, 2.0, 2.0, 0.0, 3.0])}, {"x": ("radius", [-2.0, 0.0, 2.0, 4.0, 6.0])})
    ends = np.array(story.intervals_above(found))
    assert ends == pytest.approx(np.array([[-0.5, 1.5], [7 / 3, 3.0]]), abs=0.01)
    assert story.intervals_above(found.assign(mean=0 * found["mean"])) == []
