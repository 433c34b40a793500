"""Worlds that generate sequences of frames, drawn anew for each training seed and step, for joint embeddings.

A world has a state in each frame; the frame is an observation of this state. Random streams are named by a seed, the
world, a purpose, a member (a training seed) and a step. The random numbers of a batch thus depend neither on earlier
batches nor on the options of a world, such as the strength of its noise. Letters: m members, n examples, t frames, p
entries of an observation, a features of an action. Angles are in radians. Arrays are float32.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np

from goldilocks_zone.data import world_shapes
from goldilocks_zone.randomness import stream

Arrays = dict[str, np.ndarray]
SHARPNESS, DEVIATION = 3.0, 0.33  # of the bump on a ring; standard deviation of its pixels over all angles
MEAN = float(np.exp(-SHARPNESS) * np.i0(SHARPNESS))  # mean of the bump over all angles
DRIFT, WANDER = 0.1, 0.05  # mean and deviation of the slow angle's change from frame to frame
SINGLE = np.float32


class World(Protocol):
    """Interface of a world, which draws random states and computes the observations of states."""

    @property
    def seed(self) -> int:
        """First part of the names of random streams."""
        ...

    @property
    def name(self) -> str:
        """Name of the world, another part of these names."""
        ...

    def drawn(self, random: np.random.Generator, count: int, frames: int) -> tuple[Arrays, Arrays]:
        """Draw the states of `count` sequences of `frames` frames.

        Returns two dictionaries of arrays by name: the states of the frames, (n, t, …), and the variables between
        successive frames, such as actions, (n, t − 1, …).
        """
        ...

    def seen(self, states: Arrays) -> np.ndarray:
        """Observations (…, p) of `states`, arrays by name with any leading axes; no random numbers are drawn."""
        ...


class Acting(World, Protocol):
    """Interface of a world with actions, which are among the variables between frames."""

    def features(self, between: Arrays) -> np.ndarray:
        """Features (…, a) of the actions `between` frames."""
        ...


@dataclass(frozen=True)
class Batch:
    """Pairs of frames: their observations x and y (m, n, p), and the features of an `action` (m, n, a).

    truth: states and variables that generated the pairs, arrays (m, n, …) by name. States of x have their own names,
    and states of y the names <name>_next. The action and the variables between frames are those directly after x.
    """

    x: np.ndarray
    y: np.ndarray
    action: np.ndarray
    truth: Arrays


@dataclass(frozen=True)
class Frames:
    """Sequences of frames: observations `seen` (m, n, t, p), and features of the actions between them (m, n, t − 1, a).

    states: states of the frames, arrays (m, n, t, …) by name. between: variables between successive frames,
    arrays (m, n, t − 1, …) by name.
    """

    seen: np.ndarray
    actions: np.ndarray
    states: Arrays
    between: Arrays

    def pairs(self, first: int = 0, second: int = 1) -> Batch:
        """Pairs of the frames with indices `first` and `second`.

        The action and the variables between frames are those directly after `first`.
        """
        truth = {name: values[:, :, first] for name, values in self.states.items()}
        truth |= {f"{name}_next": values[:, :, second] for name, values in self.states.items()}
        truth |= {name: values[:, :, first] for name, values in self.between.items()}
        return Batch(self.seen[:, :, first], self.seen[:, :, second], self.actions[:, :, first], truth)


def frames(world: World, members: Sequence[int], step: int, size: tuple[int, int], purpose: str = "training") -> Frames:
    """Draw sequences of frames for each of the `members`, which are training seeds, at a training `step`.

    `size` is (number of sequences, number of frames in each). Each `purpose` has its own random streams.
    """
    streams = (stream(world.seed, "world", world.name, purpose, member, step) for member in members)
    states, between = zip(*(world.drawn(each, *size) for each in streams))
    seen = _seen_alone(world, states)
    states, between = _stacked(states), _stacked(between)
    nothing = np.empty((*seen.shape[:2], size[1] - 1, 0), SINGLE)
    # Only worlds with actions have variables between frames.
    return Frames(seen, cast("Acting", world).features(between) if between else nothing, states, between)


def batch(world: World, members: Sequence[int], step: int, count: int, purpose: str = "training") -> Batch:
    """Draw `count` pairs of successive frames for each member at a training step, as in `frames`."""
    return frames(world, members, step, (count, 2), purpose).pairs()


def _seen_alone(world: World, members: Sequence[Arrays]) -> np.ndarray:
    """Observations (m, n, …, p) of the states of m members, computed for one member after another.

    `members` lists a dictionary of states for each member. They are not stacked, because the last digits of a matrix
    product can depend on its number of rows. The results of a member must not depend on which other members share its
    job.
    """
    return np.stack([world.seen(states) for states in members])


def _stacked(parts: Sequence[Arrays]) -> Arrays:
    return {name: np.stack([part[name] for part in parts]) for name in parts[0]}


@dataclass(frozen=True)
class Ring:
    """Ring world: a fast angle θ that actions turn, a slow angle φ, and detail u that is fresh in each frame.

    In the next frame, the angles are θ′ = θ + a + (c − (K − 1)/2) b + N(0, noise²) and φ′ = φ + .1 + N(0, .05²). The
    action a is uniform in [−reach, reach]. The hidden cause c is uniform over 0, …, K − 1 and fresh at each step. In
    each frame, u has 8 independent entries N(0, 1).
    An observation has 72 pixels. For each angle, 24 pixels at the angles g show a bump exp(3(cos(θ − g) − 1)), minus
    its mean and divided by .33. The last 24 pixels show amplitude · Mu, where M has random entries N(0, 1/8). Finally,
    a rotation mixes all 72 pixels. M and the rotation depend on the seed and are the same for all members.

    States: theta (…), phi (…), u (…, 8). Variables between frames: action (…), which is a, and cause (…), which is c.

    noise: standard deviation of the noise that each step adds to θ, in radians.
    slow: whether φ is observed; otherwise its pixels are 0 before the rotation.
    frozen: whether u stays the same in all frames of a sequence.
    causes: the number K of causes; 1 means no hidden cause. cause_step: b, in radians.
    amplitude: standard deviation of the detail's pixels.
    reach: largest action in radians; by default 1, or .5 with a hidden cause.
    """

    seed: int
    noise: float = 0.0
    slow: bool = True
    frozen: bool = False
    causes: int = 1
    cause_step: float = np.pi / 2
    amplitude: float = 1.0
    reach: float | None = None
    name = "ring"

    def drawn(self, random: np.random.Generator, count: int, frames: int) -> tuple[Arrays, Arrays]:
        """Draw the states (n, t, …) of `count` sequences of `frames` frames, and actions and causes (n, t − 1)."""
        steps = count, frames - 1
        start = 2 * np.pi * random.random((2, count), SINGLE)
        uniform = random.random((2, *steps), SINGLE)
        normal = random.standard_normal((2, *steps), SINGLE)
        u = random.standard_normal((count, frames, world_shapes.DETAIL), SINGLE)
        action = self._reach * (2 * uniform[0] - 1)
        # Rounding must not give the value K.
        cause = np.minimum((self.causes * uniform[1]).astype(np.int64), self.causes - 1)
        turns = action + SINGLE(self.cause_step) * (cause - SINGLE((self.causes - 1) / 2)) + self.noise * normal[0]
        states = {
            "theta": _walk(start[0], turns),
            "phi": _walk(start[1], DRIFT + WANDER * normal[1]),
            "u": np.repeat(u[:, :1], frames, 1) if self.frozen else u,
        }
        return states, {"action": action, "cause": cause}

    def seen(self, states: Arrays) -> np.ndarray:
        """Observations (…, 72) of states."""
        shape, half = states["theta"].shape, world_shapes.RING
        parts = np.empty((states["theta"].size, 2 * half + world_shapes.DETAIL), SINGLE)
        _bumps(states["theta"], half, parts[:, :half])
        _bumps(states["phi"], half, parts[:, half : 2 * half])
        parts[:, 2 * half :] = states["u"].reshape(-1, world_shapes.DETAIL)
        matrix, mean = _ring_pixels(self.seed, self.slow, self.amplitude)
        pixels = parts @ matrix
        pixels -= mean
        return pixels.reshape(*shape, -1)

    def features(self, between: Arrays) -> np.ndarray:
        """Features (…, 2) of actions a: sin a and cos a − 1."""
        return np.stack([np.sin(between["action"]), np.cos(between["action"]) - 1], -1)

    def turned(self, batch: Batch, by: float, purpose: str = "hard pairs") -> np.ndarray:
        """Observations (m, n, p) of the frames y of a `batch`, but with the angle θ changed by +`by` or −`by` radians.

        The changed frames are incompatible with x. The sign is random for each frame, and `purpose` names the random
        stream of the signs. All m members have the same signs, so that a member's frames do not depend on which other
        members share the batch.
        """
        signs = stream(self.seed, "world", self.name, purpose).integers(0, 2, batch.truth["theta_next"].shape[1:])
        states = {name: batch.truth[f"{name}_next"] for name in ("theta", "phi", "u")}
        states["theta"] = states["theta"] + SINGLE(by) * (2 * signs - 1).astype(SINGLE)
        return _seen_alone(self, [dict(zip(states, each)) for each in zip(*states.values())])

    def predictable(self, horizon: int = 1) -> dict[str, float]:
        """R² of the best prediction of (cos, sin) of each angle, `horizon` steps ahead, from the state and all actions.

        Returns R² by the names theta and phi; without `slow`, R² of φ is NaN. A step adds a random δ to the angle,
        which is distributed symmetrically around its mean. The best prediction of e^{iθ′} therefore has the modulus
        ρ = |E e^{iδ}|. As angles are uniform, R² is ρ² for one step and ρ^{2h} for h steps.
        """
        shifts = self.cause_step * (np.arange(self.causes) - (self.causes - 1) / 2)
        length = np.mean(np.cos(shifts)) * np.exp(-(self.noise**2) / 2)
        phi = np.exp(-horizon * WANDER**2) if self.slow else np.nan
        return {"theta": float(length ** (2 * horizon)), "phi": float(phi)}

    @property
    def _reach(self) -> np.float32:
        usual = 0.5 if self.causes > 1 else 1.0
        return SINGLE(usual if self.reach is None else self.reach)


@dataclass(frozen=True)
class Rings:
    """World of several rings of 12 pixels each, which show independent, uniformly random angles.

    In later frames of a sequence, N(0, jitter²) is added to each angle of the first frame. The first two frames are the
    two views of a pair. Each ring shows a bump as in `Ring`, and a rotation that depends on the seed mixes all pixels.
    State: angles (…, `rings`). There are no actions.
    """

    seed: int
    rings: int
    jitter: float = 0.1

    @property
    def name(self) -> str:
        """Name of the dataset, rings_<m>."""
        return f"rings_{self.rings}"

    def drawn(self, random: np.random.Generator, count: int, frames: int) -> tuple[Arrays, Arrays]:
        """Draw the angles (`count`, `frames`, `rings`) of sequences; the second dictionary, of actions, is empty.

        In later frames, each angle is that of the first frame plus independent Gaussian jitter.
        """
        angles = 2 * np.pi * random.random((count, 1, self.rings), SINGLE)
        jitter = random.standard_normal((count, frames - 1, self.rings), SINGLE)
        return {"angles": np.concatenate([angles, angles + SINGLE(self.jitter) * jitter], 1)}, {}

    def seen(self, states: Arrays) -> np.ndarray:
        """Observations (…, 12 · `rings`) of states."""
        angles = states["angles"]
        bumps = np.empty((angles.size, world_shapes.RINGS), SINGLE)
        _bumps(angles, world_shapes.RINGS, bumps)
        bumps -= SINGLE(MEAN)
        rotation = _rotation(self.seed, self.name, self.rings * world_shapes.RINGS) / DEVIATION
        return bumps.reshape(*angles.shape[:-1], -1) @ rotation.astype(SINGLE)


@dataclass(frozen=True)
class GaussianPairs:
    """Correlated Gaussian vectors: x with 20 entries N(0, 1), and x′ = c x + √(1 − c²) ξ, with ξ distributed like x.

    c is the `correlation`. In a sequence of frames, each vector follows in this way from the vector before it. State:
    x (…, 20). There are no actions.
    """

    seed: int
    correlation: float
    name = "gaussian_pairs"

    def drawn(self, random: np.random.Generator, count: int, frames: int) -> tuple[Arrays, Arrays]:
        """Draw the vectors x (`count`, `frames`, 20) of sequences; the second dictionary, of actions, is empty."""
        x = random.standard_normal((count, frames, world_shapes.PAIRS), SINGLE)
        for t in range(1, frames):
            x[:, t] = self.correlation * x[:, t - 1] + np.sqrt(1 - self.correlation**2) * x[:, t]
        return {"x": x}, {}

    def seen(self, states: Arrays) -> np.ndarray:
        """Observations (…, 20) of states, which are the vectors x themselves."""
        return states["x"]

    @property
    def information(self) -> float:
        """Mutual information of x and x′, in nats."""
        return float(-world_shapes.PAIRS / 2 * np.log1p(-(self.correlation**2)))


def _walk(start: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Positions (n, t) of a walk from `start` (n,) by `steps` (n, t − 1)."""
    return np.concatenate([start[:, None], start[:, None] + np.cumsum(steps, 1, dtype=SINGLE)], 1, dtype=SINGLE)


