"""Trace of each layer's block of the Hessian relative to the functional of the logits that it should equal."""

import numpy as np
import xarray as xr
from matplotlib.ticker import MaxNLocator

from goldilocks_zone.figures import curves, panels, style
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies
from goldilocks_zone.models import labels

FIGURE = {"id": "layer_traces", "studies": ["layer_traces"], "axis": "radius", "needs": ["layer"]}


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    (study,) = studies.values()
    data = ratios(study.sel(examples=study["examples"].max()))
    shown = panels.cells(study)
    figure, axes = panels.page(len(shown), settings, min(2, len(shown)), room=1.2, x_label=panels.X_LABEL, sharey=True)
    for ax, cell in zip(axes, shown):
        ax.axhspan(0.9, 1.1, color="0.88", linewidth=0, zorder=0)  # the tolerance of claim by6
        ax.axhline(1, color="0.4", linewidth=0.6, zorder=0)
        curve = data.sel(cell).dropna("layer", how="all")
        x, layers = curve["x"].values, curve["layer"].values.tolist()
        # Spread the markers of all layers over 0.4 of the smallest distance between radii.
        apart = 0.4 * (np.diff(np.sort(x)).min() if len(x) > 1 else 1) / max(len(layers) - 1, 1)
        for number, layer in enumerate(layers):
            here, places = curve.sel(layer=layer), x + curves.centred(number, len(layers)) * apart
            look = style.look(number, linestyle="none", elinewidth=0.8, label=f"layer {layer}")
            ax.errorbar(places, here["ratio"], curves.bars(here, "ratio"), **look)
        if data.sel(cell)["ratio"].isnull().all():
            ax.annotate(
                "too few draws to know the functional's mean", (0.5, 0.8), xycoords="axes fraction", ha="center"
            )
        ax.set_title(panels.cell_title(cell, shown))
        ax.xaxis.set_major_locator(MaxNLocator(5))
        if ax in axes[::2]:
            ax.set_ylabel("mean " + r"$\sigma_l^2\,\mathrm{Tr}(H_{ll})$" + " over\nmean " + r"$\Sigma_k p_k z_k - z_y$")
    low, high = panels.limits(data["ratio"], data["low"], data["high"], [0.75, 1.25], margin=0)
    axes[0].set_ylim(max(-0.5, low - 0.05), min(2.5, high + 0.05))
    known = data["ratio"].notnull()
    if known.any():
        x = data["x"].values[known.any([axis for axis in known.dims if axis != "radius"])]
        axes[0].set_xlim(x.min() - 0.4, x.max() + 0.4)
    panels.legend_on_top(figure, max((ax.get_legend_handles_labels()[0] for ax in axes), key=len), 6)
    return figure, data


def ratios(study: xr.Dataset) -> xr.Dataset:
    """Mean over draws of σ_l² Tr(H_ll) for each layer l, divided by the mean of ⟨∇L, θ⟩/n_L, with 95 % intervals.

    σ_l is the standard deviation of layer l's weights, and H_ll the block of the Hessian for these weights. L is the
    loss, θ the vector of parameters, and n_L the number of weight layers. The result has the variables of
    `curves.ratios_of_means`, with the axes (dataset, network, subspace, radius, layer). Raises ValueError if n_L is
    unknown for a network with measured traces.
    """
    traces = study["layer_trace"].transpose("dataset", "network", "subspace", "radius", "layer", "draw")
    depths = [labels.depth(network) for network in study["network"].values.tolist()]
    for network, depth in zip(study["network"].values, depths):
        if depth is None and traces.sel(network=network).notnull().any():
            raise ValueError(f"the number of weight layers of {network} is not known: remove it from the study")
    functional = study["radial_derivative"] / xr.DataArray(np.array(depths, float), dims="network")
    data = curves.ratios_of_means(traces, functional, "mean of σ_l² Tr(H_ll) over mean of ⟨∇L, θ⟩/n_L", "layer_trace")
    return data.assign_coords(study.drop_dims("draw").coords).assign_attrs(study.attrs)
