"""A run, as it is loaded with the workflow."""

import base64
import gzip
from pathlib import Path

import pytest

from goldilocks_zone.config import load, run
from goldilocks_zone.config import records as config_records
from goldilocks_zone.provenance import records

ROOT = Path(__file__).parents[3]


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """The run `tiny` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return run.load_run(load.read([*load.shipped(), ROOT / "config/tiny.yaml"]), ROOT)


def test_making_a_run_writes_nothing(tiny):
    assert tiny.name == "tiny" and not list(Path().iterdir())


def test_a_run_promises_its_blocks_aggregates_figures_and_paper(tiny):
    promised = tiny.promised()
    assert len(set(promised)) == len(promised)
    assert set(tiny.blocks_of("curvature")) < set(promised)
    assert {"results/tiny/aggregate/curvature.nc", "results/tiny/claims.csv", "paper/paper.pdf"} < set(promised)
    assert {f"figures/tiny/{figure}.png" for figure in tiny.config.figures} < set(promised)
    assert tiny.shown_by("loss") == ["results/tiny/aggregate/curvature.nc"]


def test_a_record_is_named_by_its_text_and_unpacks_to_it(tiny):
    for place, beginning in (
        ("settings/study-curvature.yaml", "results/tiny/"),
        ("data/fingerprints/dataset.txt", "results/"),
    ):
        path = tiny.path_of(place)
        text = gzip.decompress(base64.b64decode(tiny.packed(path))).decode()
        assert path.startswith(beginning) and path == str(records.path_of(f"{beginning}{place}", text))
        assert records.place_of(path) == Path(beginning, place)


def test_a_job_takes_the_record_that_its_run_has_written(tiny):
    place = "settings/claims.yaml"
    with pytest.raises(ValueError, match="the run that started this job did not leave exactly one such record: start"):
        tiny.path_of(place, started=True)
    written = records.write(f"results/tiny/{place}", "another text")
    assert tiny.path_of(place, started=True) == str(written) != tiny.path_of(place)


def test_an_archive_of_another_type_than_text_is_refused_with_the_configuration(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = load.read(load.shipped()) | {"results_from": 3}
    with pytest.raises(ValueError, match="results_from: 3 has the wrong type"):
        run.load_run(given, ROOT)


@pytest.mark.parametrize("missing, cuts_are_lacking", [("mnist", True), ("cifar10", False)])
def test_cuts_lack_a_dataset_only_if_theirs_is_missing(tmp_path, monkeypatch, missing, cuts_are_lacking):
    monkeypatch.chdir(tmp_path)
    load.AVAILABLE.parent.mkdir(parents=True)
    names = ("mnist", "fashion_mnist", "cifar10")
    available = {name: {"available": name != missing, "reason": "no mirror"} for name in names}
    load.AVAILABLE.write_text(config_records.dump(available))
    for change in ({}, {"cuts": None, "figures": {"cuts": None}}):
        loaded = run.load_run(load.read(load.shipped()) | {"missing_datasets": "leave_out"} | change, ROOT)
        paper = config_records.parse(loaded.texts[Path("results/full/settings/paper.yaml")])
        assert missing in loaded.left_out
        assert ("cuts" in paper["lacking"]) == (cuts_are_lacking and not change)
