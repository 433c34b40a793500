"""Validation of the arguments of library functions: values are converted, or rejected with a one-sentence error.

Arrays may come from torch or NumPy, with any strides, on any device, with or without gradients. Only their values
matter; these are moved to the device of the parameters. Arrays below single precision are converted to single. `name`
is what error messages call an argument.
"""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import scipy.sparse
import torch
from torch import Tensor, nn

from goldilocks_zone.curvature import autodiff
from goldilocks_zone.models import criteria, kernels, losses, networks
from goldilocks_zone.models.networks import Logits
from goldilocks_zone.models.problem import Array, Labels, Problem

Network = nn.Module | Logits
Rows = Array | scipy.sparse.sparray
Plane = Tensor | scipy.sparse.csr_array
Matrix = TypeVar("Matrix", Tensor, scipy.sparse.csr_array)
EXAMPLES_COMPARED = 4
NO_EXAMPLES = "there are no examples to average over: give at least one, and ask for at least one"
CHECKPOINTED = (
    "the network computes activations again in its backward pass, as torch.utils.checkpoint does, and there it would "
    "compute without the given parameters: switch checkpointing off"
)


def network(given: Network) -> Network:
    """Network as a module, without wrappers for data parallelism or compilation, or as the function that was given.

    Raises ValueError if `given` is not callable, or is a module without parameters, with lazy (uninitialised)
    parameters, or with batch normalisation that mixes examples.
    """
    found: Any = given
    while isinstance(found, nn.DataParallel | nn.parallel.DistributedDataParallel) or hasattr(found, "_orig_mod"):
        found = found._orig_mod if hasattr(found, "_orig_mod") else found.module
    _refuse_unfit(found)
    return found


def _refuse_unfit(module: object) -> None:
    if not callable(module):
        raise ValueError(
            f"the network is of type {type(module).__name__}: give a torch.nn.Module, or a function that takes "
            "parameters (D,) and inputs and returns logits (n, k)"
        )
    if not isinstance(module, nn.Module):
        return
    tensors = dict(module.named_parameters())
    for name, tensor in tensors.items():
        if nn.parameter.is_lazy(tensor):
            raise ValueError(f"the network's parameter {name} has no shape yet: call the network once on inputs")
    if not tensors:
        raise ValueError("the network has no parameters, so that its loss has no Hessian: give one that has some")
    for name, layer in module.named_modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and (layer.training or layer.running_mean is None):
            raise ValueError(
                "the network mixes the examples of a batch, so that it has no loss per example: put its batch "
                f"normalisation {name or type(layer).__name__} into evaluation mode by network.eval(), with running "
                "statistics of its own (track_running_stats=True)"
            )


def parameters(given: Array, name: str = "parameters") -> Tensor:
    """Parameters (D,) in single or double precision, copied because forward passes may modify their arguments.

    Raises ValueError unless they are one vector of finite numbers.
    """
    theta = real(given, name).clone()
    if theta.ndim != 1:
        raise ValueError(
            f"{name} have the shape {tuple(theta.shape)}: give one vector (D,), for instance by "
            "torch.nn.utils.parameters_to_vector(network.parameters())"
        )
    _refuse_not_finite(theta[:, None], "parameter")
    return theta


def rows(given: Array, theta: Tensor, name: str = "vectors") -> Tensor:
    """Convert vectors (d, D) to a tensor on the device of θ (D,). Raises ValueError if misshapen or not finite."""
    found = _matrix(real(given, name).to(theta.device), name)
    if found.shape[1] != len(theta):
        raise ValueError(
            f"{name} of {found.shape[1]} entries were given for {len(theta)} parameters: these numbers must be the same"
        )
    _refuse_not_finite(found, name.removesuffix("s"))
    return found


def plane(given: Rows, theta: Tensor) -> Plane:
    """Directions (d, D) as a tensor on the device of `theta`, or as a CSR matrix if they are a sparse scipy matrix.

    Their values are checked later. Raises ValueError if they are complex or not a matrix with at least one row.
    """
    if not isinstance(given, scipy.sparse.sparray | scipy.sparse.spmatrix):
        return _matrix(real(given, "directions").to(theta.device), "directions")
    found: Any = scipy.sparse.csr_array(given)
    _refuse_complex(found.dtype, "directions")
    if not found.has_canonical_format:
        found = found.copy()
        found.sum_duplicates()
    return _matrix(found if found.dtype in (np.float32, np.float64) else found.astype(np.float64), "directions")


