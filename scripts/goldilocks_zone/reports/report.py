"""Report on a user's own model: the curvature of its loss at its weights, and the Goldilocks zone around them."""

import copy
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from goldilocks_zone.curvature import dispatch, hessian, top_eigenvectors, working_memory
from goldilocks_zone.curvature.dispatch import PlaneCurvature
from goldilocks_zone.models import networks, weights
from goldilocks_zone.models.problem import Array, Problem
from goldilocks_zone.reports import diagnosis
from goldilocks_zone.reports.findings import Checkpoint, Findings, OnPlanes, Zone
from goldilocks_zone.spectra import summaries
from goldilocks_zone.spectra.lanczos import Search
from goldilocks_zone.subspaces import planes

State = Mapping[str, Tensor] | str | Path
DENSE_SHARE = 0.5  # largest share of `memory_mib` that dense directions may take
EXAMPLES_COMPARED = 32  # examples for comparing both precisions


@dataclass(frozen=True)
class Options:
    """Settings of a report: sizes of its planes, points of its zone, accuracy of its spectra.

    dimensions: dimensions d of the random planes, which are nested. planes: number of planes. zone_dimension: dimension
    of the planes on which the zone is measured, at `scales` of the weights and `temperatures` of the softmax.
    eigenvalues: number of largest eigenvalues. probes, steps: random probes and Lanczos steps of the spectral density.
    memory_mib: memory of each computation in addition to parameters, directions and examples, by default as in
    `radial_sweep`. seed: seed of the planes. progress: print each step to the standard error.
    """

    dimensions: tuple[int, ...] = (10, 50, 100)
    planes: int = 4
    zone_dimension: int = 30
    scales: tuple[float, ...] = tuple(np.geomspace(0.1, 10, 9))
    temperatures: tuple[float, ...] = tuple(np.geomspace(0.1, 10, 7))
    eigenvalues: int = 5
    probes: int = 8
    steps: int = 20
    memory_mib: float | None = None
    seed: int = 0
    progress: bool = field(default_factory=sys.stderr.isatty)


def report(
    model: nn.Module,
    loss: Any,
    batches: tuple[Array, Array] | Iterable,
    checkpoints: Iterable[State] | Mapping[str, State] | None = None,
    options: Options = Options(),
) -> Findings:
    """Measure the curvature of the mean loss of a model at its weights, on random planes and in full space.

    loss: as in `Problem`, for example a criterion of torch.nn. batches: a pair (inputs (n, …), labels (n, …)), or a
    list or DataLoader of such pairs. checkpoints: state dictionaries of the model, or files of state dictionaries; the
    curvature at each is measured on the same planes as at the weights. The model is not modified; if it is in training
    mode, a copy in evaluation mode is measured. `print` shows the findings as text, `Findings.figure()` draws them.

    Raises ValueError like `plane_hessian`, if there are fewer than two planes or more dimensions than parameters, and
    if a checkpoint does not fit the model or is given without a list.
    """
    _refuse_mistakes(options, checkpoints)
    say = _Progress(options.progress, 5 + (checkpoints is not None))
    was_training = any(module.training for module in model.modules())
    measured = copy.deepcopy(model).eval() if was_training else model
    problem, theta = _problem(measured, loss, batches), _weights(measured)
    options = replace(options, memory_mib=working_memory.budget(options.memory_mib, theta))
    rows, kind = _rows(theta, options)
    path = dispatch.path_of(problem, theta, 1)
    say(f"curvature on {options.planes} planes of {max(options.dimensions)} dimensions")
    here = [hessian.plane_hessian(problem, theta, each, options.memory_mib) for each in rows]
    say("the largest eigenvalues")
    search = Search(tolerance=1e-3)
    values, _ = top_eigenvectors.top_eigenpairs(problem, theta, options.eigenvalues, search, options.memory_mib)
    say("the density of all eigenvalues")
    density = hessian.spectral_density(problem, theta, options.steps, options.probes, options.memory_mib)
    say("the zone: radii and temperatures")
    zone = _zone(problem, theta, [each[: options.zone_dimension] for each in rows], options)
    say("precision")
    error = _error_of_single(problem, theta, rows[0][: min(options.dimensions)])
    trajectory = []
    if checkpoints is not None:
        say("checkpoints")
        trajectory = list(_trajectory(measured, loss, batches, checkpoints, rows, options))
    say(None)
    memory = _memory(problem, theta, options) if path == dispatch.AUTOMATIC else None
    findings = Findings(
        model=type(model).__name__,
        parameters=len(theta),
        examples=_size(problem),
        loss_name=problem.loss.name,
        loss=here[0].loss,
        path=path,
        plane_kind=kind,
        planes=_on_planes(here, options.dimensions),
        effective_examples=float(np.mean([each.effective_examples[-1] for each in here])),
        eigenvalues=values,
        density=density,
        zone=zone,
        checkpoints=trajectory,
    )
    seen = diagnosis.Circumstances(_normalises(model) and was_training, error, theta.dtype == torch.float32, memory)
    return diagnosis.diagnosed(findings, seen)


