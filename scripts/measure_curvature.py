"""Spectra of the loss Hessian on random planes over radii, for some draws of one study."""

import logging
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import xarray as xr
import yaml

from goldilocks import curvature, datasets, labels, networks, own_code, provenance, spectrum, store, studies, subspaces
from goldilocks.logs import job_log
from goldilocks.randomness import stream

SUMMARIES = ("fraction_positive", "trace_over_norm", "trace", "frobenius_norm", "spectral_norm")


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
    """Write one block; `memory_mib` bounds a pass of differentiation, `device` is auto, cpu or cuda.

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

    examples = datasets.load(
        path_to_dataset,
        dataset,
        count=max(settings["examples"]),
        classes=settings.get("classes"),
        **{key: settings[key] for key in ("inputs", "labels", "validation", "seed")},
    )
    radii = settings["radii"][chosen_radii]
    plane = labels.parse_subspace(subspace)
    coordinates = {
        "examples": settings["examples"],
        "radius": radii,
        "draw": list(draws),
        "plane": range(settings["planes"]),
        "dimension": settings["dimensions"],
        "index": range(max(settings["dimensions"])),
    }
    result = _empty_block(coordinates, probes=settings["probes"] > 0)
    module = _build(network, own, examples)
    _refuse_large_planes(plane, module, settings["bias_directions"], network, dataset)
    for number in draws:
        draw = _make_draw(settings, module, dataset, network, plane, number)
        _measure(result.sel(draw=number), settings, examples, draw, device, memory_mib)
        logging.info("draw %d measured after %.1f s", number, time.monotonic() - start)
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
    """One random initialisation θ (D,), metric η (D,), raw planes (d, D) and probes (m, D): shared over radii."""

    module: torch.nn.Module
    theta: np.ndarray
    eta: np.ndarray
    planes: list[np.ndarray]
    probes: np.ndarray


def _build(network: str, own: dict | None, examples: datasets.Examples) -> torch.nn.Module:
    image = examples.inputs.shape[1:]
    if own is None:
        return networks.build(labels.parse_network(network), image, examples.classes)
    name = f"network {network} ({own['name']} in {own['file']})"
    return networks.build_own(own_code.load(own), image, examples.classes, own["arguments"], name)


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

    parameters = networks.parameters_of(module)
    eta = subspaces.metric(
        [p.size for p in parameters],
        [p.is_bias for p in parameters],
        networks.weight_deviations(parameters, settings["initialisation"]),
        settings["metric"],
        settings["bias_directions"],
    )
    return Draw(
        module=module,
        theta=networks.initialise(parameters, settings["initialisation"], named("initialisation", number)),
        eta=eta,
        planes=[
            subspaces.directions(plane, eta, named("plane", plane.kind, number, i))[: max(settings["dimensions"])]
            for i in range(settings["planes"])
        ],
        probes=named("probes", number).choice((-1.0, 1.0), (settings["probes"], eta.size)),
    )


def _measure(
    result: xr.Dataset,
    settings: dict,
    examples: datasets.Examples,
    draw: Draw,
    device: torch.device,
    memory_mib: int,
) -> None:
    """Fill `result`, the part of a block that belongs to one initialisation, radius by radius."""
    dtype = getattr(torch, settings["dtype"])

    def on_device(array):
        return torch.as_tensor(array, device=device, dtype=dtype)

    logits = networks.logits_function(draw.module.to(device, dtype))
    r_x = networks.glorot_radius(networks.parameters_of(draw.module))
    inputs, targets = on_device(examples.inputs), torch.as_tensor(examples.labels, device=device)
    options = {"loss": settings["loss"], "temperature": settings["temperature"], "memory_mib": memory_mib}
    for radius in result["radius"].values:
        here = result.sel(radius=radius)
        theta = on_device(networks.rescaled(draw.theta, radius, settings["radius_unit"], r_x))
        for i, plane in enumerate(draw.planes):
            measured = curvature.plane_curvature(
                logits, theta, on_device(plane), inputs, targets, examples=settings["examples"], **options
            )
            for count, each in zip(settings["examples"], measured):
                _record(here.sel(examples=count, plane=i), each)
        for count in settings["examples"] if settings["probes"] else []:
            products = curvature.hessian_vector_products(
                logits, theta, on_device(draw.probes * draw.eta), inputs[:count], targets[:count], **options
            )
            found = spectrum.hutchinson(draw.probes, products.double().cpu().numpy() * draw.eta)
            here["full_trace"].loc[{"examples": count}] = found.trace
            here["full_frobenius_norm"].loc[{"examples": count}] = found.frobenius_norm


def _record(here: xr.Dataset, measured: curvature.PlaneCurvature) -> None:
    """Write one plane's measures into the views that `here` holds of a block."""
    here["loss"][()] = measured.loss
    here["logits_std"][()] = measured.logits_std
    dimensions = here["dimension"].values.tolist()
    for d, values in zip(dimensions, spectrum.nested_eigenvalues(measured.hessian, dimensions)):
        place = {"dimension": d}
        summary = spectrum.summarise(values)
        for name in SUMMARIES:
            here[name].loc[place] = getattr(summary, name)
        here["gauss_newton_trace"].loc[place] = np.trace(measured.gauss_newton[:d, :d])
        here["effective_examples"].loc[place] = measured.effective_examples[d - 1]
        here["eigenvalue"].loc[place][:d] = values


def _empty_block(coordinates: dict, probes: bool) -> xr.Dataset:
    spectral = ("examples", "radius", "draw", "plane", "dimension")
    point = ("examples", "radius", "draw")
    axes = {
        "eigenvalue": (*spectral, "index"),
        **dict.fromkeys((*SUMMARIES, "gauss_newton_trace", "effective_examples"), spectral),
        **dict.fromkeys(("loss", "logits_std"), point),
        **(dict.fromkeys(("full_trace", "full_frobenius_norm"), point) if probes else {}),
    }
    sizes = {name: len(values) for name, values in coordinates.items()}
    variables = {
        name: (dims, np.full([sizes[dim] for dim in dims], np.nan), store.MEANINGS[name]) for name, dims in axes.items()
    }
    return xr.Dataset(variables, {name: list(values) for name, values in coordinates.items()})


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
