"""The parts G and H′ of the Hessian over the scale of the parameters, and the edges of the zone."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from goldilocks_zone.claims.estimators import hessian_parts
from goldilocks_zone.figures import curves, over_scale, panels, style
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies

FIGURE = {"id": "parts", "studies": ["scale_fc", "scale_lenet5", "scale_annuli"], "axis": "scale"}

HEIGHTS = [r"$\kappa$", r"$\log_{10}$ norm (nat)", r"$\log_{10}(\Vert G\Vert/\Vert H'\Vert)$"]
NORMS = {"gauss_newton_spectral_norm": r"$\Vert G\Vert_2$", "residual_spectral_norm": r"$\Vert H'\Vert_2$"}
RATIOS = {"spectral_norm": "spectral norms", "norm": "Frobenius norms"}
SMALLEST = -16  # log10 at which norms are clipped


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    data = {name: shown(study) for name, study in studies.items()}
    figure = over_scale.stacks(studies, settings, HEIGHTS, draw_parts, data)
    return figure, panels.side_by_side(data)


def shown(study: xr.Dataset) -> xr.Dataset:
    """Means over draws of κ, of Tr(G)/√(‖G‖_F² + ‖H′‖_F²), and of log10 of norms and of ratios ‖G‖/‖H′‖.

    κ is Tr(H)/‖H‖_F of the Hessian H, G is its Gauss–Newton part, and H′ = H − G. {name}_mean, _low and _high (radius)
    are the mean and the ends of its simultaneous 95 % band. inner_edge and outer_edge are the mean log10 α of the
    zone's edges, with α the scale of the initialisation; an edge is NaN unless every draw has a zone and this edge.
    """
    here = over_scale.first_cell(over_scale.parameters_rescaled(study))
    with np.errstate(divide="ignore"):
        norms = {name: xr.ufuncs.log10(here[name]).clip(SMALLEST) for name in NORMS}
    squares = here["gauss_newton_norm"] ** 2 + here["residual_norm"] ** 2
    kappa, ratios = here["trace_over_norm"], {f"ratio_{norm}": hessian_parts.log_ratio(here, norm) for norm in RATIOS}
    of_norms = here["gauss_newton_trace"] / np.sqrt(squares)
    result = over_scale.bands(here, {"trace_over_norm": kappa, "kappa_of_norms": of_norms, **norms, **ratios})
    in_zone = (kappa.max("radius") > hessian_parts.ZONE).all()
    for name, outer in (("inner_edge", False), ("outer_edge", True)):
        places = hessian_parts.edges(kappa, ratios["ratio_spectral_norm"], outer)[0][1]
        place = places.mean() if np.isfinite(places).all() and in_zone else np.nan
        result[name] = ((), place, curves.described(f"mean log10 α of the {name.replace('_', ' ')}"))
    return result


def draw_parts(stack: list[Axes], data: xr.Dataset) -> None:
    kappa, norms, ratios = stack
    over_scale.draw(kappa, data, "trace_over_norm", 0, "measured")
    of_norms = r"$\mathrm{Tr}\,G/\sqrt{\Vert G\Vert_F^2+\Vert H'\Vert_F^2}$"
    over_scale.draw(kappa, data, "kappa_of_norms", 4, of_norms, "--")
    kappa.axhline(1, **style.DASHED)
    for number, (name, label) in enumerate(NORMS.items(), 1):
        over_scale.draw(norms, data, name, number, label)
    for number, (norm, label) in enumerate(RATIOS.items()):
        over_scale.draw(ratios, data, f"ratio_{norm}", (3, 5)[number], label, ("-", "--")[number])
    ratios.axhline(0, **style.DASHED)
    ratios.set_ylim(-2.5, 2.5)
    over_scale.limit(kappa, data, "trace_over_norm", "kappa_of_norms")
    over_scale.limit(norms, data, *NORMS)
    # Norms clipped at SMALLEST form a plateau without meaning.
    norms.set_ylim(bottom=max(norms.get_ylim()[0], SMALLEST + 1))
    for ax in stack:
        for edge in ("inner_edge", "outer_edge"):
            if np.isfinite(data[edge]):
                ax.axvline(float(data[edge]), color="0.4", linewidth=0.6, linestyle=":", zorder=0)
