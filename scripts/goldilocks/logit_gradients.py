"""Gradients of all logits over examples: their Gram matrix, how they cluster, and the spectrum of G that they carry.

J is the matrix of the columns ∂z_k^μ/∂θ, example after example: (D, n · k). It is never formed where a layer is fully
connected: there a product of two columns is one of adjoints times one of inputs. G = J S Jᵀ/n, S_μ = R_μ R_μᵀ, has the
eigenvalues of Rᵀ(JᵀJ)R/n, and its eigenvectors are u = J R w/√(nλ) (Fort & Ganguli 2019; Papyan 2019 for the spectrum).

Letters: n examples, k classes, D parameters.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from goldilocks import chains, lanczos, networks
from goldilocks.randomness import stream

EXAMPLES_AT_ONCE = 250
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-11}


def gram(network: nn.Module, parameters: Tensor, inputs: Tensor, *, without_last: bool = False) -> Tensor:
    """JᵀJ (n · k, n · k) at `parameters` (D,) over all `inputs` (n, …), in their precision.

    `without_last` leaves out the gradients by the parameters of the last layer that has some. In memory are two arrays
    of the result's size. Raises ValueError where `without_last` is asked of a network that is no chain of known layers.
    """
    chain = chains.of(network)
    if chain is None or not chains.sees_vectors(chain, parameters, inputs):
        if without_last:
            raise ValueError("the last layer of this network is not known: give it as a chain of torch's own layers")
        columns = _columns(network, parameters, inputs)
        return columns @ columns.T
    layers = _factors(chain, parameters, inputs)
    found = None
    for factors in layers[:-1] if without_last else layers:
        part = factors.gram()
        found = part if found is None else found.add_(part)
    return found


@dataclass(frozen=True)
class _Factors:
    """Of a layer: adjoints (n · k, o) and inputs (n, i) whose outer products are its gradients, or these themselves."""

    adjoints: Tensor
    inputs: Tensor | None
    bias: bool
    classes: int

    def gram(self) -> Tensor:
        product = self.adjoints @ self.adjoints.T
        if self.inputs is not None:
            n = len(self.inputs)
            inputs = self.inputs @ self.inputs.T + float(self.bias)
            product.view(n, self.classes, n, self.classes).mul_(inputs[:, None, :, None])
        return product


def _factors(chain: tuple, theta: Tensor, inputs: Tensor) -> list[_Factors]:
    """Of every layer with parameters, first to last."""
    parts = [_of_examples(chain, theta, some) for some in inputs.split(EXAMPLES_AT_ONCE)]
    classes = parts[0][1]
    joined = []
    for layers in zip(*(layers for layers, _ in parts)):
        layer = layers[0][0]
        adjoints = torch.cat([each for _, each, _ in layers])
        sources = None if layers[0][2] is None else torch.cat([each for *_, each in layers])
        joined.append(_Factors(adjoints, sources, layer.bias is not None, classes))
    return joined


def _of_examples(chain: tuple, theta: Tensor, inputs: Tensor) -> tuple[list[tuple], int]:
    """For some examples: of every layer, itself, its adjoints (n · k, o) and its inputs, or gradients and None."""
    outputs, kept = chains.forward(chain, theta, inputs)
    classes = outputs.shape[1]
    by_class = []
    for k in range(classes):
        seed = torch.zeros_like(outputs)
        seed[:, k] = 1
        by_class.append(list(_with_parameters(chains.backward(kept, theta, seed, to_inputs=False)[1])))
    found = []
    for same in zip(*by_class):
        layer, a = same[0].layer, same[0].forward
        adjoints = torch.stack([each.delta for each in same], 1)
        if isinstance(layer, chains.Dense):
            found.append((layer, adjoints.flatten(0, 1), a))
            continue
        stride, padding, dilation = layer.options
        patches = nn.functional.unfold(a, layer.shape[2:], dilation, padding, stride)
        own = torch.einsum("nkop,nip->nkoi", adjoints.flatten(3), patches).flatten(2)
        if layer.bias is not None:
            own = torch.cat([own, adjoints.flatten(3).sum(3)], 2)
        found.append((layer, own.flatten(0, 1), None))
    return found, classes


def _with_parameters(kept: list[chains.Kept]):
    for each in kept:
        if isinstance(each.layer, chains.Residual):
            yield from _with_parameters(each.inner)
        elif isinstance(each.layer, chains.Affine):
            yield each


def _columns(network: nn.Module, parameters: Tensor, inputs: Tensor) -> Tensor:
    """Jᵀ (n · k, D) by automatic differentiation."""
    logits = networks.logits_function(network)
    theta = parameters.detach().requires_grad_()
    rows = []
    for some in inputs.split(EXAMPLES_AT_ONCE):
        outputs = logits(theta, some)
        seeds = torch.eye(outputs.numel(), dtype=outputs.dtype, device=outputs.device).view(-1, *outputs.shape)
        (found,) = torch.autograd.grad(outputs, theta, seeds, is_grads_batched=True)
        rows.append(found)
    return torch.cat(rows)


@dataclass(frozen=True)
class Clustering:
    """Mean cosines of logit gradients of different examples (Fort & Ganguli 2019).

    same_logit_same_class: of logit k, both examples of class k; same_logit: of logit k, any two examples, which is also
    what the first is expected to be with permuted classes; other_logit and other_logit_absolute: of different logits,
    with their signs and without.
    """

    same_logit_same_class: float
    same_logit: float
    other_logit: float
    other_logit_absolute: float


def clustering(products: Tensor, labels: Tensor) -> Clustering:
    """Of a Gram matrix (n · k, n · k) and labels (n,); classes without two examples do not count for the first cosine.

    A gradient that is zero has cosine zero with all others.
    """
    n = len(labels)
    classes = len(products) // n
    lengths = products.diagonal().clamp_min(0).sqrt().view(n, classes)
    inverse = torch.where(lengths > 0, 1 / lengths, 0)
    blocks = products.view(n, classes, n, classes)
    pairs = n * (n - 1)
    same, other, absolute, of_class = [], 0.0, 0.0, []
    for k in range(classes):
        for j in range(classes):
            cosines = blocks[:, k, :, j].double() * inverse[:, k, None].double() * inverse[None, :, j].double()
            cosines.fill_diagonal_(0)
            if k != j:
                other += float(cosines.sum()) / pairs
                absolute += float(cosines.abs().sum()) / pairs
                continue
            same.append(float(cosines.sum()) / pairs)
            members = labels == k
            count = int(members.sum())
            if count > 1:
                of_class.append(float(cosines[members][:, members].sum()) / (count * (count - 1)))
    others = classes * (classes - 1)
    return Clustering(
        same_logit_same_class=float(np.mean(of_class)) if of_class else float("nan"),
        same_logit=float(np.mean(same)),
        other_logit=other / others,
        other_logit_absolute=absolute / others,
    )


def centred(products: Tensor, classes: int) -> Tensor:
    """The Gram matrix of J_k^μ less its mean over examples, of every logit: (n · k, n · k)."""
    blocks = products.view(len(products) // classes, classes, -1, classes)
    rows = blocks - blocks.mean(0, keepdim=True)
    return (rows - rows.mean(2, keepdim=True)).view_as(products)


class TooFewEigenvalues(ValueError):
    """G has fewer eigenvalues that are not zero than were asked for; the message is one sentence."""


@dataclass(frozen=True)
class GaussNewton:
    """The largest eigenvalues of G, descending (m,), cotangents x (n · k, m) with eigenvectors u = J x; Tr G, ‖G‖_F."""

    eigenvalues: np.ndarray
    cotangents: Tensor
    trace: float
    frobenius_norm: float


def gauss_newton(products: Tensor, outputs: Tensor, count: int) -> GaussNewton:
    """The spectrum of G of the mean cross-entropy, from JᵀJ (n · k, n · k) and softmax outputs p (n, k).

    Raises ValueError as `lanczos.top_eigenpairs` does, TooFewEigenvalues where G has no `count` that are not zero.
    """
    n, classes = outputs.shape
    roots = outputs.to(products).sqrt()

    def turned(vectors: Tensor) -> Tensor:
        """R x for rows x (…, n · k)."""
        parts = vectors.unflatten(-1, (n, classes))
        return (roots * (parts - roots * (parts * roots).sum(-1, keepdim=True))).flatten(-2)

    def turned_back(vectors: Tensor) -> Tensor:
        """Rᵀ x."""
        parts = roots * vectors.unflatten(-1, (n, classes))
        return (parts - roots * (parts * roots).sum(-1, keepdim=True)).flatten(-2)

    def push(vectors: np.ndarray) -> np.ndarray:
        rows = torch.as_tensor(vectors).to(products)
        return (turned_back(turned(rows) @ products) / n).double().cpu().numpy()

    trace, square = 0.0, 0.0
    for start in range(0, n, EXAMPLES_AT_ONCE):
        rows = slice(start * classes, (start + EXAMPLES_AT_ONCE) * classes)
        # R has one block for each example, so that rows of Rᵀ K R come from the same rows of K.
        half = turned_back(products[rows])
        own = roots[start : start + EXAMPLES_AT_ONCE]
        parts = own[..., None] * half.view(len(own), classes, -1)
        whole = parts - own[..., None] * (parts * own[..., None]).sum(1, keepdim=True)
        whole = whole.flatten(0, 1)
        trace += float(whole.diagonal(rows.start).sum(dtype=torch.float64))
        square += float(torch.linalg.vector_norm(whole, dtype=torch.float64)) ** 2
    nothing = torch.finfo(products.dtype).eps * float(products.diagonal().max())
    few = TooFewEigenvalues(f"G has fewer than {count} eigenvalues that are not zero: ask for fewer")
    if not trace / n > nothing:
        raise few
    values, vectors = lanczos.top_eigenpairs(
        push,
        len(products),
        count,
        start=stream("Gram matrix").standard_normal(len(products)),
        tolerance=TOLERANCE[products.dtype],
    )
    if not values[-1] > nothing:
        raise few
    scaled = (
        turned(torch.as_tensor(vectors.T).to(products)) / torch.as_tensor(np.sqrt(n * values)).to(products)[:, None]
    )
    return GaussNewton(values, scaled.T, trace / n, float(np.sqrt(square)) / n)


def pushed(network: nn.Module, parameters: Tensor, inputs: Tensor, direction: Tensor) -> Tensor:
    """Jᵀ v (n, k) for a direction v (D,)."""
    logits = networks.logits_function(network)

    def moved(some: Tensor) -> Tensor:
        return torch.func.jvp(lambda theta: logits(theta, some), (parameters,), (direction,))[1].detach()

    return torch.cat([moved(some) for some in inputs.split(EXAMPLES_AT_ONCE)])


def pulled(network: nn.Module, parameters: Tensor, inputs: Tensor, cotangents: Tensor) -> Tensor:
    """J x (m, D) for cotangents x (m, n, k)."""
    logits, theta = networks.logits_function(network), parameters.detach().requires_grad_()
    found = torch.zeros(len(cotangents), len(theta), dtype=theta.dtype, device=theta.device)
    for number, some in enumerate(inputs.split(EXAMPLES_AT_ONCE)):
        outputs = logits(theta, some)
        here = slice(number * EXAMPLES_AT_ONCE, number * EXAMPLES_AT_ONCE + len(some))
        for row, cotangent in zip(found, cotangents):
            row += torch.autograd.grad(outputs, theta, cotangent[here], retain_graph=True)[0]
    return found
