"""Measurement of curvature, in blocks of draws and radii: observables of the loss Hessian on random planes.

H is the Hessian of the mean loss, G its Gauss–Newton part, and H′ = H − G the rest. H_d is the matrix (d, d) of H over
d orthonormal directions of a plane. Planes of several dimensions d are nested: they are spanned by the first d of the
same directions. θ are the parameters, and p the softmax outputs. Observables are functions that return values by name;
each measures an object from `curvature_sweeps`, at one point: a radius and a temperature.
"""

import functools
import logging
import time
from dataclasses import replace

import numpy as np
import torch
import xarray as xr
from torch import nn

from goldilocks_zone.config import studies
from goldilocks_zone.curvature import gradients, hessian, top_eigenvectors
from goldilocks_zone.data import datasets
from goldilocks_zone.measurements import blocks
from goldilocks_zone.measurements.curvature import SWEPT, CurvatureStudy
from goldilocks_zone.measurements.curvature_sweeps import Attempt, InFullSpace, InLayers, OnPlane, Sweep
from goldilocks_zone.measurements.observables import DRAW, RADIUS, Axis, Observables, Shape, Variable
from goldilocks_zone.models import initialisation
from goldilocks_zone.spectra import summaries
from goldilocks_zone.subspaces import labels as subspace_labels

EXAMPLES = Axis("examples", lambda shape: shape.study.examples, "number N of examples that the loss is averaged over")
PLANE = Axis("plane", lambda shape: range(shape.study.planes), "number of the random plane")
DIMENSION = Axis("dimension", lambda shape: shape.study.dimensions, "dimension d of the plane")
INDEX = Axis("index", lambda shape: range(max(shape.study.dimensions)), "rank of the eigenvalue, smallest first")
LAYER = Axis(
    "layer",
    lambda shape: range(1, len(initialisation.layer_indicators(shape.module)) + 1),
    "number of the weight layer, first to last",
    of_network=True,
)
EIGENVECTOR = Axis(
    "eigenvector",
    lambda shape: range(1, shape.study.eigenvectors + 1),
    "rank of the eigenvector, largest eigenvalue first",
)
ROW = Axis("row", lambda shape: range(shape.image[1]), "row of pixels")
COLUMN = Axis("column", lambda shape: range(shape.image[2]), "column of pixels")

OBSERVABLES = Observables(EXAMPLES, RADIUS, DRAW)
averaged = functools.partial(Variable, axes=(PLANE, DIMENSION), plane_variance=True)
frozen = functools.partial(Variable, axes=(PLANE, DIMENSION), may_be_missing=True)
of_layers = functools.partial(Variable, axes=(LAYER,), may_be_missing=True)


def measure_block(job: blocks.Job) -> xr.Dataset:
    """Measure all variants of a job's study at the draws and radii of its block; return the labelled results."""
    work, result, module, examples = blocks.begin(job), None, None, None
    study, seed = work.block.study, work.block.seed
    assert isinstance(study, CurvatureStudy)
    given = job.path_to_dataset, job.dataset, max(study.examples)
    load = functools.lru_cache(1)(functools.partial(datasets.load, *given, validation=study.validation, seed=seed))
    for variant in studies.split(study, SWEPT)[0]:
        here = study.at(variant)
        examples = load(**{key: getattr(here, key) for key in ("inputs", "labels", "classes", "example_set")})
        module = work.network(examples)
        _refuse_large_planes(job, module, here.bias_directions)
        trained = work.weights(here, module)
        if result is None:
            shape = Shape(study, module, examples.inputs.shape[1:], examples.classes)
            result = blocks.empty(OBSERVABLES, shape, work.labels)
        for number in work.block.draws:
            sweep = Sweep(work, here, module, examples, number, trained)
            for seen in sweep.seen():
                place = {**studies.place(variant), "draw": number, **seen.place}
                blocks.fill(result, place, OBSERVABLES.measure(here, seen))
            described, seconds = studies.described(variant), time.monotonic() - work.started
            logging.info("draw %d%s measured after %.1f s, %s", number, described, seconds, sweep.path)
    assert result is not None and examples is not None and module is not None  # A study has one variant or more.
    return blocks.sign(result, work, examples, module, dtype=study.dtype)


