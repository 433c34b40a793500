"""Training restricted to random subspaces: ensembles over radii, rates, temperatures and seeds in one computation.

The members of an ensemble share a subset, so that their parameters come from one matrix product, and differ in radius,
learning rate and temperature. In the whole space, which has no basis to share, members may be of several seeds.
One letter per axis: m members, d coordinates, n examples, k classes.
"""

import copy
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.nn.functional import cross_entropy
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from goldilocks_zone.models import chains, kernels, losses, networks
from goldilocks_zone.randomness import stream
from goldilocks_zone.storage import files
from goldilocks_zone.subspaces.constraints import Subset, by_member, norms, products

OPTIMISERS = ("adam", "sgd")
BETAS = 0.9, 0.999  # Adam's, torch's own
EXAMPLES_AT_ONCE = 1000  # when accuracies are measured
SHARE_OF_CHECKPOINTS = 0.05  # of the time, at most


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


@dataclass(frozen=True)
class Checkpoint:
    """A file from which training goes on if it was written under the same `key`; written every `seconds` at most.

    And when the process is `asked` to stop, before it does.
    """

    path: Path
    key: str
    seconds: float = 60.0
    asked: Callable[[], bool] = lambda: False


class Stopped(Exception):
    """Training was asked to stop; the message is one sentence."""


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


def train(
    ensemble: Ensemble,
    inputs: Tensor,
    labels: Tensor,
    log_at: Sequence[int],
    observe: Callable[[int, Ensemble], Mapping[str, Tensor]],
    checkpoint: Checkpoint | None = None,
) -> dict[str, np.ndarray]:
    """Train on `inputs` (N, …) with `labels` (N,), and return what `observe` found after each step of `log_at`.

    An epoch's order depends on the name of its stream and the epoch alone. `observe` (step, ensemble) gives arrays
    (m, …) by name, stacked to (t, m, …); to them are added, over all steps so far, path_square: Σ of squared lengths
    of the steps, and step_cosine: mean cosine of successive steps.
    Members at rest when something is logged are left out from then on: `observe` sees the others, and what was found
    of them last stays.
    With a `checkpoint`, a run that was killed goes on from there, and one that is over is not run again.

    Raises ValueError if the batch is larger than the data or the checkpoint damaged, Stopped once it has left a
    checkpoint because it was asked.
    """
    options, n = ensemble.options, len(inputs)
    size = n if options.batch is None else options.batch
    if size > n:
        raise ValueError(f"batch: {size} examples cannot be drawn from {n}; lower it")
    run = _Run(ensemble)
    first = 0
    if checkpoint is not None and checkpoint.path.exists():
        saved = _saved(checkpoint.path, inputs.device)
        if saved["key"] == checkpoint.key:
            first = saved["step"]
            run.restore(saved["run"])
            logging.info("goes on after step %d of %d", first, options.steps)

    def save(step: int) -> None:
        with files.whole_file(checkpoint.path) as path:
            torch.save({"key": checkpoint.key, "step": step, "run": run.state()}, path)

    logged, started = set(log_at), time.monotonic()
    due = started + (checkpoint.seconds if checkpoint else 0)
    if first == 0 and 0 in logged:
        run.record(observe(0, ensemble))
    for step in range(first, options.steps):
        if len(run.members):
            examples = inputs, labels
            if size < n:
                chosen = batch(run.working.shuffles, step, size, n).to(inputs.device)
                examples = inputs[chosen], labels[chosen]
            made = run.working.step(step, *examples)
            run.progress.add(made, run.working.rates)
        if step + 1 in logged:
            run.record(observe(step + 1, run.working) if len(run.members) else {})
            left = (time.monotonic() - started) / (step + 1 - first) * (options.steps - step - 1)
            logging.info("step %d of %d, about %.0f s left", step + 1, options.steps, left)
            if len(run.members):
                run.leave_out(run.working.at_rest(made))
        begun = time.monotonic()
        asked = checkpoint is not None and checkpoint.asked()
        if checkpoint is not None and (begun > due or asked or step + 1 == options.steps):
            save(step + 1)
            now = time.monotonic()
            due = now + max(checkpoint.seconds, (now - begun) / SHARE_OF_CHECKPOINTS)
        if asked:
            raise Stopped(
                f"asked to stop after step {step + 1} of {options.steps}: run again, and it goes on from there"
            )
    run.gather()
    return {name: torch.stack([each[name] for each in run.records]).cpu().numpy() for name in run.records[0]}


