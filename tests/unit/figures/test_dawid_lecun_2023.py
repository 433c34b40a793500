"""Figures on joint embeddings, from small or incomplete made-up studies, and the values that they show."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr

from goldilocks_zone.config import kinds, load, records
from goldilocks_zone.figures import registry
from goldilocks_zone.figures.dawid_lecun_2023 import jepa_collapse, jepa_edges, jepa_latents, jepa_samples, jepa_starts
from goldilocks_zone.measurements.observables import Shape
from goldilocks_zone.models import labels
from goldilocks_zone.randomness import stream
from made_up.figures import draw, is_described

STUDIES = load.load().studies
FIGURES = [
    "jepa_arms",
    "jepa_collapse",
    "jepa_edges",
    "jepa_latents",
    "jepa_probes",
    "jepa_samples",
    "jepa_starts",
    "jepa_zone",
]


def made(name, draws=4, **changed):
    """Made-up results of the study `name` of the configuration, with `changed` settings.

    All values are random and positive, except for edges of the zone, which lie near x = -1/2.
    """
    study = STUDIES[name].model_copy(update=changed)
    given = study.model_dump()["radii"]
    radii = np.geomspace(given["first"], given["last"], given["number"]) if isinstance(given, dict) else given
    axes = {"dataset": study.datasets, "network": study.networks, "subspace": study.subspaces, **study.vary}
    axes |= {"radius": list(radii), "draw": range(draws)}
    weights = max((labels.parse_network(each).weight_shapes((1, 14, 14), 16) for each in study.networks), key=len)
    module = SimpleNamespace(parameters=lambda: [torch.empty(shape) for shape in weights])
    observables = kinds.known()[study.kind].load().OBSERVABLES
    known = [variable for each in observables if each.wanted(study) for variable in each.variables]
    axes |= {
        axis.name: list(axis.labels(Shape(study, module, (1, 14, 14), 10)))
        for each in known
        for axis in each.axes
        if axis.name != "radius"
    }
    data = {}
    for variable in known:
        own = [axis.name for axis in variable.axes if axis.name != "radius"]
        examples = ["examples"] * (study.kind == "jepa_curvature")
        dims = [*("dataset", "network", "subspace"), *study.vary, *examples, *own, "radius", "draw"]
        if variable.name in jepa_edges.EDGES or variable.name == "collapse_eigenvalue":
            dims.remove("radius")
        axes.setdefault("examples", getattr(study, "examples", [1]))
        noise = stream("made", name, variable.name).random([len(axes[dim]) for dim in dims])
        values = -0.5 + 0.02 * noise if variable.name in jepa_edges.EDGES else 0.05 + 0.9 * noise
        attrs = {"units": variable.units, "long_name": variable.long_name}
        data[variable.name] = xr.DataArray(values, dims=dims, attrs=attrs)
    used = {dim for each in data.values() for dim in each.dims}
    coordinates = {axis: list(values) for axis, values in axes.items() if axis in used}
    settings = json.dumps(records.of_measurement(study, 1))
    result = xr.Dataset(data, coordinates, {"settings": settings})
    result = result.assign_coords(classes=("dataset", [10] * len(study.datasets)))
    x = 2 * np.log10(coordinates["radius"])
    return result.assign_coords(x=("radius", x)) if study.radius_unit == "r_X" else result


def shown(name, draws=4):
    return {each: made(each, draws) for each in registry.figures()[name].studies}


@pytest.mark.slow
@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_drawn_of_the_full_study(name, tmp_path):
    assert is_described(draw(name, shown(name), tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_drawn_where_values_are_missing(name, first, tmp_path):
    """Cases: nothing could be measured, and only one draw could."""
    whole = shown(name, 3)
    for study in whole.values():
        for each in study.data_vars.values():
            each[{"draw": slice(1 if first else 0, None)}] = np.nan
    data = draw(name, whole, tmp_path)
    assert all(each.attrs["long_name"] for each in data.values())


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, study", [(name, study) for name in FIGURES for study in registry.figures()[name].studies]
)
def test_figures_are_drawn_of_one_draw_of_each_of_their_studies(name, study, tmp_path):
    data = draw(name, {study: made(study, 1)}, tmp_path)
    assert all(each.attrs["long_name"] for each in data.values())


@pytest.mark.parametrize(
    "name, study, changed",
    [
        ("jepa_arms", "jepa_arms_mnist", {"arms": ["random", "pixel_autoencoder"]}),
        ("jepa_collapse", "jepa_collapse", {"vary": {}, "over_threshold": 2.0}),
        ("jepa_edges", "jepa_zone", {"edges": ["vicreg-1", "cross_entropy"], "collapse": False}),
        ("jepa_latents", "jepa_causes", {"vary": {}, "codes": 2, "causes": 2}),
        ("jepa_probes", "jepa_detail", {"vary": {}, "arms": ["full"]}),
        ("jepa_samples", "jepa_samples", {"datasets": ["rings_2"], "arms": ["infonce"], "vary": {"group": [4]}}),
        ("jepa_starts", "jepa_radii", {"vary": {}, "arms": ["full"]}),
        ("jepa_zone", "jepa_zone", {"criteria": ["vicreg"]}),
    ],
)
def test_figures_show_what_a_study_has(name, study, changed, tmp_path):
    assert is_described(draw(name, {study: made(study, 2, **changed)}, tmp_path))


def test_edges_are_compared_within_an_initialisation():
    study = made("jepa_zone_views")
    study["edge"] = study["edge_formula"] + 0.01 * (study["views"] == "noise") + 0.02
    study["edge"].attrs = study["edge_formula"].attrs
    cells = {
        title: jepa_edges.measured(here) for title, here in jepa_edges.cells_of({"jepa_zone_views": study}).items()
    }
    assert list(cells) == ["shifts ≤ 1", "noise", "shuffled pairs"]
    assert cells["noise"]["less_formula_mean"].values == pytest.approx(0.03)
    assert cells["shuffled pairs"]["less_formula_low"].values == pytest.approx(0.02)


def test_ends_of_training_lie_over_the_weight_of_the_hinge():
    found = jepa_collapse.ends_of(made("jepa_collapse"))
    assert list(found) == [0.0001, 0.01]
    # μ/λ = 2 · 4 √ε (1 − c).
    assert found[0.01]["weight"].sel(correlation=0.5, over_threshold=2).item() == pytest.approx(0.4)


def test_energies_of_wrong_pairs_are_those_of_pairs_and_the_gap():
    study = made("jepa_causes")
    found = jepa_latents.energies(study, {"causes": 1, "codes": 1})
    expected = (study["unexplained"] + study["gap"]).mean("draw").squeeze(drop=True)
    place = {"causes": 2, "codes": 8}
    assert found["incompatible_mean"].sel(place).item() == pytest.approx(expected.sel(place).item())


def test_other_schedules_stand_in_the_worlds_of_the_usual_one():
    study = made("jepa_causes_geometric")
    study["information"][:] = np.where(study["slow"].broadcast_like(study["information"]), 0.25, 0.75)
    found = jepa_latents.told_by_equal_factors(study, ["$K=3$", "$K=2$, slow angle", "$K=2$"])
    assert found["information_geometric_mean"].values == pytest.approx([np.nan, 0.25, 0.75], nan_ok=True)


def test_the_gain_is_from_three_negatives_or_the_fewest_to_the_most():
    study = made("jepa_samples")
    study["angles_r_squared"][:] = 0.1 * np.log2(study["group"]).values[:, None, None, None]
    found = jepa_samples.measured(study)
    assert found["negatives"].values.tolist() == [1, 3, 15, 127] and found["rings"].values.tolist() == [1, 2, 4, 8]
    assert found["gain_mean"].values == pytest.approx(0.5)
    others = jepa_samples.measured(study.sel(group=[16, 128]))
    assert others["gain_mean"].values == pytest.approx(0.3)


def test_the_best_rate_is_chosen_by_other_draws():
    values = xr.DataArray([[[0.9, 0.1, 0.1], [0.2, 0.2, 0.2]]], dims=("radius", "rate", "draw"))
    values = values.assign_coords(radius=[1.0], rate=[1, 2], draw=range(3))
    assert jepa_starts.of_best(values, ["rate"]).values.tolist() == [[0.2, 0.1, 0.1]]
    assert jepa_starts.of_best(values.isel(rate=0, drop=True), []).sizes == {"radius": 1, "draw": 3}
