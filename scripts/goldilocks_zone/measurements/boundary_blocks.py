"""Measurement of the decision boundary, in blocks of draws.

Minima of several kinds are trained, and the curvature at each is compared with its decision boundary. The Gauss–Newton
matrix G, alignments A_i and the dimension d_b of the boundary are those of `boundary_alignments`.
"""

import functools
import itertools
import logging
import math
import time
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from goldilocks_zone.config import studies
from goldilocks_zone.curvature import decision_boundary, hessian, logit_gradients, margin_estimate
from goldilocks_zone.jobs import lifecycle
from goldilocks_zone.measurements import blocks, boundary_networks, minima
from goldilocks_zone.measurements.boundary import BoundaryStudy
from goldilocks_zone.measurements.boundary_alignments import (
    COORDINATE,
    EPSILON,
    EPSILONS,
    OBSERVABLES,
    POINT,
    RANK,
    of_network,
    padded,
)
from goldilocks_zone.measurements.boundary_networks import Network
from goldilocks_zone.measurements.observables import Axis, Shape, Variable
from goldilocks_zone.models import decision_boundary as boundary
from goldilocks_zone.models import initialisation, networks
from goldilocks_zone.models.problem import Problem
from goldilocks_zone.randomness import stream
from goldilocks_zone.spectra import alignments, lanczos

PUBLISHED_EPSILON = 1e-6  # alignment above which an eigenvector counts in the published measure
TINY = 1e-300
STARTS = 4  # random starts of the margin estimate for each network
PARTS = "hessian", "gauss_newton"
HESSIAN_RANK = Axis(
    "hessian_rank",
    lambda shape: range(1, shape.study.hessian_eigenvectors + 1),
    "rank of the Hessian's eigenvector, largest eigenvalue first",
    last=True,
)
START = Axis("start", lambda shape: range(STARTS), "number of the start", last=True)
PRECISION = Axis(
    "precision", lambda shape: shape.study.explicit, "precision of the Hessian and its eigenvectors", last=True
)


def measure_block(job: blocks.Job) -> xr.Dataset:
    """Measure all variants of a job's study at the draws and radii of its block; return the labelled results."""
    lifecycle.listen()
    work, result, module, data, phases = blocks.begin(job), None, None, None, 0
    whole = work.block.study
    assert isinstance(whole, BoundaryStudy)
    like = torch.empty(0, dtype=torch.float64, device=work.device)
    for variant in studies.variants(whole):
        study = whole.model_copy(update=variant)
        data = minima.data_of(work, study, like)
        module = work.network_of(data.training[0].shape[2:], data.classes).to(work.device)
        if result is None:
            shape = Shape(study, module, data.training[0].shape[2:], data.classes)
            result = blocks.empty(OBSERVABLES, shape, work.labels)
        trainer = minima.Trainer(work, study, module, data, work.block.draws, phases)
        found, phases = trainer.minima(), trainer.phases
        logging.info("trained after %.1f s%s", time.monotonic() - work.started, studies.described(variant))
        points = itertools.product(study.minima, enumerate(sorted(study.epochs)), work.block.radii, study.scalings)
        for label, (i, epoch), radius, scaling in points:
            place = {**studies.place(variant), "minimum": label, "epoch": epoch, "radius": radius, "scaling": scaling}
            together = []
            for number, point in enumerate(found[label].parameters[i].double()):
                plain = _rescaled(study, module, point, radius)
                scaled = _scaled(module, plain, scaling)
                network = Network(study, module, (scaled, plain), data.of(number))
                _measure(result, place | {"draw": work.block.draws[number]}, network)
                # Keep networks only if needed, since their cached kernels are large.
                together += [network] if study.estimate_steps else []
            blocks.fill(result, place, {"random_accuracy": found[label].random_accuracy})
            blocks.fill(result, place, OBSERVABLES.measure(study, Together(work, together)))
            logging.info("%s measured after %.1f s", label, time.monotonic() - work.started)
    assert result is not None and data is not None and module is not None  # A study has one variant or more.
    return blocks.sign(result, work, data, module, dtype="float64", test_examples=data.test[1].shape[1])


