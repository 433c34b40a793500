"""Trace, norm and their ratio for softplus of growing sharpness, relative to ReLU, which leaves kinks out."""

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

from goldilocks_zone.claims.curves import ratio_of_means
from goldilocks_zone.figures import style
from goldilocks_zone.jobs.log import job_log

RELU = 0  # sharpness that stands for ReLU itself
MARGIN = 0.1  # of the trace, that of claim by7
MEASURES = {
    "trace": r"$\mathrm{Tr}(H)$",
    "frobenius_norm": r"$\Vert H\Vert$",
    "trace_over_norm": r"$\mathrm{Tr}(H)/\Vert H\Vert$",
}
ROOM = 1.2  # for what stands above the panels, relative to a row of them
DODGE = 0.04  # between the points of two radii at one sharpness, relative


def plot_kinks(
    path_to_study: str, path_to_settings: str, path_to_pdf: str, path_to_png: str, path_to_data: str
) -> None:
    study, settings = style.load(path_to_study, path_to_settings, needed=("sharpness",))
    if RELU not in study["sharpness"].values or study.sizes["sharpness"] < 2:
        raise ValueError(f"{path_to_study} has no ReLU to compare with: vary sharpness over 0 and other values")
    study = study.sel(dimension=style.shown_dimension(study), examples=max(study["examples"].values))
    data = relative_to_relu(study)
    shown = style.cells(study)
    width, height = style.page_size(len(shown), settings)
    size = (width, height * ROOM)
    figure, axes = plt.subplots(len(shown), len(MEASURES), figsize=size, squeeze=False, sharex=True)
    for row, cell in zip(axes, shown):
        for ax, (name, label) in zip(row, MEASURES.items()):
            ax.axhline(1, color="0.4", linewidth=0.6, zorder=0)
            if name == "trace":
                ax.axhspan(1 - MARGIN, 1 + MARGIN, color="0.88", linewidth=0, zorder=0)
            draw_radii(ax, data.sel(cell).sel(quantity=name))
            ax.set_title(label + (f", {style.title(cell, shown)}" if len(shown) > 1 else ""))
        row[0].set_ylabel("mean relative to ReLU")
    for ax in axes[-1]:
        ax.set_xscale("log")
        ax.set_xlabel("sharpness $b$ of softplus")
        ax.set_xticks(data["sharpness"].values, [f"{b:g}" for b in data["sharpness"].values], minor=False)
        ax.minorticks_off()
    handles = axes[0, 0].get_legend_handles_labels()[0]
    figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 6))
    style.save(figure, data, path_to_pdf, path_to_png, path_to_data)


def relative_to_relu(study: xr.Dataset) -> xr.Dataset:
    """Mean of each measure over that of ReLU on the same draws, and the ratio's 95 % interval.

    Missing where the mean of ReLU is not well known, as that of the trace inside of the zone, zero but for noise.
    """
    values = xr.concat([study[name].drop_attrs() for name in MEASURES], dim="quantity")
    values = values.assign_coords(quantity=list(MEASURES)).transpose(..., "radius", "sharpness", "draw")
    softened = values.drop_sel(sharpness=RELU)
    found = np.full((*softened.shape[:-1], 3), np.nan)
    for place in np.ndindex(softened.shape[:-1]):
        relu = values.sel(sharpness=RELU).values[place[:-1]]
        if not style.is_well_known(relu):
            continue
        pair = np.array([softened.values[place], relu])
        found[place] = style.bootstrapped(ratio_of_means, pair, "kinks")
    meanings = {
        "ratio": "mean over that of ReLU",
        "low": "lower end of the ratio's 95 % bootstrap interval over draws",
        "high": "upper end of the ratio's 95 % bootstrap interval over draws",
    }
    variables = {
        name: (softened.dims[:-1], found[..., i], {"units": "1", "long_name": meaning})
        for i, (name, meaning) in enumerate(meanings.items())
    }
    return xr.Dataset(variables, softened.isel(draw=0, drop=True).coords, study.attrs)


def draw_radii(ax: plt.Axes, ratios: xr.Dataset) -> None:
    """One line per radius over sharpness, with intervals, slightly apart."""
    count = ratios.sizes["radius"]
    for number, x in enumerate(ratios["x"].values.tolist()):
        here = ratios.isel(radius=number)
        mean = here["ratio"].values
        ax.errorbar(
            here["sharpness"].values * (1 + DODGE) ** (number - (count - 1) / 2),
            mean,
            [mean - here["low"].values, here["high"].values - mean],
            color=style.COLOURS[number % len(style.COLOURS)],
            marker=style.MARKERS[number % len(style.MARKERS)],
            linestyle=style.LINES[number % len(style.LINES)],
            linewidth=1,
            elinewidth=0.8,
            label=rf"$\log_{{10}}(r^2/r_X^2)={round(x, 2):g}$",
        )


if __name__ == "__main__":
    with job_log(snakemake.log[0], snakemake.input):
        plot_kinks(
            path_to_study=snakemake.input.studies[0],
            path_to_settings=snakemake.input.settings,
            path_to_pdf=snakemake.output.pdf,
            path_to_png=snakemake.output.png,
            path_to_data=snakemake.output.data,
        )
