"""Claims about the decision boundary, on studies whose answer is known."""

import numpy as np
import pytest

from goldilocks_zone.claims import evaluate
from goldilocks_zone.claims.estimators import decision_boundary
from made_up.boundaries import DRAWS, MATCHED, MINIMA, NOISE, judged, study


def aligned(permuted=0.5, untrained=0.3, elsewhere=0.4, missing=0):
    """Made-up study with an alignment E_C of .8 at normal minima, for C = 3 classes.

    It is `permuted` with permuted outputs and `untrained` in untrained networks; `elsewhere` is the alignment away from
    the boundary. The first `missing` draws have no boundary.
    """
    softmax = [*MATCHED, "permuted"]
    found = np.full((2, 3, 4, DRAWS), 0.1)
    found[0, :, 2] = np.array([0.8, 0.8, permuted])[:, None] + NOISE
    found[1, :, 2] = untrained + NOISE[::-1]
    found[0, 0, 2, :missing] = np.nan
    dims = ("minimum", "softmax", "rank", "draw")
    variables = {"captured": (dims, found), "captured_elsewhere": (dims, np.full(found.shape, elsewhere))}
    for name in ("aligned_share", "specificity_index"):
        variables[name] = (("minimum", "softmax", "draw"), found[:, :, 2])
    return study(variables, minimum=["normal", "untrained"], softmax=softmax, rank=range(1, 5))


def test_alignment_is_judged_against_each_null():
    rows = judged("sb1", boundary=aligned(permuted=0.795))
    assert [rows[case]["verdict"] for case in ("elsewhere", "untrained-published")] == [evaluate.REPRODUCED] * 2
    assert rows["permuted"]["verdict"] == rows["sb1"]["verdict"] == evaluate.NOT_REPRODUCED
    assert rows["elsewhere"]["estimate"] == pytest.approx(0.4, abs=0.01)
    assert judged("sb1", boundary=aligned())["sb1"]["verdict"] == evaluate.REPRODUCED


def test_draws_in_which_something_is_missing_are_left_out_and_too_few_give_no_verdict():
    assert judged("sb1", boundary=aligned(missing=3))["permuted"]["n"] == DRAWS - 3
    few = judged("sb4", boundary=aligned(missing=5))["published"]
    assert few["verdict"] == evaluate.NOT_TESTED and few["estimate"] == ""
    assert few["reason"] == "this run has 3 of 8 draws in which the boundary has two dimensions or more, 4 are needed"
    none = judged("sb2", boundary=aligned(missing=DRAWS))["published"]
    assert none["reason"] == "this run has 0 of 8 draws in which aligned_share can be measured, 4 are needed"
    assert judged("sb2", boundary=aligned(missing=DRAWS))["matched"]["verdict"] == evaluate.REPRODUCED


def identities(error):
    names = ("flip_error", "fixed_label_jump", "logits_error")
    errors = np.full((2, DRAWS), 1e-12)
    errors[1, 3] = error
    made = {
        name: (("scaling", "draw"), errors if name == "logits_error" else errors[:, None, 3] * np.ones(DRAWS))
        for name in names
    }
    return study(made, scaling=["none", "0.2-5-1"], network=["fc-30x2-relu"])


def test_identities_hold_at_their_largest_error():
    for error, verdict in ((1e-11, evaluate.HOLDS), (1e-5, evaluate.FAILS)):
        made = identities(error)
        assert judged("sb10", boundary_measure=made)["logits"]["verdict"] == verdict
        plain = made.isel(scaling=[0]).assign_coords(network=["fc-100x2-relu"])
        plain["flip_error"] = plain["flip_error"] * 0 + error
        rows = judged("sb3", boundary=plain)
        assert rows["flip"]["verdict"] == verdict and rows["fixed-label"]["verdict"] == evaluate.HOLDS
    assert judged("sb3", boundary=aligned())["flip"]["reason"] == "this run has measured no flip_error"


DESIGNS = [
    "pie_2_2",
    "pie_4_2",
    "pie_4_4",
    "pie_5_5",
    "pie_6_2",
    "stripes_2_2",
    "stripes_4_2",
    "stripes_4_5",
    "stripes_5_3",
]


