"""Trained networks and their decision boundary, with quantities that several observables share.

At a point of the decision boundary, the two largest logits are equal (they tie). G is the Gauss–Newton matrix of the
training loss; it depends on softmax outputs p, which weight the logit gradients. A dataset in the plane has inputs
(x, y) in a box, the ranges of x and y around its points. In some of these datasets, known (designed) borders separate
the classes.

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

    `module` gives the architecture. `points` are two vectors of parameters (D,): first those to measure, after the
    scaling of layers, and then those before it. `data` holds the examples of one draw.
    """

    def __init__(self, study: BoundaryStudy, module: nn.Module, points: tuple[Tensor, Tensor], data: minima.Drawn):
        self.study, self.module, (self.point, self._plain) = study, module, points
        self.inputs, self.labels = data.training
        self.test, self.classes, self.borders = data.test, data.classes, data.borders
        self.plane = planar_shapes.of(study.datasets[0])
        self._weighted: dict[str, Weighted] = {}

    @property
    def box(self) -> planar_shapes.Box:
        """Box of a dataset in the plane."""
        assert self.plane is not None, "images have no box"
        return self.plane.box

    def logits(self, inputs: Tensor) -> Tensor:
        """Logits (n, k) of `inputs` (n, …), which may have the shape (n, 2) for datasets in the plane."""
        return networks.logits_function(self.module)(self.point, inputs.view(len(inputs), *self.inputs.shape[1:]))

    def plain(self, inputs: Tensor) -> Tensor:
        """Logits (n, k) of `inputs` (n, …), with the parameters before the scaling of layers."""
        with torch.no_grad():
            return networks.logits_function(self.module)(self._plain, inputs)

    def weighted(self, label: str) -> "Weighted":
        """The network together with the matrix G for one choice of the softmax outputs p.

        `label` is an entry of the study's key `softmax` that names this choice, such as temperature-1.
        """
        if label not in self._weighted:
            self._weighted[label] = _weighted(self, label)
        return self._weighted[label]

    def problem_at(self, points: Tensor) -> Problem:
        """`Problem` of this network with the inputs `points` instead of training examples, and without labels.

        `points` are images (n, …), or (n, 2) for datasets in the plane.
        """
        return Problem(self.module, points.view(len(points), *self.inputs.shape[1:]))

    def predicted_loss_at(self, points: Tensor) -> logit_gradients.LogitGradients:
        """Unit gradients of the predicted label's loss with respect to the parameters, one for each of n inputs.

        The label of each input is its predicted class. The inputs are `points`, as for `problem_at`.
        """
        gradients = logit_gradients.of(self.problem_at(points), self.point)
        return decision_boundary.predicted_loss(gradients, self.logits(points).detach())

    def nodes(self, count: int) -> Tensor:
        """Points (count², 2) of a grid over the box of a dataset in the plane; y varies fastest.

        There are `count` points along each axis.
        """
        axes = [torch.linspace(*ends, count).to(self.point) for ends in self.box]
        return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, 1)

    @functools.cached_property
    def nearest_borders(self) -> np.ndarray:
        """For each boundary point, the index (b,) of the nearest designed border; indices start at 0."""
        assert self.plane is not None and self.borders is not None, "the dataset has no designed borders"
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
        """Gram matrix (n, k, n, k) of the gradients of all logits at the training examples."""
        return self.gradients.products(self.gradients)

    @functools.cached_property
    def curve(self) -> boundary.Curve | None:
        """The decision boundary as straight segments in the box of a dataset in the plane; None for images."""
        if self.plane is None:
            return None
        return boundary.curve(self.logits, self.plane.box, self.study.fine_grid, self.point)

    @functools.cached_property
    def crossings(self) -> boundary.Crossings:
        """Points of the decision boundary, and the two classes that meet at each.

        In the plane, these are the points where the boundary crosses the edges of a grid. For images, each point lies
        between two training images with different predicted classes.
        """
        if self.plane is None:
            return boundary.between_pairs(self.logits, self.inputs, self.study.grid, stream("pairs of images"))
        found = boundary.on_grid(self.logits, self.plane.box, self.study.grid, self.point)
        return boundary.Crossings(found.points.view(-1, *self.inputs.shape[1:]), found.classes)

    @functools.cached_property
    def normals(self) -> logit_gradients.LogitGradients | None:
        """Unit normals of the boundary in parameter space, one for each of the b `crossings`; None without boundary.

        A normal is the difference of the parameter gradients of the two logits that tie, scaled to unit length.
        """
        return (
            decision_boundary.normals(self.problem, self.point, self.crossings) if len(self.crossings.points) else None
        )

    @functools.cached_property
    def elsewhere(self) -> logit_gradients.LogitGradients:
        """Control for the `normals`: the same differences of gradients at b random points of the box.

        At each point, it is the difference of the parameter gradients of the two largest logits, scaled to unit length.
        As the points are not on the boundary, these logits do not tie in general.
        """
        low, high = np.array(self.box).T
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
    """A network with the Gauss–Newton matrix G that belongs to one choice of the softmax outputs p.

    temperature: temperature T of the softmax that gives p, or 1 for uniform and permuted outputs. dual: eigenpairs of
    T²·G with non-zero eigenvalues. If p should have a mean entropy that no temperature gives, the temperature is NaN
    and `dual` is None.
    """

    network: Network
    temperature: float
    dual: decision_boundary.Dual | None

    @functools.cached_property
    def predicted_loss(self) -> logit_gradients.LogitGradients:
        """Unit gradients of the predicted label's loss with respect to the parameters, one for each training example.

        The label of each example is its predicted class. The softmax in the loss has the `temperature`, or 1 if this
        is NaN.
        """
        temperature = self.temperature if math.isfinite(self.temperature) else 1
        return decision_boundary.predicted_loss(self.network.gradients, self.network.outputs / temperature)

    @functools.cached_property
    def alignments(self) -> np.ndarray | None:
        """Scalar products (b, m) of the boundary's b unit normals with the m eigenvectors of G.

        None if there is no boundary, or if `dual` is None.
        """
        if self.dual is None or self.network.normals is None:
            return None
        return self.dual.alignments(self.network.normals)

    @property
    def pairs(self) -> logit_gradients.GaussNewton:
        """The eigenpairs in `dual`, where some temperature gives p."""
        assert self.dual is not None
        return self.dual.pairs

    def alignments_with(self, gradients: logit_gradients.LogitGradients) -> np.ndarray:
        """Scalar products of unit `gradients` with the eigenvectors of G, where some temperature gives p."""
        assert self.dual is not None
        return self.dual.alignments(gradients)

    @property
    def eigenvalues(self) -> np.ndarray:
        """Non-zero eigenvalues (m,) of G, descending.

        The loss is a function of the logits divided by the temperature. The eigenvalues in `dual` follow from gradients
        of the undivided logits, and are therefore the eigenvalues of G times the squared temperature.
        """
        return self.pairs.eigenvalues / self.temperature**2


