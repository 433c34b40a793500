"""Layer-wise trace of the Hessian over the functional of the logits that it should equal, layer by layer."""

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.ticker import MaxNLocator

from goldilocks_zone.claims.curves import ratio_of_means
from goldilocks_zone.figures import style
from goldilocks_zone.jobs.log import job_log
from goldilocks_zone.models import labels

Y_LABEL = "mean " + r"$\sigma_l^2\,\mathrm{Tr}(H_{ll})$" + " over\nmean " + r"$\Sigma_k p_k z_k - z_y$"
ROOM = 1.2  # for what stands above the panels, relative to a row of them
MARGIN = 0.1  # that of claim by6
SHOWN, LEAST_SHOWN = (-0.5, 2.5), (0.75, 1.25)
WIDTH = 0.4  # of the points of all layers at one radius, as a share of the least distance of radii


def plot_layer_traces(
    path_to_study: str, path_to_settings: str, path_to_pdf: str, path_to_png: str, path_to_data: str
) -> None:
    study, settings = style.load(path_to_study, path_to_settings, needed=("layer",))
    study = study.sel(examples=max(study["examples"].values))
    data = ratios(study)
    shown = style.cells(study)
    rows, columns = -(-len(shown) // 2), min(2, len(shown))
    width, height = style.page_size(rows, settings)
    size = (width, height * ROOM)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, sharex=True, sharey=True)
    for ax in axes.flat[len(shown) :]:
        ax.remove()
    for number, (ax, cell) in enumerate(zip(axes.flat, shown)):
        ax.axhspan(1 - MARGIN, 1 + MARGIN, color="0.88", linewidth=0, zorder=0)
        ax.axhline(1, color="0.4", linewidth=0.6, zorder=0)
        draw_layers(ax, data.sel(cell).dropna("layer", how="all"))
        if data.sel(cell)["ratio"].isnull().all():
            words = "too few draws to know the functional's mean"
            ax.annotate(words, (0.5, 0.8), xycoords="axes fraction", ha="center")
        ax.set_title(style.title(cell, shown))
        if number + columns >= len(shown):
            ax.set_xlabel(style.X_LABEL)
            ax.tick_params(labelbottom=True)
            ax.xaxis.set_major_locator(MaxNLocator(5))
        if number % columns == 0:
            ax.set_ylabel(Y_LABEL)
    limit(axes.flat[0], data)
    handles = max((ax.get_legend_handles_labels()[0] for ax in axes.flat[: len(shown)]), key=len)
    figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 6))
    style.save(figure, data, path_to_pdf, path_to_png, path_to_data)


def ratios(study: xr.Dataset) -> xr.Dataset:
    """σ_l² E Tr H_ll over E⟨∇L, θ⟩/n_L, n_L the number of weight layers, and the ratio's 95 % interval.

    Missing where the functional's mean is not well known, as inside of the zone, where both sides are small.
    """
    traces = study["layer_trace"].transpose("dataset", "network", "subspace", "radius", "layer", "draw")
    found = np.full((*traces.shape[:-1], 3), np.nan)
    for place in np.ndindex(traces.shape[:-1]):
        here = traces[place]
        if here.isnull().all():
            continue  # this network has fewer layers
        cell = {axis: here[axis].item() for axis in ("dataset", "network", "subspace", "radius")}
        depth = labels.depth(cell["network"])
        if depth is None:
            raise ValueError(f"the number of weight layers of {cell['network']} is not known: leave it out")
        functional = study["radial_derivative"].sel(cell).values / depth
        if not style.is_well_known(functional):
            continue
        pair = np.array([here.values, functional])
        found[place] = style.bootstrapped(ratio_of_means, pair, "layer_trace")
    meanings = {
        "ratio": "mean of σ_l² Tr(H_ll) over mean of ⟨∇L, θ⟩/n_L",
        "low": "lower end of the ratio's 95 % bootstrap interval over draws",
        "high": "upper end of the ratio's 95 % bootstrap interval over draws",
    }
    variables = {
        name: (traces.dims[:-1], found[..., i], {"units": "1", "long_name": meaning})
        for i, (name, meaning) in enumerate(meanings.items())
    }
    return xr.Dataset(variables, study.drop_dims("draw").coords, study.attrs)


def draw_layers(ax: plt.Axes, curve: xr.Dataset) -> None:
    """One marker per layer with its interval, side by side at each radius."""
    x, layers = curve["x"].values, curve["layer"].values.tolist()
    step = WIDTH * (np.diff(np.sort(x)).min() if len(x) > 1 else 1) / max(len(layers) - 1, 1)
    for number, layer in enumerate(layers):
        here = curve.sel(layer=layer)
        ratio = here["ratio"].values
        ax.errorbar(
            x + (number - (len(layers) - 1) / 2) * step,
            ratio,
            [ratio - here["low"].values, here["high"].values - ratio],
            color=style.COLOURS[number % len(style.COLOURS)],
            marker=style.MARKERS[number % len(style.MARKERS)],
            linestyle="none",
            elinewidth=0.8,
            label=f"layer {layer}",
        )


def limit(ax: plt.Axes, data: xr.Dataset) -> None:
    """Room for what is drawn; intervals of few draws may leave the axes."""
    drawn = data["ratio"].notnull()
    values = np.concatenate([data[name].values.ravel() for name in ("ratio", "low", "high")])
    values = np.append(values[np.isfinite(values)], LEAST_SHOWN)
    ax.set_ylim(max(SHOWN[0], values.min() - 0.05), min(SHOWN[1], values.max() + 0.05))
    if drawn.any():
        x = data["x"].values[drawn.any([dim for dim in drawn.dims if dim != "radius"])]
        ax.set_xlim(x.min() - 0.4, x.max() + 0.4)


if __name__ == "__main__":
    with job_log(snakemake.log[0], snakemake.input):
        plot_layer_traces(
            path_to_study=snakemake.input.studies[0],
            path_to_settings=snakemake.input.settings,
            path_to_pdf=snakemake.output.pdf,
            path_to_png=snakemake.output.png,
            path_to_data=snakemake.output.data,
        )
