"""`make clean`: remove everything generated but the datasets, or one run alone. Needs nothing but Python."""

import argparse
import re
from pathlib import Path

from goldilocks_zone.jobs import log, run_lock
from goldilocks_zone.storage import files

KEPT = ("data", "README.md")
COPIES = ("results/claims.csv", "results/run.txt", "paper/paper.pdf")
REPORT = "report.zip"


def clean_results(run: str | None) -> list[Path]:
    """Remove the results, figures and logs of `run`, or of all runs; returns what was removed.

    Of a link to a folder elsewhere the contents go, and the link stays.
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


def main() -> None:
    parser = argparse.ArgumentParser(description="Remove everything generated but the datasets.")
    parser.add_argument("run", nargs="?", help="remove this run alone")
    arguments = parser.parse_args()
    with log.one_sentence():
        removed = clean_results(arguments.run)
    print(
        f"removed {', '.join(map(str, removed))}; the datasets are kept" if removed else "there was nothing to remove"
    )


if __name__ == "__main__":
    main()
