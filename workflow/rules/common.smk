"""Shared by all. Needs the configuration; makes the run's name, and its records, which hold what it is started with in
files named by the hash of their content, so that reruns can be trusted even after .snakemake/ is lost.

Loading the workflow writes nothing: Snakemake does not say whether a run is to follow.
"""

import base64
import gzip
import sys
from tempfile import TemporaryDirectory

DATA = Path("results/data")
sys.path.insert(0, str(CHECKOUT / "scripts"))

from goldilocks_zone.config import load as configuration
from goldilocks_zone.config import studies
from goldilocks_zone.data import catalogue, official_shapes
from goldilocks_zone.jobs import failures, lifecycle, run_lock, surroundings
from goldilocks_zone.models import user_code
from goldilocks_zone.provenance import archive as archives
from goldilocks_zone.provenance import fingerprints, records
from goldilocks_zone.storage import files

# Where jobs write.
WRITTEN = ("results", "figures", "paper")

SCRIPTS = {
    "curvature": "measure_curvature.py",
    "training": "measure_training.py",
    "aggregate": "aggregate_study.py",
    "cuts": "measure_cuts.py",
    "claims": "judge_claims.py",
    "numbers": "write_numbers.py",
    "captions": "write_captions.py",
    "paper": "build_paper.py",
    "publish": "publish_run.py",
    "unpack": "unpack_results.py",
}
DATA_SCRIPTS = {"dataset": "fetch_dataset.py", "own_dataset": "read_own_dataset.py"}


# The folder in which this process keeps what it must know of an archive: it goes with the process.
UNPACKED = TemporaryDirectory(prefix="goldilocks-")
# Texts of all records by their place below the run's results, or below data/.
RECORDS = {}


def complete_configuration():
    """The configuration with its defaults, a reason for each dataset that is left out, and studies that are, too."""
    cards = Path(UNPACKED.name, archives.CARDS)
    complete = configuration.complete(config, configuration.load_schema(CHECKOUT), [cards, DATA / "cards"])
    return configuration.as_run(complete)


def fingerprint_records():
    """Fingerprint of each rule's code, by place."""
    scripts = SCRIPTS | {f"plot_{figure}": f"plot_{figure}.py" for figure in config["figures"]}
    places = {f"fingerprints/{rule}.txt": name for rule, name in scripts.items()}
    places |= {f"data/fingerprints/{rule}.txt": name for rule, name in DATA_SCRIPTS.items()}
    return {place: fingerprints.record(CHECKOUT / "scripts" / name) for place, name in places.items()}


def settings_records():
    """What each study, the cuts, each figure, the claims and the paper depend on, by place."""
    found = {}
    for name, study in config["studies"].items():
        found[f"study-{name}"] = studies.block_settings(config, name)
        found[f"grid-{name}"] = {axis: study[axis] for axis in studies.AXES}
    if "cuts" in config:
        found["cuts"] = {**config["cuts"], "seed": config["seed"]}
    found |= {f"network-{name}": user_code.record(name, network) for name, network in config["networks"].items()}
    found |= {f"figure-{name}": figure for name, figure in config["figures"].items()}
    found["claims"] = {
        "studies": sorted(config["studies"]),
        "left_out": LEFT_OUT_STUDIES,
        "substitutes": config["substitutes"],
    }
    found["paper"] = {
        "run": RUN,
        "studies": config["studies"],
        "figures": {name: figure.get("studies") for name, figure in config["figures"].items()},
        "cuts": config.get("cuts"),
        "left_out": list(LEFT_OUT.values()),
        "licences": {name: catalogue.licence(name, config["datasets"]) for name in DATASETS},
        "substitutes": config["substitutes"],
    }
    return {f"settings/{name}.yaml": configuration.dump(settings) for name, settings in found.items()}


def own_datasets():
    """Where each of the user's own datasets lies and how it is read."""
    names = [name for name in DATASETS if name not in official_shapes.OFFICIAL]
    return catalogue.own_records(names, config["datasets"], catalogue.data_folder(config.get("data_folder")), DATA)


def place_of(place):
    """The path of a record without its hash."""
    return Path("results") / place if place.startswith("data/") else Path("results") / RUN / place


def path_of(place):
    """The path of a record. A cluster's job takes the one that its run has written, whatever has been edited since."""
    if workflow.remote_exec:
        found = records.versions(place_of(place))
        if len(found) != 1:
            raise WorkflowError(
                f"{place_of(place)}: the run that this job belongs to has left no such record: start it again"
            )
        return str(found[0])
    return str(records.path_of(place_of(place), RECORDS[place]))


def recorded(place):
    """The path of a record that a job takes. One that is missing is made, whatever is asked for, and then what depends on
    it: to Snakemake, once .snakemake/ is lost, a missing input is no reason to make anew what is there from it."""
    path = path_of(place)
    if not Path(path).exists():
        workflow.dag.forcefiles.add(path)
    return path


def record(place):
    """An input: the record at `place`, in which wildcards are filled in."""
    return lambda wildcards: recorded(place.format(**dict(wildcards.items())))


def packed(path):
    """The text of a record, compressed, as letters that mean nothing to a shell."""
    text = next(text for place, text in RECORDS.items() if path_of(place) == path)
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def blocks_of(wildcards):
    """The files of all blocks of a study."""
    return [f"results/{RUN}/{path}" for path in studies.block_paths(config, wildcards.study)]


