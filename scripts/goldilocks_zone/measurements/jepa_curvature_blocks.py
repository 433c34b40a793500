"""Measurement of the curvature of joint embeddings, in blocks of draws.

Observables are functions that return values by name. Each measures a ray: the initialisation θ of one encoder, rescaled
to several radii. The embeddings of two views of an image make up two branches. Losses are functions of the embeddings
of pairs of views, and are also called criteria. VICReg is λ I + μ V + ν C, with the terms I (invariance), V (variance)
and C (covariance). H is the Hessian of the mean loss, G its Gauss–Newton part, and H′ = H − G; H_d is the matrix (d, d)
of H over the d directions of a plane. u is the number of inputs of the last layer.
"""

import functools
import logging
import math
import time
from typing import Any

import numpy as np
import scipy.linalg
import torch
import xarray as xr

from goldilocks_zone.config import studies
from goldilocks_zone.curvature import jets
from goldilocks_zone.curvature.jets import Parts
from goldilocks_zone.data import views
from goldilocks_zone.jobs import lifecycle
from goldilocks_zone.measurements import blocks, jepa_rays
from goldilocks_zone.measurements.jepa_curvature import IMAGE, JepaCurvatureStudy
from goldilocks_zone.measurements.jepa_rays import Ray
from goldilocks_zone.measurements.observables import DRAW, RADIUS, Axis, Observables, Shape, Variable
from goldilocks_zone.spectra import summaries
from goldilocks_zone.theory import wide_networks
from goldilocks_zone.theory.wide_networks import LayerWeights

ROWS = 2  # rows of the last layer along which the Hessian at collapse is compared with its closed form
DEAD = 1e-12  # variance of a feature, relative to the largest, below which it is dead
# For n layers, the Hessians of I and C scale as the radius to the power 2n − 2 and 4n − 2.
DEGREES = {"invariance": (2, -2), "covariance": (4, -2)}

EXAMPLES = Axis("examples", lambda shape: shape.study.examples, "number N of pairs that the loss is averaged over")
CRITERION = Axis("criterion", lambda shape: shape.study.criteria, "loss of embeddings")
EDGE = Axis("edge_loss", lambda shape: shape.study.edges, "loss of embeddings whose edge is sought")
LAYER = Axis(
    "layer",
    lambda shape: range(1, len(list(shape.module.parameters())) + 1),
    "number of the weight layer, first to last",
    last=True,
    of_network=True,
)
UNIT = Axis(
    "unit",
    lambda shape: range(1, list(shape.module.parameters())[-1].shape[-1] + 1),
    "rank of the eigenvalue along one row of the last layer, smallest first",
    last=True,
    of_network=True,
)

OBSERVABLES = Observables(EXAMPLES, DRAW)
on_plane = functools.partial(Variable, axes=(CRITERION, RADIUS))
# Missing where the Hessian vanishes, for example beyond the last hinge.
relative = functools.partial(Variable, axes=(CRITERION, RADIUS), may_be_missing=True)
# Missing where the trace does not change sign, or a loss has no such formula.
of_edge = functools.partial(Variable, axes=(EDGE,), may_be_missing=True)


def measure_block(job: blocks.Job) -> xr.Dataset:
    """Measure all variants of a job's study for the draws of its block; return the labelled results."""
    lifecycle.listen()
    work, result, module = blocks.begin(job), None, None
    study, seed = work.block.study, work.block.seed
    assert isinstance(study, JepaCurvatureStudy)
    images = views.images_of(job.path_to_dataset, job.dataset, study.validation, seed)
    for variant in studies.variants(study):
        here = study.model_copy(update=variant)
        module = jepa_rays.network_of(here, job.network)
        if result is None:
            result = blocks.empty(OBSERVABLES, Shape(study, module, IMAGE, images.classes), work.labels)
        for draw in work.block.draws:
            pairs = views.pairs(images, here.views, max(here.examples), seed, draw)
            for count in here.examples:
                place = {**studies.place(variant), "draw": draw, "examples": count}
                blocks.fill(result, place, OBSERVABLES.measure(here, _ray(work, here, pairs, images.classes, place)))
            described, seconds = studies.described(variant), time.monotonic() - work.started
            logging.info("draw %d%s measured after %.1f s", draw, described, seconds)
    assert result is not None and module is not None  # A study has one variant or more.
    return blocks.sign(result, work, images, module, dtype="float64")


