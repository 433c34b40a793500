"""Spectra of the loss Hessian on random planes over radii, for some draws of one study."""

import functools
import itertools
import logging
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse
import torch
import xarray as xr

from goldilocks_zone.config import records, studies
from goldilocks_zone.curvature import gradients as curvature_gradients
from goldilocks_zone.curvature import hessian, softened_relu, top_eigenvectors
from goldilocks_zone.data import datasets
from goldilocks_zone.jobs.log import job_log
from goldilocks_zone.measurements import setup
from goldilocks_zone.measurements.curvature import CurvatureStudy
from goldilocks_zone.models import initialisation, labels, networks, user_code
from goldilocks_zone.provenance import attributes
from goldilocks_zone.spectra import estimators, summaries
from goldilocks_zone.storage import netcdf
from goldilocks_zone.storage import variables as storage_variables
from goldilocks_zone.subspaces import labels as subspace_labels
from goldilocks_zone.subspaces import planes as subspaces_planes

SUMMARIES = ("fraction_positive", "trace_over_norm", "trace", "frobenius_norm", "spectral_norm")
PARTS = (
    *("gauss_newton_trace", "gauss_newton_norm", "gauss_newton_spectral_norm"),
    *("residual_trace", "residual_norm", "residual_spectral_norm", "effective_examples"),
)
FROZEN = ("frozen_softmax", "frozen_residual", "frozen_scale")
AT_A_POINT = ("loss", "logits_std", "radial_derivative", "zero_logits", "entropy", "prior_mismatch", "softmax_ratio")
ON_A_PLANE = ("class_gradient", "example_gradient")
# Varied keys whose values are points of one sweep; every other key needs a sweep of its own.
OF_POINTS = ("rescaled", "temperature")


def measure_curvature(
    path_to_dataset: str,
    path_to_settings: str,
    path_to_code: str,
    path_to_network: str | None,
    network_file: str,
    dataset: str,
    network: str,
    subspace: str,
    block: str,
    device: str,
    threads: int,
    memory_mib: int,
    path_to_output: str,
) -> None:
    """Write one block; `memory_mib` bounds working memory, `device` is auto, cpu or cuda.

    `path_to_network` leads to the record of a network of the user's own, which `network` names, and `network_file` to
    its code.
    """
    start = time.monotonic()
    # Read before measuring: code that changes meanwhile must not sign these numbers.
    code = Path(path_to_code).read_text().strip()
    chosen = records.read_block(path_to_settings, dataset, network, subspace, block)
    study, seed = chosen.study, chosen.seed
    own = user_code.recorded(path_to_network, network_file)
    device = setup.start_torch(device, threads)

    @functools.lru_cache(maxsize=1)
    def load(**varied):
        kept = {"validation": study.validation, "seed": seed}
        return datasets.load(path_to_dataset, dataset, max(study.examples), **kept, **varied)

    plane = subspace_labels.parse_plane(subspace)
    result = None
    of_points = studies.variants(study, [key for key in OF_POINTS if key in study.vary])
    for variant in studies.variants(study, [key for key in sorted(study.vary) if key not in OF_POINTS]):
        here = study.model_copy(update={**variant, "radii": chosen.radii})
        examples = load(**{key: getattr(here, key) for key in ("inputs", "labels", "classes", "example_set")})
        module = networks.build_named(network, own, examples.inputs.shape[1:], examples.classes)
        _refuse_large_planes(plane, module, here.bias_directions, network, dataset)
        if result is None:
            result = _empty_block(study, chosen.radii, chosen.draws, module, examples)
        block_of_variant = result.sel(_place(variant))
        for number in chosen.draws:
            draw = _make_draw(here, seed, module, dataset, network, plane, number)
            points = _points(here, of_points, draw)
            path = _measure(block_of_variant.sel(draw=number), here, examples, draw, points, device, memory_mib)
            described = "".join(f", {key} {value}" for key, value in variant.items())
            logging.info("draw %d%s measured after %.1f s, %s", number, described, time.monotonic() - start, path)
    result.attrs = attributes.attributes(
        code,
        records.of_measurement(study, seed),
        time.monotonic() - start,
        data_checksum=examples.checksum,
        classes=examples.classes,
        network_fingerprint=own.fingerprint if own else "",
        seeds=f"streams named {seed}, purpose, {dataset}, {network}, {subspace}, draw, plane",
        r_x=initialisation.glorot_radius(initialisation.parameters_of(module)),
        device=str(device),
        dtype=study.dtype,
        threads=threads,
    )
    netcdf.write_dataset(result, path_to_output)


