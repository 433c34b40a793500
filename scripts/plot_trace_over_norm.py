"""Tr(H)/‖H‖ over the radius (Fort & Scherlis 2019, figure 3b)."""

from goldilocks import plotting
from goldilocks.logs import job_log


def plot_trace_over_norm(
    path_to_study: str,
    path_to_settings: str,
    path_to_published: str,
    path_to_pdf: str,
    path_to_png: str,
    path_to_data: str,
) -> None:
    study, settings = plotting.load(path_to_study, path_to_settings)
    figure, axes, data = plotting.radial_profile(study, "trace_over_norm", settings, path_to_published)
    for ax, _ in axes:
        ax.axhline(1, color="0.6", linewidth=0.5, linestyle="--", zorder=0)
        plotting.limit(ax, data)
    axes[0][0].set_ylabel(r"$\mathrm{Tr}(H)/\Vert H\Vert$")
    plotting.save(figure, data, path_to_pdf, path_to_png, path_to_data)


if __name__ == "__main__":
    with job_log(snakemake.log[0]):
        plot_trace_over_norm(
            path_to_study=snakemake.input.study,
            path_to_settings=snakemake.input.settings,
            path_to_published=snakemake.input.published,
            path_to_pdf=snakemake.output.pdf,
            path_to_png=snakemake.output.png,
            path_to_data=snakemake.output.data,
        )
