"""Estimators for claims about training, on made-up results with known answers."""

import json

import numpy as np
import pytest
import torch
import xarray as xr

from goldilocks_zone.claims import curves, quantities
from goldilocks_zone.claims.cells import NotTested
from goldilocks_zone.claims.estimators import training
from goldilocks_zone.randomness import stream
from goldilocks_zone.statistics.estimates import ALIKE
from goldilocks_zone.subspaces import projections
from goldilocks_zone.subspaces.labels import Plane

RADII = np.logspace(-2, 2, 9)
X = 2 * np.log10(RADII)
DRAWS = 8


def cell(**variables):
    """Made-up results over radii and draws. `variables` maps names to (dims, values), and further axes to labels."""
    coordinates = {"radius": RADII, "draw": range(DRAWS), "x": ("radius", X), "classes": 10}
    for axis in ("rate", "step", "subspace", "rate_rule", "gradients"):
        if axis in variables:
            coordinates[axis] = variables.pop(axis)
    return xr.Dataset(variables, coordinates, attrs={"test_examples": "1000"})


def estimate(quantity, here, **keys):
    return quantities.estimate(here, {"quantity": quantity, **keys}, "n")


def over_radii(curve, spread=0.001):
    noise = spread * stream("noise").standard_normal((len(RADII), DRAWS))
    return ("radius", "draw"), np.asarray(curve)[:, None] + noise


def test_accuracies_of_runs_that_diverged_are_those_of_guessing():
    dims, values = over_radii(np.full(9, 0.9))
    values[3, 2] = np.nan
    found = training.accuracy(cell(test_accuracy=(dims, values)))
    assert float(found[3, 2]) == 0.1 and float(found[3, 1]) > 0.8


def test_the_best_rate_is_chosen_on_held_out_examples_and_judged_on_test_ones():
    rates = [0.1, 1.0]
    held_out = np.zeros((2, 9, DRAWS, 1))
    held_out[0, :5], held_out[1, 5:] = 1, 1
    test = np.empty((2, 9, DRAWS))
    test[0], test[1] = 0.3, 0.7
    here = cell(
        rate=rates,
        step=[10],
        test_accuracy=(("rate", "radius", "draw"), test),
        validation_accuracy=(("rate", "radius", "draw", "step"), held_out),
    )
    assert np.allclose(training.accuracy(here).mean("draw"), [0.3] * 5 + [0.7] * 4)


def test_falls_flatness_and_height_above_chance():
    curve = np.where(X > 0, 0.5, 0.9)
    here = cell(test_accuracy=over_radii(curve))
    falls = estimate("accuracy_fall", here, window=[1, 4])
    assert len(falls) == 4 and all(abs(each.value - 0.4) < 0.005 for each in falls)
    best = estimate("accuracy_fall", here, **{"window": [1, 4], "from": "best"})
    assert all(each.value > 0.39 for each in best)
    flat = estimate("accuracy_flatness", here, window=[-4, -1.9])
    assert len(flat) == 3 and all(abs(each.value) < 0.005 for each in flat)
    above = estimate("accuracy_above_chance", here, window=[1, 4])
    assert all(abs(each.value - 0.4) < 0.005 for each in above)
    with pytest.raises(NotTested, match="0 radii with x from 7 to 8"):
        estimate("accuracy_fall", here, window=[7, 8])


def test_the_peak_and_the_edges_of_a_curve():
    here = cell(test_accuracy=over_radii(0.1 + 0.8 * np.exp(-((X - 0.3) ** 2)), 0.0))
    (found,) = estimate("accuracy_peak", here, window=[-4, 4])
    assert abs(found.value - 0.3) < 0.15
    for edge, place in (("inner", 0.3 - np.sqrt(np.log(2))), ("outer", 0.3 + np.sqrt(np.log(2)))):
        (found,) = estimate("accuracy_edge", here, edge=edge)
        assert abs(found.value - place) < 0.2
    assert curves.vertex_of_neighbours(X, X) == pytest.approx([3.5, 4, np.inf])
    assert curves.vertex_of_neighbours(X, -X) == pytest.approx([-np.inf, -4, -3.5])
    assert curves.vertex_of_neighbours(X, 0 * X) == pytest.approx([-np.inf, 0, np.inf])
    flat = cell(test_accuracy=over_radii(np.where(X > 0, 0.9, 0.8), 0.0))
    with pytest.raises(NotTested, match="no outer edge"):
        estimate("accuracy_edge", flat, edge="outer")


