"""Figures of prediction and planning on two levels, from small or incomplete made-up studies."""

import json

import numpy as np
import pytest
import xarray as xr

from goldilocks_zone.config import load, records
from goldilocks_zone.figures import registry
from goldilocks_zone.figures.dawid_lecun_2023 import jepa_horizons, jepa_planning
from goldilocks_zone.measurements.jepa_planning_blocks import OBSERVABLES
from goldilocks_zone.measurements.observables import Shape
from goldilocks_zone.randomness import stream
from made_up.figures import draw, is_described

STUDIES = load.load().studies
FIGURES = ("jepa_horizons", "jepa_planning")


def made(name, draws=4, **changed):
    """Made-up results of the study `name` of the configuration, with `changed` settings.

    All values are random in [0, 1], except for numbers of calls.
    """
    study = STUDIES[name].model_copy(update=changed)
    axes = {"dataset": study.datasets, "network": study.networks, "subspace": study.subspaces, "radius": [1.0]}
    axes |= {"draw": range(draws)}
    known = [variable for each in OBSERVABLES if each.wanted(study) for variable in each.variables]
    axes |= {axis.name: list(axis.labels(Shape(study, None, (), 1))) for each in known for axis in each.axes}
    data = {}
    for variable in known:
        dims = [*("dataset", "network", "subspace"), *(axis.name for axis in variable.axes), "radius", "draw"]
        values = stream("made", name, variable.name).random([len(axes[dim]) for dim in dims])
        if variable.name == "calls":
            values = np.where(values < 0.5, 384.0, 768.0)
        data[variable.name] = xr.DataArray(values, dims=dims, attrs={"units": "1", "long_name": variable.long_name})
    settings = json.dumps(records.of_measurement(study, 1))
    return xr.Dataset(data, axes, {"settings": settings}).assign_coords(classes=("dataset", [1]))


def shown(name, draws=4, **changed):
    return {each: made(each, draws, **changed) for each in registry.figures()[name].studies}


@pytest.mark.slow
@pytest.mark.parametrize("draws", [1, 2, 16])
@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_drawn_of_any_number_of_draws(name, draws, tmp_path):
    assert is_described(draw(name, shown(name, draws), tmp_path))


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_drawn_where_values_are_missing(name, tmp_path):
    """Cases: nothing could be measured, and only one draw could."""
    for first in (False, True):
        whole = shown(name, 3)
        for study in whole.values():
            for each in study.data_vars.values():
                each[{"draw": slice(1 if first else 0, None)}] = np.nan
        assert is_described(draw(name, whole, tmp_path))


@pytest.mark.parametrize("study", ["jepa_horizons", "jepa_rooms"])
def test_horizons_are_drawn_of_one_study(study, tmp_path):
    assert is_described(draw("jepa_horizons", {study: made(study, 2)}, tmp_path))


@pytest.mark.parametrize("planners", [["hierarchical"], ["flat-level2-free-32-x3", "flat-exact-held-16-x2-true"]])
def test_plans_are_drawn_of_few_planners(planners, tmp_path):
    found = draw("jepa_planning", {"jepa_rooms": made("jepa_rooms", 2, planners=planners)}, tmp_path)
    assert is_described(found)


def test_decoded_values_start_at_0_and_are_bounded_by_the_best_possible():
    study = made("jepa_horizons")
    study["r_squared"][:] = -3.0
    found = jepa_horizons.measured(study)
    assert (found["decoded_mean"] == 0).all()
    best = found["best_possible"].sel(horizon=16)
    # e^{-h s²} of both angles' noise.
    assert best.sel(target="phi") == pytest.approx(np.exp(-16 * 0.05**2))
    assert best.sel(target="theta") == pytest.approx(np.exp(-16 * 0.25**2))
    assert jepa_horizons.measured(made("jepa_rooms"))["best_possible"].isnull().all()


def test_own_errors_are_averaged_as_logarithms():
    study = made("jepa_horizons", 2)
    study["unexplained"][:] = xr.DataArray([0.01, 1e6], dims="draw")
    assert jepa_horizons.measured(study)["unexplained_mean"].values == pytest.approx(100)


def test_success_is_that_of_each_planner():
    study = made("jepa_rooms", 3)
    study["success"][{"planner": 2, "rooms": 1}] = 0.25
    found = jepa_planning.measured(study)
    place = {"planner": study["planner"].values[2], "rooms": "same"}
    assert found["success_mean"].sel(place) == 0.25 and found["calls"].sel(place) >= 384
