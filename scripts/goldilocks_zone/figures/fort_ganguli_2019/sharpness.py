"""The largest eigenvalue of the Hessian along training, for each arm of inputs and optimiser, and controls (Fort &
Ganguli 2019)."""

from collections.abc import Iterator

import xarray as xr

from goldilocks_zone.figures import curves, over_steps, panels
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies

FIGURE = {
    "id": "sharpness",
    "studies": ["geometry", "geometry_inputs", "geometry_adam", "geometry_labels", "sharpness_batch", "sharpness_loss"],
    "axis": "radius",
}

PRIMARY = "geometry"
# Title and studies of each panel.
PANELS = (
    ("gradient descent", (PRIMARY, "geometry_inputs")),
    ("Adam", ("geometry_adam",)),
    ("controls", (PRIMARY, "geometry_labels", "sharpness_batch", "sharpness_loss")),
)


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    drawn = {name: list(arms(study)) for name, study in studies.items()}
    shown = [(title, names) for title, names in PANELS if drawn.keys() & set(names)]
    figure, axes = panels.page(len(shown), settings, room=1.55)
    for panel, (ax, (title, names)) in enumerate(zip(axes, shown)):
        lines = [(*each, studies[name]) for name in names if name in drawn for each in drawn[name]]
        for number, (label, found, _) in enumerate(lines):
            over_steps.draw_over_steps(ax, found, number, label)
            steps = found["step"].values
        limits = sorted({stability(study) for *_, study in lines} - {None})
        for number, height in enumerate(limits):
            ax.axhline(height, color="0.3", linewidth=0.8, linestyle=":", label="_" * number + "2/rate")
        over_steps.step_axis(ax, steps)
        over_steps.logarithmic_axis(ax, *limits, *(found["mean"] for _, found, _ in lines))
        panels.legend_above(ax, panels.lettered(panel, title), columns=1)
    axes[0].set_ylabel("largest eigenvalue (nat)")
    data = {f"{name}_{i}": found for name, each in drawn.items() for i, (_, found) in enumerate(each)}
    names = {f"{name}_{i}": label for name, each in drawn.items() for i, (label, _) in enumerate(each)}
    return figure, panels.side_by_side(data).assign_attrs(names)


def arms(study: xr.Dataset) -> Iterator[tuple[str, xr.Dataset]]:
    """The name of every run of a study, and geometric means over draws with their intervals."""
    for name, run in over_steps.runs(study):
        arm = name.removeprefix("Adam").removeprefix(", ") or over_steps.USUAL
        yield arm, over_steps.logarithmic_means(run["sharpness"]).reset_coords(drop=True)


def stability(study: xr.Dataset) -> float | None:
    """Largest stable eigenvalue of gradient descent at the study's rate; None for Adam."""
    settings = curves.settings_of(study)
    return 2 / settings["rate"] if settings["optimiser"] == "sgd" else None