@dataclass(frozen=True)
class Draw:
    """What is shared over radii of one random initialisation θ (D,) of a network of `depth` weight layers.

    Metric η (D,), raw planes (d, D), probes (m, D) of the full space, and probes (layers · m, D) of single layers.
    """

    module: torch.nn.Module
    depth: int | None
    theta: np.ndarray
    eta: np.ndarray
    planes: list[np.ndarray | scipy.sparse.csr_array]
    probes: np.ndarray
    layer_probes: np.ndarray


def _refuse_large_planes(
    plane: subspace_labels.Plane, module: torch.nn.Module, biases: bool, network: str, dataset: str
) -> None:
    """What the configuration could not check while the dataset, or the network, was not known."""
    available = sum(p.size for p in initialisation.parameters_of(module) if biases or not p.is_bias)
    if plane.dimension > available:
        raise ValueError(
            f"a plane with {plane.dimension} dimensions cannot be: {network} has {available} parameters on {dataset}; "
            "ask for fewer"
        )


def _make_draw(
    study: CurvatureStudy,
    seed: int,
    module: torch.nn.Module,
    dataset: str,
    network: str,
    plane: subspace_labels.Plane,
    number: int,
) -> Draw:
    streams, count = setup.Streams(seed, dataset, network), max(study.dimensions)

    def signs(purpose, number_of_probes, size):
        return streams.stream(purpose, number).choice((-1.0, 1.0), (number_of_probes, size))

    parameters = initialisation.parameters_of(module)
    eta = setup.metric(study, parameters)
    layers = initialisation.layer_indicators(module)
    probes = study.layer_probes
    layer_probes = signs("layer probes", probes, eta.size) if probes else np.empty((0, eta.size))
    return Draw(
        module=module,
        depth=labels.depth(network),
        theta=streams.initialisation(parameters, study.initialisation, number),
        eta=eta,
        planes=[
            subspaces_planes.directions_as_drawn(plane, eta, streams.stream("plane", plane.kind, number, i))[:count]
            for i in range(study.planes)
        ],
        probes=signs("probes", study.probes, eta.size),
        layer_probes=np.concatenate([layer_probes * layer for layer in layers]),
    )


@dataclass(frozen=True)
class Point:
    """Where curvature is measured: its place in a block, the factor on θ, the softmax's temperature, the radius over
    that of reference, and whether it rescales the parameters alone."""

    place: dict
    scale: float
    temperature: float
    ratio: float
    scaled: bool = True


def _points(study: CurvatureStudy, variants: list[dict], draw: Draw) -> list[Point]:
    """The points of a sweep: every radius, with every one of `variants` of the keys OF_POINTS."""
    r_x = initialisation.glorot_radius(initialisation.parameters_of(draw.module))
    points = []
    for radius, variant in itertools.product(study.radii, variants):
        here = study.model_copy(update=variant)
        scale, temperature = initialisation.scale(draw.theta, radius, here.radius_unit, r_x), here.temperature
        ratio = initialisation.ratio(radius, here.radius_unit, r_x)
        if here.rescaled != "parameters":
            if draw.depth is None:
                raise ValueError(
                    f"rescaled: {here.rescaled} needs the number of weight layers, which is not known of a network "
                    "of your own: use parameters"
                )
            temperature *= ratio ** (draw.depth if here.rescaled == "both" else -draw.depth)
            scale = scale if here.rescaled == "both" else scale / ratio
        place, scaled = {"radius": radius, **_place(variant)}, here.rescaled == "parameters"
        points.append(Point(place, scale, temperature, ratio, scaled))
    return points


def _place(variant: dict) -> dict:
    return {studies.dimension(key): value for key, value in variant.items()}


