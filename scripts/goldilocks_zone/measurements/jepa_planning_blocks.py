"""Measurement of prediction and planning on two levels, in blocks of draws and radii.

The accuracy of predictions is measured for each horizon, the number of steps ahead. The success of plans is measured
for each planner. Embeddings are predicted in three ways, which are called levels: by level 1, step by step; by the
direct predictor of level 1, a span of several steps at once; and by level 2, also a span at once (see `hierarchies`).
Observables are functions that return values by name.
Letters: m members, n examples, e dimensions of an embedding, h steps, a dimensions of an action, t entries of a target
that is decoded from embeddings.
"""

import functools
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from goldilocks_zone.config import studies
from goldilocks_zone.data import two_rooms, worlds
from goldilocks_zone.jobs import lifecycle
from goldilocks_zone.measurements import blocks, hierarchies, rooms
from goldilocks_zone.measurements.jepa_planning import PlanningStudy, observation
from goldilocks_zone.measurements.observables import DRAW, RADIUS, Axis, Observables, Shape, Variable
from goldilocks_zone.models import hierarchy, planner_labels, planners
from goldilocks_zone.models.jepa import Members
from goldilocks_zone.models.planner_labels import POOLED
from goldilocks_zone.randomness import stream
from goldilocks_zone.statistics import representations

LEVELS = "level_1", "direct", "level_2"
DECODERS = "own", "observed"
ROOMS = "other", "same"
TARGETS = {"ring": ("phi", "theta"), "two_rooms": ("place",)}

LEVEL = Axis("level", lambda shape: LEVELS, "how it is predicted: level 1 unrolled, directly over a span, level 2")
HORIZON = Axis("horizon", lambda shape: sorted(shape.study.horizons), "steps ahead", last=True)
DECODER = Axis("decoder", lambda shape: DECODERS, "what decoders are fitted on: the predictions, or what is observed")
TARGET = Axis("target", lambda shape: TARGETS[shape.study.datasets[0]], "what is decoded")
PLANNER = Axis("planner", lambda shape: shape.study.planners, "planner")
GOAL = Axis("rooms", lambda shape: ROOMS, "room of the goals, relative to that of the starts")

OBSERVABLES = Observables(RADIUS, DRAW)


@dataclass(frozen=True)
class Predictions:
    """Predicted and observed embeddings of one member on n fresh sequences.

    predicted: predicted embeddings (n, e), by level and horizon. observed: embeddings (n, e) of the frames that are
    observed at the horizon, by level and horizon. targets: values (n, t) to decode from embeddings, by horizon and
    name. now: embeddings (n, e) from which predictions start, by level.
    """

    predicted: dict[str, dict[int, np.ndarray]]
    observed: dict[str, dict[int, np.ndarray]]
    targets: dict[int, dict[str, np.ndarray]]
    now: dict[str, np.ndarray]
    study: PlanningStudy


@dataclass(frozen=True)
class Plans:
    """Episodes of all members, and the index `number` of the member to measure.

    `episodes` are by label of the planner and by room of the goals: `same` as the room of the starts, or `other`.
    """

    episodes: dict[tuple[str, str], rooms.Episodes]
    number: int
    study: PlanningStudy


class Fresh(NamedTuple):
    """Stands for the examples, which jobs draw anew, in the attributes of a block."""

    checksum: str = ""
    classes: int = 1


def measure_block(job: blocks.Job) -> xr.Dataset:
    """Train and measure all variants of a job's study for its draws and radii; return the labelled results."""
    lifecycle.listen()
    work, result, trained, number = blocks.begin(job), None, None, 0
    whole = work.block.study
    assert isinstance(whole, PlanningStudy)
    for variant in studies.variants(whole):
        study = whole.model_copy(update=variant)
        for radius in work.block.radii:
            trainer = hierarchies.Trainer(work, study, radius, number)
            number += 1
            trained = trainer.hierarchy()
            logging.info("trained after %.1f s%s", time.monotonic() - work.started, studies.described(variant))
            if result is None:
                shape = Shape(study, trained.first.module, (observation(job.dataset),), 1)
                result = blocks.empty(OBSERVABLES, shape, work.labels)
            place = {**studies.place(variant), "radius": radius}
            _measure(result, place, trainer, trained)
            logging.info("measured after %.1f s", time.monotonic() - work.started)
    assert result is not None and trained is not None  # A study has one variant or more.
    return blocks.sign(result, work, Fresh(), trained.first.module, dtype="float32", test_examples=whole.examples)


