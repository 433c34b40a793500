"""Linear layers by products from the left, with gradients in order, and single precision without rounding."""

import pytest
import torch
from torch import nn
from torch.func import vmap

from goldilocks_zone.models import kernels
from goldilocks_zone.randomness import stream


def drawn(*shape):
    return torch.as_tensor(stream("drawn", shape).standard_normal(shape))


def layer(x, weight, bias=None):
    return nn.functional.linear(x, weight, bias)


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_affine_layers_are_linear_layers_with_gradients_in_order(biased, shared):
    leaves = [drawn(4, 5, 6), drawn(4, 5)][: 1 + biased]
    x, slopes = drawn(7, 6) if shared else drawn(4, 7, 6), drawn(4, 7, 5)
    found = []
    for function in (layer, kernels.affine_layers(layer)):
        own = [leaf.clone().requires_grad_() for leaf in leaves]
        outputs = vmap(function, in_dims=(None if shared else 0, *(0,) * len(own)))(x, *own)
        found.append([outputs.detach(), *torch.autograd.grad(outputs, own, slopes)])
    for ours, expected in zip(*found[::-1]):
        torch.testing.assert_close(ours, expected, rtol=1e-13, atol=1e-13)
    assert found[1][1].is_contiguous() and not found[0][1].is_contiguous()


def test_other_functions_and_inputs_pass():
    def function(x):
        return nn.functional.linear(torch.relu(x), weight)

    x, weight = drawn(2, 3, 6), drawn(5, 6)
    assert torch.equal(kernels.affine_layers(function)(x), function(x))


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_single_precision_is_not_rounded_while_derivatives_are_taken(precision):
    seen, usual = [], torch.get_float32_matmul_precision()

    def rounding():
        return [each.fp32_precision for each in kernels.ROUNDING]

    @kernels.differentiating
    def fails():
        with torch.backends.cudnn.flags(enabled=False):  # as networks may do
            pass
        seen.append(rounding())
        raise KeyError

    try:
        torch.set_float32_matmul_precision(precision)
        before = rounding()
        with pytest.raises(KeyError):
            fails()
        assert rounding() == before and ("bf16" in before) == (precision == "medium")
        assert set(seen[0]) <= {"none", "ieee"}
    finally:
        torch.set_float32_matmul_precision(usual)