def _measure(
    result: xr.Dataset,
    study: CurvatureStudy,
    examples: datasets.Examples,
    draw: Draw,
    points: list[Point],
    device: torch.device,
    memory_mib: int,
) -> str:
    """Fill `result`, the part of a block that belongs to one variant and draw; return the way of computing."""
    dtype, module = getattr(torch, study.dtype), draw.module.to(device)

    def on_device(array):
        return torch.as_tensor(array, device=device)

    theta, inputs, targets = (on_device(array) for array in (draw.theta, examples.inputs, examples.labels))
    counts = study.examples
    options = {"loss": study.loss, "memory_mib": memory_mib}

    def sweep(directions, points):
        """Curvature along the directions at every point and number of examples."""
        if scipy.sparse.issparse(directions):
            directions = directions.astype(study.dtype)
        else:
            directions = on_device(directions).to(dtype)
        problem = (directions, inputs, targets)
        kept = {"examples": counts, "refuse_overflow": False, **options}
        pairs = [(point.scale, point.temperature) for point in points]
        if not study.sharpness and not study.one_by_one:
            return hessian.curvature_at(module, theta, pairs, *problem, **kept)
        found = []
        for scale, temperature in pairs:
            here = module
            if study.sharpness:
                here = softened_relu.softened(module, scale * theta, inputs, study.sharpness)
            found += hessian.curvature_at(here, theta, [(scale, temperature)], *problem, **kept)
        return found

    for i, plane in enumerate(draw.planes):
        found = sweep(plane, points)
        references = sweep(plane, [_reference(points)])[0] if study.counterfactuals else [None] * len(counts)
        for point, at_point in zip(points, found):
            for count, measured, reference in zip(counts, at_point, references):
                here = _views(result, point.place | {"examples": count, "plane": i})
                here["overflow"][()] = measured is None
                if measured is not None:
                    _record(here, study.dimensions, measured)
                if measured is not None and reference is not None and point.scaled:
                    _record_frozen(here, study.dimensions, measured, reference, draw.depth, point.ratio)
    if len(draw.layer_probes):
        weights = [p for p in initialisation.parameters_of(module) if not p.is_bias]
        sizes = np.array([p.size for p in weights])
        deviations = np.array(initialisation.weight_deviations(weights, study.initialisation))
        for point, at_point in zip(points, sweep(draw.layer_probes, points)):
            for count, found in zip(counts, at_point):
                if found is None:
                    continue
                place = point.place | {"examples": count}
                means = np.diag(found.hessian).reshape(len(sizes), -1).mean(1)
                result["layer_trace"].loc[place] = (point.scale * deviations) ** 2 * sizes * means
                # Orthonormal directions of a layer stay inside it.
                shares = np.abs(np.diag(found.residual)) / np.linalg.norm(found.residual, axis=1)
                result["layer_residual"].loc[place] = shares.reshape(len(sizes), -1).max(1)
    for point, count in itertools.product(points, counts):
        problem = (module, point.scale * theta, inputs[:count], targets[:count])
        here = _views(result, point.place | {"examples": count})
        if here["overflow"]:
            continue
        if study.probes:
            vectors = on_device(draw.probes * draw.eta).to(dtype)
            products = hessian.hessian_vector_products(
                *problem[:2], vectors, *problem[2:], temperature=point.temperature, **options
            )
            found = estimators.hutchinson(draw.probes, products.double().cpu().numpy() * draw.eta)
            here["full_trace"][()], here["full_frobenius_norm"][()] = found.trace, found.frobenius_norm
        if study.full_gradients:
            found = curvature_gradients.gradients(*problem, temperature=point.temperature)
            for name in curvature_gradients.GRADIENTS:
                here[name][()] = getattr(found, name)
        if study.eigenvectors:
            values, vectors = top_eigenvectors.top(
                *problem, study.eigenvectors, temperature=point.temperature, memory_mib=memory_mib
            )
            here["top_eigenvalue"][:] = values
            here["eigenvector_image"][:] = top_eigenvectors.first_layer_images(module, vectors, inputs.shape[1:])
    count = 1 if study.one_by_one or study.sharpness else len(points)
    return hessian.path_of(module, theta, count, inputs)


def _reference(points: list[Point]) -> Point:
    """The point at the radius of reference, of those that rescale the parameters."""
    first = next(point for point in points if point.scaled)
    return Point({}, first.scale / first.ratio, first.temperature, 1.0)


def _views(block: xr.Dataset, place: dict) -> dict[str, np.ndarray]:
    """The arrays of a place in a block, by name, to write to: xarray would look the place up for every number."""
    return {name: array.values for name, array in block.sel(place).data_vars.items()}


def _record(here: dict[str, np.ndarray], dimensions: list[int], measured: hessian.PlaneCurvature) -> None:
    """Write one plane's measures into the views that `here` holds of a block."""
    for name in (*AT_A_POINT, *ON_A_PLANE):
        here[name][()] = getattr(measured, name)
    for i, (d, values) in enumerate(zip(dimensions, summaries.nested_eigenvalues(measured.hessian, dimensions))):
        summary = summaries.summarise(values)
        for name in SUMMARIES:
            here[name][i] = getattr(summary, name)
        for part in ("gauss_newton", "residual"):
            matrix = getattr(measured, part)[:d, :d]
            here[f"{part}_trace"][i] = np.trace(matrix)
            here[f"{part}_norm"][i] = np.linalg.norm(matrix)
            here[f"{part}_spectral_norm"][i] = np.abs(np.linalg.eigvalsh(matrix)).max()
        here["effective_examples"][i] = measured.effective_examples[d - 1]
        here["eigenvalue"][i, :d] = values


