"""Surroundings of a run: the path of the checkout, and a home folder, of which nothing enters a result.

Imports nothing heavy: it runs whenever the workflow loads.
"""

import os
import re
import sys
from pathlib import Path

# Snakemake starts jobs by a shell, with the interpreter's path as it stands.
_READ_BY_SHELLS = re.compile(r"""[\s'"&$();{}\\*`<>|?\[\]]""")


def enter(checkout: Path) -> None:
    """Make what this process and its jobs do independent of a home folder. Raises as refuse_path does."""
    refuse_path(checkout)
    # No packages, settings of matplotlib and backend of a user's own or of a notebook's; and matplotlib keeps what it
    # knows of fonts where it can write.
    os.environ |= {
        "PYTHONNOUSERSITE": "1",
        "MPLBACKEND": "Agg",
        "MPLCONFIGDIR": str(Path(".snakemake/matplotlib").absolute()),
    }


def refuse_path(checkout: Path) -> None:
    """Raise ValueError if jobs could not be started from `checkout`, or by this Python, for a character in its path."""
    for path in (checkout, Path(sys.executable)):
        if found := _READ_BY_SHELLS.search(str(path)):
            raise ValueError(
                f"{path} has {found[0]!r} in its path, which shells read in their own way: move it to a path without "
                "spaces, quotes, brackets and signs such as & and $, and run again"
            )
