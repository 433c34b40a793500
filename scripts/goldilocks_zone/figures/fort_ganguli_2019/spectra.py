"""Top eigenvalues of G and of the Hessian during training, and of the random model for each choice of its inputs (Fort
& Ganguli 2019)."""

import xarray as xr
from matplotlib.axes import Axes

from goldilocks_zone.figures import curves, over_steps, panels, style
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies

FIGURE = {"id": "spectra", "studies": ["geometry"], "axis": "radius", "needs": ["rank", "rung"]}

MEASURED = {"gauss_newton_eigenvalue": (r"$G$", 0, True), "hessian_eigenvalue": (r"$H$", 1, False)}
SHOWN = (*MEASURED, "model_eigenvalue", "model_edge", "centred_edge")
RUNGS = {
    "six_numbers": ("model, six numbers", 2),
    "matched_spread": ("model, matched spread", 3),
    "measured_outputs": ("model, measured outputs", 4),
}


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    (study,) = studies.values()
    data = spectra(study)
    figure, axes = panels.page(data.sizes["stage"], settings, room=1.3, sharex=True)
    for ax, stage in zip(axes, data["stage"].values.tolist()):
        here = data.sel(stage=stage)
        draw_spectrum(ax, here)
        ax.set(title=f"{over_steps.STAGES[stage]}, step {int(here['step'])}", xlabel="rank")
    panels.letter_titles(axes)
    axes[0].set_ylabel("eigenvalue (nat)")
    panels.legend_on_top(figure, axes[0], 3)
    return figure, data


def spectra(study: xr.Dataset) -> xr.Dataset:
    """Eigenvalues of the Gauss–Newton matrix G, of the Hessian H and of the random model, at every stage of training.

    {variable}_mean, _low and _high are the geometric mean over draws and the ends of its 95 % interval, for the
    variables SHOWN. Top eigenvalues have the axes (stage, rank) for G and H, and (stage, rung, rank) for the model. A
    rung is a choice of the model's inputs, a key of RUNGS. `model_edge` (stage, rung) is the edge of the bulk of the
    model's spectrum. `centred_edge` (stage) is the largest eigenvalue of G from logit gradients that are centred over
    examples. The stages are those of `over_steps.stages`, of the study's first run.
    """
    _, run = next(over_steps.runs(study))
    places = over_steps.stages(run, "gauss_newton_eigenvalue")
    parts = []
    for step in places.values():
        means = {name: curves.logarithmic_means(run[name].sel(step=step)) for name in SHOWN}
        parts.append(curves.prefixed({name: found.reset_coords(drop=True) for name, found in means.items()}))
    result = xr.concat(parts, "stage").assign_coords(stage=list(places))
    result["step"] = ("stage", list(places.values()), curves.described("step of training"))
    return result.assign(classes=((), int(run["classes"]), curves.described("number of classes")))


def draw_spectrum(ax: Axes, data: xr.Dataset) -> None:
    for name, (label, number, filled) in MEASURED.items():
        here = curves.parts_of(data, name)
        ax.errorbar(data["rank"], here["mean"], curves.bars(here), label=label, **over_steps.points(number, filled))
    bulk = data["rank"][int(data["classes"]) - 1 :]
    for rung, (label, number) in RUNGS.items():
        here = data.sel(rung=rung)
        look = {"color": style.colour(number), "linewidth": 1.0, "linestyle": style.line(number - 2)}
        ax.plot(data["rank"], here["model_eigenvalue_mean"], label=label, **look)
        ax.plot(bulk, [float(here["model_edge_mean"])] * len(bulk), **look)
    centred, label = float(data["centred_edge_mean"]), r"edge of centred $G$"
    ax.axhline(centred, color="0.5", linewidth=0.7, linestyle=":", label=label)
    ax.axvline(int(data["classes"]) - 0.5, color="0.8", linewidth=0.6, zorder=0)
    over_steps.logarithmic_axis(ax, *(data[f"{name}_mean"] for name in SHOWN))
