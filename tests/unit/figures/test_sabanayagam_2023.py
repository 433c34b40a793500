"""Figures on the decision boundary, from small or incomplete made-up studies, and the values that they show."""

import json

import numpy as np
import pytest
import xarray as xr

from goldilocks_zone.config import kinds, load, records
from goldilocks_zone.data import planar_shapes
from goldilocks_zone.figures import boundaries, registry
from goldilocks_zone.figures.sabanayagam_2023 import (
    alignment_zone,
    boundary_margins,
    boundary_mnist,
    generalisation,
    outlier_counts,
    published_measure,
)
from goldilocks_zone.measurements.observables import Shape
from goldilocks_zone.randomness import stream
from made_up.figures import draw, is_described

STUDIES = load.load().studies
FIGURES = [name for name, each in registry.figures().items() if each.module.parent.name == "sabanayagam_2023"]


def classes_of(study, dataset):
    known = planar_shapes.of(dataset)
    return known.classes if known else study.classes_of or 10


def axes_of(study, shape, draws):
    """Labels of all axes of a study's results, by axis, and the variables that the study measures."""
    given = study.model_dump()["radii"]
    radii = np.geomspace(given["first"], given["last"], given["number"]) if isinstance(given, dict) else given
    axes = {"dataset": study.datasets, "network": study.networks, "subspace": study.subspaces}
    axes |= {"radius": list(radii), "draw": range(draws or study.draws)}
    wanted = [each for each in kinds.known()["boundary"].load().OBSERVABLES if each.wanted(study)]
    variables = [variable for each in wanted for variable in each.variables]
    axes |= {axis.name: list(axis.labels(shape)) for variable in variables for axis in variable.axes}
    return axes, variables


def made(name, draws=None, **changed):
    """Made-up results of the study `name` of the configuration, with `changed` settings; values are in their ranges."""
    study = STUDIES[name].model_copy(update=changed)
    counts = [classes_of(study, dataset) for dataset in study.datasets]
    axes, variables = axes_of(study, Shape(study, None, (1, 1, 2), counts[0]), draws)
    coordinates = {axis: xr.DataArray(labels, dims=axis) for axis, labels in axes.items()}
    classes = xr.DataArray(counts, {"dataset": axes["dataset"]}, ("dataset",))
    x = 2 * np.log10(coordinates["radius"])
    data = {}
    for variable in variables:
        dims = ["dataset", "network", "subspace", *(axis.name for axis in variable.axes), "radius", "draw"]
        shape = [len(axes[dim]) for dim in dims]
        noise = xr.DataArray(stream("made", name, variable.name).random(shape), {d: axes[d] for d in dims}, dims)
        values = value(variable.name, noise, coordinates, classes, x).transpose(*dims)
        data[variable.name] = values.assign_attrs(units=variable.units, long_name=variable.long_name)
    settings = json.dumps(records.of_measurement(study, 1))
    result = xr.Dataset(data, attrs={"settings": settings}).assign_coords(classes=("dataset", counts))
    result = result.assign_coords({axis: labels for axis, labels in axes.items() if axis not in result.coords})
    return result.assign_coords(x=("radius", x.values)) if study.radius_unit == "r_X" else result


def value(name, noise, axes, classes, x):
    """Turn noise in [0, 1] into made-up values of the variable `name`; `classes` are by dataset, x by radius."""
    if name in ("map", "map_class", "map_random", "map_random_fixed"):
        ends = {axis: np.linspace(-1, 1, noise.sizes[axis]) for axis in ("map_x", "map_y")}
        along, up = (xr.DataArray(values, {axis: axes[axis].values}, (axis,)) for axis, values in ends.items())
        angle = np.arctan2(up, along + 0.05)
        sector = np.floor((angle + np.pi) / (2 * np.pi) * classes * 0.9999)
        if name == "map":
            return 0.1 * noise + 0.9 * np.cos(angle * noise["rank"] + sector)
        return 0 * noise + (sector if name == "map_class" else 0.01 * np.cos(2 * angle))
    if name in ("example_class", "example_label"):
        return np.floor(noise * classes)
    found = {
        "gauss_newton_eigenvalue": lambda: 3 * 10 ** (-noise["rank"] / 3) * (0.5 + noise),
        "gauss_newton_trace": lambda: 3 + noise,
        "outliers": lambda: 2 + (3 * noise).round(),
        "outliers_by_gap": lambda: 1 + (3 * noise).round(),
        "example_alignment": lambda: 2 * noise - 1,
        "example_point": lambda: 3 * noise - 1.5,
        "aligned_point": lambda: 3 * noise - 1.5,
        "captured": lambda: 1 - np.exp(-noise["rank"] / (2 + noise)),
        "captured_at_most": lambda: 1 - np.exp(-noise["rank"] / 1.5) * (0.5 + noise / 2),
        "training_loss": lambda: 0.001 + 0.018 * noise,
        "test_accuracy": lambda: 0.9 + 0.1 * noise,
        "norm": lambda: 10 + 10 * noise,
        "loss_rise": lambda: 0.01 * noise,
        "encoding_share": lambda: 0.01 + 0.02 * noise,
        "true_margin": lambda: 0.1 + 0.2 * noise,
        "margin_estimate": lambda: 0.1 + 0.3 * noise,
        "alignment_reached": lambda: 0.98 + 0.02 * noise,
        "margin_of_extremes": lambda: 0.2 + 0.2 * noise,
        "published_measure_above": lambda: 0.9 / (1 + (noise["epsilon"] / 1e-4) ** 0.5) + 0.05 * noise,
        "encoding_share_above": lambda: 0.2 / (1 + (noise["epsilon"] / 1e-4) ** 0.5) + 0.02 * noise,
        "live_share": lambda: 0.8 + 0.1 * noise,
        "captured_by_hessian": lambda: 0.7 * np.exp(-(x**2)) + 0.1 * noise,
        "captured_by_gauss_newton": lambda: 0.7 / (1 + np.exp(3 * x - 3)) + 0.1 * noise,
        # ‖G‖₂ = ‖H′‖₂ at x = -0.75 + noise / 4.
        "gauss_newton_top_eigenvalue": lambda: 1 / noise["hessian_rank"] + 0 * noise,
        "residual_spectral_norm": lambda: 10 ** (-(x + 0.75) + noise.isel(radius=0, drop=True) / 4) + 0 * noise,
    }.get(name)
    return found() if found else noise


