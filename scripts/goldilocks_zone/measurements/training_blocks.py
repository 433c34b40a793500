"""Measurement of training, in blocks of draws and radii: on planes, on spheres or in the whole parameter space.

Members of an ensemble are training runs that are computed together. Observables are functions that return values by
name, for the m members of an ensemble.
"""

import functools
import itertools
import logging
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from goldilocks_zone.config import studies
from goldilocks_zone.curvature import hessian, logit_gradients, top_eigenvectors
from goldilocks_zone.data import datasets
from goldilocks_zone.jobs import lifecycle
from goldilocks_zone.measurements import blocks, checkpoints, local_geometry
from goldilocks_zone.measurements.observables import DRAW, RADIUS, Axis, Observables, Shape, Variable
from goldilocks_zone.measurements.training import TrainingStudy
from goldilocks_zone.models import initialisation, labels
from goldilocks_zone.models.problem import Problem
from goldilocks_zone.spectra import summaries
from goldilocks_zone.subspaces import constraints, projections
from goldilocks_zone.subspaces import labels as subspace_labels
from goldilocks_zone.training import ensembles, loop, observations

# Varied keys in which the members of one ensemble may differ.
OF_MEMBERS = ("rate", "rate_rule", "temperature", "temperature_rule")
BYTES_AT_ONCE = 2**24  # memory of members in full space on the CPU, so that their steps stay in the cache

STEP = Axis("step", lambda shape: shape.study.logged_steps, "steps of the optimiser so far", last=True)
TENSOR = Axis(
    "tensor",
    lambda shape: range(1, len(list(shape.module.parameters())) + 1),
    "number of the parameter tensor, first to last",
    last=True,
    of_network=True,
)
MOMENT = Axis("moment", lambda shape: ("start", "end"), "start or end of training", last=True)
EXAMPLES_OF = Axis("examples_of", lambda shape: ("training", "validation"), "set of examples", last=True)
OUTPUT_EXAMPLE = Axis("output_example", lambda shape: range(shape.study.outputs_examples), "number of the example")
CLASS = Axis("class", lambda shape: range(shape.classes), "number of the class", of_network=True)

OBSERVABLES = Observables(RADIUS, DRAW)
# Missing from the step at which a run diverges.
logged = functools.partial(Variable, axes=(STEP,), may_be_missing=True)
ended = functools.partial(Variable, may_be_missing=True)


class Member(NamedTuple):
    """One training run.

    draw: number of the draw. radius: radius of the initial parameters, in the study's unit. variant: values of those
    varied keys in which the members of an ensemble may differ, OF_MEMBERS.
    """

    draw: int
    radius: float
    variant: dict


class Shared:
    """Job, study, network, subspace and examples, which all ensembles of one variant of a study share.

    where: the subspace to which training is confined. splits: training, held-out and test examples, as arrays.
    training, held_out: inputs and labels of these examples, as tensors on the job's device.
    """

    def __init__(self, work: blocks.Work, study: TrainingStudy, module: nn.Module, splits: datasets.Splits):
        self.work, self.study, self.module, self.splits = work, study, module, splits
        self.where = subspace_labels.parse_subspace(work.job.subspace)
        self.training, self.held_out = map(work.on_device, (splits.training, splits.validation))


class Logged(NamedTuple):
    """An ensemble after a logged step of training.

    `state` is the ensemble of those members that are still in training. `shared` holds what this ensemble shares with
    others. Observables of this class return arrays with one row for each of these members.
    """

    shared: Shared
    step: int
    state: ensembles.Ensemble

    @property
    def points(self) -> Tensor:
        """Parameters (m, D) of the members."""
        return torch.cat([each.flatten(1) for each in self.state.parameters()], 1)


class Ended(NamedTuple):
    """An `ensemble` at the end of its training, and what it shares with other ensembles."""

    shared: Shared
    ensemble: ensembles.Ensemble


