"""κ and the ratio of the Hessian's parts in networks whose logits are not homogeneous in their parameters."""

import matplotlib.pyplot as plt
import xarray as xr

from goldilocks_zone.claims.estimators import hessian_parts
from goldilocks_zone.figures import over_scale, style
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies
from goldilocks_zone.models import labels

FIGURE = {"id": "not_homogeneous", "studies": ["not_homogeneous"], "axis": "scale"}

HEIGHTS = [r"$\kappa$", r"$\log_{10}(\Vert G\Vert_2/\Vert H'\Vert_2)$"]
RANGE = 2.5  # shown of the ratio's logarithm, to either side


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    (study,) = studies.values()
    of_networks = {label: study.sel(network=[label]) for label in study["network"].values.tolist()}
    here = {label: over_scale.first_cell(over_scale.parameters_rescaled(each)) for label, each in of_networks.items()}
    data = {label: shown(cell) for label, cell in here.items()}
    titles = {label: title(label) for label in data}
    figure = over_scale.stacks(of_networks, settings, HEIGHTS, draw_network, data, titles, len(data))
    return figure, xr.concat([data[label].expand_dims(network=[label]) for label in data], "network")


def title(label: str) -> str:
    """Title a network by its departures from the theory, or by its label if it is not fully connected."""
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


def shown(cell: xr.Dataset) -> xr.Dataset:
    """Curves of κ and of the ratio of spectral norms."""
    ratio = hessian_parts.log_ratio(cell, "spectral_norm")
    return over_scale.bands(cell, {"trace_over_norm": cell["trace_over_norm"], "ratio": ratio})


def draw_network(stack: list[plt.Axes], data: xr.Dataset) -> None:
    """Draw κ above the ratio, each with the value at which the zone should end."""
    for ax, name, number, reference in zip(stack, ("trace_over_norm", "ratio"), (0, 3), (1, 0)):
        over_scale.draw(ax, data, name, number, HEIGHTS[number // 3])
        ax.axhline(reference, **style.DASHED)
    over_scale.limit(stack[0], data, "trace_over_norm")
    stack[1].set_ylim(-RANGE, RANGE)
    # Where κ exceeds 1, and where the ratio does: the same places if the condition decides.
    for ax, name, reference in zip(stack, ("trace_over_norm", "ratio"), (1, 0)):
        inside = (data[f"{name}_mean"] > reference).values
        ends, number = ((0.97, 1.0), 0) if ax is stack[0] else ((0.0, 0.03), 3)
        look = {"color": style.colour(number), "alpha": 0.5, "linewidth": 0}
        for other in stack:
            other.fill_between(data["x"], *ends, where=inside, transform=other.get_xaxis_transform(), **look)
