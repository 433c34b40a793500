"""A problem: the network, examples, loss and temperature that define the function whose curvature is measured."""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn

from goldilocks_zone.models import criteria, losses, named_inputs, networks
from goldilocks_zone.models.named_inputs import Named

Array = Tensor | np.ndarray
Labels = Array | Sequence[int]


def refuse_not_positive(value: float, name: str) -> None:
    """Raise ValueError unless `value` is positive and finite; the message calls the value by its `name`."""
    if not 0 < value < math.inf:
        raise ValueError(f"{name} {value} is not positive and finite: give a number above zero")


@dataclass(frozen=True, eq=False)
class Problem:
    """The mean loss of a network over examples, as a function of the network's parameters.

    network: a module, which is not modified, and whose parameters are flattened in the order of `module.parameters()`;
    or a function (parameters (D,), inputs (n, …)) → logits (n, k). For a loss with several elements per example, such
    as tokens, the function returns outputs (n, …).

    inputs (n, …), labels (n, …): one batch of arrays of torch or numpy, or a list or other reusable iterable of
    batches. With several batches, labels are an iterable too, or `inputs` yields pairs (inputs, labels), like torch's
    DataLoader. A batch may be a dictionary of arrays (n, …): the module takes them by name, except the labels, under
    the key `labels` or `label`. Labels are class numbers (n,) unless the loss defines them otherwise.

    loss: a Loss, a name from `losses.LOSSES`, a criterion of torch.nn, or any function of outputs and labels that is a
    mean over examples. A loss that couples examples takes a single batch. temperature: number by which the logits are
    divided before the loss is applied.

    Raises ValueError if the loss is unknown, the temperature is not positive, batches come from an iterator, a loss
    that couples examples gets several batches, or a function gets dictionaries.
    """

    network: nn.Module | networks.Logits
    inputs: Any
    labels: Any = None
    loss: Any = "cross_entropy"
    temperature: float = 1.0

    if TYPE_CHECKING:  # The forms that arguments may have; attributes that depend on the form are of type Any.

        def __init__(
            self,
            network: nn.Module | networks.Logits,
            inputs: Array | Iterable,
            labels: Array | Iterable | None = None,
            loss: losses.Loss | criteria.Criterion | str = "cross_entropy",
            temperature: float = 1.0,
        ) -> None: ...

    def __post_init__(self) -> None:
        object.__setattr__(self, "loss", criteria.loss_of(self.loss))
        refuse_not_positive(self.temperature, "temperature")
        self._take_names()
        if self.is_one_batch:
            return
        if isinstance(self.inputs, Iterator) or isinstance(self.labels, Iterator):
            raise ValueError("batches come from an iterator, which ends after one pass: give a list or a DataLoader")
        if self.loss.couples_examples:
            raise ValueError(
                f"the loss {self.loss.name} couples examples, so it is no sum over batches: give inputs and labels as "
                "one batch"
            )

    def _take_names(self) -> None:
        """If batches are dictionaries, wrap the module in `Named`, and pack a single batch into rows (n, W).

        If there are several batches, the method `batches` packs each when it is needed. Raises ValueError if batches
        are dictionaries and the network is a function.
        """
        if isinstance(self.network, Named) or isinstance(self.inputs, Iterator):
            return
        one = isinstance(self.inputs, Mapping)
        first = self.inputs if one or self.is_one_batch else next(iter(self.inputs), None)
        if not isinstance(first[0] if isinstance(first, list | tuple) and first else first, Mapping):
            return
        if not isinstance(self.network, nn.Module):
            raise ValueError(
                "batches are dictionaries, whose names a function of parameters and inputs cannot use: give a "
                "torch.nn.Module"
            )
        object.__setattr__(self, "network", Named(self.network))
        if one:
            inputs, labels = self._rows(self.inputs, self.labels)
            object.__setattr__(self, "inputs", inputs)
            object.__setattr__(self, "labels", labels)

    def _rows(self, inputs: Array | Mapping, labels: Array | None) -> tuple[Array, Array | None]:
        """Return the inputs and the labels of one batch; a dictionary of inputs is packed into rows (n, W).

        If `labels` is None and the dictionary contains labels, these are returned.
        """
        if not isinstance(inputs, Mapping):
            return inputs, labels
        assert isinstance(self.network, Named)  # as `_take_names` has wrapped it
        named, own = named_inputs.split(inputs)
        return self.network.rows(named), own if labels is None else labels

    @property
    def is_one_batch(self) -> bool:
        """True if `inputs` are one array or nested lists of numbers; False for a dictionary or several batches."""
        given = self.inputs
        while isinstance(given, list | tuple) and given:
            given = given[0]
        if isinstance(given, Mapping):
            return False
        if given is not self.inputs:
            return not getattr(given, "ndim", 0)
        return hasattr(given, "__array__") or not isinstance(given, Iterable)

    def batches(self) -> Iterator[tuple[Array, Array | None]]:
        """Yield the inputs and the labels of each batch; labels are None if there are none.

        Raises ValueError if inputs and labels have different numbers of batches, or if a batch is a list or tuple of
        other than two parts.
        """
        if self.is_one_batch:
            yield self.inputs, self.labels
        elif self.labels is not None:
            for inputs, labels in itertools.zip_longest(self.inputs, self.labels):
                if inputs is None or labels is None:
                    raise ValueError(
                        "there are not as many batches of labels as of inputs: give one for each batch of inputs"
                    )
                yield self._rows(inputs, labels)
        else:
            for batch in self.inputs:
                parts = tuple(batch) if isinstance(batch, list | tuple) else (batch, None)
                if len(parts) != 2:
                    raise ValueError(
                        f"a batch has {len(parts)} parts: let each be inputs and labels, as a pair (inputs, labels), "
                        "or inputs alone"
                    )
                yield self._rows(*parts)
