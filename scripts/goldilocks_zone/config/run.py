"""A run as the workflow sees it: its configuration, the records that it starts with, and the files that it promises.

Imports nothing heavy, and making one writes nothing: that happens whenever the workflow loads. All paths are relative
to the working directory. A place names a record without its hash: below the run's results, or below results/ if it
starts with data/.
"""

import base64
import gzip
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from goldilocks_zone.config import kinds, load, studies
from goldilocks_zone.config import records as config_records
from goldilocks_zone.config.models import Configuration
from goldilocks_zone.data import catalogue, official_shapes
from goldilocks_zone.figures import registry
from goldilocks_zone.provenance import archive, fingerprints, records
from goldilocks_zone.storage import files

DATA = Path("results/data")
# The script of each rule.
SCRIPTS = {
    "aggregate": "aggregate_study.py",
    "cuts": "measure_slices.py",
    "claims": "judge_claims.py",
    "numbers": "write_numbers.py",
    "captions": "write_captions.py",
    "paper": "build_paper.py",
    "publish": "publish_run.py",
    "unpack": "unpack_results.py",
}
DATA_SCRIPTS = {"dataset": "fetch_dataset.py", "own_dataset": "read_own_dataset.py"}


@dataclass(frozen=True)
class Run:
    """A run whose configuration is complete."""

    config: Configuration
    left_out: dict[str, str]  # why a dataset is left out, by its name
    own_datasets: dict[str, dict]  # where a user's dataset lies and how it is read, by its name
    archived_files: frozenset[str]  # names of the files in the archive results_from
    texts: dict[Path, str]  # of all records, by path without hash

    @property
    def name(self) -> str:
        """The run's name."""
        return self.config.run

    @property
    def datasets(self) -> list[str]:
        """Names of the datasets that the run uses."""
        return sorted(load.datasets_of(self.config))

    @property
    def figures(self) -> dict[str, registry.Figure]:
        """The figures that the run draws, as their modules register them."""
        return {name: registry.of(name, settings.file) for name, settings in self.config.figures.items()}

    @property
    def archived_blocks(self) -> list[str]:
        """Names of the run's blocks and cuts that the archive has."""
        names = [path for study in self.config.studies for path in studies.block_paths(self.config, study)]
        names += ["cuts.nc"] if self.config.cuts else []
        return sorted(self.archived_files.intersection(names))

    @property
    def archived_settings(self) -> list[str]:
        """Places of the settings by which the archived blocks must have been made."""
        folders = [name.split("/") for name in self.archived_blocks]
        return sorted({f"settings/study-{each[1]}.yaml" if each[1:] else "settings/cuts.yaml" for each in folders})

    @property
    def archived_codes(self) -> list[str]:
        """Places of the fingerprints of the code by which the archived blocks must have been made."""
        kinds = {name.split("/")[0].removesuffix(".nc") for name in self.archived_blocks}
        return sorted(f"fingerprints/{kind}.txt" for kind in kinds)

    @property
    def archived_cards(self) -> list[str]:
        """Names of the dataset cards that the archive has."""
        return _cards_in(self.archived_files)

    def path_of(self, place: str, started: bool = False) -> str:
        """The path of a record; of a run that was `started` earlier the one that it wrote, whatever was edited since.

        Raises ValueError if that run wrote none.
        """
        path = _full(self.name, place)
        if not started:
            return str(records.path_of(path, self.texts[path]))
        found = records.versions(path)
        if len(found) != 1:
            raise ValueError(f"{path}: the run that this job belongs to has left no such record: start it again")
        return str(found[0])

    def packed(self, path: str) -> str:
        """The text of the record at `path`, compressed, in letters that mean nothing to a shell."""
        text = self.texts[records.place_of(path)]
        return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()

    def blocks_of(self, study: str) -> list[str]:
        """Paths of all blocks of a study."""
        return [f"results/{self.name}/{path}" for path in studies.block_paths(self.config, study)]

    def shown_by(self, figure: str) -> list[str]:
        """Paths of the results that a figure shows: aggregates of its studies, or a result that is no study's."""
        names = [f"aggregate/{study}" for study in self.config.figures[figure].studies]
        names = names or [self.figures[figure].result]
        return [f"results/{self.name}/{name}.nc" for name in names]

    def promised(self) -> list[str]:
        """Paths of all files that the run leaves."""
        results = [path for study in self.config.studies for path in studies.block_paths(self.config, study)]
        results += [f"aggregate/{study}.nc" for study in self.config.studies]
        results += ["cuts.nc"] if self.config.cuts else []
        results += [f"figures/{figure}.nc" for figure in self.config.figures]
        results += ["claims.csv", "paper/paper.yaml", "report/figure.rst", "paper.pdf", "published.txt"]
        drawn = [f"figures/{self.name}/{figure}.{kind}" for figure in self.config.figures for kind in ("pdf", "png")]
        return [f"results/{self.name}/{path}" for path in results] + drawn + ["paper/paper.pdf", "results/claims.csv"]

    def card_of(self, dataset: str) -> str:
        """Path of a dataset's card: the archive's, which saves fetching the dataset, or the one of its reading here."""
        card = f"{archive.CARDS}/{dataset}.yaml"
        return f"results/{self.name}/unpacked/{card}" if card in self.archived_files else str(DATA / card)

    def networks_of(self, labels: Iterable[str]) -> list[str]:
        """Places of the records of those networks that are the user's own."""
        return [f"settings/network-{label}.yaml" for label in labels if label in self.config.networks]

    def file_of_network(self, label: str) -> str:
        """Path of the code of a network that is the user's own; empty for others."""
        return self.config.networks[label].code.file if label in self.config.networks else ""

    def renew_stamps(self) -> None:
        """Remember the contents of the user's datasets by the ages of their files, for later calls. Writes."""
        folder = catalogue.data_folder(self.config.data_folder)
        catalogue.renew_stamps(self.datasets, self.config.datasets, folder, DATA)


