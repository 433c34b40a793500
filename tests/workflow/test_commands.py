"""The everyday commands, on the run `tiny`."""

import csv
import subprocess

import numpy as np
import pytest
import xarray as xr

from goldilocks_zone.storage import netcdf
from made_up.projects import BLOCK, STUDY, clean_environment

pytestmark = pytest.mark.slow
TINY = "CONFIG=config/tiny.yaml"


def last_line(done):
    return done.stderr.strip().splitlines()[-1]


def test_one_figure_drawn_anew(project):
    others = {path: path.stat().st_mtime_ns for path in (project.folder / "results/tiny/figures").glob("*.nc")}
    done = project.make("figure", "NAME=loss", TINY)
    assert done.returncode == 0, done.stderr
    newer = [path.stem for path, age in others.items() if path.stat().st_mtime_ns > age]
    assert newer == ["loss"]


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["NAME=los"], "the run tiny has no figure 'los': did you mean NAME=loss?"),
        (
            [],
            "the run tiny has no figure '': use NAME= with one of fraction_positive, loss, trace_and_norm",
        ),
    ],
)
def test_a_figure_that_is_not_there(arguments, sentence, built):
    done = built.make("figure", TINY, *arguments)
    assert done.returncode != 0 and sentence in last_line(done)


def test_compare(project):
    """Compares with another tiny run, in which one number and one verdict differ."""
    other = project.folder / "results/other"
    (other / "aggregate").mkdir(parents=True)
    study = xr.load_dataset(project.folder / STUDY)
    study["overflowing"] = "draw", [np.inf, -np.inf]
    netcdf.write_dataset(study, project.folder / STUDY)
    claims = (project.folder / "results/tiny/claims.csv").read_text()
    (other / "claims.csv").write_text(claims)
    netcdf.write_dataset(study, other / "aggregate/curvature.nc")
    done = project.make("compare", "A=tiny", "B=results/other")
    assert done.returncode == 0 and "results/tiny and results/other agree within 1e-06" in done.stdout

    study["trace"][{"radius": 1, "draw": 0, "examples": 0}] *= 1 + 1e-4
    netcdf.write_dataset(study.sel(draw=[0]), other / "aggregate/curvature.nc")
    netcdf.write_dataset(study, other / "aggregate/more.nc")
    rows = list(csv.DictReader(claims.splitlines()))
    changed = next(row for row in rows if row["id"] == "fs1.band")
    (other / "claims.csv").write_text(claims.replace("fs1.band,band,", "fs1.bend,band,"))
    done = project.make("compare", "A=tiny", "B=other")
    assert done.returncode != 0
    lines = done.stdout.splitlines()
    assert "study more: only in results/other" in lines
    assert "study curvature: draw: 2 and 1 values; only the 1 in common are compared" in lines
    (trace,) = [line for line in lines if line.startswith("study curvature: trace: 2 of ")]
    assert "radius 1.0" in trace and "draw 0" in trace
    assert f"claim fs1.band: {changed['verdict']}, then not there" in lines
    assert last_line(done).endswith(
        f"results/tiny and results/other differ in {len(lines)} respects, listed above.  Stop."
    )
    done = project.make("compare", "A=tiny", "B=other", "TOLERANCE=1e-3")
    assert "trace:" not in done.stdout


def test_compare_with_a_run_that_is_not_there(built):
    done = built.make("compare", "A=tiny", "B=tinny")
    assert "results/tinny holds no claims.csv: name a run that has been built" in last_line(done)
    done = built.make("compare", "A=tiny")
    assert "make compare needs two runs: make compare A=quick B=full" in last_line(done)


def test_a_failure_is_one_wherever_temporary_files_lie(built, tmp_path):
    for folder in (tmp_path / "with a space", tmp_path / "nowhere"):
        if "space" in folder.name:
            folder.mkdir()
        command = ["make", "compare", "A=tiny", "B=tinny"]
        environment = clean_environment(TMPDIR=str(folder))
        done = subprocess.run(command, cwd=built.folder, capture_output=True, text=True, env=environment)
        assert done.returncode != 0 and "results/tinny holds no claims.csv" in done.stderr


def test_a_configuration_that_cannot_be_read(project):
    for content, sentence in [("", "holds no keys with values"), ("a: [1", "line 1: "), ("- a", "holds no keys")]:
        (project.folder / "config/bad.yaml").write_text(content)
        done = project.make("figure", "NAME=loss", "CONFIG=config/bad.yaml")
        assert "config/bad.yaml" in last_line(done) and sentence in last_line(done), last_line(done)
    done = project.make("figure", "NAME=loss", "CONFIG=config/nowhere.yaml")
    assert "config/nowhere.yaml cannot be read (No such file or directory)" in last_line(done)


def test_orphans(project):
    for name in ("quick", "paper_scale"):  # each configuration costs a summary by Snakemake
        (project.folder / f"config/{name}.yaml").unlink()
    done = project.make("orphans")
    assert done.returncode == 0 and done.stdout.strip() == "no orphans", done.stdout + done.stderr
    # A study with fewer draws, a run that no configuration has any more, a figure of another name.
    project.edit("config/tiny.yaml", "draws: 2", "draws: 1")
    old = project.folder / "results/old/aggregate/curvature.nc"
    figure = project.folder / "figures/tiny/edges.pdf"
    kept = project.folder / "results/data/verified/old.nc"
    for path in (old, figure, kept):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(1 << 20))
    done = project.make("orphans", "REMOVE=yes")
    lines = done.stdout.splitlines()
    assert any(line.startswith(BLOCK) for line in lines)
    assert "results/old/  1.0 MiB" in lines and "figures/tiny/edges.pdf  1.0 MiB" in lines
    assert lines[-1].startswith("4 orphans, ") and lines[-1].endswith("removed")
    assert not old.exists() and not figure.exists() and not kept.exists() and not (project.folder / BLOCK).exists()
    assert (project.folder / "results/data/mnist.nc").exists() and (project.folder / STUDY).exists()
    assert (project.folder / "results/data/verified/mnist.nc").exists()


def test_clean_keeps_the_data(project):
    done = project.make("clean", "RUN=tinny")
    assert "there is no run 'tinny': use the name of a folder in results/" in last_line(done)
    # Nothing but a run's own name can be removed.
    for name in (".", "..", "/tmp", "data", "tiny/", "../data"):
        done = project.make("clean", f"RUN={name}")
        assert done.returncode != 0 and "there is no run" in last_line(done)
    assert (project.folder / "results/tiny/claims.csv").exists()
    (project.folder / "results/other").mkdir()
    assert project.make("clean", "RUN=tiny").returncode == 0
    assert not (project.folder / "results/tiny").exists() and not (project.folder / "figures/tiny").exists()
    assert (project.folder / "results/other").exists()
    assert project.make("clean").returncode == 0
    left = {str(path.relative_to(project.folder)) for path in (project.folder / "results").rglob("*") if path.is_file()}
    assert "results/data/mnist.nc" in left and all(path.startswith("results/data/") for path in left)
    assert not (project.folder / ".snakemake").exists() and (project.folder / "config/tiny.yaml").exists()
    assert "there was nothing to remove" in project.make("clean").stdout
