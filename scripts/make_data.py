"""`make data`: fetch datasets and record in results/data/available.yaml which of them can be had."""

import argparse
import sys
from pathlib import Path

import yaml

from goldilocks import configuration, files, fingerprints, logs

ROOT = Path(__file__).parents[1]


def make_data(names: list[str], folder: str | None, path_to_results: Path) -> dict:
    """Fetch what is missing or was made by other code; for each name, whether it is there and if not, why."""
    code = path_to_results / "fingerprint.txt"
    script = ROOT / "scripts/fetch_dataset.py"
    files.write_if_changed(fingerprints.code_fingerprint(script, ROOT / "requirements.txt") + "\n", code)
    record = path_to_results / "available.yaml"
    available = yaml.safe_load(record.read_text()) if record.exists() else {}
    for name in names:
        path = path_to_results / f"{name}.nc"
        available[name] = {"available": True}
        if not path.exists() or path.stat().st_mtime < code.stat().st_mtime:
            # Imported only where something is fetched: requests and xarray take a second to start.
            from fetch_dataset import fetch_dataset

            from goldilocks.sources import Unavailable

            try:
                fetch_dataset(name, folder, code, path)
            except Unavailable as reason:
                available[name] = {"available": False, "reason": str(reason)}
    files.write_if_changed(yaml.safe_dump(available), record)
    return available


def main() -> None:
    parser = argparse.ArgumentParser(description="Fetch datasets and record which of them can be had.")
    parser.add_argument("--configfile", nargs="*", default=[], help="fetch what these configurations name, not all")
    arguments = parser.parse_args()
    names, folder = list(configuration.DATASETS), None
    if arguments.configfile:
        schema = configuration.load_schema(ROOT / "workflow/schemas/config.schema.yaml")
        try:
            config = configuration.complete(configuration.read(arguments.configfile), schema)
        except configuration.ConfigurationError as error:
            logs.report(str(error))
            sys.exit(str(error))
        names = sorted({name for study in config["studies"].values() for name in study["datasets"]})
        folder = config.get("data_folder")
    available = make_data(names, folder, ROOT / "results/data")
    for name in names:
        print(f"{name}: results/data/{name}.nc" if available[name]["available"] else available[name]["reason"])


if __name__ == "__main__":
    main()
