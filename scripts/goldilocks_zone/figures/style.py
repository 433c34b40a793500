"""Style of every figure: colours, markers, lines, and the matplotlib style file."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

# Okabe & Ito's colours, safe for colour-blind readers; markers and lines differ, too, for greyscale print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")
LINES = ("-", "--", ":", "-.")
# Reference lines, at r_X or at a neutral value.
GREY = {"color": "0.6", "linewidth": 0.5, "zorder": 0}
DASHED = {**GREY, "linestyle": "--"}


def set_style() -> None:
    """Apply the common style, independently of the user's matplotlibrc."""
    matplotlib.rcdefaults()
    plt.style.use(Path(__file__).with_name("goldilocks.mplstyle"))


def colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def marker(number: int) -> str:
    return MARKERS[number % len(MARKERS)]


def line(number: int) -> str:
    return LINES[number % len(LINES)]


def look(number: int, **more: Any) -> dict:
    """Keyword arguments for the colour and marker of curve `number`; `more` adds or overrides arguments."""
    return {"color": colour(number), "marker": marker(number), **more}
