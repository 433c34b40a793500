"""Blocks of training: networks on planes, on spheres or in the whole space, from many radii."""

import functools
import itertools
import logging
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from goldilocks_zone.config import records, studies
from goldilocks_zone.data import datasets
from goldilocks_zone.jobs import lifecycle
from goldilocks_zone.measurements import blocks, setup
from goldilocks_zone.measurements.observables import Shape
from goldilocks_zone.measurements.training import TrainingStudy
from goldilocks_zone.measurements.training_observables import OBSERVABLES, Ended, Ensembles, Logged
from goldilocks_zone.models import initialisation, labels
from goldilocks_zone.models.problem import Problem
from goldilocks_zone.provenance import attributes
from goldilocks_zone.subspaces import constraints, projections
from goldilocks_zone.subspaces import labels as subspace_labels
from goldilocks_zone.training import ensembles, loop

# Varied keys in which the members of one ensemble may differ.
OF_MEMBERS = ("rate", "rate_rule", "temperature", "temperature_rule")
BYTES_AT_ONCE = 2**24  # of members in full space on the CPU, whose steps should stay in the cache


@dataclass(frozen=True)
class Member:
    """One run of training: its draw, its radius in the study's unit, and its values of the keys OF_MEMBERS."""

    draw: int
    radius: float
    variant: dict


def measure_block(job: setup.Job) -> xr.Dataset:
    """One block: draws and radii of one cell, in all variants of its study."""
    lifecycle.listen()
    work, result, number = setup.begin(job), None, 0
    study, load = work.block.study, _loader(work)
    apart, rates = studies.split(study, OF_MEMBERS)
    members = [Member(*each) for each in itertools.product(work.block.draws, work.block.radii, rates)]
    for variant in apart:
        here = study.model_copy(update=variant)
        splits = load(inputs=here.inputs, labels=here.labels, classes=here.classes)
        module = work.network(splits.training).to(work.device, getattr(torch, study.dtype))
        if result is None:
            shape = Shape(study, module, splits.training.inputs.shape[1:], splits.training.classes)
            result = blocks.empty(OBSERVABLES, shape, work.labels)
        trained = Ensembles(work, here, module, splits)
        for group in _groups(members, trained):
            values = _train(trained, group, _checkpoint(trained, number))
            for i, member in enumerate(group):
                place = studies.place({**variant, **member.variant}) | {"radius": member.radius, "draw": member.draw}
                blocks.fill(result, place, {name: each[i] for name, each in values.items()})
            described, seconds = studies.described(variant), time.monotonic() - work.started
            logging.info("ensemble %d trained after %.1f s%s", number, seconds, described)
            number += 1
    count = len(splits.test.labels)
    return blocks.sign(result, work, splits.training, module, dtype=study.dtype, test_examples=count)


def _loader(work: setup.Work) -> functools._lru_cache_wrapper:
    """A function of inputs, labels and classes that reads the splits, and caches the last ones."""
    study = work.block.study
    kept = {"validation": study.validation, "seed": work.block.seed, "test": study.test, "examples": study.examples}
    place = work.job.path_to_dataset, work.job.dataset
    load = functools.partial(datasets.load_splits, *place, dtype=getattr(np, study.dtype), **kept)
    return functools.lru_cache(maxsize=1)(load)


