"""Trace of each layer's block of the Hessian over the functional of the logits that it should equal."""

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.ticker import MaxNLocator

from goldilocks_zone.figures import curves, panels, style
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies
from goldilocks_zone.models import labels

FIGURE = {"id": "layer_traces", "studies": ["layer_traces"], "axis": "radius", "needs": ["layer"]}

Y_LABEL = "mean " + r"$\sigma_l^2\,\mathrm{Tr}(H_{ll})$" + " over\nmean " + r"$\Sigma_k p_k z_k - z_y$"
TOLERANCE = 0.1  # that of claim by6
SHOWN, LEAST_SHOWN = (-0.5, 2.5), (0.75, 1.25)
WIDTH = 0.4  # of the points of all layers at one radius, as a share of the least distance of radii


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    (study,) = studies.values()
    study = study.sel(examples=max(study["examples"].values))
    data = ratios(study)
    shown = panels.cells(study)
    figure, axes = panels.page(len(shown), settings, min(2, len(shown)), room=1.2, x_label=panels.X_LABEL, sharey=True)
    for ax, cell in zip(axes, shown):
        ax.axhspan(1 - TOLERANCE, 1 + TOLERANCE, color="0.88", linewidth=0, zorder=0)
        ax.axhline(1, color="0.4", linewidth=0.6, zorder=0)
        draw_layers(ax, data.sel(cell).dropna("layer", how="all"))
        if data.sel(cell)["ratio"].isnull().all():
            place = {"xy": (0.5, 0.8), "xycoords": "axes fraction", "ha": "center"}
            ax.annotate("too few draws to know the functional's mean", **place)
        ax.set_title(panels.cell_title(cell, shown))
        ax.xaxis.set_major_locator(MaxNLocator(5))
        if ax in axes[::2]:
            ax.set_ylabel(Y_LABEL)
    limit(axes[0], data)
    panels.legend_on_top(figure, max((ax.get_legend_handles_labels()[0] for ax in axes), key=len), 6)
    return figure, data


def ratios(study: xr.Dataset) -> xr.Dataset:
    """σ_l² E Tr H_ll over E⟨∇L, θ⟩/n_L for n_L weight layers, with its 95 % interval; both are small in the zone."""
    traces = study["layer_trace"].transpose("dataset", "network", "subspace", "radius", "layer", "draw")
    depths = [labels.depth(network) for network in study["network"].values.tolist()]
    for network, depth in zip(study["network"].values, depths):
        if depth is None and traces.sel(network=network).notnull().any():
            raise ValueError(f"the number of weight layers of {network} is not known: leave it out")
    functional = study["radial_derivative"] / xr.DataArray(np.array(depths, float), dims="network")
    data = curves.ratios_of_means(traces, functional, "mean of σ_l² Tr(H_ll) over mean of ⟨∇L, θ⟩/n_L", "layer_trace")
    return data.assign_coords(study.drop_dims("draw").coords).assign_attrs(study.attrs)


def draw_layers(ax: plt.Axes, curve: xr.Dataset) -> None:
    """Draw one marker per layer with its interval, side by side at each radius."""
    x, layers = curve["x"].values, curve["layer"].values.tolist()
    step = WIDTH * (np.diff(np.sort(x)).min() if len(x) > 1 else 1) / max(len(layers) - 1, 1)
    for number, layer in enumerate(layers):
        here = curve.sel(layer=layer)
        place = x + curves.centred(number, len(layers)) * step
        look = style.look(number, linestyle="none", elinewidth=0.8, label=f"layer {layer}")
        ax.errorbar(place, here["ratio"], curves.bars(here, "ratio"), **look)


def limit(ax: plt.Axes, data: xr.Dataset) -> None:
    """Limit the axes to ratios and their intervals, within SHOWN."""
    drawn = data["ratio"].notnull()
    values = np.concatenate([data[name].values.ravel() for name in ("ratio", "low", "high")])
    values = np.append(values[np.isfinite(values)], LEAST_SHOWN)
    ax.set_ylim(max(SHOWN[0], values.min() - 0.05), min(SHOWN[1], values.max() + 0.05))
    if drawn.any():
        x = data["x"].values[drawn.any([dim for dim in drawn.dims if dim != "radius"])]
        ax.set_xlim(x.min() - 0.4, x.max() + 0.4)
