"""The key `weights` of curvature studies: files by their content, labels, axes, and one-sentence error messages."""

import json

import pytest

from goldilocks_zone.config import load, records, run, studies
from goldilocks_zone.config.weights import labels_of
from goldilocks_zone.provenance import fingerprints
from goldilocks_zone.storage.files import sha256

STUDY = "studies.curvature"


@pytest.fixture
def files(tmp_path):
    """Two files with arbitrary content."""
    paths = [tmp_path / "epoch_1.pt", tmp_path / "epoch_10.safetensors"]
    for path in paths:
        path.write_text(path.name)
    return list(map(str, paths))


def configured(weights):
    given = load.read(load.shipped())
    given["only"] = ["curvature"]
    given["studies"]["curvature"]["weights"] = weights
    return load.complete(given)


@pytest.mark.parametrize(
    "given, expected",
    [
        (["runs/epoch_1.pt"], ["epoch_1"]),
        (["b.pt", "none", "a.safetensors"], ["b", "none", "a"]),
        (["early/model.pt", "none", "late/model.pt"], ["1", "none", "2"]),
        (["ä b.pt", "c.pt"], ["1", "2"]),
        (["none.pt", "none"], ["1", "none"]),
        (["step=100-loss+0.1.ckpt"], ["step=100-loss+0.1"]),
        (["none"], ["none"]),
    ],
)
def test_labels_are_names_where_these_tell_files_apart_and_else_numbers(given, expected):
    assert labels_of(given) == expected


def test_weights_are_an_axis_in_the_order_of_the_files(files):
    study = configured([files[1], "none", files[0]]).studies["curvature"]
    assert studies.varied(study) == {"weights": ["epoch_10", "none", "epoch_1"]}
    assert studies.variants(study) == [{"weights": label} for label in ("epoch_10", "none", "epoch_1")]
    chosen = study.at({"weights": "epoch_1"})
    assert [each.file for each in chosen.weights] == [files[0]] and studies.varied(chosen) == {"weights": ["epoch_1"]}
    assert configured(files[0]).studies["curvature"].variations == {"weights": ["epoch_1"]}
    without = load.load().studies["curvature"]
    assert without.weights is None and without.variations == without.vary
    assert without.at({"temperature": 3.0}).temperature == 3.0


def test_records_follow_the_content_of_files_and_their_names_but_not_their_place(files, tmp_path):
    study = configured(files).studies["curvature"]
    record = records.dump(records.of_measurement(study, 1))
    assert str(tmp_path) not in record
    (tmp_path / "settings.yaml").write_text(record)
    read = records.read_block(tmp_path / "settings.yaml", "mnist", "lenet5", "plane-100-sparse", "draws-000-001").study
    # Signed by the same settings as those of the configuration.
    assert records.of_measurement(read, 1) == records.of_measurement(study, 1)
    assert [each.fingerprint for each in read.weights] == [sha256("epoch_1.pt"), sha256("epoch_10.safetensors")]
    (tmp_path / "elsewhere").mkdir()
    moved = [str((tmp_path / name).rename(tmp_path / "elsewhere" / name)) for name in ("epoch_1.pt",)]
    assert records.dump(records.of_measurement(configured([*moved, files[1]]).studies["curvature"], 1)) == record
    with open(files[1], "a") as file:
        file.write("more")
    assert records.dump(records.of_measurement(configured([*moved, files[1]]).studies["curvature"], 1)) != record


def test_a_run_gives_jobs_the_files_and_records_what_is_in_them(files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = load.read(load.shipped()) | {"only": ["curvature", "isotropy"]}
    given["studies"]["curvature"]["weights"] = ["none", *files]
    found = run.load_run(given, load.ROOT)
    assert json.loads(found.files_of_weights("curvature")) == ["none", *files]
    assert found.files_of_weights("isotropy") == "[]"
    (text,) = (text for path, text in found.texts.items() if path.name == "study-curvature.yaml")
    assert sha256("epoch_1.pt") in text and str(tmp_path) not in text


@pytest.mark.parametrize(
    "given, words",
    [
        ("nowhere.pt", f"{STUDY}.weights: nowhere.pt cannot be read (No such file or directory); give the path of"),
        ([], f"{STUDY}.weights: the list is empty"),
        (3, f"{STUDY}.weights: 3 is no file; name a file of weights, or a list of files"),
        ([3], f"{STUDY}.weights: [3] is no file"),
        (["none", "none"], f"{STUDY}.weights: ['none', 'none'] contains a file twice"),
        ([{"file": "a.pt"}], f"{STUDY}.weights"),
    ],
)
def test_mistakes_are_said_in_one_sentence(given, words):
    with pytest.raises(load.ConfigurationError) as refusal:
        configured(given)
    assert words in str(refusal.value)


def test_the_content_of_a_file_is_read_again_when_its_age_or_size_changes_alone(tmp_path, monkeypatch):
    read, path = [], tmp_path / "a.pt"
    path.write_text("one")
    hash_of = fingerprints._content_hash
    monkeypatch.setattr(fingerprints, "_content_hash", lambda path: read.append(path) or hash_of(path))
    cache = fingerprints.Cache(None)
    monkeypatch.setattr(fingerprints, "_opened", lambda path: cache)
    assert [fingerprints.file_fingerprint(path) for _ in range(3)] == [sha256("one")] * 3 and len(read) == 1
    path.write_text("other")
    assert fingerprints.file_fingerprint(path) == sha256("other") and len(read) == 2