def _ray(work: blocks.Work, study, pairs: views.Pairs, classes: int, place: dict) -> Ray:
    count = place["examples"]
    some = views.Pairs(pairs.x[:count], pairs.y[:count], pairs.labels[:count])
    return Ray(work, study, some, classes, place["draw"])


def _finite(parts: Parts) -> np.ndarray:
    """Mask (p,) of the radii at which the loss and the Hessian in `parts` are finite."""
    return np.isfinite(parts.loss.numpy()) & np.isfinite(parts.hessian.numpy()).all((1, 2))


@OBSERVABLES.register(
    Ray,
    on_plane("overflow", "1", "1 where outputs or the Hessian are not finite, and all else missing"),
    on_plane("flat", "1", "1 where the Hessian on the plane vanishes, as of V beyond the last hinge"),
    on_plane("loss", "loss", "mean loss"),
    relative("radial_derivative", "loss", "⟨∇L, θ⟩, of encoders without biases and predictor"),
    on_plane("trace", "loss", "Tr(H_d)"),
    on_plane("frobenius_norm", "loss", "‖H_d‖_F"),
    relative("trace_over_norm", "1", "Tr(H_d)/‖H_d‖_F, excess positive curvature"),
    relative("fraction_positive", "1", "fraction of positive eigenvalues of H_d"),
    on_plane("gauss_newton_trace", "loss", "Tr(G_d), G = Jᵀℓ″J with the embeddings' tangents J"),
    on_plane("gauss_newton_norm", "loss", "‖G_d‖_F"),
    relative("gauss_newton_lowest", "1", "smallest eigenvalue of G_d over ‖G_d‖_F"),
    relative("gauss_newton_highest", "1", "largest eigenvalue of G_d over ‖G_d‖_F"),
    on_plane("residual_trace", "loss", "Tr(H′_d), H′ = H − G"),
    on_plane("residual_norm", "loss", "‖H′_d‖_F, H′ = H − G"),
)
def curves(ray: Ray) -> dict:
    """Mean losses, and summaries of the spectra of H_d and of its parts, by name, as arrays (criteria, radii)."""
    found = [_summaries(ray.parts[label]) for label in ray.study.criteria]
    names = dict.fromkeys(name for rows in found for row in rows for name in row)
    return {name: np.array([[row.get(name, math.nan) for row in rows] for rows in found]) for name in names}


def _summaries(parts: Parts) -> list[dict[str, float]]:
    """For each radius, a dictionary with the values of `curves` for one loss, by name.

    `parts` holds the loss and the parts of its Hessian at all radii. Where the loss or the Hessian is not finite, the
    dictionary contains only `overflow`.
    """
    return [
        {"overflow": float(not finite), **(_summary(parts, number) if finite else {})}
        for number, finite in enumerate(_finite(parts))
    ]


def _summary(parts: Parts, number: int) -> dict[str, float]:
    g, bent = parts.gauss_newton[number].numpy(), parts.residual[number].numpy()
    whole, inner = (summaries.summarise(np.linalg.eigvalsh(each)) for each in (g + bent, g))
    values, flat = np.linalg.eigvalsh(g), whole.frobenius_norm == 0
    size = inner.frobenius_norm or math.nan
    return {
        "flat": float(flat),
        "loss": parts.loss[number].item(),
        "radial_derivative": parts.radial_derivative[number].item(),
        "trace": whole.trace,
        "frobenius_norm": whole.frobenius_norm,
        "trace_over_norm": math.nan if flat else whole.trace_over_norm,
        "fraction_positive": math.nan if flat else whole.fraction_positive,
        "gauss_newton_trace": inner.trace,
        "gauss_newton_norm": inner.frobenius_norm,
        "gauss_newton_lowest": values[0] / size,
        "gauss_newton_highest": values[-1] / size,
        "residual_trace": float(np.trace(bent)),
        "residual_norm": float(np.linalg.norm(bent)),
    }


