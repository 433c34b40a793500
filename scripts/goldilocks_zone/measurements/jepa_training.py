"""Settings of studies of the training of joint embeddings.

Such a study compares several ways to train (arms) on pairs of observations, with or without latent variables, and
probes the embeddings. This module imports nothing heavy.
"""

from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from goldilocks_zone.config import checks, studies
from goldilocks_zone.config.kinds import Kind, changes_no_number
from goldilocks_zone.config.models import DataType, Networks, Plane, RadiusRange, Shapes, Study
from goldilocks_zone.config.values import Amount, Count, NonNegative, Number, Positive, Several, Varied
from goldilocks_zone.data import world_shapes
from goldilocks_zone.data.official_shapes import Shape
from goldilocks_zone.models.labels import FullyConnected, Network
from goldilocks_zone.subspaces.labels import parse_plane


class Arm(NamedTuple):
    """An arm of a study: one way to train.

    head: head of the network, as in `jepa.build`; predictor means no head if the study sets predictor to false.
    criterion: kind of the loss, vicreg, info_nce or pixels, or untrained. terms: 1 for each of the terms I, V and C of
    VICReg (invariance, variance, covariance) that the arm uses, else 0. shuffled: whether the y of a batch of pairs
    (x, y) are permuted for training.
    """

    head: str
    criterion: str = "vicreg"
    terms: tuple[int, int, int] = (1, 1, 1)
    shuffled: bool = False


ARMS = {
    "full": Arm("predictor"),
    "no_variance": Arm("predictor", terms=(1, 0, 1)),
    "no_covariance": Arm("predictor", terms=(1, 1, 0)),
    "neither": Arm("predictor", terms=(1, 0, 0)),
    "random": Arm("predictor", "untrained"),
    "shuffled": Arm("predictor", shuffled=True),
    "infonce": Arm("predictor", "info_nce"),
    "pixel_prediction": Arm("pixel_prediction", "pixels", (1, 0, 0)),
    "pixel_autoencoder": Arm("pixel_autoencoder", "pixels", (1, 0, 0)),
}
# Varied keys in which the members of one ensemble may differ.
OF_MEMBERS = (
    *("rate", "rate_rule", "start_deviation"),
    *("invariance", "variance", "covariance", "epsilon", "over_threshold"),
)
VIEWS = tuple(world_shapes.IMAGES)
# Costs in operations. DRAWN: for each entry of fresh data. STEP: for each step of an ensemble. MEASURED: for each pair
# that is measured. TOLD: for each hidden unit of the predictor and each of several codes. JETS: cost of jets relative
# to their products. HIDDEN: number of the predictor's hidden units.
DRAWN, STEP, MEASURED, TOLD, JETS, HIDDEN = 1500, 1.4e8, 6e5, 800, 7, 64


