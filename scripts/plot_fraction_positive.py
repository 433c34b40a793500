"""The fraction of positive eigenvalues over the radius (Fort & Scherlis 2019, figure 3a)."""

from goldilocks_zone.figures.style import plot_radial_profile
from goldilocks_zone.jobs.log import job_log

if __name__ == "__main__":
    with job_log(snakemake.log[0], snakemake.input):
        plot_radial_profile(
            variable="fraction_positive",
            label="fraction of positive eigenvalues",
            reference=0.5,
            path_to_study=snakemake.input.studies[0],
            path_to_settings=snakemake.input.settings,
            path_to_published=snakemake.input.published,
            path_to_pdf=snakemake.output.pdf,
            path_to_png=snakemake.output.png,
            path_to_data=snakemake.output.data,
        )
