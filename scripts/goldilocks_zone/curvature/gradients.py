"""Gradients of the loss and of the logits in full space, and the gradient that would remain without prior mismatch.

Let p be the softmax output, Q̂ its mean over examples, and Q the class frequencies. Let C (k, D) be the mean over
examples of the logit gradients, and L the mean loss. Then ∇L is Cᵀ(Q̂ − Q) plus a covariance over examples, between the
logit gradients and p minus the label (Vysogorets, Dawid & Kempe 2024). The gradient can therefore vanish although the
logit gradients do not. The difference Q̂ − Q is the prior mismatch.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from goldilocks_zone.curvature import arguments, autodiff
from goldilocks_zone.models import kernels
from goldilocks_zone.models.losses import CrossEntropy
from goldilocks_zone.models.problem import Array, Problem

GRADIENTS = ("gradient_norm", "forced_gradient_norm", "forced_mismatch", "class_gradient_norm")
EXAMPLES_AT_ONCE = 1000
TOLERANCE, NEWTON_STEPS = 1e-12, 200


@dataclass(frozen=True)
class Gradients:
    """Norms of gradients in full space.

    gradient_norm: ‖∇L‖. forced_gradient_norm: ‖∇L‖ after adding constants, one for each class, to the logits so that Q̂
    = Q. forced_mismatch: ‖Q − Q̂‖ after adding these constants, which `prior_shift` finds only approximately.
    class_gradient_norm: root mean square over classes k of ‖⟨∇z_k⟩‖, with ⟨∇z_k⟩ the mean gradient of logit k over
    examples.
    """

    gradient_norm: float
    forced_gradient_norm: float
    forced_mismatch: float
    class_gradient_norm: float


@kernels.differentiating
def gradients(problem: Problem, parameters: Array) -> Gradients:
    """Norms of gradients of the mean cross-entropy and of the logits at `parameters` (D,).

    Raises ValueError for any other loss, and for class weights, label smoothing or ignored labels.
    """
    if not isinstance(problem.loss, CrossEntropy) or not problem.loss.is_plain:
        raise ValueError(
            f"these gradients can be computed only for the plain cross-entropy, not for the loss {problem.loss.name}: "
            "give the cross-entropy without class weights, label smoothing and ignored labels"
        )
    given = arguments.prepared(problem, parameters)
    logits = given.logits("gauss_newton")
    with torch.no_grad():
        outputs = torch.cat([logits(given.theta, some) for some in given.chunks(EXAMPLES_AT_ONCE)])
    outputs = outputs.double() / problem.temperature
    n, classes = outputs.shape
    one_hot = torch.nn.functional.one_hot(torch.cat([labels for _, labels in given]), classes).double()
    shares = one_hot.mean(0)
    shift = prior_shift(outputs, shares)
    forced = torch.softmax(outputs + shift, 1)
    cotangents = [(p - one_hot) / problem.temperature for p in (torch.softmax(outputs, 1), forced)]
    cotangents += [each.expand(n, -1) for each in torch.eye(classes, dtype=torch.float64, device=outputs.device)]
    found = autodiff.pulled(logits, given.theta, given.chunks(EXAMPLES_AT_ONCE), cotangents, torch.float64)
    norms = torch.linalg.vector_norm(found / n, dim=1)
    mismatch, of_classes = (forced.mean(0) - shares).norm(), norms[2:].square().mean().sqrt()
    return Gradients(*map(float, (norms[0], norms[1], mismatch, of_classes)))


def prior_shift(outputs: Tensor, shares: Tensor) -> Tensor:
    """Constants b (k,) for which the mean of softmax(z + b) over examples equals `shares` (k,), in double precision.

    `outputs` are the logits z (n, k). Newton's method minimises the convex function ⟨log Σ exp(z + b)⟩ − shares · b,
    with ⟨…⟩ the mean over examples. The constants sum to zero if all classes are present; an absent class keeps b = 0.
    If the softmax of some examples is saturated, the iteration may end before the mean is within TOLERANCE of `shares`.
    """

    def objective(shift: Tensor) -> Tensor:
        return torch.logsumexp(outputs + shift, 1).mean() - shares @ shift

    shift, present = torch.zeros_like(shares), shares > 0
    value = objective(shift)
    for _ in range(NEWTON_STEPS):
        p = torch.softmax(outputs + shift, 1)
        slope = (p.mean(0) - shares) * present
        if slope.norm() < TOLERANCE:
            break
        bend = torch.diag(p.mean(0)) - p.T @ p / len(p)
        # The matrix is singular along (1, …, 1), and along further directions if examples are saturated.
        step = torch.linalg.lstsq(bend + TOLERANCE * torch.eye(len(bend)).to(bend), -slope[:, None]).solution[:, 0]
        step = (step - step.mean()) * present
        size = 1.0
        while size > TOLERANCE and not objective(shift + size * step) <= value + size * 1e-4 * (slope @ step):
            size /= 2
        if size <= TOLERANCE:
            break
        shift = shift + size * step
        value = objective(shift)
    return shift
