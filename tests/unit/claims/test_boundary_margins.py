"""Claims about the published measure, the margin estimate and designed borders, on studies whose answer is known."""

import numpy as np
import pytest
from scipy import stats

from goldilocks_zone.claims import cells, evaluate, quantities
from goldilocks_zone.claims.estimators import decision_boundary
from goldilocks_zone.data import planar
from goldilocks_zone.randomness import stream
from made_up.boundaries import DEFINITIONS, DRAWS, MATCHED, MINIMA, NOISE, judged, study

# 2 (90 + 93) + 150 · 2 of 90 + 930 + 93 parameters.
BOUND = 666 / 1113


def test_correlations_are_those_of_scipy():
    random = stream("correlations")
    for _ in range(20):
        pair = random.integers(0, 5, (2, 9)).astype(float)
        assert decision_boundary.kendall(*pair) == pytest.approx(stats.kendalltau(*pair).statistic)
        assert decision_boundary.spearman(*pair) == pytest.approx(stats.spearmanr(*pair).statistic)
    assert np.isnan(decision_boundary.kendall(np.ones(9), pair[0])) and np.isnan(
        decision_boundary.spearman(pair[0], np.ones(9))
    )


def measured(single, double, live=0.8, untrained=0.8, change=0.0):
    """Made-up study with the published measure G_θ of normal minima in single and in double precision.

    Untrained networks have `untrained`. Rescaled networks have `change` more. `live` is the share of live units.
    """
    dims = ("minimum", "scaling", "precision", "draw")
    values = np.empty((2, 2, 2, DRAWS))
    values[0], values[1] = np.array([single, double])[:, None], untrained
    values[:, 1] += change
    values += 0.1 * NOISE
    shares = (("minimum", "scaling", "softmax", "draw"), values)
    variables = {
        "published_measure": (dims, values),
        "published_measure_matched": (dims, values),
        "encoding_share": shares,
    }
    variables |= {"published_measure_in_range": (dims, values), "live_share": (("draw",), live + 0.1 * NOISE[::-1])}
    axes = {"minimum": ["normal", "untrained"], "scaling": ["none", "0.2-5-1"], "precision": ["float32", "float64"]}
    return study(variables, network=["fc-30x2-relu"], softmax=MATCHED, **axes)


def test_the_bound_on_the_rank_is_an_identity_and_null_vectors_exceed_it():
    rows = judged("sb7", boundary_measure=measured(single=0.82, double=BOUND - 0.01))
    assert rows["bound"]["verdict"] == evaluate.HOLDS and rows["bound"]["estimate"] == 0
    assert rows["null-vectors"]["estimate"] == pytest.approx(0.82 - BOUND, abs=0.002)
    assert rows["sb7"]["verdict"] == evaluate.REPRODUCED
    rows = judged("sb7", boundary_measure=measured(single=0.6, double=BOUND + 0.01, live=0.75))
    assert rows["bound"]["verdict"] == evaluate.FAILS and rows["bound"]["estimate"] == pytest.approx(0.01, abs=0.002)
    assert {rows[case]["verdict"] for case in ("null-vectors", "live", "untrained")} == {evaluate.NOT_REPRODUCED}
    other = measured(0.82, 0.5).assign_coords(network=["fc-30x3-relu"])
    assert "three weight layers" in decision_boundary_reason(other)
    assert "three weight layers" in decision_boundary_reason(other.assign_coords(network=["my_network"]))


def decision_boundary_reason(made):
    with pytest.raises(evaluate.NotTested) as raised:
        decision_boundary.rank_bound(made.isel(dataset=0, network=0))
    return str(raised.value)


def family(effect, spread=0.1):
    """Made-up study in which starts from random labels raise every measure of the minima by `effect`.

    `spread` multiplies the noise.
    """
    values = (
        np.array([0.0, effect, effect, 0, 0])[:, None]
        + 0.8
        + spread * np.array([NOISE, *([NOISE[::-1]] * 2), NOISE, NOISE])
    )
    weighted = (("minimum", "softmax", "draw"), np.stack([values, values], 1))
    variables = dict.fromkeys(
        ("published_measure", "published_measure_matched"), (("minimum", "precision", "draw"), values[:, None])
    )
    variables |= {"encoding_share": weighted}
    axes = {"minimum": MINIMA, "softmax": MATCHED, "precision": ["float32"]}
    return study(variables, network=["fc-30x2-relu"], **axes)


