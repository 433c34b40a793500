"""Published sizes: torchvision's ResNet-18 on the general path, and training on a plane of 10,000 dimensions."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[3]
SCRIPT = """
import json, resource, sys, time
import numpy as np
import torch
from torchvision.models import resnet18
from goldilocks_zone.curvature import dispatch, hessian
from goldilocks_zone.models import networks
from goldilocks_zone.models.problem import Problem

torch.set_num_threads(2)
torch.manual_seed(0)
network = resnet18(num_classes=10).eval()
theta = torch.cat([each.detach().flatten() for each in network.parameters()])
directions = torch.randn(50, len(theta)) / len(theta) ** 0.5
inputs, labels = torch.randn(256, 3, 32, 32), torch.randint(10, (256,))
problem = Problem(network, inputs, labels)
assert dispatch.path_of(problem, theta, 1) == dispatch.GRAPH
start = time.perf_counter()
found = hessian.plane_hessian(problem, theta, directions)
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20

# H over orthonormal directions is L⁻¹ A L⁻ᵀ, so that A = L H Lᵀ is over the raw ones.
factor = np.linalg.cholesky((directions.double() @ directions.double().T).numpy())
raw = factor @ found.hessian @ factor.T
logits, point = networks.logits_function(network), theta.clone().requires_grad_()
expected = []
chosen = [3, 17, 42]
for i in chosen:
    product = torch.zeros_like(theta)
    for rows in range(0, 256, 8):
        z = logits(point, inputs[rows : rows + 8])
        loss = torch.nn.functional.cross_entropy(z, labels[rows : rows + 8], reduction="sum") / 256
        gradient = torch.autograd.grad(loss, point, create_graph=True)[0]
        product += torch.autograd.grad(gradient @ directions[i], point)[0]
    expected.append((directions.double() @ product.double()).tolist())
print(json.dumps({"found": raw[chosen].tolist(), "expected": expected, "gib": peak, "seconds": seconds}))
"""


FASTFOOD = """
import json, resource
import numpy as np
import torch
from torch import nn
from goldilocks_zone.models.problem import Problem
from goldilocks_zone.randomness import stream
from goldilocks_zone.subspaces import constraints, projections
from goldilocks_zone.subspaces.labels import Plane
from goldilocks_zone.training import ensembles, loop

torch.set_num_threads(2)
layers = [nn.Linear(3072, 200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU(), nn.Linear(200, 10)]
network = nn.Sequential(nn.Flatten(), *layers)
shapes = [tuple(each.shape) for each in network.parameters()]
size = sum(each.numel() for each in network.parameters())
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
projection = projections.make(Plane(10_000, "fastfood"), shapes, np.ones(size), stream("fastfood"))
theta = torch.cat([each.detach().flatten() for each in network.parameters()])
subset = constraints.plane(projection, theta.expand(3, -1).clone())
options = ensembles.Options(steps=3, batch=64, rates=torch.tensor([1e-2, 1e-1, 1.0]), temperatures=torch.ones(3))
problem = Problem(network, torch.randn(640, 3, 32, 32), torch.randint(10, (640,)))
ensemble = ensembles.Ensemble(problem, subset, options, [("batches",)])
loop.train(ensemble, [3], lambda step, state: {"norm": state.coordinates.norm(dim=1)})
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(json.dumps({"size": size, "gib": peak, "before": before, "norms": ensemble.coordinates.norm(dim=1).tolist()}))
"""


@pytest.mark.weekly
def test_a_fastfood_plane_of_ten_thousand_dimensions_fits():
    """The process stays within 2 GiB at D = 656,810, where a dense plane takes 24 GiB."""
    done = subprocess.run(
        [sys.executable, "-c", FASTFOOD],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT / "scripts"), "PATH": ""},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)
    assert measured["size"] == 656_810
    assert measured["gib"] < 2
    # Every member has moved, by its own rate.
    assert 0 < measured["norms"][0] < measured["norms"][1] < measured["norms"][2]


@pytest.mark.weekly
@pytest.mark.timeout(1200)
def test_resnet_against_double_backward(record_property):
    """H_50 with 11 million parameters in single precision, within 8 GiB, against rows by reverse over reverse."""
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(
        command, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT / "scripts"), "PATH": ""}, check=False
    )
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)
    record_property("seconds", measured["seconds"])
    record_property("gib", measured["gib"])
    print(f"{measured['seconds']:.0f} s, {measured['gib']:.1f} GiB")
    found, expected = np.array(measured["found"]), np.array(measured["expected"])
    # Single precision through 18 layers on both sides, and sums of 10⁷ products: 1e-3 of the rows' norm.
    assert np.linalg.norm(found - expected) < 1e-3 * np.linalg.norm(expected)
    assert measured["gib"] < 8
