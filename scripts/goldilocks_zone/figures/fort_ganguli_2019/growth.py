"""Growth of the spread of logits, the length of their gradients and the norm of the weights (Fort & Ganguli 2019)."""

from goldilocks_zone.claims.estimators import local_geometry
from goldilocks_zone.figures import curves, over_steps, panels, style
from goldilocks_zone.figures.interface import Drawn, FigureSettings, Published, Studies

FIGURE = {"id": "growth", "studies": ["geometry", "geometry_labels"], "axis": "radius"}

MEASURES = {
    "logits_std": r"deviation of the logits $\sigma_z$",
    "gradient_length": r"length of logit gradients",
    "norm": r"norm of the weights",
}


def draw(studies: Studies, settings: FigureSettings, published: Published) -> Drawn:
    runs = {name: run for study in studies.values() for name, run in over_steps.runs(study)}
    *_, last = runs.values()
    data, (figure, axes) = {}, panels.page(len(MEASURES), settings)
    for ax, variable in zip(axes, MEASURES):
        for number, (name, run) in enumerate(runs.items()):
            found = curves.logarithmic_means(local_geometry.measured(run[variable])).reset_coords(drop=True)
            shown = "original labels" if name == over_steps.USUAL else name
            over_steps.draw_over_steps(ax, found, number, shown, linestyle=style.line(number))
            data[f"{variable}_{number}"] = found
        over_steps.step_axis(ax, last["step"].values)
        over_steps.logarithmic_axis(ax, *(data[f"{variable}_{number}"]["mean"] for number in range(len(runs))))
    panels.letter_titles(axes, list(MEASURES.values()))
    panels.legend_on_top(figure, axes[0], 2)
    return figure, panels.side_by_side(data).assign_attrs({f"run_{i}": name for i, name in enumerate(runs)})
