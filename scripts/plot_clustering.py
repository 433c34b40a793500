"""How gradients of logits cluster, for several datasets, networks and arms, along training (Fort & Ganguli 2019)."""

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

from goldilocks_zone.figures import curves, over_steps, panels, style
from goldilocks_zone.jobs.log import job_log

# Of each pair: its name, number of colour and marker, and filling.
PAIRS = {
    "same_logit_same_class": ("same logit, same class", 0, True),
    "same_logit": ("same logit, any classes", 1, True),
    "other_logit": ("different logits", 2, True),
    "other_logit_absolute": ("different logits, absolute", 2, False),
}
INPUTS = {"same_class": ("inputs, same class", 3, True), "any_classes": ("inputs, any classes", 3, False)}
TITLES = {"start": "start", "learnt": "after learning", "end": "end"}
ROW_CM, ABOVE_CM = 0.75, 2.6
APART = 0.13  # between the points of one run, whose rows are 1 apart


def plot_clustering(
    paths_to_studies: list[str], path_to_settings: str, path_to_pdf: str, path_to_png: str, path_to_data: str
) -> None:
    studies, settings = panels.load_all(paths_to_studies, path_to_settings)
    data = cosines(studies)
    width, _ = style.page_size(1, settings)
    height = (ABOVE_CM + ROW_CM * data.sizes["run"]) / style.CENTIMETRES_PER_INCH
    figure, axes = plt.subplots(1, data.sizes["stage"], figsize=(width, height), sharex=True, sharey=True)
    for letter, ax, stage in zip("abc", axes, data["stage"].values.tolist()):
        draw_stage(ax, data.sel(stage=stage))
        ax.set_title(f"({letter}) {TITLES[stage]}")
        ax.set_xlabel("mean cosine")
    axes[0].set_yticks(range(data.sizes["run"]), data["run"].values.tolist())
    axes[0].set_ylim(data.sizes["run"] - 0.5, -0.5)
    figure.legend(handles=axes[0].get_legend_handles_labels()[0], loc="outside upper center", ncols=3)
    style.save(figure, data, path_to_pdf, path_to_png, path_to_data)


def cosines(studies: dict[str, xr.Dataset]) -> xr.Dataset:
    """Mean cosines over draws with their intervals: mean, low and high (run, stage, pair)."""
    parts = []
    for study in studies.values():
        for name, run in over_steps.runs(study):
            of_logits = run["clustering"].sel(layers="all", drop=True).rename(pair="of")
            both = xr.concat([of_logits, run["input_cosine"].rename(input_pair="of")], "of")
            places = over_steps.stages(run, "gradient_power")
            values = xr.concat([both.sel(step=step, drop=True) for step in places.values()], "stage")
            values = values.assign_coords(stage=list(places)).reset_coords(drop=True)
            parts.append(values.expand_dims(run=[name]))
    # Studies have different numbers of draws.
    found = xr.concat([curves.means(each.assign_attrs(units="1", long_name="mean cosine")) for each in parts], "run")
    return found[["mean", "low", "high"]]


def draw_stage(ax: plt.Axes, data: xr.Dataset) -> None:
    """A row of points for each run."""
    rows = np.arange(data.sizes["run"])
    looks = {**PAIRS, **INPUTS}
    for i, (of, (label, number, filled)) in enumerate(looks.items()):
        here = data.sel(of=of)
        ax.errorbar(
            here["mean"],
            rows + APART * (i - (len(looks) - 1) / 2),
            xerr=np.clip([here["mean"] - here["low"], here["high"] - here["mean"]], 0, None),
            label=label,
            **over_steps.points(number, filled),
        )
    ax.axvline(0, color="0.6", linewidth=0.5, zorder=0)
    ax.set_xlim(-0.25, 1.05)
    for row in rows[1:]:
        ax.axhline(row - 0.5, color="0.9", linewidth=0.5, zorder=0)


if __name__ == "__main__":
    with job_log(snakemake.log[0], snakemake.input):
        plot_clustering(
            paths_to_studies=list(snakemake.input.studies),
            path_to_settings=snakemake.input.settings,
            path_to_pdf=snakemake.output.pdf,
            path_to_png=snakemake.output.png,
            path_to_data=snakemake.output.data,
        )
