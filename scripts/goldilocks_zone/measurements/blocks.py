"""Parts that all measuring modules share: jobs, devices, random streams, metrics of planes, and blocks of results.

A block is the labelled dataset that one job measures. It comprises some of a study's draws and radii, for one cell: one
dataset, network and subspace. It is allocated with missing values and filled point by point.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from goldilocks_zone.config import records, studies
from goldilocks_zone.config.models import Cuts, Study
from goldilocks_zone.data.datasets import Examples
from goldilocks_zone.jobs import locks
from goldilocks_zone.measurements.observables import Observables, Shape
from goldilocks_zone.models import user_code, user_networks, weights
from goldilocks_zone.models.initialisation import Parameter, glorot_radius, initialise, parameters_of, weight_deviations
from goldilocks_zone.provenance import attributes
from goldilocks_zone.randomness import stream
from goldilocks_zone.subspaces import planes


@dataclass(frozen=True)
class Job:
    """Input files, labels and resources of one job.

    path_to_code: file with the fingerprint of the code; path_to_network: record of a user's own network; network_file:
    code of this network; dataset, network, subspace, block: labels of the block; memory_mib: bound on the memory of
    differentiation on a CPU, in MiB; checkpoint_seconds: shortest time between checkpoints; weights_files: files of the
    study's trained weights, in the order of the study's key `weights`.
    """

    path_to_dataset: str
    path_to_settings: str
    path_to_code: str
    path_to_network: str | None
    network_file: str
    dataset: str = ""
    network: str = ""
    subspace: str = ""
    block: str = ""
    device: str = "auto"
    threads: int = 1
    memory_mib: int = 1024
    path_to_checkpoints: str = ""
    checkpoint_seconds: float = 60.0
    weights_files: Sequence[str] = ()


@dataclass(frozen=True)
class Work:
    """A started job: its block, and what all its measurements need.

    code: fingerprint of the code. own: the user's own network, or None for a built-in one. started: time of the start
    on the monotonic clock, in seconds.
    """

    job: Job
    block: records.Block
    code: str
    own: user_code.UserNetwork | None
    device: torch.device
    started: float

    @property
    def memory_mib(self) -> int | None:
        """Bound on the memory of differentiation, in MiB: the job's on a CPU; None on a GPU, for the default there."""
        return self.job.memory_mib if self.device.type == "cpu" else None

    @property
    def labels(self) -> dict[str, Sequence]:
        """Labels of the block's axes by name: each varied key, radius and draw."""
        return {**studies.varied(self.block.study), "radius": self.block.radii, "draw": self.block.draws}

    def stream_name(self, purpose: str, *more: str | int) -> tuple:
        """Name of a random stream: seed, `purpose`, dataset, network and `more`.

        `purpose` says what is drawn, such as initialisation, and `more` which one, such as the draw.
        """
        return (self.block.seed, purpose, self.job.dataset, self.job.network, *more)

    def stream(self, purpose: str, *more: str | int) -> np.random.Generator:
        """Random generator of the stream for a `purpose`, named as `stream_name` says.

        The name does not contain the study, so that studies of curvature and of training share initialisations.
        """
        return stream(*self.stream_name(purpose, *more))

    def initialisation(self, parameters: Sequence[Parameter], kind: str, draw: int) -> np.ndarray:
        """Initialisation θ (D,) of a draw, not yet rescaled to a radius, of a `kind` such as glorot."""
        return initialise(parameters, kind, self.stream("initialisation", draw))

    def weights(self, study: Study, module: nn.Module) -> np.ndarray | None:
        """Read the trained weights θ (D,) of a `study` whose varied keys are fixed.

        The result is None if this study uses initialisations instead of weights. Buffers in the file of weights are
        copied into the `module`. Raises ValueError, which names the file and the tensor, if the weights do not fit the
        network.
        """
        (chosen,) = study.weights or [None]
        if chosen is None or not chosen.fingerprint:
            return None
        file = self.job.weights_files[self.block.study.weights.index(chosen)]
        name = f"{file}, as weights of the network {self.job.network}"
        return weights.put(module, weights.read(file, chosen.fingerprint), name).numpy()

    def on_device(self, examples: Examples) -> tuple[Tensor, Tensor]:
        """Inputs (n, …) and labels (n,) of `examples`, as tensors on the device of the job."""
        return tuple(torch.as_tensor(each, device=self.device) for each in (examples.inputs, examples.labels))

    def network(self, examples: Examples) -> nn.Module:
        """Build the job's network for inputs and classes as in `examples`, in double precision."""
        return self.network_of(examples.inputs.shape[1:], examples.classes)

    def network_of(self, image: tuple[int, ...], classes: int) -> nn.Module:
        """Build the job's network for images of shape `image` (channels, height, width), in double precision."""
        return user_networks.build_named(self.job.network, self.own, image, classes)