@OBSERVABLES.register(
    Ray,
    Variable("deviation", "1", "σ, root mean square deviation of both branches' embeddings", (RADIUS,)),
    Variable("active_hinges", "1", "share of dimensions of both branches with √(v + ε) below 1", (RADIUS,)),
    Variable("dead_dimensions", "1", "share of dimensions of both branches that do not vary", (RADIUS,)),
)
def batch(ray: Ray) -> dict:
    """Standard deviation of the embeddings, share of active hinges and share of dead dimensions, as arrays (radii,).

    Let v be the variance of one dimension of the embeddings in one branch. The hinge of V is active for this dimension
    if √(v + ε) < 1. The dimension is dead if v = 0.
    """
    v = ray.spread
    return {
        "deviation": np.sqrt(v.mean(1)),
        "active_hinges": np.mean(np.sqrt(v + ray.study.epsilon) < 1, axis=1),
        "dead_dimensions": np.mean(v == 0, axis=1),
    }


@OBSERVABLES.register(
    Ray,
    of_edge("edge", "1", "x where the trace on the plane changes its sign; missing where it does not"),
    of_edge("edge_formula", "1", "x of the edge by the formula, with I, C and variances of this θ"),
    of_edge("edge_formula_alike", "1", "x of the edge by the formula with R = 1, all layers alike"),
    of_edge("last_layer_edge", "1", "x where the trace on a plane in the last layer changes its sign"),
    of_edge("ray_minimum", "1", "x of the minimum of the loss on the ray through θ"),
    Variable("weight_of_invariance", "1", "W of I, the mean of R_l over layers by the plane's metric"),
    Variable("weight_of_variance", "1", "W of V, the mean of R_l over layers by the plane's metric"),
    key="edges",
)
def edges(ray: Ray) -> dict:
    """Edges of the zone, where the trace on a plane changes its sign from negative to positive, by name.

    An edge is given as x = log10(r²/r_X²), one for each loss in the study's `edges`. It is measured on the plane and on
    a plane in the last layer. For comparison, it is also computed by the formula for wide networks (see
    `jepa_rays.formula`), with the weights W of I and V, and with W = 1. ray_minimum is x of the minimum of the loss
    along the ray. The weights W are returned too.
    """
    wanted, weights = ray.study.edges, ray.layer_weights
    found = {
        "edge": jepa_rays.edges(ray, ray.jets, jepa_rays.trace, wanted),
        "last_layer_edge": jepa_rays.edges(ray, ray.last_layer, jepa_rays.trace, wanted),
        "ray_minimum": jepa_rays.edges(ray, ray.jets, jets.radial_derivatives, wanted),
        "edge_formula": {label: jepa_rays.formula(ray, label, weights) for label in wanted},
        "edge_formula_alike": {label: jepa_rays.formula(ray, label, LayerWeights()) for label in wanted},
    }
    sizes = {"weight_of_invariance": weights.invariance, "weight_of_variance": weights.variance}
    return sizes | {name: [each[label] for label in wanted] for name, each in found.items()}


