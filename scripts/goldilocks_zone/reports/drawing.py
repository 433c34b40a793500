"""Figure of a report, with four panels."""

import io

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from goldilocks_zone.reports.findings import Findings
from goldilocks_zone.statistics import estimates
from goldilocks_zone.theory import laws

POINTS, WIDTHS = 400, 100  # of the density: grid points, and kernel widths that fit into the spectrum


def figure(found: Findings) -> Figure:
    """Draw the findings `found`: κ over the radius, the temperature and d, and the density of eigenvalues.

    κ is Tr(H)/‖H‖ on random planes of d dimensions, with 95 % intervals over planes.
    """
    drawn = Figure(figsize=(8, 5.5), layout="constrained")
    (radius, temperature), (dimension, density) = drawn.subplots(2, 2)
    zone = found.zone
    bound = laws.null_bound(zone.dimension)
    for axes, places, kappas, label in (
        (radius, zone.scales, zone.over_scales, "norm of the parameters, relative to the given one"),
        (temperature, zone.temperatures, zone.over_temperatures, "temperature of the softmax"),
    ):
        _with_bars(axes, places, kappas)
        axes.axvline(1, color="0.6", linestyle="--", linewidth=0.8)
        axes.axhspan(-bound, bound, color="0.9", zorder=0)
        axes.set(xscale="log", xlabel=label, ylabel=f"Tr(H)/‖H‖, d = {zone.dimension}")
        axes.set_title("bars: 95 % intervals over planes; band: random matrices", fontsize="small")
    for each in found.planes:
        low, high = each.kappa.interval(estimates.LEVEL)
        bars = [[each.kappa.value - low], [high - each.kappa.value]]
        dimension.errorbar(each.dimension, each.kappa.value, bars, color="C0", marker="o", capsize=2)
        dimension.plot(each.dimension, each.null_bound, "_", color="0.5", markersize=12)
        dimension.plot(each.dimension, np.sqrt(each.dimension), "_", color="k", markersize=12)
    dimension.set(xlabel="dimension d of the planes", ylabel="Tr(H)/‖H‖")
    dimension.set_title("black: largest possible, √d; grey: random matrices", fontsize="small")
    _density(density, found)
    drawn.suptitle(f"{found.model}, {found.parameters:,} parameters, {found.examples:,} examples")
    return drawn


def _with_bars(axes: Axes, places: np.ndarray, samples: np.ndarray) -> None:
    seen = np.isfinite(samples).all(0)
    means = [estimates.mean(each) for each in samples[:, seen].T]
    ends = np.array([each.interval(estimates.LEVEL) for each in means]).reshape(-1, 2)
    values = np.array([each.value for each in means])
    axes.errorbar(places[seen], values, np.abs(ends.T - values), color="C0", marker="o", capsize=2)


def _density(axes: Axes, found: Findings) -> None:
    low, high = float(np.nanmin(found.density.values)), float(np.nanmax(found.density.values))
    width = (high - low or 1.0) / WIDTHS
    grid = np.linspace(low - 3 * width, high + 3 * width, POINTS)
    mean, error = (found.parameters * each for each in found.density.smoothed(grid, width))
    axes.plot(grid, mean, color="C0")
    axes.fill_between(grid, mean - error, mean + error, color="C0", alpha=0.3)
    axes.plot(found.eigenvalues, np.full(len(found.eigenvalues), 1 / width), "|", color="C1")
    axes.set(yscale="log", xlabel="eigenvalue of H", ylabel="eigenvalues per unit")
    axes.set_title("band: standard error; bars: largest eigenvalues", fontsize="small")
    axes.set_ylim(0.1 / width, 3 * mean.max())


def png(found: Findings) -> bytes:
    """The figure of the findings `found` as the bytes of a PNG file."""
    buffer = io.BytesIO()
    figure(found).savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
