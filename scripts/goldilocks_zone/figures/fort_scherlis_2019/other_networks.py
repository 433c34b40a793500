"""Tr(H)/‖H‖ over the radius for other networks and datasets (Fort & Scherlis 2019, figure 4)."""

from goldilocks_zone.figures import curves, panels, profiles, style
from goldilocks_zone.figures.fort_scherlis_2019 import variants
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies

FIGURE = {"id": "other_networks", "studies": ["networks", "fashion_mnist", "cifar10", "tanh", "cnn"], "axis": "radius"}


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    figure, axes = panels.page(len(studies), settings, x_label=panels.X_LABEL)
    drawn = {}
    for (name, study), ax in zip(studies.items(), axes):
        study = study.sel(examples=study["examples"].max())
        data = drawn[name] = curves.over_radii(study, "trace_over_norm")
        for number, (label, cell) in enumerate(variants.of_study(study)):
            curve = data.sel(cell)
            curves.draw_curve(ax, curve.sel(dimension=profiles.DIMENSION), number, label, deviations=False)
            for d in curve["dimension"].values[curve["dimension"] < profiles.DIMENSION]:
                thin = curve.sel(dimension=d)
                ax.plot(thin["x"], thin["mean"], color=style.colour(number), linestyle="--", linewidth=0.7)
        ax.axhline(1.0, **style.DASHED)
        ax.axvline(0.0, **style.GREY)
        panels.legend_above(ax, variants.title(study, name))
        curves.limit(ax, data)
    panels.label_y(figure, r"$\mathrm{Tr}(H)/\Vert H\Vert$")
    return figure, panels.side_by_side(drawn)
