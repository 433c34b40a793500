"""Largest eigenvalue of the Hessian during training, for each arm of inputs and optimiser, and controls (Fort & Ganguli
2019)."""

from collections.abc import Iterator

import xarray as xr

from goldilocks_zone.figures import curves, over_steps, panels
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies

FIGURE = {
    "id": "sharpness",
    "studies": ["geometry", "geometry_inputs", "geometry_adam", "geometry_labels", "sharpness_batch", "sharpness_loss"],
    "axis": "radius",
}

# Studies of each panel, by title. A panel that would only repeat studies of earlier panels is left out.
PANELS = (
    ("gradient descent", ("geometry", "geometry_inputs")),
    ("Adam", ("geometry_adam",)),
    ("controls", ("geometry", "geometry_labels", "sharpness_batch", "sharpness_loss")),
)


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    drawn = {name: list(arms(study)) for name, study in studies.items()}
    shown = []
    for title, names in PANELS:
        repeated = {name for _, earlier in shown for name in earlier}
        if drawn.keys() & (set(names) - repeated):
            shown.append((title, names))
    figure, axes = panels.page(len(shown), settings, room=1.55)
    for panel, (ax, (title, names)) in enumerate(zip(axes, shown)):
        present = [name for name in names if name in drawn]
        lines = [arm for name in present for arm in drawn[name]]
        for number, (label, found) in enumerate(lines):
            over_steps.draw_over_steps(ax, found, number, label)
        # The stability threshold 2/rate holds for gradient descent, but not for Adam.
        by_study = (curves.settings_of(studies[name]) for name in present)
        limits = sorted({2 / each["rate"] for each in by_study if each["optimiser"] == "sgd"})
        for number, height in enumerate(limits):
            ax.axhline(height, color="0.3", linewidth=0.8, linestyle=":", label="_" * number + "2/rate")
        over_steps.step_axis(ax, lines[-1][1]["step"].values)
        over_steps.logarithmic_axis(ax, *limits, *(found["mean"] for _, found in lines))
        panels.legend_above(ax, panels.lettered(panel, title), columns=1)
    axes[0].set_ylabel("largest eigenvalue (nat)")
    numbered = {f"{name}_{i}": arm for name, of_study in drawn.items() for i, arm in enumerate(of_study)}
    data = panels.side_by_side({name: found for name, (_, found) in numbered.items()})
    return figure, data.assign_attrs({name: label for name, (label, _) in numbered.items()})


def arms(study: xr.Dataset) -> Iterator[tuple[str, xr.Dataset]]:
    """Yield (name, sharpness over steps) for every run of a study; the runs are those of `over_steps.runs`.

    The word Adam at the start of a name is left out. The sharpness is the largest eigenvalue of the Hessian, as a
    geometric mean over draws, with the variables of `curves.logarithmic_means`.
    """
    for name, run in over_steps.runs(study):
        arm = name.removeprefix("Adam").removeprefix(", ") or over_steps.USUAL
        yield arm, curves.logarithmic_means(run["sharpness"]).reset_coords(drop=True)