class _Progress:
    """Prints the name of each step to the standard error as it begins."""

    def __init__(self, shown: bool, steps: int):
        self._shown, self._steps, self._number = shown, steps, 0

    def __call__(self, step: str | None) -> None:
        if not self._shown:
            return
        self._number += 1
        text = f"[{self._number}/{self._steps}] {step}" if step else ""
        sys.stderr.write(f"\r\033[K{text}")
        sys.stderr.flush()


def _problem(model: nn.Module, loss: Any, batches: tuple | Iterable) -> Problem:
    if isinstance(batches, tuple) and len(batches) == 2 and all(hasattr(each, "__array__") for each in batches):
        return Problem(model, *batches, loss=loss)
    return Problem(model, batches, loss=loss)


def _weights(model: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(model.parameters()).detach()


def _refuse_mistakes(options: Options, checkpoints: object) -> None:
    if options.planes < 2:
        raise ValueError(f"planes: {options.planes} is too few for a confidence interval; use at least 2")
    if isinstance(checkpoints, str | Path):
        raise ValueError(f"checkpoints: {checkpoints} is one file; give a list of files or of state dictionaries")


def _memory_mib(options: Options) -> float:
    assert options.memory_mib is not None  # `report` replaces the default, which depends on the device.
    return options.memory_mib


def _rows(theta: Tensor, options: Options) -> tuple[list, str]:
    """Directions of all planes, as a list of arrays (d, D), and their kind, "dense" or "sparse".

    d is the largest dimension that the `options` name. Directions are dense if those of all planes together fit into
    the share DENSE_SHARE of `options.memory_mib`. Their data type is that of the parameters `theta` (D,).
    """
    d = max(*options.dimensions, options.zone_dimension)
    if d > theta.numel():
        given = f"{d} dimensions are impossible for a model of {theta.numel()} parameters"
        raise ValueError(f"{given}: give Options smaller dimensions and zone_dimension")
    entries = options.planes * d * theta.numel() * theta.element_size()
    kind = "dense" if entries <= DENSE_SHARE * _memory_mib(options) * 2**20 else "sparse"
    if kind == "dense":
        drawn = (planes.random_plane(d, theta, kind, options.seed + i) for i in range(options.planes))
    else:
        dtype = np.float32 if theta.dtype == torch.float32 else np.float64
        drawn = (
            planes.random_sparse_plane(d, len(theta), options.seed + i).astype(dtype) for i in range(options.planes)
        )
    return list(drawn), kind


def _on_planes(here: list[PlaneCurvature], dimensions: tuple[int, ...]) -> list[OnPlanes]:
    found = []
    for d in dimensions:
        spectra = [summaries.summarise(np.linalg.eigvalsh(each.hessian[:d, :d])) for each in here]
        norms = [[np.linalg.norm(part[:d, :d]) for part in (each.residual, each.gauss_newton)] for each in here]
        ratios = [residual / gauss_newton if gauss_newton else np.inf for residual, gauss_newton in norms]
        found.append(
            OnPlanes.of(
                d,
                np.array([each.trace_over_norm for each in spectra]),
                np.array([each.fraction_positive for each in spectra]),
                np.array(ratios),
            )
        )
    return found


def _zone(problem: Problem, theta: Tensor, rows: list, options: Options) -> Zone:
    points = [(float(scale), 1.0) for scale in options.scales]
    points += [(1.0, float(each)) for each in options.temperatures]
    memory = hessian.Options(memory_mib=options.memory_mib, refuse_overflow=False)
    kappas = np.array(
        [
            [np.nan if found is None else _kappa(found.hessian) for (found,) in at_points]
            for at_points in (hessian.curvature_at(problem, theta, points, each, memory) for each in rows)
        ]
    )
    cut = len(options.scales)
    scales, temperatures = np.array(options.scales), np.array(options.temperatures)
    return Zone(options.zone_dimension, scales, kappas[:, :cut], temperatures, kappas[:, cut:])


def _kappa(matrix: np.ndarray) -> float:
    return summaries.summarise(np.linalg.eigvalsh(matrix)).trace_over_norm


def _error_of_single(problem: Problem, theta: Tensor, rows: Any) -> float:
    """Relative difference between two Hessians, one with tangents in single precision and one in double precision.

    Both are on EXAMPLES_COMPARED examples. `theta` (D,) are the parameters, and `rows` (d, D) the directions of the
    plane, which are the tangents.
    """
    inputs, labels = next(iter(problem.batches()))
    some = Problem(
        problem.network,
        inputs[:EXAMPLES_COMPARED],
        None if labels is None else labels[:EXAMPLES_COMPARED],
        problem.loss,
        problem.temperature,
    )
    single, double = (
        hessian.plane_hessian(some, theta, rows.astype(kind) if hasattr(rows, "astype") else rows.to(other)).hessian
        for kind, other in ((np.float32, torch.float32), (np.float64, torch.float64))
    )
    norm = np.linalg.norm(double)
    return float(np.linalg.norm(single - double) / norm) if norm else 0.0


def _trajectory(
    model: nn.Module, loss: Any, batches: tuple | Iterable, states: Iterable | Mapping, rows: list, options: Options
) -> Iterator[Checkpoint]:
    named = states.items() if isinstance(states, Mapping) else enumerate(states)
    d = options.zone_dimension
    for name, state in named:
        module = loaded(model, state, str(name))
        problem, theta = _problem(module, loss, batches), _weights(module)
        here = [hessian.plane_hessian(problem, theta, each[:d], options.memory_mib) for each in rows]
        norm = float(theta.double().norm() / _weights(model).double().norm())
        yield Checkpoint(str(name), norm, here[0].loss, _on_planes(here, (d,))[0])


def loaded(model: nn.Module, state: State, name: str) -> nn.Module:
    """Copy of a model with the tensors of `state`: a state dictionary, or the path of a torch or safetensors file.

    Files are read without executing code in them. Raises ValueError if a file cannot be read, or if a tensor is
    missing, unexpected or does not fit the model. `name` identifies the checkpoint in messages.
    """
    state = weights.read(state) if isinstance(state, str | Path) else state
    return weights.loaded(model, weights.state_in(state), f"the checkpoint {name}")


def _size(problem: Problem) -> int:
    return sum(len(inputs) for inputs, _ in problem.batches())


def _normalises(model: nn.Module) -> bool:
    return any(isinstance(each, nn.modules.batchnorm._BatchNorm) for each in model.modules())


def _memory(problem: Problem, theta: Tensor, options: Options) -> diagnosis.Fitting:
    """How many examples, and how many directions, automatic differentiation can process at once.

    `theta` (D,) are the parameters. The limit is `options.memory_mib`.
    """
    inputs, _ = next(iter(problem.batches()))
    logits = networks.logits_function(problem.network)
    inputs, memory_mib = torch.as_tensor(inputs), _memory_mib(options)
    examples = working_memory.examples_per_chunk(logits, theta, inputs, memory_mib)
    directions = working_memory.directions_per_chunk(logits, theta, inputs[:1], memory_mib)
    return diagnosis.Fitting(memory_mib, min(examples, len(inputs)), directions)