def _measure(block: xr.Dataset, place: dict, trainer: hierarchies.Trainer, trained: hierarchies.Hierarchy) -> None:
    study, draws = trainer.study, trainer.work.block.draws
    found = episodes(trainer, trained) if study.planners else {}
    for number, draw in enumerate(draws):
        here = place | {"draw": draw}
        if study.horizons:
            seen = predictions(trainer.world, study, trained.of(number), draw)
            blocks.fill(block, here, OBSERVABLES.measure(study, seen))
        if found:
            blocks.fill(block, here, OBSERVABLES.measure(study, Plans(found, number, study)))


def predictions(world: worlds.Acting, study: PlanningStudy, trained: hierarchies.Hierarchy, member: int) -> Predictions:
    """Predict the embeddings of fresh sequences at the study's horizons, and embed what is observed there.

    `trained` holds the models of a single member, and `member` is the number of its draw. `world` generates the
    sequences. Level 2 starts from the first POOLED frames, and level 1 from the last of these. Level 2 and the direct
    predictor reach only horizons that are multiples of the span.
    """
    horizons, span = sorted(study.horizons), study.span
    far = [each for each in horizons if each % span == 0]
    drawn = worlds.frames(world, [member], 0, (study.examples, POOLED + horizons[-1]), "evaluation")
    like = trained.first.parameters
    windows = {each: range(each, each + POOLED) for each in [0, *far]}
    needed = sorted({POOLED - 1 + each for each in horizons}.union(*windows.values()))
    embedded = trained.below(torch.as_tensor(drawn.seen[:, :, needed]).to(like))
    place = {frame: i for i, frame in enumerate(needed)}
    single = {each: embedded[:, :, place[POOLED - 1 + each]] for each in [0, *horizons]}
    above = {each: trained.above(embedded[:, :, [place[frame] for frame in windows[each]]]) for each in [0, *far]}
    actions = torch.as_tensor(drawn.actions[:, :, POOLED - 1 :]).to(like)
    between = {name: each[:, :, POOLED - 1 :] for name, each in drawn.between.items()}
    sums = [
        hierarchies.summed(world, {name: each[:, :, first : first + span] for name, each in between.items()})
        for first in range(0, max(far, default=0), span)
    ]
    sums = torch.as_tensor(np.stack(sums, 2) if sums else np.empty((1, 0, 0, 0))).to(like)
    predicted = {"level_1": _ahead(trained.first, single[0], actions, horizons, 1)}
    observed, now = {"level_1": single}, {"level_1": single[0]}
    if trained.direct:
        predicted["direct"] = _ahead(trained.direct, single[0], sums, far, span)
        observed["direct"], now["direct"] = single, single[0]
    predicted["level_2"] = _ahead(trained.second, above[0], sums, far, span)
    observed["level_2"], now["level_2"] = above, above[0]
    targets = {each: _targets(drawn.states, POOLED - 1 + each) for each in horizons}
    return Predictions(
        _plain(predicted), _plain(observed), targets, {name: _array(z) for name, z in now.items()}, study
    )


