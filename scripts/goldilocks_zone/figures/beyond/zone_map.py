"""Accuracy of networks after training from every radius, beside their curvature and logits at initialisation."""

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

from goldilocks_zone.claims import zone_map
from goldilocks_zone.figures import curves, over_radius, panels, style
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies

FIGURE = {"id": "zone_map", "studies": ["map_training", "map_curvature"], "axis": "radius"}

TRAINING, CURVATURE = "map_training", "map_curvature"
SHOWN_OF = {TRAINING: (zone_map.of_training, ("accuracy",)), CURVATURE: (zone_map.of_curvature, ("kappa", "fraction"))}
TITLES = {
    "accuracy": "accuracy over the radius",
    "kappa": "trace over norm",
    "fraction": "positive eigenvalues",
    "sigma": "accuracy over logits",
}
LABELS = {
    "accuracy": over_radius.Y_LABEL,
    "kappa": r"$\mathrm{Tr}(H)/\Vert H\Vert$",
    "fraction": "fraction positive",
    "sigma": over_radius.Y_LABEL,
}
NEUTRAL = {"kappa": 1.0, "fraction": 0.5}  # grey lines
FARTHEST = 7  # shown of log10 σ_z: further out networks train alike


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    shown, found = {}, {}
    for study, (measures, variables) in SHOWN_OF.items():
        if study in studies:
            cells = zone_map.by_network(measures(studies[study]))
            x = studies[study]["x"] / 2
            shown |= {name: curves.means(cells[name]).assign_coords(place=x) for name in variables}
    if len(studies) == len(SHOWN_OF):
        points = zone_map.points(studies[TRAINING], studies[CURVATURE])
        found = zone_map.statistics(studies[TRAINING], studies[CURVATURE])
        if points["accuracy"].size:
            shown["sigma"] = curves.means(points["accuracy"]).assign_coords(place=points["log10_sigma"].mean("draw"))
    for name, data in shown.items():
        meaning = zone_map.MEANINGS["log10_sigma"] if name == "sigma" else "log10(r/r_X)"
        data["place"].attrs = curves.described(meaning)
    names = list(dict.fromkeys(label for data in shown.values() for label in data["network"].values.tolist()))
    figure, axes = panels.page(len(shown), settings, min(len(shown), 2), room=1.08)
    for number, (ax, (name, data)) in enumerate(zip(axes, shown.items())):
        draw_networks(ax, name, data, names)
        if name in NEUTRAL:
            frame(ax, name, data)
        else:
            over_radius.frame(ax, studies[TRAINING].isel(dataset=0), float(data["mean"].max()))
        ax.set(title=panels.lettered(number, TITLES[name] + correlation(*found.get(name, ()))), ylabel=LABELS[name])
    handles = [panels.entry(label, **look(i)) for i, label in enumerate(names)]
    panels.legend_on_top(figure, handles, 5)
    if found:
        meanings = dict.fromkeys(found, "Spearman's correlation with accuracy over networks and radii")
        meanings["gain"] = "mean absolute error of accuracy foretold from σ_z, minus that from σ_z and Tr(H)/‖H‖"
        shown["statistics"] = curves.statistics(found, meanings)
    return figure, panels.side_by_side(shown)


def look(number: int) -> dict:
    """Colour, marker and line of the network of this number."""
    return style.look(number, linestyle=style.line(number), markersize=2.5, linewidth=0.9)


def draw_networks(ax: plt.Axes, name: str, data: xr.Dataset, names: list[str]) -> None:
    """Draw a curve for each network, in the look of its number among `names`."""
    count = data.sizes["network"]
    for i in range(count):
        here = data.isel(network=i)
        x = here["place"].values
        if name == "sigma":
            here, x = here.isel(radius=np.abs(x) <= FARTHEST), x[np.abs(x) <= FARTHEST]
        else:
            x = x + 0.03 * curves.centred(i, count)
        curves.draw_means(ax, x, here, **look(names.index(here["network"].item())))
    ax.set_xlabel(r"$\log_{10}\sigma_z$" if name == "sigma" else over_radius.X_LABEL)


def frame(ax: plt.Axes, name: str, data: xr.Dataset) -> None:
    """Mark the neutral value and r_X in grey, with room for means; bars of few draws may leave the axes."""
    ax.axhline(NEUTRAL[name], **style.DASHED)
    ax.axvline(0, **style.GREY)
    curves.limit(ax, data)


def correlation(*value_and_interval: float) -> str:
    """Spearman's correlation and its interval, as the end of a title."""
    shown = [curves.decimal(number) for number in value_and_interval if np.isfinite(number)]
    return (rf", $\rho$ = {shown[0]}" if shown else "") + (f" [{shown[1]}, {shown[2]}]" if len(shown) == 3 else "")
