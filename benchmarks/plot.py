"""Figures of the cost of the projected Hessian and of training, from results/benchmarks/{curvature,training}.csv.

The figure of curvature shows the time of each method relative to the engine for the main cases and, below, the time
over the number of directions, the number of examples, the hidden width and the number of radii, each varied alone from
the case 784-200-200-10. The figure of training shows only the relative times.
"""

import argparse
import csv
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib.pyplot as plt

from goldilocks_zone.figures import panels, style
from goldilocks_zone.jobs import failures
from goldilocks_zone.storage import files

METHODS = (
    *("engine_sweep", "engine", "matmul", "double backward loop", "PyHessian", "vmap jvp-grad", "curvlinops"),
    *("torch.func.hessian", "plain loop", "vmap jvp-grad compiled"),
)
MAIN = (
    *("784-200-200-10", "3072-200-200-10", "CNN", "784-200-200-10 float64", "784-200-200-10-nobias R=25"),
    *("784-200-200-10 R=25", "784-200-200-10 dense", "784-200-200-10-nobias R=25 dense"),
)
# Label of the x axis, pattern of the cases, and the value of x for cases whose name does not state it.
GROWTH = (
    ("directions $d$", r"784-200-200-10(?: d=(\d+))?", 50),
    ("examples $N$", r"784-200-200-10(?: N=(\d+))?", 1000),
    ("hidden width", r"784-(\d+)-\1-10", None),
    ("radii $R$, no biases", r"784-200-200-10-nobias(?: R=(\d+))?", 1),
)
WIDTH_CM, HEIGHT_CM = 17.0, 13.0
TRAINING_HEIGHT_CM = 6.0


def plot_benchmark(path_to_csv: str, path_to_pdf: str, path_to_png: str) -> None:
    """Draw the figure of the projected Hessian's cost, as PDF and PNG; cases that the CSV lacks are left out."""
    with _figure(HEIGHT_CM, path_to_csv, path_to_pdf, path_to_png) as (figure, rows, methods):
        grid = figure.add_gridspec(2, len(GROWTH), height_ratios=(1.25, 1), width_ratios=(1.3, 1, 1, 1))
        label = "time relative to the engine (several radii: to its sweep)"
        _draw_ratios(figure.add_subplot(grid[0, :]), rows, methods, MAIN, label)
        first = None
        for column, (label, pattern, usual) in enumerate(GROWTH):
            ax = figure.add_subplot(grid[1, column], sharey=first)
            _draw_growth(ax, rows, methods, pattern, usual)
            ax.set_xlabel(label)
            ax.tick_params(labelleft=first is None)
            first = first or ax
        first.set_ylabel("time (s)")


def plot_training(path_to_csv: str, path_to_pdf: str, path_to_png: str) -> None:
    """Draw the figure of the cost of training, as PDF and PNG, with all cases in the order of the CSV."""
    with _figure(TRAINING_HEIGHT_CM, path_to_csv, path_to_pdf, path_to_png) as (figure, rows, methods):
        cases = list(dict.fromkeys(row["case"] for row in rows))
        _draw_ratios(figure.add_subplot(), rows, methods, cases, "time relative to the engine")


@contextmanager
def _figure(height_cm: float, path_to_csv: str, path_to_pdf: str, path_to_png: str) -> Iterator[tuple]:
    """Context (figure, rows, methods) for drawing a benchmark: an empty figure, and the rows and methods of its CSV.

    The methods are in the order of METHODS. At the end, the figure gets a legend and is saved as PDF and PNG.
    """
    with open(path_to_csv, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    methods = [method for method in METHODS if any(row["method"] == method for row in rows)]
    style.set_style()
    figure = plt.figure(figsize=(WIDTH_CM / panels.CENTIMETRES_PER_INCH, height_cm / panels.CENTIMETRES_PER_INCH))
    yield figure, rows, methods
    handles = [plt.Line2D([], [], linestyle="none", label=method, **_marker(method)) for method in methods]
    figure.legend(handles=handles, loc="outside upper center", ncols=4)
    with files.whole_file(path_to_pdf) as pdf, files.whole_file(path_to_png) as png:
        figure.savefig(pdf, metadata={"CreationDate": None})
        figure.savefig(png)
    plt.close(figure)


def _draw_ratios(ax: plt.Axes, rows: list[dict], methods: list[str], wanted: Sequence[str], label: str) -> None:
    cases = [case for case in wanted if any(row["case"] == case for row in rows)]
    for row in rows:
        if row["case"] in cases:
            place = cases.index(row["case"]) + (methods.index(row["method"]) - (len(methods) - 1) / 2) * 0.08
            ax.plot(float(row["ratio_to_engine"]), place, linestyle="none", **_marker(row["method"]))
    ax.axvline(1, color="0.6", linewidth=0.5, linestyle="--", zorder=0)
    for border in range(1, len(cases)):
        ax.axhline(border - 0.5, color="0.85", linewidth=0.5, zorder=0)
    ax.set_yticks(range(len(cases)), cases)
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(cases) - 0.5, -0.5)
    ax.set_xscale("log")
    ax.set_xlabel(label)


def _draw_growth(ax: plt.Axes, rows: list[dict], methods: list[str], pattern: str, usual: int | None) -> None:
    values, found = set(), [(row, match) for row in rows if (match := re.fullmatch(pattern, row["case"]))]
    for method in methods:
        of_method = ((row, match) for row, match in found if row["method"] == method)
        points = [(int(match[1] or usual), float(row["seconds"])) for row, match in of_method]
        if len(points) > 1:
            ax.plot(*zip(*sorted(points)), linewidth=0.8, **_marker(method))
            values |= {value for value, _ in points}
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xticks(sorted(values), map(str, sorted(values)))
    ax.xaxis.set_minor_locator(plt.NullLocator())


def _marker(method: str) -> dict:
    """Keyword arguments of `plot` for the markers of a method: filled for the engine, open for other methods."""
    number = METHODS.index(method)
    # The plain loop may share a colour, because it is only in the figure of training.
    colour = "0.3" if method == "matmul" else style.colour(1 if method == "plain loop" else max(0, number - 2))
    filled = colour if method.startswith("engine") else "none"
    sizes = {"markersize": 4.5 if number else 6, "markeredgewidth": 0.9}
    return {"color": colour, "marker": "*o|sD^vPX<"[number], "markerfacecolor": filled, **sizes}


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the benchmarks that were made.")
    parser.add_argument("--input", default="results/benchmarks", help="folder of curvature.csv and training.csv")
    parser.add_argument("--output", default="figures/benchmarks", help="folder of the figures")
    arguments = parser.parse_args()
    with failures.one_sentence():
        for name, plot in (("curvature", plot_benchmark), ("training", plot_training)):
            path, output = Path(arguments.input, f"{name}.csv"), Path(arguments.output, name)
            if path.exists():
                plot(str(path), f"{output}.pdf", f"{output}.png")
