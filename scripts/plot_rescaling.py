"""κ and the fraction of positive eigenvalues over the scale of parameters, over temperature, and over both."""

import matplotlib.pyplot as plt
import xarray as xr

from goldilocks_zone.figures import over_scale, panels, style
from goldilocks_zone.jobs.log import job_log

HEIGHTS = [r"$\kappa$", "fraction positive"]
LINES = {"parameters": "-", "temperature": "--", "both": ":"}


def plot_rescaling(
    paths_to_studies: list[str], path_to_settings: str, path_to_pdf: str, path_to_png: str, path_to_data: str
) -> None:
    studies, settings = over_scale.load_all(paths_to_studies, path_to_settings)
    data = {name: shown(study) for name, study in studies.items()}
    figure = over_scale.stacks(studies, settings, HEIGHTS, draw_ways, data)
    style.save(figure, panels.side_by_side(data), path_to_pdf, path_to_png, path_to_data)


def shown(study: xr.Dataset) -> xr.Dataset:
    """Curves (rescaled, radius) of both measures."""
    here = over_scale.first_cell(study)
    if "rescaled" not in here.dims:
        here = here.expand_dims(rescaled=["parameters"])
    return over_scale.curves(here, {name: here[name] for name in ("trace_over_norm", "fraction_positive")})


def draw_ways(stack: list[plt.Axes], data: xr.Dataset) -> None:
    """One curve for each way to rescale; what lies below others is drawn wider."""
    for ax, name, reference in zip(stack, ("trace_over_norm", "fraction_positive"), (1.0, 0.5)):
        for number, way in enumerate(data["rescaled"].values.tolist()):
            over_scale.draw(ax, data.sel(rescaled=way), name, number, over_scale.WAYS[way], LINES[way])
        ax.axhline(reference, color="0.6", linewidth=0.5, linestyle="--", zorder=0)
        ax.axvline(0, color="0.6", linewidth=0.5, zorder=0)
        over_scale.limit(ax, data, name)


if __name__ == "__main__":
    with job_log(snakemake.log[0], snakemake.input):
        plot_rescaling(
            paths_to_studies=list(snakemake.input.studies),
            path_to_settings=snakemake.input.settings,
            path_to_pdf=snakemake.output.pdf,
            path_to_png=snakemake.output.png,
            path_to_data=snakemake.output.data,
        )
