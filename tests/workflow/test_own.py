"""A user's own dataset and network: exactly as in the README, in a separate run and along with existing ones."""

import os
import re
import shutil
import subprocess
import sys

import pytest
import xarray as xr
from pypdf import PdfReader

from goldilocks_zone.config import records as config_records
from goldilocks_zone.data import official, official_shapes
from goldilocks_zone.models import user_code
from goldilocks_zone.provenance import records
from made_up.projects import ROOT, Project, clean_environment

pytestmark = pytest.mark.slow
FIGURES, FIGURES_OF_MINE = 4, 5
MINE = "config/mine.yaml"


def blocks(language, heading="Your own data and network"):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text[text.index(f"## {heading}") :].split("\n## ")[0]
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    return [body for kind, body in fenced if kind == language]


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """Project in which the section of the README on a user's own data and network has been followed exactly.

    Its command has been run too.
    """
    project = Project.create(tmp_path_factory.mktemp("own"))
    program, network = blocks("python")
    subprocess.run([sys.executable, "-c", program], cwd=project.folder, check=True)
    for content in (network, *blocks("yaml")):
        name = re.match(r"# (config/\S+)\n", content)[1]
        (project.folder / name).write_text(content)
    (command,) = blocks("")
    assert command.strip() == f".venv/bin/snakemake --cores all --configfile {MINE}"
    done = subprocess.run(
        command, shell=True, cwd=project.folder, capture_output=True, text=True, env=clean_environment()
    )
    assert done.returncode == 0, done.stderr
    return project


@pytest.fixture
def changed(mine, tmp_path):
    return mine.copy(tmp_path / "project")


def test_figures_and_paper_include_them(mine):
    with xr.open_dataset(mine.folder / "results/mine/figures/fraction_positive.nc") as data:
        assert data["dataset"].values.tolist() == ["stripes"]
        assert data["network"].values.tolist() == ["fc-20x2-relu", "small_cnn"]
        assert bool((data["mean"].sel(network="small_cnn") > 0.5).any())
    text = " ".join(page.extract_text() for page in PdfReader(mine.folder / "paper/paper.pdf").pages)
    text = " ".join(text.split())
    assert "made up; public domain" in text and "700 + 200" in text and "small_cnn" in text
    with xr.open_dataset(mine.folder / "results/data/stripes.nc") as data:
        assert data.attrs["licence"] == "made up; public domain"


def test_a_figure_of_ones_own_stands_in_the_papers_appendix_and_in_the_report(changed):
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "figures/README.md").read_text(), re.DOTALL)
    (changed.folder / "my_figure.py").write_text(example)
    with open(changed.folder / MINE, "a") as file:
        file.write("figures:\n  losses: {file: my_figure.py, studies: [curvature]}\n")
    paper = {"numbers": 1, "captions": 1, "paper": 1, "publish": 1}
    assert changed.dry_run("all", config=MINE) == {"figure": 1, **paper}
    done = changed.snakemake("all", config=MINE)
    assert done.returncode == 0, done.stderr
    text = " ".join(page.extract_text() for page in PdfReader(changed.folder / "paper/paper.pdf").pages)
    assert "Mean loss of every network over the radius" in " ".join(text.split())
    captions = (changed.folder / "results/mine/report/figure.rst").read_text()
    assert '"losses": "Mean loss of every network over the radius.' in captions


def test_a_second_run_has_nothing_to_do(mine):
    assert mine.dry_run("all", config=MINE) == {}


def test_an_edit_of_the_network_measures_it_again_and_a_comment_does_not(changed):
    changed.edit("config/small_cnn.py", "nn.ReLU(),", "nn.ReLU(),  # kinks")
    assert changed.dry_run("all", config=MINE) == {}
    changed.edit("config/small_cnn.py", "nn.ReLU(),", "nn.Tanh(),")
    jobs = changed.dry_run("all", config=MINE)
    paper = {"claims": 1, "agreement": 1, "numbers": 1, "captions": 1, "paper": 1, "publish": 1}
    assert jobs == {"curvature": 1, "aggregate": 1, "figure": FIGURES_OF_MINE, **paper}


def test_other_arguments_measure_the_network_again_and_another_place_of_its_file_does_not(changed):
    (changed.folder / "config/small_cnn.py").rename(changed.folder / "networks.py")
    changed.edit(MINE, "config/small_cnn.py", "networks.py")
    assert changed.dry_run("all", config=MINE) == {}
    changed.edit(MINE, "filters: 3", "filters: 2")
    assert changed.dry_run("all", config=MINE)["curvature"] == 1


def test_other_images_measure_the_dataset_again_and_another_licence_the_paper_alone(changed):
    changed.edit(MINE, "public domain", "CC0")
    assert changed.dry_run("all", config=MINE) == {"numbers": 1, "captions": 1, "paper": 1, "publish": 1}
    with open(changed.folder / "stripes.npz", "ab") as file:
        file.write(b"\0")
    jobs = changed.dry_run("all", config=MINE)
    assert jobs["own_dataset"] == 1 and jobs["curvature"] == 2


def test_files_that_were_touched_or_moved_rerun_nothing(changed):
    os.utime(changed.folder / "stripes.npz")
    assert changed.dry_run("all", config=MINE) == {}
    (changed.folder / "stripes.npz").rename(changed.folder / "moved.npz")
    changed.edit(MINE, "path: stripes.npz", "path: moved.npz")
    assert changed.dry_run("all", config=MINE) == {}