def _saved(path: Path, device: torch.device) -> dict:
    """Content of a checkpoint. Raises ValueError if it is damaged, OSError if it cannot be read."""
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        # Torch's errors about damaged files are of every kind.
        files.refuse_unreadable(path)
        raise ValueError(f"{path} is damaged: delete it and run again") from error


class _Run:
    """An ensemble on the way: what was recorded of all members, and those of them that are still `working`."""

    def __init__(self, ensemble: Ensemble):
        self.ensemble, self.working, self.progress = ensemble, ensemble, Progress(ensemble.coordinates)
        self.members = torch.arange(len(ensemble.coordinates), device=ensemble.coordinates.device)
        self.records = []

    def record(self, found: Mapping[str, Tensor]) -> None:
        """Record what was `found` of the members at work (m', …); of others, what was found last."""
        complete = {name: each.clone() for name, each in self.records[-1].items()} if self.records else {}
        for name, each in {**found, **self.progress.found()}.items():
            if name in complete:
                complete[name][self.members.to(each.device)] = each
            else:
                complete[name] = each
        self.records.append(complete)

    def leave_out(self, resting: Tensor) -> None:
        """Work without these members (m',)."""
        if not resting.any():
            return
        self.gather()
        going = (~resting).nonzero().flatten()
        self.members, self.working = self.members[going], self.working.select(going)
        self.progress.select(going)
        logging.info("%d of %d members are at work", len(going), len(self.ensemble.coordinates))

    def gather(self) -> None:
        """Give the ensemble the places that its members have reached."""
        if self.working is not self.ensemble:
            self.ensemble.coordinates[self.members] = self.working.coordinates

    def state(self) -> dict:
        """What `restore` needs to go on from here."""
        self.gather()
        parts = {"members": self.members, "places": self.ensemble.coordinates, "records": self.records}
        return {**parts, "working": self.working.state(), "progress": self.progress.state()}

    def restore(self, state: dict) -> None:
        """Go on from a `state`."""
        self.ensemble.coordinates.copy_(state["places"])
        self.members, self.records = state["members"], state["records"]
        if len(self.members) < len(self.ensemble.coordinates):
            self.working = self.ensemble.select(self.members)
        self.working.restore(state["working"])
        self.progress.restore(state["progress"])


