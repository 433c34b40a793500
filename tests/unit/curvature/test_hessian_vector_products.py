"""Prepared products with the Hessian in full space, against automatic differentiation."""

import pytest
import torch
from torch import nn

from goldilocks_zone.curvature import hessian, hessian_vector_products
from goldilocks_zone.curvature.hessian_vector_products import Products
from goldilocks_zone.models import chains, losses
from goldilocks_zone.models.problem import Problem
from made_up.networks import model

LABELS = (
    "fc-9x2-relu",
    "fc-9x3-tanh-nobias",
    "fc-9x2-softplus",
    "fc-9x2-sigmoid",
    "fc-9x2-identity",
    "fc-5x1-leakyrelu",
)


@pytest.mark.parametrize("loss", losses.LOSSES)
@pytest.mark.parametrize("part", hessian.PARTS)
@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("entries", [1, 500])
def test_products_are_those_of_automatic_differentiation(entries, label, part, loss, monkeypatch):
    """Covers chunks of examples, single vectors and several at once, another temperature, and two uses of the same
    preparation."""
    monkeypatch.setattr(hessian_vector_products, "EXAMPLES_AT_ONCE", 7)
    monkeypatch.setattr(hessian_vector_products, "ENTRIES_AT_ONCE", entries)
    network = model(label, image=(1, 3, 4), examples=20)
    theta = network.with_biases(network.initialisation(0, 1.3)).detach()
    vectors = torch.randn(4, len(theta), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    known, general = (
        Problem(each, network.inputs, network.targets, loss, 0.7) for each in (network.module, network.logits)
    )
    assert Products.applies(chains.of(network.module), theta, len(network.inputs), 1024)
    multiply = hessian.hessian_products(known, theta, part)
    expected = hessian.hessian_products(general, theta, part)(vectors)
    torch.testing.assert_close(multiply(vectors), expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(multiply(vectors[1:2]), expected[1:2], rtol=1e-10, atol=1e-12)


def test_activations_one_after_another_and_before_the_first_layer():
    layers = [nn.Tanh(), nn.Linear(6, 5), nn.Identity(), nn.Tanh(), nn.Softplus(), nn.Linear(5, 3)]
    module = nn.Sequential(nn.Flatten(), *layers).double()
    theta = torch.cat([each.detach().flatten() for each in module.parameters()])
    inputs, labels = torch.randn(9, 6, dtype=torch.float64), torch.arange(9) % 3
    vectors = torch.eye(len(theta), dtype=torch.float64)
    found = hessian.hessian_vector_products(Problem(module, inputs, labels), theta, vectors)

    def mean(parameters):
        tensors, start = {}, 0
        for name, each in module.named_parameters():
            tensors[name] = parameters[start : start + each.numel()].view(each.shape)
            start += each.numel()
        return nn.functional.cross_entropy(torch.func.functional_call(module, tensors, (inputs,)), labels)

    torch.testing.assert_close(found, torch.func.hessian(mean)(theta), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("label", ["conv-3x2-relu", "fc-9x3-relu-res"])
def test_other_networks_and_small_budgets_take_the_general_way(label):
    network = model(label, image=(1, 5, 5), examples=10)
    theta = network.initialisation(0, 1.0)
    assert not Products.applies(chains.of(network.module), theta, 10, 1024)
    dense = model("fc-9x2-relu", image=(1, 5, 5), examples=10)
    assert not Products.applies(chains.of(dense.module), dense.initialisation(0, 1.0), 10, 1e-4)


def test_layers_that_see_several_vectors_take_the_general_way():
    module = nn.Sequential(nn.Linear(4, 3), nn.Flatten(), nn.Linear(6, 2)).double()
    theta = torch.cat([each.detach().flatten() for each in module.parameters()])
    assert chains.matching(module, [theta], torch.randn(5, 2, 4).double()) is None


@pytest.mark.parametrize("label, apart", [("fc-200x2-relu-nobias", True), ("fc-200x2-tanh-nobias", False)])
def test_finite_differences_of_gradients_count_kinks_that_the_hessian_leaves_out(label, apart):
    """Central differences with steps of a thousandth of the norm of the weights: at kinks, the products are several
    times too long; for smooth units, their error is of second order in the step."""
    network = model(label, examples=200)
    theta = network.with_biases(network.initialisation(0, 1.0)).detach()
    problem = Problem(network.module, network.inputs, network.targets)
    vector = torch.randn(len(theta), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    step = 1e-3 * theta.norm() * vector / vector.norm()

    def gradient(theta):
        theta = theta.requires_grad_()
        logits = network.logits(theta, network.inputs)
        return torch.autograd.grad(nn.functional.cross_entropy(logits, network.targets), theta)[0]

    product = hessian.hessian_products(problem, theta, "hessian")(step[None])[0]
    difference = (gradient(theta + step) - gradient(theta - step)) / 2
    ratio = float(difference.norm() / product.norm())
    assert ratio > 2 if apart else abs(ratio - 1) < 1e-4
