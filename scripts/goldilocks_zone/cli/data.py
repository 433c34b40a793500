"""`make data`: fetch datasets and record in results/data/available.yaml which of them are available."""

from pathlib import Path

import yaml

from goldilocks_zone.config import load
from goldilocks_zone.data import catalogue, official_shapes
from goldilocks_zone.jobs import locks
from goldilocks_zone.provenance import fingerprints, records
from goldilocks_zone.storage import files

ROOT = Path(__file__).parents[3]
DATA = Path("results/data")


def run(configfiles: list[Path]) -> None:
    """Fetch datasets, and print the path of each, or why it is unavailable.

    The datasets are those that `configfiles` name; without `configfiles`, they are the official ones and all that the
    shipped configuration names. A dataset is kept if its file and its card are newer than the record of the code that
    makes them and, for a user's own dataset, newer than the record of the user's files. All others are fetched again.
    """
    config = load.load(configfiles)
    named = load.datasets_of(config)
    names = sorted(named if configfiles else named | {*official_shapes.OFFICIAL, *config.datasets})
    locks.enter_run()
    folder = catalogue.data_folder(config.data_folder)
    own = [name for name in names if name not in official_shapes.OFFICIAL]
    catalogue.keep_datasets(DATA)
    catalogue.renew_stamps(own, config.datasets, folder, DATA)
    known = catalogue.own_records(own, config.datasets, folder, DATA)
    record = DATA / "available.yaml"
    available = (yaml.safe_load(record.read_text()) if record.exists() else None) or {}
    try:
        for name in names:
            outputs = DATA / f"{name}.nc", DATA / f"cards/{name}.yaml"
            script, kind = ("read_own_dataset", "own_dataset") if name in own else ("fetch_dataset", "dataset")
            code = fingerprints.record(ROOT / f"scripts/{script}.py")
            inputs = [records.write(DATA / f"fingerprints/{kind}.txt", code)]
            if name in own:
                inputs.append(records.write(DATA / f"own/{name}.yaml", catalogue.identity_record(known[name])))
            newest = max(path.stat().st_mtime for path in inputs)
            current = all(path.exists() and path.stat().st_mtime >= newest for path in outputs)
            reason = None if current else _make(name, known.get(name), folder, inputs[0], outputs)
            available[name] = {"available": False, "reason": reason} if reason else {"available": True}
    finally:
        # Also if a user's malformed dataset raises: the entries of the datasets before it are kept.
        files.write_if_changed(yaml.safe_dump(available, allow_unicode=True), record)
    for name in names:
        if available[name]["available"]:
            print(f"{name}: results/data/{name}.nc")
        elif not (configfiles and config.missing_datasets == "leave_out"):
            # With leave_out, the workflow itself reports the omitted datasets.
            print(available[name]["reason"])


def _make(name: str, own: dict | None, folder: str | None, code: Path, outputs: tuple[Path, Path]) -> str | None:
    """Make the file and the card of one dataset; return why it is unavailable, or None if it was made.

    An official dataset is fetched, and `folder` is the user's data folder. A user's own dataset is read from the files
    in the record `own` (see `catalogue.own_records`), which is None for official ones. `code` is the path of the record
    of the code, and `outputs` are the paths of the dataset file and of its card.
    """
    # Imported lazily: requests and xarray take a second to import.
    from fetch_dataset import fetch_dataset
    from read_own_dataset import read_own_dataset

    from goldilocks_zone.data.official import Unavailable

    try:
        if own:
            read_own_dataset(name, own, code, *outputs)
        else:
            fetch_dataset(name, folder, code, *outputs)
    except Unavailable as reason:
        return str(reason)
    except FileNotFoundError as reason:
        if not own:
            raise
        return str(reason)