def snapshot(ensemble: Ensemble, **evaluated: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    """What is logged of each member (m,): by name, loss and accuracy on each set of `evaluated` examples, and

    norm: |x|; tensor_norm (m, t): that of each parameter tensor; distance: |x − x_0|; start_cosine: that of the angle
    between x and x_0; on the first of these sets, gradient_norm: of the loss, within the subset; gradient_cosine: of
    the angle between this gradient and the coordinates (x itself in the whole space); zero_logits: the share of logits
    that are exactly zero.
    """
    found = {}
    for name, (inputs, labels) in reversed(evaluated.items()):
        classes = classified(ensemble, inputs, labels)
        found |= {f"{name}_accuracy": classes["accuracy"], f"{name}_loss": classes["loss"]}
    found["zero_logits"] = classes["zero_logits"]
    here, start = ensemble.parameters(), ensemble.subset.forward(ensemble.subset.start)

    apart = [a - b for a, b in zip(here, start)]
    found["tensor_norm"] = torch.stack([norms([each]) for each in here], 1).double()
    found["norm"], found["distance"] = torch.linalg.vector_norm(found["tensor_norm"], dim=1), norms(apart).double()
    lengths = found["norm"] * norms(start).double()
    found["start_cosine"] = products(here, start).double() / lengths
    gradients = ensemble.gradients(*next(iter(evaluated.values())))
    found["gradient_norm"] = torch.linalg.vector_norm(gradients, dim=1).double()
    across = torch.linalg.vecdot(gradients, ensemble.coordinates).double()
    lengths = found["gradient_norm"] * torch.linalg.vector_norm(ensemble.coordinates, dim=1).double()
    # At a plane's origin, and where a gradient vanishes, there is no angle.
    return {**found, "gradient_cosine": across / lengths}


class Progress:
    """Sums over the steps so far, per member."""

    def __init__(self, like: Tensor):
        self._square, self._cosine = (torch.zeros(len(like), dtype=torch.float64) for _ in range(2))
        self._last, self._norm, self._count = None, None, 0

    def add(self, made: list[Tensor], rates: Tensor) -> None:
        """Add the steps that were made, in parts (m, …) and over the rates (m,); `made` is kept until the next ones."""
        norm = norms(made)
        self._square += (norm * rates).square().double().cpu()
        if self._last is not None:
            self._cosine += (products(made, self._last) / (norm * self._norm)).double().cpu()
        self._last, self._norm, self._count = made, norm, self._count + 1

    def found(self) -> dict[str, Tensor]:
        """path_square and step_cosine (m,)."""
        pairs = max(self._count - 1, 0)
        cosine = self._cosine / pairs if pairs else torch.full_like(self._cosine, math.nan)
        return {"path_square": self._square.clone(), "step_cosine": cosine}

    def select(self, members: Tensor) -> None:
        """Go on with some of the members (m',) alone."""
        self._square, self._cosine = (each[members.cpu()] for each in (self._square, self._cosine))
        if self._last is not None:
            self._last, self._norm = [part[members] for part in self._last], self._norm[members]

    def state(self) -> dict:
        """What `restore` needs."""
        sums = {"square": self._square, "cosine": self._cosine}
        return {**sums, "last": self._last, "norm": self._norm, "count": self._count}

    def restore(self, state: dict) -> None:
        """Go on from a `state`."""
        self._square, self._cosine = state["square"], state["cosine"]
        self._last, self._norm, self._count = state["last"], state["norm"], state["count"]


def classified(ensemble: Ensemble, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """accuracy: share of examples classified rightly, loss: the mean, and zero_logits: share of logits exactly zero.

    All (m,), in double precision. The loss is what is trained: at each member's own temperature.
    """
    parameters, hits, total, zeros = ensemble.parameters(), 0.0, 0.0, 0.0
    for x, y in zip(inputs.split(EXAMPLES_AT_ONCE), labels.split(EXAMPLES_AT_ONCE)):
        outputs = ensemble.logits(parameters, x).double() / ensemble.temperatures[:, None, None]
        hits = hits + (outputs.argmax(2) == y).sum(1)
        zeros = zeros + (outputs == 0).double().mean(2).sum(1)
        total = total + each_loss(outputs, y, ensemble.options.loss).sum(1)
    # A member that has diverged has classified nothing.
    right = torch.where(torch.isfinite(total), hits.double() / len(labels), math.nan)
    return {"accuracy": right, "loss": total / len(labels), "zero_logits": zeros / len(labels)}


def each_loss(outputs: Tensor, labels: Tensor, loss: str) -> Tensor:
    """Loss (m, n) of each example: of outputs (m, n, k), labels (n,) or (m, n). As in `losses.values`."""
    if loss != "cross_entropy":
        return losses.values(outputs, labels, loss)
    targets = labels.expand(outputs.shape[:2]).flatten()
    return cross_entropy(outputs.flatten(0, 1), targets, reduction="none").view(outputs.shape[:2])


def batch(shuffles: Sequence[tuple], step: int, size: int, n: int) -> Tensor:
    """The examples of a step's batch: (size,) where there is one stream, else (m, size)."""
    epoch, number = divmod(step, n // size)
    rows = [_order(name, epoch, n)[number * size : (number + 1) * size] for name in shuffles]
    return torch.as_tensor(rows[0] if len(rows) == 1 else np.stack(rows))


def _order(name: tuple, epoch: int, n: int) -> np.ndarray:
    """The order of the examples in an epoch; kept until the next one of the same stream."""
    if _ORDERS.get(name, (None,))[0] != (epoch, n):
        _ORDERS[name] = (epoch, n), stream(*name, epoch).permutation(n)
    return _ORDERS[name][1]


_ORDERS: dict[tuple, tuple] = {}
