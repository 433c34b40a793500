"""κ against the confidence of initialisations inside the zone, and the norm of the loss gradient against the distance
of the mean output from the class frequencies (Vysogorets et al. 2024)."""

from collections.abc import Callable

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

from goldilocks_zone.claims.curves import LEAST_CORRELATED, partial_rank_correlation
from goldilocks_zone.figures import curves, over_scale, panels, style
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies
from goldilocks_zone.statistics import estimates

FIGURE = {"id": "confidence", "studies": ["confidence"], "axis": "scale"}

KAPPA = "trace_over_norm"
MEASURES = {"entropy": "mean entropy of $p$ (nat)", "loss": "initial loss $L$ (nat)"}
GRADIENTS = ("prior_mismatch", "gradient_norm", "class_gradient_norm", "forced_mismatch", "forced_gradient_norm")
DOTS = {"linestyle": "none", "markersize": 2.8, "markeredgewidth": 0, "alpha": 0.6}


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    cell = over_scale.first_cell(over_scale.parameters_rescaled(next(iter(studies.values()))))
    at_one = cell.isel(radius=int(np.abs(cell["x"].values).argmin()))  # the α nearest to 1
    data = at_one[[name for name in (KAPPA, *MEASURES, *GRADIENTS) if name in at_one]]
    forced, count = "gradient_norm" in data, data.sizes["draw"]
    figure, axes = panels.grid(1, 2 + forced, settings, room=1.3)
    found, titles = {}, [f"{count} initialisation{'s' if count > 1 else ''}"] * axes.size
    if count >= LEAST_CORRELATED:
        found = {name: resampled(data, (KAPPA, name), partial_rank_correlation) for name in MEASURES}
        titles = [rf"$\rho$ = {curves.in_words(*each)}" for each in found.values()]
        if forced:
            found["slope"] = resampled(data, GRADIENTS[:3], relative_slope)
            titles.append(f"slope {curves.in_words(*found['slope'])}")
    for ax, (name, label) in zip(axes[0], MEASURES.items()):
        ax.plot(data[name], data[KAPPA], **style.look(0), **DOTS)
        ax.set(xlabel=label, ylabel=r"$\kappa$")
    if forced:
        draw_gradients(axes[0, -1], data)
    panels.letter_titles(axes[0], titles)
    meanings = {name: f"Spearman's correlation of κ with {name}, and its 95 % interval" for name in MEASURES}
    meanings["slope"] = "slope of ‖∇L‖ over ‖Q − Q̂‖ relative to √D σ_C, and its 95 % interval"
    shown = curves.statistics(found, meanings)
    return figure, data.merge(shown.rename({name: f"correlation_{name}" for name in MEASURES if name in found}))


def resampled(data: xr.Dataset, names: tuple[str, ...], statistic: Callable) -> curves.WithInterval:
    return curves.bootstrapped(statistic, np.array([data[name].values for name in names]), "confidence", *names)


def relative_slope(rows: np.ndarray) -> float:
    """Slope of ‖∇L‖ over the prior mismatch ‖Q − Q̂‖, divided by the mean of √D σ_C, as in claim vd10.

    L is the loss, Q holds the class frequencies, and Q̂ is the mean output. √D σ_C is the norm of the mean logit
    gradient, as a root mean square over classes. `rows` (3, draws) holds the mismatch, ‖∇L‖ and √D σ_C.
    """
    mismatch, gradient, expected = rows
    return float(np.polyfit(mismatch, gradient, 1)[0] / expected.mean())


def draw_gradients(ax: Axes, data: xr.Dataset) -> None:
    """Draw ‖∇L‖ of each initialisation over the prior mismatch, as initialised and with the mismatch removed.

    The prior mismatch is the distance between mean output and class frequencies; `data` holds both variables of each
    draw. Lines show the regression over the points as initialised, if there are enough, and the theory.
    """
    x, y = data["prior_mismatch"].values, data["gradient_norm"].values
    forced = data["forced_gradient_norm"]
    ax.plot(x, y, label="as initialised", **style.look(0), **DOTS)
    ax.plot(data["forced_mismatch"], forced, label=r"with $\hat{Q}=Q$ forced", **style.look(1), **DOTS)
    places, highest = np.linspace(0, x.max(), 50), [y.max(), forced.max()]
    if len(x) >= LEAST_CORRELATED and np.ptp(x) > 0:
        line, low, high = estimates.regression_band(x, y, places, estimates.LEVEL)
        ax.plot(places, line, color=0.6 * np.array(to_rgb(style.colour(0))), label="regression")
        ax.fill_between(places, low, high, color=style.colour(0), alpha=0.3, linewidth=0)
        highest.append(high.max())
    slope = float(data["class_gradient_norm"].mean())
    theory = r"$\sqrt{D}\,\sigma_C\,\Vert Q-\hat{Q}\Vert$"
    ax.plot(places, slope * places, color="k", linestyle="--", linewidth=1, label=theory)
    # Leave room for the legend above the points.
    ax.set(xlim=(-0.03 * x.max(), 1.03 * x.max()), ylim=(0, 1.6 * max(*highest, slope * x.max())))
    ax.set(xlabel=r"prior mismatch $\Vert Q-\hat{Q}\Vert$", ylabel=r"$\Vert\nabla L\Vert$ (nat)")
    ax.legend(loc="upper left", handlelength=1.4, labelspacing=0.3)