def test_a_change_is_judged_by_a_quarter_of_an_effect():
    for change, verdict in (
        (0.01, evaluate.REPRODUCED),
        (0.06, evaluate.NOT_REPRODUCED),
        (-0.06, evaluate.NOT_REPRODUCED),
    ):
        rows = judged("sb10", boundary_measure=measured(0.8, 0.5, change=change), boundary_family=family(0.1))
        for case in ("maximum-published", "mean-matched"):
            assert rows[case]["verdict"] == verdict and rows[case]["estimate"] == pytest.approx(change / 0.1, rel=0.02)
    # One estimate for each scaling, none of the minimum itself.
    case = DEFINITIONS["sb10"]["cases"]["mean-matched"]
    pair = {"boundary_measure": measured(0.8, 0.5, change=0.01), "boundary_family": family(0.1)}
    assert len(quantities.estimate(cells.primary(case, pair, {}), case, "test")) == 1
    # A negative effect sets the margin as well.
    rows = judged("sb10", boundary_measure=measured(0.8, 0.5, change=0.01), boundary_family=family(-0.1))
    assert rows["mean-published"]["verdict"] == evaluate.REPRODUCED
    rows = judged("sb10", boundary_measure=measured(0.8, 0.5, change=0.01), boundary_family=family(0.0, spread=1.0))
    assert rows["mean-published"]["verdict"] == evaluate.NOT_TESTED
    assert "does not differ from 0" in rows["mean-published"]["reason"]


def test_fieller_s_interval_is_two_one_sided_tests():
    random = stream("fieller")
    verdicts = set()
    for mean in (0.0, 0.1, 0.2, 0.3):
        changes = mean + 0.15 * random.standard_normal(DRAWS)
        effects = 1 + 0.2 * random.standard_normal(DRAWS)
        estimate = decision_boundary._fieller(changes, effects)
        low, high = estimate.interval(0.9)
        below = stats.ttest_1samp(changes - 0.25 * effects, 0, alternative="less").pvalue < 0.05
        above = stats.ttest_1samp(changes + 0.25 * effects, 0, alternative="greater").pvalue < 0.05
        assert (high < 0.25, low > -0.25) == (below, above)
        verdicts.add(below and above)
        assert estimate.interval(0.0) == pytest.approx((estimate.value, estimate.value))
        assert estimate.interval(1 - 1e-12) == (-np.inf, np.inf)
    assert verdicts == {True, False}


def margins(factor, reached=0.9, steps=6000, wide=2.0, missing=()):
    """Made-up study with estimates of margins that are `factor` times the true ones, from 4 starts, one of which fails.

    The true margins are 1 for normal minima and `wide` for wide-margin ones. `reached` is the alignment that the other
    starts reach; the draws `missing` reach little.
    """
    true = np.array([1.0, wide])[:, None] + 0.3 * np.arange(DRAWS) / DRAWS
    estimate = np.repeat(factor * true[:, None], 4, 1)
    estimate[:, :3] *= np.array([0.9, 1.0, 1.1])[:, None]
    estimate[:, 3] = 40
    squares = np.full(estimate.shape, reached)
    squares[:, 3] = 0.5
    squares[:, :, list(missing)] = 0.2
    dims = ("minimum", "start", "draw")
    variables = {"margin_estimate": (dims, estimate), "alignment_reached": (dims, squares)}
    largest = np.broadcast_to(np.sqrt([[0.2, 0.92], [0.4, 0.1]])[:, :, None], (2, 2, 2, DRAWS))
    variables["map"] = (("minimum", "map_x", "map_y", "draw"), largest)
    variables |= {
        name: (("minimum", "draw"), sign * true)
        for name, sign in (("true_margin", 1), ("margin_of_extremes", -1), ("smallest_linearised_margin", 2))
    }
    axes = {"minimum": ["normal", "wide_margin"], "dataset": ["checkerboard"], "start": range(4)}
    axes |= {"map_x": range(2), "map_y": range(2)}
    return study(variables, {"estimate_steps": steps}, **axes)


def test_margin_estimates_count_where_their_descent_came_close_to_the_largest_alignment():
    rows = judged("sb11", boundary_margin=margins(1.1))
    assert rows["wide"]["estimate"] == pytest.approx(1.1) and rows["order"]["estimate"] == pytest.approx(1)
    assert rows["accuracy"]["estimate"] == pytest.approx(np.log(1.1)) and rows["sb11"]["verdict"] == evaluate.REPRODUCED
    assert rows["order-linearised"]["verdict"] == evaluate.REPRODUCED and rows["order-extremes"][
        "estimate"
    ] == pytest.approx(-1)
    assert judged("sb11", ["wide"], boundary_margin=margins(1.1, missing=[2]))["wide"]["n"] == DRAWS - 1
    assert judged("sb11", ["accuracy"], boundary_margin=margins(1.5))["accuracy"]["verdict"] == evaluate.NOT_REPRODUCED
    assert (
        judged("sb11", ["wide"], boundary_margin=margins(1.1, wide=0.5))["wide"]["verdict"] == evaluate.NOT_REPRODUCED
    )
    stuck = judged("sb11", ["wide", "accuracy", "order"], boundary_margin=margins(1.1, reached=0.86))
    assert {stuck[case]["verdict"] for case in ("wide", "accuracy", "order")} == {evaluate.NOT_TESTED}
    assert stuck["wide"]["reason"].startswith(
        "this run has 0 of 8 draws in which the descent of the margin estimate converged"
    )
    unmapped = judged("sb11", ["order"], boundary_margin=margins(1.1).drop_vars("map"))["order"]["reason"]
    assert unmapped == "this run has no alignment map, without which convergence of the descent cannot be judged"
    short = judged("sb11", ["order"], boundary_margin=margins(1.1, steps=300))["order"]["reason"]
    assert short == "this run has 300 steps of the margin estimate, 6000 are needed"


