"""`make figure`: the file of a figure, from its name and a configuration."""

import argparse
import difflib
from pathlib import Path

from goldilocks_zone.config import load
from goldilocks_zone.jobs import log

ROOT = Path(__file__).parents[1]


def path_of_figure(name: str, complete: dict) -> str:
    """Raises ValueError in one sentence if the run draws no such figure of its complete configuration."""
    config, reasons, _ = load.as_run(complete)
    figures = sorted(config["figures"])
    if name in complete["figures"] and name not in figures:
        raise ValueError(f"the run {config['run']} leaves out the figure {name}: {'; '.join(reasons.values())}")
    if name not in figures:
        close = difflib.get_close_matches(name, figures, n=1)
        advice = f"did you mean NAME={close[0]}?" if close else f"use NAME= with one of {', '.join(figures)}"
        raise ValueError(f"the run {config['run']} has no figure {name!r}: {advice}")
    return f"figures/{config['run']}/{name}.pdf"


def main() -> None:
    parser = argparse.ArgumentParser(description="Print the file of a figure.")
    parser.add_argument("name")
    parser.add_argument("configfile")
    arguments = parser.parse_args()
    with log.one_sentence():
        paths = [ROOT / "config/config.yaml", arguments.configfile]
        print(path_of_figure(arguments.name, load.load(paths, ROOT)))


if __name__ == "__main__":
    main()