def _rescaled(study: BoundaryStudy, module: nn.Module, point: Tensor, radius: float) -> Tensor:
    """Trained parameters `point` (D,), rescaled to a `radius` in the study's unit."""
    r_x = initialisation.glorot_radius(initialisation.parameters_of(module))
    return point * initialisation.scale(point.cpu().numpy(), radius, study.radius_unit, r_x)


def _scaled(module: nn.Module, point: Tensor, scaling: str) -> Tensor:
    """Parameters `point` (D,) after the layers are multiplied by the factors in the label `scaling`, such as 0.2-5-1.

    The weights of layer l are multiplied by factor l, and the bias of layer l by the product of factors 1 to l. The
    label `none` changes nothing. Raises ValueError unless there is one factor for each weight layer.
    """
    if scaling == "none":
        return point
    factors, parts, layer = [float(each) for each in scaling.split("-")], [], 0
    layers = itertools.accumulate(each.ndim > 1 for each in module.parameters())
    pieces = point.split([parameter.numel() for parameter in module.parameters()])
    for layer, parameter, part in zip(layers, module.parameters(), pieces):
        if layer > len(factors):
            raise ValueError(f"scalings: {scaling} has {len(factors)} factors: give one for each weight layer")
        parts.append(part * (factors[layer - 1] if parameter.ndim > 1 else math.prod(factors[:layer])))
    if layer != len(factors):
        raise ValueError(f"scalings: {scaling} has {len(factors)} factors: give one for each of {layer} weight layers")
    return torch.cat(parts)


def _measure(block: xr.Dataset, place: dict, network: Network) -> None:
    """Measure a network and write the values into a block, at the `place` {axis: label} of this network.

    Some values are measured once, others for each label of the study's key `softmax`. If the network has diverged, only
    the variable `diverged` is set.
    """
    study = network.study
    if not torch.isfinite(network.point).all():
        return blocks.fill(block, place, {"diverged": 1.0})
    blocks.fill(block, place, OBSERVABLES.measure(study, network))
    for label in study.softmax:
        seen = network.weighted(label)
        blocks.fill(block, place | {"softmax": label}, OBSERVABLES.measure(study, seen))


@OBSERVABLES.register(
    Network,
    of_network("training_loss", "nat", "mean loss on the training set"),
    of_network("training_accuracy", "1", "share of training examples classified correctly"),
    of_network("test_accuracy", "1", "share of fresh examples classified correctly"),
    of_network("entropy", "nat", "mean entropy of the softmax's output p on the training set"),
    of_network("norm", "parameters", "norm of all parameters"),
    # `measure_block` fills this one.
    of_network("random_accuracy", "1", "share of the random labels that were learnt, of minima that start from there"),
    of_network("loss_rise", "nat", "rise of the training loss by a step of 0.05 along its gradient"),
    of_network("live_share", "1", "share of parameters on which a logit of some training example depends"),
    Variable("diverged", "1", "1 where training ended in values that are not finite, else 0", POINT),
)
def network(seen: Network) -> dict:
    """Training loss and accuracies of a network, and properties of its softmax outputs and parameters, by name.

    live_share is the share of parameters on which a logit of some training example depends.
    """
    loss, n = seen.problem.loss, len(seen.labels)
    theta = seen.point.detach().requires_grad_()
    logits = networks.logits_function(seen.module)
    here = loss.total(logits(theta, seen.inputs), seen.labels) / n
    (gradient,) = torch.autograd.grad(here, theta)
    moved = seen.point + 0.05 * torch.nn.functional.normalize(gradient, dim=0)
    there = loss.total(logits(moved, seen.inputs), seen.labels) / n
    inputs, labels = seen.test
    return {
        "training_loss": here.item(),
        "training_accuracy": float((seen.outputs.argmax(1) == seen.labels).double().mean()),
        "test_accuracy": float((boundary.predicted(seen.logits, inputs) == labels).double().mean()),
        "entropy": boundary.entropy(seen.outputs),
        "norm": float(seen.point.norm()),
        "loss_rise": (there - here).item(),
        "live_share": seen.gradients.live() / len(theta),
        "diverged": 0.0,
    }


