"""Curvature whatever mode torch is in: without gradients, for inference, or in mixed precision."""

import functools
from collections.abc import Callable
from contextlib import ExitStack

import torch
from torch import Tensor


def differentiating(function: Callable) -> Callable:
    """`function` with gradients on, so that saved tensors can be counted, and in the precision of its arrays."""

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
    """The tensor, or a copy that autograd takes where it was made for inference."""
    return tensor.clone() if tensor.is_inference() else tensor
