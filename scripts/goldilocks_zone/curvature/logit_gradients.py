"""Gradients of all logits over examples, their Gram matrix, and the spectrum of G that follows from it.

J (D, n · k) has the columns ∂z_k^μ/∂θ for logits k and examples μ, example after example. For fully connected layers J
is never formed: the scalar product of two columns is a product of adjoints times a product of inputs. Let S_μ = R_μ
R_μᵀ be the second derivative of the loss of example μ with respect to its logits. Then G = J S Jᵀ/n has the same
non-zero eigenvalues λ as Rᵀ(JᵀJ)R/n, and an eigenvector w of that matrix gives the eigenvector u = J R w/√(nλ) of G
(Fort & Ganguli 2019; Papyan 2019 for the spectrum). The Gram matrix JᵀJ is computed one block at a time. A block has
the rows of b examples, on and above the diagonal only.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from goldilocks_zone.curvature import arguments, autodiff
from goldilocks_zone.models import chains, kernels, layers
from goldilocks_zone.models.loss_factors import Factor
from goldilocks_zone.models.problem import Array, Problem
from goldilocks_zone.randomness import stream
from goldilocks_zone.spectra import lanczos

EXAMPLES_AT_ONCE = 250
ENTRIES_AT_ONCE = 2**20  # of a block of the Gram matrix: a few blocks fit into the CPU cache
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-11}


@dataclass(frozen=True)
class _Factors:
    """Adjoints (n, k, o) and inputs (n, i) of a layer; their outer products are the gradients for its weights.

    If `inputs` is None, `adjoints` holds the gradients themselves. `bias` tells whether the layer has a bias.
    """

    adjoints: Tensor
    inputs: Tensor | None
    bias: bool

    @kernels.differentiating
    def multiplied(self, rows: Tensor) -> Tensor:
        """Products JᵀJ x (m, n, k) for m vectors x, the `rows` (m, n, k), with J for the layer's parameters only."""
        if self.inputs is None:
            return (rows.flatten(1) @ self.adjoints.flatten(0, 1) @ self.adjoints.flatten(0, 1).T).view_as(rows)
        pulled = torch.einsum("mnk,nko->mno", rows, self.adjoints)
        # The product below, with the adjoints of each example, takes its vectors in this order of memory.
        pushed = self.inputs @ torch.einsum("mno,ni->mio", pulled, self.inputs)
        if self.bias:
            pushed += pulled.sum(1)[:, None]
        return torch.einsum("mno,nko->mnk", pushed, self.adjoints)

    @kernels.differentiating
    def products(self, others: "_Factors", total: Tensor | None = None) -> Tensor:
        """Scalar products (n, k, b, j) of the gradients in this layer with those of `others`, at b other examples.

        Here, k numbers the logits of this object and j those of `others`. The products are added to `total` in place if
        it is given.
        """
        product = self.adjoints.flatten(0, 1) @ others.adjoints.flatten(0, 1).T
        product = product.view(*self.adjoints.shape[:2], *others.adjoints.shape[:2])
        if self.inputs is None:
            return product if total is None else total.add_(product)
        assert others.inputs is not None  # Both objects are factors of one layer.
        weights = (self.inputs @ others.inputs.T + float(self.bias))[:, None, :, None]
        return product.mul_(weights) if total is None else total.addcmul_(product, weights)

    def part(self, some: slice) -> "_Factors":
        """Factors of the layer for the examples in the slice `some` only."""
        return _Factors(self.adjoints[some], None if self.inputs is None else self.inputs[some], self.bias)

    @kernels.differentiating
    def combined(self, weights: Tensor) -> "_Factors":
        """Factors of the gradient of Σ_k w_k z_k at each example, for logits z_k and `weights` w (n, k).

        The result has one logit per example, this sum, in place of k logits.
        """
        return _Factors(torch.einsum("nk,nko->no", weights, self.adjoints)[:, None], self.inputs, self.bias)

    def live(self) -> int:
        """Number of the layer's parameters for which the derivative of some logit of some example is not zero."""
        adjoints = (self.adjoints != 0).any(1)
        if self.inputs is None:
            return int(adjoints.any(0).sum())
        weights = adjoints.float().T @ (self.inputs != 0).float() > 0
        return int(weights.sum()) + int(adjoints.any(0).sum()) * self.bias

    @kernels.differentiating
    def own(self) -> Tensor:
        """Diagonal blocks (n, k, k) of JᵀJ, one per example, with J for the layer's parameters only."""
        product = self.adjoints @ self.adjoints.mT
        if self.inputs is not None:
            product = product * (self.inputs.square().sum(1) + float(self.bias))[:, None, None]
        return product


