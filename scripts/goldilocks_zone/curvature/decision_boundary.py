"""The decision boundary of a classifier in parameter space, and its alignment with eigenvectors of G and the Hessian.

The columns of J are the parameter gradients J_k(x) of all logits k at n training examples x. S is the second derivative
of the loss with respect to the logits, with one block (k, k) for each example. G = J S Jᵀ/n has eigenvectors of the
form v = J α. In this dual form, which is a contribution of this project, scalar products with v follow from the kernel
⟨J_k(x), J_l(x′)⟩, and no vector of D entries is formed. At a point of the boundary between classes k and l, the normal
in parameter space is u = (J_k − J_l)/|J_k − J_l|. At other points, g/|g| takes the place of u, where g is the gradient
of the loss with the predicted class ŷ as label (Sabanayagam et al. 2023).

Letters: b points, n examples, k classes, m eigenvectors, D parameters.
"""

from dataclasses import dataclass

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from goldilocks_zone.curvature import hessian, logit_gradients
from goldilocks_zone.curvature.logit_gradients import GaussNewton, LogitGradients
from goldilocks_zone.models.decision_boundary import Crossings
from goldilocks_zone.models.loss_factors import Factor
from goldilocks_zone.models.problem import Problem

RELATIVE_ZERO = 1e-13  # eigenvalues of G below this share of the largest count as zero


@dataclass(frozen=True)
class Dual:
    """Eigenpairs of G with non-zero eigenvalues, `pairs`, and the logit gradients J of n examples, `gradients`.

    `pairs` holds cotangents x in place of eigenvectors v, with v = J x.
    """

    gradients: LogitGradients
    pairs: GaussNewton

    def alignments(self, vectors: LogitGradients) -> np.ndarray:
        """Scalar products (b, m) of the gradients in `vectors`, one at each of b points, with all eigenvectors of G."""
        kernel = vectors.products(self.gradients)[:, 0].flatten(1)
        return (kernel @ self.pairs.cotangents.flatten(1).T).double().cpu().numpy()


def dual(gradients: LogitGradients, factor: Factor, kernel: Tensor | None = None) -> Dual:
    """Eigenpairs of G = J S Jᵀ/n, with S = R Rᵀ, from those of the matrix Rᵀ JᵀJ R/n (n r, n r).

    S is the second derivative of the loss with respect to the logits. `gradients` hold J, and `factor` holds R. In the
    `reduced` form of the factor, which is used here, R has r columns per example. `kernel` is JᵀJ (n, k, n, k), if
    already known. Eigenvalues that are zero up to rounding are left out; for a saturated softmax, this may leave no
    eigenpairs.
    """
    roots = logit_gradients.fitting(factor.reduced(), gradients)
    kernel = gradients.products(gradients) if kernel is None else kernel
    examples, _, columns = roots.shape
    matrix = roots.transposed_first(roots.transposed(kernel)).reshape(examples * columns, -1) / examples
    values, vectors = _descending(matrix)
    kept = values > RELATIVE_ZERO * values[0].clamp_min(torch.finfo(values.dtype).tiny)
    values, rows = values[kept], vectors[:, kept].T.reshape(-1, examples, columns)
    cotangents = roots.multiplied(rows) / (examples * values).sqrt()[:, None, None]
    return Dual(gradients, GaussNewton(values.double().cpu().numpy(), cotangents))


def predicted_loss_weights(logits: Tensor) -> Tensor:
    """Weights w (n, k) for which Σ_k w_k J_k is a positive multiple of the gradient g at each of n examples.

    J_k is the gradient of logit k, and g that of the cross-entropy with the predicted class as label. The weights are
    proportional to p − ŷ, where p is the softmax of `logits` (n, k) and ŷ is one-hot. Each row is divided by its
    largest magnitude 1 − p_ŷ, so that the predicted class has the weight −1. This is accurate even if p_ŷ rounds to 1,
    because 1 − p_ŷ is computed as the sum of p over the other classes.
    """
    logits = logits.double()
    predicted = logits.argmax(1, keepdim=True)
    others = torch.log_softmax(logits.scatter(1, predicted, -torch.inf), 1)
    weights = torch.exp(others - others.amax(1, keepdim=True))
    return weights.scatter(1, predicted, -weights.sum(1, keepdim=True)) / weights.sum(1, keepdim=True)


