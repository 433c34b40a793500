"""Prediction of accuracy over networks and radii, on made-up studies with known answers."""

import numpy as np
import pytest
import xarray as xr

from goldilocks_zone.claims import zone_map
from goldilocks_zone.randomness import stream

RADII = np.logspace(-2, 2, 17)
X = np.linspace(-4, 4, 17)  # 2 log10 of the radii, free of rounding: equal places of networks are ties
DEPTHS = (3, 4, 5, 6, 3, 4)


def made_up(networks, accuracy_of, kappa_of=None, draws=4, spread=0.0):
    """Made-up studies of training and curvature of several networks, as functions of s = log10 σ_z.

    The accuracy is `accuracy_of(s, κ)`, and κ is `kappa_of(s, number of the network)`. By default, κ is a peak around
    s = 0 whose height differs over networks. `spread` is the standard deviation of noise in s.
    """
    noise = spread * stream("zone map", networks, draws).standard_normal((networks, len(RADII), draws))
    s = np.array([0.5 * depth * X for depth in DEPTHS[:networks]])[:, :, None] + noise
    number = np.arange(networks)[:, None, None]
    kappa_of = kappa_of or (lambda s, number: (1 + 0.5 * np.sin(7 * number + 1)) * 5 * np.exp(-np.square(s / 2)))
    kappa = kappa_of(s, number)
    coordinates = {
        "dataset": ["mnist"],
        "network": [f"net-{i}" for i in range(networks)],
        "subspace": ["plane-100-dense"],
        "radius": RADII,
        "draw": range(draws),
        "x": ("radius", X),
        "classes": ("dataset", [10]),
    }
    dims = ("dataset", "network", "subspace", "radius", "draw")

    def cells(values):
        return dims, values[None, :, None]

    training = xr.Dataset({"test_accuracy": cells(accuracy_of(s, kappa))}, coordinates)
    curvature = xr.Dataset(
        {
            "trace_over_norm": cells(kappa),
            "fraction_positive": cells(1 / (1 + np.exp(-kappa))),
            "logits_std": cells(10**s),
        },
        coordinates,
    )
    # Fewer examples and smaller dimensions hold nothing, so that a test fails where they are taken.
    sizes = {"examples": [250, 1000], "dimension": [50, 100]}
    largest = xr.DataArray([[0.0, 0.0], [0.0, 1.0]], sizes, tuple(sizes))
    nested = curvature * largest
    nested["logits_std"] = curvature["logits_std"].expand_dims(examples=sizes["examples"])
    return training, nested


def of_spread(s):
    return 0.1 + 0.8 / (1 + np.exp(2 * s))


def test_kappa_gains_nothing_where_accuracy_follows_from_the_logits():
    found = zone_map.statistics(*made_up(5, lambda s, kappa: of_spread(s)))
    value, low, high = found["gain"]
    assert abs(value) < 0.005 and low <= value <= high and low < 0.005


def test_kappa_gains_where_accuracy_depends_on_it_beside_the_logits():
    studies = made_up(5, lambda s, kappa: of_spread(s) + 0.06 * kappa)
    value, low, _ = zone_map.statistics(*studies)["gain"]
    assert value > 0.01 and low > 0


def test_the_gain_is_the_whole_error_where_kappa_explains_all_that_is_left():
    """On curves with the same places, linear interpolation is exact, and so is the prediction with κ."""
    number = np.arange(4)[:, None]
    places, kappa = np.tile(np.linspace(-3, 3, 9), (4, 1)), number * np.ones(9)
    accuracy = np.abs(places) + 0.2 * kappa
    found = zone_map.points(*made_up(4, lambda s, kappa: s)).isel(radius=slice(9), draw=[0])
    for name, values in {"log10_sigma": places, "accuracy": accuracy, "kappa": kappa}.items():
        found[name].values[:] = values[..., None]
    value, _, _ = zone_map.gain(found)
    error = 0.2 * np.mean([abs(i - np.delete(number, i).mean()) for i in range(4)])
    assert value == pytest.approx(error)


def test_a_monotone_relation_has_a_rank_correlation_of_one():
    found = zone_map.statistics(*made_up(4, lambda s, kappa: np.tanh(s), lambda s, number: np.exp(s / 9) + 0 * number))
    assert all(found[name] == pytest.approx((1, 1, 1)) for name in ("kappa", "fraction", "sigma"))
    falling = zone_map.statistics(*made_up(4, lambda s, kappa: -s, lambda s, number: s + 0 * number))
    assert falling["sigma"] == pytest.approx((-1, -1, -1))


@pytest.mark.parametrize("networks, draws", [(1, 2), (2, 2), (2, 1), (3, 1), (3, 2), (6, 3)])
def test_few_networks_and_draws_give_what_they_can(networks, draws):
    studies = made_up(networks, lambda s, kappa: of_spread(s) + 0.02 * kappa, draws=draws, spread=0.1)
    found = zone_map.statistics(*studies)
    assert set(found) == {"kappa", "fraction", "sigma", "gain"}
    for name in ("kappa", "fraction", "sigma"):
        value, low, high = found[name]
        assert -1 <= value <= 1
        assert (-1 <= low <= value <= high <= 1) if max(draws, networks - 1) > 1 else np.isnan([low, high]).all()
    assert np.isfinite(found["gain"]).all() == (networks >= zone_map.LEAST_NETWORKS)
    assert np.isnan(found["gain"]).all() == (networks < zone_map.LEAST_NETWORKS)


def test_points_are_those_of_both_studies_and_a_run_that_diverged_has_guessed():
    training, curvature = made_up(3, lambda s, kappa: of_spread(s))
    training["test_accuracy"].values[0, 1, 0, 5, 0] = np.nan
    found = zone_map.points(training.isel(draw=[0, 1]), curvature.isel(network=[1, 2], radius=slice(4, None)))
    assert found.sizes == {"network": 2, "radius": 13, "draw": 2}
    assert found["network"].values.tolist() == ["net-1", "net-2"]
    assert float(found["accuracy"][0, 1, 0]) == 0.1 < float(found["accuracy"][0, 1, 1])
    assert np.allclose(found["log10_sigma"].sel(network="net-2", draw=0), 2.5 * X[4:])
    assert (found["kappa"] > 0).all()


def test_studies_without_a_common_network_have_no_statistics():
    training, curvature = made_up(2, lambda s, kappa: of_spread(s))
    found = zone_map.statistics(training.isel(network=[0]), curvature.isel(network=[1]))
    assert all(np.isnan(triple).all() for triple in found.values())


def test_cells_are_called_by_what_tells_them_apart():
    training, curvature = made_up(2, lambda s, kappa: of_spread(s))
    both = [
        xr.concat([study, study.assign_coords(dataset=["cifar10"])], "dataset", data_vars="all")
        for study in (training, curvature)
    ]
    names = zone_map.points(*both)["network"].values.tolist()
    assert names == ["mnist, net-0", "mnist, net-1", "cifar10, net-0", "cifar10, net-1"]
    one = [study.isel(network=[0]) for study in (training, curvature)]
    assert zone_map.points(*one)["network"].values.tolist() == ["net-0"]
