"""Curvature of neural network losses on random subspaces, and the Goldilocks zone.

Letters of array axes, used throughout: n examples, d directions of a subspace, D parameters, i inputs, o outputs of a
layer, k classes, r radii, m members of an ensemble or vectors of a batch, p points in parameter space, q adjoints; of
images: c channels, h height, w width; of joint embeddings: e entries of an embedding, a of an action, p of an
observation.
Radii are L2 norms of the parameter vector; r_X is the norm under Glorot initialisation.
Public names are imported at their first use: importing the package, or a room (a subpackage), imports none of its
modules.
"""

from importlib import import_module

_MODULES = {
    "Problem": "models.problem",
    "plane_hessian": "curvature.hessian",
    "sphere_hessian": "curvature.hessian",
    "radial_sweep": "curvature.hessian",
    "hessian_vector_products": "curvature.hessian",
    "hessian_products": "curvature.hessian",
    "top_eigenpairs": "curvature.top_eigenvectors",
    "spectral_density": "curvature.hessian",
    "random_plane": "subspaces.planes",
    "report": "reports.report",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
