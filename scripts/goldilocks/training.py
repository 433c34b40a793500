"""Training restricted to random subspaces: ensembles over radii and seeds in one batched computation.

The members of a seed share its initialisation, its subspace and its batches, and differ in radius, learning rate and
temperature: their parameters come from one matrix product. One letter per axis: s seeds, r radii, d coordinates,
n examples, k classes.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.functional import cross_entropy

from goldilocks import files
from goldilocks.randomness import stream
from goldilocks.subsets import Subset

OPTIMISERS = ("adam", "sgd")
EXAMPLES_AT_ONCE = 1000  # when accuracies are measured
SECONDS_PER_CHECKPOINT = 30.0


@dataclass(frozen=True)
class Options:
    """How an ensemble is trained; `batch` None means all examples, `rates` and `temperatures` are (r,) or (s, r)."""

    steps: int
    batch: int | None
    rates: Tensor
    temperatures: Tensor
    optimiser: str = "adam"
    momentum: float = 0.0
    epsilon: float = 1e-8


class Ensemble:
    """Members (s, r) on the way: their coordinates (s, r, d) and the optimiser's state."""

    def __init__(self, module: nn.Module, subsets: Sequence[Subset], options: Options):
        if options.optimiser not in OPTIMISERS:
            raise ValueError(f"optimiser {options.optimiser!r} is unknown: use one of {', '.join(OPTIMISERS)}")
        self.subsets, self.options = list(subsets), options
        self.coordinates = torch.stack([subset.start for subset in subsets])
        like = self.coordinates
        self.rates = options.rates.to(like).expand(like.shape[:2])[..., None]
        self.temperatures = options.temperatures.to(like).expand(like.shape[:2])
        # torch's optimiser makes steps for the rate 1, from zero each time; each member takes its own share of them.
        self._steps = nn.Parameter(torch.zeros_like(like))
        if options.optimiser == "adam":
            self._optimiser = torch.optim.Adam([self._steps], lr=1.0, eps=options.epsilon)
        else:
            self._optimiser = torch.optim.SGD([self._steps], lr=1.0, momentum=options.momentum)
        names = [name for name, _ in module.named_parameters()]
        self._logits = vmap(
            lambda arrays, inputs: functional_call(module, dict(zip(names, arrays)), (inputs,)), in_dims=(0, None)
        )

    def parameters(self, seed: int) -> list[Tensor]:
        """The parameters of the members of a seed: (r, *shape) for each."""
        return self.subsets[seed].forward(self.coordinates[seed])

    def logits(self, seed: int, inputs: Tensor) -> Tensor:
        """Logits (r, n, k) of the members of a seed, without derivatives."""
        with torch.no_grad():
            return self._logits(self.parameters(seed), inputs)

    def gradients(self, inputs: Sequence[Tensor], labels: Sequence[Tensor]) -> Tensor:
        """Gradients (s, r, d) of each member's mean loss over its seed's batch, within the subspace."""
        found = []
        for seed, (subset, x, y) in enumerate(zip(self.subsets, inputs, labels)):
            arrays = [each.requires_grad_() for each in self.parameters(seed)]
            outputs = self._logits(arrays, x) / self.temperatures[seed][:, None, None]
            losses = cross_entropy(outputs.flatten(0, 1), y.repeat(len(outputs)), reduction="none")
            # The members' losses do not meet: one that is not finite leaves the others' gradients alone.
            total = losses.view(len(outputs), -1).mean(1).sum()
            found.append(subset.transposed(torch.autograd.grad(total, arrays)))
        return subset_tangents(self.subsets, self.coordinates, torch.stack(found))

    def step(self, inputs: Sequence[Tensor], labels: Sequence[Tensor]) -> Tensor:
        """One step of all members on their seed's batch; the steps (s, r, d) that were made."""
        self._steps.grad = self.gradients(inputs, labels)
        before = self.coordinates.clone()
        with torch.no_grad():
            self._steps.zero_()
            self._optimiser.step()
            self.coordinates += self.rates * self._steps
            for coordinates, subset in zip(self.coordinates, self.subsets):
                if subset.norms is not None:
                    coordinates *= (subset.norms / coordinates.norm(dim=1))[:, None]
        return self.coordinates - before

    def state(self) -> dict:
        """What `restore` needs to go on from here."""
        return {"coordinates": self.coordinates, "optimiser": self._optimiser.state_dict()}

    def restore(self, state: dict) -> None:
        """Go on from a `state`."""
        self.coordinates.copy_(state["coordinates"])
        self._optimiser.load_state_dict(state["optimiser"])


def subset_tangents(subsets: Sequence[Subset], coordinates: Tensor, gradients: Tensor) -> Tensor:
    """Gradients (s, r, d) without their radial part, where a subset is a sphere."""
    result = gradients.clone()
    for each, subset, w in zip(result, subsets, coordinates):
        if subset.norms is not None:
            each -= (each * w).sum(1, keepdim=True) / w.square().sum(1, keepdim=True) * w
    return result


