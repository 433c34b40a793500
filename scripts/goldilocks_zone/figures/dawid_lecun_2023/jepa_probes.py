"""R² and accuracy of linear probes of embeddings, by arm and size, and the AUC of the energy between pairs that differ
little, over the amplitude of the detail (Dawid & LeCun 2023)."""

from collections.abc import Callable

import xarray as xr
from matplotlib.axes import Axes

from goldilocks_zone.figures import curves, embeddings, panels, style
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies

FIGURE = {
    "id": "jepa_probes",
    "studies": ["jepa_arms", "jepa_arms_mnist", "jepa_detail", "jepa_detail_sizes"],
    "needs": ["arm"],
}

RING = {"theta_r_squared": r"fast angle $\theta$", "phi_r_squared": r"slow angle $\varphi$", "detail_r_squared": "$u$"}
DIGITS = {"label_accuracy": "left digit", "right_label_accuracy": "right digit"}
FLOOR = -0.2  # lower R² are drawn at this value
LINES = {"markersize": 3.6, "linewidth": 1.0}


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    shown = [(name, panel) for name, panel in PANELS.items() if name in studies]
    figure, axes = panels.page(max(1, len(shown)), settings, columns=2, room=1.15)
    parts = {}
    for number, (ax, (name, (title, kept, variables, paint))) in enumerate(zip(axes, shown)):
        parts[name] = measured(studies[name], variables, kept)
        paint(ax, parts[name])
        panels.legend_above(ax, panels.lettered(number, title), columns=3)
    return figure, embeddings.source(parts)


def measured(study: xr.Dataset, variables: list[str], kept: tuple[str, ...]) -> xr.Dataset:
    """Select `variables` of a study, with the axes `kept` and draw, and add their means over draws.

    {variable}_mean, _low and _high are the mean and the ends of its 95 % interval. R² below FLOOR are set to FLOOR.
    Axes in `kept` that the study lacks are skipped.
    """
    axes, found = [axis for axis in kept if axis in study.dims], {}
    for name in variables:
        values = embeddings.values_of(study, name, *axes)
        if name in RING:
            values = values.clip(min=FLOOR, keep_attrs=True)
        found[name] = values
    return curves.prefixed({name: curves.means(values) for name, values in found.items()}).assign(found)


def by_arm(names: dict[str, str], label: str, start: float) -> Callable[[Axes, xr.Dataset], None]:
    """Return a function of a panel and a result of `measured`, which draws its variables in one row per arm.

    An arm is one way to train. `names` holds the legend text of each variable to draw. The x-axis is labelled `label`
    and runs from `start` to 1; lower values are drawn at `start`.
    """

    def paint(ax: Axes, data: xr.Dataset) -> None:
        looks = [style.look(number, linestyle="none") for number in range(len(names))]
        series = [(look, data[name]) for look, name in zip(looks, names)]
        embeddings.draw_rows(ax, embeddings.arms_of(data), series, floor=start)
        for look, text in zip(looks, names.values()):
            ax.plot([], [], label=text, markersize=4, **look)
        ax.set(xlabel=label, xlim=(start - 0.03, 1.03))
        ax.axvline(0, **style.GREY)

    return paint


def over_amplitude(ax: Axes, data: xr.Dataset) -> None:
    """Draw the AUC of the energy for pairs that differ little, over the amplitude of the detail, one curve per arm.

    `data` is a result of `measured` with the variable auc_hard.
    """
    data = data if "amplitude" in data.dims else data.expand_dims(amplitude=[1.0])
    for arm in embeddings.arms_of(data):
        here = data.sel(arm=arm)
        look = embeddings.look_of(arm, label=embeddings.ARMS[arm], **LINES)
        embeddings.draw_known(ax, here["amplitude"].values, curves.parts_of(here, "auc_hard"), **look)
    ax.axhline(0.5, **style.DASHED)
    ax.set_xticks(data["amplitude"].values, [f"{each:g}" for each in data["amplitude"].values])
    low = min(0.5, float(embeddings.finite(data["auc_hard_mean"]).min()))
    ax.set(xlabel="amplitude $A$ of the detail", ylabel="AUC, hard pairs", ylim=(low - 0.03, 1.02))


def over_size(ax: Axes, data: xr.Dataset) -> None:
    """Draw R² of the probes for each target in RING over the embedding size, for the first arm.

    `data` is a result of `measured`.
    """
    data = data.isel(arm=0)
    data = data if "embedding" in data.dims else data.expand_dims(embedding=[16])
    for number, (name, text) in enumerate(RING.items()):
        look = style.look(number, label=text, **LINES)
        embeddings.draw_known(ax, data["embedding"].values, curves.parts_of(data, name), **look)
    ax.set(xlabel="size $e$ of the embedding", ylabel="$R^2$, full", ylim=(FLOOR - 0.03, 1.03), xscale="log")
    ax.set_xticks(data["embedding"].values, [str(each) for each in data["embedding"].values])
    ax.minorticks_off()
    ax.axhline(0, **style.GREY)


# Title, axes, variables and drawing function of each study's panel.
PANELS = {
    "jepa_arms": ("ring world", ("arm",), list(RING), by_arm(RING, "$R^2$ of probes", FLOOR)),
    "jepa_arms_mnist": ("moving MNIST", ("arm",), list(DIGITS), by_arm(DIGITS, "accuracy of probes", 0)),
    "jepa_detail": ("pairs that differ little", ("arm", "amplitude"), ["auc_hard"], over_amplitude),
    "jepa_detail_sizes": ("sizes of embeddings", ("arm", "embedding"), list(RING), over_size),
}