def sections(count, loss=0.019, missing=()):
    """Made-up study of the designed datasets, with `count(m, C)` outliers for m sections and C classes.

    `loss` is the training loss that is reached. In the draws `missing`, the numbers are missing.
    """
    found = np.array([[count(*map(int, name.split("_")[1:]))] * DRAWS for name in DESIGNS], float)
    found[:, list(missing)] = np.nan
    counts = (("dataset", "softmax", "draw"), np.stack([found, found * 0 + 2, found], 1))
    variables = dict.fromkeys(("outliers", "outliers_by_gap"), counts)
    variables["training_loss"] = (("dataset", "draw"), np.full((len(DESIGNS), DRAWS), loss))
    given = {"optimiser": "adam", "stop_at": 0.02}
    softmax = ["temperature-1", "uniform", "temperature-3"]
    return study(variables, given, dataset=DESIGNS, network=["fc-60x2-relu"], softmax=softmax)


def test_the_slope_over_sections_is_told_from_that_over_classes():
    rows = judged("sb5", boundary_sections=sections(lambda m, c: m + 1))
    for kind in ("pie", "stripes"):
        assert rows[f"{kind}-sections"]["estimate"] == pytest.approx(1)
        assert rows[f"{kind}-classes"]["estimate"] == pytest.approx(0, abs=1e-9)
        assert rows[f"{kind}-unweighted"]["estimate"] == pytest.approx(0, abs=1e-9)
        assert rows[f"{kind}-over-classes"]["verdict"] == rows["sb5"]["verdict"] == evaluate.REPRODUCED
    rows = judged("sb5", boundary_sections=sections(lambda m, c: c - 1))
    assert rows["pie-sections"]["verdict"] == rows["pie-over-classes"]["verdict"] == evaluate.NOT_REPRODUCED
    assert rows["pie-over-classes"]["estimate"] == pytest.approx(-1)
    # Counts that agree in every draw have the width of rounding.
    assert rows["pie-classes"]["high"] > rows["pie-classes"]["low"]


def test_designs_that_are_missing_or_did_not_train_give_no_slope():
    rows = judged("sb5", boundary_sections=sections(lambda m, c: m, missing=[0, 5]))
    assert rows["pie-sections"]["n"] == DRAWS - 2 and rows["pie-sections"]["estimate"] == pytest.approx(1)
    few = judged("sb5", boundary_sections=sections(lambda m, c: m, missing=range(5)))["pie-sections"]
    assert few["reason"].startswith("this run has 3 draws in which training reached its loss")
    rows = judged("sb5", boundary_sections=sections(lambda m, c: m, loss=0.1))
    assert rows["pie-sections"]["verdict"] == evaluate.NOT_TESTED
    assert "draws in which training reached its loss" in rows["pie-sections"]["reason"]
    few = sections(lambda m, c: m).isel(dataset=slice(0, 2))
    assert judged("sb5", boundary_sections=few)["pie-sections"]["reason"].startswith(
        "this run has 2 designs of the kind pie"
    )
    confounded = sections(lambda m, c: m).isel(dataset=[0, 1, 4])
    assert judged("sb5", boundary_sections=confounded)["pie-sections"]["verdict"] == evaluate.NOT_TESTED


def family(size, errors, rivals=None, study_of=None):
    """Made-up study of the five MINIMA, with measures `size` and test errors `errors`, the same at both temperatures.

    Other measures have the values `rivals`, by default those of `size`. `study_of` replaces axes.
    """
    values = np.asarray(size, float)[:, None] + 0.1 * NOISE
    errors = np.asarray(errors, float)[:, None] + 0.001 * NOISE
    weighted = ("minimum", "softmax", "draw")
    twice = np.stack([values, values], 1)
    other = values if rivals is None else np.asarray(rivals, float)[:, None] + 0.1 * NOISE
    variables = dict.fromkeys(("outliers", "encoding_share"), (weighted, twice))
    variables |= dict.fromkeys(
        ("published_measure", "published_measure_matched"), (("minimum", "precision", "draw"), values[:, None])
    )
    variables |= {
        "gauss_newton_trace": (weighted, np.stack([other, other], 1)),
        "test_accuracy": (("minimum", "draw"), 1 - errors),
    }
    variables["gauss_newton_eigenvalue"] = ((*weighted[:2], "rank", "draw"), np.stack([other, other], 1)[:, :, None])
    for name in (
        "norm",
        "training_loss",
        "loss_rise",
        "linearised_margin",
        "true_margin",
        "boundary_length",
        "boundary_dimension",
    ):
        variables[name] = (("minimum", "draw"), other)
    axes = {"minimum": MINIMA, "softmax": MATCHED, "precision": ["float32"], "rank": [1], "network": ["fc-30x2-relu"]}
    return study(variables, **{**axes, **(study_of or {})})


