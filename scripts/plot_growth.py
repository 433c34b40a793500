"""How the spread of logits, the length of their gradients and the norm of the weights grow (Fort & Ganguli 2019)."""

from goldilocks_zone.figures import over_steps, panels, style
from goldilocks_zone.jobs.log import job_log

MEASURES = {
    "logits_std": r"deviation of the logits $\sigma_z$",
    "gradient_length": r"length of logit gradients",
    "norm": r"norm of the weights",
}


def plot_growth(
    paths_to_studies: list[str], path_to_settings: str, path_to_pdf: str, path_to_png: str, path_to_data: str
) -> None:
    studies, settings = panels.load_all(paths_to_studies, path_to_settings)
    runs = {name: run for study in studies.values() for name, run in over_steps.runs(study)}
    data = {}
    figure, axes = panels.page(len(MEASURES), settings, share_x=False)
    for letter, ax, (variable, label) in zip("abc", axes, MEASURES.items()):
        for number, (name, run) in enumerate(runs.items()):
            found = over_steps.logarithmic_means(over_steps.measured(run, variable)).reset_coords(drop=True)
            shown = "original labels" if name == over_steps.USUAL else name
            over_steps.draw_over_steps(ax, found, number, shown, linestyle=style.LINES[number])
            data[f"{variable}_{number}"] = found
        over_steps.step_axis(ax, run["step"].values)
        over_steps.logarithmic_axis(ax, *(data[f"{variable}_{number}"]["mean"] for number in range(len(runs))))
        ax.set_title(f"({letter}) {label}")
    axes[0].figure.legend(handles=axes[0].get_legend_handles_labels()[0], loc="outside upper center", ncols=2)
    whole = panels.side_by_side(data).assign_attrs({f"run_{i}": name for i, name in enumerate(runs)})
    style.save(figure, whole, path_to_pdf, path_to_png, path_to_data)


if __name__ == "__main__":
    with job_log(snakemake.log[0], snakemake.input):
        plot_growth(
            paths_to_studies=list(snakemake.input.studies),
            path_to_settings=snakemake.input.settings,
            path_to_pdf=snakemake.output.pdf,
            path_to_png=snakemake.output.png,
            path_to_data=snakemake.output.data,
        )
