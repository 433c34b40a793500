"""Accuracy over the radius on other data, on planes and on spheres."""

import math

from goldilocks_zone.figures import over_radius, style
from goldilocks_zone.jobs.log import job_log

ROOM = 1.12  # for the legend above the panels, relative to rows of them


def plot_other_accuracy(
    path_to_study: str, path_to_settings: str, path_to_pdf: str, path_to_png: str, path_to_data: str
) -> None:
    study, settings = style.load(path_to_study, path_to_settings)
    cells = over_radius.cells(study)
    if study.sizes["dataset"] == 1:
        dataset = over_radius.dataset_name(study["dataset"].values[0])
        cells = [(f"{dataset}, {title}", cell) for title, cell in cells]
    figure, data = over_radius.draw_cells(cells, settings, math.ceil(math.sqrt(len(cells))), ROOM)
    style.save(figure, data, path_to_pdf, path_to_png, path_to_data)


if __name__ == "__main__":
    with job_log(snakemake.log[0], snakemake.input):
        plot_other_accuracy(
            path_to_study=snakemake.input.studies[0],
            path_to_settings=snakemake.input.settings,
            path_to_pdf=snakemake.output.pdf,
            path_to_png=snakemake.output.png,
            path_to_data=snakemake.output.data,
        )