def test_the_dimension_needed_is_interpolated_and_censored():
    d = np.array([10, 100, 1000])
    assert training.dimension_needed(d, np.array([0.2, 0.4, 0.6]), 0.5) == pytest.approx([2.5] * 3)
    assert training.dimension_needed(d, np.array([0.2, 0.3, 0.4]), 0.5) == pytest.approx([3, 3, np.inf])
    assert training.dimension_needed(d, np.array([0.6, 0.7, 0.8]), 0.5) == pytest.approx([-np.inf, 1, 1])


def test_the_dimension_needed_shifts_with_the_radius():
    names = ["plane-1000-dense", "plane-10-dense", "plane-100-dense"]
    values = np.empty((3, 9, DRAWS))
    for i, curve in enumerate(([0.9] * 9, [0.2] * 9, np.where(X > 0, 0.45, 0.7))):
        values[i] = np.array(curve)[:, None]
    here = cell(subspace=names, test_accuracy=(("subspace", "radius", "draw"), values))
    found = estimate("dimension_shift", here, level=0.5, window=[1.9, 4])
    # At r_X 10^(1 + 3/5), beyond it 10^(2 + 1/9).
    assert all(each.value == pytest.approx(1 + 1 / 9 - 3 / 5) for each in found)


def test_a_dimension_outside_of_those_measured_is_a_bound():
    names, case = ["plane-10-dense", "plane-100-dense"], {"level": 0.5, "window": [1.9, 2.1]}

    def shift(inside, outside):
        """Estimated shift, from accuracies at the two dimensions: pairs `inside` up to r_X and `outside` beyond."""
        values = np.array([np.where(X > 0, *pair) for pair in zip(outside, inside)])[..., None] + np.zeros(DRAWS)
        here = cell(subspace=names, test_accuracy=(("subspace", "radius", "draw"), values))
        return estimate("dimension_shift", here, **case)[0]

    never = shift((0.2, 0.3), (0.2, 0.2))
    assert never.value == 0 and never.interval(0.95) == (-np.inf, np.inf) and "10 to 100" in never.open_end
    # What is not reached beyond r_X needs more than 100 there: the shift is at least that from where r_X reaches it.
    low, high = shift((0.2, 0.8), (0.2, 0.3)).interval(0.95)
    assert low == pytest.approx(0.5) and high == np.inf
    known = shift((0.2, 0.8), (0.1, 0.6))
    assert known.interval(0.95) == pytest.approx((0.3, 0.3)) and not known.open_end


def test_the_smallest_dimension_bounds_the_intrinsic_one():
    values = np.array([0.95, 0.97, 1.0])[:, None, None] + np.zeros((1, DRAWS))
    here = xr.Dataset(
        {"test_accuracy": (("subspace", "radius", "draw"), values)},
        {"subspace": ["plane-10-dense", "plane-100-dense", "full-free"], "radius": [1.0], "draw": range(DRAWS)},
    ).assign_coords(classes=10)
    (found,) = estimate("intrinsic_dimension", here, share=0.9, published=750)
    assert found.interval(0.95) == pytest.approx((-np.inf, np.log10(10 / 750)))
    assert "the smallest of this run, 10, reaches" in found.open_end


def test_resamples_that_reach_no_dimension_leave_the_interval_open():
    """In half of the draws no dimension reaches the level, so that many means over resampled draws do not."""
    curves = np.array([[0.5, 0.99], [0.5, 0.85]])[np.arange(DRAWS) % 2].T
    values = np.vstack([curves, np.ones(DRAWS)])[:, None, :]
    here = xr.Dataset(
        {"test_accuracy": (("subspace", "radius", "draw"), values)},
        {"subspace": ["plane-100-dense", "plane-900-dense", "full-free"], "radius": [1.0], "draw": range(DRAWS)},
    ).assign_coords(classes=10)
    (found,) = estimate("intrinsic_dimension", here, share=0.9, published=750, name="resampled")
    low, high = found.interval(0.95)
    assert low < found.value < np.log10(900 / 750) and high == np.inf


