"""Trace, norm and their ratio for softplus of increasing sharpness, relative to ReLU, whose Hessian omits the kinks."""

import xarray as xr

from goldilocks_zone.figures import curves, panels, profiles, style
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies

FIGURE = {"id": "kinks", "studies": ["kinks"], "axis": "radius", "needs": ["sharpness"]}

RELU = 0  # value of sharpness that denotes ReLU
MEASURES = {
    "trace": r"$\mathrm{Tr}(H)$",
    "frobenius_norm": r"$\Vert H\Vert$",
    "trace_over_norm": r"$\mathrm{Tr}(H)/\Vert H\Vert$",
}


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    ((name, study),) = studies.items()
    if RELU not in study["sharpness"].values or study.sizes["sharpness"] < 2:
        raise ValueError(
            f"the study {name} has no sharpness 0 (ReLU) to compare with others: vary sharpness over 0 and other values"
        )
    data = relative_to_relu(study.sel(dimension=profiles.shown_dimension(study), examples=study["examples"].max()))
    shown = panels.cells(study)
    figure, axes = panels.grid(len(shown), len(MEASURES), settings, room=1.2, sharex=True)
    for row, cell in zip(axes, shown):
        for ax, (measure, label) in zip(row, MEASURES.items()):
            ax.axhline(1, color="0.4", linewidth=0.6, zorder=0)
            if measure == "trace":
                ax.axhspan(0.9, 1.1, color="0.88", linewidth=0, zorder=0)  # the tolerance of claim by7
            ratios = data.sel(cell).sel(quantity=measure)
            for number, x in enumerate(ratios["x"].values.tolist()):
                here, radius = ratios.isel(radius=number), rf"$\log_{{10}}(r^2/r_X^2)={round(x, 2):g}$"
                places = here["sharpness"].values * 1.04 ** curves.centred(number, ratios.sizes["radius"])
                look = style.look(number, linestyle=style.line(number), linewidth=1, elinewidth=0.8, label=radius)
                ax.errorbar(places, here["ratio"], curves.bars(here, "ratio"), **look)
            ax.set_title(label + (f", {panels.cell_title(cell, shown)}" if len(shown) > 1 else ""))
        row[0].set_ylabel("mean relative to ReLU")
    for ax in axes[-1]:
        ax.set(xscale="log", xlabel="sharpness $b$ of softplus")
        ax.set_xticks(data["sharpness"].values, [f"{b:g}" for b in data["sharpness"].values], minor=False)
        ax.minorticks_off()
    panels.legend_on_top(figure, axes[0, 0], 6)
    return figure, data


def relative_to_relu(study: xr.Dataset) -> xr.Dataset:
    """Mean of each measure for softplus divided by its mean for ReLU on the same draws, with 95 % intervals.

    The variables ratio, low and high have the axes (quantity, …, radius, sharpness). The labels along quantity are the
    names in MEASURES. The ratio is NaN where the mean for ReLU is poorly known, in the sense of
    `curves.ratios_of_means`. An example is the trace inside the zone, which is zero up to noise.
    """
    values = xr.concat([study[name].drop_attrs() for name in MEASURES], dim="quantity")
    values = values.assign_coords(quantity=list(MEASURES)).transpose(..., "radius", "sharpness", "draw")
    relu, softened = values.sel(sharpness=RELU, drop=True), values.drop_sel(sharpness=RELU)
    return curves.ratios_of_means(softened, relu, "mean over that of ReLU", "kinks").assign_attrs(study.attrs)
