"""Training of joint embeddings in ensembles, whose members differ in arm, draw, radius, learning rate or loss weights.

An arm is one way to train: a head of the network and a loss, see `jepa_training.Arm`. Members of one draw train on the
same pairs; the arm `shuffled` permutes them, so that x and y no longer belong together. The VICReg loss is λ I + μ V +
ν C, with the invariance I, the variance term V and the covariance term C. V penalises embeddings with deviations √(v +
ε) below a threshold, the hinge, where v is the variance of a dimension (see `embedding_losses`).
Letters: m members, s draws, n pairs, p dimensions of an observation, a of an action, D parameters.
"""

import copy
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from goldilocks_zone.config import studies
from goldilocks_zone.measurements import blocks, jepa_worlds
from goldilocks_zone.measurements.jepa_training import ARMS, OF_MEMBERS, Arm, JepaTrainingStudy
from goldilocks_zone.models import initialisation, jepa, labels
from goldilocks_zone.models.embedding_losses import InfoNce, Vicreg
from goldilocks_zone.models.losses import Loss
from goldilocks_zone.models.member_losses import VicregOfMembers
from goldilocks_zone.models.problem import Problem
from goldilocks_zone.subspaces import constraints
from goldilocks_zone.theory import wide_networks
from goldilocks_zone.theory.wide_networks import Criteria
from goldilocks_zone.training import ensembles, loop

BYTES_AT_ONCE = 2**28  # of the activations of an ensemble's members
ADAM_EPSILON = 1e-8
SOFT, HARD = 0.6, 0.7  # shares of the steps after which β keeps its last value, and after which the minimum is used


class Member(NamedTuple):
    """One training run, with its arm.

    draw: number of the draw. radius: radius of the initial parameters, in the study's unit. variant: values of those
    varied keys in which the members of an ensemble may differ, OF_MEMBERS.
    """

    draw: int
    radius: float
    variant: dict
    arm: str


