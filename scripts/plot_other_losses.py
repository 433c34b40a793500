"""Loss, Tr(H) and ‖H‖ over the radius for other networks and datasets (Fort & Scherlis 2019, figure 5)."""

import math

import matplotlib.pyplot as plt
import numpy as np

from goldilocks_zone.figures import panels
from goldilocks_zone.figures import style as figures_style
from goldilocks_zone.jobs.log import job_log
from goldilocks_zone.models import labels


def plot_other_losses(
    paths_to_studies: list[str], path_to_settings: str, path_to_pdf: str, path_to_png: str, path_to_data: str
) -> None:
    studies, settings = panels.load_all(paths_to_studies, path_to_settings)
    figure, stacks = panels.stacked(len(studies), 2, settings)
    drawn = {}
    for (name, study), (upper, lower) in zip(studies.items(), stacks):
        study = study.sel(examples=study["examples"].max())
        curves = {kind: figures_style.curves(study, kind) for kind in ("loss", "trace", "frobenius_norm")}
        for number, (label, cell) in enumerate(panels.lines(study)):
            loss = curves["loss"].sel(cell)
            depth, slope = labels.depth(loss["network"].item()), exponent(loss["x"].values, loss["mean"].values)
            fitted = "" if slope is None else f" {slope:.2f} ({depth})" if depth else f" {slope:.2f}"
            figures_style.draw_curve(upper, loss, number, label + fitted, deviations=False)
            for kind, style in (("trace", "-"), ("frobenius_norm", "--")):
                curve = curves[kind].sel(cell).sel(dimension=figures_style.DIMENSION)
                # The mean trace is zero but for noise inside of the zone.
                error = curve["standard_deviation"].fillna(0) / np.sqrt(study.sizes["draw"])
                seen = curve["mean"].where(curve["mean"] > error)
                lower.plot(curve["x"], seen, color=figures_style.colour(number), linestyle=style, linewidth=0.9)
        upper.axhline(math.log(int(study["classes"].values[0])), color="0.6", linewidth=0.5, zorder=0)
        panels.legend_above(upper, panels.study_title(study, name))
        for ax in (upper, lower):
            ax.set_yscale("log")
        means = curves["loss"]["mean"]
        upper.set_ylim(float(means.min()) / 3, float(means.max()) * 5)
        drawn |= {f"{name}_{kind}": curve for kind, curve in curves.items()}
    for upper, lower in stacks[::3]:
        upper.set_ylabel("mean loss (nat)")
        lower.set_ylabel(r"$\mathrm{Tr}(H)$, $\Vert H\Vert$ (nat)")
    styles = [plt.Line2D([], [], color="k", linestyle=style, label=text) for style, text in
              (("-", r"$\mathrm{Tr}(H)$"), ("--", r"$\Vert H\Vert$"))]  # fmt: skip
    stacks[0][1].legend(handles=styles, loc="upper left")
    figures_style.save(figure, panels.side_by_side(drawn), path_to_pdf, path_to_png, path_to_data)


def exponent(x: np.ndarray, mean: np.ndarray) -> float | None:
    """Slope of log10 loss over log10 r in the range of the power law; None with fewer than two radii there."""
    above = x >= figures_style.POWER_LAW_FROM
    return float(np.polyfit(x[above] / 2, np.log10(mean[above]), 1)[0]) if above.sum() >= 2 else None


if __name__ == "__main__":
    with job_log(snakemake.log[0], snakemake.input):
        plot_other_losses(
            paths_to_studies=list(snakemake.input.studies),
            path_to_settings=snakemake.input.settings,
            path_to_pdf=snakemake.output.pdf,
            path_to_png=snakemake.output.png,
            path_to_data=snakemake.output.data,
        )