@OBSERVABLES.register(
    Network,
    of_network("flip_error", "1", "largest error of the identity for the sum of both labels' gradients at ties"),
    of_network("fixed_label_jump", "1", "largest jump of A across the boundary with the label held fixed, for any v"),
    of_network("logits_error", "1", "largest change of a logit by the scaling of layers, over the largest logit"),
)
def identities(seen: Network) -> dict:
    """Errors, by name, of three identities.

    logits_error: the scaling of layers does not change the logits. flip_error, fixed_label_jump: identities of loss
    gradients at the boundary (see `boundary_networks.identities`). They are tested along a random direction and, if the
    study's key `softmax` contains temperature-1, along the first k eigenvectors of G, for k classes.
    """
    there = seen.plain(seen.inputs)
    found = {"logits_error": float((seen.outputs - there).abs().max() / there.abs().max().clamp_min(TINY))}
    if seen.normals is None:
        return found
    random = torch.as_tensor(stream("random direction").standard_normal((1, len(seen.point)))).to(seen.point)
    vectors = random / random.norm()
    if "temperature-1" in seen.study.softmax:
        cotangents = seen.weighted("temperature-1").pairs.cotangents[: seen.classes]
        vectors = torch.cat([vectors, logit_gradients.pulled(seen.problem, seen.point, cotangents)])
    return found | boundary_networks.identities(seen, vectors)


@OBSERVABLES.register(
    Network,
    of_network("boundary_points", "1", "number of points of the boundary that were found"),
    of_network("boundary_dimension", "1", "d_b, number of principal directions that hold 90 % of the normals"),
    of_network("boundary_length", "1", "length of the boundary in the box, in units of the plane"),
    of_network("true_margin", "1", "smallest distance of a training point from the boundary, in units of the plane"),
    of_network("linearised_margin", "1", "median over training examples of the logit gap over its slope"),
    of_network("smallest_linearised_margin", "1", "the smallest of these"),
    of_network(
        "captured_at_most",
        "1",
        "share of the normals in the best space of as many dimensions",
        axes=(*POINT, RANK),
    ),
)
def decision(seen: Network) -> dict:
    """Number of points, dimension d_b, length and margins of the decision boundary, by name.

    captured_at_most is an upper bound on captured shares: the largest share of the normals' squared norm that any
    subspace of 1, 2, … dimensions can hold. This bound and d_b are missing if there is no boundary. Length and true
    margin are measured only for datasets in the plane. No value depends on the softmax temperature.
    """
    margins = boundary.linearised_margins(seen.logits, seen.inputs)
    found = {
        "boundary_points": len(seen.crossings.points),
        "linearised_margin": finite(margins.median()),
        "smallest_linearised_margin": finite(margins.min()),
    }
    if seen.curve is not None:
        margin = seen.curve.distances(seen.inputs.flatten(1)).min()
        found |= {"boundary_length": seen.curve.length, "true_margin": finite(margin)}
    if seen.normals is None:
        return found
    gram = seen.normals.products(seen.normals)[:, 0, :, 0].cpu().numpy()
    most = np.cumsum(np.linalg.eigvalsh((gram + gram.T) / 2)[::-1].clip(0)) / np.trace(gram)
    return found | {"boundary_dimension": seen.dimension, "captured_at_most": padded(most, seen.study.eigenvectors)}


def finite(value: Tensor) -> float:
    """The distance `value` as a float, or NaN if it is infinite, for example because there is no boundary."""
    return float(value) if torch.isfinite(value) else math.nan


of_top = functools.partial(Variable, axes=(*POINT, HESSIAN_RANK), may_be_missing=True)
of_precision = functools.partial(Variable, axes=(*POINT, PRECISION), may_be_missing=True)


