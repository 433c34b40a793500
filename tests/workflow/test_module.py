"""The workflow as a module of another workflow, which runs in its own folder."""

import re
import shutil
import socket
import subprocess
import sys

import pytest
import xarray as xr

from made_up.projects import BLOCK, ROOT, STUDY, clean_environment, write_dataset

pytestmark = pytest.mark.slow

MODULE = f"""module goldilocks:
    snakefile: "{ROOT}/workflow/Snakefile"
"""
USE = "use rule * from goldilocks\n"
TINY = ["--configfile", str(ROOT / "config/tiny.yaml")]
RESULTS = ["figures/tiny/loss.pdf", "results/tiny/report/figure.rst"]


def snakemake(folder, *arguments, **variables):
    command = [sys.executable, "-m", "snakemake", "--cores", "2", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=clean_environment(**variables))


def jobs(done):
    """Names of the rules whose jobs a dry run lists, except for records; `done` is its completed process."""
    assert done.returncode == 0, done.stdout + done.stderr
    table = re.search(r"Job stats:\n.*?\n-[- ]+\n(.*?)\ntotal", done.stdout + done.stderr, re.DOTALL)[1]
    return {line.split()[0] for line in table.splitlines()} - {"record", "goldilocks_record"}


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """A folder in which a two-line workflow has built a figure and the captions, from made-up images."""
    folder = tmp_path_factory.mktemp("imported")
    (folder / "Snakefile").write_text(MODULE + USE)
    write_dataset(folder, ROOT)
    done = snakemake(folder, *RESULTS, *TINY)
    assert done.returncode == 0, done.stderr
    return folder


def test_results_appear_in_the_folder_of_the_workflow_that_imports_ours(imported):
    for path in (*RESULTS, STUDY, BLOCK, "results/tiny/claims.csv", "logs/tiny/figures/loss.log"):
        assert (imported / path).stat().st_size > 0
    assert xr.load_dataset(imported / BLOCK).attrs["commit"] != "unknown"
    # The run was entered: it locked the folder, and kept the dataset a second time.
    assert (imported / ".goldilocks.lock").exists() and (imported / "results/data/verified/mnist.nc").exists()
    again = snakemake(imported, *RESULTS, *TINY)
    assert again.returncode == 0 and "Nothing to be done" in again.stdout + again.stderr


def test_all_is_what_an_importing_workflow_makes_without_a_target(imported):
    assert jobs(snakemake(imported, "-n", *TINY)) == {"figure", "paper", "publish", "all"}


def test_imported_rules_can_have_other_names(imported):
    (imported / "renamed.smk").write_text(MODULE + USE.replace("\n", " as goldilocks_*\n"))
    renamed = {"goldilocks_figure", "goldilocks_paper", "goldilocks_publish", "goldilocks_all"}
    assert jobs(snakemake(imported, "-n", "-s", "renamed.smk", *TINY)) == renamed


def test_the_configuration_of_the_importing_workflow_is_laid_over_ours(imported):
    (imported / "mine.yaml").write_text((ROOT / "config/tiny.yaml").read_text().replace("model_kappa", "loss"))
    given = 'configfile: "mine.yaml"\n' + MODULE + "    config: config\n" + USE
    (imported / "configured.smk").write_text(given)
    done = snakemake(imported, "-n", "-s", "configured.smk")
    assert "figures/tiny/trace_over_norm.pdf" in done.stdout and "figures/tiny/loss.pdf" not in done.stdout


def hosted(project):
    """Make a folder a repository with the tag v1; return variables by which git finds it in place of the host's."""
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "All"], ["tag", "v1"]):
        subprocess.run(["git", *command], cwd=project, check=True)
    instead = {"KEY": f"url.{project}.insteadOf", "VALUE": "https://github.com/somebody/goldilocks"}
    return {"GIT_CONFIG_COUNT": "1", **{f"GIT_CONFIG_{name}_0": value for name, value in instead.items()}}


def test_a_repositorys_host_can_be_named_in_place_of_a_checkout(tmp_path, imported):
    """The workflow catalogue deploys workflows in this way."""
    for name in ("config", "envs", "paper", "resources", "scripts", "workflow"):
        shutil.copytree(ROOT / name, tmp_path / "theirs" / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "requirements.txt", tmp_path / "theirs")
    variables = hosted(tmp_path / "theirs") | {"XDG_CACHE_HOME": str(tmp_path / "cache"), "GITHUB_TOKEN": ""}
    folder = tmp_path / "project"
    shutil.copytree(imported / "results/data", folder / "results/data")
    source = 'github("somebody/goldilocks", path="workflow/Snakefile", tag="v1")'
    (folder / "Snakefile").write_text(f"module goldilocks:\n    snakefile: {source}\n{USE}")
    # As the profile of this repository has it: to Snakemake the code of made-up images is unknown.
    triggers = ["--rerun-triggers", "mtime", "params", "input", "software-env"]
    done = snakemake(folder, BLOCK, *triggers, *TINY, **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    block, expected = (xr.load_dataset(each / BLOCK) for each in (folder, imported))
    assert block.equals(expected) and block.attrs["code_fingerprint"] == expected.attrs["code_fingerprint"]
    commit = subprocess.run(["git", "rev-parse", "v1"], cwd=tmp_path / "theirs", capture_output=True, text=True)
    assert block.attrs["commit"] == commit.stdout[:12]


HANDLERS = """onstart:
    {}print("their start")

onerror:
    {}print("their error")

"""
BEFORE = HANDLERS.format("", "") + MODULE + USE
AFTER = MODULE + USE + "\n" + HANDLERS.format("goldilocks.onstart(); ", "goldilocks.onerror(); ")


@pytest.mark.parametrize("workflow", [BEFORE, AFTER], ids=["before the import", "after it, which call ours"])
def test_our_handlers_and_those_of_the_importing_workflow_both_run(workflow, imported):
    bad = "rule bad:\n    output: 'bad'\n    shell: 'exit 1'\n"
    (imported / "handled.smk").write_text(workflow + bad)
    (imported / ".goldilocks.lock").unlink()
    leftover = imported / f"results/.loss.nc.{socket.gethostname().split('.')[0]}-999999999-{'0' * 32}"
    leftover.touch()
    done = snakemake(imported, "bad", "-s", "handled.smk", *TINY)
    assert done.returncode == 1 and "their start" in done.stdout and "their error" in done.stdout
    assert (imported / ".goldilocks.lock").exists() and not leftover.exists()


def test_a_mistake_in_the_configuration_is_one_sentence_there_too(imported):
    done = snakemake(imported, "-n", *TINY, "--config", "seeed=1")
    assert done.returncode == 1 and "Traceback" not in done.stdout + done.stderr
    assert "seeed: this key is unknown; did you mean seed?" in done.stdout + done.stderr


def test_the_snakefile_runs_from_elsewhere_too(imported):
    done = snakemake(imported, "-n", "-s", str(ROOT / "workflow/Snakefile"), *TINY)
    assert jobs(done) == {"figure", "paper", "publish", "all"}


def test_rules_without_their_package_are_refused(tmp_path):
    shutil.copytree(ROOT / "workflow", tmp_path / "workflow")
    done = snakemake(tmp_path, "-n")
    assert done.returncode == 1
    assert "clone the repository and give the path of its workflow/Snakefile" in done.stdout + done.stderr
