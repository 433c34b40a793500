"""Observables of training: along the logged steps, and at the end."""

import itertools
import logging
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from goldilocks_zone.curvature import hessian, logit_gradients, top_eigenvectors
from goldilocks_zone.data import datasets
from goldilocks_zone.measurements import local_geometry, setup
from goldilocks_zone.measurements.observables import DRAW, RADIUS, Axis, Observables, Shape, Variable
from goldilocks_zone.measurements.training import TrainingStudy
from goldilocks_zone.models.problem import Problem
from goldilocks_zone.spectra import summaries
from goldilocks_zone.subspaces import labels as subspace_labels
from goldilocks_zone.training import ensembles, observations

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
CLASS = Axis("class", lambda shape: range(shape.classes), "number of the class")

OBSERVABLES = Observables(RADIUS, DRAW)
# Missing from where a run diverges.
logged = partial(Variable, axes=(STEP,), may_be_missing=True)
ended = partial(Variable, may_be_missing=True)


class Ensembles:
    """The study, network, subspace and examples, on the job's device, that several ensembles share."""

    def __init__(self, work: setup.Work, study: TrainingStudy, module: nn.Module, splits: datasets.Splits):
        self.work, self.study, self.module, self.splits = work, study, module, splits
        self.where = subspace_labels.parse_subspace(work.job.subspace)
        self.inputs, self.targets = self.on_device(splits.training)
        self.held_out = self.on_device(splits.validation)

    def on_device(self, examples: datasets.Examples) -> tuple[Tensor, Tensor]:
        """Inputs and labels as tensors on the device of the job."""
        return tuple(torch.as_tensor(each, device=self.work.device) for each in (examples.inputs, examples.labels))


@dataclass(frozen=True)
class Logged:
    """The members still in training after a step; values have one entry for each."""

    trained: Ensembles
    step: int
    state: ensembles.Ensemble

    @property
    def points(self) -> Tensor:
        """Parameters of each member (m, D)."""
        return torch.cat([each.flatten(1) for each in self.state.parameters()], 1)


@dataclass(frozen=True)
class Ended:
    """An ensemble at the end of training."""

    trained: Ensembles
    ensemble: ensembles.Ensemble


@OBSERVABLES.register(
    Logged,
    logged("training_accuracy", "1", "share of training examples classified rightly"),
    logged("training_loss", "nat", "mean loss, at the temperature of training, on training examples"),
    logged("zero_logits", "1", "share of the logits that are exactly zero"),
    logged("norm", "parameters", "|x|, norm of all parameters"),
    logged("tensor_norm", "parameters", "norm of each parameter tensor", axes=(STEP, TENSOR)),
    logged("distance", "parameters", "|x − x_0| from the start"),
    logged("start_cosine", "1", "cosine of the angle between x and the start x_0"),
    logged("gradient_norm", "nat per parameter", "norm of the gradient within the subspace"),
    logged("gradient_cosine", "1", "cosine of the angle between the gradient and x, within the subspace"),
    # `loop.train` adds these two.
    logged("path_square", "parameters²", "sum of the squared lengths of all steps so far"),
    logged("step_cosine", "1", "mean cosine of the angle between successive steps so far"),
)
def snapshot(seen: Logged) -> dict[str, Tensor]:
    """Accuracy, loss, norms and angles on the first training examples."""
    count = seen.trained.study.evaluated
    return observations.snapshot(seen.state, training=(seen.trained.inputs[:count], seen.trained.targets[:count]))


@OBSERVABLES.register(
    Logged,
    logged("validation_accuracy", "1", "share of held-out training examples classified rightly"),
    logged("validation_loss", "nat", "mean loss, at the temperature of training, on held-out training examples"),
    key="validation",
)
def held_out(seen: Logged) -> dict[str, Tensor]:
    """Accuracy and loss on held-out examples."""
    found = observations.classified(seen.state, *seen.trained.held_out)
    return {f"validation_{name}": found[name] for name in ("accuracy", "loss")}


@OBSERVABLES.register(
    Logged, logged("sharpness", "loss", "largest eigenvalue of the Hessian in full space"), key="sharpness_examples"
)
def sharpness(seen: Logged) -> dict[str, Tensor]:
    """The largest eigenvalue of the Hessian of each member, missing where it has diverged."""
    trained, points = seen.trained, seen.points
    found = torch.full((len(points),), torch.nan, dtype=torch.float64)
    inputs, targets = (each[: trained.study.sharpness_examples] for each in (trained.inputs, trained.targets))
    for i, (point, temperature) in enumerate(zip(points, seen.state.temperatures.tolist())):
        if torch.isfinite(point).all():
            problem = Problem(trained.module, inputs, targets, trained.study.loss, temperature)
            found[i] = top_eigenvectors.sharpness(problem, point, trained.work.job.memory_mib)
    return {"sharpness": found}