def _record_frozen(
    here: dict[str, np.ndarray],
    dimensions: list[int],
    measured: hessian.PlaneCurvature,
    reference: hessian.PlaneCurvature,
    depth: int,
    ratio: float,
) -> None:
    """Write κ as it would be with one factor of the Hessian as at ratio 1, in a homogeneous network (vd7).

    G ∝ α^{2n−2} diag p − ppᵀ and H′ ∝ α^{n−2} (p − y): frozen_softmax has p of ratio 1 in the former, frozen_residual
    in the latter, frozen_scale the logit gradients in G.
    """
    gradients, second = ratio ** (2 * depth - 2), ratio ** (depth - 2)
    hessians = {
        "frozen_softmax": gradients * reference.gauss_newton + measured.residual,
        "frozen_residual": measured.gauss_newton + second * reference.residual,
        "frozen_scale": measured.gauss_newton / gradients + measured.residual,
    }
    for (i, d), (name, matrix) in itertools.product(enumerate(dimensions), hessians.items()):
        here[name][i] = summaries.summarise(np.linalg.eigvalsh(matrix[:d, :d])).trace_over_norm


def _empty_block(
    study: CurvatureStudy, radii: list[float], draws: range, module: torch.nn.Module, examples: datasets.Examples
) -> xr.Dataset:
    """A block of missing values: one axis for each key that the study varies, then those of every study."""
    varied = {studies.dimension(key): study.vary[key] for key in sorted(study.vary)}
    layers, (height, width) = len(initialisation.layer_indicators(module)), examples.inputs.shape[2:]
    coordinates = {
        **varied,
        "examples": study.examples,
        "radius": radii,
        "draw": list(draws),
        "plane": list(range(study.planes)),
        "dimension": study.dimensions,
        "index": list(range(max(study.dimensions))),
    }
    point = (*varied, "examples", "radius", "draw")
    spectral = (*point, "plane", "dimension")
    axes = {
        "eigenvalue": (*spectral, "index"),
        **dict.fromkeys((*SUMMARIES, *PARTS), spectral),
        **dict.fromkeys(("overflow", *AT_A_POINT), point),
        **dict.fromkeys(ON_A_PLANE, (*point, "plane")),
    }
    if study.counterfactuals:
        axes |= dict.fromkeys(FROZEN, spectral)
    if study.probes:
        axes |= dict.fromkeys(("full_trace", "full_frobenius_norm"), point)
    if study.full_gradients:
        axes |= dict.fromkeys(curvature_gradients.GRADIENTS, point)
    if study.layer_probes:
        coordinates |= {"layer": list(range(1, layers + 1))}
        axes |= dict.fromkeys(("layer_trace", "layer_residual"), (*point, "layer"))
    if study.eigenvectors:
        coordinates |= {"eigenvector": list(range(1, study.eigenvectors + 1))}
        coordinates |= {"row": list(range(height)), "column": list(range(width))}
        axes |= {"top_eigenvalue": (*point, "eigenvector")}
        axes |= {"eigenvector_image": (*point, "eigenvector", "row", "column")}
    variables = {
        name: (dims, np.full([len(coordinates[dim]) for dim in dims], np.nan), storage_variables.MEANINGS[name])
        for name, dims in axes.items()
    }
    return xr.Dataset(variables, coordinates)


if __name__ == "__main__":
    with job_log(snakemake.log[0], snakemake.input):
        measure_curvature(
            path_to_dataset=snakemake.input.dataset,
            path_to_settings=snakemake.input.settings,
            path_to_code=snakemake.input.code,
            path_to_network=next(iter(snakemake.input.network), None),
            network_file=snakemake.resources.network_file,
            dataset=snakemake.wildcards.dataset,
            network=snakemake.wildcards.network,
            subspace=snakemake.wildcards.subspace,
            block=snakemake.wildcards.block,
            device=snakemake.resources.device,
            threads=snakemake.threads,
            memory_mib=snakemake.resources.memory_mib,
            path_to_output=snakemake.output[0],
        )