def _groups(members: list[Member], trained: Ensembles) -> list[list[Member]]:
    """Group members into ensembles: by plane, or in the whole space by the size of the cache.

    A member takes the size of its parameters or of the widest activations of a batch, whichever is larger.
    """
    if not isinstance(trained.where, subspace_labels.FullSpace):
        return [list(group) for _, group in itertools.groupby(members, lambda member: member.draw)]
    parameters, batch = list(trained.module.parameters()), trained.study.batch
    examples = len(trained.inputs) if batch == "all" else batch
    widest = max(len(each) for each in parameters if each.ndim > 1)
    entries = max(sum(each.numel() for each in parameters), examples * widest)
    size = entries * parameters[0].element_size()
    count = len(members) if parameters[0].is_cuda else max(1, BYTES_AT_ONCE // size)
    return [members[start : start + count] for start in range(0, len(members), count)]


def _checkpoint(trained: Ensembles, number: int) -> loop.Checkpoint:
    """Checkpoints of one ensemble, valid while code, network, data and settings stay the same."""
    work = trained.work
    own = work.own and work.own.record(work.job.network)
    known = {"code": work.code, "own": own, "checksum": trained.splits.training.checksum}
    key = attributes.settings_hash({**known, **records.of_measurement(trained.study, work.block.seed)})
    path = Path(work.job.path_to_checkpoints, f"{number:03d}.pt")
    return loop.Checkpoint(path, key, work.job.checkpoint_seconds, lifecycle.asked)


def _train(trained: Ensembles, members: list[Member], checkpoint: loop.Checkpoint) -> dict[str, np.ndarray]:
    """Train the members and measure them: arrays (members, …) by name."""
    study, job, streams = trained.study, trained.work.job, trained.work.streams
    parameters = initialisation.parameters_of(trained.module)
    r_x = initialisation.glorot_radius(parameters)
    drawn = {m.draw: streams.initialisation(parameters, study.initialisation, m.draw) for m in members}
    points = [initialisation.rescaled(drawn[m.draw], m.radius, study.radius_unit, r_x) for m in members]
    ratios = [initialisation.ratio(m.radius, study.radius_unit, r_x) for m in members]
    depth = labels.depth(job.network)
    chosen = [_rate_and_temperature(study.model_copy(update=m.variant), depth, r) for m, r in zip(members, ratios)]
    rates, temperatures = torch.tensor(chosen, dtype=torch.float64).unbind(1)
    options = ensembles.Options(
        steps=study.steps,
        batch=None if study.batch == "all" else study.batch,
        rates=rates,
        temperatures=temperatures,
        optimiser=study.optimiser,
        momentum=study.momentum,
        epsilon=study.epsilon,
        random_signs=study.gradients == "random_signs",
    )
    # Members of one plane share their batches; in the whole space each has the batches of its draw.
    draws = [m.draw for m in members] if isinstance(trained.where, subspace_labels.FullSpace) else [members[0].draw]
    shuffles = [streams.name("batches", draw) for draw in draws]
    problem = Problem(trained.module, trained.inputs, trained.targets, study.loss)
    ensemble = ensembles.Ensemble(problem, _subset(trained, members[0].draw, points), options, shuffles)

    def observe(step: int, state: ensembles.Ensemble) -> dict[str, Tensor]:
        return OBSERVABLES.measure(study, Logged(trained, step, state))

    found = loop.train(ensemble, study.logged_steps, observe, checkpoint)
    found = {name: np.moveaxis(each, 1, 0) for name, each in found.items()}
    return found | OBSERVABLES.measure(study, Ended(trained, ensemble))


def _rate_and_temperature(study: TrainingStudy, depth: int | None, ratio: float) -> tuple[float, float]:
    """Learning rate and temperature of a member at `ratio` times the reference radius."""
    for rule in ("rate_rule", "temperature_rule"):
        if getattr(study, rule) == "homogeneous" and depth is None:
            raise ValueError(
                f"{rule}: homogeneous needs the number of weight layers, which is not known of a network of your own: "
                "use fixed"
            )
    factor = ratio**depth if study.temperature_rule == "homogeneous" else 1
    return study.rate * ratio ** studies.rate_exponent(study.rate_rule, depth), study.temperature * factor


def _subset(trained: Ensembles, draw: int, points: list[np.ndarray]) -> constraints.Subset:
    """The subset of parameter space in which members at `points` (D,) move; on planes and spheres all have one draw."""
    study, work, where = trained.study, trained.work, trained.where
    dtype = getattr(torch, study.dtype)

    def tensor(array: np.ndarray) -> Tensor:
        return torch.as_tensor(array, dtype=dtype, device=work.device)

    shapes, radii = [each.shape for each in trained.module.parameters()], [np.linalg.norm(each) for each in points]
    points, radii = tensor(np.stack(points)), tensor(np.array(radii))
    if isinstance(where, subspace_labels.FullSpace):
        return constraints.full(points, shapes, where.fixed)
    eta = setup.metric(study, initialisation.parameters_of(trained.module))
    random = work.streams.stream("plane", where.kind, draw, 0)
    projection = projections.make(where, shapes, eta, random, points)
    if isinstance(where, subspace_labels.Plane):
        return constraints.plane(projection, points)
    if study.sphere == "through_initialisation":
        return constraints.sphere_through(projection, points[0], radii)
    direction = work.streams.stream("direction", where.kind, draw).standard_normal(where.dimension)
    return constraints.sphere(projection, radii, tensor(direction))
