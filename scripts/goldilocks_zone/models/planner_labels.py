"""Labels of planners, such as hierarchical or flat-level2-held-16-x2. Imports nothing heavy."""

import re
from dataclasses import dataclass

POOLED = 4  # frames that level 2 pools, and steps that are taken before the next plan
SAMPLES, ROUNDS = 16, 3  # samples in each round of a search, and rounds
SUBGOALS = 4  # steps of level 2 that a plan of sub-goals looks ahead
CALLS = ROUNDS * SAMPLES * (SUBGOALS + POOLED)  # evaluations of predictors of a hierarchical plan
FORM = "hierarchical[-random|-true][-end] or flat-<level1|level2|exact>-<free|held>-<steps>-x<calls>[-end][-true]"
_HIERARCHICAL = re.compile(r"hierarchical(-random|-true)?(-end)?")
_FLAT = re.compile(r"flat-(level1|level2|exact)-(free|held)-([1-9][0-9]*)-x([1-9])(-end)?(-true)?")


@dataclass(frozen=True)
class Hierarchical:
    """Level 2 searches for sub-goals, and level 1 for actions that lead to the first sub-goal.

    random: sub-goals come from actions drawn at random. true: level 1 knows the true dynamics. end: the search for
    sub-goals minimises the cost of the last one, not the mean over all.
    """

    random: bool = False
    true: bool = False
    end: bool = False


@dataclass(frozen=True)
class Flat:
    """Level 1 alone searches for actions over a number of steps, each free or `held` for POOLED steps.

    cost: distance to the goal in embeddings of level1 or level2, or the exact path length. end: minimise the cost of
    the last state, not the mean over all. true: use the true dynamics, not the predictor.
    """

    cost: str
    held: bool
    steps: int
    times: int
    end: bool = False
    true: bool = False

    @property
    def samples(self) -> int:
        """Samples in each round, for `times` as many evaluations in all as the hierarchical planner makes."""
        return self.times * CALLS // (ROUNDS * self.steps)


def parse(label: str) -> Hierarchical | Flat:
    """Parse the label of a planner. Raises ValueError if its form is unknown or its options do not fit together."""
    if found := _HIERARCHICAL.fullmatch(label):
        return Hierarchical(found[1] == "-random", found[1] == "-true", bool(found[2]))
    if not (found := _FLAT.fullmatch(label)):
        raise ValueError(f"planner {label!r} is unknown: use {FORM}")
    planner = Flat(found[1], found[2] == "held", int(found[3]), int(found[4]), bool(found[5]), bool(found[6]))
    if planner.steps % POOLED or planner.times * CALLS % (ROUNDS * planner.steps) or planner.samples < 2:
        reason = f"must be a multiple of {POOLED} that divides {planner.times * CALLS // ROUNDS} at least twice"
        raise ValueError(f"planner {label!r} is impossible: its number of steps, {planner.steps}, {reason}")
    if planner.cost == "exact" and not planner.true:
        raise ValueError(f"planner {label!r} is impossible: the cost `exact` needs the true dynamics, add -true")
    return planner