def _weighted(network: Network, label: str) -> Weighted:
    """Compute the eigenpairs of G of a network for one choice of the softmax outputs p.

    `label` is an entry of the study's key `softmax` that names this choice.
    """
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
    """Random permutation of n examples, as indices (n,), that exchanges only examples of the same class.

    `classes` (n,) are the classes of the examples.
    """
    order, random = torch.arange(len(classes)), stream("permuted outputs")
    for label in classes.unique():
        members = (classes == label).nonzero().flatten().cpu()
        order[members] = members[torch.as_tensor(random.permutation(len(members)))]
    return order.to(classes.device)


def identities(network: Network, vectors: Tensor) -> dict[str, float]:
    """Largest errors, by name, of two identities of loss gradients at points of the boundary.

    The maximum is over at most CHECKED points, and over the rows v of `vectors` (m, D), along which gradients are
    compared. At a point, logits k and l tie. J_j is the gradient of logit j, and g(ŷ=k) the gradient of the loss with
    label k. flip_error tests g(ŷ=k) + g(ŷ=l) = 2 Σ_j p_j (J_j − (J_k + J_l)/2), where j runs over all other classes.
    The error is the scalar product of v with the difference of both sides, divided by ‖g(ŷ=k)‖. fixed_label_jump tests
    that the alignment ⟨v, g(ŷ=k)⟩/‖g(ŷ=k)‖ is continuous. The error is its change between two inputs on both sides of
    the point, which are 1e-9 apart in each entry.
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
