"""A run of the workflow: its configuration, its records of inputs, and its output files.

Loading a run imports nothing heavy and writes nothing. All paths are relative to the working directory. A record is a
text file of settings or code that jobs depend on. The name of the file contains a hash of its text, so that another
text is another file. The place of a record is its path without this hash. Places that start with data/ lie below
results/, all others below the folder of the run's results. The archive is a file with results of an earlier run, which
the configuration's key `results_from` may name; its blocks are used instead of being computed.
"""

import base64
import gzip
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from goldilocks_zone.config import kinds, load, studies
from goldilocks_zone.config import records as config_records
from goldilocks_zone.config.models import Configuration
from goldilocks_zone.config.records import ClaimsRecord, PaperRecord
from goldilocks_zone.data import catalogue, drawn_shapes, official_shapes
from goldilocks_zone.figures import registry
from goldilocks_zone.provenance import archive, fingerprints, records
from goldilocks_zone.storage import files

DATA = Path("results/data")
# Scripts of rules, by the places of their records.
SCRIPTS = {
    "fingerprints/aggregate.txt": "aggregate_study.py",
    "fingerprints/claims.txt": "judge_claims.py",
    "fingerprints/agreement.txt": "compare_published.py",
    "fingerprints/numbers.txt": "write_numbers.py",
    "fingerprints/captions.txt": "write_captions.py",
    "fingerprints/paper.txt": "build_paper.py",
    "fingerprints/publish.txt": "publish_run.py",
    "fingerprints/unpack.txt": "unpack_results.py",
    "data/fingerprints/dataset.txt": "fetch_dataset.py",
    "data/fingerprints/own_dataset.txt": "read_own_dataset.py",
}


@dataclass(frozen=True)
class Run:
    """A run of the workflow: its complete configuration, and the texts of the records that its jobs depend on."""

    config: Configuration
    left_out: dict[str, str]  # reason for each omitted dataset, by name
    own_datasets: dict[str, dict]  # records of the user's own datasets, by name
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
        """The run's figures by name, as their modules register them."""
        return {name: registry.of(name, settings.file) for name, settings in self.config.figures.items()}

    @property
    def measured(self) -> list[str]:
        """Paths of the files with the run's blocks and cuts, relative to the folder of the run's results."""
        blocks = [path for study in self.config.studies for path in studies.block_paths(self.config, study)]
        return blocks + (["cuts.nc"] if self.config.cuts else [])

    @property
    def archived_blocks(self) -> list[str]:
        """Paths of those blocks and cuts that the archive contains, as in `measured`."""
        return sorted(self.archived_files.intersection(self.measured))

    @property
    def archived_settings(self) -> list[str]:
        """Places of the records of settings of the blocks and cuts that are taken from the archive.

        Unpacking fails if the archive was made with other settings.
        """
        folders = [name.split("/") for name in self.archived_blocks]
        return sorted({f"settings/study-{each[1]}.yaml" if each[1:] else "settings/cuts.yaml" for each in folders})

    @property
    def archived_codes(self) -> list[str]:
        """Places of the records of the code of the blocks and cuts that are taken from the archive.

        A record has a fingerprint of the code. Unpacking fails if the archive was made with code of another
        fingerprint.
        """
        kinds = {name.split("/")[0].removesuffix(".nc") for name in self.archived_blocks}
        return sorted(f"fingerprints/{kind}.txt" for kind in kinds)

    @property
    def archived_cards(self) -> list[str]:
        """Names, in the archive, of all dataset cards that the archive contains."""
        return _cards_in(self.archived_files)

    def path_of(self, place: str, started: bool = False) -> str:
        """Path of the record at a `place`, which contains a hash of the record's text.

        By default, the text is that of the run as it is loaded now. If the run was `started` earlier, the path is that
        of the record that the run wrote then. Raises ValueError if such a run has not left exactly one record at this
        place.
        """
        path = _full(self.name, place)
        if not started:
            return str(records.path_of(path, self.texts[path]))
        found = records.versions(path)
        if len(found) != 1:
            raise ValueError(
                f"{path}: the run that started this job did not leave exactly one such record: start the run again"
            )
        return str(found[0])

    def packed(self, path: str) -> str:
        """Text of the record at `path`, compressed and encoded without characters that are special to a shell.

        `path` contains the record's hash.
        """
        text = self.texts[records.place_of(path)]
        return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()

    def blocks_of(self, study: str) -> list[str]:
        """Paths of the files with all blocks of a study."""
        return [f"results/{self.name}/{path}" for path in studies.block_paths(self.config, study)]

    def shown_by(self, figure: str) -> list[str]:
        """Paths of the results that a figure shows: the aggregates of its studies or, if it has none, its result."""
        names = [f"aggregate/{study}" for study in self.config.figures[figure].studies]
        names = names or [self.figures[figure].result]
        return [f"results/{self.name}/{name}.nc" for name in names]

    def promised(self) -> list[str]:
        """Paths of all output files that the workflow makes for this run."""
        results = self.measured + [f"aggregate/{study}.nc" for study in self.config.studies]
        results += [f"figures/{figure}.nc" for figure in self.config.figures]
        results += [
            "claims.csv",
            "agreement.csv",
            "paper/paper.yaml",
            "report/figure.rst",
            "paper.pdf",
            "published.txt",
        ]
        drawn = [f"figures/{self.name}/{figure}.{kind}" for figure in self.config.figures for kind in ("pdf", "png")]
        copies = ["paper/paper.pdf", "results/claims.csv", "results/agreement.csv"]
        return [f"results/{self.name}/{path}" for path in results] + drawn + copies

    def card_of(self, dataset: str) -> str:
        """Path of a dataset's card: the one from the archive or, without it, the one that reading the dataset writes.

        A card from the archive saves fetching the dataset.
        """
        card = f"{archive.CARDS}/{dataset}.yaml"
        return f"results/{self.name}/unpacked/{card}" if card in self.archived_files else str(DATA / card)

    def file_of_dataset(self, dataset: str) -> list[str]:
        """Path of a dataset's file, in a list; empty for datasets that jobs draw."""
        return [] if drawn_shapes.shape_of(dataset) else [str(DATA / f"{dataset}.nc")]

    def networks_of(self, labels: Iterable[str]) -> list[str]:
        """Places of the records of the user's own networks among the networks with these `labels`."""
        return [f"settings/network-{label}.yaml" for label in labels if label in self.config.networks]

    def file_of_network(self, label: str) -> str:
        """Path of the code of the network `label` if it is one of the user's; empty for other networks."""
        return self.config.networks[label].code.file if label in self.config.networks else ""

    def files_of_weights(self, study: str) -> str:
        """Paths of the files of trained weights that a study names, in its order, as a JSON list."""
        return json.dumps([each.file for each in getattr(self.config.studies[study], "weights", None) or []])

    def renew_stamps(self) -> None:
        """Store hashes of the content of the user's dataset files, so that later calls read changed files only."""
        folder = catalogue.data_folder(self.config.data_folder)
        catalogue.renew_stamps(self.datasets, self.config.datasets, folder, DATA)