def unit(vectors: LogitGradients, weights: Tensor) -> LogitGradients:
    """Combinations Σ_k w_k J_k of the logit gradients of each example, scaled to unit length.

    `vectors` are the gradients J_k, and `weights` are w (n, k). Combinations that are zero stay zero.
    """
    lengths = vectors.combined(weights).own().view(-1, 1).clamp_min(0).sqrt()
    return vectors.combined(torch.where(lengths > 0, weights.to(lengths) / lengths, 0))


def differences(classes: Tensor, count: int) -> Tensor:
    """Weights (b, count) of the logits in the differences z_k − z_l, for pairs (k, l) of `classes` (b, 2).

    A row is 1 at k, −1 at l and 0 elsewhere.
    """
    eye = torch.eye(count, dtype=torch.float64, device=classes.device)
    return eye[classes[:, 0]] - eye[classes[:, 1]]


def normals(problem: Problem, parameters: Tensor, crossings: Crossings) -> LogitGradients:
    """Unit normals u of the decision boundary, in parameter space, at b `crossings`: one gradient per crossing.

    u is J_k − J_l at `parameters` (D,), scaled to unit length, for the two classes k and l of each crossing. Only the
    network of the problem is used, not its examples.
    """
    gradients = logit_gradients.of(Problem(problem.network, crossings.points), parameters)
    return unit(gradients, differences(crossings.classes, gradients.classes))


def predicted_loss(gradients: LogitGradients, logits: Tensor) -> LogitGradients:
    """Unit gradients g/|g| of the cross-entropy at n examples, with the predicted classes as labels.

    They are combined from the `gradients` of all logits at these examples, with weights that follow from the `logits`
    (n, k). A zero gradient stays zero.
    """
    return unit(gradients, predicted_loss_weights(logits))


def with_vectors(problem: Problem, parameters: Tensor, vectors: Tensor, weights: Tensor) -> np.ndarray:
    """Scalar products (n, m) of `vectors` (m, D) with unit combinations of logit gradients at n examples.

    The examples are those of the problem. The combinations are Σ_k w_k J_k for `weights` w (n, k), scaled to unit
    length; J_k is the gradient of logit k at `parameters` (D,). The products are zero for an example with
    Σ_k w_k J_k = 0.
    """
    lengths = logit_gradients.of(problem, parameters).combined(weights).own().view(-1, 1).sqrt()
    along = (logit_gradients.pushed(problem, parameters, vectors) * weights).sum(2)
    return torch.where(lengths > 0, along.T / lengths, 0).double().cpu().numpy()


@dataclass(frozen=True)
class Explicit:
    """All eigenvalues (D,) of the Hessian, descending, and alignments (n, D) of g/|g| with its eigenvectors.

    There is one g for each of n examples: the gradient of its loss with the predicted class as label.
    """

    eigenvalues: np.ndarray
    alignments: np.ndarray


def explicit(problem: Problem, parameters: Tensor, logits: Tensor, memory_mib: float | None = None) -> Explicit:
    """All eigenvalues of the Hessian at `parameters` (D,), and scalar products of its eigenvectors with g/|g|.

    There is one g for each example of the problem: the gradient of its loss with the predicted class as label. The
    predicted class is the one with the largest of the `logits` (n, k). The Hessian (D, D) is formed in the precision of
    the parameters, which is feasible for a few thousand parameters. `memory_mib` is as in `hessian.hessian_products`.
    """
    identity = torch.eye(len(parameters), dtype=parameters.dtype, device=parameters.device)
    matrix = hessian.hessian_vector_products(problem, parameters, identity, memory_mib=memory_mib)
    values, vectors = _descending(matrix)
    weights = predicted_loss_weights(logits).to(parameters)
    cotangents = torch.diag_embed(weights.T).permute(1, 2, 0)  # one example's weights in each row
    gradients = logit_gradients.pulled(problem, parameters, cotangents)
    gradients = torch.nn.functional.normalize(gradients, dim=1)
    found = gradients @ vectors
    return Explicit(values.double().cpu().numpy(), found.double().cpu().numpy())


def _descending(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues of a symmetric matrix, descending, and eigenvectors as columns, in the precision of the matrix."""
    # Use scipy: torch.linalg.eigh fails in single precision on matrices with many zero eigenvalues.
    values, vectors = scipy.linalg.eigh(((matrix + matrix.T) / 2).cpu().numpy(), driver="evd")
    eigenvalues, eigenvectors = (torch.as_tensor(each.copy()).to(matrix) for each in (values[::-1], vectors[:, ::-1]))
    return eigenvalues, eigenvectors