@OBSERVABLES.register(
    Ray,
    Variable(
        "layer_trace",
        "loss",
        "σ_l² Tr(H_ll) of one layer's weights, from random probes",
        (CRITERION, RADIUS, LAYER),
        may_be_missing=True,
    ),
    Variable("invariance_ratio", "1", "R_l of I in wide networks", (LAYER,), may_be_missing=True),
    Variable("variance_ratio", "1", "R_l of V in wide networks", (LAYER,), may_be_missing=True),
    key="layer_probes",
)
def layers(ray: Ray) -> dict:
    """Traces σ_l² Tr(H_ll) of each layer l, estimated from random probes, and predicted ratios of such traces, by name.

    H_ll is the block of the Hessian for layer l, and σ_l the standard deviation of the initial weights of this layer at
    a radius. The ratio R_l is the trace of layer l, divided by the trace of the last layer. It is predicted for I and V
    in the limit of wide networks. Traces are computed from G, because H′ contributes nothing to them.
    """
    study, scales = ray.study, torch.as_tensor(ray.radii, dtype=torch.float64)
    found = np.empty((len(study.criteria), len(scales), ray.depth))
    for number, deviation in enumerate(ray.deviations):
        signs = ray.stream("layer probes").choice((-1.0, 1.0), (study.layer_probes, len(ray.theta)))
        probes = torch.as_tensor(signs * ray.layer(number))
        here = ray.jets_along(probes)
        for i, label in enumerate(study.criteria):
            total, _ = jets.traces(here, ray.loss(label), scales, ray.labels)
            found[i, :, number] = (scales * deviation) ** 2 * total / study.layer_probes
    ratios = {f"{name}_ratio": values for name, values in ray.ratios.items()}
    return {"layer_trace": np.where(np.isfinite(found), found, math.nan)} | ratios


@OBSERVABLES.register(
    Ray,
    of_edge("collapse_error", "1", "error of the closed form of the last layer's Hessian at W_n = 0, over its norm"),
    Variable(
        "collapse_eigenvalue",
        "loss",
        "eigenvalues of the Hessian along one row of W_n at W_n = 0 and r_X",
        (EDGE, UNIT),
        may_be_missing=True,
    ),
    Variable("feature_correlation", "1", "largest correlation ρ_w of a feature in both views", may_be_missing=True),
    Variable("collapse_threshold", "1", "4√ε(1 − ρ_w), μ/λ below which W_n = 0 is a minimum", may_be_missing=True),
    key="collapse",
)
def collapse(ray: Ray) -> dict:
    """Curvature at collapse, where the weights W_n of the last layer vanish, by name.

    collapse_error: error of the closed form of the Hessian along ROWS rows of W_n, relative to its norm.
    collapse_eigenvalue: eigenvalues of the Hessian along one row of W_n. Both are NaN for losses without a closed form.
    collapse_threshold: the value of μ/λ below which W_n = 0 is a minimum. feature_correlation: the correlation ρ_w on
    which this threshold depends.
    """
    shape = ray.weights(ray.theta)[-1].shape
    theta = ray.theta.clone()
    theta[-shape.numel() :] = 0
    rows = torch.zeros(ROWS * shape[1], len(theta), dtype=torch.float64)
    start = len(theta) - shape.numel()
    rows[torch.arange(len(rows)), start + torch.arange(len(rows))] = 1
    here, features = ray.jets_along(rows, theta), ray.features
    errors, values = [], []
    for label in ray.study.edges:
        expected = _closed_form(ray, label, *features)
        if expected is None:
            errors.append(math.nan)
            values.append(np.full(shape[1], math.nan))
            continue
        (parts,) = jets.parts(here, [ray.loss(label)], torch.ones(1, dtype=torch.float64), ray.labels)
        found = parts.hessian[0].numpy()
        closed: Any = scipy.linalg.block_diag(*[expected] * ROWS)
        errors.append(np.linalg.norm(found - closed) / (np.linalg.norm(closed) or math.nan))
        values.append(np.linalg.eigvalsh(found[: shape[1], : shape[1]]))
    correlation = _largest_correlation(*features)
    threshold = float(wide_networks.collapse_threshold(correlation, ray.study.epsilon))
    known = {"feature_correlation": correlation, "collapse_threshold": threshold}
    return {"collapse_error": errors, "collapse_eigenvalue": values, **known}


