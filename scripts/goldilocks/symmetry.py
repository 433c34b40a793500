"""Second derivatives that are none: matrices from automatic differentiation that are not symmetric.

What a network computes under torch.no_grad, or on a tensor's .data, forward mode sees and reverse mode does not. (On
.data only where it goes over reverse mode: of first derivatives it is a constant to both.)
"""

import torch
from torch import Tensor

from goldilocks import automatic, networks

EXAMPLES = 3


def refuse_asymmetric(matrix: Tensor, size: float) -> None:
    """Raise ValueError if a matrix (d, d) of products with vectors is less symmetric than rounding leaves it.

    `size` is that of the terms it is a sum of, beside its own: rounding leaves an asymmetry of a few ε of both, the
    precision of the matrix (200 ε in the worst case measured), a part that only one mode sees one of order 1. The
    bound 10 √ε is between these in single and in double precision.
    """
    size = size + float(torch.linalg.matrix_norm(matrix, dtype=torch.float64))
    asymmetry = float(torch.linalg.matrix_norm(matrix - matrix.T, dtype=torch.float64))
    # What is not finite is refused with the examples that have it.
    if asymmetry > 10 * torch.finfo(matrix.dtype).eps ** 0.5 * size:
        raise ValueError(
            f"second derivatives are not symmetric, by {asymmetry / size:.1g} of their size, so that they are the "
            "Hessian of nothing: forward mode sees what the network computes under torch.no_grad or on .data, reverse "
            "mode does not, so take both out of its forward pass, and use detach for what is meant to be constant"
        )


def refuse_asymmetric_products(logits: networks.Logits, parameters: Tensor, inputs: Tensor, part: str) -> None:
    """The same of products with a `part` of the Hessian, along two random vectors, for a few of the inputs (n, …).

    Of the squared error, which no softmax saturates.
    """
    some, generator = networks.few(inputs, EXAMPLES), torch.Generator().manual_seed(0)
    vectors = torch.randn(2, len(parameters), generator=generator).to(parameters)
    labels = torch.zeros(len(some), dtype=torch.int64, device=some.device)
    problem = (logits, parameters, some, labels, "mean_squared_error", 1.0)
    if part == "gauss_newton":
        products, tangents = automatic.gauss_newton_products(*problem)(vectors), parameters.new_zeros(1)
    else:
        products, tangents = automatic.hessian_products(*problem)(vectors)
    refuse_asymmetric(vectors @ products.T, float(tangents.square().sum()))
