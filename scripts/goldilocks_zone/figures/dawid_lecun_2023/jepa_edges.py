"""Edge of the zone of joint embeddings, measured and by the formula of wide networks, for several views, depths and
weights, and the traces of layers that enter the formula (Dawid & LeCun 2023).

A cell holds the results for one kind of views and one number of layers, with several VICReg losses; one more cell holds
those for InfoNCE. Edges are locations in x = log10(r²/r_X²).
"""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from goldilocks_zone.figures import curves, embeddings, panels, style
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies
from goldilocks_zone.models import labels as networks

FIGURE = {
    "id": "jepa_edges",
    "studies": ["jepa_zone", "jepa_zone_views", "jepa_zone_depths", "jepa_zone_info_nce", "jepa_zone_layers"],
    "needs": ["criterion"],
}

EDGES = ["edge", "edge_formula", "edge_formula_alike", "last_layer_edge", "ray_minimum"]
ALIKE = {"less_formula": ("edge", "edge_formula"), "less_formula_alike": ("edge", "edge_formula_alike")}
LAST = {"less_minimum": ("last_layer_edge", "ray_minimum")}
MEANINGS = {
    "less_formula": "measured edge minus that of the formula, in x = log10(r²/r_X²)",
    "less_formula_alike": "measured edge minus that of the formula with R = 1, in x",
    "less_minimum": "edge on planes in the last layer minus the minimum of the loss on the ray, in x",
}
MARGIN = 0.03
VIEWS = {
    "shift_2": "shifts ≤ 2, 3 layers",
    "shift_1": "shifts ≤ 1",
    "noise": "noise",
    "shuffled": "shuffled pairs",
}
DEPTHS = {2: "2 layers", 5: "5 layers"}
ORDER = [*VIEWS.values(), *DEPTHS.values()]
INFO_NCE = "info_nce-dot-both"
WIDTH = 0.6  # horizontal range over which the markers of all cells at one μ/λ are spread
LOOKS = {"markersize": 3.6, "linestyle": "none"}
LAYERS = {"invariance": "$I$", "variance": "$V$", "cross_entropy": "cross-entropy"}
DEPTH_LINES = {3: "-", 5: "--"}


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    cells = {title: measured(here) for title, here in cells_of(studies).items()}
    labels = list(dict.fromkeys(label for here in cells.values() for label in here["edge_loss"].values.tolist()))
    labels = sorted(labels, key=lambda label: (label == INFO_NCE, ratio(label)))
    ratios = [label for label in labels if label != INFO_NCE]
    layers = layers_of(studies["jepa_zone_layers"]) if "jepa_zone_layers" in studies else {}
    titles = ["edge on planes", "beside the formula", "last layer"] if cells else []
    figure, axes = panels.page(max(1, len(titles) + bool(layers)), settings, columns=2, room=1.3)
    if cells:
        draw_places(axes[0], cells)
        draw_differences(axes[1], cells, ratios, ALIKE)
        draw_differences(axes[2], cells, labels, LAST)
        axes[1].set(ylabel="measured − formula (in $x$)")
        axes[2].set(ylabel="edge − minimum (in $x$)")
    if layers:
        draw_layers(axes[len(titles)], layers, panels.lettered(len(titles), "traces of layers"))
    panels.letter_titles(axes[: len(titles)], titles)
    handles = [panels.entry(title, **look_of(title)) for title in cells if title in ORDER]
    if cells:
        handles.append(panels.entry("formula with $R=1$", color="0.4", marker="o", markerfacecolor="white", **LOOKS))
    if INFO_NCE in labels:
        handles.append(panels.entry("InfoNCE", **look_of("InfoNCE")))
    panels.legend_on_top(figure, handles, columns=4)
    parts = {name_of(title): here for title, here in cells.items()}
    return figure, embeddings.source(parts | {f"layers_{depth}": here for depth, here in layers.items()})


def ratio(label: str) -> float:
    """Ratio μ/λ that the label of a VICReg loss states, such as 1 for vicreg-1; NaN for labels of other losses.

    μ is the weight of the variance term, and λ the weight of the invariance term.
    """
    return float(label.partition("vicreg-")[2] or "nan")


