"""Sweeps of curvature over all radii of a block, for one initialisation or for trained weights.

The points of a sweep are multiples of one vector of parameters θ, each with a temperature of the softmax. Curvature is
measured on planes, in layers and in full space. The reference radius is the one where `initialisation.ratio` is 1, such
as r_X. Observables are functions that measure the objects defined here, see `observables`.
"""

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
from goldilocks_zone.data.datasets import Examples
from goldilocks_zone.measurements import blocks
from goldilocks_zone.measurements.curvature import SWEPT, CurvatureStudy
from goldilocks_zone.models import initialisation, labels
from goldilocks_zone.models.problem import Problem
from goldilocks_zone.subspaces import labels as subspace_labels
from goldilocks_zone.subspaces import planes


@dataclass(frozen=True)
class Point:
    """A point of a sweep: the parameters `scale` · θ, with the `temperature` of the softmax.

    place: place {axis: label} of the point in a block. ratio: radius divided by the reference radius (see
    `initialisation.ratio`). scaled: True if a radius rescales the parameters, and False if it rescales the temperature,
    alone or together with the parameters.
    """

    place: dict
    scale: float
    temperature: float
    ratio: float
    scaled: bool = True


@dataclass(frozen=True)
class Seen:
    """Base class of the objects that observables measure, at one point of a sweep.

    place: place {axis: label} in a block where the measured values belong.
    """

    place: dict
    sweep: "Sweep"
    point: Point


@dataclass(frozen=True)
class Attempt(Seen):
    """A point at which measurement was attempted, with the loss averaged over one number N of examples.

    `overflow` is True if logits or the Hessian overflow at the point, on any plane.
    """

    overflow: bool


@dataclass(frozen=True)
class OnPlane(Seen):
    """Curvature on one plane.

    measured: curvature at the point. reference: curvature at the reference radius; None if it overflows, or if no
    counterfactuals are measured at the point.
    """

    measured: PlaneCurvature
    reference: PlaneCurvature | None


@dataclass(frozen=True)
class InLayers(Seen):
    """Curvature at a point, `measured` along random probes, each of which vanishes outside the weights of one layer."""

    measured: PlaneCurvature


@dataclass(frozen=True)
class InFullSpace(Seen):
    """A point in full space: the pair `problem` of a `Problem`, with the cross-entropy as loss, and parameters (D,)."""

    problem: tuple[Problem, Tensor]


