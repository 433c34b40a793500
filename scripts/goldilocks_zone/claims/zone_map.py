"""Predicting accuracy after training from the curvature and the scale of the logits at initialisation.

In this module, a network is one cell of a study (dataset, network and subspace) with all its radii; networks are the
units of replication. A point is one network at one radius. κ is Tr(H)/‖H‖ and σ_z the standard deviation of the logits,
both at the start. The arguments `training` and `curvature` are the results of two studies, and `found` is the result of
`points`.
"""

import math
from collections.abc import Callable

import numpy as np
import xarray as xr

from goldilocks_zone.claims.curves import apart, ratio_of_means
from goldilocks_zone.claims.estimators.training import accuracy
from goldilocks_zone.statistics import estimates

LEAST_NETWORKS = 3  # so that leaving one out keeps at least two
CELL = ("dataset", "network", "subspace")
UNKNOWN = (math.nan, math.nan, math.nan)
MEANINGS = {
    "accuracy": "test accuracy at the end, chance where training diverged",
    "kappa": "Tr(H)/‖H‖ at the start",
    "fraction": "fraction of positive eigenvalues at the start",
    "log10_sigma": "log10 of σ_z, the deviation of logits, at the start",
}


def statistics(training: xr.Dataset, curvature: xr.Dataset) -> dict[str, tuple[float, float, float]]:
    """Four statistics that relate accuracy to κ and other measures at the start, as {name: (value, low, high)}.

    They are computed from the `points` of `training` and `curvature`, the results of two studies. kappa, fraction and
    sigma are the `rank_correlation` of accuracy with κ = Tr(H)/‖H‖, with the fraction of positive eigenvalues and with
    σ_z itself (not its distance from the best value). gain is the result of `gain`. low and high are the ends of the 95
    % interval. Numbers are NaN if there are too few networks or draws.
    """
    found, names = points(training, curvature), {"kappa": "kappa", "fraction": "fraction", "sigma": "log10_sigma"}
    return {key: rank_correlation(found, name) for key, name in names.items()} | {"gain": gain(found)}


def points(training: xr.Dataset, curvature: xr.Dataset) -> xr.Dataset:
    """Dataset of accuracy, kappa, fraction and log10_sigma (network, radius, draw); see MEANINGS.

    Accuracy is read from the study `training`, the other variables from `curvature`. Along each axis, only values that
    both studies have are kept.
    """
    found = xr.merge([of_training(training), of_curvature(curvature)], join="inner")
    return by_network(found).transpose("network", "radius", "draw")


def of_training(study: xr.Dataset) -> xr.Dataset:
    """Dataset with the accuracy after training, which has the axes (dataset, network, subspace, radius, draw)."""
    return _described({"accuracy": accuracy(study)})


def of_curvature(study: xr.Dataset) -> xr.Dataset:
    """Dataset of kappa, fraction and log10_sigma (dataset, network, subspace, radius, draw) of a curvature study.

    They are read at the study's largest number of examples and largest dimension of planes; see MEANINGS.
    """
    study = study.sel(examples=study["examples"].max(), dimension=study["dimension"].max())
    variables = {"kappa": study["trace_over_norm"], "fraction": study["fraction_positive"]}
    return _described({**variables, "log10_sigma": xr.ufuncs.log10(study["logits_std"])})


def _described(variables: dict[str, xr.DataArray]) -> xr.Dataset:
    found = xr.Dataset({name: array.reset_coords(drop=True) for name, array in variables.items()})
    for name in variables:
        found[name].attrs = {"units": "1", "long_name": MEANINGS[name]}
    return found


def by_network(study: xr.Dataset) -> xr.Dataset:
    """Combine the axes dataset, network and subspace of a study into one axis `network`.

    Its labels name those of the three that vary; if none does, the network.
    """
    told_apart = [axis for axis in CELL if study.sizes[axis] > 1] or ["network"]
    stacked = study.stack(cell=CELL)
    names = [", ".join(map(str, rows)) for rows in zip(*(stacked[axis].values for axis in told_apart))]
    return stacked.drop_vars(("cell", *CELL)).rename(cell="network").assign_coords(network=names)