class Block(NamedTuple):
    """Rows of JᵀJ for b examples, starting at example `first`, with the columns of these and all later examples.

    JᵀJ is the sum of two parts. inner: the part of all layers but the last; None if there is only one. last: the part
    of the last layer. Both have the shape (b, k, n − first, k), so that the square on the diagonal of JᵀJ comes first.
    """

    first: int
    inner: Tensor | None
    last: Tensor

    @property
    def of_inner(self) -> Tensor:
        """The part of all layers but the last, of a network with several layers."""
        assert self.inner is not None
        return self.inner

    @property
    def whole(self) -> Tensor:
        """The sum of both parts: rows of JᵀJ for the parameters of all layers."""
        return self.last if self.inner is None else self.inner + self.last


def _joined(chunks: Sequence[_Factors]) -> _Factors:
    inputs = [each.inputs for each in chunks if each.inputs is not None]
    adjoints = torch.cat([each.adjoints for each in chunks])
    return _Factors(adjoints, torch.cat(inputs) if inputs else None, chunks[0].bias)


class LogitGradients:
    """Gradients of all logits at all examples: the matrix J (D, n · k), with `examples` n and `classes` k.

    They are stored as the `_Factors` of each layer, first to last. `layered` is True if there are several layers.
    """

    def __init__(self, layers: list[_Factors]):
        self._layers, self.layered = layers, len(layers) > 1
        self.examples, self.classes = layers[0].adjoints.shape[:2]
        self.dtype, self.device = layers[0].adjoints.dtype, layers[0].adjoints.device

    @classmethod
    def of_columns(cls, columns: Tensor) -> "LogitGradients":
        """Create from the gradients `columns` (n, k, D) of all logits, which are the columns of J."""
        return cls([_Factors(columns, None, False)])

    def multiplied(self, rows: Tensor) -> Tensor:
        """Products JᵀJ x (m, n, k) for m vectors x, the `rows` (m, n, k)."""
        return reduce(Tensor.add_, (layer.multiplied(rows) for layer in self._layers))

    def own(self, *, without_last: bool = False) -> Tensor:
        """Diagonal blocks (n, k, k) of JᵀJ, one per example; `without_last` leaves out the last layer.

        Raises ValueError with `without_last` unless the gradients are `layered`.
        """
        return reduce(Tensor.add_, (layer.own() for layer in self._chosen(without_last)))

    def products(self, others: "LogitGradients") -> Tensor:
        """Scalar products (n, k, b, j) with the gradients `others`, at b other examples of the same network.

        Here, k numbers the logits of this object and j those of `others`.
        """
        return _products(self._layers, others._layers)

    def combined(self, weights: Tensor) -> "LogitGradients":
        """Gradient of Σ_k w_k z_k at each example, for logits z_k and `weights` w (n, k).

        The result has one logit per example, this sum, in place of k logits.
        """
        return LogitGradients([layer.combined(weights.to(layer.adjoints)) for layer in self._layers])

    def live(self) -> int:
        """Number of parameters for which the derivative of some logit of some example is not zero."""
        return sum(layer.live() for layer in self._layers)

    def blocks(self) -> Iterator[Block]:
        """Yield all blocks of JᵀJ on and above the diagonal."""
        start = 0
        while start < self.examples:
            count = max(1, ENTRIES_AT_ONCE // (self.classes**2 * (self.examples - start)))
            mine, theirs = ([each.part(slice(start, end)) for each in self._layers] for end in (start + count, None))
            inner = _products(mine[:-1], theirs[:-1]) if self.layered else None
            yield Block(start, inner, mine[-1].products(theirs[-1]))
            start += count

    def _chosen(self, without_last: bool) -> list[_Factors]:
        if not without_last:
            return self._layers
        if not self.layered:
            raise ValueError(
                "the last layer cannot be left out of these gradients, because this network is not a chain of torch's "
                "own layers of which two or more have weights: give such a chain, for instance a torch.nn.Sequential"
            )
        return self._layers[:-1]


def _products(some: Sequence[_Factors], others: Sequence[_Factors]) -> Tensor:
    """Scalar products (n, k, b, j) of the logit gradients of n and b examples, summed over the given layers.

    `some` and `others` are the factors of these layers, for logits k at n examples and logits j at b examples.
    """
    (first, second), *rest = zip(some, others)
    total = first.products(second)
    for mine, theirs in rest:
        total = mine.products(theirs, total)
    return total


@kernels.differentiating
def of(problem: Problem, parameters: Array) -> LogitGradients:
    """Logit gradients J of all examples at `parameters` (D,), in the precision of the parameters.

    For networks that are not chains of known layers, all gradients are held in memory; for chains, only those of
    convolutions. Raises ValueError as `hessian.radial_sweep` does.
    """
    given = arguments.prepared(problem, parameters, labelled=False)
    chain = chains.matching(given.network, [given.theta], given.first)
    if chain is None:
        logits = given.logits("gauss_newton")
        columns = [autodiff.jacobian(logits, given.theta, some) for some in given.chunks(EXAMPLES_AT_ONCE)]
        return LogitGradients.of_columns(torch.cat(columns))
    layers_of_chunks = zip(*(_of_examples(chain, given.theta, some) for some in given.chunks(EXAMPLES_AT_ONCE)))
    return LogitGradients([_joined(chunks) for chunks in layers_of_chunks])


def _of_examples(chain: tuple, theta: Tensor, inputs: Tensor) -> list[_Factors]:
    """Factors of the logit gradients at `inputs` (n, …) and θ (D,): one `_Factors` for each layer with parameters.

    A dense layer has adjoints and inputs as factors; a convolution has the gradients themselves.
    """
    outputs, kept = chains.forward(chain, theta, inputs)
    by_class = []
    for k in range(outputs.shape[1]):
        seed = torch.zeros_like(outputs)
        seed[:, k] = 1
        steps = layers.flat(chains.backward(kept, theta, seed, to_inputs=False)[1])
        by_class.append([each for each in steps if isinstance(each.layer, layers.Affine)])
    found = []
    for same in zip(*by_class):
        layer, a = same[0].layer, same[0].forward
        adjoints = torch.stack([each.delta for each in same], 1)
        if isinstance(layer, layers.Dense):
            found.append(_Factors(adjoints, a, layer.bias is not None))
            continue
        stride, padding, dilation = layer.options
        patches = nn.functional.unfold(a, layer.shape[2:], dilation, padding, stride)
        own = torch.einsum("nkop,nip->nkoi", adjoints.flatten(3), patches).flatten(2)
        if layer.bias is not None:
            own = torch.cat([own, adjoints.flatten(3).sum(3)], 2)
        found.append(_Factors(own, None, False))
    return found


class TooFewEigenvalues(ValueError):
    """Raised if G has fewer non-zero eigenvalues than requested."""


@dataclass(frozen=True)
class GaussNewton:
    """Largest eigenvalues (m,) of G, descending, and cotangents x (m, n, k) that give the eigenvectors u = J x."""

    eigenvalues: np.ndarray
    cotangents: Tensor


def gauss_newton(gradients: LogitGradients, factor: Factor, count: int, *, centred: bool = False) -> GaussNewton:
    """Top `count` eigenpairs of G of the mean loss, from the logit `gradients` J and the `factor` R of the loss.

    J and R are for all examples. If `centred` is true, J is centred first: from the gradient of each logit, its mean
    over examples is subtracted. Raises ValueError as `lanczos.top_eigenpairs` does, and if the factor does not match
    the examples; TooFewEigenvalues if G has fewer than `count` non-zero eigenvalues.
    """
    roots = fitting(factor, gradients)
    own = gradients.own()
    nothing = torch.finfo(gradients.dtype).eps * float(own.diagonal(dim1=1, dim2=2).max())
    few = TooFewEigenvalues(f"G has fewer than {count} eigenvalues that are not zero: ask for fewer eigenvalues")
    if not traces(own, factor).mean() > nothing:
        raise few
    (examples, _, columns), like = roots.shape, own.new_zeros(())

    def across(rows: Tensor) -> Tensor:
        return rows - rows.mean(1, keepdim=True) if centred else rows

    def push(vectors: np.ndarray) -> np.ndarray:
        rows = torch.as_tensor(vectors).to(like).view(-1, examples, columns)
        moved = across(gradients.multiplied(across(roots.multiplied(rows))))
        return (roots.transposed(moved) / examples).flatten(1).double().cpu().numpy()

    start = stream("Gram matrix").standard_normal(examples * columns)
    search = lanczos.Search(start=start, tolerance=TOLERANCE[gradients.dtype], own_threads=True)
    values, vectors = lanczos.top_eigenpairs(push, len(start), count, search)
    if not values[-1] > nothing:
        raise few
    turned = roots.multiplied(torch.as_tensor(vectors.T.copy()).to(like).view(-1, examples, columns))
    return GaussNewton(values, turned / torch.as_tensor(np.sqrt(examples * values)).to(like)[:, None, None])


def traces(own: Tensor, factor: Factor) -> np.ndarray:
    """Traces (n,) of J_μ S_μ J_μᵀ for each example μ, whose mean is the trace of G.

    They follow from the diagonal blocks `own` (n, k, k) of JᵀJ and the `factor` of the loss.
    """
    return factor.traces(own).cpu().numpy()


def fitting(factor: Factor | None, gradients: LogitGradients) -> Factor:
    """Convert the `factor` to the precision and the device of the `gradients`.

    Raises ValueError if the factor is None, or if its numbers of examples and classes differ from those of the
    gradients.
    """
    shape = (gradients.examples, gradients.classes)
    if factor is None:
        raise ValueError(
            "the second derivative of the loss by the outputs has a negative eigenvalue, so it cannot be factorised: "
            "use another loss"
        )
    if factor.shape[:2] != shape:
        raise ValueError(
            f"outputs have the shape {tuple(factor.shape[:2])} (examples, classes), but gradients {shape}: compute "
            "both from the same examples and network"
        )
    return factor.to(torch.empty(0, dtype=gradients.dtype, device=gradients.device))


@kernels.differentiating
def pushed(problem: Problem, parameters: Array, directions: Array) -> Tensor:
    """Derivatives Jᵀ v (m, n, k) of the logits at all examples along `directions` v (m, D), at `parameters` (D,).

    Raises ValueError as `of` does.
    """
    given = arguments.prepared(problem, parameters, labelled=False)
    logits, theta = given.logits("gauss_newton"), given.theta
    directions = arguments.rows(directions, theta, "directions").to(theta.dtype)
    along = [autodiff.tangents(logits, theta, some) for some in given.chunks(EXAMPLES_AT_ONCE)]
    return torch.cat([torch.stack([push(each) for each in directions]) for push in along], 1)


@kernels.differentiating
def pulled(problem: Problem, parameters: Array, cotangents: Array) -> Tensor:
    """Products J x (m, D) of the logit gradients with `cotangents` x (m, n, k), summed over examples and logits.

    The gradients are taken at `parameters` (D,). Raises ValueError as `of` does, and for x of another shape.
    """
    given = arguments.prepared(problem, parameters, labelled=False)
    logits, theta = given.logits("gauss_newton"), given.theta
    cotangents = arguments.real(cotangents, "cotangents").to(theta)
    shape = (given.count, logits(theta, given.first[:1]).shape[1])
    if cotangents.ndim != 3 or tuple(cotangents.shape[1:]) != shape:
        raise ValueError(
            f"cotangents have the shape {tuple(cotangents.shape)}: give the shape (m, {shape[0]}, {shape[1]})"
        )
    return autodiff.pulled(logits, theta, given.chunks(EXAMPLES_AT_ONCE), cotangents, theta.dtype)
