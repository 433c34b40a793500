"""Isolation of a run from the path of its checkout and from the home folder. Imports nothing heavy."""

import os
import re
import sys
from pathlib import Path

# Snakemake starts jobs by a shell and does not quote the path of the interpreter.
_READ_BY_SHELLS = re.compile(r"""[\s'"&$();{}\\*`<>|?\[\]]""")


def enter(checkout: Path) -> None:
    """Make this process and its jobs independent of the home folder. Raises ValueError as refuse_path does."""
    refuse_path(checkout)
    # No user packages, matplotlib settings or backends, and a font cache of matplotlib where it can write.
    os.environ |= {
        "PYTHONNOUSERSITE": "1",
        "MPLBACKEND": "Agg",
        "MPLCONFIGDIR": str(Path(".snakemake/matplotlib").absolute()),
    }


def refuse_path(checkout: Path) -> None:
    """Raise ValueError if shells misread a character in the path of `checkout` or of this Python."""
    for path in (checkout, Path(sys.executable)):
        if found := _READ_BY_SHELLS.search(str(path)):
            advice = "move it to a path without spaces, quotes, brackets and signs such as & and $, and run again"
            raise ValueError(f"{path} has {found[0]!r} in its path, which shells read in their own way: {advice}")
