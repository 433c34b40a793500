"""Pairs of views of digits from a dataset file."""

import numpy as np
import pytest

from goldilocks_zone.data import datasets, views
from goldilocks_zone.storage import netcdf


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    rng = np.random.default_rng(0)
    images = np.zeros((90, 1, 28, 28), np.uint8)
    images[:, :, 8:20, 8:20] = rng.integers(0, 256, (90, 1, 12, 12))
    labels = np.arange(90) % 3
    made = datasets.as_dataset("made", (images[:60], labels[:60]), (images[60:], labels[60:]), 3, "test", "none")
    path = tmp_path_factory.mktemp("views") / "made.nc"
    netcdf.write_dataset(made, path)
    return path


def test_images_are_training_images_without_those_held_out(path):
    found = views.images_of(path, "made", 12, seed=1)
    assert found.images.shape == (48, 14, 14) and found.classes == 3
    assert np.bincount(found.labels).tolist() == [16, 16, 16]
    assert abs(found.images.mean()) < 1e-5 and found.images.std() == pytest.approx(1, abs=1e-5)
    with pytest.raises(ValueError, match="leaves none of the 60 training images of made"):
        views.images_of(path, "made", 60, seed=1)


@pytest.mark.parametrize("name", views.VIEWS)
def test_pairs_are_two_views_of_one_image(path, name):
    images = views.images_of(path, "made", 12, seed=1)
    pairs = views.pairs(images, name, 200, seed=1, draw=3)
    assert pairs.x.shape == pairs.y.shape == (200, 196) and pairs.x.dtype == np.float64
    again, other = (views.pairs(images, name, 200, seed=1, draw=draw) for draw in (3, 4))
    assert np.array_equal(pairs.x, again.x) and not np.array_equal(pairs.x, other.x)
    # Shifts move pixels, and leave their sum, as all of a digit stays inside.
    same = np.isclose(pairs.x.sum(1), pairs.y.sum(1), atol=1e-3)
    assert same.all() if name.startswith("shift") else same.mean() < 0.3
    if name == "noise":
        assert np.std(pairs.x - pairs.y) == pytest.approx(0.5 * np.sqrt(2), rel=0.02)
    assert not np.array_equal(pairs.x, pairs.y)


def test_shuffled_views_are_those_of_other_pairs(path):
    images = views.images_of(path, "made", 12, seed=1)
    pairs, paired = (views.pairs(images, name, 200, seed=1, draw=0) for name in ("shuffled", "shift_2"))
    assert np.array_equal(pairs.x, paired.x) and np.array_equal(pairs.labels, paired.labels)
    assert not np.array_equal(pairs.y, paired.y)
    order = lambda array: array[np.lexsort(array.T)]  # noqa: E731
    assert np.array_equal(order(pairs.y), order(paired.y))
