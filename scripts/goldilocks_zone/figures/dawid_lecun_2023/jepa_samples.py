"""R² of probes for the angles of several rings over the number of negatives, with VICReg and InfoNCE (Dawid & LeCun
2023)."""

import numpy as np
import xarray as xr

from goldilocks_zone.figures import curves, embeddings, panels, style
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies

FIGURE = {
    "id": "jepa_samples",
    "studies": ["jepa_samples"],
    "needs": ["arm", "group"],
}

ARMS = {"full": "VICReg", "infonce": "InfoNCE"}
FEWEST = 3  # negatives at the baseline of the gain; with one, variances and covariances come from only two examples
APART = 0.12  # horizontal offset between two curves of a panel, in rings
LINES = {"markersize": 3.6, "linewidth": 1.0}


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    (study,) = studies.values()
    data = measured(study)
    arms = [arm for arm in ARMS if arm in data["arm"].values]
    figure, axes = panels.page(len(arms) + 1, settings, columns=3, room=1.25, sharey=False)
    shown = embeddings.finite(data["r_squared_mean"])
    for number, (ax, arm) in enumerate(zip(axes, arms)):
        for i, rings in enumerate(data["rings"].values.tolist()):
            look = style.look(i, label=f"$m={rings}$", linestyle=style.line(i), **LINES)
            here = curves.parts_of(data.sel(arm=arm, rings=rings), "r_squared")
            embeddings.draw_known(ax, data["negatives"].values, here, **look)
        ax.set(xlabel="$M$", ylabel="$R^2$ of angles", xscale="log", ylim=panels.limits(shown, margin=0.1))
        ax.set_xticks(data["negatives"].values, [str(each) for each in data["negatives"].values])
        ax.minorticks_off()
        panels.legend_above(ax, panels.lettered(number, ARMS[arm]), columns=2)
    for number, arm in enumerate(arms):
        look = embeddings.look_of(arm, label=ARMS[arm], **LINES)
        places = data["rings"].values + APART * curves.centred(number, len(arms))
        embeddings.draw_known(axes[-1], places, curves.parts_of(data.sel(arm=arm), "gain"), **look)
    axes[-1].axhline(0, **style.DASHED)
    low, high = first_of(data["negatives"].values), data["negatives"].values[-1]
    axes[-1].set(xlabel="number $m$ of rings", ylabel=f"$R^2(M={high})-R^2({low})$")
    axes[-1].set_xticks(data["rings"].values)
    panels.legend_above(axes[-1], panels.lettered(len(arms), "gain"), columns=2)
    return figure, data


def measured(study: xr.Dataset) -> xr.Dataset:
    """Means over draws of R² of probes for the angles, and of its gain from more negatives, with 95 % intervals.

    r_squared_mean, _low and _high have the axes (rings, arm, negatives), with ascending numbers of rings and negatives.
    The gain is R² with the most negatives minus R² with the number of negatives that `first_of` returns. Its mean and
    interval are gain_mean, _low and _high (rings, arm).
    """
    values = embeddings.values_of(study, "angles_r_squared", "dataset", "arm", "group")
    values = values.assign_coords(rings=("dataset", [int(each.split("_")[-1]) for each in values["dataset"].values]))
    values = values.swap_dims(dataset="rings").drop_vars("dataset").sortby("rings")
    values = values.assign_coords(negatives=("group", values["group"].values - 1))
    values = values.swap_dims(group="negatives").drop_vars("group").sortby("negatives")
    few = first_of(values["negatives"].values)
    gain = values.isel(negatives=-1, drop=True) - values.sel(negatives=few, drop=True)
    about = f"R² of angles with the most negatives minus that with {few}"
    found = {"r_squared": curves.means(values), "gain": curves.means(gain, about)}
    return curves.prefixed(found)


def first_of(negatives: np.ndarray) -> int:
    """Number of negatives with which the gain is compared: FEWEST or, if the study lacks it, its smallest number.

    `negatives` are the study's numbers in ascending order.
    """
    return FEWEST if FEWEST in negatives else int(negatives[0])
