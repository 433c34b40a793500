"""Studies of the decision boundary with known answers, and verdicts on claims about them."""

import json
from pathlib import Path

import numpy as np
import xarray as xr

from goldilocks_zone.claims import definitions, evaluate
from goldilocks_zone.randomness import stream

DEFINITIONS = definitions.load(Path(__file__).parents[2] / "config/claims")
DRAWS = 8
POINT = ("dataset", "network", "subspace", "minimum", "epoch", "scaling", "radius", "draw")
MINIMA = ["normal", *(f"{kind}-{steps}" for kind in ("adversarial", "large_norm") for steps in (100, 1000))]
NOISE = 0.01 * stream("boundary").standard_normal(DRAWS)
MATCHED = ["temperature-1", "entropy-0.05"]


def study(variables, settings=(), **axes):
    """Made-up results of a boundary study, from `variables`, which maps names to (dims, values).

    Values are repeated along those axes of POINT that they lack. `axes` maps axes to their labels, and `settings` adds
    to the study's settings.
    """
    axes = {"dataset": ["gauss"], "network": ["fc-100x2-relu"], "subspace": ["full-free"], "minimum": ["normal"]} | axes
    axes = {"epoch": [2000], "scaling": ["none"], "radius": [1.0], "draw": range(DRAWS)} | axes
    made = {}
    for name, (dims, values) in variables.items():
        array = xr.DataArray(np.asarray(values, float), dims=dims, coords={dim: list(axes[dim]) for dim in dims})
        made[name] = array.expand_dims({dim: list(axes[dim]) for dim in POINT if dim not in dims})
    given = {"initialisation": "uniform", "optimiser": "sgd", "seed": 1, "epochs": [3000]} | dict(settings)
    classes = [{"mnist": 10}.get(name, 2 if name.endswith("_2") else 3) for name in axes["dataset"]]
    return xr.Dataset(made, attrs={"settings": json.dumps(given)}).assign_coords(classes=("dataset", classes))


def judged(identifier, only=None, **studies):
    """Rows of claims.csv about the claim `identifier`, by case, from results of `studies`, by name.

    If `only` is given, the other cases are left out.
    """
    claim = DEFINITIONS[identifier]
    cases = {name: case for name, case in claim["cases"].items() if only is None or name in only}
    rows = evaluate.evaluate({identifier: {**claim, "cases": cases}}, studies, "test")
    return {row["id"].removeprefix(f"{identifier}."): row for row in rows}
