"""Does one variable, the logits' deviation σ_z, order the zone? Tr(H)/‖H‖ over r/r_X and over σ_z (by2)."""

import numpy as np
import xarray as xr

from goldilocks_zone.figures import panels
from goldilocks_zone.figures import style as figures_style
from goldilocks_zone.jobs.log import job_log

SHOWN = 6  # of log10 σ_z: outside of it there is no zone


def plot_collapse(
    paths_to_studies: list[str], path_to_settings: str, path_to_pdf: str, path_to_png: str, path_to_data: str
) -> None:
    studies, settings = panels.load_all(paths_to_studies, path_to_settings)
    chosen = {name: families(name, study) for name, study in studies.items()}
    rows = [(title, curves) for parts in chosen.values() for title, curves in parts]
    figure, axes = panels.page(2 * len(rows), settings, len(rows), share_x=False)
    drawn = {}
    for column, (title, curves) in enumerate(rows):
        over_radius, over_spread = axes[column], axes[len(rows) + column]
        for number, (label, curve) in enumerate(curves):
            mean = curve["trace_over_norm"].mean("draw")
            spread = np.log10(curve["logits_std"]).mean("draw")
            style = {"color": figures_style.colour(number), "marker": figures_style.marker(number), "markersize": 2.2}
            over_radius.plot(curve["x"], mean, label=label, **style)
            over_spread.plot(spread, mean, **style)
            drawn[f"{column}_{label}_trace_over_norm"] = mean.reset_coords(drop=True)
            drawn[f"{column}_{label}_log10_logits_std"] = spread.reset_coords(drop=True)
        over_radius.set_xlabel(figures_style.X_LABEL)
        over_spread.set_xlabel(r"$\log_{10}\sigma_z$")
        over_spread.set_xlim(-SHOWN, SHOWN)
        panels.legend_above(over_radius, title)
    figures_style.label_y(figure, r"$\mathrm{Tr}(H)/\Vert H\Vert$")
    figures_style.save(figure, xr.Dataset(drawn), path_to_pdf, path_to_png, path_to_data)


def families(name: str, study: xr.Dataset) -> list[tuple[str, list[tuple[str, xr.Dataset]]]]:
    """Families of curves that may collapse, each with its title: over networks, or over what a study varies."""
    study = study.sel(dimension=figures_style.DIMENSION, examples=study["examples"].max()).isel(dataset=0, subspace=0)
    if name == "networks":
        return [("networks", [(str(label), study.sel(network=label)) for label in study["network"].values])]
    study = study.isel(network=0).sel(bias_directions=False)
    return [
        (title, [(str(value).replace("_", " "), study.sel({axis: value, other: kept})) for value in study[axis].values])
        for title, axis, other, kept in (
            ("preprocessing", "inputs", "metric", "shell"),
            ("metric", "metric", "inputs", "standardised"),
        )
    ]


if __name__ == "__main__":
    with job_log(snakemake.log[0], snakemake.input):
        plot_collapse(
            paths_to_studies=list(snakemake.input.studies),
            path_to_settings=snakemake.input.settings,
            path_to_pdf=snakemake.output.pdf,
            path_to_png=snakemake.output.png,
            path_to_data=snakemake.output.data,
        )
