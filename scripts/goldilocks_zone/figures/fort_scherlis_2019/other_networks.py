"""Tr(H)/‖H‖ over the radius for other networks and datasets (Fort & Scherlis 2019, figure 4)."""

from itertools import product

import xarray as xr

from goldilocks_zone.figures import curves, panels, profiles, style
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies

FIGURE = {"id": "other_networks", "studies": ["networks", "fashion_mnist", "cifar10", "tanh", "cnn"], "axis": "radius"}
SUFFIXES = {"tanh": ", activations", "cnn": ", convolutional"}  # suffixes of titles, by study


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    figure, axes = panels.page(len(studies), settings, x_label=panels.X_LABEL)
    drawn = {}
    for (name, study), ax in zip(studies.items(), axes):
        study = study.sel(examples=study["examples"].max())
        data = drawn[name] = curves.over_radii(study, "trace_over_norm")
        for number, (label, cell) in enumerate(variants(study)):
            curve = data.sel(cell)
            curves.draw_curve(ax, curve.sel(dimension=profiles.shown_dimension(study)), number, label, deviations=False)
            for d in curve["dimension"].values[curve["dimension"] < profiles.shown_dimension(study)]:
                thin = curve.sel(dimension=d)
                ax.plot(thin["x"], thin["mean"], color=style.colour(number), linestyle="--", linewidth=0.7)
        ax.axhline(1.0, **style.DASHED)
        ax.axvline(0.0, **style.GREY)
        panels.legend_above(ax, title(study, name))
        curves.limit(ax, data)
    panels.label_y(figure, r"$\mathrm{Tr}(H)/\Vert H\Vert$")
    return figure, panels.side_by_side(drawn)


def variants(study: xr.Dataset) -> list[tuple[str, dict]]:
    """List (legend label, axis labels) of every variant of a study; the axis labels select the variant.

    A variant has one network and one value of each setting that the study varies. It keeps the axes radius, draw,
    dimension and layer, and has the study's first dataset and subspace.
    """
    axes = [axis for axis in study.dims if axis not in ("dataset", "subspace", "radius", "draw", "dimension", "layer")]
    fixed = {axis: study[axis].values[0] for axis in ("dataset", "subspace")}
    result = []
    for values in product(*(study[axis].values.tolist() for axis in axes)):
        place = dict(zip(axes, values))
        names = {axis: panels.network_title(str(value)) for axis, value in place.items()}
        if "bias_directions" in place:
            names["bias_directions"] = "biases" if place["bias_directions"] else ""
        result.append((", ".join(filter(None, names.values())), {**fixed, **place}))
    return result


def title(study: xr.Dataset, name: str) -> str:
    return panels.dataset_title(str(study["dataset"].values[0])) + SUFFIXES.get(name, "")