def cells_of(studies: Studies) -> dict[str, xr.Dataset]:
    """Variables EDGES (edge_loss, draw) of each cell of the figure, as {title: dataset}.

    The labels along edge_loss are losses. The variables are locations in x = log10(r²/r_X²): edges of the zone,
    measured and by the formula, and the minimum of the loss on the ray through θ. Cells that the studies lack are left
    out.
    """
    found = {}
    for name, study in studies.items():
        if "edge_loss" not in study.dims:
            continue
        wanted = [label for label in study["edge_loss"].values.tolist() if label.startswith("vicreg-")]
        if name == "jepa_zone_info_nce":
            wanted = [INFO_NCE] if INFO_NCE in study["edge_loss"].values else []
        for network in study["network"].values.tolist() if wanted else []:
            for views in study["views"].values.tolist() if "views" in study.dims else ["shift_2"]:
                here = embeddings.one(study, EDGES, "edge_loss", network=network, views=views)
                title = (
                    "InfoNCE"
                    if name == "jepa_zone_info_nce"
                    else DEPTHS.get(networks.depth(network) or 0, VIEWS[views])
                )
                found[title] = here.sel(edge_loss=wanted)
    return {title: found[title] for title in [*ORDER, "InfoNCE"] if title in found}


def measured(here: xr.Dataset) -> xr.Dataset:
    """Add means over draws to one cell `here`, a dataset of `cells_of`.

    {name}_mean, _low and _high (edge_loss) are a mean over draws and the ends of its 95 % interval. The names are edge,
    edge_formula and, for the differences between two variables of a draw, the keys of MEANINGS.
    """
    found = {name: curves.means(here[name]) for name in ("edge", "edge_formula")}
    for name, (of, less) in {**ALIKE, **LAST}.items():
        found[name] = curves.means(here[of] - here[less], MEANINGS[name])
    return xr.merge([here, curves.prefixed(found)], combine_attrs="drop_conflicts")


def look_of(title: str) -> dict:
    if title == "InfoNCE":
        return {"color": "0.25", "marker": "x", **LOOKS}
    return style.look(ORDER.index(title), **LOOKS)


def name_of(title: str) -> str:
    """Name in the figure's source data of the cell with this `title`.

    All characters of the title but letters and digits are replaced by underscores, and ≤ becomes the word by.
    """
    return "".join(letter if letter.isalnum() else "_" for letter in title.replace("≤", "by"))


def draw_places(ax: Axes, cells: dict[str, xr.Dataset]) -> None:
    """Draw the measured edge (y) against the edge that the formula predicts (x), for every draw and the mean.

    `cells` holds results of `measured` by title; InfoNCE is left out.
    """
    cells = {title: here for title, here in cells.items() if title != "InfoNCE"}
    for title, here in cells.items():
        look = look_of(title)
        ax.plot(np.ravel(here["edge_formula"]), np.ravel(here["edge"]), **{**look, **embeddings.DOT})
        embeddings.draw_known(ax, here["edge_formula_mean"].values, curves.parts_of(here, "edge"), **look)
    shown = [here[name] for here in cells.values() for name in ("edge", "edge_formula")]
    ends = panels.limits(embeddings.finite(*shown)) if shown else (-1, 1)
    ax.axline((0, 0), slope=1, **style.DASHED)
    ax.set(xlim=ends, ylim=ends, xlabel="$x$ by the formula", ylabel="$x$ measured")


