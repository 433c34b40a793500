"""Measurement of the training of joint embeddings, in blocks of draws and radii.

All arms (ways to train) are trained in all variants of a study, and their embeddings are probed. The embeddings of a
pair of observations (x, y) are s_x and s_y. The energy of a pair is the squared error of the prediction of y, or of
s_y, with the best latent code, see `jepa.Members.energies`. Observables are functions that return values by name; their
arrays have an entry for each of m members.
Letters: m members, n pairs, p dimensions of an observation, a of an action, e of an embedding.
"""

import functools
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from goldilocks_zone.config import studies
from goldilocks_zone.data.worlds import Batch
from goldilocks_zone.jobs import lifecycle
from goldilocks_zone.measurements import blocks, checkpoints, jepa_arms, jepa_worlds
from goldilocks_zone.measurements.jepa_arms import Ensemble, Member
from goldilocks_zone.measurements.jepa_starts import Started
from goldilocks_zone.measurements.jepa_training import ARMS, OF_MEMBERS, Arm, JepaTrainingStudy, groups
from goldilocks_zone.measurements.observables import DRAW, RADIUS, Axis, Observables, Shape, Variable
from goldilocks_zone.models import jepa
from goldilocks_zone.randomness import stream
from goldilocks_zone.statistics import representations
from goldilocks_zone.theory import wide_networks
from goldilocks_zone.theory.wide_networks import Criteria

AT_ONCE = 16  # members that are measured together
ROUNDING = 1e-20  # energies below this share of the mean square of the targets are due to rounding

ARM = Axis("arm", lambda shape: shape.study.arms, "what is trained")
OBSERVABLES = Observables(RADIUS, DRAW)
# Missing if training diverged, if a world or arm has no such quantity, and if embeddings are constant.
of_arm = functools.partial(Variable, axes=(ARM,), may_be_missing=True)


@dataclass(frozen=True)
class Trained:
    """Members at the end of training, with fresh pairs of observations from their draws.

    criteria: weights, ε and hinge of each member's loss. model: the trained networks. batch: the pairs (x, y), arrays
    (m, n, …). turned: observations (m, n, p) that replace y in hard pairs, where the fast angle of ring world is
    turned; None in other worlds.
    """

    study: JepaTrainingStudy
    members: list[Member]
    criteria: list[Criteria]
    model: jepa.Members
    batch: Batch
    turned: np.ndarray | None

    @property
    def arm(self) -> Arm:
        """The arm of the first member; all members share its head and criterion."""
        return ARMS[self.members[0].arm]

    @functools.cached_property
    def s_x(self) -> Tensor:
        """Embeddings of x (m, n, e)."""
        return self.model.encode(torch.as_tensor(self.batch.x))

    @functools.cached_property
    def s_y(self) -> Tensor:
        """Embeddings of y (m, n, e)."""
        return self.model.encode(torch.as_tensor(self.batch.y))

    @functools.cached_property
    def compatible(self) -> np.ndarray | None:
        """Energies (m, n) of the pairs (x, y) in the batch; None for an autoencoder, which predicts nothing."""
        return self._energies(self.s_y, self.batch.y)

    @functools.cached_property
    def incompatible(self) -> np.ndarray | None:
        """Energies (m, n) of pairs that combine each x with the y of another pair; None for an autoencoder."""
        return self._energies(self.s_y.roll(1, 1), np.roll(self.batch.y, 1, 1))

    @functools.cached_property
    def hard(self) -> np.ndarray | None:
        """Energies (m, n) of hard pairs, in which the fast angle of y is turned.

        None in worlds other than ring, and for an autoencoder.
        """
        if self.turned is None:
            return None
        return self._energies(self.model.encode(torch.as_tensor(self.turned)), self.turned)

    @functools.cached_property
    def targets(self) -> np.ndarray:
        """Targets of the predictions (m, n, …): y itself for the head pixel_prediction, otherwise s_y."""
        return self.batch.y if self.arm.head == "pixel_prediction" else self.s_y.numpy()

    def told(self) -> np.ndarray:
        """Index (m, n) of the best latent code of each pair, which gives the smallest energy."""
        return self.model.codes(self.s_x, self.s_y, self.packed(self.batch.y)).numpy()

    def packed(self, y: np.ndarray) -> Tensor:
        """Inputs (m, n, 2p + a) of the networks: x, `y` (m, n, p) and actions side by side.

        x and the actions are those of the batch.
        """
        return torch.as_tensor(np.concatenate([self.batch.x, y, self.batch.action], -1))

    def _energies(self, s_y: Tensor, y: np.ndarray) -> np.ndarray | None:
        if self.arm.head == "pixel_autoencoder":
            return None
        found = self.model.energies(self.s_x, s_y, self.packed(y)).numpy()
        # Rounding of an energy that vanishes identically must not distinguish pairs.
        return np.where(found < ROUNDING * (self.targets**2).sum(-1).mean(-1, keepdims=True), 0, found)


