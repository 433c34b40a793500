"""`make archive`: pack a run's results into one file, from which others can rebuild its figures and its paper.

A block is the file of results that one job of a study writes. A card is a YAML file with metadata of a dataset.
"""

from pathlib import Path

import yaml

from goldilocks_zone.config import load, models, studies
from goldilocks_zone.config.records import of_measurement
from goldilocks_zone.provenance import archive, attributes, records
from goldilocks_zone.storage import files

ROOT = Path(__file__).parents[3]
DATA = Path("results/data")


def contents_of(config: models.Configuration) -> dict[str, Path]:
    """Files of a run that an archive contains, as {name in the archive: path of the file}.

    They are the blocks of the run's studies and the aggregate of each study, its cuts through the loss (if it has any),
    its figures with their data, claims.csv, agreement.csv, paper.pdf, the cards of its datasets, and the record of
    available datasets (if there is one).
    """
    names = [path for study in config.studies for path in studies.block_paths(config, study)]
    names += [f"aggregate/{study}.nc" for study in config.studies]
    names += [f"figures/{figure}.nc" for figure in config.figures]
    names += ["claims.csv", "agreement.csv", "paper.pdf", *(["cuts.nc"] if config.cuts else [])]
    contents = {name: Path("results", config.run, name) for name in names}
    drawn = [f"{figure}.{kind}" for figure in config.figures for kind in ("pdf", "png")]
    contents |= {f"figures/{name}": Path("figures", config.run, name) for name in drawn}
    contents |= {f"{archive.CARDS}/{name}.yaml": DATA / f"cards/{name}.yaml" for name in load.datasets_of(config)}
    if (DATA / "available.yaml").exists():
        contents[archive.AVAILABLE] = DATA / "available.yaml"
    return contents


def about(config: models.Configuration) -> dict:
    """Entries that describe a run in the manifest of its archive: name, commit, date, code and settings.

    `code` maps each kind of study to the fingerprint of the code that measures it. `settings` maps each study to its
    settings. If the run measures cuts through the loss, both have an entry `cuts`. Raises ValueError unless exactly one
    fingerprint is on record for each kind.
    """
    place, cuts = Path("results", config.run, "fingerprints"), {"cuts": config.cuts} if config.cuts else {}
    kinds = sorted({study.kind for study in config.studies.values()} | cuts.keys())
    return {
        "run": config.run,
        "commit": attributes.commit(),
        "date": attributes.commit_day() or release_day(),
        "code": {kind: _recorded(place / f"{kind}.txt") for kind in kinds},
        "settings": {name: of_measurement(each, config.seed) for name, each in (config.studies | cuts).items()},
    }


def release_day() -> str:
    """Release date of the checkout, such as 2026-01-31, from CITATION.cff; used if the date of the commit is unknown.

    The present date is not used, because the date of an archive must follow from its contents.
    """
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    return citation["date-released"].isoformat()


def _recorded(place: Path) -> str:
    found = records.versions(place)
    if len(found) != 1:
        raise ValueError(
            f"{place.parent} has {len(found)} records of {place.stem}, and exactly one is needed: build the run again, "
            "then archive it"
        )
    return found[0].read_text(encoding="utf-8").strip()


def run(configfile: Path) -> None:
    """Pack the results of the run of `configfile` into an archive, and print the archive's path and size.

    Raises ValueError if the run is not complete, or if the archive would be too large.
    """
    config, *_ = load.as_run(load.load([configfile]))
    path = Path(f"results/{config.run}/{config.run}.tar.gz")
    files.refuse_unwritable([path.parent])
    archive.pack(path, contents_of(config), about(config))
    print(f"{path}  {path.stat().st_size / 1e6:.1f} MB: make review ARCHIVE={path} rebuilds figures and paper")
