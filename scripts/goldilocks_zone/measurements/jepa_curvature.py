"""Settings of studies of the curvature of joint-embedding losses on pairs of views of images.

Along a ray of initial parameters, the zone's edge is the radius where the trace of the Hessian changes its sign. This
module imports nothing heavy.
"""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from goldilocks_zone.config import checks, studies
from goldilocks_zone.config.kinds import Kind, changes_no_number
from goldilocks_zone.config.models import Networks, Plane, RadiusRange, Shapes, Study
from goldilocks_zone.config.values import Amount, Count, Positive, Several, Unique, Varied, refuse
from goldilocks_zone.data import world_shapes
from goldilocks_zone.data.official_shapes import Shape
from goldilocks_zone.models.labels import FullyConnected, Network
from goldilocks_zone.subspaces import labels as subspace_labels

CRITERION = r"vicreg(-[0-9]+(\.[0-9]+)?)?|invariance|variance|covariance|info_nce-(dot|distance)(-both)?|cross_entropy"
IMAGE = (1, world_shapes.SIDE, world_shapes.SIDE)
# SOFTMAX: operations of the softmaxes of InfoNCE, for each two examples of a batch and each direction. EVALUATIONS: of
# these softmaxes to find an edge. PASSES: cost of automatic differentiation for each radius and criterion, relative to
# that of the tangents. OVERHEAD: further operations for each ray.
SOFTMAX, EVALUATIONS, PASSES, OVERHEAD = 2e2, 40, 2, 1e10


def _criterion(label: str) -> str:
    if not re.fullmatch(CRITERION, label) or float(label.partition("vicreg-")[2] or 1) == 0:
        refuse(
            f"{label!r} is unknown; use vicreg, vicreg-<μ/λ>, invariance, variance, covariance, info_nce-dot[-both], "
            "info_nce-distance[-both] or cross_entropy"
        )
    return label


Criterion = Annotated[str, AfterValidator(_criterion)]


