"""Rays through the initialisation of an encoder, with quantities that observables share, computed on first use.

The points of a ray are αθ, for an initialisation θ with the norm r_X and factors α, so that α is the radius in units of
r_X. The encoder embeds the two views of a pair, in two branches. Jets are second-order expansions of the network's
outputs, see `curvature.jets`. H is the Hessian of the mean loss, G its Gauss–Newton part, and H′ = H − G.

The losses are named by labels. vicreg is the loss λ I + μ V + ν C, with the terms I (invariance), V (variance) and C
(covariance) and the study's weights. vicreg-<μ/λ> is the same loss with another ratio μ/λ. The other labels are the
terms alone, InfoNCE, and the cross-entropy. The trace of layer l is σ_l² Tr(H_ll), where H_ll is the block of the
Hessian for layer l, and σ_l the standard deviation of the initial weights of this layer. The layer ratio R_l is the
trace of layer l, divided by the trace of the last layer.

Letters: n pairs, e outputs of an encoder, d directions, D parameters, p radii, u units of the last hidden layer.
"""

import functools
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from goldilocks_zone.curvature import jets
from goldilocks_zone.curvature.jets import Jets, Parts
from goldilocks_zone.data.views import Pairs
from goldilocks_zone.measurements import blocks
from goldilocks_zone.measurements.jepa_curvature import IMAGE, JepaCurvatureStudy
from goldilocks_zone.models import initialisation, jepa, labels, networks
from goldilocks_zone.models.embedding_losses import Classified, InfoNce, Vicreg
from goldilocks_zone.models.losses import Loss
from goldilocks_zone.subspaces import labels as subspace_labels
from goldilocks_zone.subspaces import planes
from goldilocks_zone.theory import wide_networks
from goldilocks_zone.theory.wide_networks import Criteria, LayerWeights, Moments

TERMS = {"invariance": (1.0, 0.0, 0.0), "variance": (0.0, 1.0, 0.0), "covariance": (0.0, 0.0, 1.0)}


def network_of(study: JepaCurvatureStudy, label: str) -> nn.Module:
    """Build a joint embedding in double precision; `label` is the network label of its encoder.

    It has a predictor if the study sets `predictor`, and is Siamese otherwise.
    """
    sizes = jepa.Sizes(math.prod(IMAGE), 0, study.embedding)
    return jepa.build(labels.parse_network(label), sizes, "predictor" if study.predictor else "siamese")


def criteria_of(study: JepaCurvatureStudy, label: str) -> Criteria | None:
    """Weights λ, μ and ν, and ε, of the loss that a `label` names.

    The label must be vicreg, vicreg-<μ/λ> or a term of VICReg. The result is None for any other label.
    """
    weights = study.invariance, study.variance, study.covariance
    kind, _, ratio = label.partition("-")
    if label in TERMS:
        weights = TERMS[label]
    elif kind != "vicreg":
        return None
    elif ratio:
        weights = study.invariance, study.invariance * float(ratio), study.covariance
    return Criteria(*weights, study.epsilon)


def loss_of(study: JepaCurvatureStudy, label: str, classes: int) -> Loss:
    """The loss that a `label` names; `classes` is the number of classes, for the label cross_entropy."""
    if found := criteria_of(study, label):
        return Vicreg(study.embedding, found.invariance, found.variance, found.covariance, found.epsilon)
    if label == "cross_entropy":
        return Classified(classes)
    _, similarity, *both = label.split("-")
    assert similarity in ("distance", "dot")
    return InfoNce(study.embedding, 1.0, similarity, bool(both))