def _ahead(members: Members, start: Tensor, actions: Tensor, horizons: Sequence[int], span: int) -> dict:
    """Predicted embeddings (m, n, e) of all `members`, by horizon.

    The first prediction is made from the embeddings `start` (m, n, e), and each later one from the prediction before.
    Each uses the next of the `actions` (m, n, h, a), and reaches `span` steps further. `horizons` are in steps, and
    must be ascending multiples of the span.
    """
    if not horizons:
        return {}
    path = planners.unrolled(
        functools.partial(hierarchy.predicted, members), start, actions[:, :, None, : horizons[-1] // span]
    )[:, :, 0]
    return {each: path[:, :, each // span - 1] for each in horizons}


def _array(embeddings: Tensor) -> np.ndarray:
    return embeddings[0].cpu().numpy().astype(float)


def _plain(found: dict) -> dict:
    return {name: {each: _array(z) for each, z in by_horizon.items()} for name, by_horizon in found.items()}


def _targets(states: worlds.Arrays, frame: int) -> dict[str, np.ndarray]:
    """Values (n, t) that decoders should predict from embeddings, by name: cos and sin of each angle, or places.

    They are those at the frame with index `frame`. `states` are arrays (1, n, frames, …) by name.
    """
    if "place" in states:
        return {"place": states["place"][0, :, frame]}
    angles = {name: states[name][0, :, frame] for name in TARGETS["ring"]}
    return {name: np.stack([np.cos(each), np.sin(each)], -1) for name, each in angles.items()}


def _over(seen: Predictions, shape: tuple[int, ...], measure: Callable[[str, int], Any]) -> np.ndarray:
    """Call `measure(level, horizon)` for all levels and horizons; return the values as (levels, *shape, horizons).

    Each value has this `shape`. It is NaN if there are no predictions at the level and horizon, or if some of them are
    not finite.
    """
    horizons = sorted(seen.study.horizons)
    found = [[np.broadcast_to(_known(seen, level, each, measure), shape) for each in horizons] for level in LEVELS]
    return np.moveaxis(np.array(found), 1, -1)


def _known(seen: Predictions, level: str, horizon: int, measure: Callable[[str, int], Any]) -> Any:
    predicted = seen.predicted.get(level, {}).get(horizon)
    # Predictions that overflow cannot be measured.
    return math.nan if predicted is None or not np.isfinite(predicted).all() else measure(level, horizon)


@OBSERVABLES.register(
    Predictions,
    Variable("r_squared", "1", "R² of decoded targets", (LEVEL, TARGET, DECODER, HORIZON), may_be_missing=True),
    Variable(
        "unexplained",
        "1",
        "median squared error of predictions, over that of the mean, in the level's own embeddings",
        (LEVEL, HORIZON),
        may_be_missing=True,
    ),
    Variable("overflown", "1", "1 where predictions are not finite, else 0", (LEVEL, HORIZON), may_be_missing=True),
    Variable("embedding_deviation", "1", "σ of the embeddings", (LEVEL,), may_be_missing=True),
    Variable("dimensions_in_use", "1", "eigenvalues of their covariance above .25", (LEVEL,), may_be_missing=True),
    key="horizons",
)
def predicted(seen: Predictions) -> dict:
    """R² of targets that are decoded from predictions, errors of predictions, and spread of embeddings, by name.

    Decoders are fitted on predicted or on observed embeddings (see `r_squared`). embedding_deviation and
    dimensions_in_use describe the embeddings from which predictions start: their standard deviation, and the number of
    eigenvalues of their covariance above .25.
    """
    names = TARGETS[seen.study.datasets[0]]

    def decoded(level: str, horizon: int) -> np.ndarray:
        given, targets = seen.predicted[level][horizon], seen.targets[horizon]
        observed = seen.observed[level][horizon]
        return np.array([[r_squared(fitted, given, targets[name]) for fitted in (given, observed)] for name in names])

    def unexplained(level: str, horizon: int) -> float:
        given, observed = seen.predicted[level][horizon], seen.observed[level][horizon]
        error, spread = (_median_square(observed - each) for each in (given, observed.mean(0)))
        return error / spread if spread > 0 else math.nan

    def overflown(level: str) -> list[float]:
        here = seen.predicted.get(level, {})
        return [
            float(not np.isfinite(here[each]).all()) if each in here else math.nan
            for each in sorted(seen.study.horizons)
        ]

    now = [seen.now.get(level) for level in LEVELS]
    return {
        "r_squared": _over(seen, (len(names), len(DECODERS)), decoded),
        "unexplained": _over(seen, (), unexplained),
        "overflown": [overflown(level) for level in LEVELS],
        "embedding_deviation": [math.nan if z is None else representations.deviation(z) for z in now],
        "dimensions_in_use": [math.nan if z is None else representations.dimensions_in_use(z) for z in now],
    }


def _median_square(errors: np.ndarray) -> float:
    return float(np.median(np.square(errors).sum(-1)))


def r_squared(fitted: np.ndarray, given: np.ndarray, targets: np.ndarray) -> float:
    """R² of a linear decoder (ridge regression) that predicts `targets` (n, t) from embeddings.

    The decoder is fitted on the first half of the embeddings `fitted` (n, e), and tested on the second half of the
    embeddings `given` (n, e).
    """
    half = len(targets) // 2
    embeddings = np.concatenate([fitted[:half], given[half:]])
    if 2 * half < len(targets):
        embeddings, targets = embeddings[:-1], targets[:-1]
    return float(representations.r_squared(embeddings, targets))


def episodes(trainer: hierarchies.Trainer, trained: hierarchies.Hierarchy) -> dict[tuple[str, str], rooms.Episodes]:
    """Run the episodes of all planners of a study, for all members, with the models `trained`.

    Returns the episodes by label of the planner and by room of the goals: `same` as the room of the starts, or `other`.
    """
    study, world, draws = trainer.study, trainer.world, trainer.work.block.draws
    assert isinstance(world, two_rooms.TwoRooms)  # The configuration refuses planners in other worlds.
    steps = (functools.partial(hierarchy.predicted, members) for members in (trained.first, trained.second))
    knowledge = rooms.Knowledge(trained.below, trained.above, *steps)
    found = {}
    for room in ROOMS:
        drawn = (stream(world.seed, "tasks", world.name, room, draw) for draw in draws)
        parts = zip(*(two_rooms.tasks(each, study.starts, room == "same") for each in drawn))
        starts, goals = (np.stack(each).astype(np.float32) for each in parts)
        for label in study.planners if room == "other" else study.same_room:
            found[label, room] = rooms.acted(planner_labels.parse(label), world, knowledge, (starts, goals), draws)
            logging.info("%s, %s room: %.3f reach the goal", label, room, found[label, room].success.mean())
    return found


of_planner = Variable("", "1", "", (PLANNER, GOAL), may_be_missing=True)


@OBSERVABLES.register(
    Plans,
    of_planner._replace(name="success", long_name="share of starts from which the goal is reached"),
    of_planner._replace(name="nearest", units="side", long_name="median least distance from the goal"),
    of_planner._replace(name="steps_to_goal", long_name="mean number of steps to the goal, where it is reached"),
    of_planner._replace(name="calls", long_name="evaluations of the dynamics per start and plan"),
    key="planners",
)
def planned(seen: Plans) -> dict:
    """Results of one member's episodes, by name: success, distance and steps to the goal, and cost of planning.

    Each is an array (planners, rooms of the goals), with NaN where there are no episodes. success: share of starts from
    which the goal is reached. nearest: median over starts of the smallest distance from the goal. steps_to_goal: mean
    over those starts from which the goal is reached. calls: evaluations of the dynamics per start and plan.
    """
    shape = len(seen.study.planners), len(ROOMS)
    found = {name: np.full(shape, math.nan) for name in ("success", "nearest", "steps_to_goal", "calls")}
    for (label, room), each in seen.episodes.items():
        place = seen.study.planners.index(label), ROOMS.index(room)
        after = each.reached_after[seen.number]
        found["success"][place] = each.success[seen.number]
        found["nearest"][place] = np.median(each.nearest[seen.number])
        found["calls"][place] = each.calls
        if np.isfinite(after).any():
            found["steps_to_goal"][place] = after[np.isfinite(after)].mean()
    return found