def load_run(given: dict, checkout: Path) -> Run:
    """Load the run that the configuration `given` defines, with fingerprints of the code in the folder `checkout`.

    Raises ValueError or OSError, with a message of one sentence, for a mistake in the configuration, the archive or a
    user's dataset.
    """
    path, archived = given.get("results_from"), frozenset()
    with TemporaryDirectory(prefix="goldilocks-") as folder, catalogue.one_look():
        # load.complete refuses types other than text.
        if isinstance(path, str):
            archived = frozenset(archive.read_manifest(path)["files"])
            for name, content in archive.read(path, _cards_in(archived)).items():
                files.write_text(content.decode(), Path(folder, name))
        cards = [Path(folder, archive.CARDS), DATA / "cards"]
        complete = load.complete(given, cards)
        config, left_out, left_out_studies = load.as_run(complete)
        names = sorted(load.datasets_of(config).difference(official_shapes.OFFICIAL))
        own = catalogue.own_records(names, config.datasets, catalogue.data_folder(config.data_folder), DATA)
    texts = {**_codes(config, checkout), **_settings(config, complete, left_out.values(), left_out_studies)}
    texts |= {f"data/own/{name}.yaml": catalogue.identity_record(each) for name, each in own.items()}
    texts = {_full(config.run, place): text for place, text in texts.items()}
    return Run(config, left_out, own, archived, texts)


def _cards_in(archived: Iterable[str]) -> list[str]:
    return sorted(name for name in archived if name.startswith(f"{archive.CARDS}/"))


def _full(run: str, place: str) -> Path:
    return Path("results", place) if place.startswith("data/") else Path("results", run, place)


def _codes(config: Configuration, checkout: Path) -> dict[str, str]:
    """Texts of the records of code, as {place: text}; a text is a fingerprint of the code that a rule runs.

    There is a record for each script in SCRIPTS, for cuts, for each kind of study, and for each figure of `config`. The
    scripts are those of the repository at `checkout`.
    """
    scripts = checkout / "scripts"
    codes: dict[str, tuple[Path, *tuple[str, ...]]] = {place: (scripts / name,) for place, name in SCRIPTS.items()}
    for name, path in {"cuts": kinds.CUTS, **{kind.name: kind.path for kind in kinds.known().values()}}.items():
        codes[f"fingerprints/{name}.txt"] = (scripts / "measure_block.py", path)
    for name, settings in config.figures.items():
        module = registry.of(name, settings.file).module
        codes[f"fingerprints/figure-{name}.txt"] = (scripts / "draw_figure.py", str(module))
    return dict(zip(codes, fingerprints.records(codes.values())))


def _settings(
    config: Configuration, complete: Configuration, left_out: Iterable[str], without: dict[str, list[str]]
) -> dict[str, str]:
    """Texts of the records of settings, as {place: text}: of studies, cuts, networks, figures, claims and the paper.

    `config` lacks the omitted datasets, and `complete` has them. `left_out` gives the reasons why they are omitted.
    `without` maps each study that is omitted for lack of data to its datasets.
    """
    found = {}
    for name, study in config.studies.items():
        found[f"study-{name}"] = config_records.of_measurement(study, config.seed)
        found[f"grid-{name}"] = config_records.of_grid(study)
    if config.cuts:
        found["cuts"] = config_records.of_measurement(config.cuts, config.seed)
    found |= {f"network-{name}": network.code.record(name) for name, network in config.networks.items()}
    found |= {f"figure-{name}": figure for name, figure in config.figures.items()}
    found["claims"] = ClaimsRecord(studies=sorted(config.studies), left_out=without, substitutes=config.substitutes)
    without_cuts = complete.cuts is not None and config.cuts is None
    registered = registry.figures() | {name: registry.of(name, each.file) for name, each in config.figures.items()}
    found["paper"] = PaperRecord(
        run=config.run,
        studies=config.studies,
        figures={name: figure.studies for name, figure in config.figures.items()},
        registered={name: figure.in_paper() for name, figure in registered.items()},
        cuts=config.cuts,
        left_out=list(left_out),
        lacking=[
            name
            for name, figure in registered.items()
            if (figure.result and without_cuts) or set(figure.studies) & set(without)
        ],
        licences={name: catalogue.licence(name, config.datasets) for name in sorted(load.datasets_of(config))},
        substitutes=config.substitutes,
    )
    return {f"settings/{name}.yaml": config_records.dump(each) for name, each in found.items()}
