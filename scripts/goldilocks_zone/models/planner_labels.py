"""Labels of planners, such as `hierarchical` or `flat-level2-held-16-x2`. This module imports nothing heavy."""

import re
from dataclasses import dataclass

POOLED = 4  # number of frames that level 2 pools, and of steps that are taken before the next plan
SAMPLES, ROUNDS = 16, 3  # number of samples in each round of a search, and of rounds
SUBGOALS = 4  # number of sub-goals in a plan, one for each step of level 2
CALLS = ROUNDS * SAMPLES * (SUBGOALS + POOLED)  # number of evaluations of predictors in a hierarchical plan
FORM = "hierarchical[-random|-true][-end] or flat-<level1|level2|exact>-<free|held>-<steps>-x<calls>[-end][-true]"
_HIERARCHICAL = re.compile(r"hierarchical(-random|-true)?(-end)?")
_FLAT = re.compile(r"flat-(level1|level2|exact)-(free|held)-([1-9][0-9]*)-x([1-9])(-end)?(-true)?")


@dataclass(frozen=True)
class Hierarchical:
    """Hierarchical planner: level 2 searches for sub-goals, and level 1 for actions that lead to the first of them.

    random: level 2 does not search; the sub-goal is its prediction for one random action. true: level 1 uses the true
    dynamics, not its predictor. end: the search for sub-goals minimises the cost of the last sub-goal, not the mean
    over all.
    """

    random: bool = False
    true: bool = False
    end: bool = False


@dataclass(frozen=True)
class Flat:
    """Flat planner: level 1 alone searches for the actions of the next `steps` steps.

    cost: cost of a state. `level1` and `level2` stand for the squared distance between embeddings of state and goal on
    that level, `exact` for the exact length of the path to the goal. held: each action is repeated for POOLED steps.
    times: number of evaluations in a plan, as a multiple of the CALLS of the hierarchical planner. end: minimise the
    cost of the last state, not the mean over all. true: use the true dynamics, not the predictor.
    """

    cost: str
    held: bool
    steps: int
    times: int
    end: bool = False
    true: bool = False

    @property
    def samples(self) -> int:
        """Number of samples in each round of a search. With it, a plan takes `times` · CALLS evaluations in all."""
        return self.times * CALLS // (ROUNDS * self.steps)


def parse(label: str) -> Hierarchical | Flat:
    """Parse the label of a planner. Raises ValueError if its form is unknown or its options do not fit together."""
    if found := _HIERARCHICAL.fullmatch(label):
        return Hierarchical(found[1] == "-random", found[1] == "-true", bool(found[2]))
    if not (found := _FLAT.fullmatch(label)):
        raise ValueError(f"planner {label!r} is unknown: use {FORM}")
    planner = Flat(found[1], found[2] == "held", int(found[3]), int(found[4]), bool(found[5]), bool(found[6]))
    if planner.steps % POOLED or planner.times * CALLS % (ROUNDS * planner.steps) or planner.samples < 2:
        reason = f"must be a multiple of {POOLED} and divide {planner.times * CALLS // ROUNDS} into two or more parts"
        raise ValueError(f"planner {label!r} is impossible: its number of steps, {planner.steps}, {reason}")
    if planner.cost == "exact" and not planner.true:
        raise ValueError(f"planner {label!r} is impossible: the cost `exact` needs the true dynamics; add -true")
    return planner
