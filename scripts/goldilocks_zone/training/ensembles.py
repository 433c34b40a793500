"""Ensembles of networks trained in random subspaces: several radii, rates, temperatures and seeds in one computation.

The d coordinates of a member give its parameters, by the map of a `Subset` (see `subspaces.constraints`). Members on
planes or spheres share one basis, so that one matrix product gives the parameters of all members. In the whole space
there is no basis to share, and members may have different seeds. Letters: m members, d coordinates, n examples, k
classes.
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from goldilocks_zone.models import chains, kernels, networks
from goldilocks_zone.models.losses import Loss
from goldilocks_zone.models.problem import Problem
from goldilocks_zone.randomness import stream
from goldilocks_zone.subspaces import first_layers
from goldilocks_zone.subspaces.constraints import Subset, by_member, norms
from goldilocks_zone.training import batches

OPTIMISERS = ("adam", "sgd")
BETAS = 0.9, 0.999  # of Adam, the defaults in torch
EXAMPLES_AT_ONCE = 1000  # in evaluation


@dataclass(frozen=True)
class Options:
    """Training options of an ensemble.

    batch: examples per step, None for all.
    rates: learning rates (m,).
    temperatures: softmax temperatures (m,), used instead of the problem's.
    optimiser: `adam` or `sgd`. momentum: momentum of SGD. epsilon: ε of Adam.
    random_signs: a control that multiplies every entry of a gradient by a random sign at every step, so that only the
    random walk of the optimiser is left (Chang 2019).
    own_examples: each member has its own examples, and the problem has inputs (m, n, …) and labels (m, n).
    keep_last: keep the shorter last batch of an epoch if the size does not divide n; otherwise these examples are left
    out of the epoch.
    fresh: function from the number of a step to its inputs and labels, used instead of batches of the problem; with
    own_examples, it returns the examples of all members, (m, n, …).
    stop_at: stop a member once its loss on a batch is at most this value; only in the whole space.
    rate_at: function from the number of a step to a positive factor on the rates.
    loss_at: function from the number of a step to the loss of this step, used instead of the problem's.
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
    """An ensemble of m members in training: their coordinates (m, d) and the state of the optimiser.

    The examples of the `problem` must be one batch of tensors. Members are trained in `subset`, which has their start.
    `shuffles` names the random streams that draw batches: either one that all members share, or one for each member.
    Raises ValueError for any other number of streams, for several batches, for an unknown optimiser, and for `stop_at`
    in a constrained subset.
    """

    def __init__(self, problem: Problem, subset: Subset, options: Options, shuffles: Sequence[tuple]):
        if options.optimiser not in OPTIMISERS:
            raise ValueError(f"optimiser {options.optimiser!r} is unknown: use one of {', '.join(OPTIMISERS)}")
        if not problem.is_one_batch:
            raise ValueError("training draws batches of its own: give inputs and labels as one array each")
        self.problem, self.subset, self.options = problem, subset, options
        if options.stop_at is not None and not subset.is_free:
            raise ValueError("stop_at needs training in the whole space: leave out stop_at or the constraint")
        self.inputs, self.labels = problem.inputs, problem.labels
        self.count = self.inputs.shape[1 if options.own_examples else 0]
        if self.labels is None and not problem.loss.classifies:
            self.labels = self.inputs.new_empty(*self.inputs.shape[: 1 + options.own_examples], 0)
        self.shuffles = [tuple(name) for name in shuffles]
        # Indices of the selected members in the examples that `fresh` returns; None for all.
        self._members: Tensor | None = None
        self.coordinates = subset.start.clone()
        like, members = self.coordinates, len(self.coordinates)
        if len(self.shuffles) not in (1, members):
            streams = len(self.shuffles)
            raise ValueError(
                f"shuffles has {streams} streams for {members} members: give one for all, or one for each member"
            )
        self.rates, chosen = options.rates.to(like), options.temperatures
        self.temperatures = torch.full_like(self.rates, problem.temperature) if chosen is None else chosen.to(like)
        self._start_optimiser()
        self.first_layer = None
        network = problem.network
        assert isinstance(network, nn.Module), "only modules can be trained"

        def logits(arrays: list[Tensor], inputs: Tensor) -> Tensor:
            return networks.as_logits(networks.call(network, arrays, inputs), len(inputs))

        if getattr(network, "takes_members", False):
            self._own_logits = partial(networks.call, network)
            self._logits = lambda arrays, inputs: self._own_logits(arrays, inputs.expand(len(arrays[0]), *inputs.shape))
            return
        is_chain = chains.of(network) is not None
        logits = kernels.affine_layers(logits if is_chain else kernels.exact(logits))
        self._logits, self._own_logits = (over_members(logits, shared=shared) for shared in (True, False))
        if is_chain and not options.own_examples:
            self.first_layer = first_layers.of(network, subset)
        if self.first_layer:
            assert isinstance(network, nn.Sequential)  # Only such networks have a first layer of their own.
            later = kernels.affine_layers(partial(networks.call, network[2:]))
            self._later_logits = over_members(later, shared=False)

    def _start_optimiser(self) -> None:
        # torch's optimiser computes each step from zero at rate 1; members scale it by their own rates.
        # Use the functional optimisers: the classes import torch.compile, which takes longer than many runs. Fused
        # kernels ignore strides, so the arrays must be contiguous.
        parts = self.subset.parts(self.coordinates)
        self._steps, self._made = ([torch.zeros_like(part).contiguous() for part in parts] for _ in range(2))
        self._moments: list[list[Any]] = [[None] * len(parts)]  # SGD makes them in its first step
        if self.options.optimiser == "adam":
            self._moments = [[torch.zeros_like(part) for part in self._steps] for _ in range(2)]
        self._counts = [torch.zeros((), dtype=torch.float32, device=part.device) for part in parts]

    def _optimise(self, gradients: list[Tensor]) -> None:
        common: dict[str, Any] = {"lr": 1.0, "weight_decay": 0.0, "maximize": False, "fused": True}
        if self.options.optimiser == "adam":
            own: dict[str, Any] = {"amsgrad": False, "beta1": BETAS[0], "beta2": BETAS[1], "eps": self.options.epsilon}
            first, second = self._moments
            adam(self._steps, gradients, first, second, [], self._counts, **own, **common)
        else:
            own = {"momentum": self.options.momentum, "dampening": 0.0, "nesterov": False}
            (buffers,) = self._moments
            sgd(self._steps, gradients, buffers, **own, **common)

    def parameters(self) -> list[Tensor]:
        """Parameters of the members: an array (m, *shape) for each parameter tensor."""
        return self.subset.forward(self.coordinates)

    def logits(self, parameters: list[Tensor], inputs: Tensor) -> Tensor:
        """Logits (m, n, k) at `parameters` (m, *shape), for inputs (n, …) or (m, n, …), without derivatives."""
        with torch.no_grad():
            return self._outputs(parameters, inputs)

    def _outputs(self, parameters: list[Tensor], inputs: Tensor) -> Tensor:
        own = inputs.ndim > self.inputs.ndim - self.options.own_examples
        return (self._own_logits if own else self._logits)(parameters, inputs)

    def examples(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs and labels of a step: (n, …) and (n,), or (m, n, …) and (m, n) if members have their own examples.

        Raises ValueError if the batch is larger than the data.
        """
        options, n = self.options, self.count
        if options.fresh:
            found = options.fresh(step)
            if self._members is None or not options.own_examples:
                return found
            inputs, labels = found
            return inputs[self._members], labels[self._members]
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
        """Gradients (m, d) of the members' mean losses with respect to their coordinates.

        On a sphere they are projected onto its tangent space. `inputs` and `labels` are one batch (n, …) for all
        members, or one for each member, (m, n, …).
        """
        return torch.cat([part.flatten(1) for part in self._gradients(inputs, labels)[0]], 1)

    def rates_at(self, step: int) -> Tensor:
        """Learning rates (m,) of the members at a `step`, with the factor `Options.rate_at`."""
        return self.rates if self.options.rate_at is None else self.rates * self.options.rate_at(step)

    def _gradients(self, inputs: Tensor, labels: Tensor, loss: Loss | None = None) -> tuple[list[Tensor], Tensor]:
        """Gradients as in `gradients`, but split as in `Subset.parts`, and the members' mean losses (m,).

        The loss is the problem's unless `loss` is given.
        """
        behind = self.first_layer.behind(inputs) if self.first_layer else None
        subset = behind or self.subset
        arrays = [each.requires_grad_() for each in subset.forward(self.coordinates)]
        outputs = self._later_logits(arrays[1:], arrays[0].mT) if behind else self._outputs(arrays, inputs)
        outputs = outputs / self.temperatures[:, None, None]
        losses = (loss or self.problem.loss).total(outputs, labels) / outputs.shape[1]
        # Members do not interact, so a loss that is not finite does not affect the gradients of the others.
        found = subset.transposed(torch.autograd.grad(losses.sum(), arrays))
        return self.subset.tangential(found, self.coordinates), losses.detach()

    @kernels.flushing()
    def step(self, number: int, inputs: Tensor, labels: Tensor) -> list[Tensor]:
        """Take step `number` with all members, on a batch of the shapes that `gradients` accepts.

        Returns the steps of the coordinates, split as in `Subset.parts`, each divided by its member's learning rate.
        These arrays are overwritten two steps later. Subnormal numbers count as zero.
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
            # `Progress` compares each step with the last one, whose arrays must stay intact.
            made, self._made = self._made, self._steps
            self._steps = made
            for part in made:
                part.zero_()
            self._optimise([gradient.contiguous() for gradient in gradients])
            for place, part in zip(places, made):
                place.addcmul_(part, by_member(rates, part))
            if radii is not None:
                lengths = torch.linalg.vector_norm(self.coordinates, dim=1)
                # A step whose length overflows cannot be projected back to the sphere.
                factors = torch.where(torch.isfinite(lengths), radii / lengths, math.nan)
                self.coordinates *= factors[:, None]
                # The whole step, from x to k (x + s), is s + (1 − 1/k) k (x + s).
                for place, part in zip(places, made):
                    part.addcmul_(place, by_member((1 - 1 / factors) / rates, part))
        return made

    def _signs(self, number: int) -> Tensor:
        """Random signs (m, d) of the step `number`, or (1, d) if all members share one random stream."""
        size = self.coordinates.shape[1]
        bits = [stream(*name, "signs", number).bytes(-(-size // 8)) for name in self.shuffles]
        signs = np.stack([np.unpackbits(np.frombuffer(each, np.uint8))[:size] for each in bits])
        return torch.as_tensor(signs, device=self.coordinates.device).to(self.coordinates.dtype) * 2 - 1

    def at_rest(self, made: list[Tensor]) -> Tensor:
        """Mask (m,) of the members that no further step would change; `made` are the latest steps, from `step`.

        A member is at rest if it has diverged, or if it was stopped (see `Options.stop_at`). It is also at rest if its
        step was zero and all steps depend on the coordinates alone, as in SGD without momentum on all examples. In a
        constrained subset no member counts as at rest: members share matrix products there, and leaving some out would
        change the rounding of the others.
        """
        if not self.subset.is_free:
            return torch.zeros_like(self.rates, dtype=torch.bool)
        resting = ~torch.isfinite(self.coordinates).all(1) | (self.rates == 0)
        changing = self.options.batch is not None or self.options.fresh or self.options.loss_at
        if not changing and self.options.optimiser == "sgd" and not self.options.momentum:
            resting |= norms(made) == 0
        return resting

    def select(self, members: Tensor) -> "Ensemble":
        """The ensemble of some of the members, given by their indices (m',), in their current state."""
        result = copy.copy(self)
        result.problem = replace(self.problem, loss=self.problem.loss.select(members))
        result.subset, result.coordinates = self.subset.select(members), self.coordinates[members]
        if self.first_layer:
            assert isinstance(self.problem.network, nn.Sequential)
            result.first_layer = first_layers.of(self.problem.network, result.subset)
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
        """Coordinates, learning rates and the optimiser's state, by name, from which `restore` resumes."""
        found = {"coordinates": self.coordinates, "rates": self.rates}
        return {**found, "moments": self._moments, "counts": self._counts}

    def restore(self, state: dict) -> None:
        """Resume from the coordinates, rates and optimiser's state in `state`, as the method `state` returns them."""
        self.coordinates.copy_(state["coordinates"])
        self.rates = state["rates"]
        self._moments, self._counts = state["moments"], state["counts"]


def over_members(logits: Callable[[list[Tensor], Tensor], Tensor], *, shared: bool) -> Callable:
    """Vectorise `logits`, a function of one member's parameters and inputs, over the members of an ensemble.

    The result maps parameter arrays (m, …) and inputs to logits (m, n, k). Inputs are (n, …) if `shared`,
    else (m, n, …).
    """
    together = vmap(logits, in_dims=(0, None if shared else 0))

    def either(arrays: list[Tensor], inputs: Tensor) -> Tensor:
        try:
            return together(arrays, inputs)
        except RuntimeError as error:
            if "Batching rule not implemented" not in str(error):
                raise
        # torch cannot vectorise some layers, such as recurrent ones: compute one member after another.
        pairs = zip(zip(*arrays), [inputs] * len(arrays[0]) if shared else inputs)
        return torch.stack([logits(list(own), some) for own, some in pairs])

    return either
