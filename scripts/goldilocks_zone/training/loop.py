"""Training loop: steps, observations and checkpoints."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from goldilocks_zone.storage import files
from goldilocks_zone.training import ensembles, observations

Observe = Callable[[int, ensembles.Ensemble], Mapping[str, Tensor]]
SHARE_OF_CHECKPOINTS = 0.05  # upper bound on the share of time spent writing checkpoints


@dataclass(frozen=True)
class Checkpoint:
    """When the state of training is saved to the file `path`, from which training with the same `key` resumes.

    It is saved every `seconds`, or less often if writing is slow, and at the end. After each step `asked()` is called:
    if it returns True, the state is saved and training stops.
    """

    path: Path
    key: str
    seconds: float = 60.0
    asked: Callable[[], bool] = lambda: False


class Stopped(Exception):
    """Training was asked to stop; the message is one sentence."""


def train(
    ensemble: ensembles.Ensemble, log_at: Sequence[int], observe: Observe, checkpoint: Checkpoint | None = None
) -> dict[str, np.ndarray]:
    """Train an ensemble, and return its observations after each step of `log_at`, as arrays (t, m, …) by name.

    Step 0 is the start. The function `observe`(step, ensemble) returns the observations of one step: arrays by name,
    with one row for each member of the ensemble that it is given. They are stacked over the t logged steps, with a row
    for each of all m members. Two summaries (t, m) of all steps so far are added: path_square, the sum of the squared
    step lengths, and step_cosine, the mean cosine of the angle between successive steps.

    Members that are at rest at a logged step (see `Ensemble.at_rest`) are left out of later steps and keep their last
    observations. With a `checkpoint`, a killed run resumes from it, and a finished run is not repeated.

    Raises ValueError if the batch is larger than the data or the checkpoint is damaged. Raises Stopped, after writing
    the checkpoint, if asked to stop.
    """
    options, run, logged = ensemble.options, _Run(ensemble), set(log_at)
    saving = _Saving(checkpoint, run)
    first, started = saving.resumed(ensemble.inputs.device), time.monotonic()
    if first == 0 and 0 in logged:
        run.record(observe(0, ensemble))
    for step in range(first, options.steps):
        made = None
        if len(run.members):
            made = run.working.step(step, *run.working.examples(step))
            run.progress.add(made, run.working.rates_at(step))
        if step + 1 in logged:
            run.record(observe(step + 1, run.working) if len(run.members) else {})
            left = (time.monotonic() - started) / (step + 1 - first) * (options.steps - step - 1)
            logging.info("step %d of %d, about %.0f s left", step + 1, options.steps, left)
            if made is not None:
                run.leave_out(run.working.at_rest(made))
        saving.after(step + 1, options.steps)
    run.gather()
    return {name: torch.stack([each[name] for each in run.records]).cpu().numpy() for name in run.records[0]}


class _Saving:
    """Reads and writes the checkpoints of a run; does nothing without a `checkpoint`."""

    def __init__(self, checkpoint: Checkpoint | None, run: "_Run"):
        self._checkpoint, self._run = checkpoint, run
        self._due = time.monotonic() + (checkpoint.seconds if checkpoint else 0)

    def resumed(self, device: torch.device) -> int:
        """Restore the run on `device` from its checkpoint, and return the number of completed steps.

        Without a checkpoint that has the right key, nothing is restored and the result is 0.
        """
        if self._checkpoint is None or not self._checkpoint.path.exists():
            return 0
        saved = _saved(self._checkpoint.path, device)
        if saved["key"] != self._checkpoint.key:
            return 0
        self._run.restore(saved["run"])
        logging.info("goes on after step %d of %d", saved["step"], self._run.ensemble.options.steps)
        return saved["step"]

    def after(self, step: int, steps: int) -> None:
        """Write a checkpoint after `step` of `steps`, if it is time for one.

        That is so if the interval since the last one is over, if training was asked to stop, and after the last step.
        Raises Stopped if training was asked to stop.
        """
        if self._checkpoint is None:
            return
        begun, asked = time.monotonic(), self._checkpoint.asked()
        if begun > self._due or asked or step == steps:
            with files.whole_file(self._checkpoint.path) as path:
                torch.save({"key": self._checkpoint.key, "step": step, "run": self._run.state()}, path)
            now = time.monotonic()
            self._due = now + max(self._checkpoint.seconds, (now - begun) / SHARE_OF_CHECKPOINTS)
        if asked:
            raise Stopped(f"asked to stop after step {step} of {steps}: run again, and it goes on from there")


def _saved(path: Path, device: torch.device) -> dict:
    """Load a checkpoint onto `device`. Raises ValueError if it is damaged, OSError if it cannot be read."""
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        # torch raises many types of exception for damaged files.
        files.refuse_unreadable(path)
        raise ValueError(f"{path} is damaged: delete it and run again") from error


class _Run:
    """State of a training run, which checkpoints save.

    working: the ensemble of the members that are not yet at rest. members: their indices in the whole `ensemble`.
    progress: running sums over their steps. records: for each logged step so far, the observations of all members by
    name.
    """

    def __init__(self, ensemble: ensembles.Ensemble):
        self.ensemble, self.working, self.progress = ensemble, ensemble, observations.Progress(ensemble.coordinates)
        self.members = torch.arange(len(ensemble.coordinates), device=ensemble.coordinates.device)
        self.records = []

    def record(self, found: Mapping[str, Tensor]) -> None:
        """Append the observations `found`, arrays (m', …) of the working members by name, to the records.

        Members at rest keep their last observations.
        """
        complete = {name: each.clone() for name, each in self.records[-1].items()} if self.records else {}
        for name, each in {**found, **self.progress.found()}.items():
            if name in complete:
                complete[name][self.members.to(each.device)] = each
            else:
                complete[name] = each
        self.records.append(complete)

    def leave_out(self, resting: Tensor) -> None:
        if not resting.any():
            return
        self.gather()
        going = (~resting).nonzero().flatten()
        self.members, self.working = self.members[going], self.working.select(going)
        self.progress.select(going)
        logging.info("%d of %d members are at work", len(going), len(self.ensemble.coordinates))

    def gather(self) -> None:
        if self.working is not self.ensemble:
            self.ensemble.coordinates[self.members] = self.working.coordinates

    def state(self) -> dict:
        self.gather()
        parts = {"members": self.members, "places": self.ensemble.coordinates, "records": self.records}
        return {**parts, "working": self.working.state(), "progress": self.progress.state()}

    def restore(self, state: dict) -> None:
        self.ensemble.coordinates.copy_(state["places"])
        self.members, self.records = state["members"], state["records"]
        if len(self.members) < len(self.ensemble.coordinates):
            self.working = self.ensemble.select(self.members)
        self.working.restore(state["working"])
        self.progress.restore(state["progress"])