def test_the_jackknife_of_an_intrinsic_dimension_is_finite_where_a_draw_decides_whether_it_is_censored():
    values = np.array([[0.88, 0.95, 0.70], [0.95, 0.96, 0.94], [0.97, 0.97, 0.97], [0.97, 0.98, 0.96]])[:, None]
    names = ["plane-10-dense", "plane-50-dense", "plane-100-dense", "full-free"]
    here = xr.Dataset(
        {"test_accuracy": (("subspace", "radius", "draw"), values)},
        {"subspace": names, "radius": [1.0], "draw": range(3)},
    ).assign_coords(classes=10)
    (found,) = estimate("intrinsic_dimension", here, share=0.9, published=10, name="few")
    assert np.isfinite([found.value, *found.interval(0.95)]).all()


def test_a_smaller_dimension_may_be_the_only_one_that_reaches_the_level():
    values = np.array([0.5, 0.95, 0.85, 1.0])[:, None, None] + np.zeros((1, DRAWS))
    names = ["plane-10-dense", "plane-100-dense", "plane-1000-dense", "full-free"]
    here = xr.Dataset(
        {"test_accuracy": (("subspace", "radius", "draw"), values)},
        {"subspace": names, "radius": [1.0], "draw": range(DRAWS)},
    ).assign_coords(classes=10)
    (found,) = estimate("intrinsic_dimension", here, share=0.9, published=100, name="resampled")
    assert found.value == pytest.approx(-0.05 / 0.45)


def test_an_intrinsic_dimension_needs_planes():
    values = ("subspace", "radius", "draw"), np.full((1, 9, DRAWS), 0.9)
    with pytest.raises(NotTested, match="this run has 0 planes or spheres"):
        estimate("intrinsic_dimension", cell(test_accuracy=values, subspace=["full-free"]), share=0.9, published=750)


def test_what_is_equal_on_both_sides_in_every_draw_is_open():
    chance = cell(test_accuracy=over_radii(np.full(9, 0.1), 0.0))
    falls = estimate("accuracy_fall", chance, window=[1, 4]) + estimate("accuracy_flatness", chance, window=[-4, 0])
    assert all(each.open_end == "what is compared is equal in every draw" for each in falls)
    # From the best radius itself there is no fall, by definition, and from r_X itself there is nothing to compare.
    here = cell(test_accuracy=over_radii(np.where(X == 2, 0.9, 0.8)))
    best = estimate("accuracy_fall", here, **{"window": [2, 2], "from": "best"})[0]
    assert best.value == 0 and not best.open_end and best.interval(0.95)[1] < 1e-3
    assert estimate("accuracy_fall", here, window=[0, 0])[0].open_end
    # At chance is at chance, whatever the spread.
    low, high = estimate("accuracy_above_chance", chance, window=[0, 0])[0].interval(0.95)
    assert -1e-3 < low < 0 < high < 1e-3
    spread = xr.Dataset({"test_accuracy": (("radius", "draw"), np.full((1, 5), 0.1))}, attrs={"test_examples": "1000"})
    assert estimate("spread_over_draws", spread.assign_coords(classes=10))[0].open_end


def test_a_gain_in_the_fraction_is_no_finer_than_an_eigenvalue():
    start = np.full((1, DRAWS), 0.6)
    values = np.stack([start, start + 0.02])[..., None]
    here = xr.Dataset(
        {"fraction_positive": (("moment", "radius", "draw", "examples_of"), values)},
        {"moment": ["start", "end"], "examples_of": ["training"], "subspace": "plane-50-sparse"},
    )
    case = {"variable": "fraction_positive", "examples_of": "training"}
    (found,) = estimate("curvature_gain", here, **case)
    assert found.standard_error == pytest.approx(0.02 / np.sqrt(12) / np.sqrt(DRAWS))
    assert estimate("curvature_gain", here.isel(moment=[0, 0]).assign_coords(moment=here["moment"]), **case)[0].open_end


