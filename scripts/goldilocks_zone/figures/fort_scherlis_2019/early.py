"""Accuracy early in training over measures of the initialisation (Fort & Scherlis 2019, figure 6a to c), and the gain
from choosing among initialisations by these measures."""

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from goldilocks_zone.claims.curves import LEAST_CORRELATED
from goldilocks_zone.claims.estimators import training
from goldilocks_zone.data import official_shapes
from goldilocks_zone.figures import curves, panels, style
from goldilocks_zone.figures.fort_scherlis_2019.selection import points
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies

FIGURE = {"id": "early", "studies": ["early", "selection"], "axis": "radius"}
MEASURES = {
    "positive_eigenvalues": "number of positive eigenvalues $n_+$",
    "trace_over_norm": r"$\mathrm{Tr}(H)/\Vert H\Vert$",
    "loss": "initial loss $L$ (nat)",
}
CONTROL = "logits_std"
# Sign and label of each selection score. The sign is 1 if high values are good and −1 if low values are; the control
# takes the sign of its correlation with the accuracy.
SCORES = {
    "positive_eigenvalues": (1, "high $n_+$"),
    "trace_over_norm": (1, r"high $\mathrm{Tr}(H)/\Vert H\Vert$"),
    "loss": (-1, "low $L$"),
    CONTROL: (None, r"$\sigma_z$"),
}
STEP = 93  # step used by the claims
MOST = 20  # largest number of initialisations to choose from
BARRED = (2, 5, 10, 15, 20)  # numbers of initialisations to choose from at which intervals are drawn
SHADES = (0.85, 0.1)  # positions of the first and the last step on the colour map
PLACE = ("dataset", "network", "subspace", "radius", "x")


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    data = gathered(studies)
    measures = [name for name in MEASURES if name in data]
    correlated = data.sizes["draw"] >= LEAST_CORRELATED
    gains = best_of_many(data) if correlated and "early" in studies else None
    count = len(measures) + (gains is not None)
    columns = 2 if count == 4 else count
    figure, axes = panels.page(count, settings, columns, room=1.2)
    colours = plt.get_cmap("viridis")(np.linspace(*SHADES, data.sizes["step"]))
    for number, (ax, name) in enumerate(zip(axes, measures)):
        draw_steps(ax, data, name, colours, correlated)
        ax.set(title=panels.lettered(number, slope_in_words(data, name, correlated)), xlabel=MEASURES[name])
        if number % columns == 0:
            ax.set_ylabel(data["outcome"].attrs["label"])
        if name == "positive_eigenvalues":
            ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if gains is not None:
        draw_gains(axes[-1], gains)
        axes[-1].set_title(panels.lettered(count - 1, f"best of $K$ {tested(data)[1]}"))
        data = data.merge(gains)
    if "early" in studies:
        panels.legend_on_top(figure, step_handles(data, colours, curves.settings_of(studies["early"])))
    return figure, data


def gathered(studies: dict[str, xr.Dataset]) -> xr.Dataset:
    """Accuracy `outcome` (step, draw) in training, with MEASURES and CONTROL (draw) of the same initialisations at r_X.

    The study called early has the accuracy at each logged step after the start, on held-out examples or, if there are
    none, on training examples. The study called selection has the measures. If `selection` is missing, or lacks the
    dataset or network of `early`, the only measure is the initial loss, from `early`. If `early` is missing, the
    outcome is the initial loss, at step 0.
    """
    early, selection, found = studies.get("early"), studies.get("selection"), xr.Dataset()
    if early is not None and selection is not None:
        # Use the dataset and network for which training is drawn.
        cell = {axis: early[axis].values[:1] for axis in ("dataset", "network")}
        has_cell = all(value in selection[axis].values for axis, (value,) in cell.items())
        selection = selection.sel(cell) if has_cell else None
    if selection is not None:
        found = points(curves.primary(selection).isel(subspace=0)).drop_vars((*PLACE, "dimension", "examples"))
    if early is None:
        outcome = found["loss"].expand_dims(step=[0]).assign_attrs(label=MEASURES["loss"])
        return found.drop_vars("loss").assign(outcome=outcome)
    examples = "validation" if "validation_accuracy" in early else "training"
    here = curves.primary(early).isel(subspace=0, radius=curves.nearest_to_r_x(early)).drop_vars(PLACE)
    if selection is None:
        found["loss"] = here[f"{examples}_loss"].isel(step=0, drop=True)
    accuracy = here[f"{examples}_accuracy"]
    outcome = accuracy.isel(step=slice(1, None)).fillna(1 / here["classes"]).transpose("step", "draw")
    label = f"accuracy on {'held-out' if examples == 'validation' else 'training'} examples"
    outcome = outcome.assign_attrs(**accuracy.attrs, label=label).rename("outcome")
    merged = xr.merge([found, outcome], join="inner", compat="override")
    return merged.assign_attrs(early.attrs, dataset=str(early["dataset"].values[0]))


def tested(data: xr.Dataset) -> tuple[np.ndarray, str]:
    """Outcomes (draw) at the tested step, and words that name the step, such as "at step 93".

    The tested step is the logged step nearest to STEP, the step that claims use. `data` is a result of `gathered`.
    """
    steps = data["step"].values
    nearest = int(np.abs(steps - STEP).argmin())
    words = f"at step {steps[nearest]}" if steps[nearest] else "at the start"
    return data["outcome"].isel(step=nearest).values, words


