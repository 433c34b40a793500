"""Axes of studies of the decision boundary, and observables of the eigenvectors of the Gauss–Newton matrix G.

G is the Gauss–Newton part of the Hessian of the training loss. It depends on softmax outputs p, which weight the logit
gradients. The study's key `softmax` lists labels of several choices of p: softmax outputs at a given temperature, or at
the temperature where their mean entropy has a given value; uniform outputs; or outputs that are permuted among
examples.

The alignment A_i is the scalar product of a unit vector in parameter space with eigenvector i of G; eigenvectors have
ranks i = 1, 2, …, largest eigenvalue first. Two kinds of vectors are aligned. Normals of the decision boundary are
differences of the gradients of two logits that tie. Gradients of the predicted label's loss are gradients of the loss
with the predicted class as label. d_b, the dimension of the boundary, is the number of principal directions that hold
90 % of the normals' squared norm.

A dataset in the plane has inputs (x, y) in a box, the ranges of x and y around its points. Some of these datasets are
designed: their classes are separated by known borders. Observables are functions that return values by name.
"""

import functools
import math

import numpy as np
import torch

from goldilocks_zone.curvature import decision_boundary
from goldilocks_zone.data import planar_shapes
from goldilocks_zone.measurements.boundary_networks import Network, Weighted
from goldilocks_zone.measurements.observables import DRAW, RADIUS, Axis, Observables, Shape, Variable
from goldilocks_zone.randomness import stream
from goldilocks_zone.spectra import alignments

EPSILONS = np.logspace(-8, -3, 11)  # alignments above which an eigenvector counts

MINIMUM = Axis("minimum", lambda shape: shape.study.minima, "kind of minimum")
SCALING = Axis("scaling", lambda shape: shape.study.scalings, "factors on the layers, first to last")
EPOCH = Axis("epoch", lambda shape: sorted(shape.study.epochs), "epochs of training")
SOFTMAX = Axis("softmax", lambda shape: shape.study.softmax, "outputs p that weight G")
RANK = Axis(
    "rank",
    lambda shape: range(1, shape.study.eigenvectors + 1),
    "rank of the eigenvector, largest eigenvalue first",
    last=True,
)


def _sections(shape: Shape) -> range:
    return range(planar_shapes.sections(shape.study.datasets[0]))


BORDER = Axis("border", _sections, "number of a designed border", last=True, of_network=True)
MAP_X = Axis("map_x", lambda shape: range(shape.study.map), "node of the map along x")
MAP_Y = Axis("map_y", lambda shape: range(shape.study.map), "node of the map along y")
EXAMPLE = Axis("example", lambda shape: range(shape.study.examples_kept), "number of the training example")
COORDINATE = Axis("coordinate", lambda shape: ("x", "y"), "coordinate in the plane", last=True)
EPSILON = Axis("epsilon", lambda shape: EPSILONS, "alignment above which an eigenvector counts", last=True)

OBSERVABLES = Observables(RADIUS, DRAW)
POINT = MINIMUM, EPOCH, SCALING
# Missing if there is no boundary or no eigenvalue, or if a network diverged.
of_network = functools.partial(Variable, axes=POINT, may_be_missing=True)
of_softmax = functools.partial(Variable, axes=(*POINT, SOFTMAX), may_be_missing=True)


def padded(values: np.ndarray, count: int) -> np.ndarray:
    """First `count` entries of `values` (m,), as an array (count,) that is padded with NaN if m is smaller."""
    return np.pad(values[:count].astype(float), (0, max(0, count - len(values))), constant_values=math.nan)


ranked = functools.partial(Variable, axes=(*POINT, SOFTMAX, RANK), may_be_missing=True)


@OBSERVABLES.register(
    Weighted,
    of_softmax("temperature", "1", "temperature of the softmax; NaN where none gives the entropy"),
    ranked("gauss_newton_eigenvalue", "loss", "largest eigenvalues of G, descending"),
    of_softmax("gauss_newton_trace", "loss", "Tr(G)"),
    of_softmax("outliers", "1", "k90, number of largest eigenvalues of G that hold 90 % of its trace"),
    of_softmax("outliers_by_gap", "1", "number of eigenvalues of G above the largest of 12 gaps of logarithms"),
)
def spectrum(seen: Weighted) -> dict:
    """Temperature of the softmax outputs p, and eigenvalues, trace and numbers of outliers of G, by name.

    Outliers are the largest eigenvalues. They are counted in two ways: as the fewest eigenvalues that hold 90 % of the
    trace, and as those above the largest gap between the logarithms of neighbouring eigenvalues. Only the temperature
    is returned if G vanishes, or if no temperature gives the mean entropy that the label of p asks for.
    """
    found = {"temperature": seen.temperature}
    if seen.dual is None or not len(values := seen.eigenvalues):
        return found
    return found | {
        "gauss_newton_eigenvalue": padded(values, seen.network.study.eigenvectors),
        "gauss_newton_trace": values.sum(),
        "outliers": alignments.held(values),
        "outliers_by_gap": alignments.largest_gap(values),
    }