@dataclass(frozen=True)
class Ensemble:
    """Joint embeddings that are trained together, with the same head and kind of loss.

    The `study` has a single value for each varied key, except for the keys OF_MEMBERS. pairs: source of the pairs on
    which they are trained. module: network that gives the architecture. members: descriptions of the training runs.
    """

    work: blocks.Work
    study: JepaTrainingStudy
    pairs: jepa_worlds.Pairs
    module: jepa.JointEmbedding
    members: list[Member]

    @property
    def arm(self) -> Arm:
        """The arm of the first member; the arms of all members have the same head and the same kind of loss."""
        return ARMS[self.members[0].arm]

    @property
    def draws(self) -> list[int]:
        """The distinct draws of the members."""
        return list(dict.fromkeys(member.draw for member in self.members))

    @property
    def numbers(self) -> Tensor:
        """Index (m,) of each member's draw in the list `draws`."""
        return torch.tensor([self.draws.index(member.draw) for member in self.members])

    def starts(self) -> tuple[Tensor, Tensor]:
        """Initial parameters (m, D) of the members in double precision, and their learning rates (m,)."""
        study, r_x = self.study, initialisation.glorot_radius(initialisation.parameters_of(self.module))
        drawn = {
            draw: jepa.initial(self.module, study.initialisation, self.work.stream("initialisation", draw))
            for draw in self.draws
        }
        points, rates = [], []
        for member in self.members:
            own, theta = study.model_copy(update=member.variant), drawn[member.draw]
            factor = initialisation.scale(theta, member.radius, study.radius_unit, r_x)
            ratio = initialisation.ratio(member.radius, study.radius_unit, r_x)
            if own.start_deviation:
                more = self._to_deviation(factor * theta, own.start_deviation, member.draw)
                factor, ratio = factor * more, ratio * more
            points.append(study.gauge * factor * theta)
            rates.append(study.gauge * own.rate * ratio ** studies.rate_exponent(own.rate_rule, None))
        return torch.as_tensor(np.stack(points)), torch.tensor(rates, dtype=torch.float64)

    def _to_deviation(self, theta: np.ndarray, deviation: float, draw: int) -> float:
        """Factor by which to multiply `theta` (D,), so that embeddings have the standard deviation `deviation`.

        The standard deviation is measured on observations x of fresh pairs, which belong to the draw with number
        `draw`. The encoder must be homogeneous.
        """
        x = torch.as_tensor(self.pairs.evaluated([draw], self.study.batch).x)
        embedded = jepa.Members(self.module, torch.as_tensor(theta)[None]).encode(x.double())[0]
        found = float(embedded.var(0).mean().sqrt())
        return (deviation / found) ** (1 / self.depth)

    def loss(self, sharpness: float | None = None) -> Loss:
        """Loss of all members.

        A loss with latent codes takes the minimum over codes or, if `sharpness` is given, a soft minimum. `sharpness`
        is its β, which multiplies the mean square of a residual.
        """
        study, arm = self.study, self.arm
        if arm.criterion == "info_nce":
            return InfoNce(study.embedding, study.temperature, study.similarity, group=study.group)
        codes = 1 if arm.head == "pixel_autoencoder" else study.codes
        if sharpness is not None:
            # β multiplies the mean square of a residual; with the sum, even the first β would act as a hard minimum.
            sharpness = sharpness / (self.pairs.observation if arm.criterion == "pixels" else study.embedding)
        given = {"codes": codes, "sharpness": sharpness, "group": study.group}
        if arm.criterion == "pixels":
            return Vicreg(study.embedding, study.invariance, 0, 0, **given)
        criterion = Vicreg(study.embedding, 1, 1, 1, hinge=self.criteria[0].hinge, **given)
        return VicregOfMembers(criterion, *self._weights)

    @functools.cached_property
    def criteria(self) -> list[Criteria]:
        """Parameters of each member's VICReg loss: weights λ, μ and ν, ε, and hinge, which is the same for all."""
        own = (self.study.model_copy(update=member.variant) for member in self.members)
        return [criteria_of(study, member.arm, self.depth) for study, member in zip(own, self.members)]

    @property
    def depth(self) -> int:
        """Number of the encoder's weight layers."""
        depth = labels.depth(self.work.job.network)
        assert depth is not None  # Studies of joint embeddings take no networks of the user.
        return depth

    @functools.cached_property
    def _weights(self) -> tuple[Tensor, Tensor]:
        """Weights λ, μ and ν (m, 3) of VICReg, and its ε (m,), for each member."""
        like = {"dtype": getattr(torch, self.study.dtype), "device": self.work.device}
        weights = torch.tensor([each.weights for each in self.criteria], **like)
        return weights, torch.tensor([each.epsilon for each in self.criteria], **like)

    def trained(self, checkpoint: loop.Checkpoint | None) -> Tensor:
        """Train the members, with a `checkpoint` to resume from; return their parameters (m, D) in double precision.

        In the arm `random`, these are the initial parameters.
        """
        starts, rates = self.starts()
        if self.arm.criterion == "untrained":
            return starts
        study, dtype = self.study, getattr(torch, self.study.dtype)
        module = copy.deepcopy(self.module).to(self.work.device, dtype)
        options = ensembles.Options(
            steps=study.steps,
            batch=None,
            rates=rates,
            epsilon=ADAM_EPSILON * study.gauge ** (2 * self.depth - 1),
            own_examples=True,
            fresh=self._fresh(dtype),
            rate_at=decay(study.steps, study.decay),
            loss_at=self._loss_at() if study.codes > 1 and self.arm.head != "pixel_autoencoder" else None,
        )
        shapes = [each.shape for each in module.parameters()]
        subset = constraints.full(starts.to(self.work.device, dtype), shapes, fixed=False)
        like = starts.new_empty(len(starts), study.batch, 2 * self.pairs.observation + self.pairs.action)
        problem = Problem(module, like.to(subset.start), None, self.loss())
        ensemble = ensembles.Ensemble(problem, subset, options, [self.work.stream_name("pairs")])
        found = loop.train(ensemble, [study.steps], lambda _, state: {"x": state.coordinates.clone()}, checkpoint)
        return torch.as_tensor(found["x"][0]).double()

    def _fresh(self, dtype: torch.dtype) -> Callable[[int], tuple[Tensor, Tensor]]:
        """Function that maps the index of a training step to the inputs of this step and empty labels.

        Inputs are fresh packed pairs (m, n, 2p + a), in the precision `dtype`. Members of one draw have the same pairs,
        which are permuted for members with a shuffled arm.
        """
        numbers, p = self.numbers, self.pairs.observation
        alike = numbers.tolist() == list(range(len(self.draws)))
        apart = torch.tensor([ARMS[member.arm].shuffled for member in self.members]).nonzero()[:, 0]

        def fresh(step: int) -> tuple[Tensor, Tensor]:
            packed = torch.as_tensor(self.pairs.packed(self.draws, step, self.study.batch)).to(dtype)
            packed = packed if alike else packed[numbers]
            if len(apart):
                # Rolling suffices, since pairs of a batch are independent.
                packed[apart, :, p : 2 * p] = packed[apart, :, p : 2 * p].roll(1, 1)
            return packed.to(self.work.device), packed.new_empty(*packed.shape[:2], 0, device=self.work.device)

        return fresh

    def _loss_at(self) -> Callable[[int], Loss]:
        first, last = self.study.soft_minimum

        def loss_at(step: int) -> Loss:
            time = step / self.study.steps
            share = min(1.0, time / SOFT)
            geometric = self.study.schedule == "geometric"
            rising = first * (last / first) ** share if geometric else first + (last - first) * share
            return self.loss(None if time >= HARD else rising)

        return loss_at


