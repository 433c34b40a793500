"""Mean loss over the radius with its power law (Fort & Scherlis 2019, figure 5a)."""

import json
import math

import matplotlib.pyplot as plt
import numpy as np

from goldilocks_zone.figures import style
from goldilocks_zone.jobs.log import job_log
from goldilocks_zone.models import labels


def plot_loss(path_to_study: str, path_to_settings: str, path_to_pdf: str, path_to_png: str, path_to_data: str) -> None:
    study, settings = style.load(path_to_study, path_to_settings)
    data = style.curves(study, "loss")
    figure, axes = style.panels(study, settings)
    for ax, cell in axes:
        for number, count in enumerate(style.numbers_of_examples(study)):
            curve = data.sel(cell).sel(examples=count)
            style.draw_curve(ax, curve, number, f"$N={count}$")
        if json.loads(study.attrs["settings"])["loss"] == "cross_entropy":
            classes = int(study["classes"].sel(dataset=cell["dataset"]))
            chance, x_left = math.log(classes), study["x"].values[0]
            ax.axhline(chance, color="0.6", linewidth=0.5, zorder=0)
            ax.annotate(rf"$\ln {classes}$", (x_left, chance), xytext=(0, 3), textcoords="offset points")
        x, mean = study["x"].values, data.sel(cell).sel(examples=max(study["examples"].values))["mean"].values
        above = x >= style.POWER_LAW_FROM
        if above.sum() >= 2:
            slope, intercept = np.polyfit(x[above] / 2, np.log10(mean[above]), 1)
            line = 10 ** (intercept + slope * x / 2)
            shown = line > mean.min() / 3
            ax.plot(x[shown], line[shown], color="k", linestyle=":", linewidth=0.9)
            depth = labels.depth(cell["network"])
            exponent = rf"$\propto r^{{{slope:.2f}}}$" + (f", $n_L={depth}$" if depth else "")
            place = {"xy": (0.97, 0.17), "xycoords": "axes fraction", "ha": "right"}
            ax.annotate(exponent, **place)
        ax.set_yscale("log")
        fit = plt.Line2D([], [], color="k", linestyle=":", linewidth=0.9, label="power law fitted")
        handles = [*ax.get_legend_handles_labels()[0], *([fit] if above.sum() >= 2 else [])]
        style.legend(ax, handles, loc="upper left", bbox_to_anchor=(0.0, 0.95))
    style.label_y(figure, "mean loss (nat)")
    style.save(figure, data, path_to_pdf, path_to_png, path_to_data)


if __name__ == "__main__":
    with job_log(snakemake.log[0], snakemake.input):
        plot_loss(
            path_to_study=snakemake.input.studies[0],
            path_to_settings=snakemake.input.settings,
            path_to_pdf=snakemake.output.pdf,
            path_to_png=snakemake.output.png,
            path_to_data=snakemake.output.data,
        )
