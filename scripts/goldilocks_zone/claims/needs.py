"""Needs of a case: the minimum draws, steps, epochs or travel (learning rate times steps) required for a verdict."""

import json
from collections.abc import Mapping

from goldilocks_zone.claims.cells import Cell


def _setting(name: str, cell: Cell) -> float:
    given = json.loads(cell.attrs["settings"]).get(name, 0)
    return max(given, default=0) if isinstance(given, list) else given


def _travel(cell: Cell) -> float:
    rates = cell["rate"].values.max() if "rate" in cell.coords else _setting("rate", cell)
    return float(rates) * _setting("steps", cell)


# For each need, its wording in messages, and a function that returns what a cell has of it.
COUNTS = {
    "draws": ("{:g} draws", lambda cell: cell.sizes["draw"]),
    "steps": ("{:g} steps of training", lambda cell: _setting("steps", cell)),
    "travel": ("a learning rate times steps of {:g}", _travel),
    "epochs": ("{:g} epochs", lambda cell: _setting("epochs", cell)),
}


def unmet(needs: Mapping[str, float], cell: Cell) -> str:
    """Message “needs …, and this run has …” about the first need that a cell does not meet; empty if it meets all.

    `needs` maps keys of COUNTS, such as draws, to the least number that a verdict requires.
    """
    for key, least in needs.items():
        words, count = COUNTS[key]
        if (found := count(cell)) < least:
            return f"needs {words.format(least)}, and this run has {found:.3g}"
    return ""
