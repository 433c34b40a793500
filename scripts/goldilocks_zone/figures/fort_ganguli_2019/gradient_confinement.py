"""Share of the gradient's power along the top eigenvectors of G, over their rank and over training (Fort & Ganguli
2019)."""

import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from goldilocks_zone.claims.estimators import local_geometry
from goldilocks_zone.figures import curves, over_steps, panels, style
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies

FIGURE = {"id": "confined", "studies": ["geometry", "geometry_labels"], "axis": "radius"}

# Name and line style of each gradient.
SOURCES = {
    "spectrum": ("the same examples", "-"),
    "other_batch": ("other examples", "--"),
    "held_out": ("held-out examples", "-."),
    "model_labels": ("labels from the outputs", ":"),
    "permuted": ("residuals permuted", (0, (1, 3))),
}


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    runs = {name: run for study in studies.values() for name, run in over_steps.runs(study)}
    figure, ((left, right),) = panels.grid(1, 2, settings, room=1.45, sharey=True)
    ranked, along = over_rank(next(iter(runs.values()))), {name: along_training(run) for name, run in runs.items()}
    draw_over_rank(left, ranked)
    draw_along_training(right, along)
    left.set(ylim=(0, 1.02), ylabel="share of the squared gradient")
    panels.legend_above(left, panels.lettered(0, "after the first steps"), columns=2)
    panels.legend_above(right, panels.lettered(1, "along the top $C'$"), columns=2)
    data = panels.side_by_side({"ranks": ranked} | {f"run_{i}": each for i, each in enumerate(along.values())})
    return figure, data.assign_attrs({f"run_{i}": name for i, name in enumerate(along)})


def over_rank(run: xr.Dataset) -> xr.Dataset:
    """Share of the squared gradient in the top m eigenvectors of the Gauss–Newton matrix G, for every rank m.

    The share is averaged over the measured steps of the `run`, from EARLY (in `local_geometry`) times its last step on.
    mean, low and high (gradient_of, rank) are the mean over draws and the ends of its 95 % interval. The axis
    gradient_of names the examples and labels of the gradient by the keys of SOURCES. As the null, null_mean, null_low
    and null_high (rank) are for the share of Tr(G) in the same eigenvectors. `model` is the share of the squared
    gradient that the random model predicts for the space of the C − 1 outliers, for C classes.
    """
    classes, run = int(run["classes"]), run.reset_coords(drop=True)
    powers = local_geometry.measured(run["gradient_power"])
    powers = powers.sel(step=powers["step"] >= local_geometry.EARLY * int(run["step"].max()))
    here = run.sel(step=powers["step"])
    shares = powers.cumsum("rank").mean("step")
    null = (here["gauss_newton_eigenvalue"].cumsum("rank") / here["gauss_newton_full_trace"]).mean("step")
    found = beside_null(shares, null)
    model = here["model_power"].sel(rung="measured_outputs", drop=True).mean(("step", "draw"))
    text = "share of the squared gradient in the outliers' space that the random model predicts from measured outputs"
    found["model"] = model.assign_attrs(curves.described(text))
    return found.assign(classes=((), classes, curves.described("number of classes")))


def along_training(run: xr.Dataset) -> xr.Dataset:
    """Share of the squared gradient in the top C − 1 eigenvectors of G over the steps of a `run`, and its null.

    G is the Gauss–Newton matrix, of the same examples as the gradient, and C the number of classes. The null is the
    share of Tr(G) in the same eigenvectors. The result has the variables of `beside_null`, with the axis step.
    """
    top, run = slice(0, int(run["classes"]) - 1), run.reset_coords(drop=True)
    powers = local_geometry.measured(run["gradient_power"]).sel(gradient_of="spectrum", drop=True)
    here = run.sel(step=powers["step"])
    null = here["gauss_newton_eigenvalue"].isel(rank=top).sum("rank") / here["gauss_newton_full_trace"]
    return beside_null(powers.isel(rank=top).sum("rank"), null)


def beside_null(shares: xr.DataArray, null: xr.DataArray) -> xr.Dataset:
    """Means over draws of `shares` (…, draw) and of `null` (…, draw), as one dataset.

    The variables are those of `curves.means`; those of `null` have the prefix null_.
    """
    nulls = {"null": curves.means(null, "share of the trace of G")}
    return curves.means(shares, "share of the squared gradient").merge(curves.prefixed(nulls))


def draw_over_rank(ax: Axes, data: xr.Dataset) -> None:
    ranks = data["rank"].values
    for number, (source, (label, line)) in enumerate(SOURCES.items()):
        look = {"color": style.colour(number), "linestyle": line, "label": label, "linewidth": 1.1}
        curves.draw_band(ax, ranks, data.sel(gradient_of=source), alpha=0.2, **look)
    null = r"null $\sum_{i\leq m}\lambda_i/\mathrm{Tr}(G)$"
    ax.plot(ranks, data["null_mean"], color="0.4", linewidth=1.0, label=null)
    outliers = int(data["classes"]) - 1
    ax.plot([outliers], [float(data["model"])], "k*", markersize=6, label="random model")
    ax.axvline(outliers, color="0.8", linewidth=0.6, zorder=0)
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.set_xlabel("number $m$ of eigenvectors")


def draw_along_training(ax: Axes, runs: dict[str, xr.Dataset]) -> None:
    for number, (name, data) in enumerate(runs.items()):
        label = "original labels" if name == over_steps.USUAL else name
        over_steps.draw_over_steps(ax, data, number, label)
        nulls = curves.parts_of(data, "null")
        over_steps.draw_over_steps(ax, nulls, number, f"null, {label}", linestyle="--", markerfacecolor="white")
    *_, last = runs.values()
    over_steps.step_axis(ax, last["step"].values)