class JepaTrainingStudy(Study, title="Study of the training of joint embeddings"):
    """Joint embeddings that are trained in several arms, on pairs that are sampled anew at each step.

    Training is in the whole parameter space. Each draw is a training seed: it has its own initial weights and data,
    which all arms share.
    """

    kind: Literal["jepa_training"]
    """Kind of the study."""
    datasets: Several[str]
    """Worlds sampled anew for each draw and step: ring, rings_<m>, two_rooms and gaussian_pairs; or a dataset of grey
    images of 28 × 28 or 14 × 14 pixels, with views of its images."""
    subspaces: Several[Literal["full-free"]] = Field(["full-free"])
    """Training runs in the whole space."""
    radii: Several[Positive] | RadiusRange = Field([1])
    """Radii of the initialisation."""
    radius_unit: Literal["r_X", "norm", "init_scale"] = "init_scale"
    """Unit of the radii; r_X is the norm under Glorot initialisation, norm the plain norm, init_scale a factor on the
    initialisation."""
    arms: Several[Literal[tuple(ARMS)]] = Field(["full"])  # pyright: ignore[reportInvalidTypeForm]
    """Arms to train: full, VICReg; no_variance, no_covariance and neither, VICReg without V, C or both; random, the
    untrained initialisation; shuffled, VICReg on unrelated pairs; infonce; pixel_prediction and pixel_autoencoder, with
    a decoder of pixels in place of the terms."""
    embedding: Varied[Annotated[int, Field(ge=2)]] = 16
    """Dimension e of an embedding."""
    predictor: Varied[bool] = True
    """Whether s_y is predicted from s_x and the action; otherwise the network is Siamese and s_x is compared with
    s_y."""
    codes: Varied[Count] = 1
    """Number k of codes; the predictor receives the best one for each pair."""
    columns: Varied[Amount] = 0
    """Columns q of a linear latent B z that is added to the prediction."""
    free: Varied[bool] = False
    """Whether B is learnt; otherwise it stays orthonormal."""
    penalty: Varied[NonNegative] = 0
    """Weight β of |z|² in the energy."""
    soft_minimum: Several[Positive] = Field([2, 30], min_length=2, max_length=2)
    """β of the soft minimum over codes, at the start and from 60 % of the steps on; from 70 % on, the minimum itself is
    used."""
    schedule: Varied[Literal["linear", "geometric"]] = "linear"
    """Growth of β between the two values: by equal steps or by equal factors."""
    invariance: Varied[Positive] = 25
    """Weight λ of the squared error."""
    variance: Varied[NonNegative] = 25
    """Weight μ of the hinge on the embeddings' standard deviations."""
    covariance: Varied[NonNegative] = 1
    """Weight ν of the embeddings' covariances."""
    epsilon: Varied[Positive] = 0.0001
    """ε in the standard deviations √(v + ε)."""
    over_threshold: Varied[Positive | None] = None
    """For gaussian_pairs: replaces variance by this multiple of the weight below which a collapsed encoder is a
    minimum."""
    group: Varied[Annotated[int, Field(ge=2)] | None] = None
    """Size of the groups into which batches are cut for variances, covariances and negatives; by default the whole
    batch."""
    similarity: Varied[Literal["distance", "dot"]] = "distance"
    """Similarity in the logits of infonce."""
    temperature: Varied[Positive] = 1.0
    """Temperature of infonce."""
    views: Varied[Literal[VIEWS] | None] = None  # pyright: ignore[reportInvalidTypeForm]
    """Views of a dataset of images: panes, two images side by side, with a new right image each time; shift_1 and
    shift_2, shifted by up to 1 or 2 pixels; or noise."""
    noise: Varied[NonNegative] = 0
    """Standard deviation of the noise on ring's fast angle in each step, in radians."""
    slow: Varied[bool] = True
    """Whether ring has its slow angle."""
    frozen: Varied[bool] = False
    """Whether the detail of ring stays the same in both frames."""
    causes: Varied[Count] = 1
    """Values K of the hidden cause of ring; 1 for none."""
    cause_step: Varied[Positive] = 1.6
    """Angle b between two values of the cause, in radians."""
    reach: Varied[Positive | None] = None
    """Largest action of ring, in radians; by default 1, or .5 with a hidden cause."""
    amplitude: Varied[NonNegative] = 1
    """Amplitude A of ring's detail."""
    correlation: Varied[Annotated[Number, Field(ge=0, lt=1)]] = 0.5
    """Correlation c of gaussian_pairs."""
    gauge: Varied[Positive] = 1
    """Factor α on the initial parameters, as a check: criteria and Adam are rescaled so that training takes the same
    path. For VICReg and Siamese networks without biases."""
    rate: Varied[Positive] = 0.002
    """Learning rate of Adam."""
    rate_rule: Varied[Literal["fixed", "proportional"]] = "fixed"
    """Rates at all radii: equal, or proportional to r/r_X (the radius itself if its unit is init_scale)."""
    start_deviation: Varied[Positive | None] = None
    """Replaces the radius by the one at which embeddings have this standard deviation σ; for homogeneous networks
    only."""
    decay: Annotated[Number, Field(ge=0, le=1)] = 0.3
    """Final share of the steps, over which the rate falls linearly to 0."""
    steps: Count = 600
    """Steps of the optimiser."""
    batch: Annotated[int, Field(ge=2)] = 128
    """Fresh pairs per step."""
    test: Annotated[int, Field(ge=8)] = 2000
    """Fresh pairs for measurements; half of them fit the probes."""
    curvature_examples: Amount = 0
    """Pairs for the Hessian of the loss on a plane at the start, for Siamese networks without biases; 0 leaves it
    out."""
    curvature_plane: Plane = "plane-50-dense"
    """Label of the plane for this Hessian."""
    dtype: DataType = "float32"
    """Precision of training."""

    @changes_no_number
    def operations(self, network: Network, shape: Shape, subspace: str, draws: int, radii: int) -> float:
        """Estimated number of operations of a job with these numbers of `draws` and `radii`.

        It counts training steps and measurements of all members, and the sampling of fresh data of this `shape`.
        `network` is the encoder. Arms with the same head and criterion share the data.
        """
        apart, together = studies.split(self, OF_MEMBERS)
        found = 0.0
        for variant in apart:
            study = self.model_copy(update=variant)
            observation = study._observation(shape)
            for arms in groups(study):
                members = draws * radii * len(together) * len(arms)
                untrained = ARMS[arms[0]].criterion == "untrained"
                row, head = study._of_pair(network, observation, ARMS[arms[0]])
                if not untrained:
                    drawn = DRAWN * draws * study.batch * 2 * observation
                    found += study.steps * (members * study.batch * (row + head) + drawn + STEP)
                # Ring world has hard pairs and most probes.
                found += draws * self._of_curvature(network, observation) * (not untrained)
                measured = MEASURED * (1 if "ring" in self.datasets else 0.5)
                found += members * study.test * (row + head + measured)
        return found

    def _of_curvature(self, network: Network, observation: int) -> float:
        """Estimated number of operations to compute the Hessian on a plane at the initialisation of one draw.

        It is 0 if the study does not measure this Hessian. `observation` is the number of entries of an observation.
        """
        if not self.curvature_examples:
            return 0.0
        d, shapes = parse_plane(self.curvature_plane).dimension, network.weight_shapes((observation,), self.embedding)
        crossed = sum(4 * self.embedding * n_in * (n_out + d) for n_out, n_in in shapes[1:])
        pushed = 4 * network.forward_flops((observation,), self.embedding)
        return JETS * self.curvature_examples * d * (crossed + pushed)

    def _observation(self, shape: Shape) -> int:
        if self.views:
            return world_shapes.of_views(self.views).observation
        channels, height, width = shape.image
        return channels * height * width

    def _of_pair(self, network: Network, observation: int, arm: Arm) -> tuple[float, float]:
        """Estimated numbers of operations for one pair in a training step of an `arm`: of the encoder, and of the head.

        `observation` is the number of entries of an observation.
        """
        flops = network.forward_flops((1, 1, observation), self.embedding)
        # Forward and backward passes of both branches; pixel losses backpropagate through the branch of x alone.
        encoder = (4 if "pixel" in arm.head else 6) * flops
        if arm.head == "predictor" and not self.predictor:
            return encoder, 0
        predictor = self.codes * (3 * 2 * 2 * self.embedding * HIDDEN + TOLD * HIDDEN * (self.codes > 1))
        return encoder, predictor + ("pixel" in arm.head) * self.codes * 3 * flops

    @changes_no_number
    def check(self, path: str, shapes: Shapes, networks: Networks) -> None:
        """Raise ConfigurationError for settings that exclude one another or do not fit the networks and datasets.

        `path` is the study's key in the configuration, for the message. `shapes` and `networks` describe the datasets
        and networks by name.
        """
        checks.refuse_unused(path, self, {"loss": "arms have losses of their own", "classes": "pairs have no classes"})
        for label in self.networks:
            if not isinstance(networks.get(label), FullyConnected):
                checks.refuse(f"{path}.networks: {label} is impossible; use an encoder fc-<widths>-<activation>")
            if not networks[label].homogeneous and any(self.vary.get("start_deviation", [self.start_deviation])):
                checks.refuse(
                    f"{path}.start_deviation: embeddings of {label} do not scale with its parameters; use a network "
                    "fc-…-relu-nobias"
                )
            if self.curvature_examples and not (networks[label].homogeneous and networks[label].activation == "relu"):
                checks.refuse(
                    f"{path}.curvature_examples: the Hessian of {label} cannot be computed; use a network "
                    "fc-…-relu-nobias"
                )
            if not networks[label].homogeneous and any(each != 1 for each in self.vary.get("gauge", [self.gauge])):
                checks.refuse(
                    f"{path}.gauge: outputs of {label} do not scale with its parameters; use fc-…-relu-nobias"
                )
        for variant in studies.variants(self):
            self.model_copy(update=variant)._check_one(path, shapes)

    @changes_no_number
    def _check_one(self, path: str, shapes: Shapes) -> None:
        """Raise ConfigurationError as `check` does, for a study that has a single value for each varied key."""
        for name, shape in shapes.items():
            if world_shapes.of(name):
                if self.views:
                    checks.refuse(f"{path}.views: {name} has pairs of frames, and no views; leave this key out")
            elif not self.views:
                checks.refuse(f"{path}.views: say which views of an image of {name} form a pair: {', '.join(VIEWS)}")
            elif shape.image not in ((1, 28, 28), (1, 14, 14)):
                checks.refuse(f"{path}.datasets: {name} has no grey images of 28 × 28 or 14 × 14 pixels; use another")
            if self.over_threshold and name != "gaussian_pairs":
                reason = f"the threshold of collapse is known for the dataset gaussian_pairs, and not for {name}"
                checks.refuse(f"{path}.over_threshold: {reason}; leave this key out")
        if self.curvature_examples and self.predictor:
            checks.refuse(
                f"{path}.curvature_examples: the Hessian is measured only for Siamese networks, which have no "
                "predictor; set predictor: false"
            )
        if self.curvature_examples % (self.group or 1) or self.curvature_examples == 1:
            checks.refuse(
                f"{path}.curvature_examples: {self.curvature_examples} is impossible; use a multiple of group, from 2 "
                "on"
            )
        if self.gauge != 1 and (self.predictor or any(ARMS[arm].criterion != "vicreg" for arm in self.arms)):
            checks.refuse(
                f"{path}.gauge: it needs Siamese networks and arms of VICReg; set predictor: false, and leave other "
                "arms out"
            )
        if self.group and self.batch % self.group:
            checks.refuse(f"{path}.group: {self.group} is impossible; it must divide the batch of {self.batch}")
        if self.columns > self.embedding:
            checks.refuse(
                f"{path}.columns: {self.columns} is impossible; an embedding has {self.embedding} numbers, so use "
                f"{self.embedding} at most"
            )
        if (self.columns or self.penalty) and self.codes > 1:
            checks.refuse(
                f"{path}.codes: a latent variable is discrete (codes) or linear (columns and penalty), not both; leave "
                "out one of these"
            )
        heads = {ARMS[arm].head for arm in self.arms}
        if (self.codes > 1 or self.columns) and not (self.predictor or heads == {"pixel_prediction"}):
            checks.refuse(
                f"{path}.predictor: latent variables need a predictor; set predictor: true, or leave out codes and "
                "columns"
            )
        if self.columns and "pixel_prediction" in self.arms:
            checks.refuse(
                f"{path}.columns: the arm pixel_prediction has no linear latent; leave out this arm or columns"
            )
        if "infonce" in self.arms and (self.codes > 1 or self.penalty):
            checks.refuse(f"{path}.arms: infonce has no latent variables; leave out this arm, or codes and penalty")


def groups(study: JepaTrainingStudy) -> list[list[str]]:
    """Group a study's arms by head and criterion: arms in one of the returned lists can train in one ensemble."""
    found: dict[tuple, list[str]] = {}
    for arm in study.arms:
        found.setdefault((ARMS[arm].head, ARMS[arm].criterion), []).append(arm)
    return list(found.values())


KIND = Kind(
    JepaTrainingStudy,
    memory_mib=2000,
    seconds=5,
    speeds={"jepa_training": 7e10},
    priority=1,
    module="jepa_training_blocks",
    draws_worlds=True,
)
