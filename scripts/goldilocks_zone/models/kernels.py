"""Torch modes and kernels for exact derivatives, gradients in the memory order of weights, and no subnormal numbers."""

import functools
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

SUBNORMAL = 1e-40  # in single precision
RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")


@contextmanager
def differentiable() -> Iterator[None]:
    """Context that makes forward and second derivatives of attention, recurrence and weight normalisation exact."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), _Replaced():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def exact(function: Callable) -> Callable:
    """Wrap a function of tensors to run with the kernels of `differentiable`."""
    return differentiable()(function)


class _Replaced(TorchFunctionMode):
    """Mode that replaces fused kernels without a switch, or with one that slows other functions down."""

    def __torch_function__(self, function: Callable, types: tuple, args: tuple = (), kwargs: dict | None = None):
        name, kwargs = getattr(function, "__name__", ""), kwargs or {}
        if name == "_weight_norm":
            # Its fused kernel has no forward derivative and a wrong second one.
            return _weight_norm(*args, **kwargs)
        if name not in RECURRENT:
            return function(*args, **kwargs)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="TF32 acceleration on top of oneDNN")
            with torch.backends.mkldnn.flags(enabled=False), torch.backends.cudnn.flags(enabled=False):
                return function(*args, **kwargs)


def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    return v * (g / torch.norm_except_dim(v, 2, dim))


def affine(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x Wᵀ + b for x (…, n, i), W (…, o, i) and b (…, o), computed as (W xᵀ + b)ᵀ.

    The gradient by W then has W's order in memory. With x Wᵀ, the gradient is a transpose, and copying it can take
    longer than the product.
    """
    product = weight @ x.mT
    return (product if bias is None else product + bias[..., None]).mT


def affine_layers(function: Callable) -> Callable:
    """Wrap a function of tensors to compute its linear layers of vectors (n, i) by `affine`."""

    @functools.wraps(function)
    def by_affine(*arguments, **options):
        with _AffineLayers():
            return function(*arguments, **options)

    return by_affine


class _AffineLayers(TorchFunctionMode):
    def __torch_function__(self, function: Callable, types: tuple, args: tuple = (), kwargs: dict | None = None):
        replaced = function is functional.linear and args and args[0].ndim == 2
        return (affine if replaced else function)(*args, **kwargs or {})


@contextmanager
def flushing() -> Iterator[None]:
    """Context that sets subnormal numbers to zero, on a CPU in the calling thread.

    Gradients of a nearly saturated softmax contain many, which makes matrix products over 100 times as slow.
    """
    before = bool(torch.tensor(SUBNORMAL) * 1 == 0)  # Torch has no function that tells.
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def differentiating(function: Callable) -> Callable:
    """Wrap `function` to record gradients, so that saved tensors can be counted, without inference mode or autocast."""

    @functools.wraps(function)
    def in_our_mode(*arguments, **options):
        with ExitStack() as modes:
            modes.enter_context(torch.inference_mode(False))
            modes.enter_context(torch.enable_grad())
            for kind in ("cpu", "cuda"):
                if torch.is_autocast_enabled(kind):
                    modes.enter_context(torch.autocast(kind, enabled=False))
            return function(*arguments, **options)

    return in_our_mode


def usual(tensor: Tensor) -> Tensor:
    """Return the tensor, or a copy that autograd accepts if it is an inference tensor."""
    return tensor.clone() if tensor.is_inference() else tensor
