"""Settings of studies of curvature, which measure spectra of the loss Hessian on random planes at several radii.

A varied key is a setting for which the study lists several values. This module imports nothing heavy.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field

from goldilocks_zone.config import checks
from goldilocks_zone.config.kinds import Kind, changes_no_number
from goldilocks_zone.config.models import DataType, Inputs, Networks, Plane, Shapes, Study
from goldilocks_zone.config.values import Amount, Count, NonNegative, Positive, Several, Varied
from goldilocks_zone.config.weights import WeightsFiles
from goldilocks_zone.data.official_shapes import Shape
from goldilocks_zone.models.labels import HOMOGENEOUS, FullyConnected, Network
from goldilocks_zone.subspaces import labels as subspace_labels

# Varied keys whose values are points of one sweep.
SWEPT = ("rescaled", "temperature")


class CurvatureStudy(Study, title="Study of curvature"):
    """Spectra of the loss Hessian on random planes, and other measures of curvature, at several radii."""

    kind: Literal["curvature"] = "curvature"
    """Kind of the study."""
    weights: WeightsFiles | None = None
    """Files of trained weights of the study's networks, as state dictionaries of safetensors (.safetensors) or of
    torch, in place of initialisations; the entry `none` adds initialisations, and without this key there are only
    initialisations. Radii rescale the weights (in the unit init_scale, they are factors on the weights), and draws are
    draws of the planes. The files, one or a trajectory of several, become the dimension weights of the results. Its
    labels are the file names without extension, or numbers if these names are not distinct. Results depend on the
    content of the files."""
    subspaces: Several[Plane]
    """Subspace labels, plane-<dimension>-sparse or plane-<dimension>-dense. Entries of dense directions are Gaussian;
    of sparse ones, about √D of the D entries are not zero, all of one size."""
    dimensions: Several[Count] = Field([10, 50, 100])
    """Dimensions d, each at most that of the plane; the planes are nested."""
    examples: Several[Count] = Field([1000])
    """Numbers N of training examples over which the Hessian is averaged; nested and class-balanced."""
    planes: Count = 1
    """Random planes for each initialisation."""
    probes: Amount = 0
    """Random probes for the full-space trace and norm of ηHη; 0 leaves them out."""
    layer_probes: Amount = 0
    """Random probes for the trace of each layer's block of the Hessian; 0 leaves it out."""
    labels: Varied[Literal["original", "shuffled"]] = "original"
    """The training set's labels, or shuffled ones as a control."""
    example_set: Varied[Amount] = 0
    """Number of the set of examples, which are disjoint; vary it to see the spread from the choice of examples."""
    inputs: Varied[Inputs] = "standardised"
    """Preprocessing of the images; gaussian, a control, replaces them by Gaussian draws with the training set's mean
    image and pixel covariance, and keeps the labels."""
    temperature: Varied[Positive] = 1.0
    """The softmax is applied to logits / temperature."""
    rescaled: Varied[Literal["parameters", "temperature", "both"]] = "parameters"
    """Quantity that a radius r rescales: parameters; temperature, by r^−n at fixed parameters of radius 1 (r_X if the
    unit is norm), n the number of weight layers; or both, the temperature by r^n."""
    one_by_one: bool = False
    """Whether to measure every point separately, not in a sweep that shares work; slower, for tests of identities."""
    counterfactuals: bool = False
    """Whether to measure κ = Tr(H)/‖H‖ also with one factor of the Hessian frozen at radius 1; for networks with
    homogeneous logits."""
    full_gradients: bool = False
    """Whether to measure gradients of loss and logits in full space, also with the mean output forced to equal the
    class frequencies."""
    eigenvectors: Amount = 0
    """Top eigenvectors of the Hessian in full space, as images in the first layer; 0 leaves them out."""
    sharpness: Varied[NonNegative] = 0
    """Replaces each ReLU by a softplus with its kink spread over rms/sharpness, with the rms of the layer's
    pre-activations; 0 keeps ReLU."""
    dtype: DataType = "float64"
    """Precision of the tangents. Points are in double precision if the network's layers are known; otherwise, float32
    is unreliable far outside the zone."""

    @property
    def variations(self) -> dict[str, list]:
        """Lists of values by varied key. A study with files of weights has the further key `weights`: their labels."""
        return self.vary | ({"weights": [each.label for each in self.weights]} if self.weights else {})

    def at(self, variant: Mapping[str, Any]) -> Self:
        """Copy of the study for one `variant`, a mapping from varied keys to values.

        The varied keys have the values of the variant. Of the files of weights, only the one that the variant names is
        kept.
        """
        chosen = [each for each in self.weights or [] if each.label == variant.get("weights")]
        return super().at({**variant, **({"weights": chosen} if chosen else {})})

    @changes_no_number
    def check(self, path: str, shapes: Shapes, networks: Networks) -> None:
        """Raise ConfigurationError for too many examples, classes or dimensions, and for networks that do not fit.

        `path` is the study's key in the configuration, for the message. `shapes` and `networks` describe the datasets
        and networks by name.
        """
        for name, shape in shapes.items():
            checks.refuse_examples(path, max(self.examples), self.validation, name, shape)
            sets = 1 + max(self.vary.get("example_set", [self.example_set]))
            left, key = shape.training_examples - self.validation, "example_set"
            key = f"vary.{key}" if key in self.vary else key
            reason = (
                f"{sets} disjoint sets of {max(self.examples)} examples are more than the {left} of {name}; lower it"
            )
            checks.require(sets * max(self.examples) <= left, f"{path}.{key}", sets - 1, reason)
        for label in self.subspaces:
            largest, dimension = max(self.dimensions), subspace_labels.parse_plane(label).dimension
            reason = f"the plane {label} has {dimension} dimensions, so use {dimension} at most"
            checks.require(largest <= dimension, f"{path}.dimensions", largest, reason)
        for label in self.networks:
            network = networks.get(label)  # None for a user's network, whose architecture is unknown
            if self.counterfactuals:
                parts = "without biases, residual connections and normalisation, whose logits are homogeneous"
                advice = f"use a network of relu, leakyrelu or identity {parts}"
                checks.require(network and network.homogeneous, f"{path}.counterfactuals", label, advice)
            if self.eigenvectors:
                advice = "use a network fc-…, whose first layer sees whole images"
                checks.require(isinstance(network, FullyConnected), f"{path}.eigenvectors", label, advice)
        if self.counterfactuals and "parameters" not in self.vary.get("rescaled", [self.rescaled]):
            checks.refuse(
                f"{path}.counterfactuals: it needs parameters among the values of rescaled; set rescaled: parameters"
            )
        checks.refuse_sizes(path, self, shapes, networks)

    @changes_no_number
    def operations(self, network: Network, shape: Shape, subspace: str, draws: int, radii: int) -> float:
        """Estimated number of operations of a job with these numbers of `draws` and `radii`.

        It counts derivatives of the `network` along the directions of a plane (tangents), and products of tangents, on
        a dataset of this `shape`. `subspace` is the label of the plane. All radii and temperatures share the tangents
        if activations are homogeneous and there are no residual connections.
        """
        dimension = subspace_labels.parse_plane(subspace).dimension
        sizes = {key: len(values) for key, values in self.variations.items()}
        points = radii * math.prod(size for key, size in sizes.items() if key in SWEPT)
        sweeps = math.prod(size for key, size in sizes.items() if key not in SWEPT)
        shares = network.activation in HOMOGENEOUS and not getattr(network, "residual", False)
        forward = 3 * network.forward_flops(shape.image, shape.classes)
        passes = forward * (1 if shares else points) + 6 * points * shape.classes * dimension
        return draws * self.planes * sweeps * max(self.examples) * dimension * passes


KIND = Kind(CurvatureStudy, memory_mib=1000, seconds=4, speeds={"curvature": 1e11}, module="curvature_blocks")