@OBSERVABLES.register(
    Weighted,
    ranked("captured", "1", "E_k, mean share of the boundary's normals in the span of the first eigenvectors of G"),
    ranked("captured_elsewhere", "1", "the same for gradients of the largest two logits' difference in the box"),
    of_softmax("aligned_share", "1", "share of boundary points where some |A_i| of the first C is above 0.9"),
    of_softmax("specificity", "1", "Σ max A²/ΣA² over boundary points, among the first d_b eigenvectors"),
    of_softmax("specificity_index", "1", "specificity between random rotations (0) and varimax (1)"),
)
def alignment(seen: Weighted) -> dict:
    """Measures, by name, of the alignment of the boundary's normals with eigenvectors of G.

    captured_elsewhere is a control with gradients away from the boundary. It is measured only for datasets in the
    plane. The result is empty if there is no boundary, if G has fewer than d_b non-zero eigenvalues, or if no
    temperature gives the mean entropy that the label of p asks for.
    """
    network, d = seen.network, seen.network.dimension
    found, count = seen.alignments, network.study.eigenvectors
    if found is None or found.shape[1] < d:
        return {}
    own = {
        "captured": padded(alignments.captured(found), count),
        "aligned_share": float((np.abs(found[:, : network.classes]).max(1) > 0.9).mean()),
        "specificity": alignments.specificity(found[:, :d]),
        "specificity_index": alignments.specificity_index(found[:, :d], stream("rotations")),
    }
    if network.plane is not None:
        elsewhere = seen.alignments_with(network.elsewhere)
        own["captured_elsewhere"] = padded(alignments.captured(elsewhere), count)
    return own


@OBSERVABLES.register(
    Weighted,
    of_softmax(
        "encoding_share", "1", "G_θ (b), number of eigenvectors of G aligned above a random vector, per parameter"
    ),
    Variable(
        "encoding_share_above",
        "1",
        "the same for other thresholds ε",
        (*POINT, SOFTMAX, EPSILON),
        may_be_missing=True,
    ),
)
def encoding(seen: Weighted) -> dict:
    """Share of the D eigenvectors of G for which the mean of |A_i| over the training set exceeds a threshold.

    A_i is the alignment of the gradient of the predicted label's loss. encoding_share has the threshold √(2/(πD)),
    which is the mean |A| of a random vector; encoding_share_above has the thresholds EPSILONS. Eigenvectors in the null
    space of G never count. The result is empty if G vanishes, or if no temperature gives the mean entropy that the
    label of p asks for.
    """
    if seen.dual is None or not len(seen.dual.pairs.eigenvalues):
        return {}
    size = len(seen.network.point)
    mean = np.abs(seen.dual.alignments(seen.predicted_loss)).mean(0)
    random = math.sqrt(2 / (math.pi * size))
    return {
        "encoding_share": float((mean > random).sum()) / size,
        "encoding_share_above": (mean[:, None] > EPSILONS).sum(0) / size,
    }


@OBSERVABLES.register(
    Weighted,
    Variable(
        "border_rank",
        "1",
        "mean rank of the eigenvectors at a designed border, weighted by A², among the first d_b",
        (*POINT, SOFTMAX, BORDER),
        may_be_missing=True,
    ),
)
def sections(seen: Weighted) -> dict:
    """Mean rank of the eigenvectors with which the normals at each designed border align, as an array (borders,).

    The mean is over the first d_b eigenvectors of G. The weight of eigenvector i is the sum of A_i² over the normals at
    those boundary points that are closer to this border than to others. The mean is NaN if there are no such points.
    The result is empty if the dataset has no designed borders, and if d_b is 0 or exceeds the number of eigenvectors.
    """
    network, d = seen.network, seen.network.dimension
    if network.borders is None or seen.alignments is None or not 1 <= d <= seen.alignments.shape[1]:
        return {}
    squares = np.square(seen.alignments[:, :d])
    found = np.full(len(network.borders.places), math.nan)
    for number in range(len(found)):
        own = squares[network.nearest_borders == number]
        if own.sum() > 0:
            found[number] = own.sum(0) @ np.arange(1, d + 1) / own.sum()
    return {"border_rank": found}