def measure_block(job: blocks.Job) -> xr.Dataset:
    """Train and measure all arms and variants of a job's study for its draws and radii; return the labelled results."""
    lifecycle.listen()
    work, number = blocks.begin(job), 0
    study, result, module, pairs = work.block.study, None, None, None
    assert isinstance(study, JepaTrainingStudy)
    for variant in studies.split(study, OF_MEMBERS)[0]:
        here = study.model_copy(update=variant)
        pairs = jepa_worlds.of(here, job.dataset, job.path_to_dataset, work.block.seed)
        if result is None:
            image = (1, 1, pairs.observation)
            module = jepa_arms.module_of(work, here, pairs, ARMS[here.arms[0]])
            result = blocks.empty(OBSERVABLES, Shape(here, module, image, pairs.classes), work.labels)
        for arms in groups(here):
            for ensemble in jepa_arms.ensembles_of(work, here, pairs, arms):
                points = ensemble.trained(checkpoints.checkpoint(work, here, {"checksum": pairs.checksum}, number))
                for seen in trained(ensemble, points):
                    values = OBSERVABLES.measure(here, seen)
                    for i, member in enumerate(seen.members):
                        place = jepa_arms.place_of(member, variant)
                        blocks.fill(result, place, {name: each[i] for name, each in values.items()})
                described, seconds = studies.described(variant), time.monotonic() - work.started
                logging.info("%s trained and measured after %.1f s%s", ", ".join(arms), seconds, described)
                for i, values in enumerate(started(here, ensemble)):
                    blocks.fill(result, jepa_arms.place_of(ensemble.members[i], variant), values)
                number += 1
    assert result is not None and pairs is not None and module is not None  # A study has one variant or more.
    return blocks.sign(result, work, pairs, module, dtype=study.dtype, test_examples=study.test)


def started(study: JepaTrainingStudy, ensemble: Ensemble) -> Iterator[dict]:
    """Measure an ensemble at its initialisation; yield a dictionary of values by name for each member."""
    found = OBSERVABLES.measure(study, Started(ensemble))
    return ({name: each[i] for name, each in found.items()} for i in range(len(ensemble.members)))


def trained(ensemble: Ensemble, points: Tensor) -> Iterator[Trained]:
    """Yield the trained members of an `ensemble`, in groups of up to AT_ONCE, with fresh pairs from their draws.

    `points` (m, D) are the trained parameters of all members.
    """
    study, pairs = ensemble.study, ensemble.pairs
    for start in range(0, len(points), AT_ONCE):
        members, criteria = ensemble.members[start : start + AT_ONCE], ensemble.criteria[start : start + AT_ONCE]
        draws = list(dict.fromkeys(member.draw for member in members))
        batch = pairs.evaluated(draws, study.test)
        turned, rows = pairs.turned(batch), [draws.index(member.draw) for member in members]
        truth = {name: each[rows] for name, each in batch.truth.items()}
        own = Batch(batch.x[rows], batch.y[rows], batch.action[rows], truth)
        model = jepa.Members(ensemble.module, points[start : start + AT_ONCE])
        yield Trained(study, members, criteria, model, own, None if turned is None else turned[rows])


@OBSERVABLES.register(
    Trained,
    of_arm("deviation", "1", "σ, root of the mean variance of an embedding's numbers"),
    of_arm("dimensions_in_use", "1", "eigenvalues of the embeddings' covariance above 0.25"),
    of_arm("norm", "parameters", "norm of all parameters"),
    of_arm("predicted_deviation", "1", "σ at the end by the law of Gaussian pairs"),
    Variable("diverged", "1", "1 where training ended in values that are not finite, else 0", (ARM,)),
)
def size(seen: Trained) -> dict:
    """Spread of the embeddings, norm of the parameters, and whether training diverged, each (m,), by name.

    deviation: root of the mean variance of an embedding's entries. dimensions_in_use: number of eigenvalues of the
    embeddings' covariance above 0.25. predicted_deviation: for the dataset gaussian_pairs alone, the deviation that
    theory predicts for the end of training.
    """
    s_x, points = seen.s_x.numpy(), seen.model.parameters
    found = {
        "deviation": representations.deviation(s_x),
        "dimensions_in_use": representations.dimensions_in_use(s_x),
        "norm": points.norm(dim=1).numpy(),
        "diverged": (~torch.isfinite(points).all(1)).double().numpy(),
    }
    if seen.study.datasets == ["gaussian_pairs"]:
        laws = [
            wide_networks.final_deviation(
                each.variance / each.invariance, seen.study.correlation, each.epsilon, each.hinge
            )
            for each in seen.criteria
        ]
        found["predicted_deviation"] = np.array(laws)
    return found