def test_a_kind_of_minimum_is_the_mean_over_its_strengths():
    made = family([1, 2, 4, 1.5, 2.5], [0.1, 0.2, 0.3, 0.15, 0.25], rivals=[3, 1, 5, 2, 4])
    rows = judged("sb8", boundary_family=made)
    assert rows["mean-matched-adversarial"]["estimate"] == pytest.approx(2)
    assert rows["maximum-published-large"]["estimate"] == pytest.approx(1)
    assert rows["maximum-matched-equal-norm"]["estimate"] == pytest.approx(1)
    assert rows["mean-published-tau"]["estimate"] == pytest.approx(1)
    # By their errors the rivals are 3, 2, 1, 4, 5: seven pairs of ten are in order.
    assert rows["mean-beats-trace"]["estimate"] == pytest.approx(1 - 0.4)
    assert rows["sb8"]["verdict"] == evaluate.REPRODUCED
    assert judged("sb6", boundary=made, boundary_family=made)["matched-length"]["estimate"] == pytest.approx(0.6)


def test_the_logarithm_of_a_kind_of_minimum_is_the_mean_of_logarithms():
    made = family([1, 10, 1000, 1, 1], [0.1, 0.2, 0.3, 0.15, 0.25])
    reading = decision_boundary.Reading("gauss_newton_trace", "adversarial", log=True)
    found = reading.of(made.isel(dataset=0, network=0, subspace=0))
    expected = np.log(made["gauss_newton_trace"].sel(minimum=MINIMA[1:3], softmax="temperature-1")).mean("minimum")
    assert found.values == pytest.approx(expected.squeeze().values) and found.mean() == pytest.approx(
        2 * np.log(10), abs=0.1
    )


def test_a_draw_without_one_strength_is_left_out_and_untrained_networks_are_no_minima():
    made = family([1, 2, 4, 1.5, 2.5], [0.1, 0.2, 0.3, 0.15, 0.25])
    made["encoding_share"][{"minimum": 2, "draw": 0}] = np.nan
    row = judged("sb8", boundary_family=made)["mean-matched-adversarial"]
    assert row["n"] == DRAWS - 1 and row["estimate"] == pytest.approx(2, abs=0.01)
    untrained = family(
        [1, 2, 4, 1.5, 2.5], [0.1, 0.2, 0.3, 0.15, 0.25], study_of={"minimum": ["untrained", *MINIMA[1:]]}
    )
    assert (
        judged("sb8", boundary_family=untrained)["mean-matched-tau"]["reason"] == "this run has 4 minima, 5 are needed"
    )


def test_counts_that_agree_in_every_draw_have_the_width_of_rounding():
    counts = np.repeat([3.0, 4, 5, 3, 4], DRAWS).reshape(5, 1, DRAWS)
    made = study({"outliers": (("minimum", "softmax", "draw"), counts)}, minimum=MINIMA, softmax=MATCHED[:1])
    row = judged("sb6", boundary=made)["published-adversarial"]
    assert row["estimate"] == 1.5 and row["low"] == pytest.approx(1.5 - 2.3646 * 0.5 / np.sqrt(12 * DRAWS), abs=1e-4)


def test_the_last_epoch_is_read_where_none_is_named():
    values = np.array([1.0, 2.0])[:, None] + NOISE
    cell = study({"norm": (("epoch", "draw"), values)}, epoch=[20, 200]).isel(dataset=0, network=0, subspace=0)
    assert decision_boundary.boundary_value(cell, {"variable": "norm"})[0].value == pytest.approx(2, abs=0.02)
    assert decision_boundary.boundary_value(cell, {"variable": "norm", "epoch": 20})[0].value == pytest.approx(
        1, abs=0.02
    )


