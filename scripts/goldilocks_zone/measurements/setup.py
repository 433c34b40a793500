"""What jobs that compute with torch share: their device, and the random points and metrics that studies have alike."""

from collections.abc import Sequence

import numpy as np
import torch

from goldilocks_zone.config.models import Cuts, Study
from goldilocks_zone.jobs import gpu_lock
from goldilocks_zone.models import initialisation as models_initialisation
from goldilocks_zone.models.initialisation import Parameter
from goldilocks_zone.randomness import stream
from goldilocks_zone.subspaces import planes


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


class Streams:
    """Random streams of a dataset and network: curvature is measured, and training starts, at the same points."""

    def __init__(self, seed: int, dataset: str, network: str):
        self._seed, self._cell = seed, (dataset, network)

    def name(self, purpose: str, *more: str | int) -> tuple:
        """The name of a stream, for example of the purpose "plane", of a kind, a draw and the number of the plane."""
        return (self._seed, purpose, *self._cell, *more)

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