class Ray:
    """Ray through the initialisation of one draw, with pairs of views and a plane.

    `theta` (D,) is the initialisation, rescaled to the radius r_X. `radii` are in units of r_X. `classes` is the number
    of classes of the images, for the cross-entropy.
    """

    def __init__(self, work: blocks.Work, study: JepaCurvatureStudy, pairs: Pairs, classes: int, draw: int):
        self.study, self.classes, self.radii = study, classes, work.block.radii
        self.module = network_of(study, work.job.network)
        parameters = initialisation.parameters_of(self.module)
        theta = work.initialisation(parameters, study.initialisation, draw)
        self.scale = initialisation.scale(theta, 1.0, "r_X", initialisation.glorot_radius(parameters))
        self.theta, self.eta = torch.as_tensor(self.scale * theta), blocks.metric(study, parameters)
        self.sizes = [p.size for p in parameters]
        self.deviations = self.scale * np.array(initialisation.weight_deviations(parameters, study.initialisation))
        self.inputs = torch.as_tensor(np.stack([pairs.x, pairs.y], 1))
        self.labels, self.homogeneous = torch.as_tensor(pairs.labels), not study.predictor
        network = labels.parse_network(work.job.network)
        self.homogeneous &= network.homogeneous and network.activation == "relu"
        self._plane, self._work, self._draw = subspace_labels.parse_plane(work.job.subspace), work, draw

    @property
    def depth(self) -> int:
        """Number of layers, for an encoder without biases."""
        return len(self.sizes)

    def stream(self, purpose: str, *more: str) -> np.random.Generator:
        """Random generator of the stream of this draw that is named by `purpose` and `more` (see `Work.stream`)."""
        return self._work.stream(purpose, *more, self._draw)

    def loss(self, label: str) -> Loss:
        """The loss named by `label`, an entry of the study's `criteria` or `edges`."""
        return loss_of(self.study, label, self.classes)

    def weights(self, theta: Tensor) -> list[Tensor]:
        """Weight matrices of all layers, as parts of the parameters `theta` (D,)."""
        shapes = [each.shape for each in self.module.parameters()]
        return [part.view(shape) for part, shape in zip(theta.split(self.sizes), shapes)]

    def outputs(self, theta: Tensor) -> Tensor:
        """Outputs (n, w) of the network at parameters `theta` (D,).

        The outputs for a pair are its two embeddings, w = 2e. If there is a predictor, the error of its prediction
        follows as e more outputs, w = 3e.
        """
        return networks.outputs_function(self.module)(theta, self.inputs.flatten(1))

    @functools.cached_property
    def directions(self) -> Tensor:
        """Orthonormal directions (d, D) of the plane."""
        return self._orthonormal(self.eta, "plane")

    def _orthonormal(self, eta: np.ndarray, purpose: str) -> Tensor:
        rows = planes.directions_as_drawn(self._plane, eta, self.stream(purpose, self._plane.kind))
        factor = torch.as_tensor(planes.cholesky(rows))
        rows = torch.as_tensor(rows if isinstance(rows, np.ndarray) else rows.toarray())
        return torch.linalg.solve_triangular(factor, rows, upper=False)

    @functools.cached_property
    def jets(self) -> Jets:
        """Jets on the plane, at the radius r_X. The encoder must be homogeneous and have no predictor."""
        return self.jets_along(self.directions)

    @functools.cached_property
    def last_layer(self) -> Jets:
        """Jets at the radius r_X, on a random plane in the weights of the last layer."""
        return self.jets_along(self._orthonormal(self.eta * self.layer(self.depth - 1), "last layer"))

    def jets_along(self, directions: Tensor, theta: Tensor | None = None) -> Jets:
        """Jets of the encoder along `directions` (d, D), at parameters `theta` (D,).

        By default, the parameters are those of the ray at the radius r_X.
        """
        return jets.of_encoder(self.weights(self.theta if theta is None else theta), self.inputs, directions)

    def jets_at(self, radius: float, count: int) -> Jets:
        """Jets of the whole network, with any predictor, by automatic differentiation.

        They are taken at a `radius` in units of r_X, along the first `count` directions of the plane.
        """
        return jets.of_network(self.outputs, radius * self.theta, self.directions[:count])

    def layer(self, number: int) -> np.ndarray:
        """Indicator (D,) of one layer: 1 at its parameters, and 0 elsewhere; `number` counts layers from 0."""
        return np.repeat(np.arange(len(self.sizes)) == number, self.sizes).astype(float)

    @functools.cached_property
    def parts(self) -> dict[str, Parts]:
        """Mean loss, its radial derivative, and G and H′ on the plane, at all radii.

        Returns them for each loss in the study's `criteria`, by label.
        """
        criteria = self.study.criteria
        losses = [self.loss(label) for label in criteria]
        if self.homogeneous:
            scales = torch.as_tensor(self.radii, dtype=torch.float64)
            return dict(zip(criteria, jets.parts(self.jets, losses, scales, self.labels)))
        one, found = torch.ones(1, dtype=torch.float64), []
        for radius in self.radii:
            found.append(jets.parts(self.jets_at(radius, self._plane.dimension), losses, one, self.labels))
        return {label: _joined([each[i] for each in found]) for i, label in enumerate(criteria)}

    @functools.cached_property
    def spread(self) -> np.ndarray:
        """Unbiased variances (p, 2e) of the embeddings' entries in both branches, at all radii."""
        branches = slice(0, 2 * self.study.embedding)
        if self.homogeneous:
            here = self.jets.outputs[:, branches].var(0)
            scales = torch.as_tensor(self.radii, dtype=torch.float64)[:, None] ** (2 * self.depth)
            return (scales * here).numpy()
        with torch.no_grad():
            return np.stack([self.outputs(r * self.theta)[:, branches].var(0).numpy() for r in self.radii])

    @functools.cached_property
    def features(self) -> tuple[np.ndarray, np.ndarray]:
        """Inputs h and h′ (n, u) of the last layer, for the first and the second views, at the radius r_X."""
        h = self.inputs
        for weight in self.weights(self.theta)[:-1]:
            h = torch.relu(h @ weight.T)
        return h[:, 0].numpy(), h[:, 1].numpy()

    @functools.cached_property
    def moments(self) -> Moments:
        """Invariance I, covariance C, and variances (2e,) of the entries of both branches' embeddings, at r_X."""
        terms = Vicreg(self.study.embedding, 1, 1, 1, self.study.epsilon).terms(self.jets.outputs)
        return Moments(terms.invariance.item(), terms.covariance.item(), self.jets.outputs.var(0).numpy())

    @functools.cached_property
    def ratios(self) -> dict[str, np.ndarray]:
        """Layer ratios R_l of I and of V, by the names invariance and variance, as one array over layers l each.

        They are computed from the pairs of views, in the limit of wide layers.
        """
        x, y = self.inputs.unbind(1)
        x, y = x.numpy(), y.numpy()
        return {
            "invariance": wide_networks.ratios_of_invariance(x, y, self.depth),
            "variance": wide_networks.ratios_of_variance([x, y], self.depth),
        }

    @property
    def layer_weights(self) -> LayerWeights:
        """Weighted means W of the layer ratios R_l over layers l, for I, V and C.

        The weights are η_l²/σ_l², where η is the metric of the plane. For C, the mean for V is used, because C
        contributes little to `wide_networks.balance`. The ratios R_l of C itself are lower; the theory of wide
        networks, whose outputs are independent, does not explain that.
        """
        ends = np.cumsum(self.sizes) - 1
        weights = (self.eta[ends] / self.deviations) ** 2
        invariance, variance = (np.average(self.ratios[name], weights=weights) for name in ("invariance", "variance"))
        return LayerWeights(invariance, variance, variance)