@OBSERVABLES.register(
    Trained,
    of_arm("energy_compatible", "1", "F⁺, mean energy of pairs"),
    of_arm("energy_incompatible", "1", "F⁻, mean energy of x and the y of another pair"),
    of_arm("gap", "1", "(F⁻ − F⁺) over the variance of what is predicted"),
    of_arm("unexplained", "1", "F⁺ over the variance of what is predicted"),
    of_arm("auc", "1", "AUC, probability that the energy of a pair is lower than with the y of another pair"),
    of_arm("auc_hard", "1", "the same of y whose fast angle is turned by ±π/8"),
)
def energies(seen: Trained) -> dict:
    """Mean energies of compatible and incompatible pairs, and how well energies tell these apart, each (m,), by name.

    Compatible pairs are those of the batch. An incompatible pair has the y of another pair. The result is empty for an
    autoencoder.
    """
    here, other = seen.compatible, seen.incompatible
    if here is None or other is None:
        return {}
    variance = representations.total_variance(seen.targets)
    found = {
        "energy_compatible": _finite(here.mean(1)),
        "energy_incompatible": _finite(other.mean(1)),
        "gap": representations.gap(here, other, seen.targets),
        "unexplained": np.divide(here.mean(1), variance, out=np.full(len(variance), np.nan), where=variance > 0),
        "auc": representations.auc(here, other),
    }
    return found if seen.hard is None else found | {"auc_hard": representations.auc(here, seen.hard)}


def _finite(values: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(values), values, np.nan)


@OBSERVABLES.register(
    Trained,
    of_arm("theta_r_squared", "1", "R² of (cos, sin) of ring's fast angle, by a probe of s_x"),
    of_arm("phi_r_squared", "1", "R² of (cos, sin) of ring's slow angle"),
    of_arm("detail_r_squared", "1", "R² of ring's detail u"),
    of_arm("angles_r_squared", "1", "R² of (cos, sin) of all angles of rings_<m>"),
    of_arm("place_r_squared", "1", "R² of the place in two_rooms"),
    of_arm("label_accuracy", "1", "accuracy of a probe for the image's label (of panes: the left image)"),
    of_arm("right_label_accuracy", "1", "accuracy of a probe for the label (of panes: the right image)"),
)
def probes(seen: Trained) -> dict:
    """R² or accuracy of linear probes, which predict properties of x from s_x, each (m,), by name.

    The properties are those that the world or dataset has, such as angles, a place or a label.
    """
    s_x, truth, found = seen.s_x.numpy(), seen.batch.truth, {}
    for name in ("theta", "phi"):
        if name in truth and (name == "theta" or seen.study.slow):
            found[f"{name}_r_squared"] = representations.r_squared_of_angles(s_x, truth[name])
    if "angles" in truth:
        circles = np.concatenate([np.cos(truth["angles"]), np.sin(truth["angles"])], -1)
        found["angles_r_squared"] = representations.r_squared(s_x, circles)
    for name, variable in (("u", "detail_r_squared"), ("place", "place_r_squared")):
        if name in truth:
            found[variable] = representations.r_squared(s_x, truth[name])
    for name in ("label", "right_label"):
        if name in truth:
            classes = int(truth[name].max()) + 1
            found[f"{name}_accuracy"] = representations.accuracy(s_x, truth[name], classes)
    return found


@OBSERVABLES.register(
    Trained,
    of_arm("information", "1", "I(z; c)/H(c) of the best code z and the hidden cause c"),
    of_arm("information_by_chance", "1", "the same with causes permuted among pairs"),
    of_arm("codes_in_use", "1", "effective number of codes in use, exp of the entropy of the best codes"),
)
def information(seen: Trained) -> dict:
    """Effective number of latent codes in use, and their mutual information with the hidden cause, each (m,), by name.

    The code of a pair is the best one. The hidden cause is a random variable of ring world, which turns the fast angle
    in addition to the action. The information is divided by the entropy of the cause. It is left out if there is no
    hidden cause. The result is empty if there is a single code, and for an autoencoder.
    """
    if seen.study.codes == 1 or seen.compatible is None:
        return {}
    told = seen.told()
    shares = np.stack([(told == code).mean(1) for code in range(seen.study.codes)])
    entropy = -np.sum(shares * np.log(np.where(shares > 0, shares, 1)), 0)
    # The codes of members without finite energies are meaningless.
    known = np.isfinite(seen.compatible).all(1)
    found = {"codes_in_use": np.exp(entropy)}
    if seen.study.causes > 1:
        causes = seen.batch.truth["cause"]
        found["information"] = representations.information(told, causes)
        found["information_by_chance"] = representations.information_by_chance(told, causes, stream("permuted causes"))
    return {name: np.where(known, each, np.nan) for name, each in found.items()}


@OBSERVABLES.register(
    Started,
    of_arm("start_trace_over_norm", "1", "κ = Tr(H_d)/‖H_d‖_F of the loss on a plane at the start"),
    key="curvature_examples",
)
def curvature(seen: Started) -> dict:
    """Excess positive curvature Tr(H_d)/‖H_d‖_F (m,) of the loss on a plane at the start of training.

    H_d is the Hessian on the plane. The result is empty unless the network is Siamese and the loss VICReg.
    """
    return {"start_trace_over_norm": seen.kappas()} if seen.is_known else {}