def test_the_intrinsic_dimension_of_the_toy_problem_is_recovered():
    """Toy problem of Li et al. (2018): ten groups of a hundred parameters, each with a prescribed sum: dimension 10."""
    groups = torch.arange(1000) // 100
    wanted = torch.arange(1.0, 11.0, dtype=torch.float64)
    dimensions = [5, 8, 9, 10, 12, 15]
    shares = np.empty((len(dimensions) + 1, 1, DRAWS))
    shares[-1] = 1.0
    for draw in range(DRAWS):
        start = torch.as_tensor(stream("toy", draw).standard_normal(1000))
        for i, d in enumerate(dimensions):
            projection = projections.make(Plane(d, "dense"), [(1000,)], np.ones(1000), stream("toy", draw, d), start)
            (columns,) = projection.forward(torch.eye(d, dtype=torch.float64))
            sums = torch.zeros(d + 1, 10, dtype=torch.float64).index_add(1, groups, torch.vstack([columns, start]))
            # The loss is a square: its least value on the plane in closed form.
            left = wanted - sums[-1]
            w = torch.linalg.lstsq(sums[:-1].T, left[:, None]).solution
            shares[i, 0, draw] = np.exp(-float((sums[:-1].T @ w - left[:, None]).square().sum()))
    names = [*(f"plane-{d}-dense" for d in dimensions), "full-free"]
    here = xr.Dataset(
        {"test_accuracy": (("subspace", "radius", "draw"), shares)},
        {"subspace": names, "radius": [1.0], "draw": range(DRAWS), "classes": 10},
    )
    (found,) = estimate("intrinsic_dimension", here, share=0.9, published=1)
    # Interpolated between 9, where it cannot be done, and 10.
    assert 9.5 < 10**found.value <= 10


def test_a_random_walk_grows_as_its_steps():
    """r² − r_0² = D σ² t (Chang 2019), so that the exponent is 1; a straight path has 2."""
    steps, size = [0, 10, 30, 100, 300, 1000], 2000
    walks, straight = np.empty((2, 9, DRAWS, len(steps)))
    for draw in range(DRAWS):
        random = stream("walk", draw)
        start = 0.05 * random.standard_normal(size)
        increments = 0.01 * random.standard_normal((1000, size))
        path = start + np.vstack([np.zeros(size), np.cumsum(increments, 0)])[steps]
        walks[:, draw] = np.linalg.norm(path, axis=1)
        straight[:, draw] = np.sqrt(1.0 + (0.01 * np.array(steps)) ** 2 * size)
    case = {"steps": [10, 1000], "window": [-4, 4]}
    for norms, exponent, tolerance in ((walks, 1, 0.05), (straight, 2, 1e-9)):
        here = cell(step=steps, norm=(("radius", "draw", "step"), norms))
        for found in estimate("growth_exponent", here, **case):
            assert abs(found.value - exponent) < tolerance
    both = np.stack([walks, walks], axis=0)
    here = cell(step=steps, gradients=["loss", "random_signs"], norm=(("gradients", "radius", "draw", "step"), both))
    assert all(each.value == 0 for each in estimate("growth_over_walk", here, **case))
    grown = estimate("relative_growth", here.isel(gradients=0), window=[0, 0])[0]
    assert grown.value == pytest.approx(np.mean(walks[4, :, -1] / walks[4, :, 0] - 1))


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
def test_the_exponent_of_the_radius_over_the_rate(exponent):
    rates = np.array([3e-4, 1e-3, 3e-3])
    ends = np.broadcast_to((rates**exponent)[:, None, None, None], (3, 9, DRAWS, 1))
    here = cell(rate=rates, step=[9], norm=(("rate", "radius", "draw", "step"), ends))
    (found,) = estimate("rate_exponent", here, window=[-0.1, 0.1])
    assert found.value == pytest.approx(exponent, abs=1e-12)
    with pytest.raises(NotTested, match="2 rates in its study, 3 are needed"):
        estimate("rate_exponent", here.isel(rate=[0, 1]), window=[-0.1, 0.1])