def _refuse_large_planes(job: blocks.Job, module: nn.Module, biases: bool) -> None:
    """Raise ValueError if the job's plane has more dimensions than the network `module` has parameters to span it.

    These parameters are the weights and, if `biases` is true, also the biases. This is checked here because the sizes
    of dataset and network may be unknown when the settings are checked.
    """
    dimension = subspace_labels.parse_plane(job.subspace).dimension
    available = sum(p.size for p in initialisation.parameters_of(module) if biases or not p.is_bias)
    if dimension > available:
        reason = f"{job.network} has only {available} parameters for it on {job.dataset}"
        raise ValueError(f"a plane of {dimension} dimensions is impossible, since {reason}: ask for fewer dimensions")


@OBSERVABLES.register(
    Attempt,
    Variable("overflow", "1", "1 where logits or the Hessian are not finite on a plane, whose values are missing"),
)
def overflow(seen: Attempt) -> dict:
    """The variable `overflow` at a point: True if the logits or the Hessian overflow on any plane."""
    return {"overflow": seen.overflow}


@OBSERVABLES.register(
    Attempt,
    Variable("own_radius", "r_X", "norm of the weights, or of the initialisation, before it is rescaled"),
    key="weights",
)
def own_radius(seen: Attempt) -> dict:
    """The variable `own_radius`: norm of the parameters θ before they are rescaled to a radius, divided by r_X."""
    return {"own_radius": seen.sweep.own_radius}


@OBSERVABLES.register(
    OnPlane,
    Variable(
        "eigenvalue", "loss", "ascending eigenvalues of H_d, NaN beyond d", (PLANE, DIMENSION, INDEX), aggregated=False
    ),
    averaged("fraction_positive", "1", "fraction of positive eigenvalues of H_d"),
    averaged("trace_over_norm", "1", "Tr(H_d)/‖H_d‖_F, excess positive curvature"),
    averaged("trace", "loss", "Tr(H_d)"),
    averaged("frobenius_norm", "loss", "‖H_d‖_F"),
    averaged("spectral_norm", "loss", "largest absolute eigenvalue of H_d"),
)
def spectra(seen: OnPlane) -> dict:
    """Eigenvalues of the Hessian on nested planes of several dimensions, and summaries of these spectra, by name.

    Eigenvalues are an array (dimensions, largest dimension), padded with NaN. Each summary is a list with one value for
    each dimension d.
    """
    dimensions = seen.sweep.study.dimensions
    values = summaries.nested_eigenvalues(seen.measured.hessian, dimensions)
    padded = np.full((len(dimensions), max(dimensions)), np.nan)
    for row, each in zip(padded, values):
        row[: len(each)] = each
    found = [summaries.summarise(each) for each in values]
    names = ("fraction_positive", "trace_over_norm", "trace", "frobenius_norm", "spectral_norm")
    return {"eigenvalue": padded, **{name: [getattr(each, name) for each in found] for name in names}}


@OBSERVABLES.register(
    OnPlane,
    averaged("gauss_newton_trace", "loss", "Tr(G_d), the Gauss–Newton part"),
    averaged("gauss_newton_norm", "loss", "‖G_d‖_F, the Gauss–Newton part"),
    averaged("gauss_newton_spectral_norm", "loss", "largest eigenvalue of G_d"),
    Variable("residual_trace", "loss", "Tr(H′_d), H′ = H − G", (PLANE, DIMENSION)),
    averaged("residual_norm", "loss", "‖H′_d‖_F, H′ = H − G"),
    averaged("residual_spectral_norm", "loss", "largest absolute eigenvalue of H′_d"),
    averaged("effective_examples", "1", "(Σt)²/Σt², t the traces of the examples' G_d"),
)
def parts(seen: OnPlane) -> dict:
    """Traces and norms of the parts G and H′ of the Hessian on nested planes, and effective numbers of examples.

    Returns lists by name, with one value for each dimension d. The effective number of examples is (Σt)²/Σt², where t
    is the trace of an example's G on the plane.
    """
    dimensions = seen.sweep.study.dimensions
    found = {"effective_examples": [seen.measured.effective_examples[d - 1] for d in dimensions]}
    for part in ("gauss_newton", "residual"):
        matrices = [getattr(seen.measured, part)[:d, :d] for d in dimensions]
        found[f"{part}_trace"] = [np.trace(matrix) for matrix in matrices]
        found[f"{part}_norm"] = [np.linalg.norm(matrix) for matrix in matrices]
        found[f"{part}_spectral_norm"] = [np.abs(np.linalg.eigvalsh(matrix)).max() for matrix in matrices]
    return found


