"""Costs of curvature: flops counted one by one, and memory against its budget."""

import gc
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import torch

from benchmarks.methods import count_flops as flops
from goldilocks_zone.curvature import hessian, homogeneous_sweep, tangents, working_memory
from goldilocks_zone.models.problem import Problem
from made_up.networks import model
from oracles.brute_force import relative_error

SLACK = 1.02  # what may come on top: the forward passes of single examples that plan memory, at most 2 %
ROOT = Path(__file__).parents[3]


def allowed(forward: list[int], sizes: list[int], bends: int, n: int, d: int, classes: int, points: int) -> int:
    """Flops that a sweep over `points` points should take, with n examples and d directions.

    `forward` has the flops of each layer's forward pass, per example, and `sizes` the sizes of its weights. `bends` is
    the number of units of activations with a second derivative.
    """
    total, first = sum(forward), forward[0]
    along = n * d * (3 * total - 2 * first + (points - 1) * 3 * (total - first))
    there_and_back = points * n * (2 * total - first)
    # C = ⟨Ẇ, M⟩ for each chunk of examples, and Σ ε φ″ ż ż for activations that bend.
    chunks = -(-n // tangents.EXAMPLES_PER_CHUNK)
    squares = 2 * d * d * (chunks * sum(sizes[1:]) + n * bends)
    return along + there_and_back + points * (squares + n * second_order(d, classes))


def second_order(d: int, classes: int) -> int:
    """Flops of G and the gradient at one point, per example.

    These are products of tangents and of their means and, along each direction, the mean, the mean square and the
    gradient.
    """
    return 2 * d * d * (classes + 1) + 6 * d * classes


@pytest.mark.parametrize("points", [1, 2, 5])
@pytest.mark.parametrize("label, bends", [("fc-40x3-relu", 0), ("fc-40x3-tanh", 120)])
def test_flops_of_dense_networks(label, bends, points):
    """3F − 2F_1 per direction and example at one point, 3(F − F_1) at each further one, and products of d × d."""
    network = model(label, inputs=60, classes=10, examples=600)
    theta, rows = network.with_biases(network.initialisation(0, 1.0)), network.directions(20)
    scales = [1.0 + i for i in range(points)]
    found = flops(
        lambda: hessian.radial_sweep(Problem(network.module, network.inputs, network.targets), theta, scales, rows)
    )
    sizes = [60 * 40, 40 * 40, 40 * 40, 40 * 10]
    expected = allowed([2 * size for size in sizes], sizes, bends, 600, 20, 10, points)
    assert expected / 1.001 < found < SLACK * expected


@pytest.mark.parametrize(
    "label, image, times", [("fc-300-100-relu-nobias", (1, 28, 28), 3), ("lenet5-nobias", (3, 32, 32), 6)]
)
def test_a_sweep_of_scales_and_temperatures_costs_a_few_points(label, image, times):
    network = model(label, image=image, classes=10, examples=24)
    theta, rows = network.initialisation(0, 1.0), network.directions(50)
    values = np.geomspace(1e-3, 1e3, 49)
    points = [(scale, 1.0) for scale in values] + [(1.0, temperature) for temperature in values]

    def cost(points):
        problem = Problem(network.module, network.inputs, network.targets)
        return flops(lambda: hessian.curvature_at(problem, theta, points, rows))

    assert cost(points) < times * cost(points[24:25])


@pytest.mark.parametrize("points", [1, 3])
def test_flops_of_convolutions(points):
    network = model("conv-8x2-relu", image=(3, 12, 12), classes=10, examples=64)
    theta, rows = network.with_biases(network.initialisation(0, 1.0)), network.directions(20)
    scales = [1.0 + i for i in range(points)]
    found = flops(
        lambda: hessian.radial_sweep(Problem(network.module, network.inputs, network.targets), theta, scales, rows)
    )
    sizes = [8 * 3 * 9, 8 * 8 * 9, 10 * 8 * 9]
    forward = [2 * size * places for size, places in zip(sizes, (144, 36, 1))]
    expected = allowed(forward, sizes, 0, 64, 20, 10, points)
    assert expected / 1.02 < found < SLACK * expected


def test_flops_without_moving_weights():
    # Directions along biases alone carry tangents, F − F_1, and need neither Ẇ a nor weight gradients.
    network = model("fc-40x3-relu", inputs=60, classes=10, examples=600)
    moved = torch.as_tensor(network.metric("shell", True) - network.metric("shell", False) != 0)
    rows = network.directions(20, "dense", True) * moved
    theta = network.initialisation(0, 1.0)
    found = flops(lambda: hessian.plane_hessian(Problem(network.module, network.inputs, network.targets), theta, rows))
    total, first = 2 * (2400 + 1600 + 1600 + 400), 2 * 2400
    expected = 600 * 20 * (total - first) + 600 * 2 * total + 2 * 20 * 20 * 600 * 10 + 2 * 20 * 600 * 10
    assert found < SLACK * expected


@pytest.mark.parametrize(
    "label, image, examples, sizes, places, inputs",
    [
        ("fc-40x3-relu-nobias", (60,), 600, [60 * 40, 40 * 40, 40 * 40, 40 * 10], [1, 1, 1, 1], [60, 40, 40, 40]),
        ("conv-8x2-relu-nobias", (3, 12, 12), 100, [216, 576, 720], [144, 36, 1], [3 * 144, 8 * 36, 72]),
    ],
)
def test_flops_of_the_homogeneous_sweep(label, image, examples, sizes, places, inputs, monkeypatch):
    """Tangents once, then K_n of k − 1 families of adjoints, and one small product for each residual.

    At a middle layer, Ẇᵀδ costs F_l for each direction and family, and products of the layer's inputs cost K_n d²; the
    last layer uses the residuals themselves, which are its adjoints. Few residuals span those of all radii.
    """
    d, k, points, families = 20, 10, 25, 9
    network = model(label, image=image, classes=k, examples=examples)
    theta, rows = network.initialisation(0, 1.0), network.directions(d)
    scales = np.geomspace(0.01, 100, points).tolist()
    spans, spanning = [], homogeneous_sweep.spanning

    def spy(*problem):
        spans.append(spanning(*problem)[0].shape[:2])
        return spanning(*problem)

    def sweep():
        hessian.radial_sweep(Problem(network.module, network.inputs, network.targets), theta, scales, rows)

    with monkeypatch.context() as patched:
        patched.setattr(homogeneous_sweep, "spanning", spy)
        sweep()
    found = flops(sweep)
    forward = [2 * size * each for size, each in zip(sizes, places)]
    total, middle = sum(forward), sum(forward[1:-1])
    once = total + d * (2 * total - forward[0])
    back = families * (sum(forward[2:]))
    pulled = families * (d * middle + 2 * d * d * sum(inputs[1:-1]))
    expected = examples * (once + back + pulled + points * second_order(d, k))
    for q, n in spans:
        assert q < 0.9 * points
        behind = len(sizes) - 1
        at_the_end = 2 * q * d * sizes[-1] * (n + d)
        expected += 2 * q * (families * n * d * d * (behind - 1) + points * (n * k + behind * d * d)) + at_the_end
    assert expected / 1.001 < found < SLACK * expected


@pytest.mark.slow
@pytest.mark.parametrize(
    "label", ["fc-9x2-relu", "fc-30x2-relu-nobias", "fc-9x2-tanh", "conv-3x2-relu", "fc-6x3-relu-res"]
)
@pytest.mark.parametrize("kind", ["dense", "sparse"])
@pytest.mark.parametrize("scales", [[1.0], [0.5, 1.0, 3.0]])
def test_chunks_do_not_change_results(label, kind, scales, monkeypatch):
    network = model(label, image=(1, 5, 6) if "conv" in label else (8,))
    theta, rows = network.initialisation(5, 1.0), network.directions(7, kind, "nobias" not in label)
    tensors = (network.inputs, network.targets)

    def sweep(module, **options):
        points, options = [(scale, 1.0) for scale in scales], hessian.Options([30, 13], **options)
        return hessian.curvature_at(Problem(module, *tensors), theta, points, rows, options)

    for module in (network.module, network.logits)[: 3 - len(scales)]:
        whole = sweep(module)
        # Far too little memory, for one example and direction at a time; then a few of both; then examples alone.
        tries = [sweep(module, memory_mib=1e-3), sweep(module, memory_mib=0.05)]
        with monkeypatch.context() as patch:
            patch.setattr(tangents, "EXAMPLES_PER_CHUNK", 4)
            tries.append(sweep(module))
        for tried in tries:
            for found, expected in zip(tried, whole):
                for each, other in zip(found, expected):
                    # Sums of at most 30 terms in another order; parts of H that cancel, to the norm of H.
                    norm = np.linalg.norm(other.hessian)
                    assert np.linalg.norm(each.residual - other.residual) < 1e-13 * norm
                    assert np.linalg.norm(each.gauss_newton - other.gauss_newton) < 1e-13 * norm
                    assert relative_error(each.gradient, other.gradient) < 1e-12
                    assert each.loss == pytest.approx(other.loss, rel=1e-13)
                    assert each.logits_std == pytest.approx(other.logits_std, rel=1e-13)


def test_chunks_do_not_change_products():
    network = model("fc-9x2-relu")
    theta, rows = network.initialisation(5, 1.0), network.directions(7)
    tensors = (network.inputs, network.targets)
    assert working_memory.directions_per_chunk(network.logits, theta, network.inputs, 0.4) in range(2, 7)
    for part in ("hessian", "gauss_newton"):
        whole, chunked = (
            hessian.hessian_vector_products(
                Problem(network.logits, *tensors), theta, rows, part=part, memory_mib=memory
            )
            for memory in (1024, 0.4)
        )
        assert relative_error(chunked.numpy(), whole.numpy()) < 1e-13


def test_products_leave_nothing_behind():
    network = model("fc-9x2-relu")
    theta, rows = network.initialisation(5, 1.0), network.directions(7)

    def alive():
        gc.collect()
        return sum(torch.is_tensor(each) and each.numel() == len(theta) for each in gc.get_objects())

    hessian.hessian_vector_products(Problem(network.logits, network.inputs, network.targets), theta, rows)
    before = alive()
    for _ in range(3):
        hessian.hessian_vector_products(Problem(network.logits, network.inputs, network.targets), theta, rows)
    assert alive() == before


@pytest.mark.parametrize("scales", [[1.0], [0.5, 2.0]])
@pytest.mark.parametrize("label", ["fc-9x2-relu", "fc-9x2-tanh", "fc-9x2-relu-nobias"])
@pytest.mark.parametrize("of", ["rows", "matrix"])
def test_curvature_is_freed_at_once(label, scales, of):
    # Python looks for circles only after so many objects: large ones in a circle would pile up over the draws of a job.
    network = model(label)
    theta, rows = network.initialisation(5, 1.0), network.directions(7, "sparse")
    rows = scipy.sparse.csr_array(rows.numpy()) if of == "matrix" else rows
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        hessian.radial_sweep(Problem(network.module, network.inputs, network.targets), theta, scales, rows)
        gc.collect()
        assert not gc.garbage
    finally:
        gc.set_debug(0)
        gc.garbage.clear()


MEMORY = """
import sys
import torch
torch.set_num_threads(1)
from made_up.networks import model
from goldilocks_zone.curvature import graph_tangents, hessian
from goldilocks_zone.models.problem import Problem

label, dtype, kind, points, examples, d, memory, hidden = sys.argv[1:]
if hidden == "automatic":
    graph_tangents.traced = lambda *given: None
dtype, points, examples, d, memory = getattr(torch, dtype), int(points), int(examples), int(d), float(memory)


def status(name):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def sweep(network, theta, rows, memory):
    problem = Problem(network.module if hidden == "engine" else network.logits, network.inputs, network.targets)
    return hessian.radial_sweep(problem, theta, [1.0 + i for i in range(points)], rows, memory)


image = (3, 24, 24) if label.startswith("conv") else (784,)
small = model(label, image=image, classes=10, examples=4)
theta = small.initialisation(0, 1.0)
if "zero" not in label and not label.endswith("nobias"):
    theta = small.with_biases(theta)
sweep(small, theta, small.directions(2, kind), 64)  # libraries take their own memory at the first call
network, rows = model(label, image=image, classes=10, examples=examples), small.directions(d, kind, dtype=dtype)
open("/proc/self/clear_refs", "w").write("5")  # the highest mark starts anew
before = status("VmRSS")
sweep(network, theta, rows, memory)
print(status("VmHWM") - before)
"""


TRANSFORMER = """
import sys
import scipy.sparse
import torch
from torch import nn
torch.set_num_threads(1)
from goldilocks_zone.curvature import hessian
from goldilocks_zone.models.problem import Problem

mode, kind, memory = sys.argv[1], sys.argv[2], float(sys.argv[3])


def status(name):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


torch.manual_seed(0)
layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True)
model = nn.Sequential(nn.TransformerEncoder(layer, 2), nn.Flatten(), nn.Linear(16 * 64, 10)).eval()
theta = nn.utils.parameters_to_vector(model.parameters()).detach()
rows = torch.randn(50, len(theta))
if kind == "sparse":
    rows = scipy.sparse.csr_array((rows * (torch.rand(rows.shape) < 0.01)).numpy())
inputs, labels = torch.randn(200, 16, 64), torch.arange(200) % 10


def measure(problem):
    if kind != "products":
        return hessian.plane_hessian(problem, theta, rows, memory)
    push = hessian.hessian_products(problem, theta, memory_mib=memory)
    return push(rows), push(rows)


with getattr(torch, mode)():
    measure(Problem(model, inputs[:4], labels[:4]))
    open("/proc/self/clear_refs", "w").write("5")
    before = status("VmRSS")
    measure(Problem(model, inputs, labels))
print(status("VmHWM") - before)
"""


def growth(script: str, *arguments) -> float:
    """Run a `script`, which prints how many MiB its peak memory grows by, in a separate process; returns the number.

    The growth is that of a sweep, beyond the memory with parameters, directions and examples.
    """
    environment = {"PYTHONPATH": f"{ROOT / 'scripts'}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1", "PATH": ""}
    # Else the C library moves this threshold with what is freed, and keeps up to 70 MiB more, in some runs.
    environment |= {"MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


on_linux = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is read from /proc")


@on_linux
@pytest.mark.slow
@pytest.mark.parametrize(
    "label, dtype, kind, points, examples, d, memory, path",
    [
        ("fc-200x2-relu", "float32", "sparse", 1, 4000, 100, 128, "engine"),
        ("fc-200x2-relu-nobias", "float32", "dense", 25, 2000, 100, 512, "engine"),
        ("conv-16x3-relu-nobias", "float32", "dense", 9, 100, 50, 512, "graph"),
        ("fc-200x2-relu", "float32", "dense", 1, 1000, 50, 256, "automatic"),
        *(
            pytest.param(*case, marks=pytest.mark.weekly)
            for case in [
                ("fc-200x2-relu", "float32", "dense", 1, 4000, 100, 128, "engine"),
                ("fc-200x2-relu", "float64", "dense", 1, 2000, 50, 128, "engine"),
                ("fc-200x2-relu", "float32", "dense", 5, 2000, 50, 128, "engine"),
                ("fc-200x2-tanh", "float32", "dense", 3, 1000, 50, 256, "engine"),
                ("fc-200x2-relu-nobias", "float32", "sparse", 25, 2000, 100, 512, "engine"),
                ("conv-16x3-relu", "float32", "dense", 1, 200, 50, 256, "engine"),
                ("conv-16x3-relu-nobias", "float32", "dense", 10, 200, 50, 512, "engine"),
                ("fc-200x2-relu", "float32", "dense", 1, 1000, 50, 256, "graph"),
                ("fc-200x2-relu-nobias", "float32", "dense", 9, 1000, 50, 256, "graph"),
            ]
        ),
    ],
)
def test_memory_stays_within_its_budget(label, dtype, kind, points, examples, d, memory, path):
    """Growth of resident memory over that with parameters, directions and examples in place."""
    found = growth(MEMORY, label, dtype, kind, points, examples, d, memory, path)
    assert found < memory


@on_linux
@pytest.mark.weekly
@pytest.mark.parametrize("mode", ["enable_grad", "no_grad", "inference_mode"])
@pytest.mark.parametrize("kind, memory", [("dense", 128), ("sparse", 128), ("products", 128), ("products", 64)])
def test_memory_of_a_transformer_stays_within_its_budget(kind, memory, mode):
    """Products keep their graphs within 128 MiB, and not within 64."""
    assert growth(TRANSFORMER, mode, kind, memory) < 1.2 * memory
