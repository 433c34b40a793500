"""κ = Tr(G)/‖G‖ of the random model over the spread of the logits, and beside that of networks over the radius (Fort &
Ganguli 2019)."""

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

from goldilocks_zone.figures import curves
from goldilocks_zone.figures import style as figures_style
from goldilocks_zone.jobs.log import job_log
from goldilocks_zone.randomness import stream
from goldilocks_zone.theory import random_model

EXAMPLES = 1000  # of the claims
MARGIN = 0.08  # above and below means, relative to their range
SPREADS = np.geomspace(1e-2, 1e3, 41)
# Ratios σ_c/σ_E that the left panel has a curve for, beside the one measured near r_X.
RATIOS = (0.0, 0.1, 10.0)
MEANINGS = {
    "kappa": "κ(H) of the network",
    "gauss_newton_kappa": "κ(G) of the network",
    "model_kappa": "κ(G) of the random model with the network's six numbers",
}
LOOKS = {
    "kappa": (r"$H$, network", 0, "-"),
    "gauss_newton_kappa": (r"$G$, network", 1, "--"),
    "model_kappa": (r"$G$, random model", 2, ":"),
}


def plot_model_kappa(
    path_to_study: str, path_to_settings: str, path_to_pdf: str, path_to_png: str, path_to_data: str
) -> None:
    study, settings = figures_style.load(path_to_study, path_to_settings)
    data = beside_the_model(study)
    width, height = figures_style.page_size(1, settings)
    figure, (left, right) = plt.subplots(1, 2, figsize=(width, height * 1.2))
    draw_over_spread(left, data)
    draw_over_radius(right, data)
    figures_style.save(figure, data, path_to_pdf, path_to_png, path_to_data)


def beside_the_model(study: xr.Dataset) -> xr.Dataset:
    """model_over_spread (ratio, spread) on planes of the claims' dimension; {name}_mean, _low and _high (radius)."""
    count = EXAMPLES if EXAMPLES in study["examples"].values else int(study["examples"].max())
    d = figures_style.shown_dimension(study)
    run = curves.primary(study).isel(subspace=0).sel(examples=count, dimension=d)
    classes = int(run["classes"])
    # Both deviations are of one entry of a gradient, as the model has them.
    ratios = [
        *RATIOS,
        float((run["class_gradient"] / run["example_gradient"]).isel(radius=curves.nearest_to_r_x(run)).mean()),
    ]
    over_spread = [[modelled(count, classes, d, ratio, 1.0, spread) for spread in SPREADS] for ratio in sorted(ratios)]
    meaning = {"units": "1", "long_name": f"κ(G) of the random model on planes of {d} dimensions"}
    found = xr.Dataset({"model_over_spread": (("ratio", "spread"), over_spread, meaning)})
    found = found.assign_coords(ratio=sorted(ratios), spread=SPREADS, x=run["x"].reset_coords(drop=True))
    found["ratio"].attrs = {"units": "1", "long_name": "σ_c/σ_E"}
    found["spread"].attrs = {"units": "1", "long_name": "standard deviation of the logits, σ_z"}
    numbers = (run[name] for name in ("class_gradient", "example_gradient", "logits_std"))
    model = xr.apply_ufunc(lambda *each: modelled(count, classes, d, *each), *numbers, vectorize=True)
    measures = {
        "kappa": run["trace_over_norm"],
        "gauss_newton_kappa": run["gauss_newton_trace"] / run["gauss_newton_norm"],
        "model_kappa": model,
    }
    for name, values in measures.items():
        means = curves.means(values.assign_attrs(units="1", long_name=MEANINGS[name])).reset_coords(drop=True)
        found = found.merge(means.rename({part: f"{name}_{part}" for part in means.data_vars}))
    return found.assign_attrs(study.attrs, examples=count, dimension=d)


def modelled(examples: int, classes: int, size: int, cluster: float, noise: float, spread: float) -> float:
    """κ(G) of the random model; NaN where its outputs are all saturated."""
    p = random_model.probabilities(examples, classes, spread, stream("model over radius"))
    with np.errstate(invalid="ignore"):
        return float(random_model.kappa(p, size, cluster, noise))


def draw_over_spread(ax: plt.Axes, data: xr.Dataset) -> None:
    for number, ratio in enumerate(data["ratio"].values):
        style = {"color": figures_style.colour(number), "linestyle": figures_style.LINES[number]}
        ax.plot(data["spread"], data["model_over_spread"].sel(ratio=ratio), label=f"{ratio:.2g}", **style)
    ax.set_xscale("log")
    ax.set_ylim(0, None)
    ax.set_xlabel(r"deviation of the logits $\sigma_z$")
    ax.set_ylabel(r"$\mathrm{Tr}(G)/\Vert G\Vert$")
    ax.set_title("(a) random model")
    ax.legend(title=r"$\sigma_c/\sigma_E$", loc="lower left", ncols=2)


def draw_over_radius(ax: plt.Axes, data: xr.Dataset) -> None:
    x = data["x"]
    for name, (label, number, line) in LOOKS.items():
        colour = figures_style.colour(number)
        ax.plot(x, data[f"{name}_mean"], color=colour, linestyle=line, label=label)
        ax.fill_between(x, data[f"{name}_low"], data[f"{name}_high"], color=colour, alpha=0.25, linewidth=0)
    ax.axvline(0, color="0.6", linewidth=0.5, zorder=0)
    ax.axhline(0, color="0.6", linewidth=0.5, linestyle="--", zorder=0)
    ax.set_xlabel(figures_style.X_LABEL)
    ax.set_ylabel(r"$\mathrm{Tr}/\Vert\cdot\Vert$")
    ax.set_title(f"(b) over the radius, $N={data.attrs['examples']}$, $d={data.attrs['dimension']}$")
    means = [data[f"{name}_mean"] for name in LOOKS]
    low, high = (float(getattr(xr.concat(means, "of"), end)()) for end in ("min", "max"))
    # Bands of few draws may leave the axes.
    ax.set_ylim(low - MARGIN * (high - low), high + MARGIN * (high - low))
    ax.legend(loc="center left")


if __name__ == "__main__":
    with job_log(snakemake.log[0], snakemake.input):
        plot_model_kappa(
            path_to_study=snakemake.input.studies[0],
            path_to_settings=snakemake.input.settings,
            path_to_pdf=snakemake.output.pdf,
            path_to_png=snakemake.output.png,
            path_to_data=snakemake.output.data,
        )
