"""`make bench`: cost of the exact projected Hessian by this engine and by other methods, on the same work in one run.

Writes one row for each case and method:

  case            the network, then the settings that differ from the defaults. The network is given by its widths, by a
                  label of the studies, as CNN (five blocks of convolution, pooling and ReLU), or by its name in
                  benchmarks/networks.py. Defaults: one point at r_X, d = 50 directions, N = 1000 examples, float32
                  tangents, sparse planes with the shell metric as in the studies, and biases that are zero but have
                  directions. Settings: d; N; float64; R radii from log10 r²/r_X² = -4 to 4; T further temperatures
                  from 1e-6 to 1e6 at r_X; -nobias: no biases; dense: Gaussian directions
  method          see benchmarks/methods.py
  seconds         median over rounds in which the methods take turns, after a warm-up; for methods whose warm-up takes
                  longer than SLOW_SECONDS, the time of the warm-up
  first_seconds   seconds of the warm-up at full size, including compilation and everything cached for later calls
  peak_mib        peak memory of one run in a separate process, minus the memory of this process with its inputs:
                  resident memory, or on a GPU the memory allocated by torch
  flops           flops of one run in matrix products and convolutions, counted by torch.utils.flop_counter
  ratio_to_engine seconds relative to `engine`, or to `engine_sweep` in cases with several radii
  least, greatest least and greatest ratio over the rounds

Methods that take one point at a time are timed on all radii. Their memory is measured at one radius; their flops are
counted at one radius and multiplied by the number of radii. The projected Hessian H_d of every method is compared with
the H_d of `engine`, and a wrong one stops the benchmark. The method `matmul` computes no H_d.
"""

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from benchmarks import methods, tools
from benchmarks.methods import Problem
from benchmarks.networks import NETWORKS
from goldilocks_zone.models import initialisation, networks
from goldilocks_zone.models.labels import parse_network
from goldilocks_zone.subspaces import planes
from goldilocks_zone.subspaces.labels import Plane

SLOW_SECONDS = 10.0
ENGINES = ("engine", "engine_sweep")
# Relative error that rounding may cause, in units of eps · max(1, largest logit); as in the tests of the engine.
TOLERANCE = 200.0
# Sizes of a small problem that loads every library and kernel before anything is measured.
SMALL_DIRECTIONS, SMALL_EXAMPLES = 2, 8
PRELOADED = ["benchmarks.curvature", *methods.LIBRARIES.values(), "torch._dynamo"]  # for the counter of flops
WIDTHS_200 = (784, 200, 200, 10)


@dataclass(frozen=True)
class Case:
    """A network, the size of the work, and the device.

    The network is given by its widths, its label in the studies or its name in benchmarks/networks.py; without any, it
    is the CNN. left_out: methods that are not measured.
    """

    widths: tuple[int, ...] | None = None
    label: str | None = None
    name: str | None = None
    biases: bool = True
    directions: int = 50
    examples: int = 1000
    radii: int = 1
    temperatures: int = 0
    double: bool = False
    plane: str = "sparse"
    left_out: tuple[str, ...] = ()
    device: str = "cpu"
    # Relative error allowed in addition to rounding. Competitors evaluate the network in single precision, where in a
    # deep network some inputs of ReLU round to the other side of zero. In double precision, all agree to rounding.
    flips: float = 0.0


