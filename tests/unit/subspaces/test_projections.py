"""Projections into parameter space: unit columns, transposes, and Fastfood against its dense matrix."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch

from goldilocks_zone.randomness import stream
from goldilocks_zone.subspaces import planes, projections
from goldilocks_zone.subspaces.labels import PROJECTION_KINDS, Plane

SHAPES = [(30, 20), (30,), (4, 3, 3, 3), (7, 30)]
SIZE = sum(math.prod(shape) for shape in SHAPES)
ETA = np.concatenate([np.full(600, 0.5), np.zeros(30), np.full(108, 2.0), np.full(210, 1.0)])
USED = np.flatnonzero(ETA)


def make(kind, dimension, dtype=torch.float32, eta=ETA):
    return projections.make(
        Plane(dimension, kind), SHAPES, eta, stream("projection", kind), torch.zeros(0, dtype=dtype)
    )


def flattened(arrays):
    return torch.cat([each.flatten(1) for each in arrays], 1)


def matrix(projection, dtype=torch.float32):
    """Matrix M (D, d) of a projection, column by column from the images of unit vectors."""
    return flattened(projection.forward(torch.eye(projection.dimension, dtype=dtype))).T


@pytest.mark.parametrize("kind", PROJECTION_KINDS)
@pytest.mark.parametrize("dimension", [1, 2, 40, 100])
def test_transpose(kind, dimension):
    """⟨M w, g⟩ = ⟨w, Mᵀ g⟩."""
    projection, random = make(kind, dimension), torch.Generator().manual_seed(0)
    coordinates = torch.randn(5, dimension, generator=random)
    gradients = [torch.randn(5, *shape, generator=random) for shape in SHAPES]
    moved = projection.forward(coordinates)
    assert [each.shape for each in moved] == [(5, *shape) for shape in SHAPES]
    left = (flattened(moved) * flattened(gradients)).sum(1)
    right = (coordinates * projection.transposed(gradients)).sum(1)
    torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-5 * float(left.abs().max()))


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_columns_have_unit_length(kind):
    columns = matrix(make(kind, 60))
    torch.testing.assert_close(columns.norm(dim=0), torch.ones(60), rtol=1e-5, atol=0)


@pytest.mark.parametrize("kind", PROJECTION_KINDS)
def test_columns_are_nearly_orthogonal(kind):
    """Off-diagonal entries of the Gram matrix scatter by 1/√D; for Fastfood, like Σ ±(g² − 1)/D, by √(2/D)."""
    double = torch.zeros(0, dtype=torch.float64)
    projection = projections.make(Plane(100, kind), [(200, 100)], np.ones(20000), stream("gram", kind), double)
    gram = (lambda m: m.T @ m)(matrix(projection, torch.float64))
    off = gram - torch.diag(torch.diag(gram))
    scatter = math.sqrt(float(off.square().sum()) / (100 * 99) * 20000)
    assert scatter == pytest.approx(math.sqrt(2) if kind == "fastfood" else 1, rel=0.1)  # from 4,950 entries
    assert float((torch.diag(gram) - 1).abs().max()) < 5 / math.sqrt(20000)


@pytest.mark.parametrize("kind", PROJECTION_KINDS)
def test_unused_parameters_do_not_move(kind):
    columns = matrix(make(kind, 40))
    assert not columns[np.flatnonzero(ETA == 0)].any()
    # The metric sets how far the others go: mean square by layer ∝ η².
    parts = columns[:600].square().mean(), columns[630:738].square().mean()
    assert 10 < float(parts[1] / parts[0]) < 25  # 16, from 40 columns


@pytest.mark.parametrize("dimension", [1, 5, 64, 100])
def test_fastfood_against_its_dense_matrix(dimension):
    projection = make("fastfood", dimension)
    size, blocks = projection._size, len(projection._signs)
    assert size >= dimension > size // 2 and blocks == -(-USED.size // size)
    h = torch.as_tensor(scipy.linalg.hadamard(size), dtype=torch.float32)
    rows = []
    for signs, order, gaussian in zip(projection._signs, projection._permutations, projection._gaussian):
        rows.append(h @ torch.diag(gaussian) @ torch.eye(size)[order] @ h @ torch.diag(signs))
    expected = torch.zeros(SIZE, dimension)
    expected[USED] = torch.cat(rows)[: USED.size, :dimension] * projection._weights[:, None]
    torch.testing.assert_close(matrix(projection), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 32, 64, 1024, 4096])
def test_hadamard_products(size):
    values = torch.randn(3, 2, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = values @ torch.as_tensor(scipy.linalg.hadamard(size), dtype=torch.float64)
    torch.testing.assert_close(projections.hadamard(values), expected, rtol=1e-12, atol=1e-11)


def test_the_same_plane_as_that_of_the_curvature():
    for kind in ("dense", "sparse"):
        rows = planes.directions(Plane(20, kind), ETA, stream("projection", kind))
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        torch.testing.assert_close(matrix(make(kind, 20, torch.float64), torch.float64).T, torch.as_tensor(rows))


@pytest.mark.parametrize("dimension", [0, USED.size + 1])
def test_impossible_dimensions_are_refused(dimension):
    with pytest.raises(ValueError, match=rf"a subspace cannot have {dimension} dimensions with {USED.size} parameters"):
        make("sparse", dimension)


def test_unknown_kinds_are_refused():
    with pytest.raises(ValueError, match="projection 'kronecker' is unknown: use one of sparse, dense, fastfood"):
        make("kronecker", 3)
