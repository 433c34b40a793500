"""Top eigenvalues of G and of the Hessian along training, and those of the random model on each rung (Fort & Ganguli
2019)."""

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

from goldilocks_zone.figures import over_steps
from goldilocks_zone.figures import style as figures_style
from goldilocks_zone.jobs.log import job_log

MEASURED = {
    "gauss_newton_eigenvalue": (r"$G$", 0, True),
    "hessian_eigenvalue": (r"$H$", 1, False),
}
RUNGS = {
    "six_numbers": ("model, six numbers", 2),
    "matched_spread": ("model, matched spread", 3),
    "measured_outputs": ("model, measured outputs", 4),
}
TITLES = {"start": "start", "learnt": "after learning", "end": "end"}
ROOM = 1.3  # for what stands above the panels, relative to a row of them


def plot_spectra(
    path_to_study: str, path_to_settings: str, path_to_pdf: str, path_to_png: str, path_to_data: str
) -> None:
    study, settings = figures_style.load(path_to_study, path_to_settings, needed=("rank", "rung"))
    data = spectra(study)
    width, height = figures_style.page_size(1, settings)
    figure, axes = plt.subplots(1, data.sizes["stage"], figsize=(width, height * ROOM), sharex=True)
    for letter, ax, stage in zip("abc", axes, data["stage"].values.tolist()):
        here = data.sel(stage=stage)
        draw_spectrum(ax, here)
        ax.set_title(f"({letter}) {TITLES[stage]}, step {int(here['step'])}")
        ax.set_xlabel("rank")
    axes[0].set_ylabel("eigenvalue (nat)")
    axes[0].figure.legend(handles=axes[0].get_legend_handles_labels()[0], loc="outside upper center", ncols=3)
    figures_style.save(figure, data, path_to_pdf, path_to_png, path_to_data)


def spectra(study: xr.Dataset) -> xr.Dataset:
    """Of every stage: {variable}_mean, _low and _high of eigenvalues (rank), the model's (rung, rank) and its edges."""
    _, run = next(over_steps.runs(study))
    places = over_steps.stages(run, "gauss_newton_eigenvalue")
    parts = []
    for step in places.values():
        here, found = run.sel(step=step), xr.Dataset()
        for name in (*MEASURED, "model_eigenvalue", "model_edge", "centred_edge"):
            means = over_steps.logarithmic_means(here[name]).reset_coords(drop=True)
            found = found.merge(means.rename({part: f"{name}_{part}" for part in means.data_vars}))
        parts.append(found)
    meaning = {"units": "1", "long_name": "step of training"}
    result = xr.concat(parts, "stage").assign_coords(stage=list(places))
    classes = ((), int(run["classes"]), {"units": "1", "long_name": "number of classes"})
    return result.assign(step=("stage", list(places.values()), meaning), classes=classes)


def draw_spectrum(ax: plt.Axes, data: xr.Dataset) -> None:
    """Eigenvalues over their rank with intervals, the model's outliers beside them, and edges across."""
    for name, (label, number, filled) in MEASURED.items():
        mean = data[f"{name}_mean"]
        ax.errorbar(
            data["rank"],
            mean,
            np.clip([mean - data[f"{name}_low"], data[f"{name}_high"] - mean], 0, None),
            label=label,
            **over_steps.points(number, filled),
        )
    for rung, (label, number) in RUNGS.items():
        here, style = data.sel(rung=rung), {"color": figures_style.colour(number), "linewidth": 1.0}
        line = figures_style.LINES[number - 2]
        ax.plot(data["rank"], here["model_eigenvalue_mean"], linestyle=line, label=label, **style)
        edge = float(here["model_edge_mean"])
        ax.plot(
            data["rank"][int(data["classes"]) - 1 :],
            [edge] * len(data["rank"][int(data["classes"]) - 1 :]),
            linestyle=line,
            **style,
        )
    ax.axhline(
        float(data["centred_edge_mean"]), color="0.5", linewidth=0.7, linestyle=":", label=r"edge of centred $G$"
    )
    ax.axvline(int(data["classes"]) - 0.5, color="0.8", linewidth=0.6, zorder=0)
    shown = [data[f"{name}_mean"] for name in (*MEASURED, "model_eigenvalue", "model_edge", "centred_edge")]
    over_steps.logarithmic_axis(ax, *shown)


if __name__ == "__main__":
    with job_log(snakemake.log[0], snakemake.input):
        plot_spectra(
            path_to_study=snakemake.input.studies[0],
            path_to_settings=snakemake.input.settings,
            path_to_pdf=snakemake.output.pdf,
            path_to_png=snakemake.output.png,
            path_to_data=snakemake.output.data,
        )