def rank_correlation(found: xr.Dataset, name: str) -> tuple[float, float, float]:
    """Spearman correlation of accuracy with the variable `name` over all networks and radii, from means over draws.

    `found` is the result of `points`. Returns (value, low, high), clipped to [−1, 1]; NaN without points. low and high
    are the ends of a bootstrap interval. The bootstrap resamples networks, each with all its radii; with fewer than
    LEAST_NETWORKS networks, it resamples draws.
    """
    pair = found[["accuracy", name]].to_dataarray().transpose("variable", "radius", "network", "draw").values
    if pair.size == 0:
        return UNKNOWN
    several = pair.shape[2] >= LEAST_NETWORKS
    statistic = _spearman if several else lambda sample: _spearman(sample.mean(-1))
    return tuple(np.clip(_estimate(statistic, pair.mean(-1) if several else pair, name), -1, 1).tolist())


def _spearman(pair: np.ndarray) -> float:
    """Spearman correlation between `pair[0]` and `pair[1]`, each flattened; NaN if one of them is constant."""
    ranks = [estimates.ranks(part) for part in pair.reshape(2, -1)]
    return float(np.corrcoef(ranks)[0, 1]) if min(map(np.ptp, ranks)) > 0 else math.nan


def _estimate(statistic: Callable[[np.ndarray], float], samples: np.ndarray, name: str) -> tuple[float, float, float]:
    """Value of a `statistic` of `samples` (…, units) and its 95 % interval, as (value, low, high).

    The interval is NaN for a single unit. `name` is part of the name of the bootstrap's random stream. With few units,
    `bootstrapped` uses a jackknife, which corrects for bias, so that its interval may miss the value. The interval is
    then extended to contain the value.
    """
    value = statistic(samples)
    try:
        low, high = estimates.bootstrapped(statistic, samples, "zone_map", name).interval(estimates.LEVEL)
    except estimates.TooFewDraws:
        return value, math.nan, math.nan
    return value, float(np.minimum(low, value)), float(np.maximum(high, value))


def gain(found: xr.Dataset) -> tuple[float, float, float]:
    """Reduction of the mean absolute error of predicted accuracy if κ is used besides σ_z, as (value, low, high).

    `found` is the result of `points`. The value is the error with σ_z alone minus the error with σ_z and κ, positive if
    κ helps. The result is NaN below LEAST_NETWORKS networks, where κ's slope cannot be fitted. All quantities are means
    over draws.

    The accuracy of each network i is predicted from the other networks. Let s = log10 σ_z. The prediction from σ_z
    alone is a_i(s), the mean of the other networks' accuracies at s, interpolated linearly between radii. With κ =
    Tr(H)/‖H‖, the prediction is a_i(s) + b_i (κ − k_i(s)). Here k_i(s) is the mean of the other networks' κ at s,
    interpolated in the same way. b_i is the slope of a least-squares line through the origin, of accuracy − a_i over κ
    − k_i on the other networks.

    Errors are averaged over those points of all networks whose s lies in the range that all other networks cover. The
    interval resamples networks with the errors of their predictions, which are not fitted again.
    """
    if found.sizes["network"] < LEAST_NETWORKS:
        return UNKNOWN
    names = "log10_sigma", "accuracy", "kappa"
    curves = [found[name].mean("draw").transpose("network", "radius").values for name in names]
    order = np.argsort(curves[0], axis=1)
    curves = [np.take_along_axis(curve, order, axis=1) for curve in curves]
    differences = [_error_differences(*curves, left_out) for left_out in range(len(order))]
    pair = np.array([(each.sum(), len(each)) for each in differences if len(each)], dtype=float).T
    return _estimate(ratio_of_means, pair, "gain") if pair.size else UNKNOWN


def _error_differences(places: np.ndarray, accuracy: np.ndarray, kappa: np.ndarray, left_out: int) -> np.ndarray:
    """Reduction of the absolute error of predicted accuracy by κ, at points of the network `left_out`.

    Each value is the error of the prediction from σ_z alone minus the error of the prediction with κ; see `gain`.
    `places` (log10 σ_z, ascending), `accuracy` and `kappa` have the shape (networks, radii), and `left_out` is the
    index of a row. There is one value for each radius of this network whose σ_z lies in the range that all others
    cover.
    """
    others = [i for i in range(len(places)) if i != left_out]
    of_accuracy, of_kappa = (
        np.concatenate([apart(places, values, i, others) for i in others]) for values in (accuracy, kappa)
    )
    square = of_kappa @ of_kappa
    slope = of_kappa @ of_accuracy / square if square > 0 else 0.0
    alone = apart(places, accuracy, left_out, others)
    return np.abs(alone) - np.abs(alone - slope * apart(places, kappa, left_out, others))
