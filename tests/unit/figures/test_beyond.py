"""Figures of made-up curvature studies of any size, and the numbers that they show."""

import numpy as np
import pytest
import xarray as xr

from goldilocks_zone.figures.beyond import kinks, layer_traces, sample_size
from goldilocks_zone.measurements.aggregate import side_by_side
from goldilocks_zone.models.labels import depth
from goldilocks_zone.randomness import stream
from made_up.figures import ZONE_X, at_weights, draw, is_described, zone


def with_layers(study):
    """Add traces of each layer to a study: 5 % above the functional of the logits that predicts them.

    Networks differ in depth, and layers that a network lacks are missing.
    """
    layers = [depth(network) for network in study["network"].values]
    layer = xr.DataArray(np.arange(1, max(layers) + 1), dims="layer")
    present = layer <= xr.DataArray(layers, {"network": study["network"]}, ("network",))
    traces = 1.05 * study["radial_derivative"] / xr.DataArray(layers, dims="network")
    return study.assign(layer_trace=traces.where(present)).assign_coords(layer=layer)


CONTROLS = {
    "inputs": ["standardised", "mean_image_removed", "gaussian"],
    "labels": ["original", "shuffled"],
    "loss_function": ["cross_entropy", "mean_squared_error"],
}


def studies(draws):
    few = draws < 3
    x = ZONE_X[::3] if few else ZONE_X
    nobias = ["fc-200x2-relu-nobias", "fc-100x4-relu-nobias"][: 1 if few else None]
    networks = ["fc-200x1-relu", "fc-200x2-relu", "fc-200x3-relu", "fc-200x4-relu", "fc-50x8-relu"]
    return {
        "sample_size": zone(draws, [250, 1000, 4000, 16000][: 2 if few else None], networks[: 2 if few else None], x),
        "sample_size_controls": zone(draws, [250, 1000], x=x, **CONTROLS),
        "plateaus": zone(
            draws,
            [250],
            ["fc-200x2-relu", "conv-16x5-relu"][: 1 if few else None],
            np.array([-4.0, -2.0, 0.0]),
            class_count=[2, 10] if few else [2, 3, 5, 10],
            bias_directions=[False, True],
        ),
        "layer_traces": with_layers(zone(draws, [1000], nobias, np.array([0.0] if few else [-4 / 3, 0, 4 / 3]))),
        "kinks": zone(draws, [1000], x=np.array([0.0] if few else [-2.0, 0.0, 2.0]), sharpness=[0, 1, 10, 100]),
    }


SHOWS = {
    "sample_size": ["sample_size", "sample_size_controls"],
    **{name: [name] for name in ("plateaus", "layer_traces", "kinks")},
}


@pytest.mark.parametrize("draws", [1, 2, 8])
@pytest.mark.parametrize("name", SHOWS)
@pytest.mark.slow
def test_figures_are_drawn_of_few_draws_and_of_many(name, draws, tmp_path):
    made = studies(draws)
    assert is_described(draw(name, {study: made[study] for study in SHOWS[name]}, tmp_path))


@pytest.mark.parametrize("name", SHOWS)
@pytest.mark.weekly
def test_figures_are_drawn_at_trained_weights(name, tmp_path):
    made = studies(2)
    data = draw(name, {study: at_weights(made[study]) for study in SHOWS[name]}, tmp_path)
    assert is_described(data) and "weights" not in data.dims


@pytest.mark.parametrize("name, axis", [("plateaus", "class_count"), ("layer_traces", "layer"), ("kinks", "sharpness")])
def test_a_study_without_what_a_figure_is_drawn_over_is_refused(name, axis, tmp_path):
    study = studies(2)[name].isel({axis: 0}, drop=True)
    with pytest.raises(ValueError, match=f"has no axis {axis}"):
        draw(name, {name: study}, tmp_path)


@pytest.mark.parametrize("study", SHOWS["sample_size"])
def test_a_figure_of_two_studies_is_drawn_of_either(study, tmp_path):
    data = draw("sample_size", {study: studies(2)[study]}, tmp_path)
    assert all(name.startswith("controls_") == (study == "sample_size_controls") for name in data.data_vars)


