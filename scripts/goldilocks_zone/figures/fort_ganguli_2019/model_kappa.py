"""κ = Tr(G)/‖G‖ of the random model over the spread of the logits, and compared with κ of networks over the radius
(Fort & Ganguli 2019)."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from goldilocks_zone.figures import curves, panels, profiles, style
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies
from goldilocks_zone.randomness import stream
from goldilocks_zone.theory import random_model

FIGURE = {"id": "model_kappa", "studies": ["curvature"], "axis": "radius"}

EXAMPLES = 1000  # number used by the claims
SPREADS = np.geomspace(1e-2, 1e3, 41)
# Meaning, label, style number, and line style.
MEASURES = {
    "kappa": ("κ(H) of the network", r"$H$, network", 0, "-"),
    "gauss_newton_kappa": ("κ(G) of the network", r"$G$, network", 1, "--"),
    "model_kappa": ("κ(G) of the random model with the network's six numbers", r"$G$, random model", 2, ":"),
}


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    (study,) = studies.values()
    data = beside_the_model(study)
    figure, ((left, right),) = panels.grid(1, 2, settings, room=1.2)
    draw_over_spread(left, data)
    draw_over_radius(right, data)
    return figure, data


def beside_the_model(study: xr.Dataset) -> xr.Dataset:
    """κ(G) of the random model over the spread of the logits; κ of network and model over the radius.

    κ is trace over Frobenius norm on a random plane, and G the Gauss–Newton matrix. `model_over_spread` (ratio, spread)
    is κ(G) of the model. The axis spread holds the standard deviation σ_z of the logits, the axis ratio values of
    σ_c/σ_E, as in `modelled`. Over the radius, {name}_mean, _low and _high (radius) are means over draws and the ends
    of their 95 % intervals, for the names in MEASURES. All values are for the number of examples and the dimension of
    planes that claims use; where the study lacks one of them, its largest is taken.
    """
    count = EXAMPLES if EXAMPLES in study["examples"].values else int(study["examples"].max())
    d = profiles.shown_dimension(study)
    run = curves.primary(study).isel(subspace=0).sel(examples=count, dimension=d)
    classes = int(run["classes"])
    # Ratios σ_c/σ_E, including the network's ratio near r_X. As in the model, σ_c and σ_E are of one gradient entry.
    of_network = (run["class_gradient"] / run["example_gradient"]).isel(radius=curves.nearest_to_r_x(run)).mean()
    ratios = sorted([0.0, 0.1, 10.0, float(of_network)])
    over_spread = [[modelled(count, classes, d, ratio, 1.0, spread) for spread in SPREADS] for ratio in ratios]
    meaning = curves.described(f"κ(G) of the random model on planes of {d} dimensions")
    found = xr.Dataset({"model_over_spread": (("ratio", "spread"), over_spread, meaning)})
    found = found.assign_coords(ratio=ratios, spread=SPREADS, x=run["x"].reset_coords(drop=True))
    found["ratio"].attrs = curves.described("σ_c/σ_E")
    found["spread"].attrs = curves.described("standard deviation of the logits, σ_z")
    numbers = (run[name] for name in ("class_gradient", "example_gradient", "logits_std"))
    model = xr.apply_ufunc(lambda *each: modelled(count, classes, d, *each), *numbers, vectorize=True)
    kappa_of_g = run["gauss_newton_trace"] / run["gauss_newton_norm"]
    measures = {"kappa": run["trace_over_norm"], "gauss_newton_kappa": kappa_of_g, "model_kappa": model}
    means = {name: curves.means(measures[name], MEASURES[name][0]).reset_coords(drop=True) for name in measures}
    return found.merge(curves.prefixed(means)).assign_attrs(study.attrs, examples=count, dimension=d)


def modelled(examples: int, classes: int, size: int, cluster: float, noise: float, spread: float) -> float:
    """κ(G) of the random model on planes of `size` dimensions; NaN if all outputs are saturated.

    The model has this number of `examples` and `classes`. `cluster` is σ_c, the standard deviation of the entries of
    mean logit gradients. `noise` is σ_E, the standard deviation of an example's deviations from these means. `spread`
    is σ_z, the standard deviation of the logits.
    """
    p = random_model.probabilities(examples, classes, spread, stream("model over radius"))
    with np.errstate(invalid="ignore"):
        return float(random_model.kappa(p, size, cluster, noise))


def draw_over_spread(ax: Axes, data: xr.Dataset) -> None:
    for number, ratio in enumerate(data["ratio"].values):
        here, label = data["model_over_spread"].sel(ratio=ratio), f"{ratio:.2g}"
        ax.plot(data["spread"], here, color=style.colour(number), linestyle=style.line(number), label=label)
    ax.set(xscale="log", ylim=(0, None), xlabel=r"deviation of the logits $\sigma_z$")
    ax.set(ylabel=r"$\mathrm{Tr}(G)/\Vert G\Vert$", title=panels.lettered(0, "random model"))
    ax.legend(title=r"$\sigma_c/\sigma_E$", loc="lower left", ncols=2)


def draw_over_radius(ax: Axes, data: xr.Dataset) -> None:
    for name, (_, label, number, line) in MEASURES.items():
        here = curves.parts_of(data, name)
        curves.draw_band(ax, data["x"], here, color=style.colour(number), linestyle=line, label=label)
    ax.axvline(0, **style.GREY)
    ax.axhline(0, **style.DASHED)
    title = f"over the radius, $N={data.attrs['examples']}$, $d={data.attrs['dimension']}$"
    limits = panels.limits(*(data[f"{name}_mean"] for name in MEASURES))
    ax.set(xlabel=panels.X_LABEL, ylabel=r"$\mathrm{Tr}/\Vert\cdot\Vert$", title=panels.lettered(1, title), ylim=limits)
    ax.legend(loc="center left")
