"""`make clean`: remove everything generated but the datasets, or one run alone. Needs nothing but Python."""

import argparse
import shutil
import sys
from pathlib import Path

from goldilocks import locks, logs

KEPT = ("data", "README.md")
COPIES = ("results/claims.csv", "results/run.txt", "paper/paper.pdf")


def clean_results(run: str | None) -> list[Path]:
    """Remove the results, figures and logs of `run`, or of all runs; returns what was removed.

    Raises ValueError while a run is at work, or if there is no such run.
    """
    alone, sentence = locks.join()
    if not alone:
        raise ValueError(sentence)
    places = [Path(place) for place in ("results", "figures", "logs")]
    if run:
        found = [place / run for place in places if run not in KEPT and (place / run).is_dir()]
        if not found:
            raise ValueError(f"there is no run {run!r}: results/ shows which there are")
        published = Path("results/run.txt")
        if published.exists() and published.read_text().strip() == run:
            found += map(Path, COPIES)
    else:
        found = [path for place in places for path in sorted(place.glob("*")) if path.name not in KEPT]
        found += map(Path, (*COPIES, "logs/data"))
        # The lock above lies there.
        shutil.rmtree(".snakemake")
    removed = []
    for path in dict.fromkeys(found):
        if path.is_dir():
            shutil.rmtree(path)
        elif path.exists():
            path.unlink()
        else:
            continue
        removed.append(path)
    return removed


def main() -> None:
    parser = argparse.ArgumentParser(description="Remove everything generated but the datasets.")
    parser.add_argument("run", nargs="?", help="remove this run alone")
    try:
        removed = clean_results(parser.parse_args().run)
    except (OSError, ValueError) as error:
        logs.report(str(error))
        sys.exit(str(error))
    print(
        f"removed {', '.join(map(str, removed))}; the datasets are kept" if removed else "there was nothing to remove"
    )


if __name__ == "__main__":
    main()
