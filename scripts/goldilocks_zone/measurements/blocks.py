"""Parts that all measuring modules share: jobs, devices, random streams, metrics of planes, and blocks of results.

A block is the labelled dataset that one job measures. It has a single dataset, network and subspace, and some of the
draws and radii of a study. It is first filled with NaN, and then with measured values, piece by piece. A draw is one of
several repetitions with different random numbers, such as another initialisation; draws are numbered. A varied key is a
setting for which the study lists several values; the block has a dimension for it. A variant is one combination of
values of the varied keys.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from goldilocks_zone.config import records, studies
from goldilocks_zone.config.models import Cuts, Study
from goldilocks_zone.data.datasets import Examples
from goldilocks_zone.jobs import locks
from goldilocks_zone.measurements.curvature import CurvatureStudy
from goldilocks_zone.measurements.observables import Observables, Shape
from goldilocks_zone.models import user_code, user_networks, weights
from goldilocks_zone.models.initialisation import Parameter, glorot_radius, initialise, parameters_of, weight_deviations
from goldilocks_zone.provenance import attributes
from goldilocks_zone.randomness import stream
from goldilocks_zone.subspaces import planes


@dataclass(frozen=True)
class Job:
    """Input files, labels and resources of one job.

    path_to_settings: record of the study's settings. path_to_code: file with the fingerprint of the code.
    path_to_network: record of a user's own network, or None. network_file: file with the code of this network. dataset,
    network, subspace: labels of the block's cell. block: name of the block, which gives its draws and radii.
    memory_mib: bound, in MiB, on the memory that differentiation uses on a CPU. path_to_checkpoints: folder of the
    job's checkpoints. checkpoint_seconds: shortest time between writes of a checkpoint. weights_files: files of the
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
    """A job that has started, with everything that was read or set up at its start.

    block: the part of the study that the job measures. code: fingerprint of the code. own: the user's own network, or
    None for a built-in one. started: time of the start on the monotonic clock, in seconds.
    """

    job: Job
    block: records.Block
    code: str
    own: user_code.UserNetwork | None
    device: torch.device
    started: float

    @property
    def memory_mib(self) -> int | None:
        """Bound, in MiB, on the memory that differentiation uses: the job's `memory_mib` on a CPU, or None on a GPU.

        None selects the default for a GPU.
        """
        return self.job.memory_mib if self.device.type == "cpu" else None

    @property
    def labels(self) -> dict[str, Sequence]:
        """Labels along those axes that the block determines, by name of the axis: varied keys, radius and draw."""
        return {**studies.varied(self.block.study), "radius": self.block.radii, "draw": self.block.draws}

    def stream_name(self, purpose: str, *more: str | int) -> tuple:
        """Name of a random stream, for `randomness.stream`: the tuple (seed, purpose, dataset, network, *more).

        `purpose` says what the stream draws, such as an initialisation. `more` tells streams of the same purpose apart,
        for example by the number of the draw.
        """
        return (self.block.seed, purpose, self.job.dataset, self.job.network, *more)

    def stream(self, purpose: str, *more: str | int) -> np.random.Generator:
        """Random generator of the stream whose name `stream_name` gives for the same arguments.

        The name does not contain the study, so that studies of curvature and of training share initialisations.
        """
        return stream(*self.stream_name(purpose, *more))

    def initialisation(self, parameters: Sequence[Parameter], kind: str, draw: int) -> np.ndarray:
        """Initial parameters θ (D,) of the draw with number `draw`, before they are rescaled to a radius.

        `parameters` describe the network's parameter tensors. `kind` is the kind of initialisation, such as glorot.
        """
        return initialise(parameters, kind, self.stream("initialisation", draw))

    def weights(self, study: CurvatureStudy, module: nn.Module) -> np.ndarray | None:
        """Read the trained weights θ (D,) that a `study` uses; None if it uses an initialisation instead.

        The study must have a single value for each varied key, so that it has one file of weights at most. Buffers in
        this file are copied into the `module`. Raises ValueError, which names the file and the tensor, if the weights
        do not fit the network.
        """
        (chosen,), whole = study.weights or [None], self.block.study
        if chosen is None or not chosen.fingerprint:
            return None
        assert isinstance(whole, CurvatureStudy) and whole.weights is not None
        file = self.job.weights_files[whole.weights.index(chosen)]
        name = f"{file}, as weights of the network {self.job.network}"
        return weights.put(module, weights.read(file, chosen.fingerprint), name).numpy()

    def on_device(self, examples: Examples) -> tuple[Tensor, Tensor]:
        """Inputs (n, …) and labels (n,) of `examples`, as tensors on the device of the job."""
        inputs, labels = (torch.as_tensor(each, device=self.device) for each in (examples.inputs, examples.labels))
        return inputs, labels

    def network(self, examples: Examples) -> nn.Module:
        """Build the job's network in double precision, with the input shape and number of classes of `examples`."""
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
    """Set the number of torch's CPU `threads`, turn TF32 off, and choose the device to compute on.

    `device` is cpu, cuda, or auto, which means CUDA if it is available. A GPU is locked until this process exits. If
    all GPUs are locked, the function waits for one. Raises ValueError if `device` is cuda and there is no GPU.
    """
    torch.set_num_threads(threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    count = torch.cuda.device_count()
    number = locks.claim_gpu([str(torch.cuda.get_device_properties(each).uuid) for each in range(count)])
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


def known_depth(depth: int | None, setting: str, other: str) -> int:
    """Return `depth`, the number of weight layers; raise ValueError if it is None, as it is for a user's own network.

    `setting` is the text of the setting that needs the depth. `other` is the value that the message recommends instead.
    """
    if depth is None:
        reason = "needs the number of weight layers, which is unknown for a network of your own"
        raise ValueError(f"{setting} {reason}: use {other} in its place")
    return depth


def metric(settings: Study | Cuts, parameters: Sequence[Parameter]) -> np.ndarray:
    """Diagonal metric η (D,), which multiplies the raw directions of random planes (see `planes.metric`).

    `settings` are those of a study or of loss slices (`Cuts`). `parameters` describe the network's parameter tensors.
    """
    sizes, biases = [p.size for p in parameters], [p.is_bias for p in parameters]
    deviations = weight_deviations(parameters, settings.initialisation)
    return planes.metric(sizes, biases, deviations, settings.metric, settings.bias_directions)


def empty(observables: Observables, shape: Shape, labels: Mapping[str, Sequence]) -> xr.Dataset:
    """Allocate a block, filled with NaN, for those variables of `observables` that the study `shape.study` measures.

    The dimensions of a variable are the varied keys, then `observables.points`, then the axes of this variable alone.
    `labels` maps names of axes to the labels along them. It must contain all varied keys. An axis that it does not
    contain gets the labels `axis.labels(shape)`.
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
    """Write `values`, a mapping from variables' names to arrays, into a block at a `place`.

    `place` maps names of axes to labels. The array of a variable has the axes of this variable that are not in `place`.
    """
    # Labels of which one is text are all text.
    texts = {dim for dim in place if block.variables[dim].dtype.kind == "U"}
    # xarray would look up the positions again for every variable.
    positions = {dim: block.indexes[dim].get_loc(str(v) if dim in texts else v) for dim, v in place.items()}
    for name, value in values.items():
        variable = block.variables[name]
        variable.values[tuple(positions.get(str(dim), slice(None)) for dim in variable.dims)] = value


class Source(Protocol):
    """Source of a block's examples: their checksum and number of classes, which the block records."""

    @property
    def checksum(self) -> str:
        """Checksum of the dataset's file; empty if there is none."""
        ...

    @property
    def classes(self) -> int:
        """Number of classes."""
        ...


def sign(block: xr.Dataset, work: Work, examples: Source, module: nn.Module, **more) -> xr.Dataset:
    """Record the provenance of a block, and the attributes `more`, in the attributes of this block; return the block.

    The provenance comprises the code, settings, seed and device of the job `work`, the checksum and number of classes
    of the `examples` that it measured, and r_X of the network `module`.
    """
    job, own = work.job, work.own
    seeds = f"streams named {work.block.seed}, purpose, {job.dataset}, {job.network}, {job.subspace}, draw, plane"
    known = {"data_checksum": examples.checksum, "classes": examples.classes, "seeds": seeds}
    known |= {"network_fingerprint": own.fingerprint if own else "", "r_x": glorot_radius(parameters_of(module))}
    known |= {"device": str(work.device), "threads": job.threads, **more}
    settings = records.of_measurement(work.block.study, work.block.seed)
    block.attrs = attributes.attributes(work.code, settings, time.monotonic() - work.started, **known)
    return block