# In GROWTH, two ways of computing stand for the libraries that use them; large cases leave out the slowest way too.
LIBRARIES = tuple(methods.LIBRARIES)
LARGE = (*LIBRARIES, "torch.func.hessian")
WAYS = ("torch.func.hessian", "vmap jvp-grad", "vmap jvp-grad compiled", "double backward loop")
OTHERS = (*LIBRARIES, *WAYS)
SWEPT = {"biases": False, "radii": 49, "temperatures": 49, "left_out": (*OTHERS, "engine", "matmul")}
MAIN = {
    "784-200-200-10": Case(WIDTHS_200),
    "3072-200-200-10": Case((3072, 200, 200, 10)),
    "CNN": Case(None),
    "784-200-200-10 float64": Case(WIDTHS_200, double=True),
    "784-200-200-10-nobias R=25": Case(WIDTHS_200, biases=False, radii=25),
    "784-200-200-10 R=25": Case(WIDTHS_200, radii=25, left_out=WAYS),
    "784-200-200-10 dense": Case(WIDTHS_200, plane="dense"),
    "784-200-200-10-nobias R=25 dense": Case(WIDTHS_200, biases=False, radii=25, plane="dense", left_out=LARGE),
    # The networks and grids of the studies of scale and temperature.
    "fc-300-100-relu-nobias": Case(label="fc-300-100-relu-nobias", biases=False, left_out=OTHERS),
    "fc-300-100-relu-nobias R=49 T=49": Case(label="fc-300-100-relu-nobias", **SWEPT),
    "lenet5-nobias": Case(label="lenet5-nobias", biases=False, left_out=OTHERS),
    "lenet5-nobias R=49 T=49": Case(label="lenet5-nobias", **SWEPT),
}
GROWTH = {
    "784-200-200-10 d=10": Case(WIDTHS_200, directions=10, left_out=LIBRARIES),
    "784-200-200-10": MAIN["784-200-200-10"],
    "784-200-200-10 d=100": Case(WIDTHS_200, directions=100, left_out=LIBRARIES),
    "784-200-200-10 d=500": Case(WIDTHS_200, directions=500, left_out=LARGE),
    "784-200-200-10 N=250": Case(WIDTHS_200, examples=250, left_out=LIBRARIES),
    "784-200-200-10 N=4000": Case(WIDTHS_200, examples=4000, left_out=LARGE),
    "784-50-50-10": Case((784, 50, 50, 10), left_out=LIBRARIES),
    "784-800-800-10": Case((784, 800, 800, 10), left_out=LARGE),
    "784-200-200-10-nobias": Case(WIDTHS_200, biases=False, left_out=LIBRARIES),
    "784-200-200-10-nobias R=5": Case(WIDTHS_200, biases=False, radii=5, left_out=LIBRARIES),
    "784-200-200-10-nobias R=25": MAIN["784-200-200-10-nobias R=25"],
}
# `matmul` exists only for sequences of layers. With layer normalisation, torch's jvp over jacrev, which curvlinops
# 3.0.1 and torch.func.hessian use, is wrong by several per cent even in double precision; jvp over grad is right.
GENERAL = {
    name + " dense" * (plane == "dense"): Case(
        name=name,
        examples=64 if name in ("resnet18", "vision transformer") else 1000,
        plane=plane,
        left_out=("matmul", "torch.func.hessian", *["curvlinops"] * (name in ("vision transformer", "normalised"))),
        flips=1e-2 if name == "resnet18" else 0.0,
    )
    for name in NETWORKS
    for plane in ("sparse", "dense")
}
CASES = {"main": MAIN, "growth": GROWTH, "general": GENERAL, "all": MAIN | GROWTH | GENERAL}


def build_problem(case: Case) -> Problem:
    """Build the problem of a case from Gaussian images, random labels, a Glorot initialisation and a random plane."""
    torch.manual_seed(0)
    image = {784: (1, 28, 28), 3072: (3, 32, 32)}.get(case.widths[0], (case.widths[0],)) if case.widths else (1, 28, 28)
    network = methods.dense(case.widths, case.biases) if case.widths else _convolutional()
    if case.label:
        image = (3, 32, 32) if case.label.startswith("lenet5") else image
        network = networks.build(parse_network(case.label), image, 10)
    if case.name:
        build, image = NETWORKS[case.name]
        network = build().eval()
    network = network.double()
    scales = [each.weight for each in network.modules() if "Norm" in type(each).__name__]
    for tensor in network.parameters():
        if tensor.ndim > 1:
            nn.init.xavier_normal_(tensor)
        elif not any(tensor is scale for scale in scales):
            nn.init.zeros_(tensor)
    parameters = nn.utils.parameters_to_vector(network.parameters()).detach()
    weights = initialisation.parameters_of(network)
    sizes, are_biases = zip(*((parameter.size, parameter.is_bias) for parameter in weights))
    deviations = initialisation.weight_deviations(weights, "glorot")
    eta = planes.metric(sizes, are_biases, deviations, "shell", bias_directions=case.biases)
    dtype = np.float64 if case.double else np.float32
    plane = Plane(case.directions, case.plane)
    drawn = planes.directions_as_drawn(plane, eta, np.random.default_rng(0)).astype(dtype)
    directions = torch.as_tensor(drawn.toarray() if plane.kind == "sparse" else drawn)
    drawn = drawn if plane.kind == "sparse" else directions.to(case.device)
    inputs = torch.randn(case.examples, *image, dtype=torch.float64)
    labels = torch.randint(case.widths[-1] if case.widths else 10, (case.examples,))
    # r_X is a root mean square norm. The norm of this initialisation, which differs by less than 1 %, takes its place.
    points = [(10 ** (x / 2), 1.0) for x in np.linspace(-4, 4, case.radii)] if case.radii > 1 else [(1.0, 1.0)]
    points += [(1.0, 10**x) for x in np.linspace(-6, 6, case.temperatures)]
    moved = (each.to(case.device) for each in (network, parameters, directions, inputs, labels))
    return Problem(*moved, points, drawn)