@OBSERVABLES.register(
    OnPlane,
    Variable("loss", "nat (cross-entropy)", "mean loss"),
    Variable("logits_std", "1", "σ_z, deviation of an example's logits, root mean square over examples"),
    Variable("radial_derivative", "loss", "⟨∇L, θ⟩"),
    Variable("zero_logits", "1", "share of the logits that are exactly zero"),
    Variable("entropy", "nat", "mean entropy of the softmax's output p"),
    Variable("prior_mismatch", "1", "‖Q − Q̂‖₂, Q the classes' shares, Q̂ the mean of p"),
    Variable("softmax_ratio", "1", "Γ = Tr(M)/‖M‖_F, M = ⟨diag p − ppᵀ⟩"),
    Variable("class_gradient", "1", "σ_C, root mean square entry of the mean logit gradients", (PLANE,)),
    Variable("example_gradient", "1", "σ_E, deviation of the examples' logit gradients from their mean", (PLANE,)),
)
def outputs(seen: OnPlane) -> dict:
    """Loss, statistics of logits and softmax outputs at a point, and sizes of logit gradients on a plane, by name.

    Each is a single number. `PlaneCurvature` defines them.
    """
    names = ("loss", "logits_std", "radial_derivative", "zero_logits", "entropy", "prior_mismatch", "softmax_ratio")
    return {name: getattr(seen.measured, name) for name in (*names, "class_gradient", "example_gradient")}


@OBSERVABLES.register(
    OnPlane,
    frozen("frozen_softmax", "1", "κ with diag p − ppᵀ in G as at the reference radius"),
    frozen("frozen_residual", "1", "κ with p − y in H′ as at the reference radius"),
    frozen("frozen_scale", "1", "κ with the logit gradients in G as large as at the reference radius"),
    key="counterfactuals",
)
def counterfactuals(seen: OnPlane) -> dict:
    """κ = Tr(H_d)/‖H_d‖_F of a homogeneous network, if one factor of H kept its value at the reference radius.

    With n weight layers and the ratio α of the radius to the reference radius, G ∝ α^{2n−2} (diag p − ppᵀ) and H′ ∝
    α^{n−2} (p − y). The frozen factor is p in G (frozen_softmax), p in H′ (frozen_residual), or α^{2n−2} in G, which is
    the squared scale of the logit gradients (frozen_scale). Returns lists by name, with one κ for each dimension d. The
    result is empty if the curvature at the reference radius was not measured. These are values for the claim vd7.
    """
    if seen.reference is None:
        return {}
    measured, reference, ratio = seen.measured, seen.reference, seen.point.ratio
    depth = blocks.known_depth(seen.sweep.depth, "counterfactuals: true", "false")
    gradients, second = ratio ** (2 * depth - 2), ratio ** (depth - 2)
    hessians = {
        "frozen_softmax": gradients * reference.gauss_newton + measured.residual,
        "frozen_residual": measured.gauss_newton + second * reference.residual,
        "frozen_scale": measured.gauss_newton / gradients + measured.residual,
    }
    nested = {name: summaries.nested_eigenvalues(each, seen.sweep.study.dimensions) for name, each in hessians.items()}
    return {name: [summaries.summarise(each).trace_over_norm for each in values] for name, values in nested.items()}


