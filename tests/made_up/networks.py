"""Small networks and examples that the tests of curvature share."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from goldilocks_zone.models import initialisation as models_initialisation
from goldilocks_zone.models import labels, networks
from goldilocks_zone.randomness import stream
from goldilocks_zone.subspaces import labels as subspace_labels
from goldilocks_zone.subspaces import planes


@dataclass(frozen=True)
class Model:
    module: torch.nn.Module
    logits: object
    parameters: list[models_initialisation.Parameter]
    inputs: torch.Tensor
    targets: torch.Tensor
    r_x: float

    def initialisation(self, draw: int, radius: float, kind: str = "glorot") -> torch.Tensor:
        theta = models_initialisation.initialise(self.parameters, kind, stream("test", "initialisation", draw))
        return torch.as_tensor(models_initialisation.rescaled(theta, radius, "r_X", self.r_x))

    def with_biases(self, theta: torch.Tensor) -> torch.Tensor:
        """Replace the biases in `theta` (D,) by Gaussian ones of standard deviation 0.3."""
        is_bias = np.repeat([p.is_bias for p in self.parameters], [p.size for p in self.parameters])
        values = 0.3 * stream("test", "biases").standard_normal(len(theta))
        return torch.where(torch.as_tensor(is_bias), torch.as_tensor(values), theta)

    def metric(self, kind: str, bias_directions: bool) -> np.ndarray:
        deviations = models_initialisation.weight_deviations(self.parameters, "glorot")
        sizes, biases = [p.size for p in self.parameters], [p.is_bias for p in self.parameters]
        return planes.metric(sizes, biases, deviations, kind, bias_directions)

    def directions(
        self, d: int, kind: str = "dense", biases: bool = False, dtype: torch.dtype = torch.float64
    ) -> torch.Tensor:
        """Random directions (d, D) that span a plane, not orthonormal; without `biases`, they do not move biases."""
        rows = planes.directions(subspace_labels.Plane(d, kind), self.metric("shell", biases), stream("plane", d, kind))
        return torch.as_tensor(rows).to(dtype)

    def loss(self, theta: torch.Tensor, kind: str = "cross_entropy", temperature: float = 1.0) -> torch.Tensor:
        """Mean loss over all examples at `theta`, written out independently of the engine."""
        z = self.logits(theta, self.inputs) / temperature
        y = torch.nn.functional.one_hot(self.targets, z.shape[1]).to(z.dtype)
        if kind == "mean_squared_error":
            return ((z - y) ** 2).sum(1).mean() / 2
        return (torch.logsumexp(z, 1) - (y * z).sum(1)).mean()


def model(label: str, inputs: int = 8, classes: int = 4, examples: int = 30, image: tuple = ()) -> Model:
    """Model of the network with this label on Gaussian examples of shape (`inputs`,) or, if given, `image`."""
    image = image or (inputs,)
    return of_module(networks.build(labels.parse_network(label), image, classes), image, classes, examples)


def of_module(module: torch.nn.Module, image: tuple, classes: int = 4, examples: int = 30) -> Model:
    """Model in double precision of any module from images of shape `image` to logits, on Gaussian examples."""
    module = module.double()
    random = stream("test", "examples", math.prod(image), examples)
    return Model(
        module,
        networks.logits_function(module),
        models_initialisation.parameters_of(module),
        torch.as_tensor(random.standard_normal((examples, *image))),
        torch.as_tensor(random.integers(classes, size=examples)),
        models_initialisation.glorot_radius(models_initialisation.parameters_of(module)),
    )
