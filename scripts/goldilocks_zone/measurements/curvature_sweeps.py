"""Sweeps of curvature: one random initialisation at all radii of a block, on planes, in layers and in full space."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse
import torch
from torch import Tensor, nn

from goldilocks_zone.config import studies
from goldilocks_zone.curvature import dispatch, hessian, softened_relu
from goldilocks_zone.curvature.dispatch import PlaneCurvature
from goldilocks_zone.data import datasets
from goldilocks_zone.measurements import setup
from goldilocks_zone.measurements.curvature import SWEPT, CurvatureStudy
from goldilocks_zone.models import initialisation, labels
from goldilocks_zone.models.problem import Problem
from goldilocks_zone.subspaces import labels as subspace_labels
from goldilocks_zone.subspaces import planes


@dataclass(frozen=True)
class Draw:
    """One random initialisation θ (D,) and what is drawn with it, shared over radii.

    Metric η (D,), raw planes (d, D), probes (m, D) of the full space, and probes (layers · m, D) of single layers.
    """

    theta: np.ndarray
    eta: np.ndarray
    planes: list[np.ndarray | scipy.sparse.csr_array]
    probes: np.ndarray
    layer_probes: np.ndarray


@dataclass(frozen=True)
class Point:
    """Where curvature is measured: its place in a block, the factor on θ, the softmax's temperature, the radius over
    that of reference, and whether it rescales the parameters alone."""

    place: dict
    scale: float
    temperature: float
    ratio: float
    scaled: bool = True


@dataclass(frozen=True)
class Seen:
    """What observables are measured of: a place in a block, and the sweep and point that it belongs to."""

    place: dict
    sweep: "Sweep"
    point: Point


@dataclass(frozen=True)
class Attempt(Seen):
    """A point and number of examples: whether logits or the Hessian overflow."""

    overflow: bool


@dataclass(frozen=True)
class OnPlane(Seen):
    """Curvature of a point on one plane; `reference`: at ratio 1, where the point has counterfactuals."""

    measured: PlaneCurvature
    reference: PlaneCurvature | None


@dataclass(frozen=True)
class InLayers(Seen):
    """Curvature of a point along the probes of single layers."""

    measured: PlaneCurvature


@dataclass(frozen=True)
class InFullSpace(Seen):
    """A point, its problem with the cross-entropy, and its parameters (D,)."""

    problem: tuple[Problem, Tensor]


class Sweep:
    """One variant of a study and one draw, at every radius of a block."""

    def __init__(
        self, work: setup.Work, study: CurvatureStudy, module: nn.Module, examples: datasets.Examples, number: int
    ):
        self.work, self.study, self.depth = work, study, labels.depth(work.job.network)
        self.draw = _draw(work, study, module, number)
        self.points = self._points(module)
        self.module = module.to(work.device)
        arrays = (self.draw.theta, examples.inputs, examples.labels)
        self.theta, self.inputs, self.targets = (self.on_device(array) for array in arrays)

    def on_device(self, array: np.ndarray) -> Tensor:
        """An array as a tensor on the device of the job."""
        return torch.as_tensor(array, device=self.work.device)

    def seen(self) -> Iterator[Seen]:
        """All that observables are measured of; in full space only where nothing overflows."""
        counts, whole = self.study.examples, {}
        for i, plane in enumerate(self.draw.planes):
            found, references = self._curvature(plane, self.points), [None] * len(counts)
            if self.study.counterfactuals:
                (references,) = self._curvature(plane, [self._reference()])
            for point, at_point in zip(self.points, found):
                for count, measured, reference in zip(counts, at_point, references):
                    place = point.place | {"examples": count}
                    whole[id(point), count] = measured is not None
                    yield Attempt(place, self, point, measured is None)
                    if measured is not None:
                        yield OnPlane(place | {"plane": i}, self, point, measured, reference if point.scaled else None)
        if len(self.draw.layer_probes):
            for point, at_point in zip(self.points, self._curvature(self.draw.layer_probes, self.points)):
                for count, measured in zip(counts, at_point):
                    if measured is not None:
                        yield InLayers(point.place | {"examples": count}, self, point, measured)
        for point, count in itertools.product(self.points, counts):
            if whole[id(point), count]:
                examples = self.inputs[:count], self.targets[:count]
                problem = Problem(self.module, *examples, temperature=point.temperature), point.scale * self.theta
                yield InFullSpace(point.place | {"examples": count}, self, point, problem)

    @property
    def path(self) -> str:
        """The way of computing."""
        count = 1 if self.study.one_by_one or self.study.sharpness else len(self.points)
        return dispatch.path_of(Problem(self.module, self.inputs), self.theta, count)

    def _points(self, module: nn.Module) -> list[Point]:
        """Every radius, with every variant of the varied keys whose values are points of one sweep."""
        r_x, study = initialisation.glorot_radius(initialisation.parameters_of(module)), self.study
        points = []
        for radius, variant in itertools.product(self.work.block.radii, studies.split(study, SWEPT)[1]):
            here = study.model_copy(update=variant)
            scale = initialisation.scale(self.draw.theta, radius, here.radius_unit, r_x)
            ratio, temperature = initialisation.ratio(radius, here.radius_unit, r_x), here.temperature
            if here.rescaled != "parameters":
                if self.depth is None:
                    raise ValueError(
                        f"rescaled: {here.rescaled} needs the number of weight layers, which is not known of a network "
                        "of your own: use parameters"
                    )
                temperature *= ratio ** (self.depth if here.rescaled == "both" else -self.depth)
                scale = scale if here.rescaled == "both" else scale / ratio
            place = {"radius": radius, **studies.place(variant)}
            points.append(Point(place, scale, temperature, ratio, here.rescaled == "parameters"))
        return points

    def _reference(self) -> Point:
        """The point at the radius of reference, of those that rescale the parameters."""
        first = next(point for point in self.points if point.scaled)
        return Point({}, first.scale / first.ratio, first.temperature, 1.0)

    def _curvature(
        self, directions: np.ndarray | scipy.sparse.csr_array, points: list[Point]
    ) -> list[list[PlaneCurvature | None]]:
        """Curvature along the directions at every point and number of examples."""
        if scipy.sparse.issparse(directions):
            directions = directions.astype(self.study.dtype)
        else:
            directions = self.on_device(directions).to(getattr(torch, self.study.dtype))
        problem = Problem(self.module, self.inputs, self.targets, self.study.loss)
        options = hessian.Options(self.study.examples, self.work.job.memory_mib, refuse_overflow=False)
        pairs = [(point.scale, point.temperature) for point in points]
        if not self.study.sharpness and not self.study.one_by_one:
            return hessian.curvature_at(problem, self.theta, pairs, directions, options)
        found = []
        for scale, temperature in pairs:
            here = problem
            if self.study.sharpness:
                here = softened_relu.softened(problem, scale * self.theta, self.study.sharpness)
            found += hessian.curvature_at(here, self.theta, [(scale, temperature)], directions, options)
        return found


def _draw(work: setup.Work, study: CurvatureStudy, module: nn.Module, number: int) -> Draw:
    plane, streams, count = subspace_labels.parse_plane(work.job.subspace), work.streams, max(study.dimensions)

    def signs(purpose: str, number_of_probes: int, size: int) -> np.ndarray:
        return streams.stream(purpose, number).choice((-1.0, 1.0), (number_of_probes, size))

    parameters = initialisation.parameters_of(module)
    eta = setup.metric(study, parameters)
    layers, probes = initialisation.layer_indicators(module), study.layer_probes
    layer_probes = signs("layer probes", probes, eta.size) if probes else np.empty((0, eta.size))
    return Draw(
        theta=streams.initialisation(parameters, study.initialisation, number),
        eta=eta,
        planes=[
            planes.directions_as_drawn(plane, eta, streams.stream("plane", plane.kind, number, i))[:count]
            for i in range(study.planes)
        ],
        probes=signs("probes", study.probes, eta.size),
        layer_probes=np.concatenate([layer_probes * layer for layer in layers]),
    )
