"""An archive of the run `tiny`, and a reviewer's project without data or torch."""

import io
import json
import shutil
import subprocess
import tarfile
import time

import pytest
import xarray as xr
import yaml

from goldilocks_zone.provenance import archive as provenance_archive
from made_up.projects import RESULTS, STUDY, clean_environment

CONFIG = "CONFIG=config/tiny.yaml"
NO_TORCH = "raise ImportError('this project has no torch')\n"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def author(built, tmp_path_factory):
    """Copy of the built project in which `make archive` has packed the results."""
    project = built.copy(tmp_path_factory.mktemp("archive") / "author")
    done = project.make("archive", CONFIG)
    assert done.returncode == 0, done.stderr
    return project


@pytest.fixture
def reviewer(author, tmp_path):
    """Copy of the author's project without data and results, but with the archive, as a reviewer has it.

    There, torch cannot be imported.
    """
    project = author.copy(tmp_path / "reviewer")
    for name in ("results", "figures", "logs", ".snakemake"):
        shutil.rmtree(project.folder / name)
    shutil.copy(archive_of(author), project.folder / "tiny.tar.gz")
    (project.folder / "review.yaml").write_text(yaml.safe_dump({"results_from": "tiny.tar.gz"}))
    (project.folder / "no_torch").mkdir()
    (project.folder / "no_torch/torch.py").write_text(NO_TORCH)
    return project


def archive_of(project):
    return project.folder / "results/tiny/tiny.tar.gz"


def run(project, *targets):
    command = [*project.command(*targets), "review.yaml"]
    environment = clean_environment(PYTHONPATH=str(project.folder / "no_torch"))
    return subprocess.run(command, cwd=project.folder, capture_output=True, text=True, env=environment)


def changed(path, change):
    """Rewrite the archive at `path` after calling `change` on the dictionary of its members' contents."""
    with tarfile.open(path) as archive:
        members = {member.name: archive.extractfile(member).read() for member in archive}
    change(members)
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def test_an_archive_lists_what_it_holds(author):
    path = archive_of(author)
    manifest = provenance_archive.read_manifest(path)
    assert path.stat().st_size < provenance_archive.LIMIT_MB * 10**6 and manifest["run"] == "tiny"
    files = manifest["files"]
    assert {"claims.csv", "paper.pdf", "figures/loss.nc", "figures/loss.pdf", "aggregate/curvature.nc"} <= set(files)
    with tarfile.open(path) as archive:
        crate = json.loads(archive.extractfile(provenance_archive.CRATE).read())
    listed = {entry["@id"]: entry["sha256"] for entry in crate["@graph"] if entry["@type"] == "File"}
    assert listed == files
    root = next(entry for entry in crate["@graph"] if entry["@id"] == "./")
    assert {part["@id"] for part in root["hasPart"]} == set(files)
    before = path.read_bytes()
    assert author.make("archive", CONFIG).returncode == 0 and path.read_bytes() == before


def test_figures_and_paper_are_rebuilt_without_data_and_torch(author, reviewer):
    start = time.monotonic()
    done = run(reviewer)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - start < 120
    assert "Verifying and unpacking results" in done.stderr and "Measuring curvature" not in done.stderr
    assert (reviewer.folder / "paper/paper.pdf").exists() and not (reviewer.folder / "results/data/mnist.nc").exists()
    found, expected = (xr.load_dataset(project.folder / STUDY) for project in (reviewer, author))
    assert found.drop_attrs().equals(expected.drop_attrs())
    claims = [(project.folder / "results/claims.csv").read_text() for project in (reviewer, author)]
    assert claims[0] == claims[1]
    assert "Nothing to be done" in run(reviewer).stderr


def test_a_file_that_was_changed_is_refused_by_name(reviewer):
    def change(members):
        name = next(name for name in members if name.startswith("curvature/"))
        members[name] = members[name][:-1] + bytes([members[name][-1] ^ 1])

    changed(reviewer.folder / "tiny.tar.gz", change)
    done = run(reviewer, *RESULTS)
    assert done.returncode != 0
    assert "draws-000-001.nc in tiny.tar.gz does not match its checksum: fetch the archive again" in done.stderr
    assert not (reviewer.folder / "results/tiny/curvature").exists()


@pytest.mark.parametrize("cut", [0, 100, 5000])
def test_an_archive_that_is_cut_off_is_refused_in_one_sentence(reviewer, cut):
    path = reviewer.folder / "tiny.tar.gz"
    path.write_bytes(path.read_bytes()[:cut])
    done = run(reviewer, *RESULTS)
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert "results_from: tiny.tar.gz is" in done.stderr


def test_other_settings_and_other_code_are_refused_by_name(reviewer):
    reviewer.edit("config/tiny.yaml", "validation: 20", "validation: 30")
    done = run(reviewer, *RESULTS)
    assert (
        "tiny.tar.gz has curvature with other settings than the present: validation (20 there, 30 here)" in done.stderr
    )
    reviewer.edit("config/tiny.yaml", "validation: 30", "validation: 20")
    reviewer.edit(
        "scripts/goldilocks_zone/spectra/summaries.py", "import numpy as np", "import numpy as np\n\nCHANGED = 1"
    )
    done = run(reviewer, *RESULTS)
    assert (
        "tiny.tar.gz was made by other code of curvature than the present: take its code, of a commit not known"
        in done.stderr
    )


def test_a_network_that_was_added_is_all_that_is_computed(reviewer):
    reviewer.edit("config/tiny.yaml", "[fc-10x2-relu]", "[fc-10x2-relu, fc-12x2-relu]")
    jobs = reviewer.dry_run(*RESULTS, config=["config/tiny.yaml", "review.yaml"])
    assert jobs["unpack"] == 1 and jobs["curvature"] == 1


def test_names_that_lead_elsewhere_are_never_written(reviewer):
    def change(members):
        manifest = json.loads(members[provenance_archive.MANIFEST])
        manifest["files"]["../../evil.nc"] = manifest["files"]["claims.csv"]
        members[provenance_archive.MANIFEST] = json.dumps(manifest).encode()
        members["../../evil.nc"] = members["claims.csv"]

    changed(reviewer.folder / "tiny.tar.gz", change)
    assert run(reviewer, *RESULTS).returncode == 0
    assert not list(reviewer.folder.parent.rglob("evil.nc"))


def test_an_own_dataset_that_the_reviewer_does_not_have_is_known_from_the_archive(reviewer):
    """Its card suffices: the author had the dataset in a folder that no configuration names."""

    def change(members):
        manifest = json.loads(members[provenance_archive.MANIFEST])
        for name in [name for name in members if "/mnist" in name]:
            other = name.replace("/mnist", "/shapes")
            members[other], manifest["files"][other] = members[name], manifest["files"][name]
        members[provenance_archive.MANIFEST] = json.dumps(manifest).encode()

    changed(reviewer.folder / "tiny.tar.gz", change)
    reviewer.edit(
        "config/tiny.yaml", "networks: [fc-10x2-relu]", "networks: [fc-10x2-relu]\n    datasets: [mnist, shapes]"
    )
    jobs = reviewer.dry_run(*RESULTS, config=["config/tiny.yaml", "review.yaml"])
    assert jobs["unpack"] == 1 and "curvature" not in jobs and "own_dataset" not in jobs