class JepaCurvatureStudy(Study, title="Study of the curvature of joint embeddings"):
    """Curvature of joint-embedding losses on random planes, at several radii of an encoder's initial parameters.

    Each draw has its own pairs of views, initial weights and plane.
    """

    kind: Literal["jepa_curvature"]
    """Kind of the study."""
    subspaces: Several[Plane]
    """Subspace labels, plane-<dimension>-sparse or plane-<dimension>-dense."""
    radii: Several[Positive] | RadiusRange
    """Radii in units of r_X."""
    radius_unit: Literal["r_X"] = "r_X"
    """Unit of the radii."""
    views: Varied[Literal["shift_2", "shift_1", "noise", "shuffled"]] = "shift_2"
    """The two views of an image of 14 × 14 pixels: shifted by up to 2 or 1 pixels, each with noise of standard
    deviation 0.5, or the views of shift_2 permuted among the pairs."""
    examples: Several[Count] = Field([256])
    """Numbers N of pairs in the batch; nested."""
    embedding: Annotated[int, Field(ge=2)] = 16
    """Number e of the encoder's outputs."""
    predictor: Varied[bool] = False
    """Whether a predictor Pred(s) = s + MLP(s) predicts the second embedding from the first; otherwise, the first
    embedding itself is the prediction."""
    invariance: Positive = 25
    """Weight λ of the invariance I."""
    variance: Positive = 25
    """Weight μ of the variance hinge V."""
    covariance: Positive = 1
    """Weight ν of the covariance C."""
    epsilon: Varied[Positive] = 1e-4
    """ε in the deviations √(v + ε)."""
    criteria: Unique[Criterion] = Field(["vicreg"])
    """Losses whose curvature is measured at every radius: vicreg, or vicreg-<μ/λ>; its terms invariance, variance and
    covariance; info_nce-dot[-both] or info_nce-distance[-both], on dot products or distances, in one direction or both;
    cross_entropy of the first outputs."""
    edges: Unique[Criterion] = Field([])
    """Losses whose edges, where the trace changes sign, are measured on the plane and on a plane in the last layer."""
    collapse: bool = False
    """Whether to measure the Hessian of the last layer where this layer is zero, for losses of `edges` that have a
    closed form of it."""
    layer_probes: Amount = 0
    """Random probes for the trace of each layer's block of the Hessian; 0 leaves it out."""
    checked_directions: Amount = 0
    """Directions on which the Hessian is compared with automatic differentiation; 0 leaves it out."""

    @changes_no_number
    def check(self, path: str, shapes: Shapes, networks: Networks) -> None:
        """Raise ConfigurationError for networks, planes, images or losses that do not fit the study.

        `path` is the study's key in the configuration, for the message. `shapes` and `networks` describe the datasets
        and networks by name.
        """
        for name, shape in shapes.items():
            if shape.image not in (IMAGE, (1, 2 * IMAGE[1], 2 * IMAGE[2])):
                size = "14 × 14 or 28 × 28 pixels and one channel"
                checks.refuse(f"{path}.datasets: {name} is impossible; views need images of {size}")
            if "cross_entropy" in (*self.criteria, *self.edges) and shape.classes > self.embedding:
                reason = f"the cross-entropy of {shape.classes} classes needs {shape.classes} outputs at least"
                checks.refuse(f"{path}.embedding: {self.embedding} is impossible; {reason}")
        if self.classes or "classes" in self.vary:
            key = "vary.classes" if "classes" in self.vary else "classes"
            checks.refuse(f"{path}.{key}: studies of this kind use images of all classes; leave this key out")
        for label in self.networks:
            network = networks.get(label)
            if not isinstance(network, FullyConnected):
                checks.refuse(f"{path}.networks: {label} is impossible; use an encoder fc-<widths>-<activation>")
            self._check_network(path, label, network)

    def _check_network(self, path: str, label: str, network: FullyConnected) -> None:
        wanted = [key for key in ("edges", "collapse", "layer_probes", "checked_directions") if getattr(self, key)]
        if wanted and not (network.homogeneous and network.activation == "relu"):
            advice = f"in place of {label}, use a network fc-…-relu-nobias"
            checks.refuse(f"{path}.{wanted[0]}: this key needs homogeneous outputs; {advice}")
        if wanted and self.predictor:
            checks.refuse(f"{path}.{wanted[0]}: this key needs homogeneous outputs; set predictor: false")
        last = network.weight_shapes(IMAGE, self.embedding)[-1]
        for subspace in self.subspaces:
            dimension, most = subspace_labels.parse_plane(subspace).dimension, last[0] * last[1]
            if dimension > most:
                checks.refuse(
                    f"{path}.subspaces: {subspace} is impossible; the last layer of {label} has {most} weights, so use "
                    f"{most} dimensions at most"
                )

    @changes_no_number
    def operations(self, network: Network, shape: Shape, subspace: str, draws: int, radii: int) -> float:
        """Estimated number of operations of a job with these numbers of `draws` and `radii`.

        It counts the losses, and the first and second derivatives of the `network` along a plane. `subspace` is the
        label of this plane.
        """
        d, counts = subspace_labels.parse_plane(subspace).dimension, self.examples
        n, e = sum(counts), self.embedding
        shapes, flops = network.weight_shapes(IMAGE, e), network.forward_flops(IMAGE, e)
        pushed, losses = 4 * n * d * flops, len(self.criteria)
        if network.homogeneous and network.activation == "relu" and not self.predictor:
            whole = pushed + sum(4 * n * d * e * i * (o + d) for o, i in shapes[1:])
            whole += 4 * n * e * d**2 * radii * losses
        else:
            whole = pushed * radii * (1 + PASSES * losses)
        whole += 4 * n * e * d * (d + radii * (1 + e)) * losses
        pairs = d * sum(count**2 for count in counts)
        curves = sum("info" in each for each in self.criteria) * radii
        whole += SOFTMAX * pairs * (curves + EVALUATIONS * sum("info" in each for each in self.edges))
        whole += 4 * n * self.layer_probes * len(shapes) * (flops + e * (self.layer_probes + radii * (1 + e)) * losses)
        whole += pushed * self.checked_directions / d * radii * PASSES * losses
        rays = len(studies.variants(self)) * draws
        return rays * (whole + OVERHEAD * len(counts))


KIND = Kind(
    JepaCurvatureStudy, memory_mib=1400, seconds=5, speeds={"jepa_curvature": 3e10}, module="jepa_curvature_blocks"
)