def _closed_form(ray: Ray, label: str, first: np.ndarray, second: np.ndarray) -> np.ndarray | None:
    """Closed form (u, u) of the Hessian along one row of the last layer's weights W_n, at W_n = 0.

    `label` names the loss; the result is None for losses without a closed form. `first` and `second` are the features
    (n, u) of the two views, which are the inputs of the last layer.
    """
    if criteria := jepa_rays.criteria_of(ray.study, label):
        return wide_networks.collapse_hessian(criteria, first, second, ray.study.embedding)
    return wide_networks.collapse_hessian_of_products(first, second) if "dot" in label else None


def _largest_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Largest correlation ρ_w of a linear feature wᵀh in both views, over vectors w (u,); NaN if no feature varies.

    ρ_w is 1 − wᵀ⟨ΔΔᵀ⟩w/wᵀ(Σ + Σ′)w. The features h of the two views are the rows of `first` and `second` (n, u). Δ is
    the difference of these features for one example, and Σ and Σ′ are the covariances of `first` and `second`.
    """
    spread = np.cov(first, rowvar=False) + np.cov(second, rowvar=False)
    variances, axes = np.linalg.eigh(spread)
    alive = variances > DEAD * max(variances[-1], 1e-300)
    if not alive.any():
        return math.nan
    white = (first - second) @ (axes[:, alive] / np.sqrt(variances[alive]))
    return float(1 - np.linalg.eigvalsh(white.T @ white / len(white))[0])


@OBSERVABLES.register(
    Ray,
    on_plane("jets_error", "1", "difference of the Hessian from automatic differentiation over ‖G‖ + ‖H′‖"),
    Variable(
        "degree_error",
        "1",
        "largest difference of the Hessian from its power of the radius, over its norm, by automatic differentiation",
        (CRITERION,),
        may_be_missing=True,
    ),
    key="checked_directions",
)
def checked(ray: Ray) -> dict:
    """Errors of two checks of the Hessian, by name.

    jets_error (criteria, radii) compares the Hessian from jets, which are second-order expansions of the outputs (see
    `curvature.jets`), with the Hessian from automatic differentiation. degree_error (criteria,) tests that the Hessians
    of I and C are proportional to powers of the radius (see DEGREES). Hessians are taken on the first directions of the
    plane, as many as the study's `checked_directions`.
    """
    count, criteria = ray.study.checked_directions, ray.study.criteria
    losses, one = [ray.loss(label) for label in criteria], torch.ones(1, dtype=torch.float64)
    errors, hessians = np.empty((len(criteria), len(ray.radii))), {label: [] for label in criteria}
    for number, radius in enumerate(ray.radii):
        parts = jets.parts(ray.jets_at(radius, count), losses, one, ray.labels)
        for i, (label, each) in enumerate(zip(criteria, parts)):
            found, expected = ray.parts[label].hessian[number, :count, :count], each.hessian[0]
            size = (each.gauss_newton[0].norm() + each.residual[0].norm()).clamp_min(torch.finfo(torch.float64).tiny)
            errors[i, number] = ((found - expected).norm() / size).item()
            hessians[label].append(expected.numpy())
    return {"jets_error": errors, "degree_error": [_degree_error(ray, label, hessians[label]) for label in criteria]}


def _degree_error(ray: Ray, label: str, hessians: list[np.ndarray]) -> float:
    """Largest error of the power law by which the Hessian of the loss `label` should depend on the radius.

    `hessians` holds the Hessian (d, d) at each radius. Each is divided by the power of its radius that DEGREES gives,
    and then compared with the first. The error is relative to the norm of the first. NaN for losses that are not in
    DEGREES.
    """
    if label not in DEGREES:
        return math.nan
    slope, constant = DEGREES[label]
    powers = np.array(ray.radii) ** (slope * ray.depth + constant)
    reduced = np.stack(hessians) / powers[:, None, None]
    return float(np.linalg.norm(reduced - reduced[0], axis=(1, 2)).max() / (np.linalg.norm(reduced[0]) or math.nan))