class Sweep:
    """Curvature at all points of one draw, in one variant of a study.

    `number` is the number of the draw. There is a point for each radius of a block with each value of the varied keys
    SWEPT; the `study` has a single value for every other key. All points share these attributes.
    theta: an initialisation, or the `trained` weights (D,). own_radius: norm of θ divided by r_X. eta: diagonal metric
    (D,) of the planes. planes: raw directions (d, D) of each plane, before they are orthonormalised. probes: random
    signs (m, D), which probe the full space. layer_probes: q probes for each of l layers, (l · q, D), with random signs
    in the weights of this layer and zeros elsewhere. layers: sizes (l,) of the weight tensors, and standard deviations
    (l,) of their entries.
    """

    def __init__(
        self,
        work: blocks.Work,
        study: CurvatureStudy,
        module: nn.Module,
        examples: Examples,
        number: int,
        trained: np.ndarray | None = None,
    ):
        self.work, self.study, self.depth = work, study, labels.depth(work.job.network)
        parameters = initialisation.parameters_of(module)
        self.eta = blocks.metric(study, parameters)
        counts, size = {"probes": study.probes, "layer probes": study.layer_probes}, self.eta.size
        signs = [work.stream(name, number).choice((-1.0, 1.0), (count, size)) for name, count in counts.items()]
        self.probes, layer_probes = signs
        # Each indicator takes as much memory as θ.
        indicators = initialisation.layer_indicators(module) if study.layer_probes else []
        self.layer_probes = np.concatenate([np.empty((0, size)), *(layer_probes * each for each in indicators)])
        plane, count = subspace_labels.parse_plane(work.job.subspace), max(study.dimensions)
        names = [("plane", plane.kind, number, i) for i in range(study.planes)]
        self.planes = [planes.directions_as_drawn(plane, self.eta, work.stream(*name))[:count] for name in names]
        theta = work.initialisation(parameters, study.initialisation, number) if trained is None else trained
        r_x = initialisation.glorot_radius(parameters)
        self.own_radius, self.points = float(np.linalg.norm(theta)) / r_x, self._points(theta, r_x)
        deviations = initialisation.weight_deviations(parameters, study.initialisation)
        if trained is not None:
            pieces = np.split(trained, np.cumsum([p.size for p in parameters])[:-1])
            deviations = [np.sqrt(np.mean(piece**2)) for piece in pieces]
        layers = [(p.size, sigma) for p, sigma in zip(parameters, deviations) if not p.is_bias]
        self.layers = tuple(map(np.array, zip(*layers)))
        self.module = module.to(work.device)
        self.theta, (self.inputs, self.targets) = torch.as_tensor(theta, device=work.device), work.on_device(examples)

    def seen(self) -> Iterator[Seen]:
        """Yield all objects that observables measure.

        For each point and number of examples, these are: an `OnPlane` for each plane on which the curvature is finite;
        if there are layer probes and the curvature along them is finite, an `InLayers`; in any case an `Attempt`; and
        an `InFullSpace` if the curvature is finite on all planes.
        """
        overflows, references = {}, {}
        for i, plane in enumerate(self.planes):
            found = self._curvature(plane, self.points)
            if self.study.counterfactuals:
                first = next(point for point in self.points if point.scaled)
                reference = Point({}, first.scale / first.ratio, first.temperature, 1.0)
                references = {count: measured for _, count, measured in self._curvature(plane, [reference])}
            for point, count, measured in found:
                overflows[id(point), count] = overflows.get((id(point), count), False) or measured is None
                if measured is not None:
                    place, reference = {"examples": count, "plane": i}, references.get(count) if point.scaled else None
                    yield OnPlane(point.place | place, self, point, measured, reference)
        for point, count, measured in self._curvature(self.layer_probes, self.points):
            if measured is not None:
                yield InLayers(point.place | {"examples": count}, self, point, measured)
        for point, count in itertools.product(self.points, self.study.examples):
            place, overflow = point.place | {"examples": count}, overflows[id(point), count]
            yield Attempt(place, self, point, overflow)
            if not overflow:
                examples = self.inputs[:count], self.targets[:count]
                problem = Problem(self.module, *examples, temperature=point.temperature), point.scale * self.theta
                yield InFullSpace(place, self, point, problem)

    @property
    def path(self) -> str:
        """Name of the algorithm that computes the curvature, for the log."""
        count = 1 if self.study.one_by_one or self.study.sharpness else len(self.points)
        return dispatch.path_of(Problem(self.module, self.inputs), self.theta, count)

    def _points(self, theta: np.ndarray, r_x: float) -> list[Point]:
        """Points on the ray through `theta` (D,): one for each radius and each value of the varied keys SWEPT.

        `r_x` is the norm r_X under Glorot initialisation.
        """
        study, points = self.study, []
        for radius, variant in itertools.product(self.work.block.radii, studies.split(study, SWEPT)[1]):
            here = study.model_copy(update=variant)
            scale = initialisation.scale(theta, radius, here.radius_unit, r_x)
            ratio, temperature = initialisation.ratio(radius, here.radius_unit, r_x), here.temperature
            if here.rescaled != "parameters":
                depth = blocks.known_depth(self.depth, f"rescaled: {here.rescaled}", "parameters")
                temperature *= ratio ** (depth if here.rescaled == "both" else -depth)
                scale = scale if here.rescaled == "both" else scale / ratio
            place = {"radius": radius, **studies.place(variant)}
            points.append(Point(place, scale, temperature, ratio, here.rescaled == "parameters"))
        return points

    def _curvature(self, directions, points: list[Point]) -> list[tuple[Point, int, PlaneCurvature | None]]:
        """Measure the curvature on the plane that `directions` (d, D) span, at all `points` and numbers of examples.

        The directions are a sparse or dense matrix, and need not be orthonormal. Returns triples of a point, a number
        of examples, and the curvature of the mean loss over so many examples, which is None if it overflows. The list
        is empty if d = 0.
        """
        if not directions.shape[0]:
            return []
        if scipy.sparse.issparse(directions):
            directions = directions.astype(self.study.dtype)
        else:
            directions = torch.as_tensor(directions, device=self.work.device).to(getattr(torch, self.study.dtype))
        problem = Problem(self.module, self.inputs, self.targets, self.study.loss)
        options = hessian.Options(self.study.examples, self.work.memory_mib, refuse_overflow=False)
        pairs, sharpness = [(point.scale, point.temperature) for point in points], self.study.sharpness
        groups = [[pair] for pair in pairs] if sharpness or self.study.one_by_one else [pairs]
        found = []
        for group in groups:
            here = softened_relu.softened(problem, group[0][0] * self.theta, sharpness) if sharpness else problem
            found += hessian.curvature_at(here, self.theta, group, directions, options)
        places = itertools.product(points, self.study.examples)
        return [(*place, measured) for place, measured in zip(places, itertools.chain(*found))]
