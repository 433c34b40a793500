"""`make archive`: pack a run's results into one file, from which others can rebuild its figures and its paper."""

from pathlib import Path

import yaml

from goldilocks_zone.config import load, models, studies
from goldilocks_zone.config.records import of_measurement
from goldilocks_zone.provenance import archive, attributes, records
from goldilocks_zone.storage import files

ROOT = Path(__file__).parents[3]
DATA = Path("results/data")


def contents_of(config: models.Configuration) -> dict[str, Path]:
    """Paths of the files of a run to pack, by their names in the archive.

    These are the blocks of its studies, the cards of its datasets, and everything made from the blocks.
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
    """Entries of the archive's manifest: run, commit, date, and what produced the blocks.

    `code` maps each kind of study to the fingerprint of its code, and `settings` maps each study to its settings. The
    cuts through the loss are listed in both, if the run has them.
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
    """Release date of the checkout, such as 2026-01-31, from CITATION.cff; replaces the date of an unknown commit.

    The clock would give an archive a date that does not follow from its contents.
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
    """Pack the results of a run, and print the path and size of the archive.

    Raises ValueError if the run is not complete.
    """
    config, *_ = load.as_run(load.load([configfile]))
    path = Path(f"results/{config.run}/{config.run}.tar.gz")
    files.refuse_unwritable([path.parent])
    archive.pack(path, contents_of(config), about(config))
    print(f"{path}  {path.stat().st_size / 1e6:.1f} MB: make review ARCHIVE={path} rebuilds figures and paper")
