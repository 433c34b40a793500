"""Units and meanings of variables, as in blocks and aggregates."""

import functools

from goldilocks_zone.config import kinds


@functools.cache
def _known():
    observables = [each for kind in kinds.known().values() for each in kind.load().OBSERVABLES]
    return {known.name: known for each in reversed(observables) for known in each.variables}


def meaning(name):
    """Attributes `units` and `long_name` of the variable `name`; empty if no kind of study measures it."""
    known = _known().get(name)
    return {"units": known.units, "long_name": known.long_name} if known else {}
