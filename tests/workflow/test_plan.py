"""`make plan` and `make status` on the run `tiny`: their output before a run, after it, and after changes."""

import fcntl
import os
import re
import shutil

import pytest

from made_up.projects import BLOCK, STUDY

CONFIG = "CONFIG=config/tiny.yaml"
pytestmark = pytest.mark.slow


def said(project, command, *more):
    done = project.make(command, CONFIG, *more)
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows(plan):
    """Parse the table that `make plan` prints: (number of jobs, time, memory, reasons) by rule and study.

    A key is the rule, followed by a space and the study for blocks.
    """
    found = {}
    for line in plan.split("\n\n")[0].splitlines()[1:]:
        rule, *study, jobs, time, memory, why = re.split(r"  +", line.strip())
        found[" ".join([rule, *study])] = (int(jobs), time, memory, why)
    return found


def test_a_plan_says_what_runs_and_why(project):
    # Of a project that is built up to claims and figures, the paper is left.
    plan = said(project, "plan", "CORES=2")
    assert set(rows(plan)) == {"agreement", "numbers", "captions", "paper", "publish"}
    assert re.search(r"^run tiny: 5 jobs, about \d+ s on 2 cores", plan, re.MULTILINE)
    shutil.rmtree(project.folder / "results/tiny/curvature")
    (project.folder / STUDY).unlink()
    for log in (project.folder / "logs/tiny").rglob("*.benchmark.tsv"):
        log.write_text("s\th:m:s\tmax_rss\n600.0\t0:10:00\t3000.0\n")
    plan = said(project, "plan", "CORES=2")
    found = rows(plan)
    assert found["curvature curvature"] == (1, "10 min", "2.9 GiB", "not made yet")
    assert found["aggregate"][3] == "not made yet" and found["figure"] == (4, "40 min", "2.9 GiB", "input is made anew")
    assert "the longest job 10 min" in plan and "largest job: 2.9 GiB" in plan and "from the same job" in plan


def test_a_run_says_how_long_it_will_take(project):
    """Expects the times of earlier jobs, corrected by the jobs done."""
    (project.folder / STUDY).unlink()
    for log in (project.folder / "logs/tiny").rglob("*.benchmark.tsv"):
        log.write_text("s\th:m:s\tmax_rss\n600.0\t0:10:00\t3000.0\n")
    done = project.make("figure", "NAME=loss", CONFIG)
    assert done.returncode == 0, done.stderr
    left = re.findall(r"\d+ jobs? left, about \d+ \w+|all jobs are done", done.stderr)
    # The first of two jobs took a few seconds of 600 s: (1200 - 600) (1 + 120) / (600 + 120) / 2 cores.
    assert re.fullmatch("1 job left, about 5[0-9] s", left[0]) and left[1:] == ["all jobs are done"], done.stderr


def test_a_plan_names_what_was_changed(project):
    project.edit("config/tiny.yaml", "draws: 2", "draws: 3")
    found = rows(said(project, "plan"))
    assert found["curvature curvature"][3] == "not made yet"
    project.edit("config/tiny.yaml", "draws: 3", "draws: 2")
    project.edit(
        "scripts/goldilocks_zone/figures/goldilocks.mplstyle", "lines.linewidth", "lines.markersize: 3\nlines.linewidth"
    )
    found = rows(said(project, "plan"))
    assert found["figure"][0] == 4 and found["figure"][3] == "input is newer" and "curvature curvature" not in found


def test_a_plan_of_a_mistake_is_one_sentence(project):
    project.edit("config/tiny.yaml", "draws: 2", "draws: two")
    done = project.make("plan", CONFIG)
    assert done.returncode != 0 and "studies.curvature.draws: 'two' has the wrong type" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_the_status_of_blocks(project):
    text = said(project, "status")
    assert "curvature: 1 done, aggregated" in text and "figures: 4 of 4 drawn" in text
    assert "run tiny: blocks 1 done; no run is at work in this folder" in text
    project.edit("config/tiny.yaml", "draws_per_job: all", "draws_per_job: 1")
    (project.folder / BLOCK).with_name("draws-000-000.nc").touch()
    log = (project.folder / "logs" / BLOCK.removeprefix("results/")).with_name("draws-001-001.log")
    log.write_text("2026-01-01 00:00:00,000 FAILED the disk is full\n")
    text = said(project, "status")
    assert "curvature: 1 done, 1 failed" in text and re.search(r"mnist fc-10x2-relu +1 done, 1 failed", text)
    log.write_text("2026-01-01 00:00:00,000 starts\n")
    assert "curvature: 1 done, 1 missing" in said(project, "status")
    handle = os.open(project.folder / ".goldilocks.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(handle, fcntl.LOCK_EX)
    text = said(project, "status")
    os.close(handle)
    assert "curvature: 1 done, 1 running" in text and "a run is at work in this folder" in text


def test_a_run_says_how_far_it_is(project):
    done = project.make("figure", "NAME=loss", CONFIG)
    assert done.returncode == 0 and "all jobs are done" in done.stderr
