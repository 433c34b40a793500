"""Prepared products with the Hessian in full space, against automatic differentiation."""

import gc

import pytest
import torch
from torch import nn
from torch.func import grad, jacfwd, jvp, vmap

from goldilocks_zone.curvature import hessian, hessian_vector_products, tangents
from goldilocks_zone.curvature.hessian_vector_products import Products
from goldilocks_zone.models import chains, kernels, losses
from goldilocks_zone.models.problem import Problem
from made_up.networks import model, of_module
from oracles import brute_force

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


def normalised():
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 7), nn.LayerNorm(7), nn.GELU(), nn.Linear(7, 4))


def pooled():
    norm = nn.BatchNorm2d(3)
    norm.running_mean += torch.arange(3)
    layers = nn.Conv2d(3, 3, 2), norm, nn.ReLU(), nn.MaxPool2d(2)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(3, 4)).eval()


def attending():
    layer = nn.TransformerEncoderLayer(4, 2, 6, dropout=0.0, batch_first=True, activation="gelu")
    return nn.Sequential(nn.Flatten(2), nn.Linear(16, 4), layer, nn.Flatten(), nn.Linear(12, 4)).eval()


@pytest.mark.parametrize("memory_mib", [1024, 1e-2])
@pytest.mark.parametrize("loss", losses.LOSSES)
@pytest.mark.parametrize("module", [normalised, pooled, attending])
def test_products_of_other_networks_are_those_of_explicit_matrices(module, loss, memory_mib, monkeypatch):
    """With graphs that are kept, and without the memory for it; over several chunks."""
    monkeypatch.setattr(tangents, "EXAMPLES_PER_CHUNK", 4)
    torch.manual_seed(0)
    network = of_module(module(), (3, 4, 4), examples=10)
    theta = network.with_biases(network.initialisation(0, 2.0))

    logits = kernels.exact(network.logits)  # attention without kernels that have no forward derivative

    def outputs(theta):
        return logits(theta, network.inputs)

    def mean(theta):
        return brute_force.losses(outputs(theta), network.targets, loss, 0.7).mean()

    # The second derivatives of torch.func.jacrev are wrong for layer normalisation, those of torch.func.grad are not.
    units = torch.eye(len(theta), dtype=torch.float64)
    whole = vmap(lambda unit: jvp(grad(mean), (theta,), (unit,))[1])(units)
    jacobian, p = jacfwd(outputs)(theta) / 0.7, torch.softmax(outputs(theta) / 0.7, 1)
    softmax = torch.diag_embed(p) - p[:, :, None] * p[:, None]
    curved = softmax if loss == "cross_entropy" else torch.eye(4, dtype=torch.float64).expand(10, 4, 4)
    gauss_newton = torch.einsum("nki,nkl,nlj->ij", jacobian, curved, jacobian) / 10
    expected = {"hessian": whole, "gauss_newton": gauss_newton, "residual": whole - gauss_newton}
    vectors = torch.randn(3, len(theta), dtype=torch.float64)
    problem = Problem(network.module, network.inputs, network.targets, loss, 0.7)
    for part in hessian.PARTS:
        found = hessian.hessian_products(problem, theta, part, memory_mib)(vectors)
        assert brute_force.relative_error(found.numpy(), (vectors @ expected[part]).numpy()) < 1e-11


@pytest.mark.parametrize("part", hessian.PARTS)
def test_products_keep_their_passes_if_memory_allows(part):
    network, sizes = of_module(normalised(), (3, 4, 4), examples=10), []

    def logits(theta, inputs):
        sizes.append(len(inputs))
        return network.logits(theta, inputs)

    theta = network.initialisation(0, 1.0)
    for memory_mib, passes in [(1024, [True, False]), (1e-2, [True, True])]:
        problem, found = Problem(logits, network.inputs, network.targets), []
        push = hessian.hessian_products(problem, theta, part, memory_mib)
        for _ in range(2):
            sizes.clear()
            push(theta[None])
            found.append(sum(sizes) >= 10)
        assert found == passes


def test_kept_graphs_are_freed_with_the_map():
    network = of_module(normalised(), (3, 4, 4))
    theta = network.initialisation(0, 1.0)
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        push = hessian.hessian_products(Problem(network.module, network.inputs, network.targets), theta)
        push(theta[None])
        del push
        gc.collect()
        assert not gc.garbage
    finally:
        gc.set_debug(0)
        gc.garbage.clear()


class Square(torch.autograd.Function):
    """x², with derivatives in both modes."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x**2

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx, gradient):
        return Twice.apply(*ctx.saved_tensors, gradient)

    @staticmethod
    def jvp(ctx, tangent):
        return 2 * ctx.saved_tensors[0] * tangent


class Twice(torch.autograd.Function):
    """2xy, with derivatives in forward mode alone."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x, y):
        return 2 * x * y

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx, gradient):
        raise RuntimeError("no second backward pass")

    @staticmethod
    def jvp(ctx, x, y):
        return 2 * (ctx.saved_tensors[0] * y + x * ctx.saved_tensors[1])


class Squared(nn.Module):
    def __init__(self, square):
        super().__init__()
        self.layer, self.square = nn.Linear(6, 4), square

    def forward(self, x):
        return self.square(self.layer(x))


@pytest.mark.parametrize("part", hessian.PARTS)
def test_products_go_forward_where_there_is_no_second_backward_pass(part):
    found = []
    for square in (Square.apply, torch.square):
        network = of_module(Squared(square), (6,))
        theta = network.initialisation(0, 1.0)
        vectors = torch.randn(3, len(theta), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        problem = Problem(network.module, network.inputs, network.targets)
        found.append(hessian.hessian_products(problem, theta, part)(vectors))
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-14)


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
