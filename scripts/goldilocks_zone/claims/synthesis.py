"""Synthesis of the verdicts: disagreements between works, and how many verdicts flip along unreported settings."""

from collections.abc import Iterable

from goldilocks_zone.claims.cells import PRIMARY_CELL
from goldilocks_zone.statistics.hypotheses import FAILS, HOLDS, NOT_REPRODUCED, REPRODUCED

# Axes of secondary cells, as in their labels, and the value of the primary cell.
UNSAID = {"inputs": "standardised", "metric": "shell", "bias_directions": "False", "N": "1000"}
PRIMARY_PLACE = (PRIMARY_CELL["dataset"], PRIMARY_CELL["network"])
HELD, FAILED = {REPRODUCED, HOLDS}, {NOT_REPRODUCED, FAILS}


def outcome(verdicts: dict[str, str], sides: list[list[str]]) -> str:
    """Which of two sides holds, by the claims of each: first, second, both, neither, or open."""
    states = [_state([verdicts.get(claim, "") for claim in claims]) for claims in sides]
    if None in states:
        return "open"
    return {(True, True): "both", (True, False): "first", (False, True): "second"}.get(tuple(states), "neither")


def _state(verdicts: list[str]) -> bool | None:
    if any(verdict in FAILED for verdict in verdicts):
        return False
    return True if all(verdict in HELD for verdict in verdicts) else None


def flips(rows: Iterable[dict]) -> dict[str, tuple[int, int]]:
    """For each axis of UNSAID: how many verdicts of cases flip where it alone differs, and of how many.

    Compared with the cell that is the same but for that axis; for the primary cell that is the verdict of the case.
    A flip is from reproduced to not reproduced, or back; an inconclusive verdict is none.
    """
    cells = [(row, *_read(row)) for row in rows if row["case"]]
    verdicts = {(case, rest): row["verdict"] for row, case, rest, other in cells if not other}
    found = dict.fromkeys(UNSAID, (0, 0))
    for row, case, rest, other in cells:
        if len(other) != 1:
            continue
        # Among secondary cells the primary one is missing.
        is_primary = set(PRIMARY_PLACE) <= rest and (case, rest) not in verdicts
        before = verdicts.get((case, frozenset() if is_primary else rest), "")
        if {before, row["verdict"]} <= HELD | FAILED:
            count, total = found[other[0]]
            found[other[0]] = count + ((before in HELD) != (row["verdict"] in HELD)), total + 1
    return found


def _read(row: dict) -> tuple[str, frozenset[str], list[str]]:
    """The case of a row, the labels of its cell on other axes than UNSAID, and the axes of UNSAID that are unusual."""
    name, *place = row["case"].split(" ")
    given = dict(part.split("=", 1) for part in place if part.split("=")[0] in UNSAID)
    rest = frozenset(part for part in place if part.split("=")[0] not in UNSAID)
    return f"{row['id'].split('.')[0]}.{name}", rest, [axis for axis in given if given[axis] != UNSAID[axis]]
