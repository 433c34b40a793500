"""Registry of the estimators of claims' quantities: public functions in `claims.estimators` returning `list[Estimate]`.

A case names such a function in its key `quantity`. The first parameter of the function is the cell. The parameter
`name` names the random stream of a bootstrap. All other parameters are keys of the case.
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
    """All estimators, as {name: function}.

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
    """Keys of a case that the estimator called `quantity` accepts, as {key: True if it is required}."""
    parameters = inspect.signature(known()[quantity]).parameters.values()
    # Parameters whose key is a Python keyword carry a trailing underscore.
    return {p.name.rstrip("_"): p.default is p.empty for p in parameters if p.name not in NOT_KEYS}


def estimate(cell: xr.Dataset, case: dict, name: str) -> list[Estimate]:
    """Estimates of the quantity of a `case` on a `cell`; `name` names the random stream of a bootstrap."""
    function, given = known()[case["quantity"]], {**case, "name": name}
    keys = (key for key in inspect.signature(function).parameters if key.rstrip("_") in given)
    return function(cell, **{key: given[key.rstrip("_")] for key in keys if key != "cell"})
