"""The share of the gradient's power along the top eigenvectors of G, over their rank and over training (Fort & Ganguli
2019)."""

import matplotlib.pyplot as plt
import xarray as xr
from matplotlib.ticker import MaxNLocator

from goldilocks_zone.claims.estimators import local_geometry
from goldilocks_zone.figures import curves, panels
from goldilocks_zone.figures import over_steps as figures_over_steps
from goldilocks_zone.figures import style as figures_style
from goldilocks_zone.jobs.log import job_log

# Of each gradient: its name and line.
SOURCES = {
    "spectrum": ("the same examples", "-"),
    "other_batch": ("other examples", "--"),
    "held_out": ("held-out examples", "-."),
    "model_labels": ("labels from the outputs", ":"),
    "permuted": ("residuals permuted", (0, (1, 3))),
}
NULL = r"null $\sum_{i\leq m}\lambda_i/\mathrm{Tr}(G)$"
MODEL = "random model"
ROOM = 1.45  # for what stands above the panels, relative to a row of them


def plot_confined(
    paths_to_studies: list[str], path_to_settings: str, path_to_pdf: str, path_to_png: str, path_to_data: str
) -> None:
    studies, settings = panels.load_all(paths_to_studies, path_to_settings)
    runs = {name: run for study in studies.values() for name, run in figures_over_steps.runs(study)}
    width, height = figures_style.page_size(1, settings)
    figure, (left, right) = plt.subplots(1, 2, figsize=(width, height * ROOM), sharey=True)
    ranked, along = over_rank(next(iter(runs.values()))), {name: over_steps(run) for name, run in runs.items()}
    draw_over_rank(left, ranked)
    draw_over_steps(right, along)
    right.set_xlabel("step")
    left.set_ylim(0, 1.02)
    left.set_ylabel("share of the squared gradient")
    panels.legend_above(left, "(a) after the first steps", columns=2)
    panels.legend_above(right, "(b) along the top $C-1$", columns=2)
    data = panels.side_by_side({"ranks": ranked} | {f"run_{i}": each for i, each in enumerate(along.values())})
    data = data.assign_attrs({f"run_{i}": name for i, name in enumerate(along)})
    figures_style.save(figure, data, path_to_pdf, path_to_png, path_to_data)


def over_rank(run: xr.Dataset) -> xr.Dataset:
    """Shares in the top m eigenvectors, averaged over steps after the first ones: {part} (gradient_of, rank) and
    null_{part} (rank); and what the random model says of the C − 1 outliers' space, model."""
    classes, run = int(run["classes"]), run.reset_coords(drop=True)
    powers = figures_over_steps.measured(run, "gradient_power")
    powers = powers.sel(step=powers["step"] >= local_geometry.EARLY * int(run["step"].max()))
    here = run.sel(step=powers["step"])
    shares = powers.cumsum("rank").mean("step")
    null = (here["gauss_newton_eigenvalue"].cumsum("rank") / here["gauss_newton_full_trace"]).mean("step")
    found = curves.means(shares.assign_attrs(units="1", long_name="share of the squared gradient"))
    nulls = curves.means(null.assign_attrs(units="1", long_name="share of the trace of G"))
    found = found.merge(nulls.rename({part: f"null_{part}" for part in nulls.data_vars}))
    model = here["model_power"].sel(rung="measured_outputs", drop=True).mean(("step", "draw"))
    meaning = (
        "share of the squared gradient in the outliers' space that the random model predicts from measured outputs"
    )
    found["model"] = model.assign_attrs(units="1", long_name=meaning)
    return found.assign(classes=((), classes, {"units": "1", "long_name": "number of classes"}))


def over_steps(run: xr.Dataset) -> xr.Dataset:
    """Shares in the top C − 1 eigenvectors over the step, and their null."""
    top, run = slice(0, int(run["classes"]) - 1), run.reset_coords(drop=True)
    powers = figures_over_steps.measured(run, "gradient_power").sel(gradient_of="spectrum", drop=True)
    here = run.sel(step=powers["step"])
    null = here["gauss_newton_eigenvalue"].isel(rank=top).sum("rank") / here["gauss_newton_full_trace"]
    found = curves.means(
        powers.isel(rank=top).sum("rank").assign_attrs(units="1", long_name="share of the squared gradient")
    )
    nulls = curves.means(null.assign_attrs(units="1", long_name="share of the trace of G"))
    return found.merge(nulls.rename({part: f"null_{part}" for part in nulls.data_vars}))


def draw_over_rank(ax: plt.Axes, data: xr.Dataset) -> None:
    ranks = data["rank"].values
    for number, (source, (label, line)) in enumerate(SOURCES.items()):
        here = data.sel(gradient_of=source)
        style = {"color": figures_style.colour(number), "linestyle": line}
        ax.plot(ranks, here["mean"], label=label, linewidth=1.1, **style)
        ax.fill_between(ranks, here["low"], here["high"], color=figures_style.colour(number), alpha=0.2, linewidth=0)
    ax.plot(ranks, data["null_mean"], color="0.4", linewidth=1.0, label=NULL)
    outliers = int(data["classes"]) - 1
    ax.plot([outliers], [float(data["model"])], "k*", markersize=6, label=MODEL)
    ax.axvline(outliers, color="0.8", linewidth=0.6, zorder=0)
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.set_xlabel("number $m$ of eigenvectors")


def draw_over_steps(ax: plt.Axes, runs: dict[str, xr.Dataset]) -> None:
    for number, (name, data) in enumerate(runs.items()):
        label = "original labels" if name == figures_over_steps.USUAL else name
        figures_over_steps.draw_over_steps(ax, data, number, label)
        nulls = data[["null_mean", "null_low", "null_high"]].rename(
            {f"null_{part}": part for part in ("mean", "low", "high")}
        )
        figures_over_steps.draw_over_steps(ax, nulls, number, f"null, {label}", linestyle="--", markerfacecolor="white")
    figures_over_steps.step_axis(ax, data["step"].values)


if __name__ == "__main__":
    with job_log(snakemake.log[0], snakemake.input):
        plot_confined(
            paths_to_studies=list(snakemake.input.studies),
            path_to_settings=snakemake.input.settings,
            path_to_pdf=snakemake.output.pdf,
            path_to_png=snakemake.output.png,
            path_to_data=snakemake.output.data,
        )