@OBSERVABLES.register(
    Network,
    of_precision("published_measure", "1", "G_θ (a), share of the Hessian's eigenvectors with max |A_i| above 1e-6"),
    of_precision("published_measure_matched", "1", "the same for logits over the first temperature of an entropy"),
    of_precision("published_measure_in_range", "1", "the same of eigenvectors with |λ| above rounding"),
    Variable(
        "published_measure_above",
        "1",
        "G_θ (a) above other alignments",
        (*POINT, PRECISION, EPSILON),
        may_be_missing=True,
    ),
    key="explicit",
)
def explicit(seen: Network) -> dict:
    """The measure of generalisation of Sabanayagam et al. (2023), for each precision in the study's key `explicit`.

    It is the share of all eigenvectors i of the Hessian for which |A_i| exceeds PUBLISHED_EPSILON at some training
    example. A_i is the alignment of the eigenvector with the gradient of the predicted label's loss. There are three
    variants: at the temperature that matches the first entropy in the key `softmax`, without eigenvectors whose
    eigenvalues are rounding errors, and with the thresholds EPSILONS.
    """
    rows, size = [], len(seen.point)
    entropies = [float(label.split("-")[1]) for label in seen.study.softmax if label.startswith("entropy")]
    cooled = boundary.matched_temperature(seen.outputs, entropies[0]) if entropies else math.nan

    def found_at(temperature: float, dtype: torch.dtype) -> decision_boundary.Explicit:
        problem = Problem(seen.module, seen.inputs.to(dtype), seen.labels, seen.study.loss, temperature)
        return decision_boundary.explicit(problem, seen.point.to(dtype), seen.outputs / temperature)

    for dtype in (getattr(torch, name) for name in seen.study.explicit):
        found, matched = found_at(1, dtype), math.nan
        if math.isfinite(cooled):
            matched = (np.abs(found_at(cooled, dtype).alignments).max(0) > PUBLISHED_EPSILON).mean()
        most = np.abs(found.alignments).max(0)
        rounding = size * torch.finfo(dtype).eps * np.abs(found.eigenvalues).max()
        kept = np.abs(found.eigenvalues) > rounding
        above = (most[:, None] > EPSILONS).mean(0)
        rows.append(((most > PUBLISHED_EPSILON).mean(), (most[kept] > PUBLISHED_EPSILON).sum() / size, above, matched))
    whole, in_range, above, matched = zip(*rows)
    return {
        "published_measure": whole,
        "published_measure_matched": matched,
        "published_measure_in_range": in_range,
        "published_measure_above": np.stack(above),
    }


@OBSERVABLES.register(
    Network,
    of_top("hessian_top_eigenvalue", "loss", "largest eigenvalues of the Hessian"),
    of_top("gauss_newton_top_eigenvalue", "loss", "largest eigenvalues of G"),
    of_top(
        "captured_by_hessian", "1", "E_k, mean share of the normals in the span of the Hessian's first eigenvectors"
    ),
    of_top("captured_by_gauss_newton", "1", "the same of G's, by Lanczos iteration"),
    of_network("residual_spectral_norm", "loss", "‖H′‖₂, H′ = H − G"),
    of_network("effective_examples", "1", "(Σt)²/Σt², t the traces of the examples' G"),
    key="hessian_eigenvectors",
)
def hessian_part(seen: Network) -> dict:
    """Compare the Hessian H with G, by Lanczos iterations: top eigenvalues, captured shares and ‖H − G‖₂, by name.

    Captured shares are mean shares of the squared norm of the boundary's normals in the span of the first 1, 2, …
    eigenvectors, of H and of G. effective_examples is (Σt)²/Σt², where t are the traces of the examples' G. The result
    is empty if G vanishes. If an iteration fails, its values and those of later iterations are left out.
    """
    count, size = seen.study.hessian_eigenvectors, len(seen.point)
    factor = seen.problem.loss.factor(seen.outputs, seen.labels)
    assert factor is not None  # The losses of these studies are convex.
    traces = logit_gradients.traces(seen.gradients.own(), factor)
    if not traces.sum() > 0:
        return {}
    of_parts = {part: hessian.hessian_products(seen.problem, seen.point, part) for part in hessian.PARTS}
    found = {"effective_examples": traces.sum() ** 2 / np.square(traces).sum()}
    try:
        search = lanczos.Search("LM", tolerance=1e-4, own_threads=True)
        residual, _ = lanczos.top_eigenpairs(of_parts["residual"], size, 1, search)
        # Errors of the normals' shares are the squares of errors of the eigenvectors.
        search = lanczos.Search(tolerance=1e-6, own_threads=True)
        found["residual_spectral_norm"] = abs(residual[0])
        for part in PARTS:
            values, vectors = lanczos.top_eigenpairs(of_parts[part], size, count, search)
            found[f"{part}_top_eigenvalue"] = values
            if seen.normals is not None:
                weights = decision_boundary.differences(seen.crossings.classes, seen.classes).to(seen.point)
                there, rows = seen.problem_at(seen.crossings.points), torch.as_tensor(vectors.T.copy()).to(seen.point)
                along = decision_boundary.with_vectors(there, seen.point, rows, weights)
                found[f"captured_by_{part}"] = alignments.captured(along)
    except ValueError as reason:
        # Lanczos iterations fail, for example, if nearly all outputs are saturated.
        logging.warning("no eigenvectors of the Hessian: %s", reason)
    return found


