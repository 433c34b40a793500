"""Largest eigenvalues of the Hessian in full space, and their eigenvectors as images in the first layer."""

import math
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from goldilocks_zone.curvature import arguments, autodiff, hessian, tangents
from goldilocks_zone.models import initialisation, kernels
from goldilocks_zone.models.problem import Array, Problem
from goldilocks_zone.randomness import stream
from goldilocks_zone.spectra import lanczos
from goldilocks_zone.spectra.lanczos import Search

RANDOM_PART = 0.1  # norm of the random part of a start near eigenvectors
SHARPNESS_TOLERANCE = 1e-2
DEFAULTS = Search()


@kernels.differentiating
def top_eigenpairs(
    problem: Problem, parameters: Array, count: int, search: Search = DEFAULTS, memory_mib: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Hessian eigenvalues (count,) of the mean loss at `parameters` (D,), descending, and eigenvectors (D, count).

    These are the largest eigenvalues, unless `search.which` selects another end of the spectrum. Without
    `search.start`, the search starts from a random vector, the same at every call. `memory_mib` is as in
    `hessian.hessian_products`. Raises the errors of `hessian.hessian_products` and `lanczos.top_eigenpairs`.
    """
    products = hessian.hessian_products(problem, parameters, memory_mib=memory_mib)
    start = _random_start(len(parameters)) if search.start is None else search.start
    return lanczos.top_eigenpairs(products, len(parameters), count, replace(search, start=start, own_threads=True))


def start_near(vectors: Array, size: int) -> np.ndarray:
    """Starting vector (D,) to search for eigenvectors close to the orthonormal rows of `vectors` (m, D).

    It is the sum of the rows plus a random vector of norm RANDOM_PART. `size` is D.
    """
    known = arguments.rows(vectors, torch.empty(size), "near").double().cpu().numpy()
    start = _random_start(size)
    return known.sum(0) + RANDOM_PART * start / np.linalg.norm(start)


def _random_start(size: int) -> np.ndarray:
    return stream("top eigenvectors").standard_normal(size)


@kernels.differentiating
def sharpness(problem: Problem, parameters: Array, memory_mib: float | None = None) -> float:
    """The largest eigenvalue of the Hessian of the mean loss at `parameters` (D,), to a relative tolerance of 1 %.

    Zero if all logits are zero or the Hessian vanishes, as it does for a saturated softmax. NaN if parameters or
    Hessian–vector products are not finite. `memory_mib` is as in `hessian.hessian_products`.
    """
    if not torch.isfinite(arguments.real(parameters, "parameters")).all():
        return math.nan
    given = arguments.prepared(problem, parameters)
    logits, theta = autodiff.function(given.network), given.theta
    with torch.no_grad():
        if not any(logits(theta, some).any() for some in given.chunks(tangents.EXAMPLES_PER_CHUNK)):
            return 0.0
    products = hessian.hessian_products(problem, theta, memory_mib=memory_mib)
    pushed = products(stream("sharpness").standard_normal((1, len(theta))))
    if not np.isfinite(pushed).all():
        return math.nan
    if np.abs(pushed).max() <= torch.finfo(theta.dtype).tiny:
        return 0.0
    values, _ = top_eigenpairs(problem, theta, 1, Search(tolerance=SHARPNESS_TOLERANCE), memory_mib)
    return float(values[0])


def first_layer_images(network: nn.Module, vectors: np.ndarray, image: tuple[int, ...]) -> np.ndarray:
    """Entries of `vectors` (D, m) in the weights of the first layer, as m images (m, h, w).

    They are averaged over the units of the layer and the channels of the input. `image` is the shape (c, h, w) of the
    inputs. The sign of each image is chosen so that the entry of largest magnitude is positive. Raises ValueError if
    the first layer does not take whole images as vectors, or if the vectors do not have D entries.
    """
    parameters, channels = initialisation.parameters_of(network), image[0]
    weights, size = parameters[0], sum(each.size for each in parameters)
    if np.ndim(vectors) != 2 or len(vectors) != size:
        raise ValueError(
            f"vectors have the shape {np.shape(vectors)}: give an array ({size}, m) with one vector in each column"
        )
    if weights.shape[1:] != (int(np.prod(image)),):
        raise ValueError("the network's first layer does not see whole images: use a fully connected network")
    images = vectors[: weights.size].reshape(weights.shape[0], channels, *image[1:], -1).mean((0, 1))
    images = np.moveaxis(images, -1, 0)
    flat = images.reshape(len(images), -1)
    extremes = np.take_along_axis(flat, np.abs(flat).argmax(1)[:, None], 1)
    return images * np.sign(extremes)[..., None]