def without_network(project):
    """Edit a project so that its made-up images pass for the official ones, and no source can be reached."""
    with xr.open_dataset(project.folder / "results/data/mnist.nc") as data:
        project.edit(
            "scripts/goldilocks_zone/data/official_shapes.py",
            official_shapes.CHECKSUMS["mnist"],
            data.attrs["checksum"],
        )
    mirrors = official.SOURCES["mnist"].mirrors
    project.edit("scripts/goldilocks_zone/data/official.py", f"mirrors={mirrors!r}".replace("'", '"'), "mirrors=()")
    project.edit("scripts/goldilocks_zone/data/official.py", '"-m", "pip", "download"', '"-m", "no_such_module"')


@pytest.mark.parametrize("how", ["forced", "copied without ages"])
def test_good_data_are_not_lost_without_network(how, project, tmp_path):
    """Snakemake deletes them before the attempt to fetch them again."""
    without_network(project)
    if how != "forced":
        shutil.rmtree(project.folder / ".snakemake")
        shutil.copytree(project.folder, tmp_path / "copy", symlinks=True, copy_function=shutil.copy)
        project = Project(tmp_path / "copy")
        # Older than the code, as chance would have it.
        os.utime(project.folder / "results/data/mnist.nc", (1, 1))
    path = project.folder / "results/data/mnist.nc"
    expected = path.read_bytes()
    done = project.snakemake(*["--forceall"][: how == "forced"], "results/data/mnist.nc")
    assert done.returncode == 0 and "Fetching mnist" in done.stderr and path.read_bytes() == expected, done.stderr
    assert "taken from results/data/verified" in (project.folder / "logs/data/mnist.log").read_text()
    assert path.samefile(project.folder / "results/data/verified/mnist.nc")


def test_stale_blocks_of_a_network_are_refused(changed):
    changed.edit("config/small_cnn.py", "nn.ReLU(),", "nn.Tanh(),")
    # What was touched passes for what its records say.
    place = changed.folder / "results/mine/settings/network-small_cnn.yaml"
    (record,) = records.versions(place)
    known = user_code.recorded(record, str(changed.folder / "config/small_cnn.py"))
    found = user_code.describe(known.file, known.name, known.arguments)
    records.write(place, config_records.dump(found.record("small_cnn")))
    changed.snakemake("--touch", "all", config=MINE)
    (changed.folder / "results/mine/aggregate/curvature.nc").unlink()
    done = changed.snakemake("results/mine/aggregate/curvature.nc", config=MINE)
    assert done.returncode != 0 and "was made by another version of its network" in done.stderr


def test_beside_what_there_is_nothing_else_reruns(built, mine, tmp_path):
    project = built.copy(tmp_path / "project")
    for name in ("stripes.npz", "config/small_cnn.py"):
        (project.folder / name).write_bytes((mine.folder / name).read_bytes())
    sections = re.search(r"datasets:\n.*?(?=studies:)", blocks("yaml")[0], re.DOTALL)[0]
    project.edit("config/tiny.yaml", "studies:", f"{sections}studies:")
    project.edit(
        "config/tiny.yaml",
        "networks: [fc-10x2-relu]",
        "networks: [fc-10x2-relu, small_cnn]\n    datasets: [mnist, stripes]",
    )
    jobs = project.dry_run()
    assert jobs == {"own_dataset": 1, "curvature": 3, "aggregate": 1, "claims": 1, "figure": FIGURES}


@pytest.mark.parametrize(
    "edit, sentence",
    [
        (
            ("filters: 3", "filters: -1"),
            "network small_cnn (SmallCNN in config/small_cnn.py) cannot be built for images",
        ),
        (
            ("plane-50-sparse", "plane-5000-sparse"),
            "studies.curvature.subspaces.0: 5000 dimensions are impossible; fc-",
        ),
        (
            ("[stripes]", "[strips]"),
            "studies.curvature.datasets.0: the dataset 'strips' is unknown; did you mean stripes?",
        ),
        (("name: SmallCNN", "name: SmalCNN"), "networks.small_cnn: config/small_cnn.py defines no class or function"),
    ],
)
def test_mistakes_are_said_in_one_sentence_and_nothing_is_written(edit, sentence, changed):
    shutil.rmtree(changed.folder / "results/mine/curvature")
    (changed.folder / "results/mine/aggregate/curvature.nc").unlink()
    changed.edit(MINE, *edit)
    done = changed.snakemake("results/mine/aggregate/curvature.nc", config=MINE)
    assert done.returncode != 0
    assert len([line for line in done.stderr.splitlines() if line.startswith(sentence)]) == 1, done.stderr
    assert not list(changed.folder.glob("results/mine/curvature/*/stripes/small_cnn/**/*.nc"))


def test_data_that_were_read_serve_on_when_their_files_are_gone(changed):
    """Snakemake deletes them before the job starts; without the kept copies, the source files would be needed."""
    (changed.folder / "stripes.npz").unlink()
    assert changed.dry_run("all", config=MINE) == {}
    path = changed.folder / "results/data/stripes.nc"
    expected = path.read_bytes()
    changed.edit("scripts/goldilocks_zone/data/user_datasets.py", "DARK = 32", "DARK = 31")
    done = changed.snakemake("results/data/stripes.nc", config=MINE)
    assert done.returncode == 0 and path.read_bytes() == expected
    log = (changed.folder / "logs/data/stripes.log").read_text()
    assert "there is nothing at stripes.npz: the copy that was read from it before is used" in log
    shutil.rmtree(changed.folder / "results/data/verified")
    path.unlink()
    done = changed.snakemake("results/data/stripes.nc", config=MINE)
    sentence = "dataset stripes is unavailable: there is nothing at stripes.npz; put it there, or name its place under"
    assert (
        done.returncode != 0 and sentence in done.stderr and not (changed.folder / "results/data/stripes.nc").exists()
    )