def slope_in_words(data: xr.Dataset, name: str, correlated: bool) -> str:
    """Title of a panel: the t-value of the slope of the outcome at the tested step over the measure `name`.

    `data` is a result of `gathered`. If `correlated` is False, because there are too few initialisations, the title is
    their number.
    """
    if not correlated:
        return f"{data.sizes['draw']} initialisations"
    x, (y, words) = data[name].values, tested(data)
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return f"no slope {words}"
    r = np.corrcoef(x, y)[0, 1]
    t = curves.decimal(r * np.sqrt((len(x) - 2) / (1 - r**2)), 1)
    return f"slope {words}: $t$ = {t}"


def draw_steps(ax: Axes, data: xr.Dataset, name: str, colours: np.ndarray, correlated: bool) -> None:
    """Draw the outcome over the measure `name`, with one point per initialisation and step, coloured by step.

    `data` is a result of `gathered`, and `colours` has one colour per step. With `correlated`, regression lines and
    pointwise 95 % bands of their means are added.
    """
    x = data[name].values
    for number, (colour, outcome) in enumerate(zip(colours, data["outcome"].values)):
        ax.plot(x, outcome, linestyle="none", alpha=0.6, **style.look(number, color=colour, markersize=2.8, mew=0))
        if correlated:
            curves.draw_regression(ax, x, outcome, 0.75 * colour[:3], colour, 0.35)
    ax.set_ylim(panels.limits(data["outcome"], margin=0.05))


def best_of_many(data: xr.Dataset) -> xr.Dataset:
    """Gain in accuracy if the initialisation with the best score among several is trained, instead of a random one.

    `data` is a result of `gathered`, and the accuracy is that at the step of `tested`. `gain` (score, count) is the
    mean gain; the axis score names the score, a key of SCORES, and the axis count holds the number of initialisations
    to choose from. gain_low and gain_high (score, count) are the ends of its 95 % interval, NaN except at counts in
    BARRED. `sign` (score) is 1 if high scores are best, −1 if low ones are.
    """
    accuracy, _ = tested(data)
    scores = [name for name in SCORES if name in data]
    counts = np.arange(1, min(MOST, len(accuracy)) + 1)
    found, signs = np.full((len(scores), len(counts), 3), np.nan), []
    for i, name in enumerate(scores):
        values, sign = data[name].values, SCORES[name][0]
        signs.append(sign or (1 if np.cov(values, accuracy)[0, 1] > 0 else -1))
        rows = np.array([signs[-1] * values, accuracy])
        for j, k in enumerate(counts.tolist()):
            found[i, j, 0] = training.best_of(k, *rows)
            if k in BARRED:
                found[i, j] = curves.bootstrapped(lambda each, k=k: training.best_of(k, *each), rows, "early", name)
    ends = curves.ends_of("the gain's 95 % bootstrap interval over draws, at some counts")
    meanings = {"gain": "mean accuracy of the best-scored of `count` initialisations minus that of a random one"}
    meanings |= {f"gain_{end}": meaning for end, meaning in ends.items()}
    coordinates = {"score": scores, "count": counts, "sign": ("score", signs)}
    return xr.Dataset(curves.columns(("score", "count"), found, meanings), coordinates)


def draw_gains(ax: Axes, gains: xr.Dataset) -> None:
    """Draw the gain of each score over the number of candidate initialisations, with intervals at BARRED.

    `gains` is a result of `best_of_many`.
    """
    for number, name in enumerate(gains["score"].values.tolist()):
        here, colour = gains.sel(score=name), style.colour(number)
        sign, label = SCORES[name]
        label = label if sign else f"{'high' if here['sign'] > 0 else 'low'} {label}"
        ax.plot(here["count"], here["gain"], color=colour, linestyle=style.line(number), label=label)
        barred = here.isel(count=np.isfinite(here["gain_low"].values))
        barred = barred.rename(gain="mean", gain_low="low", gain_high="high")
        place = barred["count"].values + 0.22 * curves.centred(number, gains.sizes["score"])
        curves.draw_means(ax, place, barred, fmt=style.marker(number), color=colour, capsize=1.5)
    ax.axhline(0, **style.GREY)
    ax.set_ylim(panels.limits(gains["gain_low"], gains["gain_high"], margin=0.05, above=0.35))
    ax.set_xticks([count for count in BARRED if count in gains["count"].values])
    ax.set(xlabel="initialisations $K$ to choose from", ylabel="gain in accuracy")
    ax.legend(loc="upper left", ncols=2, columnspacing=1.0)


def step_handles(data: xr.Dataset, colours: np.ndarray, settings: dict) -> list[Line2D]:
    """Legend entries of the logged steps in `data`, with the number of epochs in brackets if it is known.

    It is known for full batches and for the datasets in `official_shapes.OFFICIAL`. `colours` has one colour per step;
    `settings` are those of the study.
    """
    official, per_epoch = official_shapes.OFFICIAL.get(data.attrs["dataset"]), 1 if settings["batch"] == "all" else 0
    if official and not per_epoch:
        per_epoch = (official.training_examples - settings["validation"]) // settings["batch"]
    handles = [panels.entry("step (epoch):" if per_epoch else "step:", linestyle="none")]
    for i, (step, colour) in enumerate(zip(data["step"].values, colours)):
        label = f"{step} ({step / per_epoch:.2f})" if per_epoch else f"{step}"
        handles.append(panels.entry(label, linestyle="none", **style.look(i, color=colour, markersize=3.5)))
    return handles
