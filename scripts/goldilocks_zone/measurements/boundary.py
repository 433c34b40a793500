"""Settings of studies of the decision boundary.

Such a study trains networks to minima of several kinds. At each minimum, it compares the top eigenvectors of the
curvature with the normals of the decision boundary in parameter space.
This module imports nothing heavy.
"""

import math
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from goldilocks_zone.config import checks, studies
from goldilocks_zone.config.kinds import Kind, changes_no_number
from goldilocks_zone.config.models import CountOrAll, DataType, Networks, RadiusRange, Shapes, Study
from goldilocks_zone.config.values import Amount, Count, Positive, Several, Unique, refuse
from goldilocks_zone.data import planar_shapes
from goldilocks_zone.data.official_shapes import Shape
from goldilocks_zone.models.labels import FullyConnected, Network

# Costs in equivalent operations. STEP, NETWORK, SEARCH: overheads of a training step, of measuring a network, and of
# its Lanczos iterations. FORWARD: one operation of a forward pass in double precision. KERNEL, DENSE: a dense
# eigendecomposition, and the Hessian with its eigendecomposition, divided by the cube of the size. PRODUCTS, VECTORS:
# Lanczos iterations, for each operation of a forward pass over the examples, and for each parameter. STOPPED: typical
# share of the epochs after which training reaches the loss `stop_at`.
STEP, NETWORK, SEARCH, FORWARD, KERNEL, DENSE, PRODUCTS, VECTORS, STOPPED = 2e7, 2.7e9, 6e9, 0.4, 2, 4, 50, 1e5, 0.2
MINIMUM = "normal|untrained|wide_margin|(?:adversarial|large_norm)-[1-9][0-9]*"
SOFTMAX = r"permuted|uniform|(?:temperature|entropy)-[0-9]+(?:\.[0-9]+)?"


def _minimum(label: str) -> str:
    if not re.fullmatch(MINIMUM, label):
        refuse(f"{label!r} is unknown; use normal, untrained, wide_margin, adversarial-<steps> or large_norm-<steps>")
    return label


def _softmax(label: str) -> str:
    if not re.fullmatch(SOFTMAX, label) or label.endswith(("-0", "-0.0")):
        refuse(f"{label!r} is unknown; use temperature-<T>, entropy-<nats>, uniform or permuted")
    return label


def _scaling(label: str) -> str:
    if label == "none":
        return label
    if not re.fullmatch(r"[0-9.]+(-[0-9.]+)+", label) or abs(math.prod(map(float, label.split("-"))) - 1) > 1e-9:
        refuse(f"{label!r} is not valid here; use none, or a factor for each layer, with product 1, as 0.2-5-1")
    return label


