"""Products with the Hessian in full space, or with its Gauss–Newton part, of fully connected chains at one point.

Activations, adjoints and slopes, which do not depend on the vector, are computed once. A product is then one tangent
forward and its adjoint back, two products of matrices for the first layer and six for each other.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from goldilocks_zone.curvature.arguments import Prepared
from goldilocks_zone.curvature.tangents import Step
from goldilocks_zone.models import chains
from goldilocks_zone.models.layers import Activation, Dense, Reshape

EXAMPLES_AT_ONCE = 1000


class Products:
    """The map from vectors (d, D) to products (d, D) with the Hessian of the mean loss at a point, in its precision."""

    def __init__(self, chain: tuple, given: Prepared, gauss_newton: bool):
        self._chain, self._given, self._gauss_newton = chain, given, gauss_newton
        self._theta, self._temperature, self._count = given.theta, given.temperature, given.count
        self._chunks = [
            self._prepared(*some) for batch in given for some in zip(*(each.split(EXAMPLES_AT_ONCE) for each in batch))
        ]

    @staticmethod
    def applies(chain: tuple | None, theta: Tensor, examples: int, memory_mib: float) -> bool:
        """Whether all layers are dense ones, activations and flattening, and the arrays to keep fit into memory."""
        if chain is None or not all(isinstance(layer, Dense | Activation | Reshape) for layer in chain):
            return False
        entries = 3 * examples * sum(sum(layer.shape) for layer in chain if isinstance(layer, Dense))
        return entries * theta.element_size() <= memory_mib * 2**20

    def _prepared(self, inputs: Tensor, labels: Tensor) -> tuple[list[Step], Callable[[Tensor], Tensor]]:
        """Dense layers with inputs and adjoints, activations with slopes, and products with the loss's curvature."""
        outputs, kept = chains.forward(self._chain, self._theta, inputs)
        cooled = outputs.double() / self._temperature
        if not self._gauss_newton:
            delta = self._given.loss.gradient(cooled, labels) / self._temperature
            _, kept = chains.backward(kept, self._theta, delta.to(outputs), to_inputs=False)
        steps = []
        for each in kept:
            if isinstance(each.layer, Dense):
                steps.append(Step(each.layer, each.forward, each.delta))
            elif isinstance(each.layer, Activation) and steps:
                steps.append(Step(each.layer, each.layer.slope(each.forward), None, bend=each.bend()))
        return steps, self._given.loss.curvature(cooled, labels, outputs.dtype)

    def __call__(self, vectors: Tensor) -> Tensor:
        products = torch.zeros_like(vectors)
        for vector, product in zip(vectors, products):
            for steps, curved in self._chunks:
                self._add(vector, product, steps, curved)
        return products / self._count

    def _add(self, vector: Tensor, product: Tensor, steps: list[Step], curved: Callable) -> None:
        tangent, before = None, []
        for step in steps:
            before.append(tangent)
            if isinstance(step.layer, Activation):
                tangent = tangent * step.memory
                continue
            moved = step.memory @ step.layer.weights(vector).T
            if tangent is not None:
                moved.addmm_(tangent, step.layer.weights(self._theta).T)
            if step.layer.bias is not None:
                moved += vector[step.layer.bias]
            tangent = moved
        back = curved(tangent / self._temperature**2)
        for number, step in reversed(list(enumerate(steps))):
            tangent = before[number]
            if isinstance(step.layer, Activation):
                back = back * step.memory
                if step.bend is not None:
                    back.addcmul_(step.bend, tangent)
                continue
            weights = step.layer.weights(product)
            weights.addmm_(back.T, step.memory)
            if tangent is not None and step.delta is not None:
                weights.addmm_(step.delta.T, tangent)
            if step.layer.bias is not None:
                product[step.layer.bias] += back.sum(0)
            if number:
                back = back @ step.layer.weights(self._theta)
                if step.delta is not None:
                    back.addmm_(step.delta, step.layer.weights(vector))
