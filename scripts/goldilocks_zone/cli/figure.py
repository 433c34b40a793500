"""`make figure`: print the path of a figure's file."""

import difflib
from pathlib import Path

from goldilocks_zone.config import load, models


def path_of_figure(name: str, complete: models.Configuration) -> str:
    """Path to the PDF of the figure `name` of a run.

    `complete` is the configuration of the run, from which unavailable datasets have not been omitted yet. Raises
    ValueError if the run does not draw the figure.
    """
    config, reasons, _ = load.as_run(complete)
    figures = sorted(config.figures)
    if name in complete.figures and name not in figures:
        raise ValueError(f"the run {config.run} leaves out the figure {name}: {'; '.join(reasons.values())}")
    if name not in figures:
        close = difflib.get_close_matches(name, figures, n=1)
        advice = f"did you mean NAME={close[0]}?" if close else f"use NAME= with one of {', '.join(figures)}"
        raise ValueError(f"the run {config.run} has no figure {name!r}: {advice}")
    return f"figures/{config.run}/{name}.pdf"


def run(name: str, configfile: Path) -> None:
    print(path_of_figure(name, load.load([configfile])))
