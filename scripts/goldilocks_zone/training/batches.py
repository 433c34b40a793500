"""Minibatch indices of each training step."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from goldilocks_zone.randomness import stream


def batch(shuffles: Sequence[tuple], step: int, size: int, n: int, keep_last: bool = False) -> Tensor:
    """Indices of the examples in the minibatch of a step: (size,) for a single random stream, (m, size) for m streams.

    shuffles: names of the streams, each with a new order of the n examples in every epoch. step: counts from 0.
    size: examples in a batch. keep_last: keep the shorter last batch of an epoch if `size` does not divide `n`;
    otherwise these examples are left out.
    """
    epoch, number = divmod(step, -(-n // size) if keep_last else n // size)
    rows = [_order(name, epoch, n)[number * size : (number + 1) * size] for name in shuffles]
    return torch.as_tensor(rows[0] if len(rows) == 1 else np.stack(rows))


def _order(name: tuple, epoch: int, n: int) -> np.ndarray:
    """Random permutation (n,) of the n examples for an `epoch`, drawn from the random stream `name`.

    The latest permutation of each stream is cached, because every step of an epoch needs it.
    """
    if _ORDERS.get(name, (None,))[0] != (epoch, n):
        _ORDERS[name] = (epoch, n), stream(*name, epoch).permutation(n)
    return _ORDERS[name][1]


_ORDERS: dict[tuple, tuple] = {}