def _matrix(rows: Matrix, name: str) -> Matrix:
    shape: Any = rows.shape
    if rows.ndim != 2 or not shape[0]:
        raise ValueError(f"{name} have the shape {tuple(shape)}: give an array (d, D) with at least one row")
    return rows


def refuse_other_size(theta: Tensor, network: Network, directions: Plane | None = None) -> None:
    """Raise ValueError unless θ (D,), the parameters of a module and `directions` (d, D), if given, agree in D."""
    entries = None if directions is None else directions.shape[1]  # pyright: ignore[reportOptionalSubscript]
    size = sum(each.numel() for each in network.parameters()) if isinstance(network, nn.Module) else len(theta)
    if not len(theta) == size == (size if entries is None else entries):
        beside = "" if entries is None else f" and directions of {entries} entries"
        raise ValueError(
            f"{len(theta)} parameters{beside} were given for a network of {size} parameters: these numbers must be the "
            "same"
        )


class Prepared:
    """A problem at parameters θ (D,), as an iterable of validated batches of inputs (n, …) and labels (n, …).

    `network` is called on the first example of every batch, as a test. Floating-point inputs and labels are converted
    to `dtype`, if given. If `labelled` is false, labels are (n, 0) and unchecked. `first` holds the inputs of the first
    batch; `loss` is the problem's loss, fitted to the shape of the outputs. Raises ValueError if there are no examples,
    or if an argument is invalid.
    """

    def __init__(
        self, problem: Problem, network: Network, theta: Tensor, dtype: torch.dtype | None = None, labelled: bool = True
    ):
        self.network, self.theta, self.loss, self.temperature = network, theta, problem.loss, problem.temperature
        self._problem, self._dtype, self._labelled, self._begun = problem, dtype, labelled, False
        self._kept: tuple[Tensor, Tensor] | None = None
        batch = next(iter(self), None)
        if batch is None:
            raise ValueError(NO_EXAMPLES)
        self.first, _ = batch

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if self._kept is not None:
            yield self._kept
            return
        for inputs, labels in self._problem.batches():
            x, y, loss = _examples(self.network, self.theta, inputs, labels, self._problem.loss, self._labelled)
            if self._begun and loss.layout != self.loss.layout:
                raise ValueError(
                    f"the network's outputs have the axes {self.loss.layout} in one batch and {loss.layout} in "
                    f"another, which the loss {loss.name} cannot join: give inputs of one shape in all batches"
                )
            self.loss, self._begun = loss, True
            if self._dtype is not None:
                x, y = in_precision(x, self._dtype), in_precision(y, self._dtype)
            if self._problem.is_one_batch:
                self._kept = x, y
            yield x, y

    @cached_property
    def amount(self) -> float:
        """Total weight of the examples, from one pass over all batches. Raises ValueError unless it is positive."""
        found = sum(self.loss.amount(labels) for _, labels in self)
        if not found > 0:
            raise ValueError("all examples are ignored or have weight zero, so there is no mean: give positive weights")
        return found

    @cached_property
    def count(self) -> int:
        """Number of examples, from one pass over all batches."""
        return sum(len(inputs) for inputs, _ in self)

    def chunks(self, size: int) -> Iterator[Tensor]:
        """Yield the inputs of all examples, at most `size` at a time."""
        for inputs, _ in self:
            yield from inputs.split(size)

    def logits(self, part: str) -> Logits:
        """Logits (n, k) as a function of θ (D,) and inputs. Raises ValueError if autodiff cannot give a `part` of H."""
        logits = autodiff.function(self.network)
        if not self._labelled:
            # Without a loss, an axis of tokens cannot be told from one of classes, so outputs must be logits (n, k).
            networks.as_logits(networks.tensor_function(self.network)(self.theta, self.first[:1]), 1)
        autodiff.refuse_unfit_logits(logits, self.theta, self.first, part)
        return logits


def prepared(problem: Problem, point: Array, *, labelled: bool = True) -> Prepared:
    """The problem at a `point` (D,), with floating-point arrays in the precision of the point; see `Prepared`."""
    known, theta = network(problem.network), parameters(point)
    refuse_other_size(theta, known)
    return Prepared(problem, known, theta, theta.dtype, labelled)


