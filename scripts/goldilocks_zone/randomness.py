"""Random streams named by what they are for.

A stream depends on its name alone, never on the order, job, radius or thread in which it is used,
so initialisations, planes and examples are shared wherever the same name is asked for.
"""

import hashlib

import numpy as np


def stream(*name: str | int) -> np.random.Generator:
    """The random generator called `name`, for example stream(1, "initialisation", "mnist", "fc-200x2-relu", 7)."""
    digest = hashlib.sha256("\x1f".join(map(str, name)).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big")))
