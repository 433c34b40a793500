"""`make orphans`: list results that no configuration produces, left behind by studies that were changed or dropped.

Snakemake's own --list-untracked does not follow links, such as results/ on another disk.
"""

import subprocess
import sys
from pathlib import Path

from goldilocks_zone.config import load
from goldilocks_zone.data import official_shapes
from goldilocks_zone.jobs import locks
from goldilocks_zone.storage import files

BENCHMARKS = "benchmarks"  # folder with the output of make bench, which belongs to no run
# Folders below results/<run> and results/data that are never orphans: small files, checkpoints and unpacked archives.
KEPT = ("settings", "fingerprints", "latex", "own", "cards", "checkpoints", "unpacked")


def find_orphans(paths_to_configs: list[Path]) -> list[Path]:
    """Paths of files and folders in results, figures and logs that no run of these configurations produces.

    If no configuration names a run, its folders in results, figures and logs are listed, and not the files in them. For
    all other runs, files in results and figures are listed, except for archives (.tar.gz) and for files in the folders
    KEPT.
    """
    named, runs, datasets = set(), {"data"}, set(official_shapes.OFFICIAL)
    for path in paths_to_configs:
        config = load.load([path])
        runs.add(config.run)
        datasets |= load.datasets_of(config) | set(config.datasets)
        named |= _outputs(path)
    orphans = []
    for place in map(Path, ("results", "figures", "logs")):
        for folder in sorted(path for path in place.glob("*") if path.is_dir() and path.name != BENCHMARKS):
            if folder.name not in runs:
                orphans.append(folder)
            elif place.name != "logs":
                own = {*datasets, "available"} if folder == Path("results/data") else ()
                made = [path for path in _files(folder) if path not in named and path.stem not in own]
                orphans += [path for path in made if path.parts[2] not in KEPT and not path.name.endswith(".tar.gz")]
    return orphans


def _outputs(path_to_config: Path) -> set[Path]:
    """Paths of the workflow's outputs for a configuration. Raises ValueError if Snakemake cannot list them."""
    command = [sys.executable, "-m", "snakemake", "--summary", "--configfile", str(path_to_config)]
    done = subprocess.run([*command, "--config", "missing_datasets=fail"], capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"{path_to_config}: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    header = next(i for i, row in enumerate(rows) if row[0] == "output_file")
    return {Path(row[0]) for row in rows[header + 1 :]}


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not files.is_temporary(path))


def run(configfiles: list[Path], remove: bool) -> None:
    """Print the results that none of the configurations produces; delete them if `remove` is True.

    The configurations are `configfiles` or, if there are none, all in config/.
    """
    if remove:
        locks.enter_run()
    orphans, total = find_orphans(configfiles or sorted(Path("config").glob("*.yaml"))), 0
    for orphan in orphans:
        size = sum(path.stat().st_size for path in ([orphan] if orphan.is_file() else _files(orphan)))
        total += size
        print(f"{orphan}{'/' if orphan.is_dir() else ''}  {size / 2**20:.1f} MiB")
        if remove:
            files.remove(orphan)
    advice = "removed" if remove else "remove them with make orphans REMOVE=yes"
    print(f"{len(orphans)} orphans, {total / 2**20:.1f} MiB: {advice}" if orphans else "no orphans")
