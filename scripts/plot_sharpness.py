"""The largest eigenvalue of the Hessian along training, for each arm of inputs and optimiser, and controls (Fort &
Ganguli 2019)."""

import json

import xarray as xr

from goldilocks_zone.figures import over_steps, panels, style
from goldilocks_zone.jobs.log import job_log

PRIMARY = "geometry"
# Of each panel: its title and the studies it shows.
PANELS = (
    ("gradient descent", (PRIMARY, "geometry_inputs")),
    ("Adam", ("geometry_adam",)),
    ("controls", (PRIMARY, "geometry_labels", "sharpness_batch", "sharpness_loss")),
)
ROOM = 0.55  # of the height of a row of panels, for the legends above them


def plot_sharpness(
    paths_to_studies: list[str], path_to_settings: str, path_to_pdf: str, path_to_png: str, path_to_data: str
) -> None:
    studies, settings = panels.load_all(paths_to_studies, path_to_settings)
    curves = {name: list(arms(study)) for name, study in studies.items()}
    shown = [(title, names) for title, names in PANELS if curves.keys() & set(names)]
    figure, axes = panels.page(len(shown), settings, share_x=False)
    figure.set_figheight(figure.get_figheight() * (1 + ROOM))
    for letter, ax, (title, names) in zip("abc", axes, shown):
        lines = [(*each, studies[name]) for name in names if name in curves for each in curves[name]]
        for number, (label, found, _) in enumerate(lines):
            over_steps.draw_over_steps(ax, found, number, label)
            steps = found["step"].values
        limits = sorted({stability(study) for *_, study in lines} - {None})
        for number, height in enumerate(limits):
            ax.axhline(height, color="0.3", linewidth=0.8, linestyle=":", label="_" * number + "2/rate")
        over_steps.step_axis(ax, steps)
        over_steps.logarithmic_axis(ax, *limits, *(found["mean"] for _, found, _ in lines))
        panels.legend_above(ax, f"({letter}) {title}", columns=1)
    axes[0].set_ylabel("largest eigenvalue (nat)")
    data = {f"{name}_{i}": found for name, each in curves.items() for i, (_, found) in enumerate(each)}
    names = {f"{name}_{i}": label for name, each in curves.items() for i, (label, _) in enumerate(each)}
    style.save(figure, panels.side_by_side(data).assign_attrs(names), path_to_pdf, path_to_png, path_to_data)


def arms(study: xr.Dataset):
    """Of every run of a study, its name and geometric means over draws with their intervals."""
    for name, run in over_steps.runs(study):
        yield (
            name.removeprefix("Adam").removeprefix(", ") or over_steps.USUAL,
            over_steps.logarithmic_means(run["sharpness"]).reset_coords(drop=True),
        )


def stability(study: xr.Dataset) -> float | None:
    """The eigenvalue above which gradient descent at the study's rate is not stable; none for Adam."""
    settings = json.loads(study.attrs["settings"])
    return 2 / settings["rate"] if settings["optimiser"] == "sgd" else None


if __name__ == "__main__":
    with job_log(snakemake.log[0], snakemake.input):
        plot_sharpness(
            paths_to_studies=list(snakemake.input.studies),
            path_to_settings=snakemake.input.settings,
            path_to_pdf=snakemake.output.pdf,
            path_to_png=snakemake.output.png,
            path_to_data=snakemake.output.data,
        )