def seen(change, minima, effect=0.4):
    """Made-up study of the checkerboard with both measures at two `minima`: 1 at the first.

    At the second, they are 1 + `change` if it has a wide margin, and 1 + `effect` otherwise.
    """
    values = np.array([1.0, 1 + change if "wide_margin" in minima else 1 + effect])[:, None] + 0.1 * np.array(
        [NOISE, NOISE[::-1]]
    )
    dims = ("minimum", "softmax", "draw")
    twice = np.stack([values, values], 1)
    variables = {
        "encoding_share": (dims, twice),
        "gauss_newton_eigenvalue": ((*dims[:2], "rank", "draw"), np.exp(twice)[:, :, None]),
    }
    return study(variables, dataset=["checkerboard"], minimum=minima, softmax=MATCHED, rank=[1])


def test_the_margin_is_seen_beside_the_effect_in_another_study():
    other = seen(0, ["normal", "adversarial-2500"])
    for change, verdict in ((0.02, evaluate.REPRODUCED), (0.3, evaluate.NOT_REPRODUCED)):
        rows = judged("sb12", boundary_margin=seen(change, ["normal", "wide_margin"]), boundary=other)
        for case in ("share", "eigenvalue"):
            assert rows[case]["verdict"] == verdict and rows[case]["estimate"] == pytest.approx(change / 0.4, rel=0.02)


SOFTMAX = ["temperature-1", "temperature-0.5", "temperature-4", "uniform"]


def bordered(sign=1, loss=0.01, one=(), index=(0.9, 0.2)):
    """Made-up study whose ranks at designed borders grow with the gaps of each draw, or fall if `sign` is −1.

    The draws `one` have a boundary of one dimension, so that all their ranks are 1. `index` is the specificity index of
    the two datasets.
    """
    gaps = np.array([planar.borders("gaps_2", 1, draw).gaps for draw in range(DRAWS)])
    ranks = sign * np.stack([gaps, gaps[:, ::-1]])
    ranks[:, list(one)] = 1.0
    ranks = np.stack([ranks, ranks, ranks * 0 + 1, -ranks], 1)
    indices = np.array(index)[:, None, None] * np.array([1, 1, 0.5, 0.5])[:, None] + NOISE
    variables = {"border_rank": (("dataset", "softmax", "draw", "border"), ranks)}
    variables |= {
        "specificity_index": (("dataset", "softmax", "draw"), indices),
        "training_loss": (("draw",), np.full(DRAWS, loss)),
    }
    axes = {"dataset": ["gaps_2", "equal_gaps_2"], "softmax": SOFTMAX, "border": range(4)}
    return study(variables, {"optimiser": "adam", "stop_at": 0.02}, network=["fc-60x2-relu"], **axes)


def test_ranks_are_compared_with_the_gaps_of_each_draw():
    rows = judged("sb13", boundary_gaps=bordered())
    assert rows["ranks"]["estimate"] == pytest.approx(1) and rows["sb13"]["verdict"] == evaluate.REPRODUCED
    assert rows["unweighted"]["estimate"] == pytest.approx(-1) and abs(rows["equal"]["estimate"]) < 0.9
    assert rows["flat"]["verdict"] == evaluate.NOT_TESTED and "two dimensions" in rows["flat"]["reason"]
    assert judged("sb13", boundary_gaps=bordered(sign=-1))["ranks"]["verdict"] == evaluate.NOT_REPRODUCED
    assert judged("sb13", boundary_gaps=bordered(one=[1, 2]))["ranks"]["n"] == DRAWS - 2
    untrained = judged("sb13", boundary_gaps=bordered(loss=0.03))["ranks"]
    assert untrained["verdict"] == evaluate.NOT_TESTED and "training reached its loss" in untrained["reason"]


def test_sections_separate_by_weight():
    rows = judged("by9", boundary_gaps=bordered())
    assert rows["gaps"]["estimate"] == pytest.approx(0.7) and rows["temperature"]["estimate"] == pytest.approx(0.45)
    assert rows["by9"]["verdict"] == evaluate.REPRODUCED
    rows = judged("by9", boundary_gaps=bordered(index=(-0.2, 0.9)))
    assert {rows[case]["verdict"] for case in ("gaps", "temperature", "weights")} == {evaluate.NOT_REPRODUCED}
