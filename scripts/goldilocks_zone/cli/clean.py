"""`make clean`: remove everything that was generated except the datasets, or the files of one run only.

Needs only the standard library.
"""

import re
from pathlib import Path

from goldilocks_zone.jobs import locks
from goldilocks_zone.storage import files

KEPT = ("data", "README.md")
COPIES = ("results/claims.csv", "results/agreement.csv", "results/run.txt", "paper/paper.pdf")


def run(name: str | None) -> None:
    """Remove the results, figures and logs of the run `name`, or of all runs if `name` is None; print what was removed.

    A link to a folder elsewhere is kept, and the folder is emptied. Raises ValueError while a run is active, or if
    there is no run `name`.
    """
    locks.enter_run()
    places = [Path(place) for place in ("results", "figures", "logs")]
    if name:
        named = re.fullmatch("[a-z0-9_]+", name) and name not in KEPT
        found = [place / name for place in places if named and (place / name).is_dir()]
        if not found:
            raise ValueError(f"there is no run {name!r}: use the name of a folder in results/, as RUN=quick")
        published = Path("results/run.txt")
        if published.exists() and published.read_text().strip() == name:
            found += map(Path, COPIES)
    else:
        found = [path for place in places for path in sorted(place.glob("*")) if path.name not in KEPT]
        found += map(Path, (*COPIES, "report.zip", "logs/data", ".snakemake"))
    removed = []
    for path in dict.fromkeys(found):
        is_emptied_link = path.is_symlink() and path.is_dir() and not any(path.iterdir())
        if path.exists() and not is_emptied_link:
            files.remove(path)
            removed.append(str(path))
    print(f"removed {', '.join(removed)}; the datasets are kept" if removed else "there was nothing to remove")