def block_code(wildcards):
    """The fingerprint of the code that makes the blocks of a study."""
    return recorded(f"fingerprints/{config['studies'][wildcards.study]['kind']}.txt")


def checkpoints_of(wildcards):
    """The folder from which a job of training goes on after it was killed."""
    return f"results/{RUN}/checkpoints/" + "/".join(wildcards[1:])


def grown(amount):
    """A resource that grows with every attempt: what a job lacked the first time it may have the next."""
    return lambda wildcards, attempt: amount * attempt


def shown_by(figure):
    """The results that a figure shows: aggregates of its studies, or the cuts."""
    studies = config["figures"][figure].get("studies")
    return [f"results/{RUN}/aggregate/{study}.nc" for study in studies] if studies else [f"results/{RUN}/{figure}.nc"]


def promised():
    """Every file that this run is to leave."""
    blocks = [path for study in config["studies"] for path in studies.block_paths(config, study)]
    blocks += [f"aggregate/{study}.nc" for study in config["studies"]]
    blocks += ["cuts.nc"] if "cuts" in config else []
    blocks += [f"figures/{figure}.nc" for figure in config["figures"]]
    blocks += ["claims.csv", "paper/paper.yaml", "report/figure.rst", "paper.pdf", "published.txt"]
    drawn = [f"figures/{RUN}/{figure}.{kind}" for figure in config["figures"] for kind in ("pdf", "png")]
    return [f"results/{RUN}/{path}" for path in blocks] + drawn + ["paper/paper.pdf", "results/claims.csv"]


def read_archive():
    """Keep what is known of an archive's datasets for as long as this process lives; returns the names of their cards."""
    if "results_from" not in config:
        return []
    known = archives.read_manifest(config["results_from"])["files"]
    cards = [name for name in known if name.startswith(f"{archives.CARDS}/")]
    for name, content in archives.read(config["results_from"], cards).items():
        files.write_text(content.decode(), Path(UNPACKED.name, name))
    return cards


def archived():
    """Names of this run's blocks that the archive results_from has."""
    if "results_from" not in config:
        return []
    names = [path for study in config["studies"] for path in studies.block_paths(config, study)]
    names += ["cuts.nc"] if "cuts" in config else []
    known = archives.read_manifest(config["results_from"])["files"]
    return sorted(name for name in names if name in known)


def settings_of(name):
    """The settings that an archived block was made by."""
    study = Path(name).parts[1] if Path(name).parts[1:] else None
    return recorded(f"settings/study-{study}.yaml" if study else "settings/cuts.yaml")


def code_of(name):
    """The fingerprint of the code that an archived block was made by."""
    return recorded(f"fingerprints/{Path(name).parts[0].removesuffix('.nc')}.txt")


def card_of(dataset):
    """What is known of a dataset: as an archive has it, which saves fetching it, or as it was read here."""
    card = f"{archives.CARDS}/{dataset}.yaml"
    return f"results/{RUN}/unpacked/{card}" if card in ARCHIVED_CARDS else f"results/data/{card}"


def own_networks(labels):
    """The records of those networks that are the user's own."""
    own = (label for label in labels if label in config["networks"])
    return [recorded(f"settings/network-{label}.yaml") for label in own]


def file_of_network(label):
    """The file of code of a network that is the user's own."""
    return config["networks"][label]["file"] if label in config["networks"] else ""


def enter_run():
    """Be the one run at work in this folder, without what a dead one left behind."""
    try:
        run_lock.enter()
        files.refuse_unwritable([*WRITTEN, "logs"])
    except (ValueError, OSError) as error:
        refuse(error)
    files.remove_leftovers(WRITTEN)
    catalogue.keep_datasets(DATA)
    catalogue.renew_stamps(DATASETS, config["datasets"], catalogue.data_folder(config.get("data_folder")), DATA)


def refuse(error):
    """End with the sentence of an error, which `make` repeats."""
    failures.report(str(error))
    raise WorkflowError(str(error)) from None


try:
    surroundings.enter(CHECKOUT)
    # Where Snakemake keeps what it knows, in any call.
    files.refuse_unwritable(["."])
    lifecycle.name_to_jobs(first=workflow.is_main_process)
    ARCHIVED_CARDS = read_archive()
    config, LEFT_OUT, LEFT_OUT_STUDIES = complete_configuration()
    RUN = config["run"]
    DATASETS = sorted(configuration.datasets_of(config))
    OWN_DATASETS = own_datasets()
    RECORDS |= fingerprint_records() | settings_records()
    RECORDS |= {f"data/own/{name}.yaml": catalogue.identity_record(each) for name, each in OWN_DATASETS.items()}
    ARCHIVED = archived()
except (ValueError, OSError) as error:
    refuse(error)
# --delete-all-output and --delete-temp-output remove results, and no run starts with them.
if any(argument.startswith("--delete-") for argument in sys.argv[1:]):
    enter_run()
for reason in LEFT_OUT.values():
    print(f"left out: {reason}", file=sys.stderr)


wildcard_constraints:
    run=RUN,
    study="|".join(config["studies"]),
    dataset="[a-z0-9_]+",
    figure="|".join(config["figures"]),
    block=r"[a-z0-9-]+",
