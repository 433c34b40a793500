"""The spectral density of the Hessian in full space."""

from goldilocks_zone.curvature import hessian
from goldilocks_zone.models import modes
from goldilocks_zone.models.problem import Array, Problem
from goldilocks_zone.randomness import stream
from goldilocks_zone.spectra import lanczos


@modes.differentiating
def spectral_density(
    problem: Problem, parameters: Array, steps: int = 30, probes: int = 10, memory_mib: float = 1024
) -> lanczos.Density:
    """The density of the Hessian's eigenvalues at `parameters` (D,), from Gaussian probes and Lanczos steps each."""
    products = hessian.hessian_products(problem, parameters, memory_mib=memory_mib)
    vectors = stream("spectral density").standard_normal((probes, len(parameters)))
    return lanczos.spectral_density(products, vectors, steps)
