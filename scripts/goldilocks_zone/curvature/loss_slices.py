"""Slices of the loss landscape: the mean loss on lines and on a plane through a point θ.

Points lie at θ + Pᵀc, with orthonormal directions as the rows of P (d, D) and coefficients c (d,). A place is a value
of one coefficient. The number of places along an axis of a slice is g.
"""

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from goldilocks_zone.curvature import arguments
from goldilocks_zone.models import kernels, networks
from goldilocks_zone.models.problem import Problem
from goldilocks_zone.subspaces import planes


def orthonormal(raw_directions: np.ndarray) -> np.ndarray:
    """Orthonormal rows (d, D) from `raw_directions` (d, D), by Gram–Schmidt in their order.

    Each direction is thus orthonormalised against those before it. Raises ValueError if the raw directions are linearly
    dependent, zero or not finite.
    """
    return scipy.linalg.solve_triangular(planes.cholesky(raw_directions), raw_directions, lower=True)


def displacements(extent: float, steps: int) -> np.ndarray:
    """2 `steps` + 1 evenly spaced places from −`extent` to `extent`, which include 0 exactly."""
    return extent * np.arange(-steps, steps + 1) / steps


def line_coefficients(places: np.ndarray, count: int) -> np.ndarray:
    """Coefficients c (count, g, count) of the points at g `places` on a line along each of `count` directions.

    The axes are the line, the place on the line, and the direction to which the coefficient belongs.
    """
    return places[None, :, None] * np.eye(count)[:, None, :]


def plane_coefficients(places: np.ndarray, count: int) -> np.ndarray:
    """Coefficients c (g, g, count) of the points of a grid in the plane of the first two of `count` directions.

    Both coordinates take the g values in `places`. The row of the grid gives the coordinate along the second direction,
    the column the coordinate along the first.
    """
    second, first = np.meshgrid(places, places, indexing="ij")
    return np.stack([first, second], axis=-1) @ np.eye(2, count)


@kernels.differentiating
def mean_losses(
    problem: Problem, theta: Tensor, directions: Tensor, coefficients: np.ndarray, examples_per_chunk: int = 512
) -> np.ndarray:
    """Mean loss at each point θ + Pᵀc, shape (…), for `directions` P (d, D) and `coefficients` c (…, d).

    The loss is computed in the precision of `theta` (D,), one point after another: this is as fast as a batch of points
    and needs less memory. A forward pass takes at most `examples_per_chunk` examples, or all if the loss couples them.
    Directions with a zero coefficient take no time. Raises ValueError if a loss is not finite.
    """
    given, found = arguments.prepared(problem, theta), []
    logits = networks.logits_function(given.network)
    with torch.no_grad():
        for point in coefficients.reshape(-1, coefficients.shape[-1]):
            used = np.flatnonzero(point)
            parameters = torch.addmv(theta, directions[used].T, torch.as_tensor(point[used]).to(theta))
            total = 0.0
            for inputs, labels in given:
                step = len(inputs) if given.loss.couples_examples else examples_per_chunk
                for chunk, targets in zip(inputs.split(step), labels.split(step)):
                    total += given.loss.total(logits(parameters, chunk) / problem.temperature, targets)
            found.append(float(total) / given.amount)
    if not np.isfinite(found).all():
        raise ValueError("the loss is not finite on a cut: take smaller radii or a smaller extent")
    return np.reshape(found, coefficients.shape[:-1])
