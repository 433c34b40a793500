"""Working memory of derivatives: its budget, and how many examples or directions fit into it at once."""

from collections.abc import Sequence

import torch
from torch import Tensor

from goldilocks_zone.models.networks import Logits
from goldilocks_zone.models.problem import refuse_not_positive

# Defaults of the budget in MiB. With the one for a GPU, no tensor of single precision has 2³¹ entries, beyond which
# kernels are slow or fail.
ON_CPU, AT_MOST_ON_GPU = 1024, 8192
# Arrays alive at once in a forward-over-reverse pass: per activation and direction, and per parameter.
ARRAYS_PER_ACTIVATION, ARRAYS_PER_PARAMETER = 8, 6
ARRAYS_KEPT = 4  # per activation, for the graph of a first derivative and a pass through this graph


def budget(memory_mib: float | None, theta: Tensor) -> float:
    """Working memory in MiB: `memory_mib` if given, or by default 1 GiB on a CPU, and half of a GPU's free memory.

    The default on a GPU is at most 8 GiB. The device is that of `theta`. Raises ValueError unless `memory_mib` is
    positive and finite.
    """
    if memory_mib is not None:
        refuse_not_positive(memory_mib, "memory_mib")
        return memory_mib
    if not theta.is_cuda:
        return ON_CPU
    held = torch.cuda.memory_reserved(theta.device) - torch.cuda.memory_allocated(theta.device)
    return min((torch.cuda.mem_get_info(theta.device)[0] + held) / 2**21, AT_MOST_ON_GPU)


def examples_per_chunk(logits: Logits, parameters: Tensor, inputs: Tensor, memory_mib: float) -> int:
    """Number of examples, at least one, whose derivatives along one direction fit into `memory_mib` at once.

    The derivatives are those of the function `logits` at `parameters` (D,), by forward over reverse mode. `inputs`
    (n, …) are a sample of the examples.
    """
    budget = memory_mib * 2**20 / parameters.element_size()
    # Many parameters may use up the budget. Take a quarter of it then, rather than one pass per example.
    left = max(budget - ARRAYS_PER_PARAMETER * parameters.numel(), budget / 4)
    return max(1, int(left / max(1, ARRAYS_PER_ACTIVATION * _entries_per_example(logits, parameters, inputs))))


def can_be_kept(logits: Logits, parameters: Tensor, inputs: Tensor, sizes: Sequence[int], memory_mib: float) -> bool:
    """Whether the autograd graphs that `autodiff.products` keeps for all chunks fit into `memory_mib`.

    The graphs are those of the function `logits` at `parameters` (D,). `sizes` are the numbers of examples of the
    chunks, and `inputs` (n, …) a sample of the examples.
    """
    entries = ARRAYS_KEPT * _entries_per_example(logits, parameters, inputs) * sum(sizes)
    entries += ARRAYS_PER_PARAMETER * parameters.numel() * len(sizes)
    return entries * parameters.element_size() <= memory_mib * 2**20


def directions_per_chunk(logits: Logits, parameters: Tensor, inputs: Tensor, memory_mib: float) -> int:
    """Number of directions, at least one, whose derivatives fit into `memory_mib` in a pass over all `inputs`.

    The pass computes derivatives of the function `logits` at `parameters` (D,) by forward over reverse mode.
    """
    per_example = _entries_per_example(logits, parameters, inputs)
    entries = ARRAYS_PER_ACTIVATION * per_example * len(inputs) + ARRAYS_PER_PARAMETER * parameters.numel()
    return max(1, int(memory_mib * 2**20 / (entries * parameters.element_size())))


def _entries_per_example(logits: Logits, parameters: Tensor, inputs: Tensor) -> int:
    alone = _saved_entries(logits, parameters, inputs[:1])
    return alone if len(inputs) == 1 else _saved_entries(logits, parameters, inputs[:2]) - alone


def _saved_entries(logits: Logits, parameters: Tensor, inputs: Tensor) -> int:
    """Number of tensor entries that a forward pass of the function `logits` on all `inputs` saves for backward."""
    entries = 0

    def count(tensor):
        # Return nothing: a hook that returns its tensor would keep it alive forever.
        nonlocal entries
        entries += tensor.numel()

    with torch.autograd.graph.saved_tensors_hooks(count, lambda nothing: nothing):
        logits(parameters.detach().requires_grad_(), inputs)
    return entries
