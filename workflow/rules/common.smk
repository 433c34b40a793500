"""What every rule shares. Needs the configuration; makes the run's name, and files that change only
when code or settings change, so that reruns can be trusted even after .snakemake/ is lost.
"""

import os
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

ROOT = Path(workflow.basedir).parent
DATA = Path("results/data")
sys.path.insert(0, str(ROOT / "scripts"))

from goldilocks import archives, catalogue, configuration, files, fingerprints, locks, logs, studies

# Where jobs write, and ways to call Snakemake that write nothing.
WRITTEN = ("results", "figures", "paper")
PASSIVE = (
    *("--dry-run", "--dryrun", "--lint", "--dag", "--rulegraph", "--filegraph", "--d3dag", "--summary"),
    *("--detailed-summary", "--list-rules", "--list-target-rules", "--lt", "--list-changes", "--lc"),
    *("--list-input-changes", "--li", "--list-params-changes", "--lp", "--list-untracked", "--lu", "--unlock"),
    *("--report", "--nolock", "--print-compilation", "--help"),
)
PASSIVE_LETTERS = "nSDlh"

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


def complete_configuration():
    """The configuration with its defaults, a reason for each dataset that is left out, and studies that are, too."""
    cards = [Path(f"results/{config['run']}/unpacked/{archives.CARDS}")] if "results_from" in config else []
    complete = configuration.complete(config, configuration.load_schema(ROOT), [*cards, DATA / "cards"])
    record = DATA / "available.yaml"
    if complete["missing_datasets"] == "fail" or not record.exists():
        return complete, {}, {}
    left, reasons = configuration.without_missing(complete, configuration.read([record]))
    studies = {name: study["datasets"] for name, study in complete["studies"].items() if name not in left["studies"]}
    return left, reasons, studies


def write_fingerprints():
    """Fingerprint of each rule's code, in files that change only with it."""
    scripts = SCRIPTS | {f"plot_{figure}": f"plot_{figure}.py" for figure in config["figures"]}
    paths = {f"results/{RUN}/fingerprints/{rule}.txt": name for rule, name in scripts.items()}
    paths |= {f"{DATA}/fingerprints/{rule}.txt": name for rule, name in DATA_SCRIPTS.items()}
    for path, name in paths.items():
        fingerprints.record(ROOT / "scripts" / name, path)


def write_settings():
    """What each study, the cuts, each figure, the claims and the paper depend on, in files that change only with it."""
    folder = f"results/{RUN}/settings"
    for name, study in config["studies"].items():
        configuration.write(f"{folder}/study-{name}.yaml", studies.block_settings(config, name))
        configuration.write(f"{folder}/grid-{name}.yaml", {axis: study[axis] for axis in studies.AXES})
    if "cuts" in config:
        configuration.write(f"{folder}/cuts.yaml", {**config["cuts"], "seed": config["seed"]})
    for name, network in config["networks"].items():
        configuration.write(f"{folder}/network-{name}.yaml", network)
        files.write_if_changed(f"{network['fingerprint']}\n", f"{folder}/network-{name}.txt")
    own = [name for name in DATASETS if name not in catalogue.OFFICIAL]
    catalogue.record_own(own, config["datasets"], catalogue.data_folder(config.get("data_folder")), DATA / "own")
    for name, figure in config["figures"].items():
        configuration.write(f"{folder}/figure-{name}.yaml", figure)
    claims = {
        "studies": sorted(config["studies"]),
        "left_out": LEFT_OUT_STUDIES,
        "substitutes": config["substitutes"],
    }
    configuration.write(f"{folder}/claims.yaml", claims)
    paper = {
        "run": RUN,
        "studies": config["studies"],
        "figures": {name: figure.get("studies") for name, figure in config["figures"].items()},
        "cuts": config.get("cuts"),
        "left_out": list(LEFT_OUT.values()),
        "licences": {name: catalogue.licence(name, config["datasets"]) for name in DATASETS},
        "substitutes": config["substitutes"],
    }
    configuration.write(f"{folder}/paper.yaml", paper)
    # Copies of another run are older than this marker, whatever the age of this run's results.
    published, marker = Path("results/run.txt"), Path(f"{folder}/publish.txt")
    if not marker.exists() or (published.exists() and published.read_text().strip() != RUN):
        files.write_text(f"{RUN}\n", marker)


def blocks_of(wildcards):
    """The files of all blocks of a study."""
    return [f"results/{RUN}/{path}" for path in studies.block_paths(config, wildcards.study)]


def block_code(wildcards):
    """The fingerprint of the code that makes the blocks of a study."""
    return f"results/{RUN}/fingerprints/{config['studies'][wildcards.study]['kind']}.txt"


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


def lay_down_archive():
    """What the workflow has to know of an archive's datasets while it loads: their cards, and which could not be had."""
    if "results_from" not in config:
        return
    known = archives.read_manifest(config["results_from"])["files"]
    names = [name for name in known if name.startswith(f"{archives.CARDS}/") or name == archives.AVAILABLE]
    for name, content in archives.read(config["results_from"], names).items():
        place = Path(f"results/{config['run']}/unpacked/{name}")
        files.write_if_changed(content.decode(), place)
        if name == archives.AVAILABLE and not (DATA / name).exists():
            files.write_if_changed(content.decode(), DATA / name)


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
    return f"results/{RUN}/settings/" + (f"study-{study}.yaml" if study else "cuts.yaml")


def card_of(dataset):
    """What is known of a dataset: as an archive has it, which saves fetching it, or as it was read here."""
    unpacked = Path(f"results/{RUN}/unpacked/{archives.CARDS}/{dataset}.yaml")
    return str(unpacked) if "results_from" in config and unpacked.exists() else f"results/data/cards/{dataset}.yaml"


def own_networks(labels, ending):
    """What is known of those networks that are the user's own: .txt their fingerprint, .yaml their settings."""
    return [f"results/{RUN}/settings/network-{label}{ending}" for label in labels if label in config["networks"]]


def is_passive(argument):
    """Whether an argument of Snakemake's, abbreviated (--dry) or bundled (-np) as it allows, keeps it from working."""
    name = argument.split("=")[0]
    if name.startswith("--"):
        return any(flag.startswith(name) for flag in PASSIVE)
    return name[:1] == "-" and name[1:].isalpha() and bool(set(name[1:]) & set(PASSIVE_LETTERS))


def enter_run():
    """Be the one run at work in this folder, without what a dead one left behind."""
    if not workflow.is_main_process or any(map(is_passive, sys.argv[1:])):
        return
    os.environ[logs.RUNNER_VARIABLE] = logs.this_process()
    if sentence := locks.enter():
        print(sentence, file=sys.stderr)
    files.refuse_unwritable([*WRITTEN, "logs"])
    files.remove_leftovers(WRITTEN)


try:
    lay_down_archive()
    config, LEFT_OUT, LEFT_OUT_STUDIES = complete_configuration()
    RUN = config["run"]
    DATASETS = sorted(configuration.datasets_of(config))
    enter_run()
    write_fingerprints()
    write_settings()
    ARCHIVED = archived()
except (ValueError, OSError) as error:
    logs.report(str(error))
    raise WorkflowError(str(error)) from None
for reason in LEFT_OUT.values():
    print(f"left out: {reason}", file=sys.stderr)


wildcard_constraints:
    run=RUN,
    study="[a-z0-9_]+",
    dataset="[a-z0-9_]+",
    figure="[a-z0-9_]+",
    block=r"[a-z0-9-]+",
