"""Tr(H)/‖H‖ over r/r_X and over the standard deviation σ_z of the logits, as a test of collapse across networks
(claim by2)."""

import xarray as xr

from goldilocks_zone.figures import panels, profiles, style
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies

FIGURE = {"id": "collapse", "studies": ["networks", "sensitivity"], "axis": "radius"}


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    shown = [family for name, study in studies.items() for family in families(name, study)]
    figure, axes = panels.page(2 * len(shown), settings, len(shown))
    drawn = {}
    for column, (upper, lower, (title, members)) in enumerate(zip(axes, axes[len(shown) :], shown)):
        for number, (label, curve) in enumerate(members):
            mean, spread = curve["trace_over_norm"].mean("draw"), xr.ufuncs.log10(curve["logits_std"]).mean("draw")
            look = style.look(number, markersize=2.2)
            upper.plot(curve["x"], mean, label=label, **look)
            lower.plot(spread, mean, **look)
            drawn[f"{column}_{label}_trace_over_norm"] = mean.reset_coords(drop=True)
            drawn[f"{column}_{label}_log10_logits_std"] = spread.reset_coords(drop=True)
        upper.set_xlabel(panels.X_LABEL)
        lower.set(xlabel=r"$\log_{10}\sigma_z$", xlim=(-6, 6))  # there is no zone beyond
        panels.legend_above(upper, title)
    panels.label_y(figure, r"$\mathrm{Tr}(H)/\Vert H\Vert$")
    return figure, xr.Dataset(drawn)


def families(name: str, study: xr.Dataset) -> list[tuple[str, list[tuple[str, xr.Dataset]]]]:
    """Families of curves that may collapse onto one curve, as [(title, [(label of a curve, its data), …]), …].

    The study called networks gives one family, with one curve per network. Any other study gives two families, both for
    its first network. The first has one curve per preprocessing of the inputs, with the metric shell. The second has
    one curve per metric (the lengths of a plane's directions in each layer), with standardised inputs.
    """
    study = study.sel(dimension=profiles.shown_dimension(study), examples=study["examples"].max()).isel(
        dataset=0, subspace=0
    )
    if name == "networks":
        return [("networks", [(str(label), study.sel(network=label)) for label in study["network"].values])]
    study = study.isel(network=0).sel(bias_directions=False)
    varied = (("preprocessing", "inputs", "metric", "shell"), ("metric", "metric", "inputs", "standardised"))
    return [
        (title, [(str(value).replace("_", " "), study.sel({axis: value, other: kept})) for value in study[axis].values])
        for title, axis, other, kept in varied
    ]
