"""`make status` and `make figure` for a run that leaves a dataset out: they leave out the same as the run."""

from pathlib import Path

import pytest
import yaml

from goldilocks_zone.cli import figure, status
from goldilocks_zone.config import load, studies

ROOT = Path(__file__).parents[3]
REASON = "dataset cifar10 is unavailable (no mirror): put it into a folder"


@pytest.fixture
def quick(tmp_path, monkeypatch):
    """Two configurations of the quick run: the complete one, and that which leaves out CIFAR-10.

    All results of the latter exist, as empty files.
    """
    monkeypatch.chdir(tmp_path)
    complete = load.load([ROOT / "config/quick.yaml"])
    record = Path("results/data/available.yaml")
    record.parent.mkdir(parents=True)
    record.write_text(yaml.safe_dump({"cifar10": {"available": False, "reason": REASON}, "mnist": {"available": True}}))
    config, *_ = load.as_run(complete)
    made = [f"results/quick/{path}" for study in config.studies for path in studies.block_paths(config, study)]
    made += [f"figures/quick/{figure}.pdf" for figure in config.figures]
    for path in map(Path, made):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return complete, config


def test_a_finished_run_misses_nothing(quick):
    complete, config = quick
    lines = status.status_of(complete).splitlines()
    blocks = sum(len(studies.block_paths(config, study)) for study in config.studies)
    assert f"run quick: blocks {blocks} done; no run is at work in this folder" in lines
    assert not [line for line in lines if "missing" in line]
    # CIFAR-10's own study goes, and with it what it alone is drawn for.
    assert "cifar10: left out, for lack of cifar10" in lines and f"left out: {REASON}" in lines
    (figures,) = [line for line in lines if line.startswith("figures: ")]
    assert figures.startswith(f"figures: {len(config.figures)} of {len(config.figures)} drawn; left out: ")
    assert set(figures.split("left out: ")[1].split(", ")) == set(complete.figures) - set(config.figures)


def test_a_figure_that_is_left_out_is_refused_with_the_reason(quick):
    complete, config = quick
    left_out = next(name for name in complete.figures if name not in config.figures)
    with pytest.raises(ValueError, match=rf"leaves out the figure {left_out}: dataset cifar10 is unavailable"):
        figure.path_of_figure(left_out, complete)
    assert figure.path_of_figure("loss", complete) == "figures/quick/loss.pdf"


def test_where_nothing_is_recorded_nothing_is_left_out(quick, monkeypatch):
    complete, _ = quick
    monkeypatch.setattr(load, "AVAILABLE", Path("nowhere.yaml"))
    assert load.as_run(complete) == (complete, {}, {})
    assert load.as_run(complete.model_copy(update={"missing_datasets": "fail"})) == (
        complete.model_copy(update={"missing_datasets": "fail"}),
        {},
        {},
    )
