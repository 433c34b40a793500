"""Units and meanings of variables, as blocks and aggregates have them."""

import functools

from goldilocks_zone.config import kinds


@functools.cache
def _known():
    observables = [each for kind in kinds.known().values() for each in kind.load().OBSERVABLES]
    return {known.name: known for each in reversed(observables) for known in each.variables}


def meaning(name):
    """Attributes of a variable in an aggregate; none of one that no kind of study measures."""
    known = _known().get(name)
    return {"units": known.units, "long_name": known.long_name} if known else {}