def finite(points: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Iterate over the members whose parameters, rows of `points` (m, D), are finite; yield (index, parameters)."""
    return ((i, point) for i, point in enumerate(points) if torch.isfinite(point).all())


def measure_block(job: blocks.Job) -> xr.Dataset:
    """Measure all variants of a job's study at the draws and radii of its block; return the labelled results."""
    lifecycle.listen()
    work, number = blocks.begin(job), 0
    study, result, module, splits = work.block.study, None, None, None
    assert isinstance(study, TrainingStudy)
    kept = {"validation": study.validation, "seed": work.block.seed, "test": study.test, "examples": study.examples}
    kept["dtype"] = getattr(np, study.dtype)
    load = functools.lru_cache(1)(functools.partial(datasets.load_splits, job.path_to_dataset, job.dataset, **kept))
    apart, rates = studies.split(study, OF_MEMBERS)
    members = [Member(*each) for each in itertools.product(work.block.draws, work.block.radii, rates)]
    for variant in apart:
        here = study.model_copy(update=variant)
        splits = load(inputs=here.inputs, labels=here.labels, classes=here.classes)
        module = work.network(splits.training).to(work.device, getattr(torch, study.dtype))
        if result is None:
            shape = Shape(study, module, splits.training.inputs.shape[1:], splits.training.classes)
            result = blocks.empty(OBSERVABLES, shape, work.labels)
        shared = Shared(work, here, module, splits)
        for group in _groups(members, shared):
            # On a GPU groups are others, whose checkpoint must not be taken.
            known = {"checksum": splits.training.checksum, "members": [each._asdict() for each in group]}
            values = _train(shared, group, checkpoints.checkpoint(work, here, known, number))
            for i, member in enumerate(group):
                place = studies.place({**variant, **member.variant}) | {"radius": member.radius, "draw": member.draw}
                blocks.fill(result, place, {name: each[i] for name, each in values.items()})
            described, seconds = studies.described(variant), time.monotonic() - work.started
            logging.info("ensemble %d trained after %.1f s%s", number, seconds, described)
            number += 1
    assert result is not None and splits is not None and module is not None  # A study has one variant or more.
    count = len(splits.test.labels)
    return blocks.sign(result, work, splits.training, module, dtype=study.dtype, test_examples=count)


def _groups(members: list[Member], shared: Shared) -> list[list[Member]]:
    """Split `members` into groups that are trained as one ensemble each.

    On planes and spheres, members of one draw form a group. In the whole space, all members form one group on a GPU,
    and groups are small enough for the cache on a CPU. For this, the memory of a member is that of its parameters or of
    the activations of its widest layer, whichever is larger. `shared` holds the subspace, network and batch size.
    """
    if not isinstance(shared.where, subspace_labels.FullSpace):
        return [list(group) for _, group in itertools.groupby(members, lambda member: member.draw)]
    parameters, batch = list(shared.module.parameters()), shared.study.batch
    examples = len(shared.training[0]) if batch == "all" else batch
    widest = max(len(each) for each in parameters if each.ndim > 1)
    entries = max(sum(each.numel() for each in parameters), examples * widest)
    size = entries * parameters[0].element_size()
    count = len(members) if parameters[0].is_cuda else max(1, BYTES_AT_ONCE // size)
    return [members[start : start + count] for start in range(0, len(members), count)]


def _train(shared: Shared, members: list[Member], checkpoint: loop.Checkpoint) -> dict[str, np.ndarray]:
    """Train `members` as one ensemble; return all measured values by name, as arrays (m, …).

    `shared` holds what the members share. An interrupted run resumes from the `checkpoint`.
    """
    study, work = shared.study, shared.work
    parameters = initialisation.parameters_of(shared.module)
    r_x, depth = initialisation.glorot_radius(parameters), labels.depth(work.job.network)
    drawn = {m.draw: work.initialisation(parameters, study.initialisation, m.draw) for m in members}
    points = [initialisation.rescaled(drawn[m.draw], m.radius, study.radius_unit, r_x) for m in members]
    ratios = [initialisation.ratio(m.radius, study.radius_unit, r_x) for m in members]
    chosen = [_rate_and_temperature(study.model_copy(update=m.variant), depth, r) for m, r in zip(members, ratios)]
    rates, temperatures = torch.tensor(chosen, dtype=torch.float64).unbind(1)
    kept = {key: getattr(study, key) for key in ("steps", "optimiser", "momentum", "epsilon")}
    batch, random_signs = None if study.batch == "all" else study.batch, study.gradients == "random_signs"
    options = ensembles.Options(batch=batch, rates=rates, temperatures=temperatures, random_signs=random_signs, **kept)
    # Members on one plane share their batches; in the whole space, each member has the batches of its draw.
    draws = [m.draw for m in members] if isinstance(shared.where, subspace_labels.FullSpace) else [members[0].draw]
    shuffles = [work.stream_name("batches", draw) for draw in draws]
    problem = Problem(shared.module, *shared.training, study.loss)
    ensemble = ensembles.Ensemble(problem, _subset(shared, members[0].draw, points), options, shuffles)

    def observe(step: int, state: ensembles.Ensemble) -> dict[str, Tensor]:
        return OBSERVABLES.measure(study, Logged(shared, step, state))

    found = loop.train(ensemble, study.logged_steps, observe, checkpoint)
    found = {name: np.moveaxis(each, 1, 0) for name, each in found.items()}
    return found | OBSERVABLES.measure(study, Ended(shared, ensemble))


def _rate_and_temperature(study: TrainingStudy, depth: int | None, ratio: float) -> tuple[float, float]:
    """Learning rate and softmax temperature of a member, by the rules `rate_rule` and `temperature_rule` of its study.

    `ratio` is the member's radius, divided by the reference radius (see `initialisation.ratio`). `depth` is the number
    of weight layers. Raises ValueError if a rule is homogeneous and the depth is unknown (None).
    """
    factor = 1.0
    if study.rate_rule == "homogeneous":
        blocks.known_depth(depth, "rate_rule: homogeneous", "fixed")
    if study.temperature_rule == "homogeneous":
        factor = ratio ** blocks.known_depth(depth, "temperature_rule: homogeneous", "fixed")
    return study.rate * ratio ** studies.rate_exponent(study.rate_rule, depth), study.temperature * factor


def _subset(shared: Shared, draw: int, points: list[np.ndarray]) -> constraints.Subset:
    """Subset of parameter space to which training is confined, for members that start at `points`, each (D,).

    The random directions that span a plane or a sphere are those of the draw with number `draw`, to which all members
    must belong. In the whole space, `draw` has no effect.
    """
    study, work, where = shared.study, shared.work, shared.where
    tensor = functools.partial(torch.as_tensor, dtype=getattr(torch, study.dtype), device=work.device)
    shapes, radii = [each.shape for each in shared.module.parameters()], [np.linalg.norm(each) for each in points]
    starts, radii = tensor(np.stack(points)), tensor(np.array(radii))
    if isinstance(where, subspace_labels.FullSpace):
        return constraints.full(starts, shapes, where.fixed)
    eta = blocks.metric(study, initialisation.parameters_of(shared.module))
    random = work.stream("plane", where.kind, draw, 0)
    projection = projections.make(where, shapes, eta, random, starts)
    if isinstance(where, subspace_labels.Plane):
        return constraints.plane(projection, starts)
    if study.sphere == "through_initialisation":
        return constraints.sphere_through(projection, starts[0], radii)
    direction = work.stream("direction", where.kind, draw).standard_normal(where.dimension)
    return constraints.sphere(projection, radii, tensor(direction))


@OBSERVABLES.register(
    Logged,
    logged("training_accuracy", "1", "share of training examples classified correctly"),
    logged("training_loss", "nat", "mean loss, at the temperature of training, on training examples"),
    logged("zero_logits", "1", "share of the logits that are exactly zero"),
    logged("norm", "parameters", "|x|, norm of all parameters"),
    logged("tensor_norm", "parameters", "norm of each parameter tensor", axes=(STEP, TENSOR)),
    logged("distance", "parameters", "|x − x_0| from the start"),
    logged("start_cosine", "1", "cosine of the angle between x and the start x_0"),
    logged("gradient_norm", "nat", "norm of the gradient within the subspace"),
    logged("gradient_cosine", "1", "cosine of the angle between the gradient and x, within the subspace"),
    # `loop.train` adds these two.
    logged("path_square", "parameters²", "sum of the squared lengths of all steps so far"),
    logged("step_cosine", "1", "mean cosine of the angle between successive steps so far"),
)
def snapshot(seen: Logged) -> dict[str, Tensor]:
    """Accuracy, loss, norms and angles, each (m,) or (m, parameter tensors), by name.

    Losses and gradients are over the first training examples, as many as the study's `evaluated`.
    `observations.snapshot` defines all values.
    """
    inputs, targets = (each[: seen.shared.study.evaluated] for each in seen.shared.training)
    return observations.snapshot(seen.state, training=(inputs, targets))


@OBSERVABLES.register(
    Logged,
    logged("validation_accuracy", "1", "share of held-out training examples classified correctly"),
    logged("validation_loss", "nat", "mean loss, at the temperature of training, on held-out training examples"),
    key="validation",
)
def held_out(seen: Logged) -> dict[str, Tensor]:
    """Accuracy and mean loss of each member on the held-out examples, (m,), by name."""
    found = observations.classified(seen.state, *seen.shared.held_out)
    return {f"validation_{name}": found[name] for name in ("accuracy", "loss")}


@OBSERVABLES.register(
    Logged, logged("sharpness", "loss", "largest eigenvalue of the Hessian in full space"), key="sharpness_examples"
)
def sharpness(seen: Logged) -> dict[str, Tensor]:
    """Largest eigenvalue of the Hessian in full space at each member's parameters, (m,); NaN for diverged members."""
    shared, points = seen.shared, seen.points
    found = torch.full((len(points),), torch.nan, dtype=torch.float64)
    inputs, targets = (each[: shared.study.sharpness_examples] for each in shared.training)
    for i, point in finite(points):
        problem = Problem(shared.module, inputs, targets, shared.study.loss, float(seen.state.temperatures[i]))
        found[i] = top_eigenvectors.sharpness(problem, point, shared.work.memory_mib)
    return {"sharpness": found}


@OBSERVABLES.register(
    Logged,
    *(logged(each.name, each.units, each.long_name, axes=(STEP, *each.axes)) for each in local_geometry.VARIABLES),
    key="geometry_examples",
)
def geometry(seen: Logged) -> dict[str, Tensor]:
    """Values (m, …) of all `local_geometry.VARIABLES`, by name.

    They are measured at the steps in the study's `geometry_steps`, and are NaN at other logged steps. They are also NaN
    for members that have diverged, and for members whose softmax is so saturated that G has too few non-zero
    eigenvalues.
    """
    shared, study, members = seen.shared, seen.shared.study, len(seen.state.coordinates)
    shape = Shape(study, shared.module, shared.training[0].shape[1:], shared.splits.training.classes)
    sizes = {known.name: [len(list(axis.labels(shape))) for axis in known.axes] for known in local_geometry.VARIABLES}
    found = {name: torch.full((members, *size), torch.nan, dtype=torch.float64) for name, size in sizes.items()}
    if seen.step not in study.geometry_steps:
        return found
    sets = _sets(shared, study.geometry_examples)
    residual, memory_mib = seen.step in study.residual_steps, shared.work.memory_mib
    options = local_geometry.Options(study.eigenvalues, residual=residual, memory_mib=memory_mib)
    for i, point in finite(seen.points):
        try:
            measured = local_geometry.measure(shared.module, point, sets, options)
        except logit_gradients.TooFewEigenvalues as reason:
            logging.warning("step %d, member %d: no geometry is measured, because %s", seen.step, i, reason)
            continue
        for name, value in measured.items():
            found[name][i] = torch.as_tensor(value)
    return found


def _sets(shared: Shared, count: int) -> local_geometry.Sets:
    """Sets of examples for measurements of geometry: two disjoint sets of training examples, and one of held-out ones.

    Each has `count` of the examples in `shared`. Raises ValueError if there are too few.
    """
    places = (shared.training, 0), (shared.training, count), (shared.held_out, 0)
    parts = [local_geometry.Examples(*(each[first : first + count] for each in known)) for known, first in places]
    sets = local_geometry.Sets(*parts)
    if min(len(each.labels) for each in sets) < count:
        most = min(len(shared.training[0]) // 2, len(shared.held_out[0]))
        reason = "is too large, because these classes must have two training sets and one held-out set of this size"
        raise ValueError(f"geometry_examples: {count} {reason}: set at most {most}")
    return sets


@OBSERVABLES.register(
    Logged,
    logged(
        "outputs",
        "1",
        "the softmax's outputs on held-out examples, at temperature 1",
        axes=(STEP, OUTPUT_EXAMPLE, CLASS),
    ),
    logged("output_label", "1", "labels of these examples", axes=(STEP, OUTPUT_EXAMPLE)),
    key="outputs_examples",
)
def outputs(seen: Logged) -> dict[str, Tensor]:
    """Softmax outputs (m, n, k) of each member on the first n held-out examples, and their labels (m, n), by name."""
    inputs, targets = (each[: seen.shared.study.outputs_examples] for each in seen.shared.held_out)
    found = torch.stack([local_geometry.outputs(seen.shared.module, point, inputs) for point in seen.points])
    return {"outputs": found, "output_label": targets.double().expand(len(found), -1)}


@OBSERVABLES.register(
    Ended,
    ended("test_accuracy", "1", "share of test examples classified correctly, at the end"),
    ended("test_loss", "nat", "mean loss, at the temperature of training, on test examples, at the end"),
    Variable("diverged", "1", "1 where training ended in values that are not finite, else 0"),
)
def test(seen: Ended) -> dict[str, np.ndarray]:
    """Accuracy and mean loss of each member on the test examples, and 1 if it has diverged, else 0, (m,), by name."""
    found = observations.classified(seen.ensemble, *seen.shared.work.on_device(seen.shared.splits.test))
    accuracy, loss = (found[name].cpu().numpy() for name in ("accuracy", "loss"))
    return {"test_accuracy": accuracy, "test_loss": loss, "diverged": (~np.isfinite(loss)).astype(float)}


@OBSERVABLES.register(
    Ended,
    ended("fraction_positive", "1", "fraction of positive eigenvalues of H_d", axes=(MOMENT, EXAMPLES_OF)),
    ended("trace_over_norm", "1", "Tr(H_d)/‖H_d‖_F, excess positive curvature", axes=(MOMENT, EXAMPLES_OF)),
    key="curvature_examples",
)
def curvature(seen: Ended) -> dict[str, np.ndarray]:
    """Curvature on the plane in which members are trained, at the start and at the end, by name.

    fraction_positive is the fraction of positive eigenvalues of the Hessian H_d on the plane, and trace_over_norm is
    Tr(H_d)/‖H_d‖_F. Both are arrays (m, MOMENT, EXAMPLES_OF), for training and held-out examples. Values are NaN for
    diverged members, and for held-out examples if there are none.
    """
    shared, ensemble, count = seen.shared, seen.ensemble, seen.shared.study.curvature_examples
    known = [shared.training, shared.held_out] if shared.study.validation else [shared.training]
    sets = [(inputs[:count].double(), targets[:count]) for inputs, targets in known]
    projection = ensemble.subset.projection
    assert projection is not None  # The configuration refuses this measurement in the whole space.
    identity = torch.eye(projection.dimension, dtype=ensemble.coordinates.dtype, device=shared.work.device)
    rows = torch.cat([each.flatten(1) for each in projection.forward(identity)], 1)
    module, memory_mib = shared.module.double(), shared.work.memory_mib
    names = ("fraction_positive", "trace_over_norm")
    found = {name: np.full((len(ensemble.coordinates), 2, 2), np.nan) for name in names}
    for moment, coordinates in enumerate((ensemble.subset.start, ensemble.coordinates)):
        points = torch.cat([each.flatten(1) for each in ensemble.subset.forward(coordinates)], 1).double()
        for (i, point), (j, examples) in itertools.product(finite(points), enumerate(sets)):
            problem = Problem(module, *examples, shared.study.loss, float(ensemble.temperatures[i]))
            measured = hessian.plane_hessian(problem, point, rows, memory_mib)
            summary = summaries.summarise(np.linalg.eigvalsh(measured.hessian))
            for name in names:
                found[name][i, moment, j] = getattr(summary, name)
    return found
