"""Tr(H)/‖H‖ over the radius for other networks and datasets (Fort & Scherlis 2019, figure 4)."""

from goldilocks import pages, plotting
from goldilocks.logs import job_log


def plot_other_networks(
    paths_to_studies: list[str], path_to_settings: str, path_to_pdf: str, path_to_png: str, path_to_data: str
) -> None:
    studies, settings = pages.load_all(paths_to_studies, path_to_settings)
    figure, axes = pages.page(len(studies), settings)
    drawn = {}
    for (name, study), ax in zip(studies.items(), axes):
        study = study.sel(examples=study["examples"].max())
        data = drawn[name] = plotting.curves(study, "trace_over_norm")
        for number, (label, cell) in enumerate(pages.lines(study)):
            curve = data.sel(cell)
            smaller = curve.sel(dimension=[d for d in curve["dimension"].values if d < plotting.DIMENSION])
            plotting.draw_curve(ax, curve.sel(dimension=plotting.DIMENSION), number, label, deviations=False)
            for d in smaller["dimension"].values:
                thin = smaller.sel(dimension=d)
                ax.plot(thin["x"], thin["mean"], color=plotting.colour(number), linestyle="--", linewidth=0.7)
        ax.axhline(1.0, color="0.6", linewidth=0.5, linestyle="--", zorder=0)
        ax.axvline(0.0, color="0.6", linewidth=0.5, zorder=0)
        pages.legend_above(ax, pages.study_title(study, name))
        plotting.limit(ax, data)
    plotting.label_y(figure, r"$\mathrm{Tr}(H)/\Vert H\Vert$")
    plotting.save(figure, pages.side_by_side(drawn), path_to_pdf, path_to_png, path_to_data)


if __name__ == "__main__":
    with job_log(snakemake.log[0], snakemake.input):
        plot_other_networks(
            paths_to_studies=list(snakemake.input.studies),
            path_to_settings=snakemake.input.settings,
            path_to_pdf=snakemake.output.pdf,
            path_to_png=snakemake.output.png,
            path_to_data=snakemake.output.data,
        )
