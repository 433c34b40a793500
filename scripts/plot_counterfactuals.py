"""κ over the scale of the parameters, as it is and with one factor of the Hessian frozen as it is at α = 1."""

import matplotlib.pyplot as plt
import xarray as xr

from goldilocks_zone.figures import over_scale, panels, style
from goldilocks_zone.jobs.log import job_log

CURVES = {
    "trace_over_norm": "as it is",
    "frozen_softmax": r"$p$ frozen in $G$",
    "frozen_residual": r"$p-y$ frozen in $H'$",
    "frozen_scale": r"scale of logit gradients frozen in $G$",
}


def plot_counterfactuals(
    paths_to_studies: list[str], path_to_settings: str, path_to_pdf: str, path_to_png: str, path_to_data: str
) -> None:
    studies, settings = over_scale.load_all(paths_to_studies, path_to_settings)
    here = {name: over_scale.first_cell(over_scale.parameters_rescaled(study)) for name, study in studies.items()}
    data = {name: over_scale.curves(cell, {name: cell[name] for name in CURVES}) for name, cell in here.items()}
    figure = over_scale.stacks(studies, settings, [r"$\kappa$"], draw_curves, data)
    style.save(figure, panels.side_by_side(data), path_to_pdf, path_to_png, path_to_data)


def draw_curves(stack: list[plt.Axes], data: xr.Dataset) -> None:
    """One curve for what is frozen."""
    (ax,) = stack
    for number, (name, label) in enumerate(CURVES.items()):
        over_scale.draw(ax, data, name, number, label, style.LINES[number])
    ax.axhline(1, color="0.6", linewidth=0.5, linestyle="--", zorder=0)
    over_scale.limit(ax, data, *CURVES)


if __name__ == "__main__":
    with job_log(snakemake.log[0], snakemake.input):
        plot_counterfactuals(
            paths_to_studies=list(snakemake.input.studies),
            path_to_settings=snakemake.input.settings,
            path_to_pdf=snakemake.output.pdf,
            path_to_png=snakemake.output.png,
            path_to_data=snakemake.output.data,
        )
