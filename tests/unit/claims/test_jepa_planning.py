"""Claims about two levels, on studies whose answer is known."""

import json

import numpy as np
import pytest
import xarray as xr

from goldilocks_zone.claims import quantities
from goldilocks_zone.claims.cells import NotTested
from goldilocks_zone.randomness import stream

DRAWS, STARTS = 8, 64
NOISE = 0.01 * stream("two levels").standard_normal(DRAWS)
PLANNERS = [
    "hierarchical",
    "flat-level1-held-8-x2",
    "flat-level2-held-8-x2",
    "flat-level2-held-8-x2-end",
    "flat-level2-held-8-x1",
]
OF = {"planner": "hierarchical", "rooms": "other"}


def estimate(cell, quantity, **keys):
    (found,) = quantities.estimate(cell, {"quantity": quantity, **keys}, "a case")
    return found


def rooms(values):
    """Made-up study in which `values` (planner, draw) are the rates of success for goals in the other room.

    They are missing for goals in the same room.
    """
    success = np.stack([np.asarray(values, float), np.full((len(values), DRAWS), np.nan)], 1)
    coordinates = {"planner": PLANNERS[: len(values)], "rooms": ["other", "same"], "draw": range(DRAWS)}
    attributes = {"settings": json.dumps({"starts": STARTS})}
    return xr.Dataset({"success": (("planner", "rooms", "draw"), success)}, coordinates, attributes)


def constant(*values):
    return rooms([value + NOISE for value in values])


def horizons(values):
    """Made-up study in which `values` (level, draw) are the R² of predictions."""
    coordinates = {"level": ["level_1", "level_2"], "draw": range(DRAWS)}
    return xr.Dataset({"r_squared": (("level", "draw"), np.asarray(values, float))}, coordinates)


def test_the_best_rival_is_chosen_among_those_named():
    found = estimate(constant(0.8, 0.5, 0.7, 0.95, 0.9), "planner_advantage", of=OF, rivals=["flat-level[12]-*-x2"])
    assert found.value == pytest.approx(0.1) and found.n == DRAWS
    equal = estimate(constant(0.8, 0.5, 0.7, 0.95, 0.9), "planner_advantage", of=OF, rivals=["flat-*-x[12]"])
    assert equal.value == pytest.approx(-0.1)


def test_the_best_rival_is_chosen_on_other_draws():
    """Choosing the better of two rivals in each draw would win by chance if they differ only by noise."""
    noise = 0.1 * stream("luck").standard_normal((2, DRAWS))
    cell = rooms([np.full(DRAWS, 0.8), 0.6 + noise[0], 0.6 + noise[1]])
    found = estimate(cell, "planner_advantage", of=OF, rivals=["flat-*"])
    best = np.array([0.6 + noise[np.delete(noise, i, 1).mean(1).argmax(), i] for i in range(DRAWS)])
    assert found.value == pytest.approx(0.8 - best.mean())
    assert found.value > 0.8 - (0.6 + noise.max(0)).mean()


def test_shares_of_starts_have_their_rounding():
    found = estimate(rooms([np.full(DRAWS, 0.75), np.full(DRAWS, 0.5), np.full(DRAWS, 0.25)]), "planner_contrast",
                     of=OF, less={"planner": "flat-level1-held-8-x2"})  # fmt: skip
    assert found.value == 0.25 and found.standard_error == pytest.approx(1 / STARTS / np.sqrt(12 * DRAWS))


@pytest.mark.parametrize(
    ("of", "rivals", "message"),
    [
        (OF, ["flat-level1-*"], "1 of the planners flat-level1-"),
        (OF | {"rooms": "same"}, ["flat-*"], "0 of 8 draws with all episodes"),
        ({"planner": "clever", "rooms": "other"}, ["flat-*"], "no planner clever"),
    ],
)
def test_what_is_not_there_is_not_tested(of, rivals, message):
    with pytest.raises(NotTested, match=message):
        estimate(constant(0.8, 0.5, 0.7), "planner_advantage", of=of, rivals=rivals)


def test_draws_without_episodes_are_left_out():
    values = np.tile(np.array([0.8, 0.5, 0.6])[:, None], DRAWS)
    values[0, :3] = np.nan
    found = estimate(rooms(values), "planner_success", of=OF)
    assert found.n == DRAWS - 3 and found.value == pytest.approx(0.8)


def test_predictions_that_diverge_count_as_predictions_of_nothing():
    first = np.where(np.arange(DRAWS) < 4, -1e6, -0.5)
    cell, less = horizons([first, 0.9 + NOISE]), {"level": "level_1"}
    found = estimate(cell, "horizon_contrast", of={"variable": "r_squared", "level": "level_2"}, less=less)
    assert found.value == pytest.approx(0.9 + NOISE.mean()) and found.standard_error < 0.01
    none = horizons([np.full(DRAWS, np.nan), 0.9 + NOISE])
    with pytest.raises(NotTested, match="can be measured"):
        estimate(none, "horizon_contrast", of={"variable": "r_squared", "level": "level_2"}, less=less)
