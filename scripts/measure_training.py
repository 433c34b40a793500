"""Training on planes, on spheres or in the whole space from many radii, for some draws of one study."""

import functools
import itertools
import logging
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from goldilocks_zone.config import records, studies
from goldilocks_zone.curvature import hessian, logit_gradients, top_eigenvectors
from goldilocks_zone.data import datasets
from goldilocks_zone.jobs import lifecycle
from goldilocks_zone.jobs.log import job_log
from goldilocks_zone.measurements import local_geometry, setup
from goldilocks_zone.measurements.training import TrainingStudy
from goldilocks_zone.models import initialisation, labels, networks, user_code
from goldilocks_zone.provenance import attributes
from goldilocks_zone.spectra import summaries
from goldilocks_zone.storage import netcdf
from goldilocks_zone.storage import variables as storage_variables
from goldilocks_zone.subspaces import constraints, projections
from goldilocks_zone.subspaces import labels as subspace_labels
from goldilocks_zone.training import ensembles, loop, observations

LOGGED = (
    *("training_accuracy", "training_loss", "validation_accuracy", "validation_loss"),
    *("norm", "distance", "start_cosine", "gradient_norm", "gradient_cosine", "zero_logits"),
    *("path_square", "step_cosine"),
)
AT_THE_END = ("test_accuracy", "test_loss", "diverged")
CURVATURE = ("fraction_positive", "trace_over_norm")
# Of the geometry: its variables and their own axes.
GEOMETRY = {
    "gauss_newton_eigenvalue": ("rank",),
    "hessian_eigenvalue": ("rank",),
    "gradient_power": ("gradient_of", "rank"),
    "clustering": ("pair", "layers"),
    "residual_extreme": ("end",),
    "input_cosine": ("input_pair",),
    "model_eigenvalue": ("rung", "rank"),
    **dict.fromkeys(
        ("gauss_newton_full_trace", "gauss_newton_full_norm", "hessian_full_trace", "hessian_full_norm"), ()
    ),
    **dict.fromkeys(("centred_edge", "top_space_cosine", "cluster_deviation", "noise_deviation", "logits_std"), ()),
    **dict.fromkeys(local_geometry.MODELLED, ("rung",)),
    **dict.fromkeys(local_geometry.FORMULAE, ()),
    **dict.fromkeys(("entropy", "mixing", "gradient_length", "trace_examples"), ()),
    **dict.fromkeys(("held_out_entropy", "held_out_logits_std"), ()),
}
# Varied keys in which the members of one ensemble may differ; every other key needs an ensemble of its own.
OF_MEMBERS = ("rate", "rate_rule", "temperature", "temperature_rule")

BYTES_AT_ONCE = 2**24  # of members that train freely, on the CPU: their steps pass over memory many times


