"""Independent oracle for curvature: automatic differentiation over the coordinates of a plane, in double precision.

Nothing here uses goldilocks_zone.curvature or goldilocks_zone.models.losses.
"""

import numpy as np
import torch

from goldilocks_zone.curvature.hessian import PlaneCurvature

SMALLEST = 1e-30  # of G that tangents in single precision can give


def orthonormal(rows: torch.Tensor) -> torch.Tensor:
    """Orthonormal basis (D, d) whose first k columns span the first k of `rows` (d, D), for each k.

    It is computed by QR decomposition, without the Cholesky factor that the engine uses.
    """
    q, r = torch.linalg.qr(rows.double().T)
    return q * torch.sign(torch.diag(r))


def losses(z: torch.Tensor, labels: torch.Tensor, loss: str, temperature: float) -> torch.Tensor:
    """Loss (n,) of each example at logits z (n, k), written out."""
    z = z / temperature
    y = torch.nn.functional.one_hot(labels, z.shape[1]).to(z.dtype)
    if loss == "mean_squared_error":
        return ((z - y) ** 2).sum(1) / 2
    return torch.logsumexp(z, 1) - (y * z).sum(1)


def second_derivatives(function, size: int) -> torch.Tensor:
    """The Hessian at 0 of a scalar function of `size` coordinates."""
    return torch.func.hessian(function)(torch.zeros(size, dtype=torch.float64))


def picture(logits, theta, rows, inputs, labels, loss="cross_entropy", temperature=1.0) -> PlaneCurvature:
    """Result that `plane_hessian` must give at `theta`, by automatic differentiation over the plane's coordinates.

    `logits` is a function of parameters and inputs, and `rows` (d, D) are the directions.
    """
    theta, basis = theta.double(), orthonormal(rows)

    def outputs(s):
        return logits(theta + basis @ s, inputs)

    def mean(s):
        return losses(outputs(s), labels, loss, temperature).mean()

    zero = theta.new_zeros(len(rows))
    hessian = second_derivatives(mean, len(rows)).numpy()
    z, jacobian = outputs(zero), torch.func.jacfwd(outputs)(zero) / temperature
    p = torch.softmax(z / temperature, 1)
    # diag(p) − ppᵀ = Σ_{k<l} p_k p_l (e_k − e_l)(e_k − e_l)ᵀ, without cancellation where the softmax is saturated.
    if loss == "cross_entropy":
        pairs = jacobian[:, :, None] - jacobian[:, None, :]
        each = torch.einsum("nk,nl,nkli,nklj->nij", p, p, pairs, pairs) / 2
    else:
        each = torch.einsum("nki,nkj->nij", jacobian, jacobian)
    gauss_newton = each.mean(0).numpy()
    traces = torch.diagonal(each, dim1=1, dim2=2).cumsum(1)
    n, classes = z.shape
    shares = torch.bincount(labels, minlength=classes).double() / n
    middle = torch.einsum("nk,nl,kl->kl", p, p, torch.eye(classes).double() - 1) / n
    middle = middle - torch.diag(middle.sum(1))
    raw = jacobian * temperature
    own = raw.var(0).mean().item() if n > 1 else 0.0
    ray = torch.func.jacfwd(lambda a: losses(logits(a * theta, inputs), labels, loss, temperature).mean())
    return PlaneCurvature(
        gauss_newton=gauss_newton,
        residual=hessian - gauss_newton,
        gradient=torch.func.grad(mean)(zero).numpy(),
        effective_examples=(traces.sum(0) ** 2 / (traces**2).sum(0)).nan_to_num().numpy(),
        loss=mean(zero).item(),
        logits_std=z.var(1).mean().sqrt().item(),
        radial_derivative=ray(torch.ones((), dtype=torch.float64)).item(),
        zero_logits=(z == 0).double().mean().item(),
        entropy=torch.special.entr(p).sum(1).mean().item(),
        prior_mismatch=(shares - p.mean(0)).norm().item(),
        softmax_ratio=(middle.trace() / middle.norm()).item() if middle.any() else 1.0,
        class_gradient=max(raw.mean(0).square().mean().item() - own / n, 0) ** 0.5,
        example_gradient=own**0.5,
    )


def relative_error(found, expected) -> float:
    """‖found − expected‖ / ‖expected‖."""
    error = np.linalg.norm(found - expected)
    return error / np.linalg.norm(expected) if error else 0.0


def tolerance(dtype: torch.dtype, z: torch.Tensor) -> float:
    """Relative error that rounding may cause, for tangents in `dtype` and logits `z`.

    It is 200 eps of `dtype` for the tangents, plus 200 eps max(1, max |z|) in double precision, for the softmax at near
    ties of logits.
    """
    return 200 * (torch.finfo(dtype).eps + torch.finfo(torch.float64).eps * max(1.0, float(z.abs().max())))


def assert_same(found: PlaneCurvature, expected: PlaneCurvature, bound: float, theta: torch.Tensor) -> None:
    """Assert that all fields of two results at `theta` agree within a relative error `bound`.

    Eigenvalues of H that `bound` separates from 0 must also agree in sign.
    """
    norm = np.linalg.norm(expected.hessian)
    assert relative_error(found.hessian, expected.hessian) < bound
    # A saturated softmax takes G below the smallest number of single precision.
    seen = np.linalg.norm(expected.gauss_newton) > SMALLEST
    if seen:
        assert relative_error(found.gauss_newton, expected.gauss_newton) < bound
        assert relative_error(found.effective_examples, expected.effective_examples) < bound
    else:
        assert np.linalg.norm(found.gauss_newton) < 2 * SMALLEST
    assert np.linalg.norm(found.residual - expected.residual) < bound * norm
    assert relative_error(found.gradient, expected.gradient) < bound
    assert abs(found.loss - expected.loss) < bound * expected.loss
    assert abs(found.logits_std - expected.logits_std) < bound * expected.logits_std
    assert abs(found.entropy - expected.entropy) < bound and found.zero_logits == expected.zero_logits
    assert abs(found.prior_mismatch - expected.prior_mismatch) < bound
    if seen:
        assert abs(found.softmax_ratio - expected.softmax_ratio) < bound * expected.softmax_ratio
    squares = expected.class_gradient**2 + expected.example_gradient**2
    for name in ("class_gradient", "example_gradient"):
        assert abs(getattr(found, name) ** 2 - getattr(expected, name) ** 2) < bound * squares
    # ⟨∇L, θ⟩ = n Σ (p − y)·z where logits are homogeneous: a sum over examples and layers whose terms may cancel.
    size = max(
        abs(expected.radial_derivative), expected.logits_std, float(theta.norm()) * np.abs(expected.gradient).max()
    )
    assert abs(found.radial_derivative - expected.radial_derivative) < bound * size
    values = np.linalg.eigvalsh(expected.hessian)
    clear = np.abs(values) > bound * norm
    assert clear.any()
    # Eigenvalues move by at most the norm of the error (Weyl), so that clear ones keep sign and order.
    assert np.array_equal(np.linalg.eigvalsh(found.hessian)[clear] > 0, values[clear] > 0)
