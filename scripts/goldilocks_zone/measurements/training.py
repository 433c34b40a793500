"""Settings of studies of training: on planes, on spheres or in the whole parameter space, from many radii.

Geometry means the measurements of `local_geometry` during training. This module imports nothing heavy.
"""

import itertools
from typing import Annotated, Literal

from pydantic import Field

from goldilocks_zone.config import checks, studies
from goldilocks_zone.config.kinds import Kind, changes_no_number
from goldilocks_zone.config.models import CountOrAll, DataType, Networks, Shapes, Study, Subspace
from goldilocks_zone.config.values import Amount, Count, NonNegative, Positive, Several, Unique, Varied
from goldilocks_zone.data.official_shapes import Shape
from goldilocks_zone.models.labels import Network
from goldilocks_zone.subspaces import labels as subspace_labels


class TrainingStudy(Study, title="Study of training"):
    """Training from initial parameters at many radii."""

    kind: Literal["training"]
    """Kind of the study."""
    subspaces: Several[Subspace]
    """Subspaces to which training is confined: plane-<dimension>-<kind> or sphere-<dimension>-<kind>, of kind dense,
    sparse or fastfood (structured products, a fast substitute for dense ones), or the whole space, full-free or
    full-fixed (at its radius)."""
    sphere: Literal["through_initialisation", "random"] = "through_initialisation"
    """Span of a sphere: the initialisation, where training starts, and the plane's directions; or the directions alone,
    with a random start."""
    optimiser: Varied[Literal["adam", "sgd"]] = "adam"
    """The optimiser of torch."""
    momentum: NonNegative = 0
    """Momentum of sgd."""
    epsilon: Positive = 1.0e-8
    """Adam's ε."""
    steps: Count
    """Steps of the optimiser."""
    batch: Varied[CountOrAll] = 64
    """Examples per step, or all."""
    rate: Varied[Positive] = 0.001
    """Learning rate, in units of the parameters."""
    rate_rule: Varied[Literal["fixed", "proportional", "square", "homogeneous"]] = "fixed"
    """Rates at all radii: equal, or proportional to r/r_X (the radius itself if its unit is init_scale), to its square,
    or to its power 2 − n, n the number of weight layers."""
    temperature: Varied[Positive] = 1.0
    """During training, the softmax is applied to logits / temperature."""
    temperature_rule: Varied[Literal["fixed", "homogeneous"]] = "fixed"
    """Temperatures at all radii: equal, or proportional to (r/r_X)^n, n the number of weight layers (r^n if the unit of
    radii is init_scale)."""
    gradients: Varied[Literal["loss", "random_signs"]] = "loss"
    """Gradients of the loss or, as a control, the same with a random sign on every entry at every step."""
    labels: Varied[Literal["original", "shuffled", "groups_of_two", "groups_of_five"]] = "original"
    """The training set's labels; shuffled labels as a control; or groups of two or five successive classes as
    labels."""
    inputs: Varied[Literal["standardised", "unit_interval", "minus_one_to_one", "mean_image_removed"]] = "standardised"
    """Preprocessing of the images."""
    examples: Count | None = None
    """Number of training examples, the same ones as for a Hessian over that many; absent for all."""
    evaluated: Count = 1000
    """Largest number of training examples on which loss and accuracy are logged."""
    test: Count = 10000
    """Largest number of test examples for the accuracy at the end."""
    logged: Annotated[int, Field(ge=2)] | Several[Count] = 10
    """Logged steps, in addition to start and end; a single number means that many, spaced logarithmically."""
    curvature_examples: Amount = 0
    """Training examples, and at most as many held-out examples, for the Hessian on the plane at start and end; 0 leaves
    it out."""
    sharpness_examples: Amount = 0
    """Training examples for the Hessian's largest eigenvalue in full space at every logged step; 0 leaves it out."""
    geometry_examples: Varied[Amount] = 0
    """Examples for the geometry of the loss in full space (top eigenvalues, gradients along eigenvectors, clusters of
    logit gradients), in each of three sets, two for training and one held out; 0 leaves it out."""
    geometry_steps: Unique[Amount] = Field([])
    """Logged steps at which the geometry is measured."""
    residual_steps: Unique[Amount] = Field([])
    """Steps among geometry_steps at which the extreme eigenvalues of H′ are also measured."""
    eigenvalues: Count = 20
    """Number of eigenvalues of G and of the Hessian in the geometry."""
    outputs_examples: Amount = 0
    """Held-out examples whose softmax outputs are kept at every logged step; 0 keeps none."""
    dtype: DataType = "float32"
    """Precision of training."""

    @property
    def logged_steps(self) -> list[int]:
        """Numbers of steps after which members are measured, ascending; they include 0 and the last step."""
        steps, given = self.steps, self.logged
        if not isinstance(given, list):
            given = [round(steps ** (i / (given - 1))) for i in range(given)]
        return sorted({0, *given, steps})

    @property
    def work(self) -> str:
        """Key of the speed in `Kind.speeds` that estimates of time use; full batches take less time per example."""
        return "full batch" if self.batch == "all" else self.kind

    @changes_no_number
    def operations(self, network: Network, shape: Shape, subspace: str, draws: int, radii: int) -> float:
        """Estimated number of operations of a job with these numbers of `draws` and `radii`.

        It counts training steps, logging, and spectra in full space, for a `network` on a dataset of this `shape`.
        """
        # sharpness_passes, geometry_passes: costs of sharpness and geometry, in forward passes over their examples.
        # step: cost of an optimiser's step in the whole space, in examples. share: relative cost of an example; it is
        # less on sparse planes, where weights of the first layer are not formed.
        sharpness_passes, geometry_passes, step = 60, 650, 11 * subspace.startswith("full")
        share = 0.5 if subspace.endswith("sparse") else 1
        batch = self.examples or shape.training_examples if self.batch == "all" else self.batch
        largest = max(self.vary.get("geometry_examples", [self.geometry_examples]))
        examples = 3 * self.steps * (share * batch + step) + len(self.geometry_steps) * largest * geometry_passes
        examples += len(self.logged_steps) * (self.evaluated + self.sharpness_examples * sharpness_passes)
        runs = draws * radii * len(studies.variants(self))
        return runs * network.forward_flops(shape.image, shape.classes) * examples

    @changes_no_number
    def check(self, path: str, shapes: Shapes, networks: Networks) -> None:
        """Raise ConfigurationError for too many examples or dimensions, and for unsuitable logging or geometry.

        No logged step may come after the end of training, and a study with curvature_examples needs sparse or dense
        planes. `path` is the study's key in the configuration, for the message. `shapes` and `networks` describe the
        datasets and networks by name.
        """
        last = max(self.logged_steps)
        reason = f"training ends after {self.steps} steps, so log none later"
        checks.require(last == self.steps, f"{path}.logged", last, reason)
        self._check_geometry(path)
        for i, label in enumerate(self.subspaces):
            where = subspace_labels.parse_subspace(label)
            plane = isinstance(where, subspace_labels.Plane) and where.kind in subspace_labels.PLANE_KINDS
            reason = "curvature is measured only on sparse or dense planes; use these, or leave out curvature_examples"
            checks.require(plane or not self.curvature_examples, f"{path}.subspaces.{i}", label, reason)
        for variant, (name, shape) in itertools.product(studies.variants(self), shapes.items()):
            self.model_copy(update=variant)._check_numbers(path, name, shape)
        checks.refuse_sizes(path, self, shapes, networks)

    @changes_no_number
    def _check_geometry(self, path: str) -> None:
        """Raise ConfigurationError for settings that do not fit measurements of geometry.

        Steps with geometry must be logged steps, and residual_steps must be among them. Geometry needs the
        cross-entropy, and a temperature of 1 at all radii. The error is also raised if outputs_examples is set and the
        number of classes varies. `path` is the study's key, as for `check`.
        """
        steps = {"geometry_steps": ("logged steps", self.logged_steps)}
        steps["residual_steps"] = ("geometry_steps", self.geometry_steps)
        for key, (name, known) in steps.items():
            advice = f"choose from the {name}, {', '.join(map(str, known)) or 'none'}"
            for step in getattr(self, key):
                checks.require(step in known, f"{path}.{key}", step, advice)
        if self.outputs_examples and "classes" in self.vary:
            reason = "outputs for several numbers of classes have no common axis; take classes out of vary"
            checks.refuse(f"{path}.outputs_examples: {reason}")
        if not self.geometry_examples:
            if self.geometry_steps:
                checks.refuse(f"{path}.geometry_steps: there are no geometry_examples; set their number, too")
            return
        usual = {"loss": "cross_entropy", "temperature": 1, "temperature_rule": "fixed"}
        for key, value in usual.items():
            if self.vary.get(key, [getattr(self, key)]) != [value]:
                checks.refuse(
                    f"{path}.{key}: geometry_examples needs {key}: {value}; set it, or leave geometry_examples out"
                )

    @changes_no_number
    def _check_numbers(self, path: str, name: str, shape: Shape) -> None:
        """Raise ConfigurationError if the study needs more examples than the dataset `name`, of this `shape`, has.

        The study must have a single value for each varied key. `path` is the study's key, as for `check`.
        """
        checks.refuse_examples(path, self.examples or 0, self.validation, name, shape)
        most = self.examples or shape.training_examples - self.validation
        count, held_out = self.geometry_examples, self.validation
        needed = (
            f"it needs twice as many training examples of {name}, and as many held-out ones (validation), but there "
            f"are {most} and {held_out}, so use fewer"
        )
        enough = 2 * count <= most and count <= held_out
        checks.require(enough, f"{path}.geometry_examples", count, needed)
        size = count * (self.classes or shape.classes)
        reason = f"G of {count} geometry_examples of {name} has at most {size} eigenvalues; use fewer than these"
        checks.require(not count or self.eigenvalues < size, f"{path}.eigenvalues", self.eigenvalues, reason)
        count = self.outputs_examples
        reason = f"{held_out} examples are held out (validation), so use {held_out} at most"
        checks.require(count <= held_out, f"{path}.outputs_examples", count, reason)
        asked = {key: getattr(self, key) for key in ("curvature_examples", "sharpness_examples")}
        if self.batch != "all":
            asked["vary.batch" if "batch" in self.vary else "batch"] = self.batch
        reason = f"training uses {most} examples of {name}, so use {most} at most"
        for key, count in asked.items():
            checks.require(count <= most, f"{path}.{key}", count, reason)


KIND = Kind(
    TrainingStudy,
    memory_mib=2500,
    seconds=4,
    speeds={"training": 3.6e10, "full batch": 1.5e11},
    module="training_blocks",
    priority=2,
)
