"""Synthesis of the verdicts: which side of a disagreement holds, and which unreported settings flip verdicts."""

from collections.abc import Iterable

from goldilocks_zone.claims.cells import PRIMARY_CELL
from goldilocks_zone.statistics.hypotheses import FAILS, HOLDS, NOT_REPRODUCED, REPRODUCED

# Settings that works often leave unreported: axes, named as in labels of cells, and their values in the primary cell.
UNSAID = {"inputs": "standardised", "metric": "shell", "bias_directions": "False", "N": "1000"}
PRIMARY_PLACE = (PRIMARY_CELL["dataset"], PRIMARY_CELL["network"])
HELD, FAILED = {REPRODUCED, HOLDS}, {NOT_REPRODUCED, FAILS}


def outcome(verdicts: dict[str, str], sides: list[list[str]]) -> str:
    """The side of a disagreement between works that holds: first, second, both, neither, or open.

    `verdicts` maps ids of claims to their verdicts. `sides` has two lists of such ids. A side holds if all its claims
    do (see `state`). The outcome is open if either side is undecided.
    """
    first, second = (state([verdicts.get(claim, "") for claim in claims]) for claims in sides)
    if first is None or second is None:
        return "open"
    return {(True, True): "both", (True, False): "first", (False, True): "second"}.get((first, second), "neither")


def state(verdicts: Iterable[str]) -> bool | None:
    """True if all verdicts hold, False if one fails, None if none fails but at least one is undecided."""
    verdicts = set(verdicts)
    if not FAILED.isdisjoint(verdicts):
        return False
    return True if HELD.issuperset(verdicts) else None


def flips(rows: Iterable[dict]) -> dict[str, tuple[int, int]]:
    """Count the verdicts that flip when one unreported setting is changed: {axis of UNSAID: (flipped, compared)}.

    `rows` are those of claims.csv. Each cell that differs from the values in UNSAID along exactly one axis is compared
    with another cell of the same case: the one, primary or secondary, that has UNSAID's value along this axis and is
    otherwise the same. The verdict flips if the case holds on one of the two cells and fails on the other. Pairs in
    which a verdict neither holds nor fails are left out.
    """
    cells = [(row, *_read(row)) for row in rows if row["case"]]
    verdicts = {(case, rest): row["verdict"] for row, case, rest, other in cells if not other}
    found: dict[str, tuple[int, int]] = dict.fromkeys(UNSAID, (0, 0))
    for row, case, rest, other in cells:
        # The primary cell is not listed among the secondary ones.
        is_primary = set(PRIMARY_PLACE) <= rest and (case, rest) not in verdicts
        before = verdicts.get((case, frozenset() if is_primary else rest), "")
        if len(other) == 1 and {before, row["verdict"]} <= HELD | FAILED:
            count, total = found[other[0]]
            found[other[0]] = count + ((before in HELD) != (row["verdict"] in HELD)), total + 1
    return found


def _read(row: dict) -> tuple[str, frozenset[str], list[str]]:
    """Parse the row of a case in claims.csv into (case, labels, axes).

    case: <claim>.<case>. labels: those parts of the cell's label that give values along axes not in UNSAID. axes: the
    axes of UNSAID along which the cell's value differs from the one in UNSAID.
    """
    name, *place = row["case"].split(" ")
    given = dict(part.split("=", 1) for part in place if part.split("=")[0] in UNSAID)
    rest = frozenset(part for part in place if part.split("=")[0] not in UNSAID)
    return f"{row['id'].split('.')[0]}.{name}", rest, [axis for axis in given if given[axis] != UNSAID[axis]]
