"""Slices of the loss landscape at several radii of one initialisation (Fort & Scherlis 2019, figure 1)."""

import dataclasses
import logging
import time

import numpy as np
import torch
import xarray as xr

from goldilocks_zone.config import records, studies
from goldilocks_zone.config.models import Cuts
from goldilocks_zone.curvature import loss_slices
from goldilocks_zone.data import datasets
from goldilocks_zone.measurements import blocks, observables
from goldilocks_zone.measurements.observables import Axis, Observables, Shape, Variable
from goldilocks_zone.models import initialisation
from goldilocks_zone.models.problem import Problem
from goldilocks_zone.subspaces import labels, planes

NUMBER = 0  # draw of the initialisation, which studies of the same dataset and network share
RADIUS = observables.RADIUS._replace(units="r_X")
DIRECTION = Axis(
    "direction",
    lambda shape: range(labels.parse_plane(shape.study.subspace).dimension),
    "number of the orthonormal direction of a line",
)
OBSERVABLES = Observables(RADIUS)


def along(name: str, key: str, meaning: str) -> Axis:
    """Axis of displacements along one direction, with the given `name`.

    `key` is the setting of the slices that gives the number of steps on either side of zero. `meaning` describes the
    direction in the long_name of the axis.
    """

    def labels(shape: Shape) -> np.ndarray:
        return loss_slices.displacements(shape.study.extent, getattr(shape.study, key))

    return Axis(name, labels, f"displacement along {meaning}", "r, the initialisation's own norm")


DISPLACEMENT = along("displacement", "steps", "a line")
FIRST = along("first", "plane_steps", "direction 0")
SECOND = along("second", "plane_steps", "direction 1")


@dataclasses.dataclass(frozen=True)
class Slices:
    """A point in parameter space, and the directions along which the loss is measured around it.

    point: parameters (D,). directions: orthogonal directions (d, D), each with the norm of the point. problem: network,
    examples and loss. settings: settings of the slices, such as how far they extend.
    """

    problem: Problem
    point: torch.Tensor
    directions: torch.Tensor
    settings: Cuts


@OBSERVABLES.register(
    Slices,
    Variable("loss", "nat (cross-entropy)", "mean loss"),
    Variable("line_loss", "nat", "mean loss on lines through the initialisation", (DIRECTION, DISPLACEMENT)),
    Variable("plane_loss", "nat", "mean loss on a plane through the initialisation", (SECOND, FIRST)),
)
def slices(seen: Slices) -> dict[str, np.ndarray]:
    """Mean losses at the point, on a line along each direction, and on the plane of the first two directions, by name.

    line_loss is (directions, displacements). plane_loss is (displacements along the second direction, displacements
    along the first direction). Displacements are in units of the radius, which is the norm of the point.
    """
    cuts, count = seen.settings, len(seen.directions)
    line, grid = (loss_slices.displacements(cuts.extent, steps) for steps in (cuts.steps, cuts.plane_steps))
    lines, plane = loss_slices.line_coefficients(line, count), loss_slices.plane_coefficients(grid, count)
    coefficients = {"line_loss": lines, "plane_loss": plane, "loss": np.zeros(count)}
    place = seen.problem, seen.point, seen.directions
    return {name: loss_slices.mean_losses(*place, each) for name, each in coefficients.items()}


def measure_block(job: blocks.Job) -> xr.Dataset:
    """Measure the loss on all slices at all radii; return the labelled results.

    The dataset, network and subspace are those in the settings of the slices, which the job names. Raises ValueError if
    the plane has more dimensions than the network has weights.
    """
    cuts, seed = records.read_measurement(job.path_to_settings)
    job = dataclasses.replace(job, dataset=cuts.dataset, network=cuts.network, subspace=cuts.subspace)
    work = blocks.begin(job, records.Block(cuts, seed, range(1), studies.radii(cuts)))
    given = job.path_to_dataset, job.dataset, cuts.examples, cuts.inputs
    examples = datasets.load(*given, labels="original", validation=cuts.validation, seed=seed)
    module = work.network(examples).to(work.device)
    parameters, plane = initialisation.parameters_of(module), labels.parse_plane(cuts.subspace)
    available = sum(p.size for p in parameters if not p.is_bias)
    if plane.dimension > available:
        reason = f"{cuts.network} has {available} weights on {cuts.dataset}: ask for fewer"
        raise ValueError(f"cuts.subspace: a plane of {plane.dimension} dimensions is impossible; {reason}")
    # Studies of this dataset and network start from the same θ.
    theta, r_x = work.initialisation(parameters, cuts.initialisation, NUMBER), initialisation.glorot_radius(parameters)
    raw = planes.directions(plane, blocks.metric(cuts, parameters), work.stream("cut", plane.kind, NUMBER))
    directions, data = torch.as_tensor(loss_slices.orthonormal(raw), device=work.device), work.on_device(examples)
    shape = Shape(cuts, module, examples.inputs.shape[1:], examples.classes)
    result = blocks.empty(OBSERVABLES, shape, {"radius": work.block.radii})
    for radius in work.block.radii:
        point = torch.as_tensor(initialisation.rescaled(theta, radius, "r_X", r_x), device=work.device)
        seen = Slices(Problem(module, *data), point, radius * r_x * directions, cuts)
        blocks.fill(result, {"radius": radius}, OBSERVABLES.measure(cuts, seen))
        logging.info("radius %g measured after %.1f s", radius, time.monotonic() - work.started)
    seeds = f"streams named {seed}, purpose, {job.dataset}, {job.network}, kind, {NUMBER}"
    return blocks.sign(result, work, examples, module, dtype="float64", seeds=seeds)
