"""How well networks train from every radius, beside their curvature and their logits at the start."""

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

from goldilocks_zone.claims import zone_map
from goldilocks_zone.figures import curves, over_radius, style
from goldilocks_zone.figures import panels as figures_panels
from goldilocks_zone.jobs.log import job_log

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
SHOWN = 7  # of log10 σ_z, at most: further out networks train alike
DODGE = 0.03  # in log10(r/r_X), between the curves of two networks
ROOM = 1.08  # for what stands above the panels, relative to all rows of them


def plot_zone_map(
    paths_to_studies: list[str], path_to_settings: str, path_to_pdf: str, path_to_png: str, path_to_data: str
) -> None:
    studies, settings = figures_panels.load_all(paths_to_studies, path_to_settings)
    panels, found = {}, {}
    for study, (measures, variables) in SHOWN_OF.items():
        if study in studies:
            cells = zone_map.by_network(measures(studies[study]))
            x = studies[study]["x"] / 2
            panels |= {name: curves.means(cells[name]).assign_coords(place=x) for name in variables}
    if len(studies) == len(SHOWN_OF):
        points = zone_map.points(studies[TRAINING], studies[CURVATURE])
        found = zone_map.statistics(studies[TRAINING], studies[CURVATURE])
        if points["accuracy"].size:
            panels["sigma"] = curves.means(points["accuracy"]).assign_coords(place=points["log10_sigma"].mean("draw"))
    for name, data in panels.items():
        meaning = zone_map.MEANINGS["log10_sigma"] if name == "sigma" else "log10(r/r_X)"
        data["place"].attrs = {"units": "1", "long_name": meaning}
    names = list(dict.fromkeys(label for data in panels.values() for label in data["network"].values.tolist()))
    figure, axes = figures_panels.page(len(panels), settings, min(len(panels), 2), share_x=False)
    figure.set_size_inches(figure.get_size_inches() * [1, ROOM])
    for number, (ax, (name, data)) in enumerate(zip(axes, panels.items())):
        draw_networks(ax, name, data, names)
        if name in NEUTRAL:
            frame(ax, name, data)
        else:
            over_radius.frame(ax, studies[TRAINING].isel(dataset=0), float(data["mean"].max()))
        ax.set_title(f"({over_radius.letter(number)}) {TITLES[name]}{correlation(*found.get(name, ()))}")
        ax.set_ylabel(LABELS[name])
    handles = [plt.Line2D([], [], label=label, **look(i)) for i, label in enumerate(names)]
    figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 5))
    drawn = panels | ({"statistics": as_dataset(found)} if found else {})
    style.save(figure, figures_panels.side_by_side(drawn), path_to_pdf, path_to_png, path_to_data)


def as_dataset(found: dict[str, tuple[float, float, float]]) -> xr.Dataset:
    """Statistics with the ends of their 95 % intervals as variables (quantity)."""
    meanings = dict.fromkeys(found, "Spearman's correlation with accuracy over networks and radii")
    meanings["gain"] = "mean absolute error of accuracy foretold from σ_z, minus that from σ_z and Tr(H)/‖H‖"
    variables = {
        name: ("quantity", list(values), {"units": "1", "long_name": meanings[name]}) for name, values in found.items()
    }
    return xr.Dataset(variables, {"quantity": ["value", "low", "high"]})


def look(number: int) -> dict:
    """Colour, marker and line of the network of this number."""
    return {
        "color": style.colour(number),
        "marker": style.marker(number),
        "linestyle": style.LINES[number % len(style.LINES)],
        "markersize": 2.5,
        "linewidth": 0.9,
    }


def draw_networks(ax: plt.Axes, name: str, data: xr.Dataset, names: list[str]) -> None:
    """A curve for each network, which looks as its number among `names`, at the places of its points."""
    count = data.sizes["network"]
    for i in range(count):
        here = data.isel(network=i)
        x = here["place"].values
        if name == "sigma":
            here, x = here.isel(radius=np.abs(x) <= SHOWN), x[np.abs(x) <= SHOWN]
        else:
            x = x + DODGE * (i - (count - 1) / 2)
        curves.draw_means(ax, x, here, **look(names.index(here["network"].item())))
    ax.set_xlabel(r"$\log_{10}\sigma_z$" if name == "sigma" else over_radius.X_LABEL)


def frame(ax: plt.Axes, name: str, data: xr.Dataset) -> None:
    """The neutral value and r_X in grey, and room for means; bars of few draws may leave the axes."""
    ax.axhline(NEUTRAL[name], color="0.6", linewidth=0.5, linestyle="--", zorder=0)
    ax.axvline(0, color="0.6", linewidth=0.5, zorder=0)
    style.limit(ax, data)


def correlation(*value_and_interval: float) -> str:
    """Spearman's correlation and its interval, as the end of a title."""
    shown = [f"{round(number, 2) + 0:.2f}".replace("-", "−") for number in value_and_interval if np.isfinite(number)]
    return (rf", $\rho$ = {shown[0]}" if shown else "") + (f" [{shown[1]}, {shown[2]}]" if len(shown) == 3 else "")


if __name__ == "__main__":
    with job_log(snakemake.log[0], snakemake.input):
        plot_zone_map(
            paths_to_studies=list(snakemake.input.studies),
            path_to_settings=snakemake.input.settings,
            path_to_pdf=snakemake.output.pdf,
            path_to_png=snakemake.output.png,
            path_to_data=snakemake.output.data,
        )