def _joined(parts: Sequence[Parts]) -> Parts:
    names = ("loss", "radial_derivative", "gauss_newton", "residual")
    return Parts(*(torch.cat([getattr(each, name) for each in parts]) for name in names))


# Radii that bracket the edges, the same in every study.
GRID = torch.logspace(-2, 2, 33, dtype=torch.float64)
COARSE = GRID[::4]
# Bisections of a step of GRID and of COARSE, down to 1.5e-5 and 5e-4 in x. Losses other than VICReg have fewer, because
# losses over all pairs are the slowest.
HALVINGS, FEWER = 14, 11


def crossings(
    function: Callable[[Tensor], Tensor], curves: Tensor, grid: Tensor, halvings: int = HALVINGS
) -> np.ndarray:
    """Find where each of q functions of α last changes its sign from negative to positive; return x = 2 log10 α (q,).

    `curves` (p, q) are the values of the functions at the increasing α of the `grid` (p,). They bracket the sign
    change, which is refined by `halvings` bisections in log10 α. For this, `function` maps arguments α (q,), one for
    each of the q functions, to the values (q,). The result is NaN for functions that are nowhere negative on the grid,
    or that are negative at its last point.
    """
    below = (curves < 0).int()
    last = len(grid) - 1 - below.flip(0).argmax(0)
    known = (below.sum(0) > 0) & (last < len(grid) - 1)
    log = grid.log10()
    low, high = log[last], log[(last + 1).clamp_max(len(grid) - 1)]
    for _ in range(halvings):
        middle = (low + high) / 2
        negative = function(10**middle) < 0
        low, high = torch.where(negative, middle, low), torch.where(negative, high, middle)
    return torch.where(known, low + high, torch.nan).numpy()


