"""Tr(H)/‖H‖ over the radius for other networks and datasets (Fort & Scherlis 2019, figure 4)."""

from goldilocks_zone.figures import panels, style
from goldilocks_zone.jobs.log import job_log


def plot_other_networks(
    paths_to_studies: list[str], path_to_settings: str, path_to_pdf: str, path_to_png: str, path_to_data: str
) -> None:
    studies, settings = panels.load_all(paths_to_studies, path_to_settings)
    figure, axes = panels.page(len(studies), settings)
    drawn = {}
    for (name, study), ax in zip(studies.items(), axes):
        study = study.sel(examples=study["examples"].max())
        data = drawn[name] = style.curves(study, "trace_over_norm")
        for number, (label, cell) in enumerate(panels.lines(study)):
            curve = data.sel(cell)
            smaller = curve.sel(dimension=[d for d in curve["dimension"].values if d < style.DIMENSION])
            style.draw_curve(ax, curve.sel(dimension=style.DIMENSION), number, label, deviations=False)
            for d in smaller["dimension"].values:
                thin = smaller.sel(dimension=d)
                ax.plot(thin["x"], thin["mean"], color=style.colour(number), linestyle="--", linewidth=0.7)
        ax.axhline(1.0, color="0.6", linewidth=0.5, linestyle="--", zorder=0)
        ax.axvline(0.0, color="0.6", linewidth=0.5, zorder=0)
        panels.legend_above(ax, panels.study_title(study, name))
        style.limit(ax, data)
    style.label_y(figure, r"$\mathrm{Tr}(H)/\Vert H\Vert$")
    style.save(figure, panels.side_by_side(drawn), path_to_pdf, path_to_png, path_to_data)


if __name__ == "__main__":
    with job_log(snakemake.log[0], snakemake.input):
        plot_other_networks(
            paths_to_studies=list(snakemake.input.studies),
            path_to_settings=snakemake.input.settings,
            path_to_pdf=snakemake.output.pdf,
            path_to_png=snakemake.output.png,
            path_to_data=snakemake.output.data,
        )
