"""Initial loss over the number of positive eigenvalues, and over other measures (Fort & Scherlis 2019, figure 6d)."""

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.ticker import MaxNLocator

from goldilocks_zone.claims.curves import LEAST_CORRELATED, partial_correlation
from goldilocks_zone.figures import style
from goldilocks_zone.jobs.log import job_log
from goldilocks_zone.statistics import bands, estimates

MEASURES = {
    "positive_eigenvalues": "number of positive eigenvalues",
    "trace_over_norm": r"$\mathrm{Tr}(H)/\Vert H\Vert$",
    "logits_std": r"deviation of logits $\sigma_z$",
}
GIVEN = "logits_std"
PLACES = 50  # at which the regression's band is drawn
ROOM = 1.25  # for what stands above the panels, relative to a row of them


def plot_selection(
    path_to_study: str, path_to_settings: str, path_to_pdf: str, path_to_png: str, path_to_data: str
) -> None:
    study, settings = style.load(path_to_study, path_to_settings)
    data = points(study)
    shown = style.cells(study)
    width, height = style.page_size(len(shown), settings)
    size = (width, height * ROOM)
    figure, axes = plt.subplots(len(shown), len(MEASURES), figsize=size, squeeze=False, sharex="col", sharey=True)
    for row, cell in zip(axes, shown):
        for number, (ax, name) in enumerate(zip(row, MEASURES)):
            here = data.sel(cell)
            draw_points(ax, here[name].values, here["loss"].values, number)
            ax.set_title("\n".join(correlations(here, name)), fontsize=plt.rcParams["legend.fontsize"])
        row[0].set_ylabel("initial loss (nat)")
        if len(shown) > 1:
            row[0].annotate(style.title(cell, shown), (0.03, 0.03), xycoords="axes fraction")
    for ax, label in zip(axes[-1], MEASURES.values()):
        ax.set_xlabel(label)
    axes[-1, 0].xaxis.set_major_locator(MaxNLocator(6, integer=True))
    style.save(figure, data, path_to_pdf, path_to_png, path_to_data)


def points(study: xr.Dataset) -> xr.Dataset:
    """Loss and measures of each initialisation at the radius nearest to r_X, for the largest d and N."""
    d = int(study["dimension"].max())
    here = study.isel(radius=int(np.abs(study["x"].values).argmin())).sel(dimension=d, examples=study["examples"].max())
    data = here[["loss", *(name for name in MEASURES if name in here)]]
    data["positive_eigenvalues"] = (here["fraction_positive"] * d).round()
    data["positive_eigenvalues"].attrs = {"units": "1", "long_name": f"number of positive eigenvalues of H_d, d = {d}"}
    return data


def draw_points(ax: plt.Axes, x: np.ndarray, loss: np.ndarray, number: int) -> None:
    """One point per initialisation, with the regression line and the pointwise 95 % band of its mean."""
    colour = style.COLOURS[number]
    ax.plot(x, loss, linestyle="none", marker=style.MARKERS[number], markersize=3, color=colour, alpha=0.6, mew=0)
    places = np.linspace(x.min(), x.max(), PLACES)
    try:
        line, low, high = bands.regression_band(x, loss, places, style.LEVEL)
    except estimates.TooFewDraws:
        return
    ax.plot(places, line, color="k")
    ax.fill_between(places, low, high, color="0.3", alpha=0.25, linewidth=0)


def correlations(here: xr.Dataset, name: str) -> list[str]:
    """Correlation of a measure with the loss, and the partial one given σ_z, with their 95 % intervals."""
    if here.sizes["draw"] < LEAST_CORRELATED:
        return [f"fewer than {LEAST_CORRELATED} initialisations"]
    lines = []
    for words, given in (("correlation", []), (r"given $\sigma_z$", [GIVEN])):
        if name in given:
            continue
        rows = np.array([here[variable].values for variable in (name, "loss", *given)])
        value, low, high = style.bootstrapped(partial_correlation, rows, "selection", name)
        lines.append(f"{words} {value:.2f} [{low:.2f}, {high:.2f}]".replace("-", "−"))
    return lines


if __name__ == "__main__":
    with job_log(snakemake.log[0], snakemake.input):
        plot_selection(
            path_to_study=snakemake.input.studies[0],
            path_to_settings=snakemake.input.settings,
            path_to_pdf=snakemake.output.pdf,
            path_to_png=snakemake.output.png,
            path_to_data=snakemake.output.data,
        )
