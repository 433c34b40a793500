"""Spectra of the loss Hessian on random planes over radii, for some draws of one study."""

import functools
import logging
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import xarray as xr
import yaml

from goldilocks import (
    curvature,
    datasets,
    kinks,
    labels,
    networks,
    provenance,
    spectrum,
    store,
    studies,
    subspaces,
)
from goldilocks.logs import job_log
from goldilocks.randomness import stream

SUMMARIES = ("fraction_positive", "trace_over_norm", "trace", "frobenius_norm", "spectral_norm")
PARTS = ("gauss_newton_trace", "gauss_newton_norm", "residual_norm", "effective_examples")
AT_A_POINT = ("loss", "logits_std", "radial_derivative")


def measure_curvature(
    path_to_dataset: str,
    path_to_settings: str,
    path_to_code: str,
    path_to_network: str | None,
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

    `path_to_network` leads to the settings of a network of the user's own, which `network` names.
    """
    start = time.monotonic()
    # Read before measuring: code that changes meanwhile must not sign these numbers.
    code = Path(path_to_code).read_text().strip()
    settings = yaml.safe_load(Path(path_to_settings).read_text())
    own = yaml.safe_load(Path(path_to_network).read_text(encoding="utf-8")) if path_to_network else None
    draws, chosen_radii = studies.read_block(block)
    device = torch.device("cuda" if device == "auto" and torch.cuda.is_available() else device.replace("auto", "cpu"))
    torch.set_num_threads(threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False

    @functools.lru_cache(maxsize=1)
    def load(**chosen):
        kept = {key: settings[key] for key in ("validation", "seed")}
        return datasets.load(path_to_dataset, dataset, max(settings["examples"]), **kept, **chosen)

    plane = labels.parse_subspace(subspace)
    result = None
    for variant in studies.variants(settings):
        here = {**settings, **variant, "radii": settings["radii"][chosen_radii]}
        examples = load(**{key: here.get(key) for key in ("inputs", "labels", "classes", "example_set")})
        module = networks.build_named(network, own, examples.inputs.shape[1:], examples.classes)
        _refuse_large_planes(plane, module, here["bias_directions"], network, dataset)
        if result is None:
            result = _empty_block(settings, here["radii"], draws, len(networks.layer_indicators(module)))
        block_of_variant = result.sel({studies.dimension(key): value for key, value in variant.items()})
        for number in draws:
            draw = _make_draw(here, module, dataset, network, plane, number)
            path = _measure(block_of_variant.sel(draw=number), here, examples, draw, device, memory_mib)
            described = "".join(f", {key} {value}" for key, value in variant.items())
            logging.info("draw %d%s measured after %.1f s, %s", number, described, time.monotonic() - start, path)
    result.attrs = provenance.attributes(
        code,
        settings,
        time.monotonic() - start,
        data_checksum=examples.checksum,
        classes=examples.classes,
        network_fingerprint=own["fingerprint"] if own else "",
        seeds=f"streams named {settings['seed']}, purpose, {dataset}, {network}, {subspace}, draw, plane",
        device=str(device),
        dtype=settings["dtype"],
        threads=threads,
    )
    store.write_dataset(result, path_to_output)


@dataclass(frozen=True)
class Draw:
    """What is shared over radii of one random initialisation θ (D,).

    Metric η (D,), raw planes (d, D), probes (m, D) of the full space, and probes (layers · m, D) of single layers.
    """

    module: torch.nn.Module
    theta: np.ndarray
    eta: np.ndarray
    planes: list[np.ndarray]
    probes: np.ndarray
    layer_probes: np.ndarray


def _refuse_large_planes(
    plane: labels.Plane, module: torch.nn.Module, biases: bool, network: str, dataset: str
) -> None:
    """What the configuration could not check while the dataset, or the network, was not known."""
    available = sum(p.size for p in networks.parameters_of(module) if biases or not p.is_bias)
    if plane.dimension > available:
        raise ValueError(
            f"a plane with {plane.dimension} dimensions cannot be: {network} has {available} parameters on {dataset}; "
            "ask for fewer"
        )


def _make_draw(
    settings: dict, module: torch.nn.Module, dataset: str, network: str, plane: labels.Plane, number: int
) -> Draw:
    def named(purpose, *more):
        return stream(settings["seed"], purpose, dataset, network, *more)

    def signs(purpose, count, size):
        return named(purpose, number).choice((-1.0, 1.0), (count, size))

    parameters = networks.parameters_of(module)
    eta = subspaces.metric(
        [p.size for p in parameters],
        [p.is_bias for p in parameters],
        networks.weight_deviations(parameters, settings["initialisation"]),
        settings["metric"],
        settings["bias_directions"],
    )
    layers = networks.layer_indicators(module)
    count = settings["layer_probes"]
    layer_probes = signs("layer probes", count, eta.size) if count else np.empty((0, eta.size))
    return Draw(
        module=module,
        theta=networks.initialise(parameters, settings["initialisation"], named("initialisation", number)),
        eta=eta,
        planes=[
            subspaces.directions(plane, eta, named("plane", plane.kind, number, i))[: max(settings["dimensions"])]
            for i in range(settings["planes"])
        ],
        probes=signs("probes", settings["probes"], eta.size),
        layer_probes=np.concatenate([layer_probes * layer for layer in layers]),
    )


def _measure(
    result: xr.Dataset,
    settings: dict,
    examples: datasets.Examples,
    draw: Draw,
    device: torch.device,
    memory_mib: int,
) -> str:
    """Fill `result`, the part of a block that belongs to one variant and draw; return the way of computing."""
    dtype, module = getattr(torch, settings["dtype"]), draw.module.to(device)

    def on_device(array):
        return torch.as_tensor(array, device=device)

    theta, inputs, targets = (on_device(array) for array in (draw.theta, examples.inputs, examples.labels))
    counts, radii = settings["examples"], settings["radii"]
    r_x = networks.glorot_radius(networks.parameters_of(module))
    scales = [networks.scale(draw.theta, radius, settings["radius_unit"], r_x) for radius in radii]
    options = {"loss": settings["loss"], "memory_mib": memory_mib}

    def sweep(directions):
        """Curvature along the directions at every radius and number of examples."""
        problem = (on_device(directions).to(dtype), inputs, targets)
        kept = {"temperatures": [settings["temperature"]], "examples": counts, **options}
        if not settings["sharpness"]:
            return [found[0] for found in curvature.radial_sweep(module, theta, scales, *problem, **kept)]
        return [
            curvature.radial_sweep(
                kinks.softened(module, scale * theta, inputs, settings["sharpness"]), theta, [scale], *problem, **kept
            )[0][0]
            for scale in scales
        ]

    for i, plane in enumerate(draw.planes):
        for radius, at_radius in zip(radii, sweep(plane)):
            for count, found in zip(counts, at_radius):
                _record(result.sel(radius=radius, examples=count, plane=i), found)
    if len(draw.layer_probes):
        weights = [p for p in networks.parameters_of(module) if not p.is_bias]
        sizes = np.array([p.size for p in weights])
        deviations = np.array(networks.weight_deviations(weights, settings["initialisation"]))
        for radius, scale, at_radius in zip(radii, scales, sweep(draw.layer_probes)):
            for count, found in zip(counts, at_radius):
                means = np.diag(found.hessian).reshape(len(sizes), -1).mean(1)
                place = {"radius": radius, "examples": count}
                result["layer_trace"].loc[place] = (scale * deviations) ** 2 * sizes * means
    vectors = on_device(draw.probes * draw.eta).to(dtype)
    for radius, scale in zip(radii, scales) if len(vectors) else ():
        for count in counts:
            products = curvature.hessian_vector_products(
                module,
                scale * theta,
                vectors,
                inputs[:count],
                targets[:count],
                temperature=settings["temperature"],
                **options,
            )
            found = spectrum.hutchinson(draw.probes, products.double().cpu().numpy() * draw.eta)
            place = {"radius": radius, "examples": count}
            result["full_trace"].loc[place] = found.trace
            result["full_frobenius_norm"].loc[place] = found.frobenius_norm
    return curvature.path_of(module, theta, len(scales))


def _record(here: xr.Dataset, measured: curvature.PlaneCurvature) -> None:
    """Write one plane's measures into the views that `here` holds of a block."""
    for name in AT_A_POINT:
        here[name][()] = getattr(measured, name)
    dimensions = here["dimension"].values.tolist()
    for d, values in zip(dimensions, spectrum.nested_eigenvalues(measured.hessian, dimensions)):
        place = {"dimension": d}
        summary = spectrum.summarise(values)
        for name in SUMMARIES:
            here[name].loc[place] = getattr(summary, name)
        here["gauss_newton_trace"].loc[place] = np.trace(measured.gauss_newton[:d, :d])
        here["gauss_newton_norm"].loc[place] = np.linalg.norm(measured.gauss_newton[:d, :d])
        here["residual_norm"].loc[place] = np.linalg.norm(measured.residual[:d, :d])
        here["effective_examples"].loc[place] = measured.effective_examples[d - 1]
        here["eigenvalue"].loc[place][:d] = values


def _empty_block(settings: dict, radii: list[float], draws: range, layers: int) -> xr.Dataset:
    """A block of missing values: one axis for each key that the study varies, then those of every study."""
    varied = {studies.dimension(key): settings["vary"][key] for key in sorted(settings["vary"])}
    coordinates = {
        **varied,
        "examples": settings["examples"],
        "radius": radii,
        "draw": list(draws),
        "plane": list(range(settings["planes"])),
        "dimension": settings["dimensions"],
        "index": list(range(max(settings["dimensions"]))),
        **({"layer": list(range(1, layers + 1))} if settings["layer_probes"] else {}),
    }
    point = (*varied, "examples", "radius", "draw")
    spectral = (*point, "plane", "dimension")
    axes = {
        "eigenvalue": (*spectral, "index"),
        **dict.fromkeys((*SUMMARIES, *PARTS), spectral),
        **dict.fromkeys(AT_A_POINT, point),
        **(dict.fromkeys(("full_trace", "full_frobenius_norm"), point) if settings["probes"] else {}),
        **({"layer_trace": (*point, "layer")} if settings["layer_probes"] else {}),
    }
    variables = {
        name: (dims, np.full([len(coordinates[dim]) for dim in dims], np.nan), store.MEANINGS[name])
        for name, dims in axes.items()
    }
    return xr.Dataset(variables, coordinates)


if __name__ == "__main__":
    with job_log(snakemake.log[0]):
        measure_curvature(
            path_to_dataset=snakemake.input.dataset,
            path_to_settings=snakemake.input.settings,
            path_to_code=snakemake.input.code,
            path_to_network=next(iter(snakemake.params.network), None),
            dataset=snakemake.wildcards.dataset,
            network=snakemake.wildcards.network,
            subspace=snakemake.wildcards.subspace,
            block=snakemake.wildcards.block,
            device=snakemake.resources.device,
            threads=snakemake.threads,
            memory_mib=snakemake.resources.memory_mib,
            path_to_output=snakemake.output[0],
        )