class BoundaryStudy(Study, title="Study of the decision boundary"):
    """Networks at minima of several kinds, and the alignment of their curvature with their decision boundary.

    Each draw has its own data, initial weights and batches.
    """

    kind: Literal["boundary"]
    """Kind of the study."""
    datasets: Several[str]
    """Datasets sampled anew for each draw: gauss, gauss_published, circle, half_moon, half_moon_noisy, hierarchical,
    checkerboard, pie_<sections>_<classes>, stripes_<borders>_<classes>, gaps_<classes> and equal_gaps_<classes>; or
    datasets as in other studies, from which each draw takes its own examples."""
    subspaces: Several[Literal["full-free"]] = Field(["full-free"])
    """Training runs in the whole space."""
    radii: Several[Positive] | RadiusRange = Field([1])
    """Radii to which the parameters are rescaled after training."""
    radius_unit: Literal["r_X", "norm", "init_scale"] = "init_scale"
    """Unit of the radii; r_X is the norm under Glorot initialisation, norm the plain norm, init_scale a factor on the
    parameters."""
    minima: Several[Annotated[str, AfterValidator(_minimum)]] = Field(["normal"])
    """Kinds of minima: normal; untrained; adversarial-<steps>, trained after that many steps on random labels;
    large_norm-<steps>, trained from a fresh initialisation rescaled to the norm after these steps; wide_margin, trained
    from the minimum of the noisy checkerboard."""
    optimiser: Literal["adam", "sgd"] = "sgd"
    """The optimiser of torch."""
    batch: CountOrAll = 64
    """Examples per step, or all; the last batch of an epoch may be shorter."""
    rate: Positive = 0.02
    """Learning rate."""
    epochs: Several[Count] = Field([2000])
    """Epochs after which a minimum is measured."""
    stop_at: Positive | None = None
    """Training loss at which a member stops; needs batch: all."""
    random_rate: Positive = 0.002
    """Learning rate of Adam on random labels, with all examples in each step."""
    examples: Count | None = None
    """Training examples of each draw; by default the size of the dataset in the plane."""
    only_classes: Unique[Amount] = Field([])
    """Class numbers of the images to use; by default all."""
    test: Amount = 20000
    """Fresh examples for the test error; for a dataset of images, at most its test set."""
    softmax: Unique[Annotated[str, AfterValidator(_softmax)]] = Field(["temperature-1"])
    """Softmax outputs p that weight G, each with its own eigenpairs: temperature-<T>; entropy-<nats>, at the
    temperature that gives this mean entropy on the training set; uniform; or permuted, the outputs at temperature 1
    permuted among examples of the same predicted class."""
    grid: Annotated[int, Field(ge=2)] = 100
    """Nodes per axis of the grid whose edges are searched for the boundary in the plane; for images, number of pairs
    between which it is searched."""
    fine_grid: Annotated[int, Field(ge=2)] = 400
    """Nodes per axis of the grid for the boundary's length and distances."""
    eigenvectors: Count = 12
    """Number of largest eigenvalues whose eigenvectors are measured."""
    hessian_eigenvectors: Amount = 0
    """Number of largest eigenvalues of the Hessian and of G, with eigenvectors, from Lanczos iteration; 0 leaves them
    out."""
    scalings: Several[Annotated[str, AfterValidator(_scaling)]] = Field(["none"])
    """Factors on the weight layers of a minimum, such as 0.2-5-1, with product 1, or none; biases are scaled
    accordingly, so that the logits of a relu network do not change."""
    map: Amount = 0
    """Nodes per axis of maps of alignment over the box in the plane; 0 leaves them out."""
    examples_kept: Amount = 0
    """Training examples whose individual alignments are kept; 0 keeps none."""
    dtype: DataType = "float32"
    """Precision of training; measurements are in double precision."""
    explicit: Unique[DataType] = Field([])
    """Precisions in which all eigenvectors of the Hessian are computed; by default none."""
    estimate_steps: Amount = 0
    """Steps of the published margin estimate; 0 leaves it out."""

    @property
    def classes_of(self) -> int | None:
        """Number of classes that the study uses, or None if it uses all classes of a dataset."""
        return len(self.only_classes) or None

    def steps(self, examples: int) -> list[int]:
        """Numbers of training steps after which minima are measured, ascending: one for each entry of `epochs`.

        `examples` is the number of training examples, on which the number of steps in an epoch depends.
        """
        per_epoch = 1 if self.batch == "all" else math.ceil(examples / self.batch)
        return [per_epoch * epoch for epoch in sorted(self.epochs)]

    @changes_no_number
    def operations(self, network: Network, shape: Shape, subspace: str, draws: int, radii: int) -> float:
        """Estimated number of operations of a job with these numbers of `draws` and `radii`.

        The job trains copies of the `network` on a dataset of this `shape`, and measures them. Training is always in
        the whole space, so that `subspace` has no effect. The number includes overheads, which dominate for small
        networks.
        """
        examples, classes = self.examples or shape.training_examples, self.classes_of or shape.classes
        flops, parameters = network.forward_flops(shape.image, classes), network.count_parameters(shape.image, classes)
        batch = examples if self.batch == "all" else self.batch
        random = max((int(each.split("-")[1]) for each in self.minima if "-" in each), default=0)
        last = self.steps(examples)[-1] * (STOPPED if self.stop_at else 1)
        runs = sum(each != "untrained" for each in self.minima) + ("wide_margin" in self.minima)
        training = 3 * flops * draws * (last * batch * runs + random * examples)
        training += STEP * (last * (1 + ("wide_margin" in self.minima)) + random)
        each = NETWORK + FORWARD * flops * (self.test + self.fine_grid**2)
        each += KERNEL * len(self.softmax) * (examples * (classes - 1)) ** 3
        each += DENSE * len(self.explicit) * (1 + any("entropy" in label for label in self.softmax)) * parameters**3
        if self.hessian_eigenvectors:
            each += SEARCH + PRODUCTS * flops * examples + VECTORS * parameters
        networks = draws * radii * len(self.minima) * len(self.epochs) * len(self.scalings)
        return len(studies.variants(self)) * (training + networks * each)

    @changes_no_number
    def check(self, path: str, shapes: Shapes, networks: Networks) -> None:
        """Raise ConfigurationError for settings that exclude one another or do not fit the datasets.

        `path` is the study's key in the configuration, for the message. `shapes` and `networks` describe the datasets
        and networks by name.
        """
        if self.classes or "classes" in self.vary:
            checks.refuse(
                f"{path}.classes: this kind of study has no such key; name classes of images, as only_classes: [0, 1]"
            )
        no_plane = "this kind of study has no random planes"
        checks.refuse_unused(path, self, {"metric": no_plane, "bias_directions": no_plane})
        for label, network in networks.items() if self.estimate_steps else ():
            plain = isinstance(network, FullyConnected) and not network.residual and not network.normalised
            reason = "the margin is estimated only for dense layers and elementwise activations; set estimate_steps: 0"
            checks.require(plain, f"{path}.networks", label, reason)
        if self.stop_at and self.batch != "all":
            checks.refuse(f"{path}.stop_at: it needs the training loss of full batches at each step; set batch: all")
        for name, shape in shapes.items():
            if "wide_margin" in self.minima and name != "checkerboard":
                checks.refuse(
                    f"{path}.minima: wide_margin is a minimum of the checkerboard alone; leave it out for {name}"
                )
            if planar_shapes.of(name):
                if self.only_classes:
                    checks.refuse(f"{path}.only_classes: {name} is used with all of its classes; leave this key out")
                continue
            if not self.examples:
                checks.refuse(f"{path}.examples: say how many images of {name} each draw has")
            checks.refuse_examples(path, self.examples, self.validation, name, shape)
            if unknown := [each for each in self.only_classes if each >= shape.classes]:
                checks.refuse(
                    f"{path}.only_classes: {unknown[0]} is unknown; {name} has {shape.classes} classes, numbered from 0"
                )


KIND = Kind(
    BoundaryStudy,
    memory_mib=1500,
    seconds=5,
    speeds={"boundary": 2e10},
    module="boundary_blocks",
    draws_data=True,
    priority=1,
)