def test_edges_of_the_zone_are_those_of_the_curves():
    study = zone(4, [250, 1000, 4000], ["fc-200x1-relu", "fc-200x2-relu"])
    found = sample_size.zone_edges(sample_size.primary(study)["trace_over_norm"])
    for network in found["network"].values:
        # A logistic edge of slope 6 and height 6 passes 1 at ln(5)/6 beyond its middle; the noise is 0.1 of a height
        # that falls by 5 per unit of x there, and lines between radii 1/3 apart add a little.
        expected = 2 * np.log10(found["examples"]) / depth(network) - 1 + np.log(5) / 6
        assert found["mean"].sel(network=network, edge="outer").values == pytest.approx(expected.values, abs=0.08)
        assert found["mean"].sel(network=network, edge="inner").values == pytest.approx(-0.5 - np.log(5) / 6, abs=0.08)
    assert (found["low"] < found["mean"]).all() and (found["mean"] < found["high"]).all()
    assert (found["draws"] == 4).all()


def test_draws_without_an_edge_are_left_out():
    values = sample_size.primary(zone(4, [1000]))["trace_over_norm"].copy()
    values[{"draw": 0}] = 0.2
    values[{"draw": [1, 2]}] = 3.0
    outer = sample_size.zone_edges(values).sel(edge="outer")
    assert outer["draws"].item() == 1
    assert np.isfinite(outer["mean"].item()) and np.isnan(outer["low"].item())
    values[{"draw": 3}] = 3.0
    assert sample_size.zone_edges(values)["mean"].isnull().all()


def test_controls_differ_from_the_claims_settings_in_one_thing():
    shown = sample_size.controls(zone(2, [250], **CONTROLS))
    usual = {"inputs": "standardised", "labels": "original", "loss_function": "cross_entropy"}
    assert len(shown) == 4
    assert all(sum(place[axis] != usual[axis] for axis in usual) == 1 for _, place in shown)


def test_layers_are_held_against_the_functional_of_the_logits():
    study = studies(8)["layer_traces"]
    found = layer_traces.ratios(study.sel(examples=1000))
    deep, shallow = found["ratio"].sel(network="fc-100x4-relu-nobias"), found["ratio"].sel(network=study["network"][0])
    assert deep.values == pytest.approx(1.05) and shallow.sel(layer=slice(1, 3)).values == pytest.approx(1.05)
    assert shallow.sel(layer=[4, 5]).isnull().all()


def test_networks_of_different_depth_lie_side_by_side():
    study = studies(2)["layer_traces"].assign_coords(network=["a"])
    deeper = with_layers(zone(2, [1000], ["fc-100x4-relu-nobias"], np.array([0.0])))
    found = side_by_side([study, deeper], ["layer"])
    assert "layer" not in found["radial_derivative"].dims
    assert not found["radial_derivative"].isnull().any()
    assert found["layer_trace"].sel(network="a", layer=[4, 5]).isnull().all()
    assert not found["layer_trace"].sel(network="a", layer=[1, 2, 3]).isnull().any()


def test_ratios_to_relu_are_paired_over_draws():
    study = studies(8)["kinks"].isel(dimension=0).sel(examples=1000)
    for name in ("trace", "frobenius_norm"):
        study[name] = study[name].sel(sharpness=0, drop=True) * xr.where(study["sharpness"] == 0, 1, 1.3)
    noise = xr.DataArray(stream("zero").standard_normal(8), dims="draw")
    study["trace"] = xr.where(study["radius"] == study["radius"][0], noise, study["trace"])
    found = kinks.relative_to_relu(study).sel(quantity=["trace", "frobenius_norm"])
    within = found.isel(radius=slice(1, None))
    # The same draws on both sides: a common factor has no uncertainty.
    for name in ("ratio", "low", "high"):
        assert within[name].values == pytest.approx(1.3)
    # Where the trace of ReLU is zero but for noise there is nothing to be relative to.
    assert found["ratio"].isel(radius=0).sel(quantity="trace").isnull().all()
