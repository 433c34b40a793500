"""Cuts through the loss landscape: the mean loss on lines and on a plane through a point.

Points lie at θ + Pᵀc, with orthonormal directions as the rows of P (d, D) and coefficients c (d,).
"""

from collections.abc import Callable

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from goldilocks_zone.models import losses
from goldilocks_zone.subspaces import planes

EXAMPLES_PER_CHUNK = 512


def orthonormal(raw_directions: np.ndarray) -> np.ndarray:
    """Rows (d, D) that span what the raw ones do, orthonormal in order: the first k of both span the same.

    Raises ValueError if the raw directions are linearly dependent.
    """
    return scipy.linalg.solve_triangular(planes.cholesky(raw_directions), raw_directions, lower=True)


def displacements(extent: float, steps: int) -> np.ndarray:
    """2 `steps` + 1 places from −`extent` to `extent`, evenly spaced; 0 is one of them, exactly."""
    return extent * np.arange(-steps, steps + 1) / steps


def line_coefficients(places: np.ndarray, count: int) -> np.ndarray:
    """Coefficients of the lines along each of `count` directions, shape (count, n, count)."""
    return places[None, :, None] * np.eye(count)[:, None, :]


def plane_coefficients(places: np.ndarray, count: int) -> np.ndarray:
    """Coefficients of a grid on the plane of the first two of `count` directions, shape (n, n, count).

    The first axis runs along the second direction, as rows of a picture do.
    """
    second, first = np.meshgrid(places, places, indexing="ij")
    return np.stack([first, second], axis=-1) @ np.eye(2, count)


def mean_losses(
    logits: Callable[[Tensor, Tensor], Tensor],
    theta: Tensor,
    directions: Tensor,
    coefficients: np.ndarray,
    inputs: Tensor,
    labels: Tensor,
    examples_per_chunk: int = EXAMPLES_PER_CHUNK,
) -> np.ndarray:
    """Mean cross-entropy in nats at each point θ + Pᵀc, shape (…), from `coefficients` c of shape (…, d).

    Forward passes in the precision of `theta` (D,), over all examples of a chunk at once and over points one after
    another: that is as fast as a batch of points, and holds the parameters of one point only. A coefficient of zero
    costs nothing. Raises ValueError where a loss is not finite.
    """
    found = []
    with torch.no_grad():
        for point in coefficients.reshape(-1, coefficients.shape[-1]):
            used = np.flatnonzero(point)
            parameters = torch.addmv(theta, directions[used].T, torch.as_tensor(point[used]).to(theta))
            total = sum(
                losses.values(logits(parameters, chunk), targets, "cross_entropy").sum()
                for chunk, targets in zip(inputs.split(examples_per_chunk), labels.split(examples_per_chunk))
            )
            found.append(float(total) / len(inputs))
    if not np.isfinite(found).all():
        raise ValueError("the loss is not finite on a cut: take smaller radii or a smaller extent")
    return np.reshape(found, coefficients.shape[:-1])
