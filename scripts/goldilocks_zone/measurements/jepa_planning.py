"""Settings of studies of joint-embedding predictors of two levels: how far they predict, and plans made with them.

This module imports nothing heavy.
"""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from goldilocks_zone.config import checks, studies
from goldilocks_zone.config.kinds import Kind, changes_no_number
from goldilocks_zone.config.models import Networks, RadiusRange, Shapes, Study
from goldilocks_zone.config.values import Count, NonNegative, Positive, Several, Unique, refuse
from goldilocks_zone.data import world_shapes
from goldilocks_zone.data.official_shapes import Shape
from goldilocks_zone.models import planner_labels
from goldilocks_zone.models.labels import FullyConnected, Network, parse_network
from goldilocks_zone.models.planner_labels import POOLED

HIDDEN = "fc-64-relu"  # its cost is the estimate for predictors and for the encoder of level 2
# PLANS: plans in an episode. PASSES: cost of a step's forward and backward pass, in forward passes. DRAWN: operations
# for each entry of the data that are drawn.
PLANS, PASSES, DRAWN = 10, 3, 100


def _planner(label: str) -> str:
    try:
        planner_labels.parse(label)
    except ValueError as error:
        refuse(str(error))
    return label


class PlanningStudy(Study, title="Study of prediction and planning on two levels"):
    """Joint-embedding predictors of two levels (H-JEPA): how far they predict, and plans made with them.

    Each draw has its own data, initial weights and episodes.
    """

    kind: Literal["jepa_planning"]
    """Kind of the study."""
    datasets: Several[Literal["ring", "two_rooms"]]
    """Worlds with actions, ring or two_rooms, sampled anew at each training step."""
    subspaces: Several[Literal["full-free"]] = Field(["full-free"])
    """Training runs in the whole space."""
    radii: Several[Positive] | RadiusRange = Field([1])
    """Factors on the initialisation of level 1."""
    radius_unit: Literal["init_scale"] = "init_scale"
    """Radii are factors on the initialisation."""
    embedding: Annotated[Count, Field(ge=2)] = 32
    """Dimension of an embedding of level 1, whose encoder is the network."""
    upper_embedding: Annotated[Count, Field(ge=2)] = 8
    """Dimension of an embedding of level 2, whose encoder fc-64-relu takes the mean of 4 successive embeddings of level
    1."""
    span: Count = 8
    """Steps of level 1 between two states of level 2, whose predictor takes the sum of their actions."""
    step_weights: Several[Positive] = Field([25])
    """Weights of the squared errors of level 1's predictions of 1, 2 and more steps, each made from the previous
    prediction."""
    variance: NonNegative = 25
    """Weight of the hinge on the embeddings' standard deviations, on both levels."""
    covariance: NonNegative = 1
    """Weight of the embeddings' covariances, on both levels."""
    batch: Annotated[Count, Field(ge=2)] = 128
    """Examples per step, sampled anew at each step."""
    rate: Positive = 0.002
    """Learning rate of Adam, which falls linearly to 0 over the last 30 % of the steps."""
    steps: Count = 800
    """Training steps of level 1."""
    upper_steps: Count = 600
    """Training steps of level 2, and of the direct predictor."""
    noise: NonNegative = 0
    """Standard deviation of the noise on ring world's fast angle in each step, in radians."""
    reach: Positive | None = None
    """Largest action in ring world, in radians; by default 1."""
    direct: bool = False
    """Whether a predictor of `span` steps at once is also trained on level 1, for comparison with level 2."""
    horizons: Unique[Count] = Field([])
    """Steps ahead at which predictions are decoded; level 2 and the direct predictor reach multiples of the span
    only."""
    examples: Annotated[Count, Field(ge=4)] = 2000
    """Fresh sequences on which predictions are measured, half of them to fit decoders."""
    planners: Unique[Annotated[str, AfterValidator(_planner)]] = Field([])
    """Planners from one of two rooms to the other. hierarchical[-random|-true][-end]: with sub-goals of level 2, random
    sub-goals, or the true dynamics on level 1. flat-<level1|level2|exact>-<free|held>-<steps>-x<calls>[-end][-true]:
    minimises the distance to the goal in embeddings of level 1 or 2 or along the exact path, with actions free or held
    for 4 steps, looking <steps> steps ahead, with <calls> times the evaluations of the hierarchical planner, optionally
    with the true dynamics. The cost is the mean over the predicted states, or that of the last one (end)."""
    same_room: Unique[str] = Field([])
    """Planners that also plan within one room."""
    starts: Count = 64
    """Starts of episodes, each with a goal."""

    @changes_no_number
    def operations(self, network: Network, shape: Shape, subspace: str, draws: int, radii: int) -> float:
        """Estimated number of operations of a job with these numbers of `draws` and `radii`.

        It counts training, predictions and plans, for an encoder `network` in a world of this `shape`.
        """
        encoder = network.forward_flops(shape.image, self.embedding)
        predictor = _flops(self.embedding + 2, self.embedding)
        above = _flops(self.embedding, self.upper_embedding) + _flops(self.upper_embedding + 2, self.upper_embedding)
        frames, pixels = 1 + len(self.step_weights), DRAWN * shape.image[-1]
        first = PASSES * frames * (encoder + predictor) + frames * pixels
        second = 2 * POOLED * encoder + 2 * PASSES * above + (POOLED + self.span) * pixels
        direct = self.direct * (2 * encoder + PASSES * predictor + self.span * pixels)
        training = self.batch * (self.steps * first + self.upper_steps * (second + direct))
        furthest = max(self.horizons, default=0)
        predicted = self.examples * furthest * (predictor + encoder + pixels)
        planned = sum(self._planned(label, encoder, predictor) for label in (*self.planners, *self.same_room))
        return draws * radii * len(studies.variants(self)) * (training + predicted + planned)

    def _planned(self, label: str, encoder: float, predictor: float) -> float:
        """Estimated number of operations of all episodes of the planner that a `label` names.

        `encoder` and `predictor` are the numbers of operations of a forward pass of these networks on one input.
        """
        planner = planner_labels.parse(label)
        each = (encoder if planner.true else 0) + predictor
        return PLANS * self.starts * planner_labels.CALLS * getattr(planner, "times", 1) * each

    @changes_no_number
    def check(self, path: str, shapes: Shapes, networks: Networks) -> None:
        """Raise ConfigurationError for settings that exclude one another or do not fit the networks and worlds.

        `path` is the study's key in the configuration, for the message. `networks` describes the networks by name.
        """
        for label in self.networks:
            if not isinstance(networks.get(label), FullyConnected):
                checks.refuse(f"{path}.networks: {label} is impossible; use an encoder fc-<widths>-<activation>")
        for i, label in enumerate(self.same_room):
            advice = f"choose from the list planners: {', '.join(self.planners) or 'none'}"
            checks.require(label in self.planners, f"{path}.same_room.{i}", label, advice)
        if self.planners and (list(self.datasets) != ["two_rooms"] or self.span != POOLED):
            checks.refuse(
                f"{path}.planners: planners act in two_rooms alone, every {POOLED} steps; set datasets: [two_rooms] "
                f"and span: {POOLED}"
            )
        if "ring" not in self.datasets and (self.noise or self.reach):
            checks.refuse(f"{path}.noise: noise and reach are options of the dataset ring alone; leave both out")
        if len(self.datasets) > 1:
            checks.refuse(
                f"{path}.datasets: a study of this kind has one dataset, because what is decoded differs between them; "
                "give each a study of its own"
            )


def _flops(inputs: int, outputs: int) -> float:
    return parse_network(HIDDEN).forward_flops((inputs,), outputs)


def observation(dataset: str) -> int:
    """Dimension of an observation in the world named `dataset`."""
    return world_shapes.known(dataset).observation


KIND = Kind(
    PlanningStudy,
    memory_mib=1500,
    seconds=5,
    speeds={"jepa_planning": 3.8e10},
    module="jepa_planning_blocks",
    draws_worlds=True,
)
