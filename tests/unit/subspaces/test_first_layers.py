"""Outputs of the first layer in place of its weights: the same gradients and runs as with weights, where they pay."""

import dataclasses

import numpy as np
import pytest
import torch

from goldilocks_zone.models.problem import Problem
from goldilocks_zone.randomness import stream
from goldilocks_zone.subspaces import constraints, first_layers, projections
from goldilocks_zone.subspaces import labels as subspaces_labels
from goldilocks_zone.training import ensembles, loop
from made_up.networks import model

SCALES = torch.tensor([0.3, 1.0, 4.0], dtype=torch.float64)
SUBSETS = ["plane", "sphere", "sphere through"]


def subset(kind, network, points=None, eta=None):
    point = network.initialisation(0, 1.0)
    shapes = [parameter.shape for parameter in network.module.parameters()]
    plane = subspaces_labels.Plane(5, "sparse")
    eta = np.ones(len(point)) if eta is None else eta
    projection = projections.make(plane, shapes, eta, stream("plane"), point)
    if kind == "plane":
        return constraints.plane(projection, SCALES[:, None] * point if points is None else points)
    if kind == "sphere through":
        return constraints.sphere_through(projection, point, SCALES * point.norm())
    return constraints.sphere(projection, SCALES * point.norm(), torch.arange(1.0, 6.0))


def ensemble(network, kind="plane", where=None):
    options = ensembles.Options(steps=40, batch=8, rates=0.01 * SCALES)
    examples = Problem(network.module, network.inputs, network.targets)
    return ensembles.Ensemble(examples, where or subset(kind, network), options, [("shuffle",)])


def run(trained):
    return loop.train(trained, (0, 20, 40), lambda _, state: {"coordinates": state.coordinates.clone()})["coordinates"]


@pytest.mark.parametrize("kind", SUBSETS)
@pytest.mark.parametrize("label", ["fc-9x2-relu", "fc-9x2-tanh-nobias", "fc-9x3-relu-res"])
def test_gradients_and_runs_are_those_with_weights(kind, label, monkeypatch):
    network = model(label, image=(1, 4, 3), classes=4, examples=50)
    batch = network.inputs[:8], network.targets[:8]
    fast, plain = (ensemble(network, kind) for _ in range(2))
    moved = torch.as_tensor(stream("moved").standard_normal(fast.coordinates.shape))
    for each in (fast, plain):
        each.coordinates += 0.1 * moved
    behind = fast.first_layer.behind(batch[0])
    assert behind.shapes[0] == (9, 8)
    monkeypatch.setattr(plain, "first_layer", None)
    torch.testing.assert_close(fast.gradients(*batch), plain.gradients(*batch), rtol=1e-11, atol=1e-13)
    kept = fast.select(torch.tensor([2, 0]))
    assert kept.first_layer is not None
    torch.testing.assert_close(kept.gradients(*batch), plain.gradients(*batch)[[2, 0]], rtol=1e-11, atol=1e-13)
    found, expected = run(fast), run(plain)
    assert np.abs(found[-1] - found[0]).min() > 0
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-10)


def test_outputs_are_those_of_the_weights():
    network = model("fc-9x2-relu", image=(12,), classes=4, examples=50)
    trained = ensemble(network)
    trained.coordinates += torch.as_tensor(stream("moved").standard_normal(trained.coordinates.shape))
    weights, bias = trained.parameters()[:2]
    outputs = trained.first_layer.behind(network.inputs[:8]).forward(trained.coordinates)[0]
    expected = weights @ network.inputs[:8].T + bias[..., None]
    torch.testing.assert_close(outputs, expected, rtol=1e-12, atol=1e-12)


def test_directions_that_leave_thefirst_layer_alone():
    network = model("fc-9x2-relu", image=(12,), classes=4, examples=50)
    eta = np.ones(len(network.initialisation(0, 1.0)))
    eta[: 9 * 13] = 0
    trained = ensemble(network, where=subset("plane", network, eta=eta))
    behind = trained.first_layer.behind(network.inputs[:8])
    outputs = [behind.forward(trained.coordinates + step)[0] for step in (0, 1)]
    torch.testing.assert_close(*outputs, rtol=0, atol=0)


def test_large_batches_take_weights():
    network = model("fc-9x2-relu", image=(12,), classes=4, examples=50)
    layer = ensemble(network).first_layer
    most = first_layers.WORTH * len(SCALES) * 12 // 5
    assert layer.behind(network.inputs[:most]) is not None
    assert layer.behind(network.inputs[:1].expand(most + 1, -1)) is None


@pytest.mark.parametrize("change", ["starts", "dense", "convolution", "whole space", "one layer"])
def test_subsets_and_networks_without_such_a_layer(change):
    label = {"convolution": "conv-3x2-relu"}.get(change, "fc-9x2-relu")
    network = model(label, image=(1, 6, 5), classes=4, examples=50)
    where, module = subset("plane", network), network.module
    if change == "starts":
        points = torch.stack([network.initialisation(seed, 1.0) for seed in range(3)])
        where = subset("plane", network, points)
    if change == "dense":
        dense = projections.Dense(where.projection.rows.to_dense(), where.shapes)
        where = dataclasses.replace(where, projection=dense)
    if change == "whole space":
        where = constraints.full(torch.ones(3, 5, dtype=torch.float64), [(5,)], fixed=False)
    if change == "one layer":
        module = module[:2]
    assert first_layers.of(module, where) is None
