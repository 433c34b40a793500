"""The loop of training: steps, checkpoints, and what is taken along the way."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from goldilocks_zone.storage import files
from goldilocks_zone.training import batches, ensembles, observations

SHARE_OF_CHECKPOINTS = 0.05  # of the time, at most


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


def train(
    ensemble: ensembles.Ensemble,
    inputs: Tensor,
    labels: Tensor,
    log_at: Sequence[int],
    observe: Callable[[int, ensembles.Ensemble], Mapping[str, Tensor]],
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
                chosen = batches.batch(run.working.shuffles, step, size, n).to(inputs.device)
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

    def __init__(self, ensemble: ensembles.Ensemble):
        self.ensemble, self.working, self.progress = ensemble, ensemble, observations.Progress(ensemble.coordinates)
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
