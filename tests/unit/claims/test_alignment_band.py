"""The band of radii in which curvature aligns with the boundary, on curves whose edges are known."""

import numpy as np
import pytest

from goldilocks_zone.claims import evaluate
from goldilocks_zone.claims.estimators import alignment_band
from made_up.boundaries import DRAWS, NOISE, judged, study

PLACES = np.linspace(-2, 2, 9)


def band(low, high, balance, beyond=None, kind="gauss", inside=1.0, draws=DRAWS, gone=()):
    """Made-up study in which alignment by H peaks between x = `low` and `high`, where it has half its height.

    Alignment by G has the full height from the middle of this band on, and the share `inside` of it at smaller x.
    ‖G‖₂/‖H′‖₂ grows with x and is 1 at `balance`. Alignments and ‖G‖₂ are missing at x > `beyond`. The draws `gone`
    have no boundary.
    """
    middle, width = (low + high) / 2, high - low
    curve = np.clip(1 - np.abs(PLACES - middle) / width, 0, 1)[:, None] * (0.8 + NOISE[:draws])
    of_g = np.where(middle > PLACES, inside, 1)[:, None] * (0.8 + NOISE[:draws])
    ratio = 10 ** (np.where(PLACES < 1, PLACES - balance, 1 - balance)[:, None] + 0.01 * NOISE[:draws])
    if beyond is not None:
        curve[beyond < PLACES], of_g[beyond < PLACES], ratio[beyond < PLACES] = np.nan, np.nan, np.nan
    curve[:, list(gone)] = np.nan
    rank, dims = 9 if kind == "mnist" else 2, ("radius", "hessian_rank", "draw")
    place = np.arange(1, rank + 1) == rank
    variables = {
        "captured_by_hessian": (dims, np.where(place[:, None], curve[:, None], 0.01)),
        "captured_by_gauss_newton": (dims, np.where(place[:, None], of_g[:, None], 0.01)),
        "gauss_newton_top_eigenvalue": (dims, np.where(place[:, None] & (rank > 1), 0.1, 1.0) * ratio[:, None]),
        "residual_spectral_norm": (("radius", "draw"), np.ones((9, draws))),
    }
    network = "fc-200x2-relu-nobias" if kind == "mnist" else "fc-100x2-relu-nobias"
    axes = {"minimum": ["normal", "untrained"], "radius": 10 ** (PLACES / 2), "hessian_rank": range(1, rank + 1)}
    made = study(variables, dataset=[kind], network=[network], draw=range(draws), **axes)
    return made.assign_coords(x=("radius", PLACES))


@pytest.mark.parametrize(
    "curve, outer, reading",
    [
        ([0, 0, 0, 0.5, 1, 0.5, 0, 0, 0], False, [-0.5] * 3),
        ([0, 0, 0, 0.2, 1, 0.6, 0.2, 0, 0], True, [0.625] * 3),
        ([1, 1, 1, 1, 1, 0, 0, 0, 0], False, [-np.inf, -2, -2]),
        ([0, 0, 0, 0, 1, 1, 1, 1, 1], True, [2, 2, np.inf]),
        ([0, 0, 0, 0, 1, 0.9, np.nan, np.nan, np.nan], True, [0.5, 0.75, 1]),
        ([np.nan, np.nan, 0.6, 0.9, 1, 0, 0, 0, 0], False, [-1.5, -1.25, -1]),
    ],
)
def test_an_edge_is_a_half_height_or_known_to_lie_beyond(curve, outer, reading):
    assert alignment_band.edge_of_band(PLACES, np.array(curve, float), outer).tolist() == pytest.approx(reading)


def test_the_inner_edge_is_where_both_parts_are_alike():
    rows = judged("by8", boundary_radius=band(-0.9, 0.9, balance=-0.8))
    assert rows["inner-trained"]["estimate"] == pytest.approx(0.1, abs=0.01)
    assert rows["inner-trained"]["verdict"] == rows["gauss-newton-untrained"]["verdict"] == evaluate.REPRODUCED
    rows = judged("by8", boundary_radius=band(-0.9, 0.9, balance=0.0, inside=0.3, beyond=1))
    assert rows["inner-trained"]["verdict"] == rows["gauss-newton-trained"]["verdict"] == evaluate.NOT_REPRODUCED
    # A balance beyond the radii is a bound, which suffices where the edge is far from it.
    far = judged("by8", boundary_radius=band(-0.9, 0.9, balance=-4))["inner-trained"]
    assert far["verdict"] == evaluate.NOT_REPRODUCED and far["low"] == -np.inf
    near = judged("by8", boundary_radius=band(-1.8, 1.8, balance=-4))["inner-trained"]
    assert near["verdict"] == evaluate.NOT_TESTED and near["reason"] == alignment_band.INNER


def test_draws_without_a_boundary_are_left_out():
    assert judged("by8", boundary_radius=band(-0.9, 0.9, -0.8, gone=[0, 3]))["inner-trained"]["n"] == DRAWS - 2
    row = judged("by8", boundary_radius=band(-0.9, 0.9, -0.8, gone=range(6)))["inner-trained"]
    assert row["reason"] == "this run has 2 of 8 draws with eigenvectors and a boundary, 4 are needed"


def test_the_outer_edge_is_compared_with_that_of_fewer_examples():
    for more, verdict in ((1.2, evaluate.REPRODUCED), (0.4, evaluate.NOT_REPRODUCED)):
        pair = {
            "boundary_radius_mnist": band(-0.9, 0.8, 0, kind="mnist"),
            "boundary_radius_mnist_500": band(-0.9, more, 0, kind="mnist"),
        }
        row = judged("by8", **pair)["outer-trained"]
        assert row["verdict"] == verdict and row["estimate"] == pytest.approx(more - 0.8, abs=0.15)
    beyond = judged(
        "by8", boundary_radius_mnist=band(1, 9, 0, kind="mnist"), boundary_radius_mnist_500=band(1, 9, 0, kind="mnist")
    )
    assert beyond["outer-trained"]["verdict"] == evaluate.NOT_TESTED
