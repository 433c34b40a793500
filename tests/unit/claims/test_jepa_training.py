"""Claims about trained joint embeddings, on studies whose answer is known."""

import numpy as np
import pytest
import xarray as xr

from goldilocks_zone.claims import quantities
from goldilocks_zone.claims.cells import NotTested
from goldilocks_zone.randomness import stream

DRAWS = 8
NOISE = 0.01 * stream("joint embeddings").standard_normal(DRAWS)


def study(dims, values, variable="auc", **axes):
    axes = {**axes, "draw": range(DRAWS)}
    values = np.asarray(values, float)[..., None] + NOISE
    return xr.Dataset({variable: ((*dims, "draw"), values)}, coords={dim: list(axes[dim]) for dim in (*dims, "draw")})


def estimate(cell, quantity, **keys):
    (found,) = quantities.estimate(cell, {"quantity": quantity, **keys}, "a case")
    return found


ARMS = {"arm": ["full", "no-variance", "random"], "amplitude": [1, 2]}


def arms():
    return study(("arm", "amplitude"), [[0.9, 0.8], [0.5, 0.5], [0.6, 0.7]], **ARMS)


def test_values_and_contrasts_are_paired_over_draws():
    of = {"variable": "auc", "arm": "full", "amplitude": 1}
    assert estimate(arms(), "embedding_value", of=of).value == pytest.approx(0.9 + NOISE.mean())
    contrast = estimate(arms(), "embedding_contrast", of=of, less={"arm": "no-variance"})
    assert contrast.value == pytest.approx(0.4) and contrast.standard_error < 1e-12 and contrast.n == DRAWS
    change = {"amplitude": 2}
    second = estimate(arms(), "embedding_contrast", of=of, less={"arm": "random"}, against=change)
    assert second.value == pytest.approx(0.3 - 0.1)
    doubled = estimate(arms(), "embedding_value", of={**of, "times": 2})
    assert doubled.value == pytest.approx(2 * (0.9 + NOISE.mean()))


def test_a_variable_may_lack_an_axis_on_which_it_does_not_depend():
    cell = arms()
    cell["by_chance"] = cell["auc"].isel(arm=0, drop=True) * 0 + 0.1
    of = {"variable": "auc", "arm": "full", "amplitude": 1}
    assert estimate(cell, "embedding_contrast", of=of, less={"variable": "by_chance"}).value == pytest.approx(
        0.8 + NOISE.mean()
    )
    # But not one at which the cell is not.
    with pytest.raises(NotTested, match="no amplitude 1"):
        estimate(cell.sel(amplitude=2), "embedding_value", of=of)


@pytest.mark.parametrize(
    ("of", "message"),
    [
        ({"variable": "auc", "arm": "full"}, "several values of amplitude, of which the claim names none"),
        ({"variable": "auc", "arm": "fall", "amplitude": 1}, "no arm fall"),
        ({"variable": "auc", "arms": "full"}, "no axis arms"),
        ({"variable": "aoc", "arm": "full"}, "has measured no aoc"),
        ({"variable": "auc", "arm": "full", "amplitude": 1, "x": 0}, "not in units of r_X"),
        ({"variable": "auc", "arm": "full", "best": ["rate"]}, "does not vary rate"),
        ({"variable": "auc", "best": ["amplitude"]}, "several values of arm"),
    ],
)
def test_places_that_a_study_does_not_have_are_not_tested(of, message):
    with pytest.raises(NotTested, match=message):
        estimate(arms(), "embedding_value", of=of)


def test_draws_that_failed_are_left_out_of_both_sides_and_too_few_give_no_verdict():
    cell, of = arms(), {"variable": "auc", "arm": "full", "amplitude": 1}
    cell["auc"][1, 0, :3] = np.nan
    assert estimate(cell, "embedding_contrast", of=of, less={"arm": "no-variance"}).n == DRAWS - 3
    cell["auc"][0, 0, 3:5] = np.nan
    with pytest.raises(NotTested, match="3 of 8 draws in which auc can be measured, 4 are needed"):
        estimate(cell, "embedding_contrast", of=of, less={"arm": "no-variance"})


def rates():
    """Made-up study with scores over two radii and two rates: the second rate is best at the small radius only."""
    scores = [[0.4, 0.7], [0.6, 0.5]]
    cell = study(("radius", "rate"), scores, "probe", radius=[0.1, 1.0], rate=[1e-3, 1e-2])
    return cell.assign_coords(x=("radius", [-2.0, 0.0]))


