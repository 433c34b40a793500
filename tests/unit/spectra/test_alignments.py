"""Measures of alignment, against explicit projections, known configurations and brute force over rotations."""

import math

import numpy as np
import pytest

from goldilocks_zone.randomness import stream
from goldilocks_zone.spectra import alignments


def unit_rows(b, d):
    rows = stream("rows", b, d).standard_normal((b, d))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_captured_share_is_that_of_the_projection():
    vectors = unit_rows(30, 9)
    basis = np.linalg.qr(stream("basis").standard_normal((9, 9)))[0]
    found = alignments.captured(vectors @ basis)
    for count in (1, 4, 9):
        projected = vectors @ basis[:, :count] @ basis[:, :count].T
        assert found[count - 1] == pytest.approx(np.mean(np.sum(projected**2, 1)), rel=1e-12)
    assert found[-1] == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("dimension", [1, 3])
def test_dimension_of_vectors_in_a_subspace(dimension):
    basis = np.linalg.qr(stream("basis").standard_normal((8, 8)))[0][:, :dimension]
    # Of equal weight along each direction, and of both signs, which centring would mistake for spread.
    vectors = np.repeat(basis.T, 20, 0) * np.where(np.arange(20 * dimension) % 2, 1, -1)[:, None]
    assert alignments.dimension(vectors @ vectors.T) == dimension


def test_held_counts_the_values_of_a_share():
    assert alignments.held(np.array([8.0, 1.0, 0.5, 0.5])) == 2
    assert alignments.held(np.array([1.0] * 10)) == 9
    assert alignments.held(np.zeros(3)) == 0


def test_largest_gap_within_the_first_twelve():
    assert alignments.largest_gap(np.array([9.0, 8, 7, 0.1, 0.09])) == 3
    falling = np.exp(-np.arange(30) * 0.1)
    falling[20:] *= 1e-6
    falling[4:] *= 0.5
    assert alignments.largest_gap(falling) == 4
    assert alignments.largest_gap(np.array([0.3])) == 1


def test_specificity_of_vectors_along_eigenvectors_and_across_them():
    assert alignments.specificity(np.eye(4)) == 1
    assert alignments.specificity(np.ones((3, 4))) == pytest.approx(1 / 4)
    # A scale of each vector's part inside the span does not matter for its own share.
    assert alignments.specificity(np.array([[0.1, 0.0], [0.0, 0.9]])) == 1


def test_index_is_one_at_the_varimax_rotation_and_small_at_random_ones():
    sections = np.repeat(np.eye(4), 10, 0)
    assert alignments.specificity_index(sections, stream("index")) == pytest.approx(1, abs=1e-6)
    found = []
    for number in range(60):
        rotation = np.linalg.qr(stream("rotation", number).standard_normal((4, 4)))[0]
        found.append(alignments.specificity_index(sections @ rotation, stream("index")))
    assert abs(np.mean(found)) < 0.1


def test_index_is_missing_without_two_directions_or_any_structure():
    assert math.isnan(alignments.specificity_index(np.ones((5, 1)), stream("index")))


def test_varimax_finds_sections_from_any_rotation():
    sections = np.repeat(np.eye(3), [10, 7, 5], 0)
    for number in range(5):
        rotation = np.linalg.qr(stream("rotation", number).standard_normal((3, 3)))[0]
        assert alignments.specificity(alignments.varimax(sections @ rotation)) == pytest.approx(1, abs=1e-6)


def test_varimax_beats_a_search_over_planar_rotations():
    vectors = unit_rows(40, 2) * stream("scales").uniform(0.5, 2, (40, 1))

    def variance(rotated):
        return np.square(rotated).var(0).sum()

    angles = np.linspace(0, np.pi, 2001)
    best = max(variance(vectors @ [[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]) for a in angles)
    assert variance(alignments.varimax(vectors)) >= best * (1 - 1e-6)
