"""Batches of named arrays, as language models take them: packed into one array of rows, and unpacked for the module.

Named arrays are a dictionary from names to arrays (n, …). A row holds all W numbers of one example.
"""

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

LABELS = ("labels", "label")
LARGEST = 2**24  # integers up to this magnitude are exact in single precision


class Named(nn.Module):
    """Module with named inputs, wrapped so that it takes one array (n, W), whose rows hold all inputs of an example.

    Rows are floating-point numbers. Integers are converted to them and back without error, because only integers that
    they represent exactly are accepted.
    """

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module, self._layouts = module, {}

    def rows(self, batch: Mapping) -> Tensor:
        """Pack the named arrays of a batch, each (n, …), into rows (n, W).

        Rows are in single precision if this is exact, else in double. Raises ValueError if the arrays differ in n, if
        an integer exceeds LARGEST in magnitude, or if an earlier batch of the same width W has other names, shapes or
        types.
        """
        arrays = {name: torch.as_tensor(values) for name, values in batch.items()}
        sizes = {name: len(each) if each.ndim else None for name, each in arrays.items()}
        if None in sizes.values() or len(set(sizes.values())) != 1:
            raise ValueError(
                f"the arrays of a batch need equal numbers of rows and have {sizes}: give each array one row for each "
                "example"
            )
        for name, each in arrays.items():
            if not each.is_floating_point() and each.numel() and each.long().abs().max() > LARGEST:
                raise ValueError(
                    f"{name} holds whole numbers beyond ±{LARGEST}, which single precision cannot hold exactly: give "
                    "smaller ones"
                )
        layout = tuple((name, each.shape[1:], each.dtype) for name, each in arrays.items())
        width = sum(shape.numel() for _, shape, _ in layout)
        if self._layouts.setdefault(width, layout) != layout:
            raise ValueError(
                f"two batches have {width} numbers for each example, but differ in the names, shapes or types of their "
                "arrays: use the same names and types, and pad the arrays to one shape"
            )
        found = [each.reshape(len(each), -1).to(torch.float64) for each in arrays.values()]
        exact = all(each.dtype == torch.float32 or not each.is_floating_point() for each in arrays.values())
        joined = torch.cat(found, 1)
        return joined.float() if exact else joined

    def forward(self, rows: Tensor) -> object:
        """Unpack `rows` (n, W) into the named arrays, and return the outputs of the module for them.

        The layout is that of an earlier batch of width W that the method `rows` has packed.
        """
        arrays, start = {}, 0
        for name, shape, dtype in self._layouts[rows.shape[1]]:
            size = math.prod(shape)
            found = rows[:, start : start + size].reshape(len(rows), *shape)
            arrays[name] = found if dtype.is_floating_point else found.to(dtype)
            start += size
        return self.module(**arrays)


def split(batch: Mapping) -> tuple[dict, Tensor | np.ndarray | None]:
    """Split a batch into its named inputs, a dictionary, and its labels, which are None if it has none."""
    named = {name: values for name, values in batch.items() if name not in LABELS}
    return named, next((batch[name] for name in LABELS if name in batch), None)