def _bumps(angles: np.ndarray, pixels: int, out: np.ndarray) -> None:
    """Write bumps exp(3(cos(θ − g) − 1)) of `angles` θ (any shape) to `out` (number of angles, `pixels`).

    The angles g of the pixels are equally spaced.
    """
    places = 2 * np.pi * np.arange(pixels) / pixels
    # The angle difference identity needs one cosine per angle instead of one per pixel.
    waves = SHARPNESS * np.stack([np.cos(places), np.sin(places), -np.ones(pixels)]).astype(SINGLE)
    flat = angles.reshape(-1)
    parts = np.stack([np.cos(flat), np.sin(flat), np.ones_like(flat)], 1)
    np.exp(parts @ waves, out=out)


@functools.cache
def _rotation(seed: int, world: str, size: int) -> np.ndarray:
    """Random orthogonal matrix (size, size), uniformly distributed, that mixes the pixels of a `world`.

    It depends on `seed`, `world` and `size` only.
    """
    q, r = np.linalg.qr(stream(seed, "world", world, "rotation").standard_normal((size, size)))
    return q * np.sign(np.diag(r))


@functools.lru_cache(maxsize=16)
def _ring_pixels(seed: int, slow: bool, amplitude: float) -> tuple[np.ndarray, np.ndarray]:
    """Matrix (2 · 24 + 8, 72) from the bumps and the detail u of a `Ring` to observations, and an offset (72,).

    The offset must be subtracted from the observations. It is the contribution of the bumps' mean. `seed`, `slow` and
    `amplitude` are those of the `Ring`.
    """
    ring = world_shapes.RING
    rotation = _rotation(seed, "ring", 3 * ring)
    detail = stream(seed, "world", "ring", "detail").standard_normal((ring, world_shapes.DETAIL))
    bumps = rotation[: 2 * ring] / DEVIATION
    if not slow:
        bumps[ring:] = 0
    matrix = np.concatenate([bumps, amplitude / np.sqrt(world_shapes.DETAIL) * detail.T @ rotation[2 * ring :]])
    return matrix.astype(SINGLE), (MEAN * bumps.sum(0)).astype(SINGLE)
