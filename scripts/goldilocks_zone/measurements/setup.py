"""Set-up of a measurement: its job, device, random streams and metric."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from goldilocks_zone.config import records, studies
from goldilocks_zone.config.models import Cuts, Study
from goldilocks_zone.config.records import Block
from goldilocks_zone.data import datasets
from goldilocks_zone.jobs import gpu_lock
from goldilocks_zone.models import initialisation as models_initialisation
from goldilocks_zone.models import user_code, user_networks
from goldilocks_zone.models.initialisation import Parameter
from goldilocks_zone.randomness import stream
from goldilocks_zone.subspaces import planes


@dataclass(frozen=True)
class Job:
    """One job of measuring: the files and names that it is given, and what of the machine it may use.

    `path_to_network` leads to the record of a network of the user's own, which `network` names, and `network_file` to
    its code. `memory_mib` bounds working memory of differentiation; `device` is auto, cpu or cuda. Checkpoints go to
    their folder at most every `checkpoint_seconds`; a job that is started again resumes from them.
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


@dataclass(frozen=True)
class Work:
    """A job that has begun: its block, the fingerprint of its code, the user's own network, device and start."""

    job: Job
    block: Block
    code: str
    own: user_code.UserNetwork | None
    device: torch.device
    started: float

    @property
    def labels(self) -> dict[str, Sequence]:
        """Labels of the block's axes: of the keys that the study varies, of radii and of draws."""
        return {**studies.varied(self.block.study), "radius": self.block.radii, "draw": self.block.draws}

    @property
    def streams(self) -> "Streams":
        """Random streams of the dataset and network."""
        return Streams(self.block.seed, self.job.dataset, self.job.network)

    def network(self, examples: datasets.Examples) -> nn.Module:
        """The network for these examples, in double precision."""
        return user_networks.build_named(self.job.network, self.own, examples.inputs.shape[1:], examples.classes)


def begin(job: Job, block: Block | None = None) -> Work:
    """Read what a job is given, its `block` by its place in a study unless it is given, and make torch ready.

    The fingerprint is read before measuring: code that changes meanwhile must not sign these numbers.
    """
    started, code = time.monotonic(), Path(job.path_to_code).read_text().strip()
    block = block or records.read_block(job.path_to_settings, job.dataset, job.network, job.subspace, job.block)
    own = user_code.recorded(job.path_to_network, job.network_file)
    return Work(job, block, code, own, start_torch(job.device, job.threads), started)


def start_torch(device: str, threads: int) -> torch.device:
    """The device called auto (CUDA where there is one), cpu or cuda; full precision and no more than these threads.

    A GPU is this process's own until it ends.
    """
    torch.set_num_threads(threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    found = range(torch.cuda.device_count())
    number = gpu_lock.claim([str(torch.cuda.get_device_properties(i).uuid) for i in found])
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


@dataclass(frozen=True)
class Streams:
    """Random streams of a dataset and network: curvature is measured, and training starts, at the same points."""

    seed: int
    dataset: str
    network: str

    def name(self, purpose: str, *more: str | int) -> tuple:
        """The name of a stream, for example of the purpose "plane", of a kind, a draw and the number of the plane."""
        return (self.seed, purpose, self.dataset, self.network, *more)

    def stream(self, purpose: str, *more: str | int) -> np.random.Generator:
        """The stream of that name."""
        return stream(*self.name(purpose, *more))

    def initialisation(self, parameters: Sequence[Parameter], kind: str, draw: int) -> np.ndarray:
        """The initialisation θ (D,) of a draw, not yet rescaled to a radius."""
        return models_initialisation.initialise(parameters, kind, self.stream("initialisation", draw))


def metric(settings: Study | Cuts, parameters: Sequence[Parameter]) -> np.ndarray:
    """The metric η (D,) of the planes of a study or of cuts."""
    return planes.metric(
        [p.size for p in parameters],
        [p.is_bias for p in parameters],
        models_initialisation.weight_deviations(parameters, settings.initialisation),
        settings.metric,
        settings.bias_directions,
    )
