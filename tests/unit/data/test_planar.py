"""Datasets of points in the plane: their moments and designs, their streams, and the published draw."""

import numpy as np
import pytest
import torch

from goldilocks_zone.data import planar, planar_shapes

DESIGNED = ["pie_2_2", "pie_6_3", "stripes_1_2", "stripes_5_6", "gaps_2", "gaps_5", "equal_gaps_2"]


@pytest.mark.parametrize("name", [*planar_shapes.PLANAR, *DESIGNED])
def test_draws_are_streams_of_their_own(name):
    known = planar_shapes.of(name)
    points, labels = planar.drawn(name, 1, "training", 0)
    assert points.shape == (known.examples, 2) and set(labels) == set(range(known.classes))
    again = planar.drawn(name, 1, "training", 0)
    assert np.array_equal(points, again[0]) and np.array_equal(labels, again[1])
    others = [
        planar.drawn(name, 2, "training", 0),
        planar.drawn(name, 1, "training", 1),
        planar.drawn(name, 1, "test", 0),
    ]
    # The published draw is one draw, whatever the seed; its labels are in an order of the seed's.
    for other in others:
        same = name == "gauss_published"
        assert np.array_equal(np.sort(points, 0), np.sort(other[0], 0)) == same
    box = np.array(known.box)
    fresh, classes = planar.drawn(name, 1, "test", 3, 4000)
    assert ((fresh > box[:, 0]) & (fresh < box[:, 1])).all(1).mean() > 0.99
    assert len(fresh) == len(classes) == 4000


@pytest.mark.parametrize("name", ["gauss", "hierarchical", "circle", "half_moon", "checkerboard", "checkerboard_noisy"])
def test_classes_are_balanced(name):
    counts = np.bincount(planar.drawn(name, 1, "training", 5)[1])
    assert counts.max() - counts.min() <= 1
    if name == "hierarchical":
        assert counts.tolist() == [38, 38, 37, 37]


def test_blobs_have_the_stated_means_and_deviations():
    points, labels = planar.drawn("gauss", 1, "test", 0, 60_000)
    for label, (mean, deviation) in enumerate([((2, -1), (0.5, 0.5)), ((-2, 0), (0.5, 1)), ((0, 2), (0.5, 0.5))]):
        own = points[labels == label]
        assert np.allclose(own.mean(0), mean, atol=0.03)
        assert np.allclose(own.std(0), deviation, rtol=0.02)
    points, labels = planar.drawn("checkerboard", 1, "test", 0, 40_000)
    assert np.allclose(points[labels == 0].mean(0), (0.8, -1), atol=0.06)
    assert np.allclose(points[(labels == 1) & (points[:, 1] > 1)].mean(0), (-0.8, 3), atol=0.02)


def test_circles_and_moons_lie_on_their_curves():
    points, labels = planar.drawn("circle", 1, "test", 0, 20_000)
    radii = np.linalg.norm(points, axis=1)
    assert radii[labels == 0].mean() == pytest.approx(1, abs=0.01)
    assert radii[labels == 1].mean() == pytest.approx(0.5, abs=0.015)
    points, labels = planar.drawn("half_moon", 1, "test", 0, 20_000)
    outer, inner = points[labels == 0], points[labels == 1]
    assert (outer**2).sum(1).mean() == pytest.approx(1 + 2 * 0.01, abs=0.01)
    assert ((inner - [1, 0.5]) ** 2).sum(1).mean() == pytest.approx(1 + 2 * 0.01, abs=0.01)
    assert outer[:, 1].mean() > 0.5 and inner[:, 1].mean() < 0


@pytest.mark.parametrize("name", DESIGNED)
def test_designs_keep_their_gaps_free(name):
    known = planar_shapes.of(name)
    for draw in range(3):
        borders = planar.borders(name, 1, draw)
        points, labels = planar.drawn(name, 1, "test", draw, 5000)
        if name.startswith("pie"):
            radii, angles = np.linalg.norm(points, axis=1), np.arctan2(points[:, 1], points[:, 0])
            assert radii.min() > 1 and radii.max() < 1.5
            apart = np.abs((angles[:, None] - borders.places + np.pi) % (2 * np.pi) - np.pi)
            section = (angles[:, None] % (2 * np.pi) > borders.places).sum(1) - 1
            assert apart.min() == pytest.approx(0.15, abs=0.01)
        else:
            apart = np.abs(points[:, :1] - borders.places) - borders.gaps / 2
            section = (points[:, :1] > borders.places).sum(1)
            assert 0 < apart.min() < 0.01 and np.abs(points[:, 0]).max() < 2
        assert np.array_equal(labels, section % known.classes)
        shares = np.bincount(section) / len(section)
        assert np.allclose(shares, 1 / len(shares), atol=0.03)


def test_gaps_are_permuted_by_the_draw():
    found = [planar.borders("gaps_2", 1, draw) for draw in range(30)]
    assert all(sorted(each.gaps) == [0.1, 0.2, 0.35, 0.55] for each in found)
    assert len({tuple(each.gaps) for each in found}) > 10
    widths = np.diff(
        np.concatenate([[-2], *zip(found[0].places - found[0].gaps / 2, found[0].places + found[0].gaps / 2), [2]])
    )[::2]
    assert np.allclose(widths, 0.56)


def test_names_that_are_none():
    for name in ["mnist", "pie_1_2", "pie_3_2", "pie_2_3", "stripes_1_3", "gaps_6", "pie_4"]:
        assert planar_shapes.of(name) is None


def test_the_published_draw_follows_its_recipe():
    points, labels = planar.published_gauss()
    order = torch.randperm(300, generator=torch.Generator().manual_seed(42)).numpy()
    random, expected = np.random.RandomState(42), []
    for mean, deviation in planar.GAUSS:
        for _ in range(100):
            expected.append([random.normal(mean[0], deviation[0]), random.normal(mean[1], deviation[1])])
    assert np.array_equal(points, np.array(expected)[order[:150]])
    assert np.array_equal(labels, np.repeat([0, 1, 2], 100)[order[:150]])