def test_the_best_of_a_few_against_brute_force():
    random = stream("best")
    scores, outcomes = random.standard_normal(30), random.standard_normal(30)
    picks = np.array([random.choice(30, 5, replace=False) for _ in range(40_000)])
    best = outcomes[picks[np.arange(len(picks)), scores[picks].argmax(1)]]
    found = training.best_of(5, scores, outcomes)
    assert abs(found - (best.mean() - outcomes.mean())) < 5 * best.std() / np.sqrt(len(best))
    assert training.best_of(1, scores, outcomes) == pytest.approx(0, abs=1e-12)
    assert training.best_of(30, scores, outcomes) == pytest.approx(outcomes[scores.argmax()] - outcomes.mean())


def test_the_share_of_the_fall_that_is_left():
    fixed, proportional = np.where(X > 0, 0.5, 0.9), np.where(X > 0, 0.8, 0.9)
    values = np.stack([over_radii(curve)[1] for curve in (fixed, proportional)])
    dims = ("rate_rule", "radius", "draw")
    here = cell(rate_rule=["fixed", "proportional"], test_accuracy=(dims, values))
    (found,) = estimate("fall_left", here, window=[1.9, 2.1])
    assert found.value == pytest.approx(0.25, abs=0.02)


def test_binomial_variance_is_taken_off_the_spread():
    random = stream("spread")
    true = 0.8 + 0.02 * random.standard_normal(4000)
    values = random.binomial(1000, true) / 1000
    attributes = {"test_examples": "1000"}
    here = xr.Dataset({"test_accuracy": (("radius", "draw"), values[None])}, {"classes": 10}, attributes)
    (found,) = estimate("spread_over_draws", here)
    low, high = found.interval(0.99)
    assert low < 0.02 < high and values.std() > 0.022


def test_accuracies_of_two_studies_are_compared_draw_by_draw():
    here = cell(test_accuracy=over_radii(np.linspace(0.2, 0.9, 9), 0.1))
    here["other_accuracy"] = here["test_accuracy"] - 0.02
    found = estimate("accuracy_beside", here, window=[-2.1, 2.1])
    assert len(found) > 1
    for each in found:
        assert each.value == pytest.approx(0.02) and each.standard_error < 1e-3
    # A run that diverged is at chance.
    here["other_accuracy"][:] = np.nan
    (first, *_) = estimate("accuracy_beside", here, window=[-2.1, 2.1])
    at = curves.in_x(here["test_accuracy"], [-2.1, 2.1]).isel(radius=0)
    assert first.value == pytest.approx(float(at.mean()) - 1 / float(here["classes"]))


def test_the_map_is_read_at_the_same_rate_and_temperature():
    """Accuracy at α r_X against that at r_X with rate/α and temperature α⁻ⁿ, n = 3 for two hidden layers."""
    rates, temperatures = [0.0003, 0.003, 0.03], [1e-3, 1.0, 1e3]
    table = np.arange(9.0).reshape(3, 3)[..., None] + np.zeros(DRAWS)
    here = cell(test_accuracy=over_radii(np.zeros(9), 0.0)).assign_coords(
        network="fc-200x2-relu", rate=rates, temperature=temperatures
    )
    here["map_accuracy"] = (("rate", "temperature", "draw"), table)
    here.attrs["settings"] = json.dumps({"rate": 0.003})
    found = estimate("map_difference", here, window=[-2.1, 2.1])
    # r/r_X = 0.1: rate 0.03, T 1000; 10: rate 0.0003, T 0.001. At r_X itself nothing is compared.
    assert [each.value for each in found] == [-8]  # at 10, both are 0 in every draw
    everywhere = estimate("map_difference", here.assign(map_accuracy=0 * here["map_accuracy"]), window=[-2.1, 2.1])
    assert [each.open_end for each in everywhere] == 2 * [ALIKE]
    (apart,) = estimate("map_difference", here.assign(map_accuracy=1 + 0 * here["map_accuracy"]), window=[0.1, 2.1])
    assert apart.value == -1
    with pytest.raises(NotTested, match="the number of weight layers of mine is not known"):
        estimate("map_difference", here.assign_coords(network="mine"), window=[-2.1, 2.1])
    with pytest.raises(NotTested, match="no point for any radius of this run other than r_X"):
        estimate("map_difference", here, window=[-0.1, 0.1])
    here.attrs["settings"] = json.dumps({"rate": 0.5})
    with pytest.raises(NotTested, match="no point for any radius of this run other than r_X"):
        estimate("map_difference", here, window=[-2.1, 2.1])
