"""Products of vectors in full space with the Hessian of a fully connected chain, or a part of it, at one point.

Activations, adjoints and slopes do not depend on the vector and are computed once. A product then pushes one tangent
forward and pulls one adjoint back. This takes two matrix products for the first layer and six for each other layer.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import vmap

from goldilocks_zone.curvature.arguments import Prepared
from goldilocks_zone.curvature.tangents import Step
from goldilocks_zone.models import chains
from goldilocks_zone.models.layers import Activation, Dense, Reshape

# For the cache of a CPU: examples per chunk, and entries of tangents up to which vectors share matrix products. A GPU
# takes all examples at once, and as many vectors as fit into memory.
EXAMPLES_AT_ONCE = 1000
ENTRIES_AT_ONCE = 2**17


class Products:
    """Map from vectors (d, D) to their products (d, D) with a `part` of the Hessian of the mean loss at a point.

    `chain` has the layers of a fully connected network. `given` is the problem at the point. `part` is as in
    `hessian.hessian_products`. Products are in the precision of the point. On a GPU, `memory_mib` bounds the number of
    vectors that are multiplied at once.
    """

    def __init__(self, chain: tuple, given: Prepared, part: str, memory_mib: float):
        self._chain, self._given, self._part = chain, given, part
        self._theta, self._temperature, self._amount = given.theta, given.temperature, given.amount
        per_example = _entries_per_example(chain)
        if self._theta.is_cuda:
            examples, per_vector = given.count, per_example
            entries = memory_mib * 2**20 / self._theta.element_size() - per_example * given.count
        else:
            examples, per_vector, entries = EXAMPLES_AT_ONCE, max(_widths(chain)), ENTRIES_AT_ONCE
        self._vectors_at_once = lambda examples: int(entries / (per_vector * examples))
        self._chunks = [
            self._prepared(*some) for batch in given for some in zip(*(each.split(examples) for each in batch))
        ]

    @staticmethod
    def applies(chain: tuple, theta: Tensor, examples: int, memory_mib: float) -> bool:
        """Whether the `chain` has only dense layers, activations and flattening, and its cache fits into `memory_mib`.

        `examples` is the number of examples. Cached arrays have the precision of `theta`.
        """
        if not all(isinstance(layer, Dense | Activation | Reshape) for layer in chain):
            return False
        return _entries_per_example(chain) * examples * theta.element_size() <= memory_mib * 2**20

    def _prepared(self, inputs: Tensor, labels: Tensor) -> tuple[list[Step], Callable[[Tensor], Tensor]]:
        """Steps of the layers for a chunk of examples, and a map from logit tangents ż (n, k) to S ż.

        S is the second derivative of the total loss with respect to logits / temperature. There is a step for each
        layer except for reshapes and for activations before the first dense layer. Steps of dense layers hold inputs
        and adjoints, steps of activations hold slopes. There are no adjoints if the part is `gauss_newton`. The map
        returns zero if the part is `residual`.
        """
        outputs, kept = chains.forward(self._chain, self._theta, inputs)
        cooled = outputs.double() / self._temperature
        if self._part != "gauss_newton":
            delta = self._given.loss.gradient(cooled, labels) / self._temperature
            _, kept = chains.backward(kept, self._theta, delta.to(outputs), to_inputs=False)
        steps = []
        for each in kept:
            if isinstance(each.layer, Dense):
                steps.append(Step(each.layer, each.forward, each.delta))
            elif isinstance(each.layer, Activation) and steps:
                steps.append(Step(each.layer, each.layer.slope(each.forward), None, bend=each.bend()))
        if self._part == "residual":
            return steps, torch.zeros_like
        return steps, self._given.loss.curvature(cooled, labels, outputs.dtype)

    def __call__(self, vectors: Tensor) -> Tensor:
        products = torch.zeros_like(vectors)
        for steps, curved in self._chunks:
            together = self._vectors_at_once(len(steps[0].memory))
            if together < 2:
                for vector, product in zip(vectors, products):
                    self._add(vector, product, steps, curved)
                continue
            for some, their in zip(vectors.split(together), products.split(together)):
                self._add(some, their, steps, vmap(curved))
        return products / self._amount

    def _add(self, vectors: Tensor, products: Tensor, steps: list[Step], curved: Callable) -> None:
        """Add the products of one or several vectors (…, D), summed over a chunk of examples, to `products` (…, D).

        `steps` and `curved` are the results of `_prepared` for the chunk.
        """
        tangent, before = None, []
        for step in steps:
            before.append(tangent)
            if _is_activation(step):
                assert tangent is not None  # Activations before the first dense layer have no step.
                tangent = tangent * step.memory
                continue
            moved = step.memory @ step.layer.weights(vectors).mT
            if tangent is not None:
                _add_product(moved, tangent, step.layer.weights(self._theta).mT)
            if step.layer.bias is not None:
                moved += vectors[..., None, step.layer.bias]
            tangent = moved
        assert tangent is not None  # A chain has a dense layer.
        back = curved(tangent / self._temperature**2)
        for number, step in reversed(list(enumerate(steps))):
            tangent = before[number]
            if _is_activation(step):
                back = back * step.memory
                if step.bend is not None:
                    back.addcmul_(step.bend, tangent)
                continue
            weights = step.layer.weights(products)
            _add_product(weights, back.mT, step.memory)
            if tangent is not None and step.delta is not None:
                _add_product(weights, step.delta.mT, tangent)
            if step.layer.bias is not None:
                products[..., step.layer.bias] += back.sum(-2)
            if number:
                back = back @ step.layer.weights(self._theta)
                if step.delta is not None:
                    _add_product(back, step.delta, step.layer.weights(vectors))


def _entries_per_example(chain: tuple) -> int:
    """Upper bound on the number of entries that `Products` of this chain cache for one example.

    The number also bounds the entries of the tangents of one vector, in all layers together, for one example.
    """
    return 3 * sum(_widths(chain))


def _widths(chain: tuple) -> list[int]:
    """Number of inputs plus number of outputs, for each dense layer of a chain."""
    return [sum(layer.shape) for layer in chain if isinstance(layer, Dense)]


def _is_activation(step: Step) -> bool:
    return isinstance(step.layer, Activation)


def _add_product(total: Tensor, first: Tensor, second: Tensor) -> None:
    """Add the product of `first` (…, a, b) and `second` (…, b, c) to `total` (…, a, c) in place."""
    if total.ndim == 2:
        total.addmm_(first, second)
    else:
        total.baddbmm_(*(each.expand(len(total), -1, -1) for each in (first, second)))