def _convolutional() -> nn.Sequential:
    layers = []
    for channels in (1, 16, 16, 16, 16):
        layers += [nn.Conv2d(channels, 16, 3, padding=1), nn.MaxPool2d(2, ceil_mode=True), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16, 10))


def bench(cases: dict[str, Case], path_to_output: str) -> None:
    """Print which libraries are not installed, and measure `cases` by the other methods; see `tools.bench`."""
    if missing := sorted(set(methods.METHODS) - set(methods.installed())):
        print(f"not installed, and left out: {', '.join(missing)} (make bench installs them)", flush=True)
    tools.bench(measure_seconds, memory_and_flops, PRELOADED, cases, path_to_output)


def measure_seconds(name: str, case: Case) -> dict[str, list[float]]:
    """Seconds of all runs of each method on the `case` with this `name`, in the form of `tools.seconds_in_turns`.

    Raises ValueError in one sentence if the H_d of a method differs from that of the engine by more than rounding.
    """
    problem = build_problem(case)
    factor = planes.cholesky(problem.directions.double().cpu().numpy())
    tolerances = [max(case.flips, each) for each in _tolerances(problem)]
    runs, times, reference = {}, {}, None
    for method in methods.installed():
        if method in case.left_out or (method == "engine_sweep" and case.radii == 1):
            continue
        try:
            prepare(method, build_problem(_small(case)))()
            runs[method] = prepare(method, problem)
            start = time.perf_counter()
            found = runs[method]()
            times[method] = time.perf_counter() - start
        except RuntimeError as error:  # Other libraries do not support every network.
            if method in ENGINES:
                raise
            print(f"{name}: {method}: fails, {str(error).splitlines()[0]}", flush=True)
            runs.pop(method, None)
            continue
        if method == "matmul":
            continue
        # Competitors return H_d over the raw directions, the engine over orthonormal ones.
        hessians = [
            planes.orthonormalised(each.double().cpu().numpy(), factor) if torch.is_tensor(each) else each.hessian
            for each in found
        ]
        reference = hessians if reference is None else reference
        errors = [np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in zip(hessians, reference)]
        worst = max(range(len(errors)), key=lambda i: errors[i] / tolerances[i])
        print(f"{name}: {method}: relative error {errors[worst]:.1e}, may be {tolerances[worst]:.1e}", flush=True)
        if not errors[worst] <= tolerances[worst]:
            differs = f"{method} differs from the engine by {errors[worst]:.1e} of H_d in the case {name}"
            raise ValueError(f"{differs}, and rounding explains {tolerances[worst]:.1e}: one of the two is wrong")
    return tools.seconds_in_turns(runs, times, SLOW_SECONDS)


def prepare(method: str, problem: Problem) -> Callable[[], list]:
    """Prepare a method for a problem; returns a function that runs it once and returns one result for each point."""
    at = methods.METHODS[method](problem)

    def run() -> list:
        if method == "engine_sweep":
            found = at(problem.parameters)
        else:
            found = [at(scale * problem.parameters) for scale, _ in problem.points]
        if problem.parameters.is_cuda:
            torch.cuda.synchronize()
        return found

    return run


def _tolerances(problem: Problem) -> list[float]:
    """Relative error of H_d that rounding may cause, for each point: TOLERANCE · eps · max(1, max |z|/min(1, T)).

    z are the logits and T is the temperature. They enter because at near ties of logits, the error of a probability is
    eps |z|.
    """
    largest = []
    with torch.no_grad():
        for scale, temperature in problem.points:
            nn.utils.vector_to_parameters(scale * problem.parameters, problem.network.parameters())
            largest.append(float(problem.network(problem.inputs).abs().max()) / min(1, temperature))
    nn.utils.vector_to_parameters(problem.parameters, problem.network.parameters())
    return [TOLERANCE * torch.finfo(problem.dtype).eps * max(1.0, z) for z in largest]


def memory_and_flops(case: Case, method: str) -> tuple[float, int]:
    """Peak memory in MiB that one run of a `method` adds to a process with its inputs, and the flops for all points.

    Only one point is run, and its flops are multiplied; `engine_sweep` runs all points at once.
    """
    points = 1
    if method != "engine_sweep":
        case, points = replace(case, radii=1, temperatures=0), case.radii + case.temperatures
    methods.count_flops(prepare(method, build_problem(_small(case))))
    problem = build_problem(case)
    before = tools.peak_mib(anew=True, device=case.device)
    flops = methods.count_flops(prepare(method, problem))
    return tools.peak_mib(device=case.device) - before, flops * points


def _small(case: Case) -> Case:
    return replace(case, directions=SMALL_DIRECTIONS, examples=SMALL_EXAMPLES)


DESCRIPTION = "What the exact projected Hessian costs."
main = functools.partial(tools.main, bench, CASES, "curvature", DESCRIPTION, devices=("cpu", "cuda"))
