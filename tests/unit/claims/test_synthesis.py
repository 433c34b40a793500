"""Synthesis of verdicts: disagreements and flips."""

from pathlib import Path

import pytest
import yaml

from goldilocks_zone.claims import definitions, evaluate, synthesis

ROOT = Path(__file__).parents[3]
DISAGREEMENTS = yaml.safe_load((ROOT / "resources/disagreements.yaml").read_text(encoding="utf-8"))
DEFINITIONS = definitions.load(ROOT / "config/claims")
CELL = "mnist fc-200x2-relu plane-100-sparse"
YES, NO, OPEN = evaluate.REPRODUCED, evaluate.NOT_REPRODUCED, evaluate.INCONCLUSIVE


@pytest.mark.parametrize(
    "first, second, expected",
    [
        (YES, YES, "both"),
        (YES, NO, "first"),
        (NO, evaluate.HOLDS, "second"),
        (NO, evaluate.FAILS, "neither"),
        (OPEN, NO, "open"),
        (YES, evaluate.NOT_TESTED, "open"),
    ],
)
def test_verdicts_choose_what_is_said(first, second, expected):
    assert synthesis.outcome({"a": first, "b": second}, [["a"], ["b"]]) == expected


def test_a_side_falls_with_one_of_its_claims_and_stands_with_all():
    verdicts = {"a": YES, "b": NO, "c": OPEN, "d": YES}
    assert synthesis.outcome(verdicts, [["a", "b", "c"], ["d"]]) == "second"
    assert synthesis.outcome(verdicts, [["a", "c"], ["d"]]) == "open"


def test_every_disagreement_is_between_claims_that_are_tested_and_has_words_for_every_outcome():
    for entry in DISAGREEMENTS.values():
        assert all(entry[outcome] for outcome in ("first", "second", "both", "neither", "open"))
        sides = [set(side["claims"]) for side in entry["sides"]]
        assert len(sides) == 2 and not sides[0] & sides[1]
        assert all("cases" in DEFINITIONS[claim] for side in sides for claim in side)


def row(identifier, case="", verdict=YES):
    return {"id": identifier, "case": case, "verdict": verdict}


def test_flips_count_cells_that_differ_in_one_way_and_are_decided_on_both_sides():
    rows = [
        row("fs1"),
        row("fs1.band", "band"),
        row("fs1.band.a", f"band {CELL} N=250 metric=shell", NO),
        row("fs1.band.b", f"band {CELL} N=1000 metric=identity", YES),
        row("fs1.band.c", f"band {CELL} N=1000 metric=sigma", NO),
        row("fs1.band.d", f"band {CELL} N=250 metric=sigma", NO),
        row("fs1.band.e", f"band {CELL} N=4000", OPEN),
        row("fs1.band.f", f"band {CELL} N=4000 metric=shell", evaluate.NOT_TESTED),
    ]
    assert synthesis.flips(rows) == {"inputs": (0, 0), "metric": (1, 2), "bias_directions": (0, 0), "N": (1, 1)}


def test_flips_of_another_network_are_held_against_its_own_usual_cell():
    other = "mnist fc-50x8-relu plane-50-sparse"
    rows = [
        row("fs1.band", "band"),
        row("fs1.band.a", f"band {other} N=1000", NO),
        row("fs1.band.b", f"band {other} N=250", NO),
        # Without a usual cell of its own there is nothing to hold it against.
        row("fs1.band.c", "band mnist lenet5 plane-50-sparse N=250", NO),
    ]
    assert synthesis.flips(rows)["N"] == (0, 1)
