"""Accuracy of networks after training from every radius, compared with their curvature and logits at initialisation."""

import numpy as np

from goldilocks_zone.claims import zone_map
from goldilocks_zone.figures import curves, over_radius, panels, style
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies

FIGURE = {"id": "zone_map", "studies": ["map_training", "map_curvature"], "axis": "radius"}

TRAINING, CURVATURE = "map_training", "map_curvature"
SHOWN_OF = {TRAINING: (zone_map.of_training, ("accuracy",)), CURVATURE: (zone_map.of_curvature, ("kappa", "fraction"))}
# Title and y-label of each panel.
TITLES = {
    "accuracy": ("accuracy over the radius", over_radius.Y_LABEL),
    "kappa": ("trace over norm", r"$\mathrm{Tr}(H)/\Vert H\Vert$"),
    "fraction": ("positive eigenvalues", "fraction positive"),
    "sigma": ("accuracy over logits", over_radius.Y_LABEL),
}
NEUTRAL = {"kappa": 1.0, "fraction": 0.5}  # grey lines


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
        for i in range(data.sizes["network"]):
            here, aside = data.isel(network=i), 0.03 * curves.centred(i, data.sizes["network"])
            if name == "sigma":  # beyond |log10 σ_z| = 7 all networks train alike
                here, aside = here.isel(radius=np.abs(here["place"].values) <= 7), 0.0
            curves.draw_means(ax, here["place"].values + aside, here, **look(names.index(here["network"].item())))
        if name in NEUTRAL:
            ax.axhline(NEUTRAL[name], **style.DASHED)
            ax.axvline(0, **style.GREY)
            curves.limit(ax, data)
        else:
            over_radius.frame(ax, studies[TRAINING].isel(dataset=0), float(data["mean"].max()))
        title, label = TITLES[name]
        known = [curves.decimal(value) for value in found.get(name, ()) if np.isfinite(value)]
        title += rf", $\rho$ = {known[0]}" if known else ""
        title += f" [{known[1]}, {known[2]}]" if len(known) == 3 else ""
        x_label = r"$\log_{10}\sigma_z$" if name == "sigma" else over_radius.X_LABEL
        ax.set(title=panels.lettered(number, title), xlabel=x_label, ylabel=label)
    panels.legend_on_top(figure, [panels.entry(label, **look(i)) for i, label in enumerate(names)], 5)
    if found:
        meanings = dict.fromkeys(found, "Spearman's correlation with accuracy over networks and radii")
        meanings["gain"] = "mean absolute error of accuracy foretold from σ_z, minus that from σ_z and Tr(H)/‖H‖"
        shown["statistics"] = curves.statistics(found, meanings)
    return figure, panels.side_by_side(shown)


def look(number: int) -> dict:
    return style.look(number, linestyle=style.line(number), markersize=2.5, linewidth=0.9)