def test_the_best_rate_is_chosen_on_other_draws():
    of = {"variable": "probe", "x": -2, "best": ["rate"]}
    assert estimate(rates(), "embedding_contrast", of=of, less={"x": 0}).value == pytest.approx(0.1)
    # Luck of one draw at a worse rate is not what that draw is judged at.
    lucky = rates()
    lucky["probe"][0, 0, 3] = 1.5
    assert estimate(lucky, "embedding_value", of=of).value == pytest.approx(0.7 + NOISE.mean())
    # Chosen by another variable, and never where training of another draw failed.
    other = rates().assign(other=-rates()["probe"])
    assert estimate(other, "embedding_value", of={**of, "by": "other"}).value == pytest.approx(0.4 + NOISE.mean())
    failed = rates()
    failed["probe"][0, 1, 3] = np.nan
    with pytest.raises(NotTested, match=r"x = 0\.3"):
        estimate(failed, "embedding_value", of={**of, "x": 0.3})
    # The draw that failed is left out: its own failure does not change what others chose for it.
    found = estimate(failed, "embedding_value", of=of)
    assert found.n == DRAWS - 1 and found.value == pytest.approx(0.4 + np.delete(NOISE, 3).mean())


def test_selection_of_noise_gains_nothing():
    noise = np.random.default_rng(0).standard_normal((40, 16))
    cell = xr.Dataset({"probe": (("rate", "draw"), noise)}, coords={"rate": range(40), "draw": range(16)})
    found = estimate(cell, "embedding_value", of={"variable": "probe", "best": ["rate"]})
    low, high = found.interval(0.95)
    assert low < 0 < high and noise.mean(1).max() > 0.4


def test_slopes_are_over_log2_of_the_numbers_of_an_axis():
    names, samples = ["rings_1", "rings_2", "rings_4", "rings_8"], [3, 127]
    m = np.array([0, 1, 2, 3])
    gains = {"infonce": 0.1 * m**2, "vicreg": 0.05 * m}
    values = [np.stack([0.2 * m, 0.2 * m + gain], 1) for gain in gains.values()]
    axes = {"loss_name": list(gains), "dataset": names, "sample": samples}
    cell = study(("loss_name", "dataset", "sample"), values, "r2", **axes)
    along, of = {"dataset": names[1:]}, {"variable": "r2", "loss_name": "infonce", "sample": 3}
    assert estimate(cell, "embedding_slope", of=of, along=along).value == pytest.approx(0.2)
    gain = {"along": along, "of": {**of, "sample": 127}, "less": {"sample": 3}}
    # From m² at log2 of 2 to 8.
    assert estimate(cell, "embedding_slope", **gain).value == pytest.approx(0.4)
    against = estimate(cell, "embedding_slope", **gain, against={"loss_name": "vicreg"})
    assert against.value == pytest.approx(0.35)
    with pytest.raises(NotTested, match="2 values of dataset, 3 are needed"):
        estimate(cell, "embedding_slope", of=of, along={"dataset": names[:2]})


def test_ratios_and_errors_are_of_each_draw():
    cell = study((), 2.0, "deviation")
    cell["law"] = cell["deviation"] / 1.02
    found = estimate(cell, "embedding_ratio", of={"variable": "deviation"}, to={"variable": "law"})
    assert found.value == pytest.approx(1.02) and found.standard_error < 1e-12
    with pytest.raises(NotTested, match="law is 0"):
        estimate(
            cell.assign(law=0 * cell["law"]), "embedding_ratio", of={"variable": "deviation"}, to={"variable": "law"}
        )
    worst = cell.assign(error=-cell["deviation"])
    assert estimate(worst, "embedding_error", of={"variable": "error"}).value == pytest.approx((2 + NOISE).max())
    between = estimate(
        cell.assign(error=0 * cell["deviation"]),
        "embedding_error",
        of={"variable": "deviation"},
        less={"variable": "error"},
    )
    assert between.value == pytest.approx((2 + NOISE).max())


def test_correlations_are_of_ranks_over_draws():
    random, draws = np.random.default_rng(0), range(60)
    kappa = random.standard_normal(60)
    made = {"kappa": kappa, "alike": np.exp(kappa), "other": random.standard_normal(60), "same": np.ones(60)}
    cell = xr.Dataset({name: ("draw", values) for name, values in made.items()}, coords={"draw": draws})

    def correlation(name, cell=cell):
        return estimate(cell, "embedding_correlation", of={"variable": "kappa"}, **{"with": {"variable": name}})

    assert correlation("alike").value == pytest.approx(1)
    low, high = correlation("other").interval(0.95)
    assert low < 0 < high and high - low < 0.7
    with pytest.raises(NotTested, match="same is equal in every draw"):
        correlation("same")
    with pytest.raises(NotTested, match="draws whose ranks"):
        correlation("other", cell.isel(draw=range(9)))
