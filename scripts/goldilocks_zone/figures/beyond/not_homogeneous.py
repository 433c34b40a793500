"""κ and the ratio of the Hessian's parts in networks whose logits are not homogeneous in their parameters."""

import xarray as xr
from matplotlib.axes import Axes

from goldilocks_zone.claims.estimators import hessian_parts
from goldilocks_zone.figures import over_scale, panels, style
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies
from goldilocks_zone.models import labels

FIGURE = {"id": "not_homogeneous", "studies": ["not_homogeneous"], "axis": "scale"}

# Label, style number, threshold at which the zone should end, and the strip that marks where the measure exceeds this
# threshold: its lower and upper edge as fractions of the panel's height.
MEASURES = {
    "trace_over_norm": (r"$\kappa$", 0, 1, (0.97, 1.0)),
    "ratio": (r"$\log_{10}(\Vert G\Vert_2/\Vert H'\Vert_2)$", 3, 0, (0.0, 0.03)),
}


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    (study,) = studies.values()
    of_networks = {label: study.sel(network=[label]) for label in study["network"].values.tolist()}
    data, heights = {}, [label for label, *_ in MEASURES.values()]
    for label, of_network in of_networks.items():
        cell = over_scale.first_cell(over_scale.parameters_rescaled(of_network))
        ratio = hessian_parts.log_ratio(cell, "spectral_norm")
        data[label] = over_scale.bands(cell, {"trace_over_norm": cell["trace_over_norm"], "ratio": ratio})
    titles = {label: title(label) for label in data}
    figure = over_scale.stacks(of_networks, settings, heights, draw_network, data, titles, len(data))
    parts: list[xr.Dataset] = [found.expand_dims(network=[label]) for label, found in data.items()]
    return figure, xr.concat(parts, "network")


def title(label: str) -> str:
    """Title of a panel for the network with this `label`.

    For a fully connected network, it lists the properties that make the logits not homogeneous in the parameters, such
    as biases. If there is no such property, it is the word homogeneous. For any other network, it is the label.
    """
    network = labels.parse_network(label) if labels.is_network(label) else None
    if not isinstance(network, labels.FullyConnected):
        return label
    parts = {
        "biases": network.biases,
        network.activation: network.activation not in labels.HOMOGENEOUS,
        "residual": network.residual,
        "layer norm.": network.normalised,
    }
    return ", ".join(name for name, present in parts.items() if present) or "homogeneous"


def draw_network(stack: list[Axes], data: xr.Dataset) -> None:
    """Draw κ in the upper panel of `stack`, and log10 of the ratio ‖G‖₂/‖H′‖₂ in the lower one, over log10 α.

    κ is Tr(H)/‖H‖ of the Hessian H, G is its Gauss–Newton part, H′ = H − G, and α is the scale of the initialisation.
    `data` holds their means with bands. Two strips in each panel mark where κ > 1 and where ‖G‖₂ > ‖H′‖₂. They coincide
    if the ratio determines the zone.
    """
    for ax, (name, (label, number, reference, _)) in zip(stack, MEASURES.items()):
        over_scale.draw(ax, data, name, number, label)
        ax.axhline(reference, **style.DASHED)
    threshold = MEASURES["trace_over_norm"][2]
    stack[0].set_ylim(panels.limits(data["trace_over_norm_mean"], [threshold]))
    stack[1].set_ylim(-2.5, 2.5)
    for name, (_, number, reference, strip) in MEASURES.items():
        exceeds = (data[f"{name}_mean"] > reference).values
        look = {"color": style.colour(number), "alpha": 0.5, "linewidth": 0}
        for ax in stack:
            ax.fill_between(data["x"], *strip, where=exceeds, transform=ax.get_xaxis_transform(), **look)
