"""κ over the confidence of initialisations inside the zone, and their gradient over how far the mean output is from the
classes' shares (Vysogorets et al. 2024)."""

from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

from goldilocks_zone.claims.curves import LEAST_CORRELATED, partial_rank_correlation
from goldilocks_zone.figures import over_radius, over_scale, style
from goldilocks_zone.jobs.log import job_log
from goldilocks_zone.statistics import bands

STUDY = "confidence"
KAPPA = "trace_over_norm"
MEASURES = {"entropy": "mean entropy of $p$ (nat)", "loss": "initial loss $L$ (nat)"}
GRADIENTS = ("prior_mismatch", "gradient_norm", "class_gradient_norm", "forced_mismatch", "forced_gradient_norm")
AS_IT_IS = {"color": style.colour(0), "marker": style.marker(0), "label": "as initialised"}
FORCED = {"color": style.colour(1), "marker": style.marker(1), "label": r"with $\hat{Q}=Q$ forced"}
DOTS = {"linestyle": "none", "markersize": 2.8, "markeredgewidth": 0, "alpha": 0.6}
PLACES = 50  # at which the regression's band is drawn
ROOM = 1.3  # for the legend of (c), relative to a row of panels
ABOVE = 1.6  # what is drawn in (c) fills its axis but for the legend
ASIDE = 0.03  # of the axis of (c), left of zero


def plot_confidence(
    paths_to_studies: list[str], path_to_settings: str, path_to_pdf: str, path_to_png: str, path_to_data: str
) -> None:
    studies, settings = over_scale.load_all(paths_to_studies, path_to_settings)
    data = initialisations(next(iter(studies.values())))
    forced = "gradient_norm" in data
    width, height = style.page_size(1, settings)
    figure, axes = plt.subplots(1, 2 + forced, figsize=(width, height * ROOM))
    correlated = data.sizes["draw"] >= LEAST_CORRELATED
    found = statistics(data, forced) if correlated else {}
    for ax, (name, label) in zip(axes, MEASURES.items()):
        ax.plot(data[name], data[KAPPA], **DOTS, **{**AS_IT_IS, "label": ""})
        ax.set_xlabel(label)
        ax.set_ylabel(r"$\kappa$")
        ax.set_title(rf"$\rho$ = {in_words(*found[name])}" if correlated else "")
    if forced:
        draw_gradients(axes[-1], data)
        axes[-1].set_title(f"slope {in_words(*found['slope'])}" if correlated else "")
    for number, ax in enumerate(axes):
        few = "1 initialisation" if data.sizes["draw"] == 1 else f"{data.sizes['draw']} initialisations"
        ax.set_title(f"({over_radius.letter(number)}) {ax.get_title() or few}")
    style.save(figure, data.merge(as_dataset(found)), path_to_pdf, path_to_png, path_to_data)


def initialisations(study: xr.Dataset) -> xr.Dataset:
    """What is drawn of each initialisation (draw), at the α nearest to 1."""
    here = over_scale.first_cell(over_scale.parameters_rescaled(study))
    here = here.isel(radius=int(np.abs(here["x"].values).argmin()))
    return here[[name for name in (KAPPA, *MEASURES, *GRADIENTS) if name in here]]


def statistics(data: xr.Dataset, forced: bool) -> dict[str, tuple[float, float, float]]:
    """Spearman's correlation of κ with each measure and, with gradients, the slope of ‖∇L‖ over the prior mismatch
    relative to that of theory, as claim vd10 has it; each with its 95 % interval over initialisations."""
    found = {name: resampled(data, (KAPPA, name), partial_rank_correlation) for name in MEASURES}
    if forced:
        found["slope"] = resampled(data, GRADIENTS[:3], relative_slope)
    return found


def resampled(
    data: xr.Dataset, names: tuple[str, ...], statistic: Callable[[np.ndarray], float]
) -> tuple[float, float, float]:
    """A statistic of some variables' rows (variables, draws), with its interval."""
    return style.bootstrapped(statistic, np.array([data[name].values for name in names]), STUDY, *names)


def relative_slope(rows: np.ndarray) -> float:
    """Slope of ‖∇L‖ over the prior mismatch, over the mean √D σ_C, of rows (3, draws)."""
    mismatch, gradient, expected = rows
    return float(np.polyfit(mismatch, gradient, 1)[0] / expected.mean())


def draw_gradients(ax: plt.Axes, data: xr.Dataset) -> None:
    """‖∇L‖ over the prior mismatch, as it is and where constants added to the logits take the mismatch away.

    Beside the dots the regression with the band of its mean, and the line of theory through the origin.
    """
    x, y = data["prior_mismatch"].values, data["gradient_norm"].values
    ax.plot(x, y, **AS_IT_IS, **DOTS)
    ax.plot(data["forced_mismatch"], data["forced_gradient_norm"], **FORCED, **DOTS)
    places, highest = np.linspace(0, x.max(), PLACES), [y.max(), data["forced_gradient_norm"].max()]
    if len(x) >= LEAST_CORRELATED and np.ptp(x) > 0:
        line, low, high = bands.regression_band(x, y, places, style.LEVEL)
        ax.plot(places, line, color=0.6 * np.array(plt.matplotlib.colors.to_rgb(style.colour(0))), label="regression")
        ax.fill_between(places, low, high, color=style.colour(0), alpha=0.3, linewidth=0)
        highest.append(high.max())
    slope = float(data["class_gradient_norm"].mean())
    theory = r"$\sqrt{D}\,\sigma_C\,\Vert Q-\hat{Q}\Vert$"
    ax.plot(places, slope * places, color="k", linestyle="--", linewidth=1, label=theory)
    ax.set_xlim(-ASIDE * x.max(), (1 + ASIDE) * x.max())
    ax.set_ylim(0, ABOVE * max(*highest, slope * x.max()))
    ax.set_xlabel(r"prior mismatch $\Vert Q-\hat{Q}\Vert$")
    ax.set_ylabel(r"$\Vert\nabla L\Vert$ (nat per parameter)")
    ax.legend(loc="upper left", handlelength=1.4, labelspacing=0.3)


def in_words(value: float, low: float, high: float) -> str:
    """A statistic and its interval, in a title."""
    shown = [f"{round(number, 2) + 0:.2f}".replace("-", "−") for number in (value, low, high)]
    return f"{shown[0]} [{shown[1]}, {shown[2]}]"


def as_dataset(found: dict[str, tuple[float, float, float]]) -> xr.Dataset:
    """The statistics as variables (quantity)."""
    meanings = {name: f"Spearman's correlation of κ with {name}, and its 95 % interval" for name in MEASURES}
    meanings["slope"] = "slope of ‖∇L‖ over ‖Q − Q̂‖ relative to √D σ_C, and its 95 % interval"
    variables = {
        name if name == "slope" else f"correlation_{name}": (
            "quantity",
            list(values),
            {"units": "1", "long_name": meanings[name]},
        )
        for name, values in found.items()
    }
    return xr.Dataset(variables, {"quantity": ["value", "low", "high"]} if found else None)


if __name__ == "__main__":
    with job_log(snakemake.log[0], snakemake.input):
        plot_confidence(
            paths_to_studies=list(snakemake.input.studies),
            path_to_settings=snakemake.input.settings,
            path_to_pdf=snakemake.output.pdf,
            path_to_png=snakemake.output.png,
            path_to_data=snakemake.output.data,
        )
