"""Products with the Hessian in full space, or with its Gauss–Newton part, of fully connected chains at one point.

What does not depend on the vector is computed once: activations, adjoints, slopes. A product is then one tangent
forward and its adjoint back, two products of matrices for the first layer and six for each other.
One letter per axis: n examples, k classes, o outputs, i inputs of a layer, d vectors.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from goldilocks_zone.models import chains, losses
from goldilocks_zone.models.layers import Activation, Dense, Reshape

EXAMPLES_AT_ONCE = 1000


@dataclass(frozen=True)
class _Step:
    """One layer: of a dense one its inputs a (n, i) and the adjoint δ (n, o) of its outputs; of an activation its
    slopes φ′(z) and, where it bends, δ ⊙ φ″(z)."""

    layer: Dense | Activation
    values: Tensor
    adjoint: Tensor | None


def applies(chain: tuple | None, theta: Tensor, inputs: Tensor, memory_mib: float) -> bool:
    """Whether all layers are fully connected ones, activations and flattening, and what is kept fits into memory."""
    if chain is None or not all(isinstance(layer, Dense | Activation | Reshape) for layer in chain):
        return False
    entries = 3 * len(inputs) * sum(sum(layer.shape) for layer in chain if isinstance(layer, Dense))
    return entries * theta.element_size() <= memory_mib * 2**20


class Products:
    """The map from vectors (d, D) to products (d, D) with the Hessian of the mean loss at θ (D,), in its precision."""

    def __init__(
        self,
        chain: tuple,
        theta: Tensor,
        inputs: Tensor,
        labels: Tensor,
        *,
        gauss_newton: bool,
        loss: str,
        temperature: float,
    ):
        self._theta, self._loss, self._temperature, self._count = theta, loss, temperature, len(inputs)
        self._chunks = [
            self._prepared(chain, some, targets, gauss_newton)
            for some, targets in zip(inputs.split(EXAMPLES_AT_ONCE), labels.split(EXAMPLES_AT_ONCE))
        ]

    def _prepared(self, chain: tuple, inputs: Tensor, labels: Tensor, gauss_newton: bool) -> tuple[list[_Step], Tensor]:
        """The layers of some examples, and the outputs' p (n, k)."""
        outputs, kept = chains.forward(chain, self._theta, inputs)
        cooled = outputs.double() / self._temperature
        if not gauss_newton:
            delta = losses.residuals(cooled, labels, self._loss) / self._temperature
            _, kept = chains.backward(kept, self._theta, delta.to(outputs), to_inputs=False)
        steps = []
        for each in kept:
            if isinstance(each.layer, Dense):
                steps.append(_Step(each.layer, each.forward, each.delta))
            elif isinstance(each.layer, Activation) and steps:
                bends = each.layer.bend is not None and each.delta is not None
                bend = each.delta * each.layer.bend(each.forward) if bends else None
                steps.append(_Step(each.layer, each.layer.slope(each.forward), bend))
        return steps, torch.softmax(cooled, 1).to(outputs)

    def __call__(self, vectors: Tensor) -> Tensor:
        """Products with each row."""
        products = torch.zeros_like(vectors)
        for vector, product in zip(vectors, products):
            for steps, p in self._chunks:
                self._add(vector, product, steps, p)
        return products / self._count

    def _add(self, vector: Tensor, product: Tensor, steps: list[_Step], p: Tensor) -> None:
        tangent, before = None, []
        for step in steps:
            before.append(tangent)
            if isinstance(step.layer, Activation):
                tangent = tangent * step.values
                continue
            moved = step.values @ step.layer.weights(vector).T
            if tangent is not None:
                moved.addmm_(tangent, step.layer.weights(self._theta).T)
            if step.layer.bias is not None:
                moved += vector[step.layer.bias]
            tangent = moved
        back = self._curved(tangent, p)
        for number, step in reversed(list(enumerate(steps))):
            tangent = before[number]
            if isinstance(step.layer, Activation):
                back = back * step.values
                if step.adjoint is not None:
                    back.addcmul_(step.adjoint, tangent)
                continue
            weights = step.layer.weights(product)
            weights.addmm_(back.T, step.values)
            if tangent is not None and step.adjoint is not None:
                weights.addmm_(step.adjoint.T, tangent)
            if step.layer.bias is not None:
                product[step.layer.bias] += back.sum(0)
            if number:
                back = back @ step.layer.weights(self._theta)
                if step.adjoint is not None:
                    back.addmm_(step.adjoint, step.layer.weights(vector))

    def _curved(self, tangent: Tensor, p: Tensor) -> Tensor:
        """The loss's second derivative by the logits times tangents (n, k)."""
        tangent = tangent / self._temperature**2
        if self._loss == "mean_squared_error":
            return tangent
        return p * (tangent - (p * tangent).sum(1, keepdim=True))