def measure_training(
    path_to_dataset: str,
    path_to_settings: str,
    path_to_code: str,
    path_to_network: str | None,
    network_file: str,
    dataset: str,
    network: str,
    subspace: str,
    block: str,
    device: str,
    threads: int,
    memory_mib: int,
    checkpoint_seconds: float,
    path_to_checkpoints: str,
    path_to_output: str,
) -> None:
    """Write one block; `memory_mib` bounds working memory of Hessians, `device` is auto, cpu or cuda.

    `path_to_network` leads to the record of a network of the user's own, which `network` names, and `network_file` to
    its code.
    `path_to_checkpoints` is a folder from which a job that was killed goes on, and which is gone when it is done; it
    is written to every `checkpoint_seconds` at most.
    """
    start = time.monotonic()
    # Read before measuring: code that changes meanwhile must not sign these numbers.
    code = Path(path_to_code).read_text().strip()
    chosen = records.read_block(path_to_settings, dataset, network, subspace, block)
    study, seed = chosen.study, chosen.seed
    own = user_code.recorded(path_to_network, network_file)
    device = setup.start_torch(device, threads)

    @functools.lru_cache(maxsize=1)
    def load(**varied):
        kept = {"validation": study.validation, "seed": seed, "test": study.test, "examples": study.examples}
        return datasets.load_splits(path_to_dataset, dataset, dtype=getattr(np, study.dtype), **kept, **varied)

    result, where, number = None, subspace_labels.parse_subspace(subspace), 0
    rates = studies.variants(study, [key for key in OF_MEMBERS if key in study.vary])
    members = [Member(*each) for each in itertools.product(chosen.draws, chosen.radii, rates)]
    for variant in studies.variants(study, [key for key in sorted(study.vary) if key not in OF_MEMBERS]):
        here = study.model_copy(update=variant)
        splits = load(inputs=here.inputs, labels=here.labels, classes=here.classes)
        classes, image = splits.training.classes, splits.training.inputs.shape[1:]
        module = networks.build_named(network, own, image, classes).to(device, getattr(torch, study.dtype))
        if result is None:
            result = _empty_block(study, chosen, len(list(module.parameters())), classes)
        job = Job(here, module, where, labels.depth(network), setup.Streams(seed, dataset, network), device)
        known = {"code": code, "own": own and own.record(network), "checksum": splits.training.checksum}
        key = attributes.settings_hash({**known, **records.of_measurement(here, seed)})
        for group in _groups(members, where, module, splits.training.inputs, here.batch):
            path = Path(path_to_checkpoints) / f"{number:03d}.pt"
            found = _train(
                job, group, splits, memory_mib, loop.Checkpoint(path, key, checkpoint_seconds, lifecycle.asked)
            )
            for i, member in enumerate(group):
                values = {name: each[..., i] for name, each in found.items()}
                _record(result, {**variant, **member.variant}, member, values)
            logging.info("ensemble %d trained after %.1f s%s", number, time.monotonic() - start, _described(variant))
            number += 1
    result.attrs = attributes.attributes(
        code,
        records.of_measurement(study, seed),
        time.monotonic() - start,
        data_checksum=splits.training.checksum,
        classes=classes,
        test_examples=len(splits.test.labels),
        network_fingerprint=own.fingerprint if own else "",
        seeds=f"streams named {seed}, purpose, {dataset}, {network}, {subspace}, draw, plane",
        r_x=initialisation.glorot_radius(initialisation.parameters_of(module)),
        device=str(device),
        dtype=study.dtype,
        threads=threads,
    )
    netcdf.write_dataset(result, path_to_output)
    shutil.rmtree(path_to_checkpoints, ignore_errors=True)


@dataclass(frozen=True)
class Job:
    """What the members of an ensemble share: their study, network, where it is trained, depth, streams and device."""

    study: TrainingStudy
    module: torch.nn.Module
    where: subspace_labels.Plane | subspace_labels.Sphere | subspace_labels.FullSpace
    depth: int | None
    streams: setup.Streams
    device: torch.device


@dataclass(frozen=True)
class Member:
    """One run of training: its draw, radius in the study's unit, and what it sets of the keys OF_MEMBERS."""

    draw: int
    radius: float
    variant: dict


