"""Final deviation of embeddings over the weight of the variance hinge, with the predicted law, and the spectrum of the
last layer's Hessian where that layer vanishes (Dawid & LeCun 2023)."""

from collections.abc import Iterator

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from goldilocks_zone.figures import curves, embeddings, panels, style
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies
from goldilocks_zone.theory import wide_networks

FIGURE = {
    "id": "jepa_collapse",
    "studies": ["jepa_collapse", "jepa_zone", "jepa_zone_info_nce"],
}

LEAST = 1e-4  # smaller deviations are drawn at this value
PLACES = 400  # number of points of the line of the law
LOOKS = {"markersize": 3.6, "linestyle": "none"}


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    ends = studies.get("jepa_collapse")
    levels = ends_of(ends) if ends is not None else {}
    spectra = dict(spectra_of(studies))
    count = len(levels) + bool(spectra)
    figure, axes = panels.page(max(1, count), settings, columns=max(2, min(3, count)), room=1.15)
    for number, (ax, (epsilon, found)) in enumerate(zip(axes, levels.items())):
        draw_ends(ax, found, epsilon, panels.lettered(number, rf"end of training, $\epsilon={epsilon:g}$"))
    if spectra:
        draw_spectra(axes[len(levels)], spectra)
        panels.legend_above(axes[len(levels)], panels.lettered(len(levels), "collapse point"), columns=2)
    parts = {f"epsilon_{number}": found for number, found in enumerate(levels.values())}
    named = {label.replace("-", "_").replace(".", "_"): found for label, found in spectra.items()}
    return figure, embeddings.source(parts | named)


def ends_of(study: xr.Dataset) -> dict[float, xr.Dataset]:
    """Standard deviation of embeddings after training, as {ε: dataset} for each ε of the variance hinge.

    `deviation` has the axes (correlation, over_threshold, draw). The axis correlation holds the correlation of the two
    views in a pair of Gaussian views. deviation_mean, _low and _high (correlation, over_threshold) are the mean over
    draws and the ends of its 95 % interval. `weight` (correlation, over_threshold) is μ/λ, the weight of the variance
    term divided by the weight of the invariance term. Below a threshold of μ/λ, a collapsed encoder is a minimum of the
    loss; the axis over_threshold holds μ/λ divided by this threshold.
    """
    kept = ("correlation", "epsilon", "over_threshold")
    axes = [axis for axis in kept if axis in study.dims]
    settings = curves.settings_of(study)
    values = embeddings.values_of(study, "deviation", *axes, arm="full")
    values = values.expand_dims({axis: [settings[axis] or np.nan] for axis in kept if axis not in axes})
    values = values.transpose(*kept, "draw").assign_attrs(study["deviation"].attrs)
    found = {}
    for epsilon in values["epsilon"].values.tolist():
        here = values.sel(epsilon=epsilon, drop=True)
        thresholds = wide_networks.collapse_threshold(here["correlation"].values, epsilon)
        weight = here["over_threshold"] * xr.DataArray(thresholds, dims="correlation")
        weight = weight.transpose("correlation", "over_threshold")
        data = curves.prefixed({"deviation": curves.means(here)}).assign(deviation=here)
        found[epsilon] = data.assign(weight=weight.assign_attrs(curves.described("μ/λ, weight of the hinge")))
    return found


def draw_ends(ax: Axes, found: xr.Dataset, epsilon: float, heading: str) -> None:
    """Draw the final deviation over μ/λ for every correlation in `found`, with the predicted law as a line.

    `found` is the dataset that `ends_of` gives for this `epsilon`, and μ/λ is its variable `weight`. `heading` is the
    panel's title.
    """
    weights = embeddings.finite(found["weight"], otherwise=(0.01, 1))
    limits = weights.min() / 2, weights.max() * 2
    line = np.geomspace(*limits, PLACES)
    for number, c in enumerate(found["correlation"].values.tolist()):
        here, look = found.sel(correlation=c), style.look(number, **LOOKS)
        law = wide_networks.final_deviation(line, c, epsilon)
        ax.plot(line, np.where(law > 0, law, np.nan), color=style.colour(number), linewidth=0.9)
        x, own = np.broadcast_arrays(here["weight"].values[:, None], here["deviation"].values)
        ax.plot(np.ravel(x), np.clip(np.ravel(own), LEAST, None), **{**look, **embeddings.DOT})
        means = curves.parts_of(here, "deviation").clip(min=LEAST, keep_attrs=True)
        embeddings.draw_known(ax, here["weight"].values, means, **look)
    entries = [
        panels.entry(f"$c={c:g}$", **style.look(number, **{**LOOKS, "linestyle": "-", "linewidth": 0.9}))
        for number, c in enumerate(found["correlation"].values.tolist())
    ]
    panels.legend_above(ax, heading, entries, columns=3)
    ax.set(xscale="log", yscale="log", xlim=limits, ylim=(0.6 * LEAST, 2), xlabel=r"$\mu/\lambda$")
    ax.set(ylabel=r"$\sigma$ at the end")


def spectra_of(studies: Studies) -> Iterator[tuple[str, xr.Dataset]]:
    """Yield (label, eigenvalues) for each loss but the cross-entropy: eigenvalues of its Hessian at the collapse point.

    At this point, the last layer's weights W_n are zero. The Hessian is that with respect to one row of W_n. Its
    eigenvalues are divided by the largest magnitude among them in each draw, which is the variable `size` (draw). mean,
    low and high (unit) are the mean over draws and the ends of its 95 % interval; the axis unit numbers the
    eigenvalues. The losses are those of the studies jepa_zone and jepa_zone_info_nce.
    """
    for name in ("jepa_zone", "jepa_zone_info_nce"):
        if name not in studies or "collapse_eigenvalue" not in studies[name]:
            continue
        values = embeddings.one(studies[name], ["collapse_eigenvalue"], "edge_loss", "unit")["collapse_eigenvalue"]
        for label in values["edge_loss"].values.tolist():
            own = values.sel(edge_loss=label, drop=True)
            if label != "cross_entropy" and own.notnull().any():
                about = "eigenvalues of the Hessian along one row of W_n at W_n = 0, over their largest magnitude"
                relative = own / abs(own).max("unit")
                data = curves.means(relative, about)
                size = abs(own).max("unit").assign_attrs(curves.described("largest magnitude", "loss"))
                yield label, data.assign(size=size, unit=data["unit"])


def draw_spectra(ax: Axes, spectra: dict[str, xr.Dataset]) -> None:
    """Draw the eigenvalues of each loss over their rank, in ascending order; `spectra` are those of `spectra_of`.

    Lines are thinner from loss to loss, since those of VICReg nearly coincide for large weights μ/λ.
    """
    ends, widths = [-1.0, 0.0], np.linspace(2.2, 0.7, len(spectra))
    for number, (label, found) in enumerate(spectra.items()):
        kind, _, rest = label.partition("-")
        text = "InfoNCE" if kind == "info_nce" else rf"$\mu/\lambda={rest or '1'}$"
        colour, line = ("0.25", "--") if kind == "info_nce" else (style.colour(number), "-")
        rank = np.arange(1, found.sizes["unit"] + 1)
        curves.draw_band(ax, rank, found, linewidth=widths[number], label=text, color=colour, linestyle=line)
        ends += [found["mean"].min().item(), found["mean"].max().item()]
    ax.axhline(0, **style.GREY)
    ax.set(xlabel="rank, from the lowest", ylabel="eigenvalue over the largest", xscale="log")
    ax.set(ylim=panels.limits(ends, margin=0.06))