def test_a_rival_that_orders_as_well_is_not_beaten():
    made = family([1, 2, 4, 1.5, 2.5], [0.1, 0.2, 0.3, 0.15, 0.25], rivals=[-1, -2, -4, -1.5, -2.5])
    row = judged("sb8", boundary_family=made)["maximum-beats-margin"]
    assert row["verdict"] == evaluate.NOT_TESTED and row["reason"] == "what is compared is equal in every draw"
    worse = family([1, 2, 0.5, 1.5, 2.5], [0.1, 0.2, 0.3, 0.15, 0.25], rivals=[-1, -2, -4, -1.5, -2.5])
    assert judged("sb8", boundary_family=worse)["maximum-beats-margin"]["verdict"] == evaluate.NOT_REPRODUCED
    constant = family([1, 1, 1, 1, 1], [0.1, 0.2, 0.3, 0.15, 0.25])
    row = judged("sb8", boundary_family=constant)["mean-published-tau"]
    assert row["reason"] == "this run has 0 of 8 draws whose minima differ, 4 are needed"
    assert judged("sb8", boundary_family=made.isel(minimum=slice(0, 3)))["mean-published-tau"]["reason"].startswith(
        "this run has 3 minima"
    )


def test_margins_and_shares_are_compared_without_the_sign_of_a_guess():
    rows = judged(
        "by11", boundary_family=family([1, 2, 0.5, 1.5, 2.5], [0.1, 0.2, 0.3, 0.15, 0.25], [-1, -2, -4, -1.5, -2.5])
    )
    assert rows["better"]["estimate"] == pytest.approx(1 - 0.2) and rows["better"]["verdict"] == evaluate.REPRODUCED
    assert rows["alike"]["verdict"] == evaluate.NOT_REPRODUCED
    wrong = judged(
        "by11", boundary_family=family([1, 2, 4, 1.5, 2.5], [0.1, 0.2, 0.3, 0.15, 0.25], [1, 2, 4, 1.5, 2.5])
    )
    assert wrong["better"]["estimate"] == pytest.approx(-2)


def flat(contrast_published, contrast_matched, epochs=(20, 200, 2000), network="fc-100x2-relu"):
    """Made-up study with Tr G of minima from random labels and from a large norm, relative to normal minima.

    The contrasts are logarithms of this ratio, at the published and at the matched temperature.
    """
    softmax = [*MATCHED, "entropy-0.3"]
    ratios = np.exp([contrast_published, contrast_matched, 0.0])
    values = np.stack([np.exp(NOISE) * np.ones((3, DRAWS)), ratios[:, None] * np.exp(NOISE[::-1])])[[0, 1, 1]]
    dims = ("minimum", "softmax", "draw")
    variables = {
        "gauss_newton_trace": (dims, values),
        "gauss_newton_eigenvalue": ((*dims[:2], "rank", "draw"), values[:, :, None]),
    }
    axes = {
        "dataset": ["gauss_published"],
        "minimum": ["normal", "adversarial-2500", "large_norm-2500"],
        "network": [network],
    }
    return study(variables, epoch=epochs, softmax=softmax, rank=[1], **axes)


def test_flatness_is_compared_in_logarithms_after_each_number_of_epochs():
    rows = judged("sb9", boundary_published=flat(-3.0, 1.0))
    assert rows["trace-published-adversarial-20"]["estimate"] == pytest.approx(-3)
    assert rows["eigenvalue-published-large-2000"]["verdict"] == evaluate.REPRODUCED
    assert rows["trace-matched-large-200"]["verdict"] == rows["sb9"]["verdict"] == evaluate.NOT_REPRODUCED
    short = judged("sb9", boundary_published=flat(-3.0, 1.0, epochs=(20,)))
    assert short["trace-published-large-2000"]["reason"] == "this run has no epoch 2000 in its study"
    rows = judged("by10", boundary_published=flat(-3.0, 1.0))
    assert rows["change-large"]["estimate"] == pytest.approx(4) and rows["trace-adversarial"][
        "estimate"
    ] == pytest.approx(1)
    assert rows["change-large"]["verdict"] == evaluate.REPRODUCED
    assert judged("by10", boundary_published=flat(1.0, -1.0))["change-large"]["verdict"] == evaluate.NOT_REPRODUCED


def test_equal_norms_are_compared_over_strengths():
    made = family([1, 2, 4, 1.5, 2.5], [0.1] * 5, rivals=[3, 4, 5, 3.5, 4.5])
    rows = judged("by10", boundary_family=made)
    assert rows["norm-share"]["estimate"] == pytest.approx(1) and rows["norm-share"]["verdict"] == evaluate.REPRODUCED
    assert rows["norm-dimension"]["estimate"] == pytest.approx(0.5)
    assert rows["norm-margin"]["verdict"] == rows["norm-trace"]["verdict"] == evaluate.NOT_REPRODUCED
