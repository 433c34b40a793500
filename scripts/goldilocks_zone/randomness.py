"""Random streams named by what they are for.

A stream depends only on its name, never on the order, job, radius or thread in which it is used.
The same name therefore gives the same initialisation, plane or examples everywhere.
"""

import hashlib

import numpy as np


def stream(*name: str | int) -> np.random.Generator:
    """Random generator seeded by `name`, for example stream(1, "initialisation", "mnist", "fc-200x2-relu", 7)."""
    digest = hashlib.sha256("\x1f".join(map(str, name)).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big")))
