"""`make clean`: remove everything generated but the datasets, or one run alone. Needs only the standard library."""

import re
from pathlib import Path

from goldilocks_zone.jobs import run_lock
from goldilocks_zone.storage import files

KEPT = ("data", "README.md")
COPIES = ("results/claims.csv", "results/run.txt", "paper/paper.pdf")
REPORT = "report.zip"


def clean_results(run: str | None) -> list[Path]:
    """Remove the results, figures and logs of `run`, or of all runs; returns the removed paths.

    A link to a folder elsewhere stays, and its contents are removed.
    Raises ValueError while a run is at work, or if there is no such run.
    """
    run_lock.enter()
    places = [Path(place) for place in ("results", "figures", "logs")]
    if run:
        named = re.fullmatch("[a-z0-9_]+", run) and run not in KEPT
        found = [place / run for place in places if named and (place / run).is_dir()]
        if not found:
            raise ValueError(f"there is no run {run!r}: results/ shows which there are")
        published = Path("results/run.txt")
        if published.exists() and published.read_text().strip() == run:
            found += map(Path, COPIES)
    else:
        found = [path for place in places for path in sorted(place.glob("*")) if path.name not in KEPT]
        found += map(Path, (*COPIES, REPORT, "logs/data", ".snakemake"))
    removed = []
    for path in dict.fromkeys(found):
        if path.exists() and not _is_emptied_link(path):
            files.remove(path)
            removed.append(path)
    return removed


def _is_emptied_link(path: Path) -> bool:
    return path.is_symlink() and path.is_dir() and not any(path.iterdir())


def run(name: str | None) -> None:
    """Remove what a run, or all runs, generated, and print what was removed."""
    removed = ", ".join(map(str, clean_results(name)))
    print(f"removed {removed}; the datasets are kept" if removed else "there was nothing to remove")
