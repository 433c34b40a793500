"""κ of the Gauss–Newton part G, as measured and as the model J = C + E of random logit gradients has it
(Vysogorets et al. 2024)."""

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.ticker import MaxNLocator

from goldilocks_zone.figures import curves, over_radius, over_scale, panels
from goldilocks_zone.figures import style as figures_style
from goldilocks_zone.jobs.log import job_log
from goldilocks_zone.theory.laws import kappa_of_random_gradients

SCALES = "scale_fc"
GIVEN = ("class_gradient", "example_gradient", "softmax_ratio")
# Number of colour, and line, of each form.
FORMS = {"finite": (1, "--", "model, any $d$"), "large": (2, ":", "model, large $d$")}
MEANINGS = {
    "measured": "κ(G) = Tr(G_d)/‖G_d‖_F as measured",
    "finite": "κ(G) of the model J = C + E, for any d",
    "large": "κ(G) of the model J = C + E, for large d",
}
SHOWN_FORM = "finite"  # over which single initialisations are shown
LABEL = r"$\kappa(G)$"
SCALE_COLOURS = "viridis"
ROOM = 1.35  # for a square panel, relative to a row of panels
MARGIN = 0.05  # beyond what is drawn, relative to its range


def plot_random_gradients(
    paths_to_studies: list[str], path_to_settings: str, path_to_pdf: str, path_to_png: str, path_to_data: str
) -> None:
    studies, settings = over_scale.load_all(paths_to_studies, path_to_settings)
    data = {name: modelled(study) for name, study in studies.items()}
    if SCALES in data:
        data[SCALES] = data[SCALES].merge(with_intervals(data[SCALES]), compat="no_conflicts")
    width, height = figures_style.page_size(1, settings)
    figure, axes = plt.subplots(1, len(data.keys() & {SCALES}) + 1, figsize=(width, height * ROOM), squeeze=False)
    if SCALES in data:
        draw_over_scales(axes[0, 0], data[SCALES])
    draw_one_by_one(axes[0, -1], data)
    for number, ax in enumerate(axes[0]):
        ax.set_title(f"({over_radius.letter(number)}) {ax.get_title()}")
    figures_style.save(figure, panels.side_by_side(data), path_to_pdf, path_to_png, path_to_data)


def modelled(study: xr.Dataset) -> xr.Dataset:
    """κ(G) (radius, draw) measured and by each form of the model, for the most examples and the largest dimension.

    Missing where G is too small for a number.
    """
    here = over_scale.first_cell(over_scale.parameters_rescaled(study))
    d, given = int(here["dimension"]), [here[name] for name in GIVEN]
    with np.errstate(divide="ignore", invalid="ignore"):
        found = {"measured": here["gauss_newton_trace"] / here["gauss_newton_norm"]}
        found |= {form: kappa_of_random_gradients(*given, d, form) for form in FORMS}
    known = np.isfinite(found["measured"])
    result = xr.Dataset({name: values.where(known & np.isfinite(values)) for name, values in found.items()})
    for name in result.data_vars:
        result[name].attrs = {"units": "1", "long_name": MEANINGS[name]}
    result["radius"].attrs = {"units": "1", "long_name": "scale α of the initialisation"}
    return result.transpose("radius", "draw")


def with_intervals(data: xr.Dataset) -> xr.Dataset:
    """mean, low and high (radius) of each of the variables (radius, draw), under its name."""
    parts = [
        curves.means(data[name])[["mean", "low", "high"]].rename(
            {part: f"{name}_{part}" for part in ("mean", "low", "high")}
        )
        for name in MEANINGS
    ]
    return xr.merge(parts)


def draw_over_scales(ax: plt.Axes, data: xr.Dataset) -> None:
    """κ(G) over log10 α: measured as points with bars, the model as lines with bands."""
    x = data["x"].values
    for form, (number, line, label) in FORMS.items():
        colour = figures_style.colour(number)
        ax.plot(x, data[f"{form}_mean"], color=colour, linestyle=line, label=label)
        ax.fill_between(x, data[f"{form}_low"], data[f"{form}_high"], color=colour, alpha=0.25, linewidth=0)
    measured = xr.Dataset({part: data[f"measured_{part}"] for part in ("mean", "low", "high")})
    style = {
        "color": figures_style.colour(0),
        "marker": figures_style.marker(0),
        "markersize": 2.5,
        "linestyle": "none",
    }
    curves.draw_means(ax, x, measured, label="measured", **style)
    bound = np.sqrt(float(data["dimension"]))
    for reference in (1, bound):
        ax.axhline(reference, color="0.6", linewidth=0.5, linestyle="--", zorder=0)
    # Bars of few draws may leave the axes; no positive semi-definite matrix does.
    ax.set_ylim(*limits(1, bound, *(data[f"{name}_mean"] for name in MEANINGS)))
    ax.set_xlabel(over_scale.LABEL)
    ax.set_ylabel(LABEL)
    ax.set_title("over the scale")
    # Above the line at unity.
    ax.legend(loc="lower left", bbox_to_anchor=(0, 0.07), frameon=False)


def draw_one_by_one(ax: plt.Axes, data: dict[str, xr.Dataset]) -> None:
    """Measured over modelled κ(G), a point for each initialisation and α, and the line of equality."""
    for name, here in data.items():
        model, measured = here[SHOWN_FORM], here["measured"]
        if name == SCALES:
            colours = here["x"].broadcast_like(model).transpose(*model.dims)
            style = {"c": colours, "cmap": SCALE_COLOURS, "s": 7, "linewidths": 0, "zorder": 3}
            points = ax.scatter(model, measured, label=r"each $\alpha$ of (a)", **style)
            bar = ax.figure.colorbar(points, ax=ax, aspect=30, pad=0.02)
            bar.set_label(over_scale.LABEL)
            bar.outline.set_visible(False)
        else:
            style = {"marker": figures_style.marker(1), "s": 9, "facecolors": "none", "linewidths": 0.6, "zorder": 2}
            label = r"$\alpha=1$, more draws"
            ax.scatter(model, measured, edgecolors=figures_style.colour(1), label=label, **style)
    bound = max(float(here["dimension"]) for here in data.values()) ** 0.5
    ends = limits(1, bound, *(here[name] for here in data.values() for name in (SHOWN_FORM, "measured")))
    ax.plot(ends, ends, color="0.4", linewidth=0.6, zorder=1)
    ax.set(xlim=ends, ylim=ends, aspect="equal")
    ax.set_xlabel(rf"{LABEL} of the model, any $d$")
    ax.set_ylabel(rf"{LABEL} measured")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(7, integer=True))
    ax.set_title("single initialisations")
    ax.legend(loc="upper left", handletextpad=0.1)


def limits(*shown: object) -> tuple[float, float]:
    """Ends of an axis that shows some arrays or numbers, as far as they are not missing."""
    values = np.concatenate([np.ravel(each) for each in shown])
    low, high = np.nanmin(values), np.nanmax(values)
    margin = MARGIN * (high - low or 1.0)
    return low - margin, high + margin


if __name__ == "__main__":
    with job_log(snakemake.log[0], snakemake.input):
        plot_random_gradients(
            paths_to_studies=list(snakemake.input.studies),
            path_to_settings=snakemake.input.settings,
            path_to_pdf=snakemake.output.pdf,
            path_to_png=snakemake.output.png,
            path_to_data=snakemake.output.data,
        )