def _examples(
    network: Network, theta: Tensor, inputs: Array, labels: Labels | None, loss: losses.Loss, labelled: bool
) -> tuple[Tensor, Tensor, losses.Loss]:
    """Validated inputs (n, …) and labels (n, …), and the loss fitted to the network's outputs flattened to (n, k).

    Labels are (n, 0) if `labelled` is false, or if `labels` is None and the loss is not one for classification.
    """
    inputs = dense(inputs, "inputs").to(theta.device)
    _refuse_complex(inputs.dtype, "inputs")
    if not inputs.ndim or not len(inputs):
        raise ValueError(NO_EXAMPLES)
    if inputs.is_floating_point():
        _refuse_not_finite(inputs.flatten(1) if inputs.ndim > 1 else inputs[:, None], "input")
        inputs = inputs.float() if inputs.element_size() < 4 else inputs
    inputs, outputs = _tried(network, theta, inputs)
    shape = outputs.shape[1:] or torch.Size([1])
    if not labelled or (labels is None and not loss.classifies):
        return inputs, inputs.new_empty(len(inputs), 0), loss.fitted(shape, None)
    if isinstance(loss, losses.CrossEntropy) and shape == (1,):
        raise ValueError(
            "the network has one logit, whose softmax is 1 and cross-entropy 0 for any weights: give it two logits, "
            "one for each class, or use the loss torch.nn.BCEWithLogitsLoss() with labels 0.0 and 1.0"
        )
    if labels is None:
        raise ValueError(f"the loss {loss.name} needs labels, and none are given: give one label for each example")
    found = _classes(labels, len(inputs), shape, loss) if loss.classifies else _labels(labels, len(inputs))
    found = found.to(theta.device)
    fitted = loss.fitted(shape, found)
    if isinstance(fitted, criteria.Average):
        some = networks.few(torch.arange(len(inputs)), EXAMPLES_COMPARED)
        outputs = autodiff.function(network)(theta, in_precision(inputs[some], theta.dtype))
        fitted.refuse_unfit(outputs.detach(), found[some])
    return inputs, found, fitted


def _classes(labels: Labels, examples: int, shape: Sequence[int], loss: losses.Loss) -> Tensor:
    """Check labels (n, …) of n `examples` with outputs (n, *shape): class numbers, or probabilities if allowed."""
    given, leading = _labels(labels, examples), getattr(loss, "class_axis", -1) == 1
    if isinstance(loss, losses.CrossEntropy) and given.is_floating_point() and given.shape[1:] == shape:
        if not (torch.isfinite(given) & (given >= 0)).all():
            raise ValueError("a label is negative or not finite: give probabilities of classes, or integers as classes")
        return given
    if len(shape) == 1:
        return classes(given, examples, shape[0], getattr(loss, "ignore_index", None))
    count, rest = (shape[0], shape[1:]) if leading else (shape[-1], shape[:-1])
    if given.shape[1:] != rest:
        raise ValueError(
            f"labels have the shape {tuple(given.shape)} and outputs {(examples, *shape)}: give labels of the shape "
            f"{(examples, *rest)}, or use the loss models.losses.CrossEntropy(class_axis=1) if axis 1 of the outputs "
            "runs over classes"
        )
    return classes(given.flatten(), given.numel(), count, getattr(loss, "ignore_index", None)).view(given.shape)


def in_precision(inputs: Tensor, dtype: torch.dtype) -> Tensor:
    """Convert floating-point `inputs` to `dtype`; leave integers unchanged."""
    return inputs.to(dtype) if inputs.is_floating_point() else inputs