def begin(job: Job, block: records.Block | None = None) -> Work:
    """Start a job: read its inputs and set up torch.

    By default, `block` is read from the job's settings and labels.
    """
    # Read the fingerprint first: if the code changes during the measurement, results must not carry the new one.
    started, code = time.monotonic(), Path(job.path_to_code).read_text().strip()
    block = block or records.read_block(job.path_to_settings, job.dataset, job.network, job.subspace, job.block)
    own = user_code.recorded(job.path_to_network, job.network_file)
    return Work(job, block, code, own, start_torch(job.device, job.threads), started)


def start_torch(device: str, threads: int) -> torch.device:
    """Set up torch without TF32, and return the device for `device`: cpu, cuda, or auto (CUDA if available).

    A GPU is locked until this process exits; if all GPUs are locked, wait for one. Raises ValueError if `device` is
    cuda and there is no GPU.
    """
    torch.set_num_threads(threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    count = torch.cuda.device_count()
    number = locks.claim_gpu([str(torch.cuda.get_device_properties(each).uuid) for each in range(count)])
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


def refuse_unknown_depth(depth: int | None, setting: str, other: str) -> None:
    """Raise ValueError if `depth`, the number of weight layers, is None, as it is for a user's own network.

    `setting` is the setting that needs the depth; the message advises to use `other` instead.
    """
    if depth is None:
        reason = "needs the number of weight layers, which is unknown for a network of your own"
        raise ValueError(f"{setting} {reason}: use {other} in its place")


def metric(settings: Study | Cuts, parameters: Sequence[Parameter]) -> np.ndarray:
    """Diagonal metric η (D,) of the random planes of a study or of loss slices (`Cuts`), see `planes.metric`."""
    sizes, biases = [p.size for p in parameters], [p.is_bias for p in parameters]
    deviations = weight_deviations(parameters, settings.initialisation)
    return planes.metric(sizes, biases, deviations, settings.metric, settings.bias_directions)


def empty(observables: Observables, shape: Shape, labels: Mapping[str, Sequence]) -> xr.Dataset:
    """Allocate a block, filled with NaN, for all variables that the study in `shape` measures.

    The dimensions of a variable are the varied keys, then `observables.points`, then its own axes. `labels` maps names
    of axes to their labels. It must contain all varied keys; an axis that it does not contain gets the labels that
    follow from `shape`.
    """
    known = [variable for each in observables if each.wanted(shape.study) for variable in each.variables]
    axes = {axis.name: axis for axis in (*observables.points, *(axis for each in known for axis in each.axes))}
    varied = {name: values for name, values in labels.items() if name not in axes}
    coordinates = {n: (n, list(labels.get(n, axis.labels(shape))), axis.attributes) for n, axis in axes.items()}
    result = xr.Dataset(coords=varied | coordinates)
    points = [*varied, *(axis.name for axis in observables.points)]
    for variable in known:
        dims = [*points, *(axis.name for axis in variable.axes)]
        values = np.full([result.sizes[dim] for dim in dims], np.nan)
        result[variable.name] = (dims, values, variable.attributes)
    return result


def fill(block: xr.Dataset, place: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Write `values` into a block: for each variable by name, its array at the `place` {axis: label}."""
    # xarray would look up the positions again for every variable.
    positions = {dim: block.indexes[dim].get_loc(label) for dim, label in place.items()}
    for name, value in values.items():
        variable = block.variables[name]
        variable.values[tuple(positions.get(dim, slice(None)) for dim in variable.dims)] = value


def sign(block: xr.Dataset, work: Work, examples: Examples, module: nn.Module, **more) -> xr.Dataset:
    """Set the attributes of a block to its provenance and to `more`, and return the block.

    The provenance follows from the job `work`, the `examples` it measured, and its network `module`.
    """
    job, own = work.job, work.own
    seeds = f"streams named {work.block.seed}, purpose, {job.dataset}, {job.network}, {job.subspace}, draw, plane"
    known = {"data_checksum": examples.checksum, "classes": examples.classes, "seeds": seeds}
    known |= {"network_fingerprint": own.fingerprint if own else "", "r_x": glorot_radius(parameters_of(module))}
    known |= {"device": str(work.device), "threads": job.threads, **more}
    settings = records.of_measurement(work.block.study, work.block.seed)
    block.attrs = attributes.attributes(work.code, settings, time.monotonic() - work.started, **known)
    return block