def train(
    ensemble: Ensemble,
    inputs: Tensor,
    labels: Tensor,
    shuffles: Sequence[tuple],
    log_at: Sequence[int],
    observe: Callable[[int, Ensemble], Mapping[str, Tensor]],
    checkpoint: Path | None = None,
    key: str = "",
) -> dict[str, np.ndarray]:
    """Train on `inputs` (N, …) with `labels` (N,), and return what `observe` found after each step of `log_at`.

    `shuffles` names for each seed the stream of its batches: an epoch's order depends on the name and the epoch
    alone. `observe` (step, ensemble) gives arrays (s, r, …) by name, stacked to (t, s, r, …); to them are added, over
    all steps so far, path_square: Σ of squared lengths of the steps, and step_cosine: mean cosine of successive steps.
    With a `checkpoint`, a file, a run that was killed goes on from there if it was written under the same `key`.

    Raises ValueError if the batch is larger than the data.
    """
    options, n = ensemble.options, len(inputs)
    batch = n if options.batch is None else options.batch
    if batch > n:
        raise ValueError(f"a batch of {batch} examples cannot be drawn from {n}: lower batch")
    per_epoch, progress = n // batch, Progress(ensemble.coordinates)
    first, records = 0, []
    if checkpoint is not None and checkpoint.exists():
        saved = torch.load(checkpoint, map_location=inputs.device, weights_only=True)
        if saved["key"] == key:
            first, records = saved["step"], saved["records"]
            ensemble.restore(saved["ensemble"])
            progress.restore(saved["progress"])
            logging.info("goes on after step %d of %d", first, options.steps)
    logged, started, last = set(log_at), time.monotonic(), time.monotonic()
    if first == 0 and 0 in logged:
        records.append({**observe(0, ensemble), **progress.found()})
    for step in range(first, options.steps):
        chosen = _batches(shuffles, step, per_epoch, batch, n, inputs.device)
        made = ensemble.step([inputs[each] for each in chosen], [labels[each] for each in chosen])
        progress.add(made)
        if step + 1 in logged:
            records.append({**observe(step + 1, ensemble), **progress.found()})
            left = (time.monotonic() - started) / (step + 1 - first) * (options.steps - step - 1)
            logging.info("step %d of %d, about %.0f s left", step + 1, options.steps, left)
        if checkpoint is not None and time.monotonic() - last > SECONDS_PER_CHECKPOINT:
            last = time.monotonic()
            state = {"key": key, "step": step + 1, "records": records, "ensemble": ensemble.state()}
            with files.whole_file(checkpoint) as path:
                torch.save({**state, "progress": progress.state()}, path)
    return {name: torch.stack([each[name] for each in records]).cpu().numpy() for name in records[0]}


class Progress:
    """Sums over the steps so far, per member."""

    def __init__(self, like: Tensor):
        self._square, self._cosine = (torch.zeros(like.shape[:2], dtype=torch.float64) for _ in range(2))
        self._last, self._count = None, 0

    def add(self, made: Tensor) -> None:
        """Add the steps (s, r, d) that were made."""
        self._square += made.square().sum(2).double().cpu()
        if self._last is not None:
            norms = made.norm(dim=2) * self._last.norm(dim=2)
            self._cosine += ((made * self._last).sum(2) / norms).double().cpu()
        self._last, self._count = made, self._count + 1

    def found(self) -> dict[str, Tensor]:
        """path_square and step_cosine (s, r)."""
        pairs = max(self._count - 1, 0)
        cosine = self._cosine / pairs if pairs else torch.full_like(self._cosine, math.nan)
        return {"path_square": self._square.clone(), "step_cosine": cosine}

    def state(self) -> dict:
        """What `restore` needs."""
        return {"square": self._square, "cosine": self._cosine, "last": self._last, "count": self._count}

    def restore(self, state: dict) -> None:
        """Go on from a `state`."""
        self._square, self._cosine = state["square"], state["cosine"]
        self._last, self._count = state["last"], state["count"]


def accuracies(ensemble: Ensemble, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Share of examples classified rightly and mean loss at temperature 1, both (s, r), in double precision."""
    right, losses = [], []
    for seed in range(len(ensemble.subsets)):
        hits = total = 0.0
        for x, y in zip(inputs.split(EXAMPLES_AT_ONCE), labels.split(EXAMPLES_AT_ONCE)):
            outputs = ensemble.logits(seed, x).double()
            hits = hits + (outputs.argmax(2) == y).sum(1)
            each = cross_entropy(outputs.flatten(0, 1), y.repeat(len(outputs)), reduction="none")
            total = total + each.view(len(outputs), -1).sum(1)
        # A member that has diverged has classified nothing.
        right.append(torch.where(torch.isfinite(total), hits.double() / len(labels), math.nan))
        losses.append(total / len(labels))
    return torch.stack(right), torch.stack(losses)


def _batches(shuffles, step: int, per_epoch: int, batch: int, n: int, device) -> list[Tensor]:
    """The examples of each seed's batch at a step."""
    if batch == n:
        return [torch.arange(n, device=device)] * len(shuffles)
    epoch, number = divmod(step, per_epoch)
    orders = (_order(tuple(name), epoch, n) for name in shuffles)
    return [torch.as_tensor(order[number * batch : (number + 1) * batch], device=device) for order in orders]


def _order(name: tuple, epoch: int, n: int) -> np.ndarray:
    """The order of the examples in an epoch; kept until the next one of the same stream."""
    if _ORDERS.get(name, (None,))[0] != (epoch, n):
        _ORDERS[name] = (epoch, n), stream(*name, epoch).permutation(n)
    return _ORDERS[name][1]


_ORDERS: dict[tuple, tuple] = {}
