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
    """Inputs, labels and resources of one job of measuring.

    `path_to_network`: record of a user's `network`, whose code is `network_file`; `memory_mib` bounds the memory of
    differentiation. Checkpoints are written at most every `checkpoint_seconds`; a restarted job resumes from them.
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
    """A started job: its block, the fingerprint of its code, a user's network, the device and the time of the start."""

    job: Job
    block: Block
    code: str
    own: user_code.UserNetwork | None
    device: torch.device
    started: float

    @property
    def labels(self) -> dict[str, Sequence]:
        """Labels of the block along varied keys, radii and draws."""
        return {**studies.varied(self.block.study), "radius": self.block.radii, "draw": self.block.draws}

    @property
    def streams(self) -> "Streams":
        """Random streams of the dataset and network."""
        return Streams(self.block.seed, self.job.dataset, self.job.network)

    def network(self, examples: datasets.Examples) -> nn.Module:
        """Build the network for these examples, in double precision."""
        return user_networks.build_named(self.job.network, self.own, examples.inputs.shape[1:], examples.classes)


def begin(job: Job, block: Block | None = None) -> Work:
    """Read the inputs of a job, with its `block` by its name if none is given, and set torch up."""
    # Read first: code that changes while measuring must not sign these numbers.
    started, code = time.monotonic(), Path(job.path_to_code).read_text().strip()
    block = block or records.read_block(job.path_to_settings, job.dataset, job.network, job.subspace, job.block)
    own = user_code.recorded(job.path_to_network, job.network_file)
    return Work(job, block, code, own, start_torch(job.device, job.threads), started)


def start_torch(device: str, threads: int) -> torch.device:
    """Set up the device auto (CUDA if available), cpu or cuda, in full precision.

    A GPU stays locked until the process ends.
    """
    torch.set_num_threads(threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    properties = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    number = gpu_lock.claim([str(each.uuid) for each in properties])
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


@dataclass(frozen=True)
class Streams:
    """Random streams of a dataset and network, by which curvature and training share their initialisations."""

    seed: int
    dataset: str
    network: str

    def name(self, purpose: str, *more: str | int) -> tuple:
        """Name of a stream, for example for the purpose "plane": kind, draw and number of the plane."""
        return (self.seed, purpose, self.dataset, self.network, *more)

    def stream(self, purpose: str, *more: str | int) -> np.random.Generator:
        """Random stream of that name."""
        return stream(*self.name(purpose, *more))

    def initialisation(self, parameters: Sequence[Parameter], kind: str, draw: int) -> np.ndarray:
        """Initialisation θ (D,) of a draw before it is rescaled to a radius."""
        return models_initialisation.initialise(parameters, kind, self.stream("initialisation", draw))


def metric(settings: Study | Cuts, parameters: Sequence[Parameter]) -> np.ndarray:
    """Metric η (D,) of the planes of a study or of cuts."""
    return planes.metric(
        [p.size for p in parameters],
        [p.is_bias for p in parameters],
        models_initialisation.weight_deviations(parameters, settings.initialisation),
        settings.metric,
        settings.bias_directions,
    )
