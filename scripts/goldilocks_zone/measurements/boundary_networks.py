"""Trained networks and their decision boundary, with quantities that several observables share.

At a point of the decision boundary, the two largest logits tie. G is the Gauss–Newton matrix of the training loss.

Letters: b points of the boundary, n training examples, k classes, m eigenvectors, D parameters.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from goldilocks_zone.curvature import decision_boundary, logit_gradients
from goldilocks_zone.data import planar_shapes
from goldilocks_zone.measurements import minima
from goldilocks_zone.measurements.boundary import BoundaryStudy
from goldilocks_zone.models import decision_boundary as boundary
from goldilocks_zone.models import networks
from goldilocks_zone.models.loss_factors import SoftmaxFactor
from goldilocks_zone.models.problem import Problem
from goldilocks_zone.randomness import stream
from goldilocks_zone.spectra import alignments

CHECKED = 50  # points of the boundary at which identities are checked


class Network:
    """One trained network in double precision, its examples, and quantities that are computed on first use.

    `points` are the network's parameters (D,) after and before the scaling of layers.
    """

    def __init__(self, study: BoundaryStudy, module: nn.Module, points: tuple[Tensor, Tensor], data: minima.Data):
        self.study, self.module, (self.point, self._plain) = study, module, points
        self.inputs, self.labels = data.training
        self.test, self.classes, self.borders = data.test, data.classes, data.borders
        self.plane = planar_shapes.of(study.datasets[0])
        self._weighted: dict[str, Weighted] = {}

    def logits(self, inputs: Tensor) -> Tensor:
        """Logits (n, k) of inputs (n, …); points of the plane may be (n, 2)."""
        return networks.logits_function(self.module)(self.point, inputs.view(len(inputs), *self.inputs.shape[1:]))

    def plain(self, inputs: Tensor) -> Tensor:
        """Logits (n, k) of inputs (n, …) with the parameters before the scaling of layers."""
        with torch.no_grad():
            return networks.logits_function(self.module)(self._plain, inputs)

    def weighted(self, label: str) -> "Weighted":
        """The network with G weighted by the softmax outputs p that a `label` of the study's key `softmax` names."""
        if label not in self._weighted:
            self._weighted[label] = _weighted(self, label)
        return self._weighted[label]

    def problem_at(self, points: Tensor) -> Problem:
        """The network's `Problem`, without labels, at other inputs: `points` (n, 2) of the plane, or images (n, …)."""
        return Problem(self.module, points.view(len(points), *self.inputs.shape[1:]))

    def predicted_loss_at(self, points: Tensor) -> logit_gradients.LogitGradients:
        """Unit parameter gradients of the loss at n other inputs, with their predicted classes as labels.

        The inputs are `points`, as for `problem_at`.
        """
        gradients = logit_gradients.of(self.problem_at(points), self.point)
        return decision_boundary.predicted_loss(gradients, self.logits(points).detach())

    def nodes(self, count: int) -> Tensor:
        """Nodes (count², 2) of a grid over the box in the plane, `count` along each axis; y varies fastest."""
        axes = [torch.linspace(*ends, count).to(self.point) for ends in self.plane.box]
        return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, 1)

    @functools.cached_property
    def nearest_borders(self) -> np.ndarray:
        """Index (b,), from 0, of the designed border nearest to each boundary point."""
        points = self.crossings.points.flatten(1).cpu().numpy()
        if self.plane.kind == "pie":
            angles = np.arctan2(points[:, 1], points[:, 0])[:, None] - self.borders.places
            return np.abs((angles + np.pi) % (2 * np.pi) - np.pi).argmin(1)
        return np.abs(points[:, :1] - self.borders.places).argmin(1)

    @functools.cached_property
    def outputs(self) -> Tensor:
        """Logits (n, k) of the training examples."""
        return self.logits(self.inputs).detach()

    @functools.cached_property
    def problem(self) -> Problem:
        """Problem of the network on the training examples, with the study's loss."""
        return Problem(self.module, self.inputs, self.labels, self.study.loss)

    @functools.cached_property
    def gradients(self) -> logit_gradients.LogitGradients:
        """Gradients of all logits with respect to the parameters, at the training examples."""
        return logit_gradients.of(self.problem, self.point)

    @functools.cached_property
    def kernel(self) -> Tensor:
        """Gram matrix (n, k, n, k) of the logit gradients."""
        return self.gradients.products(self.gradients)

    @functools.cached_property
    def curve(self) -> boundary.Curve | None:
        """The boundary in the box of the plane, as segments; None for images."""
        if self.plane is None:
            return None
        return boundary.curve(self.logits, self.plane.box, self.study.fine_grid, self.point)

    @functools.cached_property
    def crossings(self) -> boundary.Crossings:
        """Points of the boundary: its crossings of a grid in the plane, or points between pairs of training images."""
        if self.plane is None:
            return boundary.between_pairs(self.logits, self.inputs, self.study.grid, stream("pairs of images"))
        found = boundary.on_grid(self.logits, self.plane.box, self.study.grid, self.point)
        return boundary.Crossings(found.points.view(-1, *self.inputs.shape[1:]), found.classes)

    @functools.cached_property
    def normals(self) -> logit_gradients.LogitGradients | None:
        """Unit normals of the boundary in parameter space; None if there is no boundary.

        The normal at each of the b `crossings` lies along the difference of the gradients of the two logits that tie.
        """
        return (
            decision_boundary.normals(self.problem, self.point, self.crossings) if len(self.crossings.points) else None
        )

    @functools.cached_property
    def elsewhere(self) -> logit_gradients.LogitGradients:
        """Unit differences of the gradients of the two largest logits at random points of the box, as a control.

        They take the place of the `normals` at boundary points. There are as many random points as boundary points.
        """
        low, high = np.array(self.plane.box).T
        points = stream("points of the box").uniform(low, high, (len(self.crossings.points), 2))
        points = torch.as_tensor(points).to(self.point).view(-1, *self.inputs.shape[1:])
        classes = self.logits(points).topk(2, 1).indices
        return decision_boundary.normals(self.problem, self.point, boundary.Crossings(points, classes))

    @functools.cached_property
    def dimension(self) -> int:
        """Number d_b of principal directions that hold 90 % of the normals' squared norm; 0 if there is no boundary."""
        if self.normals is None:
            return 0
        return alignments.dimension(self.normals.products(self.normals)[:, 0, :, 0].cpu().numpy())


