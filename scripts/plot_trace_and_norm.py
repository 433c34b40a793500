"""Tr(H) and ‖H‖ over the radius, with the zone's edges (Fort & Scherlis 2019, figure 5b)."""

import numpy as np
import xarray as xr

from goldilocks_zone.figures import style
from goldilocks_zone.jobs.log import job_log

CURVES = {"trace": r"$\mathrm{Tr}(H)$", "frobenius_norm": r"$\Vert H\Vert$"}


def plot_trace_and_norm(
    path_to_study: str, path_to_settings: str, path_to_pdf: str, path_to_png: str, path_to_data: str
) -> None:
    study, settings = style.load(path_to_study, path_to_settings)
    d = style.shown_dimension(study)
    study = study.sel(dimension=d)
    data = xr.concat([style.curves(study, name) for name in CURVES], dim="quantity", combine_attrs="override")
    data = data.assign_coords(quantity=list(CURVES))
    counts = style.numbers_of_examples(study)
    ratio = study["trace_over_norm"].sel(examples=counts[0]).mean("draw")
    # The mean trace is zero but for noise inside of the zone: a logarithmic axis shows where it is above.
    error = data["standard_deviation"].fillna(0) / np.sqrt(study.sizes["draw"])
    visible = data.where(data["mean"] > error)
    figure, axes = style.panels(study, settings)
    for ax, cell in axes:
        for number, (name, label) in enumerate(CURVES.items()):
            curve = visible.sel(cell).sel(quantity=name)
            style.draw_curve(ax, curve.sel(examples=counts[0]), number, f"{label}, $d={d}$", deviations=False)
            style.draw_fewer_examples(ax, curve, counts, number)
        for edge in edges(study["x"].values, ratio.sel(cell).values):
            ax.axvline(edge, color="0.4", linewidth=0.7, linestyle="--", zorder=0)
        # Bands that reach down to zero end at the axis.
        ax.set_yscale("log", nonpositive="clip")
        ax.set_ylim(float(visible["mean"].min()) / 3, float(visible["mean"].max()) * 5)
        ax.plot([], [], color="0.4", linewidth=0.7, linestyle="--", label=r"$\mathrm{Tr}(H)/\Vert H\Vert=1$")
        handles = [*ax.get_legend_handles_labels()[0], *style.example_handles(counts)]
        style.legend(ax, handles, loc="upper left")
    style.label_y(figure, r"$\mathrm{Tr}(H)$, $\Vert H\Vert$ (nat)")
    style.save(figure, data, path_to_pdf, path_to_png, path_to_data)


def edges(x: np.ndarray, ratio: np.ndarray) -> list[float]:
    """Where the ratio crosses 1, by linear interpolation: the edges of the zone."""
    crossings = np.flatnonzero(np.diff(np.sign(ratio - 1)))
    return [float(x[i] + (1 - ratio[i]) / (ratio[i + 1] - ratio[i]) * (x[i + 1] - x[i])) for i in crossings]


if __name__ == "__main__":
    with job_log(snakemake.log[0], snakemake.input):
        plot_trace_and_norm(
            path_to_study=snakemake.input.studies[0],
            path_to_settings=snakemake.input.settings,
            path_to_pdf=snakemake.output.pdf,
            path_to_png=snakemake.output.png,
            path_to_data=snakemake.output.data,
        )
