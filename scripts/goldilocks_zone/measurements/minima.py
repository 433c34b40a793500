"""Training to minima of several kinds (Sabanayagam et al. 2023), where each draw has its own data, weights and batches.

The kinds of minima, and their labels, are those of the key `minima` of `BoundaryStudy`.
Letters: s draws, n examples, D parameters, e numbers of epochs, m members of an ensemble.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from goldilocks_zone.data import datasets, planar, planar_shapes
from goldilocks_zone.measurements import blocks, checkpoints
from goldilocks_zone.measurements.boundary import BoundaryStudy
from goldilocks_zone.models import initialisation, networks
from goldilocks_zone.models.problem import Problem
from goldilocks_zone.subspaces import constraints
from goldilocks_zone.training import ensembles, loop, observations

REST = 100  # steps between checks at which members that have stopped are dropped
NOISY = "checkerboard_noisy"  # dataset whose minimum is the start of wide_margin


@dataclass(frozen=True)
class Data:
    """Training and test examples of s draws.

    training, test: inputs (s, n, …) and labels (s, n). checksum: identifies the version of the data. borders: for each
    draw, the true borders between the classes of a designed dataset in the plane, or None for other datasets.
    """

    training: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    classes: int
    checksum: str
    borders: Sequence[planar.Borders | None]

    def of(self, number: int) -> "Drawn":
        """Examples of the draw with index `number` alone."""
        training, test = ((inputs[number], labels[number]) for inputs, labels in (self.training, self.test))
        return Drawn(training, test, self.classes, self.borders[number])


@dataclass(frozen=True)
class Drawn:
    """Training and test examples of one draw: inputs (n, …) and labels (n,); `borders` are as in `Data`."""

    training: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    classes: int
    borders: planar.Borders | None


@dataclass(frozen=True)
class Minima:
    """Minima of one kind.

    parameters: parameters (e, s, D) for each number of epochs and each draw. random_accuracy: for adversarial minima,
    which are first trained on random labels, the accuracy (s,) on these labels; NaN for all other kinds.
    """

    parameters: Tensor
    random_accuracy: Tensor


def data_of(work: blocks.Work, study: BoundaryStudy, like: Tensor) -> Data:
    """Load or sample the training and test examples of a `study` for all draws of a job's block.

    Inputs have the precision of `like`; all tensors are on its device. Raises ValueError for a dataset of images if the
    study has no `examples`.
    """
    job, block = work.job, work.block
    if planar_shapes.of(job.dataset):
        return in_the_plane(study, job.dataset, block.seed, block.draws, like)
    if study.examples is None:
        raise ValueError(f"the study has no key examples: say how many images of {job.dataset} each draw has")
    path, only = job.path_to_dataset, study.only_classes
    drawn, test = datasets.load_draws(path, job.dataset, block.draws, study.examples, block.seed, only, study.test)

    def stacked(parts: Sequence[datasets.Examples]) -> tuple[Tensor, Tensor]:
        inputs, labels = (np.stack([getattr(each, name) for each in parts]) for name in ("inputs", "labels"))
        return torch.as_tensor(inputs).to(like), torch.as_tensor(labels, device=like.device)

    inputs, labels = (each.expand(len(drawn), *each.shape[1:]) for each in stacked([test]))
    return Data(stacked(drawn), (inputs, labels), test.classes, test.checksum, [None] * len(drawn))


def in_the_plane(study: BoundaryStudy, name: str, seed: int, draws: Sequence[int], like: Tensor) -> Data:
    """Sample a dataset of points in the plane, `name`, for each of the `draws`; `seed` is the seed of the run.

    Inputs are (s, n, 1, 1, 2), in the precision of `like`; all tensors are on its device.
    """
    known = planar_shapes.known(name)

    def of_draws(purpose: str, count: int | None) -> tuple[Tensor, Tensor]:
        points, labels = zip(*(planar.drawn(name, seed, purpose, draw, count) for draw in draws))
        inputs = torch.as_tensor(np.stack(points)).to(like)[:, :, None, None]
        return inputs, torch.as_tensor(np.stack(labels), device=like.device)

    example = planar.drawn(name, seed, "training", 0)
    parts = of_draws("training", study.examples), of_draws("test", study.test)
    return Data(
        *parts, known.classes, datasets.checksum(*example), [planar.borders(name, seed, draw) for draw in draws]
    )


@dataclass(frozen=True)
class Phase:
    """Settings of one training run.

    optimiser: adam or sgd. rate: learning rate. batch: number of examples per step, or None for all. steps: numbers of
    steps after which parameters are recorded, ascending; the run ends after the last. stop_at: training loss at which a
    member stops.
    """

    optimiser: str
    rate: float
    batch: int | None
    steps: Sequence[int]
    stop_at: float | None = None


class Trainer:
    """Trains minima of all kinds in a study, for all `draws` at once.

    A minimum may take several training runs (phases); each phase has its own checkpoint. `data` holds the examples of
    the draws, in the order of `draws`. phases: number of phases so far, with those of other variants of the study,
    `before`, which have files of their own.
    """

    def __init__(
        self,
        work: blocks.Work,
        study: BoundaryStudy,
        module: nn.Module,
        data: Data,
        draws: Sequence[int],
        before: int = 0,
    ):
        self.work, self.study, self.data, self.draws = work, study, data, list(draws)
        dtype = getattr(torch, study.dtype)
        self.module, self.training = copy.deepcopy(module).to(dtype), (data.training[0].to(dtype), data.training[1])
        batch = None if study.batch == "all" else study.batch
        steps = study.steps(self.training[1].shape[1])
        self._last = Phase(study.optimiser, study.rate, batch, steps, study.stop_at)
        self.phases = before

    def minima(self) -> dict[str, Minima]:
        """Train all minima of the study, and return them by label.

        The kinds differ in the parameters from which the last phase starts. In this phase, all minima are trained as
        one ensemble. The kind `untrained` is not trained; only its last bias is shifted (see `_undecided`).
        """
        labels, fresh = self.study.minima, self.fresh()
        nothing = torch.full((len(self.draws),), torch.nan, dtype=torch.float64)
        strengths = sorted({int(label.split("-")[1]) for label in labels if "-" in label})
        on_random = dict(zip(strengths, self._on_random_labels(fresh, strengths))) if strengths else {}
        starts = {label: (fresh, nothing) for label in labels if label != "untrained"}
        for label in starts:
            kind, _, steps = label.partition("-")
            if kind == "wide_margin":
                starts[label] = self._on_noisy_data(fresh), nothing
            elif kind == "adversarial":
                starts[label] = on_random[int(steps)]
            elif kind == "large_norm":
                other, norms = self.fresh("large norm"), on_random[int(steps)][0].norm(dim=1, keepdim=True)
                starts[label] = other / other.norm(dim=1, keepdim=True) * norms, nothing
        found = {}
        if starts:
            points = torch.cat([start for start, _ in starts.values()])
            inputs, labels_of_all = (torch.cat([each] * len(starts)) for each in self.training)
            trained = self.train(points, (inputs, labels_of_all), self._last).unflatten(1, (len(starts), -1))
            found = {label: Minima(trained[:, i], starts[label][1]) for i, label in enumerate(starts)}
        if "untrained" in labels:
            undecided = torch.stack([self._undecided(*each) for each in zip(fresh, self.training[0])])
            found["untrained"] = Minima(undecided.expand(len(self._last.steps), -1, -1), nothing)
        return {label: found[label] for label in labels}

    def fresh(self, purpose: str = "initialisation") -> Tensor:
        """Initialisations (s, D) of all draws; `purpose` names the random streams from which they are drawn."""
        parameters = initialisation.parameters_of(self.module)
        streams = (self.work.stream(purpose, draw) for draw in self.draws)
        points = [initialisation.initialise(parameters, self.study.initialisation, each) for each in streams]
        return torch.as_tensor(np.stack(points)).to(self.training[0])

    def _undecided(self, point: Tensor, inputs: Tensor) -> Tensor:
        """Parameters `point` (D,) with the last bias shifted, so that each logit has the same mean over the `inputs`.

        The inputs (n, …) are those of the training examples of one draw. If the last layer has no bias, the point is
        returned unchanged.
        """
        mean = networks.logits_function(self.module)(point, inputs).mean(0)
        if list(self.module.parameters())[-1].shape != mean.shape:
            return point
        return torch.cat([point[: -len(mean)], point[-len(mean) :] - mean + mean.mean()])

    def _on_random_labels(self, starts: Tensor, strengths: list[int]) -> list[tuple[Tensor, Tensor]]:
        """Train from `starts` (s, D) on random labels, and record after each of the numbers of steps `strengths`.

        `strengths` must be ascending. Returns, for each of them, a pair of the parameters (s, D) and the accuracies
        (s,) on the random labels.
        """
        inputs, labels = self.training
        streams = [self.work.stream("random labels", draw) for draw in self.draws]
        drawn = np.stack([each.integers(0, self.data.classes, labels.shape[1]) for each in streams])
        drawn = torch.as_tensor(drawn, device=labels.device)
        found = self.train(starts, (inputs, drawn), Phase("adam", self.study.random_rate, None, strengths))
        return [(points, self.classified(points, inputs, drawn)["accuracy"]) for points in found]

    def _on_noisy_data(self, starts: Tensor) -> Tensor:
        """Parameters (s, D) at the end of training from `starts` (s, D) on the noisy checkerboard."""
        work = self.work
        noisy = in_the_plane(self.study, NOISY, work.block.seed, self.draws, self.training[0]).training
        return self.train(starts, noisy, self._last)[-1]

    def train(self, starts: Tensor, examples: tuple[Tensor, Tensor], phase: Phase) -> Tensor:
        """Train m members from `starts` (m, D); return their parameters (t, m, D) at t moments of the training.

        These moments are the t entries of `phase.steps`. `examples` are the members' inputs (m, n, …) and labels
        (m, n). m must be a multiple of s: member i belongs to the draw with index i mod s.
        """
        ensemble = self._ensemble(starts, examples, phase)
        self.phases += 1
        checkpoint = checkpoints.checkpoint(self.work, self.study, {"checksum": self.data.checksum}, self.phases)
        steps = sorted({*phase.steps, *range(0, phase.steps[-1], REST)} if phase.stop_at else phase.steps)
        found = loop.train(ensemble, steps, lambda _, state: {"place": state.coordinates.clone()}, checkpoint)
        return torch.as_tensor(found["place"])[[steps.index(step) for step in phase.steps]].to(starts)

    def classified(self, points: Tensor, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Accuracy, mean loss and share of zero logits of m networks, as arrays (m,) by name.

        `points` (m, D) are the parameters of the networks. Each network has its own `inputs` (m, n, …) and `labels`
        (m, n). See `observations.classified`.
        """
        return observations.classified(self._ensemble(points, (inputs, labels), self._last), inputs, labels)

    def _ensemble(self, starts: Tensor, examples: tuple[Tensor, Tensor], phase: Phase) -> ensembles.Ensemble:
        options = ensembles.Options(
            steps=phase.steps[-1],
            batch=phase.batch if phase.batch is None else min(phase.batch, examples[1].shape[1]),
            rates=torch.full((len(starts),), phase.rate, dtype=torch.float64),
            optimiser=phase.optimiser,
            own_examples=True,
            keep_last=True,
            stop_at=phase.stop_at,
        )
        shapes = [each.shape for each in self.module.parameters()]
        names = [self.work.stream_name("batches", self.draws[i % len(self.draws)]) for i in range(len(starts))]
        problem = Problem(self.module, *examples, self.study.loss)
        return ensembles.Ensemble(problem, constraints.full(starts, shapes, fixed=False), options, names)