@dataclass(frozen=True)
class Together:
    """Networks of all draws of a block for one variant, minimum, epoch, radius and scaling."""

    work: blocks.Work
    networks: list[Network]


of_start = functools.partial(Variable, axes=(*POINT, START), may_be_missing=True)


@OBSERVABLES.register(
    Together,
    of_start("margin_estimate", "1", "distance of aligned points from the most aligned training points"),
    of_start("alignment_reached", "1", "A² at the aligned points"),
    Variable(
        "aligned_point",
        "1",
        "the aligned points of the margin estimate, in units of the plane",
        (*POINT, START, COORDINATE),
        may_be_missing=True,
    ),
    of_network("margin_of_extremes", "1", "distance of the most aligned training points from the boundary"),
    key="estimate_steps",
)
def margin_estimates(seen: Together) -> dict:
    """Margin estimates of Sabanayagam et al. (2023) (see `margin_estimate`) for the networks of all draws, by name.

    Arrays are (networks, STARTS), but margin_of_extremes is (networks,), and aligned_point has the coordinates x and y
    as a third axis. Values are NaN for networks that have diverged and for networks whose G vanishes.
    """
    networks, study = seen.networks, seen.networks[0].study
    finite_ones = [i for i, each in enumerate(networks) if torch.isfinite(each.point).all()]
    weighted = {i: networks[i].weighted("temperature-1") for i in finite_ones}
    able = [i for i, each in weighted.items() if len(each.pairs.eigenvalues)]
    names = ("margin_estimate", "alignment_reached")
    found: dict[str, np.ndarray] = {name: np.full((len(networks), STARTS), math.nan) for name in names}
    found["margin_of_extremes"] = np.full(len(networks), math.nan)
    found["aligned_point"] = np.full((len(networks), STARTS, 2), math.nan)
    if not able:
        return found
    points, tops, starts = [], [], []
    for i in able:
        network, cotangents = networks[i], weighted[i].pairs.cotangents[:1]
        random = seen.work.stream("margin estimate", seen.work.block.draws[i])
        points.append(network.point)
        tops.append(logit_gradients.pulled(network.problem, network.point, cotangents)[0])
        starts.append(torch.as_tensor(random.standard_normal((STARTS, network.inputs[0].numel()))).to(network.point))
    descent = margin_estimate.Descent(steps=study.estimate_steps)
    given = [torch.stack(each) for each in (points, tops, starts)]
    ends, reached = margin_estimate.aligned_points(networks[0].module, *given, descent)
    found["alignment_reached"][able] = reached.square().cpu().numpy()
    for i, own in zip(able, ends):
        first = weighted[i].alignments_with(weighted[i].predicted_loss)[:, 0]
        extremes = networks[i].inputs.flatten(1)[[int(first.argmax()), int(first.argmin())]]
        found["margin_estimate"][i] = torch.cdist(own, extremes).amin(1).cpu().numpy()
        if (curve := networks[i].curve) is not None:
            found["aligned_point"][i] = own.cpu().numpy()
            found["margin_of_extremes"][i] = finite(curve.distances(extremes).min())
    return found