def load_run(given: dict, checkout: Path) -> Run:
    """The run of the configuration `given`, by the code of `checkout`.

    Raises ValueError and OSError in one sentence, as the configuration, the archive and the user's datasets do.
    """
    path, archived = given.get("results_from"), frozenset()
    with TemporaryDirectory(prefix="goldilocks-") as folder, catalogue.one_look():
        # Other types than text are refused with the configuration.
        if isinstance(path, str):
            archived = frozenset(archive.read_manifest(path)["files"])
            for name, content in archive.read(path, _cards_in(archived)).items():
                files.write_text(content.decode(), Path(folder, name))
        cards = [Path(folder, archive.CARDS), DATA / "cards"]
        complete = load.complete(given, cards)
        config, left_out, left_out_studies = load.as_run(complete)
        names = [name for name in sorted(load.datasets_of(config)) if name not in official_shapes.OFFICIAL]
        data_folder = catalogue.data_folder(config.data_folder)
        own = catalogue.own_records(names, config.datasets, data_folder, DATA)
    texts = {**_codes(config, checkout), **_settings(config, left_out, left_out_studies)}
    texts |= {f"data/own/{name}.yaml": catalogue.identity_record(each) for name, each in own.items()}
    texts = {_full(config.run, place): text for place, text in texts.items()}
    return Run(config, left_out, own, archived, texts)


def _cards_in(archived: Iterable[str]) -> list[str]:
    return sorted(name for name in archived if name.startswith(f"{archive.CARDS}/"))


def _full(run: str, place: str) -> Path:
    return Path("results", place) if place.startswith("data/") else Path("results", run, place)


def _codes(config: Configuration, checkout: Path) -> dict[str, str]:
    """Fingerprint of each rule's code, by place."""
    places = {f"fingerprints/{rule}.txt": name for rule, name in SCRIPTS.items()}
    places |= {f"data/fingerprints/{rule}.txt": name for rule, name in DATA_SCRIPTS.items()}
    codes = {place: (checkout / "scripts" / name,) for place, name in places.items()}
    measure = checkout / "scripts/measure_block.py"
    codes |= {f"fingerprints/{kind.name}.txt": (measure, kind.path) for kind in kinds.known().values()}
    draw = checkout / "scripts/draw_figure.py"
    for name, settings in config.figures.items():
        codes[f"fingerprints/figure-{name}.txt"] = (draw, str(registry.of(name, settings.file).module))
    return dict(zip(codes, fingerprints.records(codes.values())))


def _settings(
    config: Configuration, left_out: dict[str, str], left_out_studies: dict[str, list[str]]
) -> dict[str, str]:
    """Settings that each study, the cuts, each figure, the claims and the paper depend on, by place."""
    found = {}
    for name, study in config.studies.items():
        found[f"study-{name}"] = config_records.of_measurement(study, config.seed)
        found[f"grid-{name}"] = config_records.of_grid(study)
    if config.cuts:
        found["cuts"] = config_records.of_measurement(config.cuts, config.seed)
    found |= {f"network-{name}": network.code.record(name) for name, network in config.networks.items()}
    found |= {f"figure-{name}": figure for name, figure in config.figures.items()}
    found["claims"] = config_records.ClaimsRecord(
        studies=sorted(config.studies), left_out=left_out_studies, substitutes=config.substitutes
    )
    registered = registry.figures() | {name: registry.of(name, each.file) for name, each in config.figures.items()}
    found["paper"] = config_records.PaperRecord(
        run=config.run,
        studies=config.studies,
        figures={name: figure.studies for name, figure in config.figures.items()},
        registered={name: figure.in_paper() for name, figure in registered.items()},
        cuts=config.cuts,
        left_out=list(left_out.values()),
        licences={name: catalogue.licence(name, config.datasets) for name in sorted(load.datasets_of(config))},
        substitutes=config.substitutes,
    )
    return {f"settings/{name}.yaml": config_records.dump(each) for name, each in found.items()}
