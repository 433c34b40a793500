"""Initialisations, radii and planes for each kind of parameter, as in the table of config/README.md."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from goldilocks_zone.curvature.hessian import plane_hessian
from goldilocks_zone.models import initialisation, networks, user_networks
from goldilocks_zone.models.problem import Problem
from goldilocks_zone.randomness import stream
from goldilocks_zone.subspaces import planes
from goldilocks_zone.subspaces.labels import Plane
from oracles import brute_force

ROOT = Path(__file__).parents[3]
CLASSES, IMAGE = 4, (1, 3, 4)


class Every(nn.Module):
    """A network with all kinds of parameters."""

    def __init__(self, image, classes):
        super().__init__()
        self.convolution = nn.Conv2d(image[0], 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.slope = nn.PReLU(3)
        self.encode = nn.Linear(36, 6)
        self.again = nn.Linear(6, 6)
        self.once_more = nn.Linear(6, 6, bias=False)
        self.once_more.weight = self.again.weight
        self.fixed = nn.Linear(6, 6)
        self.fixed.requires_grad_(False)
        self.temperature = nn.Parameter(torch.tensor(0.7))
        self.last = nn.Linear(6, classes)
        self.register_buffer("shift", torch.rand(6))

    def forward(self, x):
        x = self.encode(self.slope(self.norm(self.convolution(x))).flatten(1))
        x = torch.tanh(self.once_more(torch.tanh(self.again(x))) + self.shift)
        return self.temperature * self.last(self.fixed(x))


# The kind of each tensor; those of no other kind stand in no vector of parameters.
KINDS = {
    "temperature": "gain",
    "convolution.weight": "weight",
    "convolution.bias": "bias",
    "norm.weight": "gain",
    "norm.bias": "bias behind a gain",
    "slope.weight": "gain",
    "encode.weight": "weight",
    "encode.bias": "bias",
    "again.weight": "tied",
    "again.bias": "bias",
    "last.weight": "weight",
    "last.bias": "bias",
}
WEIGHTS = ("weight", "tied")


@pytest.fixture(scope="module")
def module():
    return user_networks.build_own(Every, IMAGE, CLASSES, {}, "network every")


@pytest.fixture(scope="module")
def parameters(module):
    return initialisation.parameters_of(module)


def pieces(parameters, vector):
    """Split a `vector` (D,) into the parts of `parameters`, and return them by the name of their tensor."""
    return dict(zip(KINDS, np.split(vector, np.cumsum([p.size for p in parameters])[:-1]), strict=True))


def test_the_table_has_the_kinds_that_are_tested_here(module):
    text = (ROOT / "config/README.md").read_text(encoding="utf-8")
    section = text.split("## Parameters of networks")[1].split("\n## ")[0]
    rows = [row.split(" | ") for row in re.findall(r"^\| ([a-z].*) \|$", section, re.MULTILINE)]
    assert rows[0] == ["kind", "which", "starts at", "share of r_X²", "rescaled by a radius", "η on planes"]
    assert [row[0] for row in rows[1:]] == ["weight", "bias", "gain", "tied", "frozen", "buffer"]
    assert list(KINDS) == [name for name, _ in module.named_parameters()]
    held = {name for name, _ in module.named_buffers()}
    assert {"fixed.weight", "fixed.bias", "shift", "norm.running_mean"} <= held


@pytest.mark.parametrize("kind", ["glorot", "he", "uniform", "isotropic"])
def test_where_each_starts(kind, module, parameters):
    draws = [initialisation.initialise(parameters, kind, stream("start", kind, i)) for i in range(400)]
    found = pieces(parameters, np.array(draws).T)
    own = {name: tensor.detach().flatten().numpy() for name, tensor in module.named_parameters()}
    fan = 0
    for name, p in zip(KINDS, parameters):
        values, role = found[name], KINDS[name]
        fan = p.fan_in if role in WEIGHTS else fan
        deviation = {"glorot": np.sqrt(2 / (p.fan_in + p.fan_out)), "he": np.sqrt(2 / p.fan_in), "isotropic": 1.0}
        deviation["uniform"] = 1 / np.sqrt(3 * fan or 1)
        is_random = role in WEIGHTS or kind == "isotropic" or (kind == "uniform" and role == "bias")
        if is_random:
            # The deviation of n draws is known to 1/√(2n), of flatter ones better.
            assert values.std() == pytest.approx(deviation[kind], rel=4 / np.sqrt(2 * values.size)), name
            assert abs(values.mean()) < 4.5 * deviation[kind] / np.sqrt(values.size)
        elif role == "gain":
            assert (values == own[name][:, None]).all() and own[name].any()
        else:
            assert not values.any()


def test_shares_of_the_reference_radius(module, parameters):
    """r_X² is the mean of ‖θ‖² over initialisations; a radius rescales all of θ, which has no frozen parameters."""
    drawn = [initialisation.initialise(parameters, "glorot", stream("norm", i)) for i in range(2000)]
    squares = np.array([theta @ theta for theta in drawn])
    r_x = initialisation.glorot_radius(parameters)
    assert r_x**2 == pytest.approx(squares.mean(), abs=4.5 * squares.std() / np.sqrt(len(squares)))
    gains = sum(
        float((tensor.detach() ** 2).sum()) for name, tensor in module.named_parameters() if KINDS[name] == "gain"
    )
    weights = [p for name, p in zip(KINDS, parameters) if KINDS[name] in WEIGHTS]
    assert r_x**2 == pytest.approx(gains + sum(2 * p.size / (p.fan_in + p.fan_out) for p in weights), rel=1e-12)
    theta = initialisation.rescaled(drawn[0], 2.0, "r_X", r_x)
    assert np.linalg.norm(theta) == pytest.approx(2 * r_x)
    assert len(theta) == sum(p.size for p in parameters) == sum(tensor.numel() for tensor in module.parameters())


@pytest.mark.parametrize("bias_directions", [False, True])
@pytest.mark.parametrize("kind", planes.METRICS)
def test_the_metric_at_each(kind, bias_directions, parameters):
    deviations = initialisation.weight_deviations(parameters, "glorot")
    sizes, are_biases = [p.size for p in parameters], [p.is_bias for p in parameters]
    eta = pieces(parameters, planes.metric(sizes, are_biases, deviations, kind, bias_directions))
    weights = np.concatenate([eta[name] for name, role in KINDS.items() if role in WEIGHTS])
    assert np.mean(weights**2) == pytest.approx(1)
    ratios = []
    for (name, role), p, sigma in zip(KINDS.items(), parameters, deviations):
        if role in WEIGHTS:
            shell = sigma * np.sqrt(p.size)
            ratios.append(
                eta[name] / {"identity": 1.0, "shell": shell, "inverse_shell": 1 / shell, "sigma": sigma}[kind]
            )
        else:
            assert (eta[name] == float(bias_directions)).all(), name
    assert np.ptp(np.concatenate(ratios)) < 1e-12 and np.concatenate(ratios).min() > 0


def test_the_curvature_moves_tied_parameters_together_and_frozen_ones_never(module, parameters):
    """Compares the Hessian on a plane with bias directions with brute force through the module's own parameters."""
    theta = torch.as_tensor(initialisation.initialise(parameters, "uniform", stream("point")))
    random = stream("examples")
    images = torch.as_tensor(random.standard_normal((9, *IMAGE)))
    labels = torch.as_tensor(random.integers(CLASSES, size=9))
    eta = planes.metric(
        [p.size for p in parameters],
        [p.is_bias for p in parameters],
        initialisation.weight_deviations(parameters, "glorot"),
        "shell",
        True,
    )
    rows = torch.as_tensor(planes.directions(Plane(5, "dense"), eta, stream("plane")))
    names, sizes = list(KINDS), [p.size for p in parameters]

    def logits(point, inputs):
        parts = dict(zip(names, point.split(sizes)))
        shaped = {name: parts[name].view(tensor.shape) for name, tensor in module.named_parameters()}
        return torch.func.functional_call(module, shaped, (inputs,))

    assert torch.equal(logits(theta, images), networks.logits_function(module)(theta, images))
    expected = brute_force.picture(logits, theta, rows, images, labels)
    found = plane_hessian(Problem(module, images, labels), theta, rows)
    for part in ("hessian", "gauss_newton", "residual"):
        wanted = getattr(expected, part)
        assert np.linalg.norm(getattr(found, part) - wanted) < 1e-12 * np.linalg.norm(expected.hessian)


def resnet18(image, classes):
    """torchvision's ResNet-18 with a first convolution for small images, and without its first pooling layer."""
    module = torchvision.models.resnet18(num_classes=classes)
    module.conv1 = nn.Conv2d(image[0], 64, 3, padding=1, bias=False)
    module.maxpool = nn.Identity()
    return module


@pytest.mark.weekly
def test_a_resnet_18_is_taken_as_it_is():
    """A finite difference crosses some of its million kinks, which must not be mistaken for wrong derivatives."""
    found = initialisation.parameters_of(user_networks.build_own(resnet18, (1, 28, 28), 10, {}, "network resnet18"))
    assert sum(p.size for p in found) > 1e7 and sum(len(p.own) for p in found) == 4800