def decay(steps: int, share: float) -> Callable[[int], float] | None:
    """Function that maps the index of a training step to a factor on the learning rate; None if `share` is 0.

    There are `steps` steps. The factor is 1 at first, and falls linearly to 0 over the last `share` of them.
    """
    return (lambda step: min(1.0, (steps - step) / (share * steps))) if share else None


def criteria_of(study: JepaTrainingStudy, arm: str, depth: int) -> Criteria:
    """Weights λ, μ and ν, ε and hinge of the VICReg loss in an `arm`, for an encoder with `depth` weight layers.

    Terms that the arm does not use have weight 0. If the study sets `over_threshold`, μ/λ is this multiple of its
    threshold, below which collapsed embeddings are a minimum. All values are rescaled to match initial parameters that
    are multiplied by the study's `gauge` (see `Criteria.gauged`).
    """
    own = [study.invariance, study.variance, study.covariance]
    if study.over_threshold:
        threshold = wide_networks.collapse_threshold(study.correlation, study.epsilon)
        own[1] = study.invariance * study.over_threshold * float(threshold)
    invariance, variance, covariance = (weight * used for weight, used in zip(own, ARMS[arm].terms))
    return Criteria(invariance, variance, covariance, study.epsilon).gauged(study.gauge, depth)


def ensembles_of(
    work: blocks.Work, study: JepaTrainingStudy, pairs: jepa_worlds.Pairs, arms: Sequence[str]
) -> list[Ensemble]:
    """Describe all members of a block, and split them into ensembles with as many members as memory allows.

    There is a member for each combination of draw, radius, values of the keys OF_MEMBERS, and arm. All `arms` must have
    the same head and criterion. `pairs` is the source of pairs to train on. Members are ordered by draw, so that an
    ensemble needs pairs of few draws only.
    """
    _, together = studies.split(study, OF_MEMBERS)
    points = itertools.product(work.block.draws, work.block.radii, together, arms)
    members, module = [Member(*point) for point in points], module_of(work, study, pairs, ARMS[arms[0]])
    widths = 3 * pairs.observation + sum(each.shape[0] for each in module.parameters() if each.ndim > 1)
    count = max(1, BYTES_AT_ONCE // (4 * 4 * study.batch * widths * study.codes))
    chunks = [members[start : start + count] for start in range(0, len(members), count)]
    return [Ensemble(work, study, pairs, module, chunk) for chunk in chunks]


def module_of(work: blocks.Work, study: JepaTrainingStudy, pairs: jepa_worlds.Pairs, arm: Arm) -> jepa.JointEmbedding:
    """Build the network of an arm in double precision; `pairs` gives the sizes of observations and actions."""
    latent = jepa.Latent(study.codes, study.columns, study.free, study.penalty)
    head = "siamese" if arm.head == "predictor" and not study.predictor else arm.head
    return jepa.build(labels.parse_network(work.job.network), pairs.sizes(study.embedding), head, latent)


def place_of(member: Member, variant: Mapping) -> dict:
    """Place {axis: label} of a member in the results.

    `variant` has the values of those varied keys that all members of its ensemble share.
    """
    own = studies.place({**variant, **member.variant})
    return own | {"arm": member.arm, "radius": member.radius, "draw": member.draw}
