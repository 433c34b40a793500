"""How the spread of logits, the length of their gradients and the norm of the weights grow (Fort & Ganguli 2019)."""

from goldilocks import pages, plotting, trajectories
from goldilocks.logs import job_log

MEASURES = {
    "logits_std": r"deviation of the logits $\sigma_z$",
    "gradient_length": r"length of logit gradients",
    "norm": r"norm of the weights",
}


def plot_growth(
    paths_to_studies: list[str], path_to_settings: str, path_to_pdf: str, path_to_png: str, path_to_data: str
) -> None:
    studies, settings = pages.load_all(paths_to_studies, path_to_settings)
    runs = {name: run for study in studies.values() for name, run in trajectories.runs(study)}
    data = {}
    figure, axes = pages.page(len(MEASURES), settings, share_x=False)
    for letter, ax, (variable, label) in zip("abc", axes, MEASURES.items()):
        for number, (name, run) in enumerate(runs.items()):
            found = trajectories.logarithmic_means(trajectories.measured(run, variable)).reset_coords(drop=True)
            shown = "original labels" if name == trajectories.USUAL else name
            trajectories.draw_over_steps(ax, found, number, shown, linestyle=plotting.LINES[number])
            data[f"{variable}_{number}"] = found
        trajectories.step_axis(ax, run["step"].values)
        trajectories.logarithmic_axis(ax, *(data[f"{variable}_{number}"]["mean"] for number in range(len(runs))))
        ax.set_title(f"({letter}) {label}")
    axes[0].figure.legend(handles=axes[0].get_legend_handles_labels()[0], loc="outside upper center", ncols=2)
    whole = pages.side_by_side(data).assign_attrs({f"run_{i}": name for i, name in enumerate(runs)})
    plotting.save(figure, whole, path_to_pdf, path_to_png, path_to_data)


if __name__ == "__main__":
    with job_log(snakemake.log[0], snakemake.input):
        plot_growth(
            paths_to_studies=list(snakemake.input.studies),
            path_to_settings=snakemake.input.settings,
            path_to_pdf=snakemake.output.pdf,
            path_to_png=snakemake.output.png,
            path_to_data=snakemake.output.data,
        )