@OBSERVABLES.register(
    Logged,
    *(logged(each.name, each.units, each.long_name, axes=(STEP, *each.axes)) for each in local_geometry.VARIABLES),
    key="geometry_examples",
)
def geometry(seen: Logged) -> dict[str, Tensor]:
    """The local geometry of each member; missing at other steps and for diverged members.

    Also missing, with a warning in the log, where G has too few eigenvalues (a saturated softmax).
    """
    trained, study, members = seen.trained, seen.trained.study, len(seen.state.coordinates)
    shape = Shape(study, trained.module, trained.inputs.shape[1:], trained.splits.training.classes)
    sizes = {known.name: [len(axis.labels(shape)) for axis in known.axes] for known in local_geometry.VARIABLES}
    found = {name: torch.full((members, *size), torch.nan, dtype=torch.float64) for name, size in sizes.items()}
    if seen.step not in study.geometry_steps:
        return found
    sets = _sets(trained, study.geometry_examples)
    residual, memory_mib = seen.step in study.residual_steps, trained.work.job.memory_mib
    options = local_geometry.Options(study.eigenvalues, residual=residual, memory_mib=memory_mib)
    for i, point in enumerate(seen.points):
        if not torch.isfinite(point).all():
            continue
        try:
            measured = local_geometry.measure(trained.module, point, sets, options)
        except logit_gradients.TooFewEigenvalues as reason:
            logging.warning("step %d, member %d: no geometry, for %s", seen.step, i, reason)
            continue
        for name, value in measured.items():
            found[name][i] = torch.as_tensor(value)
    return found


def _sets(trained: Ensembles, count: int) -> local_geometry.Sets:
    """Two sets of `count` training examples, and one of held-out examples."""

    def part(examples: tuple[Tensor, Tensor], first: int) -> local_geometry.Examples:
        return local_geometry.Examples(*(each[first : first + count] for each in examples))

    training = trained.inputs, trained.targets
    sets = local_geometry.Sets(part(training, 0), part(training, count), part(trained.held_out, 0))
    if (least := min(len(each.labels) for each in sets)) < count:
        raise ValueError(
            f"geometry_examples: {count} is impossible; of the classes of this variant one of its three sets, two of "
            f"training and one held out, has {least}"
        )
    return sets


@OBSERVABLES.register(
    Logged,
    logged("outputs", "1", "the softmax's outputs on held-out examples", axes=(STEP, OUTPUT_EXAMPLE, CLASS)),
    logged("output_label", "1", "labels of these examples", axes=(STEP, OUTPUT_EXAMPLE)),
    key="outputs_examples",
)
def outputs(seen: Logged) -> dict[str, Tensor]:
    """Softmax outputs (m, n, k) of each member, and the labels (m, n) of the same examples."""
    inputs, targets = (each[: seen.trained.study.outputs_examples] for each in seen.trained.held_out)
    found = torch.stack([local_geometry.outputs(seen.trained.module, point, inputs) for point in seen.points])
    return {"outputs": found, "output_label": targets.double().expand(len(found), -1)}


@OBSERVABLES.register(
    Ended,
    ended("test_accuracy", "1", "share of test examples classified rightly, at the end"),
    ended("test_loss", "nat", "mean loss, at the temperature of training, on test examples, at the end"),
    Variable("diverged", "1", "1 where training ended in values that are not finite, else 0"),
)
def test(seen: Ended) -> dict[str, np.ndarray]:
    """Accuracy and loss on test examples."""
    found = observations.classified(seen.ensemble, *seen.trained.on_device(seen.trained.splits.test))
    accuracy, loss = (found[name].cpu().numpy() for name in ("accuracy", "loss"))
    return {"test_accuracy": accuracy, "test_loss": loss, "diverged": (~np.isfinite(loss)).astype(float)}


@OBSERVABLES.register(
    Ended,
    ended("fraction_positive", "1", "fraction of positive eigenvalues of H_d", axes=(MOMENT, EXAMPLES_OF)),
    ended("trace_over_norm", "1", "Tr(H_d)/‖H_d‖_F, excess positive curvature", axes=(MOMENT, EXAMPLES_OF)),
    key="curvature_examples",
)
def curvature(seen: Ended) -> dict[str, np.ndarray]:
    """Measures of the Hessian on the plane, each (members, MOMENT, EXAMPLES_OF)."""
    trained, ensemble = seen.trained, seen.ensemble
    count = trained.study.curvature_examples
    sets = [(trained.inputs[:count], trained.targets[:count])]
    sets += [tuple(each[:count] for each in trained.held_out)] if trained.study.validation else []
    identity = torch.eye(trained.where.dimension, dtype=ensemble.coordinates.dtype, device=trained.work.device)
    rows = torch.cat([each.flatten(1) for each in ensemble.subset.projection.forward(identity)], 1)
    module, memory_mib = trained.module.double(), trained.work.job.memory_mib
    names = ("fraction_positive", "trace_over_norm")
    found = {name: np.full((len(ensemble.coordinates), 2, 2), np.nan) for name in names}
    for moment, coordinates in enumerate((ensemble.subset.start, ensemble.coordinates)):
        points = torch.cat([each.flatten(1) for each in ensemble.subset.forward(coordinates)], 1).double()
        for (i, point), (j, (inputs, targets)) in itertools.product(enumerate(points), enumerate(sets)):
            if not torch.isfinite(point).all():
                continue
            measured = hessian.plane_hessian(Problem(module, inputs.double(), targets), point, rows, memory_mib)
            summary = summaries.summarise(np.linalg.eigvalsh(measured.hessian))
            for name in names:
                found[name][i, moment, j] = getattr(summary, name)
    return found