@OBSERVABLES.register(
    InLayers,
    of_layers("layer_trace", "loss", "σ_l² Tr(H_ll) of one layer's weights, from random probes"),
    of_layers(
        "layer_residual",
        "1",
        "largest |vᵀH′v|/‖PH′v‖ of random v inside one layer's weights, with P the projection on all such v",
    ),
    key="layer_probes",
)
def layers(seen: InLayers) -> dict:
    """For each layer l, the trace σ_l² Tr(H_ll), and the largest |vᵀH′v|/‖PH′v‖ over random probes v, by name.

    H_ll is the diagonal block of the Hessian for layer l, and σ_l² the variance of the weights of this layer. A probe v
    of layer l is a vector in parameter space that vanishes outside the weights of this layer. P projects on the span of
    the probes of all layers. The trace is estimated from the probes.
    """
    sizes, deviations = seen.sweep.layers
    means = np.diag(seen.measured.hessian).reshape(len(sizes), -1).mean(1)
    # Directions of different layers are orthogonal, so orthonormalised directions stay inside their layer.
    shares = np.abs(np.diag(seen.measured.residual)) / np.linalg.norm(seen.measured.residual, axis=1)
    return {
        "layer_trace": (seen.point.scale * deviations) ** 2 * sizes * means,
        "layer_residual": shares.reshape(len(sizes), -1).max(1),
    }


@OBSERVABLES.register(
    InFullSpace,
    Variable("full_trace", "loss", "Tr(ηHη) in full space, Hutchinson estimate"),
    Variable("full_frobenius_norm", "loss", "‖ηHη‖_F in full space, Hutchinson estimate"),
    key="probes",
)
def full_space(seen: InFullSpace) -> dict:
    """Hutchinson estimates of the trace and Frobenius norm of ηHη in full space, by name.

    η is the diagonal metric that multiplies the directions of the planes.
    """
    sweep, (problem, parameters) = seen.sweep, seen.problem
    probes, eta = sweep.probes, sweep.eta
    vectors = torch.as_tensor(probes * eta, device=sweep.work.device).to(getattr(torch, sweep.study.dtype))
    problem, memory_mib = replace(problem, loss=sweep.study.loss), sweep.work.memory_mib
    products = hessian.hessian_vector_products(problem, parameters, vectors, memory_mib=memory_mib)
    found = summaries.hutchinson(probes, products.double().cpu().numpy() * eta)
    return {"full_trace": found.trace, "full_frobenius_norm": found.frobenius_norm}


@OBSERVABLES.register(
    InFullSpace,
    Variable("gradient_norm", "nat", "norm of the gradient in full space"),
    Variable(
        "forced_gradient_norm",
        "nat",
        "norm of the gradient where constants added to the logits make Q̂ = Q",
    ),
    Variable("forced_mismatch", "1", "‖Q − Q̂‖₂ that is left where constants are added to the logits"),
    Variable("class_gradient_norm", "1", "root mean square over classes of ‖⟨∇z_k⟩‖"),
    key="full_gradients",
)
def full_gradients(seen: InFullSpace) -> dict:
    """Norms of the gradients of loss and logits in full space, by name; `gradients.Gradients` defines them."""
    return vars(gradients.gradients(*seen.problem))


@OBSERVABLES.register(
    InFullSpace,
    Variable("top_eigenvalue", "loss", "largest eigenvalues of the Hessian in full space, descending", (EIGENVECTOR,)),
    Variable(
        "eigenvector_image",
        "1",
        "first layer's part of a top eigenvector, averaged over units and channels",
        (EIGENVECTOR, ROW, COLUMN),
    ),
    key="eigenvectors",
)
def eigenvectors(seen: InFullSpace) -> dict:
    """Largest eigenvalues of the Hessian in full space, and images made from their eigenvectors, by name.

    An image is the part of an eigenvector in the weights of the first layer, averaged over the units of this layer and
    over channels. Eigenvalues are (m,) and images (m, h, w), where m is the study's number `eigenvectors`.
    """
    count, memory_mib = seen.sweep.study.eigenvectors, seen.sweep.work.memory_mib
    values, vectors = top_eigenvectors.top_eigenpairs(*seen.problem, count, memory_mib=memory_mib)
    images = top_eigenvectors.first_layer_images(seen.sweep.module, vectors, seen.problem[0].inputs.shape[1:])
    return {"top_eigenvalue": values, "eigenvector_image": images}
