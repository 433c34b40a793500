"""Networks that are not sequences of layers, losses and reports on a GPU, against the CPU."""

import copy

import pytest
import torch
from torch import nn

import goldilocks_zone
from goldilocks_zone import (
    Problem,
    hessian_products,
    hessian_vector_products,
    plane_hessian,
    spectral_density,
    top_eigenpairs,
)
from goldilocks_zone.curvature import working_memory
from oracles.brute_force import relative_error

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
N, CLASSES = 6, 4


class Residual(nn.Module):
    """Convolution, batch normalisation and a shortcut."""

    def __init__(self):
        super().__init__()
        self.stem, self.block = nn.Conv2d(2, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1, groups=2)
        self.norm, self.readout = nn.BatchNorm2d(6), nn.Linear(6, CLASSES)

    def forward(self, images):
        first = self.stem(images)
        return self.readout((first + self.norm(self.block(first.relu())).relu()).mean((2, 3)))


class Attention(nn.Module):
    """A transformer block on tokens, with embeddings."""

    def __init__(self):
        super().__init__()
        self.embedding, self.readout = nn.Embedding(11, 8), nn.Linear(8, CLASSES)
        self.block = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, activation="gelu", batch_first=True)

    def forward(self, tokens):
        return self.readout(self.block(self.embedding(tokens)).mean(1))


class Recurrent(nn.Module):
    """An LSTM, whose last output is read."""

    def __init__(self):
        super().__init__()
        self.recurrent, self.readout = nn.LSTM(3, 5, batch_first=True), nn.Linear(5, CLASSES)

    def forward(self, sequences):
        return self.readout(self.recurrent(sequences)[0][:, -1])


def images():
    return torch.randn(N, 2, 6, 6, dtype=torch.float64)


def tokens():
    return torch.randint(11, (N, 5))


def sequences():
    return torch.randn(N, 4, 3, dtype=torch.float64)


CASES = {"residual": (Residual, images), "attention": (Attention, tokens), "recurrent": (Recurrent, sequences)}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("criterion", [nn.CrossEntropyLoss(label_smoothing=0.1), nn.MSELoss()])
@pytest.mark.parametrize("case", CASES)
def test_hessians_on_cuda_are_those_of_the_cpu(case, criterion, dtype):
    torch.manual_seed(0)
    build, data = CASES[case]
    network, inputs = build().double().eval(), data()
    targets = torch.arange(N) % CLASSES
    if isinstance(criterion, nn.MSELoss):
        targets = torch.randn(N, CLASSES, dtype=torch.float64)
    theta = nn.utils.parameters_to_vector(network.parameters()).detach()
    rows = torch.randn(4, len(theta), dtype=dtype)
    found = []
    for device in ("cpu", "cuda"):
        problem = Problem(copy.deepcopy(network).to(device), inputs.to(device), targets.to(device), criterion)
        there = theta.to(device), rows.to(device)
        on_plane = plane_hessian(problem, *there)
        products = hessian_vector_products(problem, *there).cpu().numpy()
        found.append((on_plane.hessian, on_plane.gauss_newton, on_plane.gradient, products))
    for on_cpu, on_cuda in zip(*found):
        assert relative_error(on_cuda, on_cpu) < 1e4 * torch.finfo(dtype).eps


def dense():
    layers = [nn.Linear(72, 9), nn.Tanh(), nn.Linear(9, CLASSES)]
    return nn.Sequential(nn.Flatten(), *layers)


def pooled():
    layers = [nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, CLASSES)]
    return nn.Sequential(*layers)


@pytest.mark.parametrize("memory_mib", [None, 1e-2])
@pytest.mark.parametrize("part", ["hessian", "gauss_newton", "residual"])
@pytest.mark.parametrize("build", [dense, pooled, Residual])
def test_products_on_cuda_are_those_of_the_cpu(build, part, memory_mib):
    """One vector, several together, and without the memory for several or for kept passes."""
    torch.manual_seed(0)
    network, inputs, targets = build().double().eval(), images(), torch.arange(N) % CLASSES
    theta = nn.utils.parameters_to_vector(network.parameters()).detach()
    vectors = torch.randn(5, len(theta), dtype=torch.float64)
    expected = hessian_products(Problem(network, inputs, targets), theta, part)(vectors)
    problem = Problem(copy.deepcopy(network).cuda(), inputs.cuda(), targets.cuda())
    multiply = hessian_products(problem, theta.cuda(), part, memory_mib)
    for some in (slice(0, 1), slice(0, 5)):
        assert relative_error(multiply(vectors[some].cuda()).cpu().numpy(), expected[some].numpy()) < 1e-11


def test_the_default_memory_on_cuda_is_half_of_what_is_free():
    theta = torch.zeros(3, device="cuda")
    free = torch.cuda.mem_get_info()[0] / 2**20
    assert 0 < working_memory.budget(None, theta) <= min(free + 100, 2 * working_memory.AT_MOST_ON_GPU) / 2
    assert working_memory.budget(7, theta) == 7


def test_spectra_on_cuda_are_those_of_the_cpu():
    torch.manual_seed(0)
    network, inputs, targets = Residual().double().eval(), images(), torch.arange(N) % CLASSES
    theta = nn.utils.parameters_to_vector(network.parameters()).detach()
    problems = [Problem(copy.deepcopy(network).to(each), inputs.to(each), targets.to(each)) for each in ("cpu", "cuda")]
    values = [top_eigenpairs(problem, theta.to(problem.inputs.device), 3)[0] for problem in problems]
    assert values[1] == pytest.approx(values[0], rel=1e-6)
    moments = [spectral_density(problem, theta.to(problem.inputs.device)).moment(1)[0] for problem in problems]
    assert moments[1] == pytest.approx(moments[0], rel=1e-6)


def test_a_report_on_cuda():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(20, 30), nn.GELU(), nn.Linear(30, CLASSES)).cuda()
    batches = [(torch.randn(50, 20).cuda(), torch.randint(CLASSES, (50,)).cuda())]
    text = str(goldilocks_zone.report(network, nn.CrossEntropyLoss(), batches))
    assert "Tr(H)" in text
