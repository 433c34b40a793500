"""Settings of torch, and replacements of its kernels, that make derivatives exact and computation faster.

Two of them are for speed: linear layers whose gradients have the memory order of their weights, and subnormal numbers
set to zero.
"""

import functools
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

SUBNORMAL = 1e-40  # a number that is subnormal in single precision
# Settings of torch that may round factors in single precision to fewer digits, as in TF32, by default or because a user
# asks for it.
ROUNDING = [
    torch.backends.cuda.matmul,
    *(getattr(torch.backends.cudnn, name) for name in ("conv", "rnn")),
    *(getattr(torch.backends.mkldnn, name) for name in ("matmul", "conv", "rnn")),
]
RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")


@contextmanager
def differentiable() -> Iterator[None]:
    """Context in which attention, recurrent layers and weight normalisation have exact forward and second derivatives.

    Fused kernels that lack such derivatives are switched off or replaced.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), _Replaced():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def exact(function: Callable) -> Callable:
    """Wrap `function` so that it runs in the context `differentiable`."""
    return differentiable()(function)


class _Replaced(TorchFunctionMode):
    """Mode of torch that avoids the fused kernels of weight normalisation and of recurrent layers.

    For weight normalisation, torch has no switch; the kernel is replaced. For recurrent layers, it has switches that
    also slow other functions down; they are set only while a recurrent layer runs.
    """

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
    """Outputs x Wᵀ + b (…, n, o) for x (…, n, i), W (…, o, i) and b (…, o), computed as (W xᵀ + b)ᵀ.

    The gradient with respect to W then has the order of W in memory. With x Wᵀ, the gradient would be a transpose, and
    copying it can take longer than the product.
    """
    product = weight @ x.mT
    return (product if bias is None else product + bias[..., None]).mT


def affine_layers(function: Callable) -> Callable:
    """Wrap `function` so that all linear layers it applies to vectors (n, i) are computed by `affine`."""

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
    """Context in which the CPU sets subnormal numbers to zero, in the calling thread.

    Gradients of a nearly saturated softmax contain many subnormal numbers, which make matrix products over 100 times as
    slow.
    """
    before = bool(torch.tensor(SUBNORMAL) * 1 == 0)  # Torch has no function to read the setting.
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


@contextmanager
def single_precision() -> Iterator[None]:
    """Context in which products and convolutions of single-precision numbers keep all digits of their factors.

    By default, torch rounds the factors of convolutions on a GPU to three digits (TF32).
    """
    before, allowed = {each: each.fp32_precision for each in ROUNDING}, _allows_tf32()
    try:
        if allowed:
            # Set torch's older switch too: networks may read it, and torch raises if it disagrees with the newer ones.
            torch.backends.cudnn.allow_tf32 = False
        for each in ROUNDING:
            if each.fp32_precision not in ("none", "ieee"):
                each.fp32_precision = "ieee"
        yield
    finally:
        if allowed:
            torch.backends.cudnn.allow_tf32 = True
        for each, precision in before.items():
            if each.fp32_precision != precision:
                each.fp32_precision = precision


def _allows_tf32() -> bool:
    """Return whether torch's older switch allows TF32 in convolutions, or False if torch refuses to read it.

    Torch refuses where the older switch disagrees with the newer ones.
    """
    try:
        return torch.backends.cudnn.allow_tf32
    except RuntimeError:
        return False


def differentiating(function: Callable) -> Callable:
    """Wrap `function` so that it runs with gradients recorded and in full precision.

    Inference mode, autocast and the rounding of factors, as in TF32, are off while `function` runs. Recorded gradients
    also allow `curvature.working_memory` to count the tensors that autograd saves.
    """

    @functools.wraps(function)
    def in_our_mode(*arguments, **options):
        with ExitStack() as modes:
            modes.enter_context(torch.inference_mode(False))
            modes.enter_context(torch.enable_grad())
            modes.enter_context(single_precision())
            for kind in ("cpu", "cuda"):
                if torch.is_autocast_enabled(kind):
                    modes.enter_context(torch.autocast(kind, enabled=False))
            return function(*arguments, **options)

    return in_our_mode


def usual(tensor: Tensor) -> Tensor:
    """Return `tensor` or, if it is an inference tensor, which autograd refuses, a copy that autograd accepts."""
    return tensor.clone() if tensor.is_inference() else tensor
