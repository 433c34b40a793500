"""Ensembles of networks restricted to random subspaces: radii, rates, temperatures and seeds in one computation.

Members share a subset, so that their parameters come from one matrix product; in the whole space, which has no basis
to share, they may be of several seeds. Letters: m members, d coordinates, n examples, k classes.
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.func import vmap
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from goldilocks_zone.models import chains, kernels, networks
from goldilocks_zone.models.losses import Loss
from goldilocks_zone.models.problem import Problem
from goldilocks_zone.randomness import stream
from goldilocks_zone.subspaces.constraints import Subset, by_member, norms
from goldilocks_zone.training import batches

OPTIMISERS = ("adam", "sgd")
BETAS = 0.9, 0.999  # Adam's, torch's own
EXAMPLES_AT_ONCE = 1000  # when accuracies are measured


@dataclass(frozen=True)
class Options:
    """How an ensemble is trained; `batch` None means all examples, `rates` are (m,).

    `temperatures` (m,) replace the problem's. `random_signs`: a control that multiplies every entry of a gradient by a
    random sign at every step, so that only the optimiser's own walk is left (Chang 2019). own_examples: the problem has
    inputs (m, n, …) and labels (m, n), other ones for each member. keep_last: an epoch ends with a shorter batch where
    the size does not divide n; else these examples wait for the next epoch. fresh: inputs and labels of each step by
    its number, instead of batches of the problem's; of all members, (m, n, …), where they have own_examples. stop_at: a
    member stays where its loss on a batch is not above it. rate_at: a factor on the rates of each step by its number,
    above zero; loss_at: the loss of each step, instead of the problem's.
    """

    steps: int
    batch: int | None
    rates: Tensor
    temperatures: Tensor | None = None
    optimiser: str = "adam"
    momentum: float = 0.0
    epsilon: float = 1e-8
    random_signs: bool = False
    own_examples: bool = False
    keep_last: bool = False
    fresh: Callable[[int], tuple[Tensor, Tensor]] | None = None
    stop_at: float | None = None
    rate_at: Callable[[int], float] | None = None
    loss_at: Callable[[int], Loss] | None = None


class Ensemble:
    """Members (m,) in training: their coordinates (m, d) and the optimiser's state.

    The examples of the `problem` are one batch of tensors. `shuffles` names the streams of batches, one that all
    members share or one for each.
    """

    def __init__(self, problem: Problem, subset: Subset, options: Options, shuffles: Sequence[tuple]):
        if options.optimiser not in OPTIMISERS:
            raise ValueError(f"optimiser {options.optimiser!r} is unknown: use one of {', '.join(OPTIMISERS)}")
        if not problem.is_one_batch:
            raise ValueError("training draws batches of its own: give inputs and labels as one array each")
        self.problem, self.subset, self.options = problem, subset, options
        if options.stop_at is not None and not subset.is_free:
            raise ValueError("members stop at a loss in the whole space alone: leave stop_at out, or the constraint")
        self.inputs, self.labels = problem.inputs, problem.labels
        self.count = self.inputs.shape[1 if options.own_examples else 0]
        if self.labels is None and not problem.loss.classifies:
            self.labels = self.inputs.new_empty(*self.inputs.shape[: 1 + options.own_examples], 0)
        self.shuffles = [tuple(name) for name in shuffles]
        self._members = None  # of those that `fresh` gives examples of; None for all
        self.coordinates = subset.start.clone()
        like, members = self.coordinates, len(self.coordinates)
        if len(self.shuffles) not in (1, members):
            streams = len(self.shuffles)
            raise ValueError(f"{streams} streams of batches for {members} members: name one, or one for each")
        self.rates, chosen = options.rates.to(like), options.temperatures
        self.temperatures = torch.full_like(self.rates, problem.temperature) if chosen is None else chosen.to(like)
        self._start_optimiser()

        def logits(arrays: list[Tensor], inputs: Tensor) -> Tensor:
            return networks.as_logits(networks.call(problem.network, arrays, inputs), len(inputs))

        if getattr(problem.network, "takes_members", False):
            self._own_logits = partial(networks.call, problem.network)
            self._logits = lambda arrays, inputs: self._own_logits(arrays, inputs.expand(len(arrays[0]), *inputs.shape))
            return
        if chains.of(problem.network) is None:
            logits = kernels.exact(logits)
        self._logits, self._own_logits = (over_members(logits, shared=shared) for shared in (True, False))

    def _start_optimiser(self) -> None:
        # torch's optimiser makes steps for the rate 1, from zero each time, which members scale by their own rates.
        # Use the functional optimisers: the classes import torch.compile, which takes longer than many runs. Fused ones
        # read memory in order, whatever its strides.
        parts = self.subset.parts(self.coordinates)
        self._steps, self._made = ([torch.zeros_like(part).contiguous() for part in parts] for _ in range(2))
        if self.options.optimiser == "adam":
            self._moments = [[torch.zeros_like(part) for part in self._steps] for _ in range(2)]
        else:
            self._moments = [[None] * len(parts)]
        self._counts = [torch.zeros((), dtype=torch.float32, device=part.device) for part in parts]

    def _optimise(self, gradients: list[Tensor]) -> None:
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
        """Logits (m, n, k) at `parameters` (m, *shape), for inputs (n, …) or (m, n, …), without derivatives."""
        with torch.no_grad():
            return self._outputs(parameters, inputs)

    def _outputs(self, parameters: list[Tensor], inputs: Tensor) -> Tensor:
        own = inputs.ndim > self.inputs.ndim - self.options.own_examples
        return (self._own_logits if own else self._logits)(parameters, inputs)

    def examples(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs and labels of a step: (n, …) and (n,), or (m, n, …) and (m, n).

        Raises ValueError if the batch is larger than the data.
        """
        options, n = self.options, self.count
        if options.fresh:
            found = options.fresh(step)
            if self._members is None or not options.own_examples:
                return found
            return tuple(each[self._members] for each in found)
        if options.batch is not None and options.batch > n:
            raise ValueError(f"batch: {options.batch} examples cannot be drawn from {n}; lower it")
        if options.batch in (None, n):
            return self.inputs, self.labels
        chosen = batches.batch(self.shuffles, step, options.batch, n, options.keep_last).to(self.inputs.device)
        if not options.own_examples:
            return self.inputs[chosen], self.labels[chosen]
        members = torch.arange(len(self.coordinates), device=chosen.device)[:, None]
        return self.inputs[members, chosen], self.labels[members, chosen]

    def gradients(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Gradients (m, d) in the subset of each member's mean loss over a batch (n, …), or over one each (m, n, …)."""
        return torch.cat([part.flatten(1) for part in self._gradients(inputs, labels)[0]], 1)

    def rates_at(self, step: int) -> Tensor:
        """Rates (m,) of a step."""
        return self.rates if self.options.rate_at is None else self.rates * self.options.rate_at(step)

    def _gradients(self, inputs: Tensor, labels: Tensor, loss: Loss | None = None) -> tuple[list[Tensor], Tensor]:
        """Gradients in the subset's parts, and the members' losses (m,), by default of the problem's loss."""
        arrays = [each.requires_grad_() for each in self.parameters()]
        outputs = self._outputs(arrays, inputs) / self.temperatures[:, None, None]
        losses = (loss or self.problem.loss).total(outputs, labels) / outputs.shape[1]
        # The members' losses do not meet: one that is not finite leaves the others' gradients alone.
        found = self.subset.transposed(torch.autograd.grad(losses.sum(), arrays))
        return self.subset.tangential(found, self.coordinates), losses.detach()

    def step(self, number: int, inputs: Tensor, labels: Tensor) -> list[Tensor]:
        """Step `number` of all members on a batch with the shapes that `gradients` takes.

        Returns the steps, in the subset's parts and over each member's rate; the next step but one overwrites them.
        """
        loss = self.options.loss_at(number) if self.options.loss_at else None
        if loss and self._members is not None:
            loss = loss.select(self._members)
        gradients, losses = self._gradients(inputs, labels, loss)
        if self.options.stop_at is not None:
            self.rates = torch.where(losses <= self.options.stop_at, 0, self.rates)
        if self.options.random_signs:
            for gradient, signs in zip(gradients, self.subset.parts(self._signs(number))):
                gradient *= signs
        radii, places, rates = self.subset.norms, self.subset.parts(self.coordinates), self.rates_at(number)
        with torch.no_grad():
            # The last step stays as it is, for `Progress` to compare with.
            made, self._made = self._made, self._steps
            self._steps = made
            for part in made:
                part.zero_()
            self._optimise([gradient.contiguous() for gradient in gradients])
            for place, part in zip(places, made):
                place.addcmul_(part, by_member(rates, part))
            if radii is not None:
                lengths = torch.linalg.vector_norm(self.coordinates, dim=1)
                # A step too long to be measured has left the sphere.
                factors = torch.where(torch.isfinite(lengths), radii / lengths, math.nan)
                self.coordinates *= factors[:, None]
                # From x to k (x + s) is s + (1 − 1/k) k (x + s).
                for place, part in zip(places, made):
                    part.addcmul_(place, by_member((1 - 1 / factors) / rates, part))
        return made

    def _signs(self, number: int) -> Tensor:
        """Random signs (m, d), or (1, d) that all members share."""
        size = self.coordinates.shape[1]
        bits = [stream(*name, "signs", number).bytes(-(-size // 8)) for name in self.shuffles]
        signs = np.stack([np.unpackbits(np.frombuffer(each, np.uint8))[:size] for each in bits])
        return torch.as_tensor(signs, device=self.coordinates.device).to(self.coordinates.dtype) * 2 - 1

    def at_rest(self, made: list[Tensor]) -> Tensor:
        """Which members (m,) no further step changes, from the steps they have just `made`.

        Those that have diverged or stopped; and those whose step was zero, where steps depend on the coordinates alone.
        None where members share matrix products, in which others would be rounded differently without them.
        """
        if not self.subset.is_free:
            return torch.zeros_like(self.rates, dtype=torch.bool)
        resting = ~torch.isfinite(self.coordinates).all(1) | (self.rates == 0)
        changing = self.options.batch is not None or self.options.fresh or self.options.loss_at
        if not changing and self.options.optimiser == "sgd" and not self.options.momentum:
            resting |= norms(made) == 0
        return resting

    def select(self, members: Tensor) -> "Ensemble":
        """An ensemble of some of the members (m',), where they are."""
        result = copy.copy(self)
        result.problem = replace(self.problem, loss=self.problem.loss.select(members))
        result.subset, result.coordinates = self.subset.select(members), self.coordinates[members]
        result.rates, result.temperatures = self.rates[members], self.temperatures[members]
        if self.options.own_examples:
            result.inputs, result.labels = self.inputs[members], self.labels[members]
        result._members = members if self._members is None else self._members[members]
        if len(self.shuffles) > 1:
            result.shuffles = [self.shuffles[i] for i in members.tolist()]
        result._start_optimiser()
        result._moments = [[None if each is None else each[members] for each in moments] for moments in self._moments]
        result._counts = [each.clone() for each in self._counts]
        return result

    def state(self) -> dict:
        """The state that `restore` resumes from."""
        found = {"coordinates": self.coordinates, "rates": self.rates}
        return {**found, "moments": self._moments, "counts": self._counts}

    def restore(self, state: dict) -> None:
        """Resume from a `state`."""
        self.coordinates.copy_(state["coordinates"])
        self.rates = state["rates"]
        self._moments, self._counts = state["moments"], state["counts"]


def over_members(logits: Callable[[list[Tensor], Tensor], Tensor], *, shared: bool) -> Callable:
    """Logits (m, n, k) at arrays (m, …) of members, for inputs (n, …) that they share or (m, n, …) of their own."""
    together = vmap(logits, in_dims=(0, None if shared else 0))

    def either(arrays: list[Tensor], inputs: Tensor) -> Tensor:
        try:
            return together(arrays, inputs)
        except RuntimeError as error:
            if "Batching rule not implemented" not in str(error):
                raise
        # A layer, such as a recurrent one, is not vectorised by torch: one member after another.
        pairs = zip(zip(*arrays), [inputs] * len(arrays[0]) if shared else inputs)
        return torch.stack([logits(list(own), some) for own, some in pairs])

    return either