@dataclass
class Weighted:
    """A network whose Gauss–Newton matrix G is weighted by given softmax outputs p.

    temperature: that of p. dual: the eigenpairs of G with non-zero eigenvalues, these multiplied by the squared
    temperature. If no temperature gives the entropy that the label asks for, the temperature is NaN and `dual` is None.
    """

    network: Network
    temperature: float
    dual: decision_boundary.Dual | None

    @functools.cached_property
    def predicted_loss(self) -> logit_gradients.LogitGradients:
        """Unit parameter gradients of the loss at each training example, with its predicted class as label.

        The softmax has the temperature of p, or 1 if that is NaN.
        """
        temperature = self.temperature if math.isfinite(self.temperature) else 1
        return decision_boundary.predicted_loss(self.network.gradients, self.network.outputs / temperature)

    @functools.cached_property
    def alignments(self) -> np.ndarray | None:
        """Alignments (b, m) of b normals of the boundary with m eigenvectors of G; None if either do not exist."""
        if self.dual is None or self.network.normals is None:
            return None
        return self.dual.alignments(self.network.normals)

    @property
    def eigenvalues(self) -> np.ndarray:
        """Eigenvalues (m,) of G, descending, for the loss of logits divided by the temperature.

        `dual` takes gradients of the undivided logits, so its eigenvalues are multiplied by the squared temperature.
        """
        return self.dual.pairs.eigenvalues / self.temperature**2


def _weighted(network: Network, label: str) -> Weighted:
    """Make the `Weighted` of a network for the outputs p that a `label` of the study's key `softmax` names."""
    kind, _, value = label.partition("-")
    z, temperature, factor = network.outputs, 1.0, None
    if kind == "entropy":
        temperature = boundary.matched_temperature(z, float(value))
    elif kind == "temperature":
        temperature = float(value)
    p = torch.softmax(z, 1)
    if kind == "uniform":
        factor = SoftmaxFactor(torch.full_like(p, 1 / network.classes))
    elif kind == "permuted":
        factor = SoftmaxFactor(p[_permuted(z.argmax(1))])
    elif math.isfinite(temperature):
        factor = network.problem.loss.factor(z / temperature, network.labels)
    dual = decision_boundary.dual(network.gradients, factor, network.kernel) if factor else None
    return Weighted(network, temperature, dual)


def _permuted(classes: Tensor) -> Tensor:
    """Indices (n,) that permute n examples at random within each class, from the `classes` (n,) of the examples."""
    order, random = torch.arange(len(classes)), stream("permuted outputs")
    for label in classes.unique():
        members = (classes == label).nonzero().flatten().cpu()
        order[members] = members[torch.as_tensor(random.permutation(len(members)))]
    return order.to(classes.device)


def identities(network: Network, vectors: Tensor) -> dict[str, float]:
    """Largest errors, by name, of two identities of loss gradients, over boundary points and `vectors` v (m, D).

    Logits k and l tie at a point. J_j is the gradient of logit j, and g(ŷ=k) the gradient of the loss with label k.
    flip_error: error of g(ŷ=k) + g(ŷ=l) = 2 Σ_j p_j (J_j − (J_k + J_l)/2), where j runs over the other classes, along v
    and relative to ‖g(ŷ=k)‖. fixed_label_jump: change of the alignment ⟨v, g(ŷ=k)⟩/‖g(ŷ=k)‖ between two inputs on both
    sides of the point, 1e-9 apart in each entry; it should vanish, as the alignment is continuous. At most CHECKED
    points are tested.
    """
    some = slice(None, None, -(-len(network.crossings.points) // CHECKED))
    points, (first, second) = network.crossings.points[some], network.crossings.classes[some].T
    eye = torch.eye(network.classes, dtype=torch.float64, device=points.device)
    both = torch.cat([points, points - 0.5e-9, points + 0.5e-9])
    gradients = logit_gradients.of(network.problem_at(both), network.point)
    along = logit_gradients.pushed(network.problem_at(both), network.point, vectors)
    p = torch.softmax(network.logits(both).detach(), 1)
    held = p - eye[first].repeat(3, 1)
    lengths = gradients.combined(held).own().flatten().clamp_min(0).sqrt().unflatten(0, (3, -1))
    here, middle = p[: len(points)], (eye[first] + eye[second]) / 2
    others = here * (1 - 2 * middle)
    sides = (here - eye[first]) + (here - eye[second])
    error = sides - 2 * (others - others.sum(1, keepdim=True) * middle)
    errors = (along[:, : len(points)] * error).sum(2).abs() / lengths[0].clamp_min(1e-300)
    alignments = torch.where(lengths > 0, (along * held).sum(2).unflatten(1, (3, -1)) / lengths, 0)
    jump = (alignments[:, 2] - alignments[:, 1]).abs().max()
    return {"flip_error": float(errors.max()), "fixed_label_jump": float(jump)}