def _tried(network: Network, theta: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Inputs, converted to floating point if the network rejects integers, and outputs (1, …) for the first example.

    Raises ValueError if the network fails.
    """
    try:
        return inputs, _first_outputs(network, theta, in_precision(inputs, theta.dtype))
    except _Failed as failure:
        if not inputs.is_floating_point():
            # Integers such as pixels are exact in single precision up to 24 bits.
            converted = inputs.to(torch.float64 if inputs.element_size() > 2 else torch.float32)
            with contextlib.suppress(_Failed):
                return converted, _first_outputs(network, theta, converted.to(theta.dtype))
        raise ValueError(
            f"the network fails on inputs of shape {tuple(inputs.shape)} and type {inputs.dtype} ({failure}): give "
            "inputs that it takes, and move its buffers and parameters to one device"
        ) from failure.__cause__


class _Failed(Exception):
    """Raised in place of an error of the network, whose type and first sentence become the message."""


def _first_outputs(network: Network, theta: Tensor, inputs: Tensor) -> Tensor:
    try:
        networks.refuse_changing(autodiff.function(network), theta, inputs[:1])
        with torch.autograd.graph.disable_saved_tensors_hooks(CHECKPOINTED):
            outputs = kernels.exact(networks.tensor_function(network))(theta.detach().requires_grad_(), inputs[:1])
    except networks.Unfit:
        raise
    except Exception as error:
        if CHECKPOINTED in str(error):
            raise ValueError(CHECKPOINTED) from error
        raise _Failed(autodiff.said(error)) from error
    if outputs.dtype != theta.dtype:
        raise ValueError(
            f"the network gives logits of type {outputs.dtype} for parameters of type {theta.dtype}: let it compute in "
            "the type of its parameters"
        )
    if autodiff.passes(outputs, "CheckpointFunctionBackward"):
        raise ValueError(CHECKPOINTED)
    return outputs.detach()


def _labels(given: Labels, examples: int) -> Tensor:
    labels = dense(given, "labels")
    if labels.ndim and len(labels) != examples:
        raise ValueError(f"{len(labels)} labels and {examples} inputs were given: give one label for each example")
    return labels


def classes(labels: Labels, examples: int, count: int, ignored: int | None = None) -> Tensor:
    """Class numbers (n,) of n `examples`, as int64.

    Raises ValueError unless there is one integer for each example, from 0 to `count` − 1 or equal to `ignored`.
    """
    given = _labels(labels, examples)
    if given.ndim != 1:
        raise ValueError(
            f"labels have the shape {tuple(given.shape)}: give one class number for each example, (n,), by "
            "labels.argmax(1) for one-hot rows, or by labels[:, 0] for a single column"
        )
    if given.is_floating_point() or given.is_complex():
        raise ValueError(
            f"labels are of type {given.dtype}, and a class is a whole number: give numbers of classes, for example by "
            "labels.long()"
        )
    found = given.to(torch.int64)
    wrong = (found < 0) | (found >= count)
    wrong = (wrong if ignored is None else wrong & (found != ignored)).nonzero()
    if len(wrong):
        place = int(wrong[0, 0])
        raise ValueError(
            f"label {found[place]} of example {place} is no class of a network with {count} logits: number the "
            f"classes from 0 to {count - 1}, and leave out examples without a class"
        )
    return found


def real(given: Array, name: str) -> Tensor:
    """Contiguous tensor without gradients, in single or double precision. Raises ValueError for complex numbers."""
    found = dense(given, name)
    _refuse_complex(found.dtype, name)
    if not found.is_floating_point():
        return found.double().contiguous()
    return (found.float() if found.element_size() < 4 else found).contiguous()


def dense(given: Array | Sequence, name: str) -> Tensor:
    """Dense tensor without gradients from a tensor, array or list of numbers. Raises ValueError for anything else."""
    if not isinstance(given, Tensor):
        try:
            array = np.asarray(given)
            with warnings.catch_warnings():
                # The array is only read.
                warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
                found = torch.as_tensor(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("=")))
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"{name} of type {type(given).__name__} cannot be read as an array of numbers "
                f"({autodiff.said(error)}): give a tensor or a NumPy array"
            ) from error
        return found.view(array.shape)
    if given.device.type == "meta":
        raise ValueError(f"{name} lie on the device meta, which holds no values: give them on the CPU or a GPU")
    return kernels.usual(given if given.layout == torch.strided else given.to_dense()).detach()


def _refuse_complex(dtype: torch.dtype | np.dtype, name: str) -> None:
    if dtype.is_complex if isinstance(dtype, torch.dtype) else dtype.kind == "c":
        raise ValueError(f"{name} are complex, of type {dtype}: give real and imaginary parts as real numbers")


def _refuse_not_finite(found: Tensor, name: str) -> None:
    """Raise ValueError, with the number of the first bad row, if an entry of `found` (m, …) is NaN or infinite."""
    # The sum is a quick test: it is not finite if an entry is not, but may also overflow.
    if not torch.isfinite(found.sum()) and not torch.isfinite(found).all():
        place = int((~torch.isfinite(found)).any(1).nonzero()[0, 0])
        raise ValueError(f"{name} {place} is not finite: find out where its NaN or infinite entries come from")


def of_rows(products: Callable[[Tensor], Tensor], theta: Tensor) -> Callable[[Array], Array]:
    """Wrap `products` to check its vectors (d, D) and convert them to the precision of θ; NumPy gives NumPy doubles."""

    @kernels.differentiating
    def checked(vectors: Array) -> Array:
        found = products(rows(vectors, theta).to(theta.dtype))
        return found if isinstance(vectors, Tensor) else found.double().cpu().numpy()

    return checked
