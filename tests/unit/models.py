"""Small networks and examples that the tests of curvature share."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from goldilocks import labels, networks, subspaces
from goldilocks.randomness import stream


@dataclass(frozen=True)
class Model:
    module: torch.nn.Module
    logits: object
    parameters: list[networks.Parameter]
    inputs: torch.Tensor
    targets: torch.Tensor
    r_x: float

    def initialisation(self, draw: int, radius: float, kind: str = "glorot") -> torch.Tensor:
        theta = networks.initialise(self.parameters, kind, stream("test", "initialisation", draw))
        return torch.as_tensor(networks.rescaled(theta, radius, "r_X", self.r_x))

    def metric(self, kind: str, bias_directions: bool) -> np.ndarray:
        deviations = networks.weight_deviations(self.parameters, "glorot")
        sizes, biases = [p.size for p in self.parameters], [p.is_bias for p in self.parameters]
        return subspaces.metric(sizes, biases, deviations, kind, bias_directions)

    def loss(self, theta: torch.Tensor, kind: str = "cross_entropy", temperature: float = 1.0) -> torch.Tensor:
        """The mean loss written out, independently of goldilocks.curvature."""
        z = self.logits(theta, self.inputs) / temperature
        y = torch.nn.functional.one_hot(self.targets, z.shape[1]).to(z.dtype)
        if kind == "mean_squared_error":
            return ((z - y) ** 2).sum(1).mean() / 2
        return (torch.logsumexp(z, 1) - (y * z).sum(1)).mean()


def model(label: str, inputs: int = 8, classes: int = 4, examples: int = 30, image: tuple = ()) -> Model:
    """A network of a label on Gaussian examples with `inputs` inputs, or of the shape `image`."""
    network, image = labels.parse_network(label), image or (inputs,)
    module = networks.build(network, image, classes).double()
    random = stream("test", "examples", math.prod(image), examples)
    return Model(
        module,
        networks.logits_function(module),
        networks.parameters_of(module),
        torch.as_tensor(random.standard_normal((examples, *image))),
        torch.as_tensor(random.integers(classes, size=examples)),
        networks.glorot_radius(networks.parameters_of(module)),
    )
