"""Registry of the quantities of claims: public functions in `claims.estimators` that return `list[Estimate]`.

Their parameters, apart from the cell, are keys of a case, and `name`, which names the random stream of a bootstrap.
"""

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable

import xarray as xr

from goldilocks_zone.claims import estimators
from goldilocks_zone.statistics.estimates import Estimate

NOT_KEYS = ("cell", "name")


@functools.cache
def known() -> dict[str, Callable[..., list[Estimate]]]:
    """Every estimator by its name.

    Raises ValueError if two modules define an estimator of the same name.
    """
    found = {}
    for module in pkgutil.iter_modules(estimators.__path__, f"{estimators.__name__}."):
        for name, function in inspect.getmembers(importlib.import_module(module.name), inspect.isfunction):
            is_own = function.__module__ == module.name and not name.startswith("_")
            if not is_own or function.__annotations__.get("return") != list[Estimate]:
                continue
            if name in found:
                raise ValueError(
                    f"{module.name}.{name}: {found[name].__module__} already has an estimator of this name: rename "
                    "one of them"
                )
            found[name] = function
    return found


@functools.cache
def keys(quantity: str) -> dict[str, bool]:
    """The case keys that an estimator accepts, each with True if it is required."""
    parameters = inspect.signature(known()[quantity]).parameters.values()
    # Parameters whose key is a Python keyword carry a trailing underscore.
    return {p.name.rstrip("_"): p.default is p.empty for p in parameters if p.name not in NOT_KEYS}


def estimate(cell: xr.Dataset, case: dict, name: str) -> list[Estimate]:
    """Evaluate the estimator of a case's quantity in one cell."""
    function, given = known()[case["quantity"]], {**case, "name": name}
    keys = (key for key in inspect.signature(function).parameters if key.rstrip("_") in given)
    return function(cell, **{key: given[key.rstrip("_")] for key in keys if key != "cell"})
