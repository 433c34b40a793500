"""Ensembles of networks restricted to random subspaces: radii, rates, temperatures and seeds in one computation.

The members of an ensemble share a subset, so that their parameters come from one matrix product, and differ in radius,
learning rate and temperature. In the whole space, which has no basis to share, members may be of several seeds.
One letter per axis: m members, d coordinates, n examples, k classes.
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.nn.functional import cross_entropy
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from goldilocks_zone.models import chains, kernels, losses, networks
from goldilocks_zone.randomness import stream
from goldilocks_zone.subspaces.constraints import Subset, by_member, norms

OPTIMISERS = ("adam", "sgd")
BETAS = 0.9, 0.999  # Adam's, torch's own
EXAMPLES_AT_ONCE = 1000  # when accuracies are measured


@dataclass(frozen=True)
class Options:
    """How an ensemble is trained; `batch` None means all examples, `rates` and `temperatures` are (m,).

    `random_signs`: a control in which every entry of a gradient gets a sign of its own at every step, so that what is
    left of training is the optimiser's own walk (Chang 2019).
    """

    steps: int
    batch: int | None
    rates: Tensor
    temperatures: Tensor
    optimiser: str = "adam"
    momentum: float = 0.0
    epsilon: float = 1e-8
    random_signs: bool = False
    loss: str = "cross_entropy"


class Ensemble:
    """Members (m,) on the way: their coordinates (m, d) and the optimiser's state.

    `shuffles` names the streams of batches, one that all members share or one for each.
    """

    def __init__(self, module: nn.Module, subset: Subset, options: Options, shuffles: Sequence[tuple]):
        if options.optimiser not in OPTIMISERS:
            raise ValueError(f"optimiser {options.optimiser!r} is unknown: use one of {', '.join(OPTIMISERS)}")
        self.subset, self.options, self.shuffles = subset, options, [tuple(name) for name in shuffles]
        self.coordinates = subset.start.clone()
        like, members = self.coordinates, len(self.coordinates)
        if len(self.shuffles) not in (1, members):
            raise ValueError(
                f"{len(self.shuffles)} streams of batches for {members} members: name one, or one for each"
            )
        self.rates = options.rates.to(like)
        self.temperatures = options.temperatures.to(like)
        self._start_optimiser()

        def logits(arrays: list[Tensor], inputs: Tensor) -> Tensor:
            return networks.as_logits(networks.call(module, arrays, inputs), len(inputs))

        if chains.of(module) is None:
            logits = kernels.exact(logits)
        self._logits, self._own_logits = (over_members(logits, shared=shared) for shared in (True, False))

    def _start_optimiser(self) -> None:
        # torch's optimiser makes steps for the rate 1, from zero each time; each member takes its own share of them.
        # By the functions beneath its classes, which import torch's compiler: that takes as long as many a training.
        # Fused, they read memory in order, whatever its strides.
        parts = self.subset.parts(self.coordinates)
        self._steps, self._made = ([torch.zeros_like(part).contiguous() for part in parts] for _ in range(2))
        if self.options.optimiser == "adam":
            self._moments = [[torch.zeros_like(part) for part in self._steps] for _ in range(2)]
        else:
            self._moments = [[None] * len(parts)]
        self._counts = [torch.zeros((), dtype=torch.float32, device=part.device) for part in parts]

    def _optimise(self, gradients: list[Tensor]) -> None:
        """Add torch's step along gradients to what is in `_steps`."""
        common = {"lr": 1.0, "weight_decay": 0.0, "maximize": False, "fused": True}
        if self.options.optimiser == "adam":
            own = {"amsgrad": False, "beta1": BETAS[0], "beta2": BETAS[1], "eps": self.options.epsilon}
            adam(self._steps, gradients, *self._moments, [], self._counts, **own, **common)
        else:
            own = {"momentum": self.options.momentum, "dampening": 0.0, "nesterov": False}
            sgd(self._steps, gradients, *self._moments, **own, **common)

    def parameters(self) -> list[Tensor]:
        """The members' parameters: (m, *shape) for each."""
        return self.subset.forward(self.coordinates)

    def logits(self, parameters: list[Tensor], inputs: Tensor) -> Tensor:
        """Logits (m, n, k) at `parameters` (m, *shape), without derivatives."""
        with torch.no_grad():
            return self._logits(parameters, inputs)

    def gradients(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Gradients (m, d), within the subset, of each member's mean loss over a batch.

        labels: (n,) of a batch that all members share, or (m, n) of one for each; inputs alike.
        """
        return torch.cat([part.flatten(1) for part in self._gradients(inputs, labels)], 1)

    def _gradients(self, inputs: Tensor, labels: Tensor) -> list[Tensor]:
        """As `gradients`, in the subset's parts."""
        arrays = [each.requires_grad_() for each in self.parameters()]
        outputs = (self._logits if labels.ndim == 1 else self._own_logits)(arrays, inputs)
        outputs = outputs / self.temperatures[:, None, None]
        # The members' losses do not meet: one that is not finite leaves the others' gradients alone.
        total = each_loss(outputs, labels, self.options.loss).mean(1).sum()
        found = self.subset.transposed(torch.autograd.grad(total, arrays))
        return self.subset.tangential(found, self.coordinates)

    def step(self, number: int, inputs: Tensor, labels: Tensor) -> list[Tensor]:
        """Step `number` of all members on a batch, as `gradients` has it.

        Returns the steps that were made, in the subset's parts and over each member's rate; the next step but one uses
        their memory again.
        """
        gradients = self._gradients(inputs, labels)
        if self.options.random_signs:
            for gradient, signs in zip(gradients, self.subset.parts(self._signs(number))):
                gradient *= signs
        radii, places = self.subset.norms, self.subset.parts(self.coordinates)
        with torch.no_grad():
            # The last step stays as it is, for `Progress` to compare with.
            self._steps, self._made = self._made, self._steps
            made = self._steps
            for part in made:
                part.zero_()
            self._optimise([gradient.contiguous() for gradient in gradients])
            for place, part in zip(places, made):
                place.addcmul_(part, by_member(self.rates, part))
            if radii is not None:
                lengths = torch.linalg.vector_norm(self.coordinates, dim=1)
                # A step too long to be measured has left the sphere.
                factors = torch.where(torch.isfinite(lengths), radii / lengths, math.nan)
                self.coordinates *= factors[:, None]
                # From x to k (x + s) is s + (1 − 1/k) k (x + s).
                for place, part in zip(places, made):
                    part.addcmul_(place, by_member((1 - 1 / factors) / self.rates, part))
        return made

    def _signs(self, number: int) -> Tensor:
        """Random signs (m, d), or (1, d) that all members share."""
        size = self.coordinates.shape[1]
        bits = [stream(*name, "signs", number).bytes(-(-size // 8)) for name in self.shuffles]
        signs = np.stack([np.unpackbits(np.frombuffer(each, np.uint8))[:size] for each in bits])
        return torch.as_tensor(signs, device=self.coordinates.device).to(self.coordinates.dtype) * 2 - 1

    def at_rest(self, made: list[Tensor]) -> Tensor:
        """Which members (m,) no further step changes, from the steps they have just `made`.

        Those that have diverged; and, where a step depends on where it starts alone, those whose step was zero. None
        where members share matrix products, in which others would be rounded differently without them.
        """
        if not self.subset.is_free:
            return torch.zeros_like(self.rates, dtype=torch.bool)
        resting = ~torch.isfinite(self.coordinates).all(1)
        if self.options.batch is None and self.options.optimiser == "sgd" and not self.options.momentum:
            resting |= norms(made) == 0
        return resting

    def select(self, members: Tensor) -> "Ensemble":
        """An ensemble of some of the members (m',), where they are."""
        result = copy.copy(self)
        result.subset, result.coordinates = self.subset.select(members), self.coordinates[members]
        result.rates, result.temperatures = self.rates[members], self.temperatures[members]
        if len(self.shuffles) > 1:
            result.shuffles = [self.shuffles[i] for i in members.tolist()]
        result._start_optimiser()
        result._moments = [[None if each is None else each[members] for each in moments] for moments in self._moments]
        result._counts = [each.clone() for each in self._counts]
        return result

    def state(self) -> dict:
        """What `restore` needs to go on from here."""
        return {"coordinates": self.coordinates, "moments": self._moments, "counts": self._counts}

    def restore(self, state: dict) -> None:
        """Go on from a `state`."""
        self.coordinates.copy_(state["coordinates"])
        self._moments, self._counts = state["moments"], state["counts"]


def over_members(logits: Callable[[list[Tensor], Tensor], Tensor], *, shared: bool) -> Callable:
    """Logits (m, n, k) at arrays (m, …) of members, for inputs (n, …) that they share or (m, n, …) of their own.

    One member after another where the network has a layer, such as a recurrent one, that torch does not vectorise.
    """
    together = vmap(logits, in_dims=(0, None if shared else 0))

    def one_by_one(arrays: list[Tensor], inputs: Tensor) -> Tensor:
        each = zip(zip(*arrays), [inputs] * len(arrays[0]) if shared else inputs)
        return torch.stack([logits(list(own), some) for own, some in each])

    def either(arrays: list[Tensor], inputs: Tensor) -> Tensor:
        try:
            return together(arrays, inputs)
        except RuntimeError as error:
            if "Batching rule not implemented" not in str(error):
                raise
            return one_by_one(arrays, inputs)

    return either


def each_loss(outputs: Tensor, labels: Tensor, loss: str) -> Tensor:
    """Loss (m, n) of each example: of outputs (m, n, k), labels (n,) or (m, n). As in `losses.values`."""
    if loss != "cross_entropy":
        return losses.values(outputs, labels, loss)
    targets = labels.expand(outputs.shape[:2]).flatten()
    return cross_entropy(outputs.flatten(0, 1), targets, reduction="none").view(outputs.shape[:2])