kept = functools.partial(Variable, may_be_missing=True, aggregated=True)


@OBSERVABLES.register(
    Weighted,
    kept("map", "1", "A_i of the predicted label's loss at nodes of the box", (*POINT, SOFTMAX, RANK, MAP_X, MAP_Y)),
    key="map",
)
def maps(seen: Weighted) -> dict:
    """Alignments A_i of the gradients of the predicted label's loss, at the nodes of a grid of inputs.

    The grid covers the box of a dataset in the plane. The array is (ranks i, nodes in x, nodes in y), with NaN for
    ranks that G does not have. The result is empty for images, and if no temperature gives the mean entropy that the
    label of p asks for.
    """
    if seen.dual is None or seen.network.plane is None:
        return {}
    points, nodes = seen.network.nodes(seen.network.study.map), seen.network.study.map
    found = seen.dual.alignments(seen.network.predicted_loss_at(points))
    count = seen.network.study.eigenvectors
    return {"map": np.stack([padded(each, count) for each in found], 1).reshape(count, nodes, nodes)}


@OBSERVABLES.register(
    Network,
    kept("map_class", "1", "predicted class at nodes of the box", (*POINT, MAP_X, MAP_Y)),
    kept("map_random", "1", "alignment of the predicted label's loss with a random direction", (*POINT, MAP_X, MAP_Y)),
    kept("map_random_fixed", "1", "the same of the loss of one label throughout", (*POINT, MAP_X, MAP_Y)),
    key="map",
)
def random_maps(seen: Network) -> dict:
    """Maps of the predicted class and, as a control, of alignments with a random direction in parameter space.

    Each map is an array (nodes in x, nodes in y) over a grid of inputs. map_random holds the alignments of the
    gradients of the predicted label's loss. map_random_fixed holds the alignments of the gradients of the loss with
    label 0 at every node. The result is empty for images.
    """
    if seen.plane is None:
        return {}
    points = seen.nodes(seen.study.map)
    z, shape = seen.logits(points).detach(), (seen.study.map, seen.study.map)
    direction = torch.as_tensor(stream("random direction").standard_normal(len(seen.point))).to(seen.point)
    direction = direction[None] / direction.norm()
    fixed = torch.softmax(z, 1)
    fixed[:, 0] -= 1
    weights = {"map_random": decision_boundary.predicted_loss_weights(z), "map_random_fixed": fixed}
    problem = seen.problem_at(points)
    found = {n: decision_boundary.with_vectors(problem, seen.point, direction, each) for n, each in weights.items()}
    return {"map_class": z.argmax(1).view(shape).cpu().numpy()} | {n: each.reshape(shape) for n, each in found.items()}


@OBSERVABLES.register(
    Weighted,
    kept("example_alignment", "1", "A_i of training examples", (*POINT, SOFTMAX, EXAMPLE, RANK)),
    key="examples_kept",
)
def example_alignments(seen: Weighted) -> dict:
    """Alignments A_i of the gradients of the predicted label's loss, at the first training examples.

    The array is (examples, ranks i), for as many examples as the study's `examples_kept`. It is padded with NaN.
    """
    study, found = (
        seen.network.study,
        np.full((seen.network.study.examples_kept, seen.network.study.eigenvectors), math.nan),
    )
    if seen.dual is not None:
        measured = seen.dual.alignments(seen.predicted_loss)[: len(found)]
        found[: len(measured)] = [padded(each, study.eigenvectors) for each in measured]
    return {"example_alignment": found}


@OBSERVABLES.register(
    Network,
    kept("example_class", "1", "predicted class of training examples", (*POINT, EXAMPLE)),
    kept("example_label", "1", "label of training examples", (*POINT, EXAMPLE)),
    kept("example_point", "1", "place of training examples, in units of the plane", (*POINT, EXAMPLE, COORDINATE)),
    key="examples_kept",
)
def examples(seen: Network) -> dict:
    """Predicted classes, labels and positions in the plane of the first training examples, by name.

    The arrays have a row for each of as many examples as the study's `examples_kept`. They are padded with NaN;
    positions are all NaN for images.
    """
    count, given = seen.study.examples_kept, len(seen.labels)
    rows = np.full((count, 4), math.nan)
    rows[:given, 0], rows[:given, 1] = seen.outputs.argmax(1)[:count].cpu(), seen.labels[:count].cpu()
    if seen.plane is not None:
        rows[:given, 2:] = seen.inputs[:count].flatten(1).cpu()
    return {"example_class": rows[:, 0], "example_label": rows[:, 1], "example_point": rows[:, 2:]}