def _groups(
    members: list[Member],
    where: subspace_labels.Plane | subspace_labels.Sphere | subspace_labels.FullSpace,
    module: torch.nn.Module,
    inputs: np.ndarray,
    batch: int | str,
) -> list[list[Member]]:
    """Members that are trained as one ensemble: those of one plane; in the whole space as many as fit into a cache.

    With their parameters, or with what a layer makes of a batch, whichever is larger.
    """
    if not isinstance(where, subspace_labels.FullSpace):
        return [list(group) for _, group in itertools.groupby(members, lambda member: member.draw)]
    parameters = list(module.parameters())
    examples = len(inputs) if batch == "all" else batch
    widest = max(len(each) for each in parameters if each.ndim > 1)
    entries = max(sum(each.numel() for each in parameters), examples * widest)
    size = entries * parameters[0].element_size()
    count = len(members) if parameters[0].is_cuda else max(1, BYTES_AT_ONCE // size)
    return [members[start : start + count] for start in range(0, len(members), count)]


def _described(variant: dict) -> str:
    return "".join(f", {key} {value}" for key, value in variant.items())


def _train(
    job: Job, members: list[Member], splits: datasets.Splits, memory_mib: int, checkpoint: loop.Checkpoint
) -> dict[str, np.ndarray]:
    """What is measured of the members: arrays (…, members) by name."""
    study, dtype = job.study, getattr(torch, job.study.dtype)
    parameters = initialisation.parameters_of(job.module)
    r_x = initialisation.glorot_radius(parameters)
    kind = study.initialisation
    drawn = {member.draw: job.streams.initialisation(parameters, kind, member.draw) for member in members}
    points = [initialisation.rescaled(drawn[m.draw], m.radius, study.radius_unit, r_x) for m in members]
    radii = np.array([np.linalg.norm(point) for point in points])
    ratios = [initialisation.ratio(m.radius, study.radius_unit, r_x) for m in members]
    rates, temperatures = zip(*(_rate_and_temperature(job, m, ratio) for m, ratio in zip(members, ratios)))
    subset = _subset(job, members, np.stack(points), radii, dtype)
    options = ensembles.Options(
        steps=study.steps,
        batch=None if study.batch == "all" else study.batch,
        rates=torch.tensor(rates, dtype=torch.float64),
        temperatures=torch.tensor(temperatures, dtype=torch.float64),
        optimiser=study.optimiser,
        momentum=study.momentum,
        epsilon=study.epsilon,
        random_signs=study.gradients == "random_signs",
        loss=study.loss,
    )
    # Members of one plane share their batches, those of the whole space have each its own draw's.
    draws = [m.draw for m in members] if isinstance(job.where, subspace_labels.FullSpace) else [members[0].draw]
    shuffles = [job.streams.name("batches", draw) for draw in draws]
    ensemble = ensembles.Ensemble(job.module, subset, options, shuffles)

    def on_device(examples: datasets.Examples, count: int | None = None) -> tuple[Tensor, Tensor]:
        arrays = (examples.inputs[:count], examples.labels[:count])
        return tuple(torch.as_tensor(each, device=job.device) for each in arrays)

    inputs, targets = on_device(splits.training)
    evaluated = {"training": (inputs[: study.evaluated], targets[: study.evaluated])}
    if study.validation:
        evaluated["validation"] = on_device(splits.validation)
    log_at, count = study.logged_steps, study.sharpness_examples

    def observe(step: int, state: ensembles.Ensemble) -> dict[str, Tensor]:
        found = observations.snapshot(state, **evaluated)
        if count:
            found["sharpness"] = _sharpness(job, state, inputs[:count], targets[:count], memory_mib)
        if study.geometry_examples:
            found |= _geometry(job, state, step, (inputs, targets), evaluated["validation"], memory_mib)
        if study.outputs_examples:
            found |= _outputs(job, state, *(each[: study.outputs_examples] for each in evaluated["validation"]))
        return found

    found = loop.train(ensemble, inputs, targets, log_at, observe, checkpoint)
    found = {name: np.moveaxis(each, 1, -1) for name, each in found.items()}
    at_the_end = observations.classified(ensemble, *on_device(splits.test))
    found |= {f"test_{name}": at_the_end[name].cpu().numpy() for name in ("accuracy", "loss")}
    found["diverged"] = (~np.isfinite(found["test_loss"])).astype(float)
    if study.curvature_examples:
        count = study.curvature_examples
        sets = [(inputs[:count], targets[:count])]
        sets += [on_device(splits.validation, count)] if study.validation else []
        found |= _curvature(job, ensemble, sets, memory_mib)
    return found


def _rate_and_temperature(job: Job, member: Member, ratio: float) -> tuple[float, float]:
    """Of a member whose radius is `ratio` times that of reference."""
    chosen = job.study.model_copy(update=member.variant)
    for rule in ("rate_rule", "temperature_rule"):
        if getattr(chosen, rule) == "homogeneous" and job.depth is None:
            raise ValueError(
                f"{rule}: homogeneous needs the number of weight layers, which is not known of a network of your own: "
                "use fixed"
            )
    rate = chosen.rate * ratio ** studies.rate_exponent(chosen.rate_rule, job.depth)
    temperature = chosen.temperature
    if chosen.temperature_rule == "homogeneous":
        temperature *= ratio**job.depth
    return rate, temperature


def _subset(
    job: Job, members: list[Member], points: np.ndarray, radii: np.ndarray, dtype: torch.dtype
) -> constraints.Subset:
    """Where the members at `points` (m, D) of the norms `radii` (m,) go; on a plane or sphere all are of one draw."""

    def tensor(array: np.ndarray) -> Tensor:
        return torch.as_tensor(array, dtype=dtype, device=job.device)

    shapes, where = [tensor.shape for tensor in job.module.parameters()], job.where
    if isinstance(where, subspace_labels.FullSpace):
        return constraints.full(tensor(points), shapes, where.fixed)
    eta, draw = setup.metric(job.study, initialisation.parameters_of(job.module)), members[0].draw
    random = job.streams.stream("plane", where.kind, draw, 0)
    projection = projections.make(where.kind, where.dimension, shapes, eta, random, dtype, job.device)
    if isinstance(where, subspace_labels.Plane):
        return constraints.plane(projection, tensor(points))
    if job.study.sphere == "through_initialisation":
        return constraints.sphere_through(projection, tensor(points[0]), tensor(radii))
    direction = job.streams.stream("direction", where.kind, draw).standard_normal(where.dimension)
    return constraints.sphere(projection, tensor(radii), tensor(direction))


def _sharpness(job: Job, ensemble: ensembles.Ensemble, inputs: Tensor, targets: Tensor, memory_mib: int) -> Tensor:
    """The largest eigenvalue of the Hessian in full space of each member (m,); NaN where it has diverged."""
    points = torch.cat([each.flatten(1) for each in ensemble.parameters()], 1)
    found = torch.full((len(points),), torch.nan, dtype=torch.float64)
    for i, (point, temperature) in enumerate(zip(points, ensemble.temperatures.tolist())):
        options = {"temperature": temperature, "memory_mib": memory_mib, "loss": job.study.loss}
        if torch.isfinite(point).all():
            found[i] = top_eigenvectors.sharpness(job.module, point, inputs, targets, **options)
    return found


def _geometry(
    job: Job,
    ensemble: ensembles.Ensemble,
    step: int,
    trained: tuple[Tensor, Tensor],
    held_out: tuple[Tensor, Tensor],
    memory_mib: int,
) -> dict[str, Tensor]:
    """What `geometry.measure` finds of each member, (m, …) by name; NaN at other steps, and where one has diverged.

    And where G has too few eigenvalues, as where the softmax is saturated on nearly all examples: the log says so.
    """
    study, members = job.study, len(ensemble.coordinates)
    axes = _geometry_axes(study)
    found = {
        name: torch.full((members, *(len(axes[axis]) for axis in own)), torch.nan, dtype=torch.float64)
        for name, own in GEOMETRY.items()
    }
    if step not in study.geometry_steps:
        return found
    count = study.geometry_examples

    def part(examples: tuple[Tensor, Tensor], first: int) -> local_geometry.Examples:
        return local_geometry.Examples(*(each[first : first + count] for each in examples))

    sets = part(trained, 0), part(trained, count), part(held_out, 0)
    if (least := min(len(each.labels) for each in sets)) < count:
        raise ValueError(
            f"geometry_examples: {count} is impossible; of the classes of this variant one of its three sets, two of "
            f"training and one held out, has {least}"
        )
    options = local_geometry.Options(study.eigenvalues, residual=step in study.residual_steps, memory_mib=memory_mib)
    points = torch.cat([each.flatten(1) for each in ensemble.parameters()], 1)
    for i, point in enumerate(points):
        if not torch.isfinite(point).all():
            continue
        try:
            measured = local_geometry.measure(job.module, point, *sets, options)
        except logit_gradients.TooFewEigenvalues as reason:
            logging.warning("step %d, member %d: no geometry, for %s", step, i, reason)
            continue
        for name, value in measured.items():
            found[name][i] = torch.as_tensor(value)
    return found


def _outputs(job: Job, ensemble: ensembles.Ensemble, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Softmax outputs of each member (m, n, k), and the labels of the same examples (m, n)."""
    points = torch.cat([each.flatten(1) for each in ensemble.parameters()], 1)
    found = torch.stack([local_geometry.outputs(job.module, point, inputs) for point in points])
    return {"outputs": found, "output_label": targets.double().expand(len(points), -1)}


def _geometry_axes(study: TrainingStudy) -> dict[str, list]:
    """The labels of the axes of GEOMETRY."""
    return {
        "rank": list(range(1, study.eigenvalues + 1)),
        "gradient_of": list(local_geometry.SOURCES),
        "pair": list(local_geometry.PAIRS),
        "layers": list(local_geometry.LAYERS),
        "end": list(local_geometry.ENDS),
        "input_pair": list(local_geometry.INPUT_PAIRS),
        "rung": list(local_geometry.RUNGS),
    }


def _curvature(
    job: Job, ensemble: ensembles.Ensemble, sets: list[tuple[Tensor, Tensor]], memory_mib: int
) -> dict[str, np.ndarray]:
    """Measures of the Hessian on the plane, arrays (start and end, training and held-out examples, members)."""
    identity = torch.eye(job.where.dimension, dtype=ensemble.coordinates.dtype, device=job.device)
    rows = torch.cat([each.flatten(1) for each in ensemble.subset.projection.forward(identity)], 1)
    module = job.module.double()
    found = {name: np.full((2, 2, len(ensemble.coordinates)), np.nan) for name in CURVATURE}
    for moment, coordinates in enumerate((ensemble.subset.start, ensemble.coordinates)):
        arrays = ensemble.subset.forward(coordinates)
        points = torch.cat([each.flatten(1) for each in arrays], 1).double()
        for (i, point), (j, (inputs, targets)) in itertools.product(enumerate(points), enumerate(sets)):
            if not torch.isfinite(point).all():
                continue
            (measured,) = hessian.plane_curvature(module, point, rows, inputs.double(), targets, memory_mib=memory_mib)
            summary = summaries.summarise(np.linalg.eigvalsh(measured.hessian))
            for name in CURVATURE:
                found[name][moment, j, i] = getattr(summary, name)
    return found


def _record(result: xr.Dataset, variant: dict, member: Member, found: dict[str, np.ndarray]) -> None:
    """Write what was found of a member to its place in a block."""
    place = {studies.dimension(key): value for key, value in variant.items()}
    place |= {"radius": member.radius, "draw": member.draw}
    for name, values in found.items():
        result[name].loc[place] = values


def _empty_block(study: TrainingStudy, block: records.Block, tensors: int, classes: int) -> xr.Dataset:
    """A block of missing values."""
    varied = {studies.dimension(key): study.vary[key] for key in sorted(study.vary)}
    coordinates = {
        **varied,
        "radius": block.radii,
        "draw": list(block.draws),
        "step": study.logged_steps,
        "tensor": list(range(1, tensors + 1)),
    }
    point = (*varied, "radius", "draw")
    axes = {**dict.fromkeys(LOGGED, (*point, "step")), "tensor_norm": (*point, "step", "tensor")}
    if not study.validation:
        del axes["validation_accuracy"], axes["validation_loss"]
    if study.sharpness_examples:
        axes["sharpness"] = (*point, "step")
    if study.geometry_examples:
        coordinates |= _geometry_axes(study)
        axes |= {name: (*point, "step", *own) for name, own in GEOMETRY.items()}
    if study.outputs_examples:
        coordinates |= {"output_example": list(range(study.outputs_examples)), "class": list(range(classes))}
        axes["outputs"] = (*point, "step", "output_example", "class")
        axes["output_label"] = (*point, "step", "output_example")
    axes |= dict.fromkeys(AT_THE_END, point)
    if study.curvature_examples:
        coordinates |= {"moment": ["start", "end"], "examples_of": ["training", "validation"]}
        axes |= dict.fromkeys(CURVATURE, (*point, "moment", "examples_of"))
    variables = {
        name: (dims, np.full([len(coordinates[dim]) for dim in dims], np.nan), storage_variables.MEANINGS[name])
        for name, dims in axes.items()
    }
    return xr.Dataset(variables, coordinates)


if __name__ == "__main__":
    with job_log(snakemake.log[0], snakemake.input):
        lifecycle.listen()
        measure_training(
            path_to_dataset=snakemake.input.dataset,
            path_to_settings=snakemake.input.settings,
            path_to_code=snakemake.input.code,
            path_to_network=next(iter(snakemake.input.network), None),
            network_file=snakemake.resources.network_file,
            dataset=snakemake.wildcards.dataset,
            network=snakemake.wildcards.network,
            subspace=snakemake.wildcards.subspace,
            block=snakemake.wildcards.block,
            device=snakemake.resources.device,
            threads=snakemake.threads,
            memory_mib=snakemake.resources.memory_mib,
            checkpoint_seconds=float(snakemake.resources.checkpoint_seconds),
            path_to_checkpoints=snakemake.params.checkpoints,
            path_to_output=snakemake.output[0],
        )
