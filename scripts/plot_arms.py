"""Accuracy over the radius where learning rate and temperature go with it, and at the best rate for each radius."""

import xarray as xr

from goldilocks_zone.figures import over_radius, panels, style
from goldilocks_zone.jobs.log import job_log

ROOM = 1.25  # for titles of two lines and the legend, relative to rows of panels


def plot_arms(
    paths_to_studies: list[str], path_to_settings: str, path_to_pdf: str, path_to_png: str, path_to_data: str
) -> None:
    studies, settings = panels.load_all(paths_to_studies, path_to_settings)
    cells = [
        (f"{title}\n{travel_budget(cell)}", cell)
        for name, study in studies.items()
        for title, cell in over_radius.cells(study, nearest_to=over_radius.DIMENSION if name == "planes" else None)
    ]
    figure, data = over_radius.draw_cells(cells, settings, min(len(cells), 3), ROOM)
    style.save(figure, data, path_to_pdf, path_to_png, path_to_data)


def travel_budget(cell: xr.Dataset) -> str:
    """Rate × steps, in units of the parameters, for each rate and rule of a cell."""
    settings = over_radius.settings_of(cell)
    rates = cell["rate"].values.tolist() if "rate" in cell.dims else [settings["rate"]]
    budgets = ", ".join(f"{rate * settings['steps']:.3g}" for rate in rates)
    if len(rates) > 1:
        budgets = f"({budgets})"
    factors = {"fixed": "", "proportional": r"$\,r/r_X$"}
    found = " or ".join(f"{budgets}{factors[rule]}" for rule in over_radius.rules(cell)["rate_rule"])
    return rf"rate $\times$ steps: {found}"


if __name__ == "__main__":
    with job_log(snakemake.log[0], snakemake.input):
        plot_arms(
            paths_to_studies=list(snakemake.input.studies),
            path_to_settings=snakemake.input.settings,
            path_to_pdf=snakemake.output.pdf,
            path_to_png=snakemake.output.png,
            path_to_data=snakemake.output.data,
        )
