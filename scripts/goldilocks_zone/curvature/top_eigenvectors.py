"""The largest eigenvalues of the Hessian in full space, and their eigenvectors as images in the first layer."""

import math

import numpy as np
import torch
from torch import Tensor, nn

from goldilocks_zone.curvature import arguments, autodiff, hessian, tangents
from goldilocks_zone.models import initialisation, modes
from goldilocks_zone.randomness import stream
from goldilocks_zone.spectra import lanczos

# Of a search that starts near eigenvectors, beside their sum.
RANDOM_PART = 0.1


@modes.differentiating
def top(
    network: nn.Module,
    parameters: Tensor | np.ndarray,
    inputs: Tensor | np.ndarray,
    labels: Tensor | np.ndarray,
    count: int,
    *,
    loss: str = "cross_entropy",
    temperature: float = 1.0,
    memory_mib: float = 1024,
    tolerance: float = 1e-8,
    near: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The `count` largest eigenvalues of the Hessian of the mean loss, descending, and eigenvectors (D, count).

    At `parameters` (D,), over all examples, to a relative `tolerance`. The search starts from the sum of the rows of
    `near` (m, D), orthonormal vectors near eigenvectors, where some are known. Raises ValueError as
    `curvature.hessian_products` and `lanczos.top_eigenpairs` do.
    """
    options = {"loss": loss, "temperature": temperature, "memory_mib": memory_mib}
    products = hessian.hessian_products(network, parameters, inputs, labels, **options)
    start = stream("top eigenvectors").standard_normal(len(parameters))
    if near is not None:
        near = arguments.rows(near, arguments.parameters(parameters), "near").double().cpu().numpy()
        # What is random finds those eigenvectors that have no part in the sum.
        start = near.sum(0) + RANDOM_PART * start / np.linalg.norm(start)
    return lanczos.top_eigenpairs(products, len(parameters), count, start=start, tolerance=tolerance, own_threads=True)


SHARPNESS_TOLERANCE = 1e-2


@modes.differentiating
def sharpness(network: nn.Module, parameters: Tensor, inputs: Tensor, labels: Tensor, **options: float | str) -> float:
    """The largest eigenvalue of the Hessian of the mean loss, within a hundredth; 0 where all logits are zero.

    And where the Hessian itself vanishes, as where the softmax of every example is saturated at its label. NaN where
    products with it are not finite, as on the way to diverge. Arguments and options as of `top`.
    """
    if not torch.isfinite(arguments.real(parameters, "parameters")).all():
        return math.nan
    network, parameters, inputs, labels = arguments.problem(network, parameters, inputs, labels)
    logits = autodiff.function(network)
    with torch.no_grad():
        if not any(logits(parameters, some).any() for some in inputs.split(tangents.EXAMPLES_PER_CHUNK)):
            return 0.0
    products = hessian.hessian_products(network, parameters, inputs, labels, **options)
    pushed = products(stream("sharpness").standard_normal((1, len(parameters))))
    if not np.isfinite(pushed).all():
        return math.nan
    if np.abs(pushed).max() <= torch.finfo(parameters.dtype).tiny:
        return 0.0
    values, _ = top(network, parameters, inputs, labels, 1, tolerance=SHARPNESS_TOLERANCE, **options)
    return float(values[0])


def first_layer_images(network: nn.Module, vectors: np.ndarray, image: tuple[int, ...]) -> np.ndarray:
    """The first layer's part of each of `vectors` (D, m), averaged over its units and channels: (m, height, width).

    An eigenvector has no sign: the entry of an image that is largest in magnitude is positive. Raises ValueError where
    the first layer does not see the whole image.
    """
    parameters, channels = initialisation.parameters_of(network), image[0]
    weights, size = parameters[0], sum(each.size for each in parameters)
    if np.ndim(vectors) != 2 or len(vectors) != size:
        raise ValueError(f"vectors of shape {np.shape(vectors)} were given: give one column of {size} entries for each")
    if weights.shape[1:] != (int(np.prod(image)),):
        raise ValueError("the network's first layer does not see whole images: use a fully connected one")
    images = vectors[: weights.size].reshape(weights.shape[0], channels, *image[1:], -1).mean((0, 1))
    images = np.moveaxis(images, -1, 0)
    extremes = np.take_along_axis(
        images.reshape(len(images), -1), np.abs(images).reshape(len(images), -1).argmax(1)[:, None], 1
    )
    return images * np.sign(extremes)[..., None]