def edges(ray: Ray, here: Jets, measure: Callable, wanted: Sequence[str]) -> dict[str, float]:
    """Edges x = log10(r²/r_X²) of the losses labelled `wanted`, by label; NaN without an edge.

    An edge is the radius r where the value of `measure` changes its sign from negative to positive, for the last time
    along the ray. `measure` is a function such as `trace`: it takes jets, a loss, scales (p,) and labels, and returns
    values (p,). `here` are jets at the radius r_X.
    """
    found, terms = {}, [label for label in wanted if label.startswith("vicreg")]
    if terms:
        own = [c for label in terms if (c := criteria_of(ray.study, label)) is not None]
        assert len(own) == len(terms)  # All of these labels have criteria.
        weights = torch.tensor([[c.invariance, c.variance, c.covariance] for c in own], dtype=torch.float64)
        less, one = (2 if measure is trace else 0), torch.ones(1, dtype=torch.float64)
        invariance, covariance = (measure(here, ray.loss(name), one) for name in ("invariance", "covariance"))

        def values(scales: Tensor) -> Tensor:
            """Values (p, 3) of `measure` for I, V and C at `scales` (p,); for I and C, they are powers of the scale."""
            first, second = (scales ** float(factor * ray.depth - less) for factor in (2, 4))
            return torch.stack(
                [first * invariance, measure(here, ray.loss("variance"), scales), second * covariance], 1
            )

        curves = values(GRID) @ weights.T
        found |= dict(zip(terms, crossings(lambda scales: (values(scales) * weights).sum(1), curves, GRID)))
    for label in wanted:
        if label not in terms:
            function = functools.partial(measure, here, ray.loss(label), labels=ray.labels)
            found[label] = crossings(function, function(COARSE)[:, None], COARSE, FEWER)[0]
    return {label: float(found[label]) for label in wanted}


def trace(here: Jets, loss: Loss, scales: Tensor, labels: Tensor | None = None) -> Tensor:
    """Traces (p,) of the Hessian of a `loss` on the plane of the jets `here`, at p points.

    The parameters at these points are `scales` (p,) times the parameters at which the jets were computed. `labels` are
    needed for the cross-entropy alone.
    """
    gauss_newton, residual = jets.traces(here, loss, scales, labels)
    return gauss_newton + residual


def formula(ray: Ray, label: str, weights: LayerWeights) -> float:
    """Edge x = log10(r²/r_X²) of the loss `label`, predicted by the formula `wide_networks.edge`.

    The formula uses I, C and the variances of the embeddings at the ray's θ, and the means `weights` of the layer
    ratios R_l. The result is NaN if the formula has no edge, and for labels other than vicreg or vicreg-<μ/λ>.
    """
    criteria = criteria_of(ray.study, label) if label.startswith("vicreg") else None
    if criteria is None:
        return math.nan
    alpha = wide_networks.edge(criteria, ray.moments, weights, ray.depth)
    return 2 * math.log10(alpha) if alpha > 0 else math.nan
