"""Loss, Tr(H) and ‖H‖ over the radius for other networks and datasets (Fort & Scherlis 2019, figure 5)."""

import math

import numpy as np

from goldilocks_zone.figures import curves, panels, profiles, style
from goldilocks_zone.figures.fort_scherlis_2019 import other_networks
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies
from goldilocks_zone.models import labels

FIGURE = {"id": "other_losses", "studies": ["networks", "fashion_mnist", "cifar10", "tanh", "cnn"], "axis": "radius"}
MEASURES = {"trace": ("-", r"$\mathrm{Tr}(H)$"), "frobenius_norm": ("--", r"$\Vert H\Vert$")}


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    figure, stacks = panels.stacked(len(studies), 2, settings, x_label=panels.X_LABEL)
    drawn = {}
    for (name, study), (upper, lower) in zip(studies.items(), stacks):
        study = study.sel(examples=study["examples"].max())
        found = {kind: curves.over_radii(study, kind) for kind in ("loss", *MEASURES)}
        for number, (label, cell) in enumerate(other_networks.variants(study)):
            loss = found["loss"].sel(cell)
            depth, fit = labels.depth(loss["network"].item()), profiles.power_law(loss["x"].values, loss["mean"].values)
            fitted = f" {fit[0]:.2f}" + (f" ({depth})" if depth else "") if fit else ""
            curves.draw_curve(upper, loss, number, label + fitted, deviations=False)
            for kind, (line, _) in MEASURES.items():
                curve = found[kind].sel(cell).sel(dimension=profiles.shown_dimension(study))
                # Inside the zone, the mean trace is noise around zero.
                error = curve["standard_deviation"].fillna(0) / np.sqrt(study.sizes["draw"])
                seen = curve["mean"].where(curve["mean"] > error)
                lower.plot(curve["x"], seen, color=style.colour(number), linestyle=line, linewidth=0.9)
        upper.axhline(math.log(int(study["classes"].values[0])), **style.GREY)
        panels.legend_above(upper, other_networks.title(study, name))
        lower.set_yscale("log")
        means = found["loss"]["mean"]
        upper.set(yscale="log", ylim=(float(means.min()) / 3, float(means.max()) * 5))
        drawn |= {f"{name}_{kind}": curve for kind, curve in found.items()}
    for upper, lower in stacks[::3]:
        upper.set_ylabel("mean loss (nat)")
        lower.set_ylabel(r"$\mathrm{Tr}(H)$, $\Vert H\Vert$ (nat)")
    entries = [panels.entry(label, color="k", linestyle=line) for line, label in MEASURES.values()]
    stacks[0][1].legend(handles=entries, loc="upper left")
    return figure, panels.side_by_side(drawn)