def draw_differences(
    ax: Axes, cells: dict[str, xr.Dataset], labels: Sequence[str], shown: dict[str, tuple[str, str]]
) -> None:
    """Draw the differences of edges in every cell, over the losses in `labels`.

    `cells` holds results of `measured` by title. `shown` is ALIKE or LAST; its keys name the differences to draw. A
    grey strip shows the margin within which edges count as equal.
    """
    ax.axhspan(-MARGIN, MARGIN, color="0.9", linewidth=0, zorder=0)
    ax.axhline(0, **style.GREY)
    drawn = []
    for number, (title, here) in enumerate(cells.items()):
        shift = WIDTH * curves.centred(number, len(cells)) / max(1, len(cells) - 1)
        own = [label for label in labels if label in here["edge_loss"].values]
        if title == "InfoNCE":
            shift = 0.0
        places = np.array([labels.index(label) for label in own], dtype=float) + shift
        for name in shown:
            means = curves.parts_of(here.sel(edge_loss=own), name)
            face = {"markerfacecolor": "white"} if name.endswith("alike") else {}
            embeddings.draw_known(ax, places, means, **{**look_of(title), **face})
            drawn.append(means["mean"])
    words = ["Info-\nNCE" if label == INFO_NCE else f"{ratio(label):g}" for label in labels]
    ax.set_xticks(range(len(labels)), words, fontsize=6.5)
    ax.set(xlabel=r"$\mu/\lambda$", xlim=(-0.5, max(len(labels), 1) - 0.5))
    ax.set_ylim(panels.limits([-1.5 * MARGIN, 1.5 * MARGIN], embeddings.finite(*drawn, otherwise=(0, 0))))


def layers_of(study: xr.Dataset) -> dict[int, xr.Dataset]:
    """Traces of layers relative to the last layer, as {number of layers: dataset}, for the losses in LAYERS.

    The trace of layer l is σ_l² Tr(H_ll): σ_l is the standard deviation of its weights, and H_ll the block of the
    Hessian for them. {loss}_mean, _low and _high (layer) are a mean over draws, divided by the mean for the last layer,
    and the ends of its 95 % interval, at the middle one of the study's radii. {loss}_wide (layer) is the ratio that
    theory predicts for wide networks; it is left out for losses without a prediction in the study.
    """
    found, middle = {}, study.sizes["radius"] // 2
    for network in study["network"].values.tolist():
        depth, parts = networks.depth(network), {}
        for criterion in [each for each in LAYERS if each in study["criterion"].values]:
            traces = embeddings.values_of(study, "layer_trace", "layer", "radius", network=network, criterion=criterion)
            traces = traces.isel(radius=middle, layer=slice(depth), drop=True).transpose("layer", "draw")
            meaning = f"mean of σ_l² Tr(H_ll) of a layer over the last layer's, of the {criterion.replace('_', '-')}"
            ratios = curves.ratios_of_means(traces, traces.isel(layer=-1, drop=True), meaning, "layers", criterion)
            parts |= curves.prefixed({criterion: ratios.rename(ratio="mean")}).data_vars
            if f"{criterion}_ratio" in study:
                wide = embeddings.values_of(study, f"{criterion}_ratio", "layer", network=network)
                parts[f"{criterion}_wide"] = wide.isel(layer=slice(depth)).mean("draw", keep_attrs=True)
        found[depth] = xr.Dataset(parts, attrs=study.attrs)
    return dict(sorted(found.items()))


def draw_layers(ax: Axes, layers: dict[int, xr.Dataset], heading: str) -> None:
    """Draw the relative trace of each layer, with a line for the value that theory predicts for wide networks.

    `layers` is a result of `layers_of`. Where that has no prediction, as for the cross-entropy, the line is at 1.
    `heading` is the panel's title.
    """
    handles = []
    for number, (criterion, text) in enumerate(LAYERS.items()):
        look = style.look(number, **LOOKS)
        for depth, here in layers.items():
            if f"{criterion}_mean" in here:
                places = np.arange(1 - depth, 1) + 0.08 * (number - 1)
                embeddings.draw_known(ax, places, curves.parts_of(here, criterion), **look)
                wide = here.get(f"{criterion}_wide", np.ones(depth))
                ax.plot(places, wide, color=style.colour(number), linestyle=DEPTH_LINES.get(depth, ":"), linewidth=0.9)
        handles.append(panels.entry(text, **look))
    for depth in layers:
        line = DEPTH_LINES.get(depth, ":")
        handles.append(panels.entry(f"{depth} layers, wide", color="0.4", linestyle=line, linewidth=0.9))
    panels.legend_above(ax, heading, handles, columns=3)
    ax.set(xlabel="layer, counted from the last", ylabel="trace over the last layer's")
    ax.set_xticks(range(1 - max(layers), 1))