def shown(name, draws=None, **changed):
    return {each: made(each, draws, **changed) for each in registry.figures()[name].studies}


@pytest.mark.slow
@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_drawn_of_the_full_study(name, tmp_path):
    assert is_described(draw(name, shown(name), tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("draws", [1, 2])
@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_drawn_of_one_dataset_and_few_draws(name, draws, tmp_path):
    studies = {each: made(each, draws).isel(dataset=[0]) for each in registry.figures()[name].studies[:1]}
    assert is_described(draw(name, studies, tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_drawn_where_values_are_missing(name, tmp_path):
    """Cases: all draws diverged, and only the first did."""
    whole = shown(name, 3)
    for first in (False, True):
        studies = {each: study.where((study["draw"] > 0) & first) for each, study in whole.items()}
        for each, study in studies.items():
            study = study.assign({one: study[one].assign_attrs(whole[each][one].attrs) for one in study.data_vars})
            studies[each] = study.assign_attrs(whole[each].attrs).assign_coords(classes=whole[each]["classes"])
        assert is_described(draw(name, studies, tmp_path))


@pytest.mark.parametrize(
    "name, changed",
    [
        ("boundary_margins", {"examples_kept": 0}),
        ("boundary_minima", {"examples_kept": 0, "minima": ["large_norm-7"]}),
        ("boundary_maps", {"minima": ["adversarial-5"], "softmax": ["uniform"]}),
        ("outlier_counts", {"softmax": ["temperature-1"], "stop_at": None, "datasets": ["stripes_2_3"]}),
        ("generalisation", {"softmax": ["temperature-1"], "explicit": [], "minima": ["normal", "adversarial-5"]}),
        ("boundary_mnist", {"softmax": ["temperature-1"], "minima": ["normal", "large_norm-3"]}),
        ("published_measure", {"explicit": ["float64"], "minima": ["untrained"], "networks": ["fc-30x3-relu"]}),
        ("alignment_zone", {"minima": ["untrained"]}),
    ],
)
def test_figures_show_what_a_study_has(name, changed, tmp_path):
    assert is_described(draw(name, shown(name, 2, **changed), tmp_path))


@pytest.mark.parametrize("study", registry.figures()["alignment_zone"].studies)
def test_the_zone_of_alignment_is_drawn_of_each_study(study, tmp_path):
    found = draw("alignment_zone", {study: made(study, 3)}, tmp_path)
    prefix = {"boundary_radius": "gauss_normal_150", "boundary_radius_mnist": "mnist_normal_250"}
    assert f"{prefix.get(study, 'mnist_normal_500')}_crossing_mean" in found


def test_values_are_taken_at_the_end_of_training_and_without_scaling():
    study = made("boundary_measure", 2)
    study = study.assign(norm=study["norm"] + 100 * (study["scaling"] == "none"))
    found = boundaries.one(study, ["norm"], "minimum")["norm"]
    assert set(found.dims) == {"minimum", "draw"} and (found > 100).all()
    published = made("boundary_published", 2)
    late = published.assign(norm=published["norm"] + published["epoch"])
    assert (boundaries.one(late, ["norm"], "minimum")["norm"] > 2000).all()


def test_counts_leave_out_what_did_not_reach_its_loss():
    study = made("boundary_sections", 4)
    expected = study["outliers"].sel(softmax="temperature-3").squeeze(drop=True)
    study["outliers"][{"draw": 0}] = 1000.0
    study["training_loss"][{"draw": 0}] = 0.021
    study["training_loss"][{"draw": 1}] = 0.0201  # of rounding
    found = outlier_counts.counts(study, [("", "outliers", "temperature-3")])
    assert found["outliers_temperature_3_mean"].values == pytest.approx(expected.isel(draw=slice(1, None)).mean("draw"))
    assert (found["draws"] == 3).all()
    named = study["dataset"].values.tolist()
    other = study.assign_coords(dataset=["mnist", "gauss", *named[2:]])
    assert outlier_counts.counts(other, [("", "outliers", "temperature-3")])["dataset"].values.tolist() == named[2:]
    place = found.sel(dataset="stripes_3_4")
    assert (place["design"], place["section_count"], place["class_count"]) == ("stripes", 3, 4)


def test_only_aligned_starts_give_a_margin():
    study = made("boundary_margin", 4)
    study["margin_estimate"] = xr.where(study["start"] < 2, 1.1, 50.0) * study["true_margin"]
    study["margin_estimate"] = study["margin_estimate"].assign_attrs(units="1", long_name="estimate")
    study["map"] = 0 * study["map"] + xr.where(study["map_x"] == 1, -0.9, 0.2)
    study["alignment_reached"] = study["alignment_reached"] * 0 + xr.where(study["start"] < 2, 0.8, 0.7)
    study["alignment_reached"][{"draw": 3}] = 0.1
    found = boundary_margins.margins(study)
    assert found["log_margin_estimate_mean"].values == pytest.approx(np.log10(1.1))
    assert (found["log_margin_estimate_draws"] == 3).all() and (found["log_margin_of_extremes_draws"] == 4).all()


def test_the_rank_of_the_hessian_is_bounded():
    # p_1 = 30 · 3, p_3 = 3 · 31, n (C − 1) = 150 · 2, and p_θ = 90 + 930 + 93.
    assert published_measure.rank_bound(made("boundary_measure", 1)) == pytest.approx((2 * 183 + 300) / 1113)
    for other in ("fc-30x2-tanh", "fc-30x2-relu-nobias", "fc-30x3-relu", "mine"):
        study = made("boundary_measure", 1).assign_coords(network=[other])
        assert published_measure.rank_bound(study) is None


def test_kendalls_tau_is_that_of_the_minima_of_a_draw():
    study = made("boundary_family", 5)
    study["test_accuracy"] = 1 - study["norm"] / 100
    study["test_accuracy"] = study["test_accuracy"].assign_attrs(units="1", long_name="accuracy")
    study["training_loss"] = (1 / study["norm"]).assign_attrs(units="nat", long_name="loss")
    study["linearised_margin"] = (0 * study["norm"]).assign_attrs(units="1", long_name="margin")
    found = generalisation.measured(study)
    assert found["norm_tau_mean"].values == pytest.approx(1) and found["loss_tau_mean"].values == pytest.approx(-1)
    assert found["margin_tau_mean"].isnull().all()
    assert (abs(found["rise_tau_mean"]) < 0.6).all()
    assert np.isnan(generalisation.kendall(np.array([1.0, 2, np.nan]), np.array([1.0, 2, 3])))


def test_the_parts_cross_where_g_outgrows_the_rest():
    x, shares = np.array([-2.0, -1, 0, 1]), np.array([0.1, 0.2, 0.9, np.nan])
    assert alignment_zone.crossing(x, np.array([-3, -1, 3, -1]), shares) == pytest.approx(-0.75)
    assert np.isnan(alignment_zone.crossing(x, np.array([3, 1, -1, 3]), shares))
    assert np.isnan(alignment_zone.crossing(x, np.array([3, 1, 1, 3]), shares))
    assert np.isnan(alignment_zone.crossing(x, x, np.full(4, np.nan)))
    found = alignment_zone.over_radius(made("boundary_radius", 4).isel(minimum=[0]))
    assert -0.75 < found["crossing_mean"] < -0.5 and found["crossing_draws"] == 4


def test_alignment_is_that_of_one_eigenvector_less_than_classes():
    study = made("boundary_radius_mnist", 3).isel(minimum=[0])
    expected = study["captured_by_hessian"].sel(hessian_rank=9).mean("draw").squeeze(drop=True)
    found = alignment_zone.over_radius(study)["captured_by_hessian_mean"]
    assert found.values == pytest.approx(expected.values)


def test_measures_of_digits_are_those_of_trained_networks():
    study = made("boundary_mnist", 3)
    found = boundary_mnist.by_minimum(study)
    assert found["minimum"].values.tolist() == ["normal", "adversarial-300", "large_norm-300"]
    assert found["softmax"].values.tolist() == ["temperature-1", "entropy-0.05"]
    expected = study["outliers"].sel(softmax="entropy-0.05", minimum="normal").mean()
    assert found["outliers_mean"].sel(softmax="entropy-0.05", minimum="normal").item() == pytest.approx(expected.item())
