"""Verdicts on made-up studies with known answers."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from goldilocks_zone.claims import cells, curves, definitions, evaluate, quantities
from goldilocks_zone.config import load
from goldilocks_zone.config.studies import dimension
from goldilocks_zone.randomness import stream
from goldilocks_zone.statistics import estimates, hypotheses

ROOT = Path(__file__).parents[3]
DEFINITIONS = definitions.load(ROOT / "config/claims")
X = np.linspace(-4, 4, 25)
COUNTS = [250, 1000]


def study(
    draws=8,
    noise=0.01,
    planes=1,
    dimensions=(10, 50, 100),
    subspace="plane-100-sparse",
    peak=0.0,
    zone=True,
    **settings,
):
    """Made-up curvature study with a zone between two logistic edges, which peaks at x = `peak`, and noise.

    Without `zone`, κ is noise. `settings` replace the primary settings.
    """
    random = stream("study", draws, planes)
    shape = (1, 1, 1, len(COUNTS), len(X), len(dimensions), draws)
    outer = np.array([1.5, 1.9])[:, None]
    height = 1 / (1 + np.exp(-6 * (X + 1))) / (1 + np.exp(3 * (X - outer))) if zone else np.zeros((2, len(X)))
    height = np.maximum(height - 0.03 * (X - peak) ** 2 * (height > 0.01), 0)[:, :, None, None]
    d = np.array(dimensions)[:, None]
    made = {
        "fraction_positive": 0.5 + 0.5 * height * (1 - d / 200),
        "trace_over_norm": height * np.sqrt(d) * 0.7,
        "trace": height * (10 ** (X / 2))[:, None, None] + 0 * d,
        "effective_examples": np.where(X < 1.4, 500, 5)[:, None, None] * (1 + 0 * height) + 0 * d,
    }
    data = {}
    for name, values in made.items():
        factor = 1 if name in ("fraction_positive", "trace_over_norm") else values.std()
        noisy = np.broadcast_to(values, shape[3:]) + noise * factor * random.standard_normal(shape[3:])
        data[name] = ((*cells.CELL, "radius", "dimension", "draw"), noisy[None, None, None])
        data[f"{name}_plane_variance"] = (data[name][0], np.full(shape, (noise * factor) ** 2))
    loss = np.log(10) * (X < 0.5) + (10 ** (3 * X / 2)) * (X >= 0.5)
    loss = loss[None, :, None] * (1 + 0.001 * random.standard_normal((2, 1, draws)))
    data["loss"] = ((*cells.CELL, "radius", "draw"), loss[None, None, None])
    full = height[:, :, 0, 0] * 0.7
    kappa = np.sqrt(51) * full / np.sqrt(np.maximum(1 - full**2, 0.1))
    data["full_trace"] = (data["loss"][0], np.broadcast_to(kappa[None, None, None, ..., None], (1, 1, 1, 2, 25, draws)))
    data["full_frobenius_norm"] = (data["loss"][0], np.ones((1, 1, 1, 2, 25, draws)))
    coordinates = {
        "dataset": ["mnist"],
        "network": ["fc-200x2-relu"],
        "subspace": [subspace],
        "examples": COUNTS,
        "radius": 10 ** (X / 2),
        "dimension": list(dimensions),
        "draw": range(draws),
    }
    settings = json.dumps(cells.PRIMARY_SETTINGS | settings)
    result = xr.Dataset(data, coordinates, attrs={"planes": planes, "settings": settings})
    return result.assign_coords(x=("radius", X))


@pytest.fixture(scope="module")
def rows():
    studies = {name: study(planes=planes) for name, planes in [("curvature", 1), ("isotropy", 4), ("inside", 8)]}
    return {row["id"]: row for row in evaluate.evaluate(DEFINITIONS, studies, "test")}


def test_every_claim_of_the_papers_has_a_row(rows):
    expected = [f"fs{i}" for i in range(1, 16)] + ["li1", "li2"] + [f"ch{i}" for i in range(1, 7)]
    expected += (
        [f"vd{i}" for i in range(1, 13)]
        + [f"fg{i}" for i in range(1, 8)]
        + ["fg8a", "fg8b", "fg8c", "fg9"]
        + [f"sb{i}" for i in range(1, 15)]
        + [f"dl{i}" for i in range(1, 8)]
        + [f"jz{i}" for i in range(1, 6)]
        + [f"by{i}" for i in range(1, 12)]
    )
    expected += [f"beyond_{name}" for name in ("biases", "tanh", "residual", "normalisation")]
    assert [name for name in rows if "." not in name] == expected
    for row in rows.values():
        assert tuple(row) == evaluate.COLUMNS
        assert row["verdict"] in (
            evaluate.REPRODUCED,
            evaluate.NOT_REPRODUCED,
            evaluate.INCONCLUSIVE,
            evaluate.NOT_TESTED,
        )
        assert row["work"] and row["statement"] and row["run"] == "test"


@pytest.mark.parametrize(
    "case, verdict",
    [
        ("fs1.band", "reproduced"),
        ("fs1.inside-d50", "reproduced"),
        ("fs1.outer-edge", "reproduced"),
        ("fs2.d10-d50", "reproduced"),
        ("fs2.d50-d100", "reproduced"),
        ("fs3.zone", "reproduced"),
        ("fs3.inside", "reproduced"),
        ("fs3.rises", "reproduced"),
        ("fs3.law-d50", "reproduced"),
        ("fs4.fraction", "reproduced"),
        ("fs6.total", "reproduced"),
        ("fs7.plateau", "reproduced"),
        ("fs7.exponent", "reproduced"),
        ("fs8", "not tested"),
    ],
)
def test_claims_hold_where_they_are_true(rows, case, verdict):
    assert rows[case]["verdict"] == verdict, rows[case]


@pytest.mark.parametrize("case", ["fs1.band", "fs3.zone", "fs2.d10-d50"])
def test_claims_fail_where_there_is_no_zone(case):
    flat = {row["id"]: row for row in evaluate.evaluate(DEFINITIONS, {"curvature": study(zone=False)}, "test")}
    assert flat[case]["verdict"] != evaluate.REPRODUCED
    assert flat["fs3.zone"]["verdict"] == evaluate.NOT_REPRODUCED


def test_a_peak_elsewhere_is_not_reproduced():
    moved = {row["id"]: row for row in evaluate.evaluate(DEFINITIONS, {"curvature": study(peak=4.0)}, "test")}
    assert moved["fs4"]["verdict"] == evaluate.NOT_REPRODUCED
    row = moved["fs4.trace-over-norm"]
    assert row["verdict"] == evaluate.NOT_REPRODUCED and row["estimate"] == 1 and row["high"] == np.inf
    # The window ends there, at a lower bound: half a step of 1/3 to the inner side, by Student's quantile of 8 draws.
    assert row["low"] == pytest.approx(1 - 2.365 / 6 / np.sqrt(3), abs=0.01)
    assert row["smallest_effect"] == pytest.approx((2.365 + 1.415) / 6 / np.sqrt(3), abs=0.01)


def coarse(places, top, draws=8):
    """Made-up study at few radii, at x in `places`, in which every draw has its maximum at the x nearest to `top`."""
    values = 1 - 0.1 * np.abs(np.array(places) - top)[:, None] + 1e-6 * stream("coarse").standard_normal((1, draws))
    made = curve_study(values, places, "fraction_positive").expand_dims(subspace=["plane-50-sparse"])
    return made.assign_attrs(settings=json.dumps(cells.PRIMARY_SETTINGS))


@pytest.mark.parametrize(
    "places, top, reason",
    [
        # The last radius of the window: the next one is outside, and the maximum may be there.
        ([-2, -4 / 3, -2 / 3, 0, 2 / 3, 4 / 3], 2 / 3, "the place of the highest value is censored: it is at an end"),
        (
            [-2, -1, 0, 1],
            0,
            "the quantity is read off a grid in steps of 1, and half a step exceeds the margin of 0.334",
        ),
        (
            [-2, -1, 0, 1],
            -1,
            "the quantity is read off a grid in steps of 1, and half a step exceeds the margin of 0.334",
        ),
    ],
)
def test_a_place_that_the_radii_do_not_resolve_is_not_tested(places, top, reason):
    case = {**DEFINITIONS["fs4"]["cases"]["fraction"], "cell": {}}
    row = judged({"fraction": case}, curvature=coarse(places, top))["fs8.fraction"]
    assert row["verdict"] == evaluate.NOT_TESTED and row["reason"].startswith(reason), row
    assert row["estimate"] == row["low"] == row["high"] == ""


def test_what_is_not_tested_has_no_part_in_other_verdicts():
    """An undecidable case is left out of its family and of the claim's cells, and makes the claim inconclusive."""
    chance = trained_study().sel(rate_rule=["fixed"])
    flat = chance.assign(test_accuracy=chance["test_accuracy"] * 0 + 0.1)
    clear = judged({"falls": FALL}, planes=trained_study())["fs8.falls"]
    reach = 1.15 * (float(clear["estimate"]) - float(clear["low"]))
    close = {**FALL, "margin": float(clear["estimate"]) - reach, "family": "one"}
    rows = judged({"a": close, "b": {**close, "study": "flat"}}, planes=trained_study(), flat=flat)
    # As one of two, it would be inconclusive.
    assert rows["fs8.a"]["verdict"] == evaluate.REPRODUCED
    assert rows["fs8.b"]["verdict"] == evaluate.NOT_TESTED
    assert rows["fs8"]["verdict"] == evaluate.INCONCLUSIVE
    assert rows["fs8"]["reason"] == rows["fs8.b"]["reason"] == "what is compared is equal in every draw"


def test_a_radius_that_fails_decides_beside_one_that_is_open():
    made = trained_study().sel(rate_rule=["fixed"])
    at_x = xr.where(made["x"] == 2, made["test_accuracy"].sel(radius=1), made["test_accuracy"])
    alike = made.assign(test_accuracy=at_x.transpose(*made["test_accuracy"].dims))
    assert judged({"falls": FALL}, planes=alike)["fs8.falls"]["verdict"] == evaluate.NOT_TESTED
    row = judged({"falls": {**FALL, "margin": 0.5}}, planes=alike)["fs8.falls"]
    assert row["verdict"] == evaluate.NOT_REPRODUCED and row["estimate"] == pytest.approx(0.4, abs=0.01)


def test_a_case_speaks_of_cells_by_axes_and_by_what_networks_and_datasets_are():
    study = xr.Dataset(coords={"dataset": ["mnist"], "classes": ("dataset", [10])})
    place = {"dataset": "mnist", "network": "fc-200x2-relu-nobias", "bias_directions": False}

    def speaks(changed=None, **holds_for):
        return cells.holds_for({"holds_for": holds_for}, place | (changed or {}), study)

    assert speaks() and speaks(layers=3, homogeneous=True, classes=10, network="*-relu*", bias_directions=False)
    assert speaks(layers=[2, 3]) and not speaks(layers=2) and not speaks(classes=3)
    assert not speaks({"network": "fc-200x2-tanh-nobias"}, homogeneous=True)
    assert not speaks({"network": "my_network"}, layers=3)
    # A study without the axis has one value of it, which its settings guard.
    assert speaks(rescaled="parameters")


def test_every_case_speaks_of_its_own_cell_and_of_cells_that_there_are():
    full = load.read(load.shipped())["studies"]
    found = 0
    for claim in DEFINITIONS.values():
        for case in claim.get("cases", {}).values():
            for name in case.get("holds_for", {}):
                axes = {"subspace", *map(dimension, full[case["study"]].get("vary", {}))}
                assert name in {*cells.CELL, *cells.NETWORK_PROPERTIES, "classes", *axes}
            usual = cells.PRIMARY_SETTINGS | case.get("settings", {})
            place = {cells.VARIED[key]: value for key, value in usual.items()}
            place |= {**cells.PRIMARY_CELL, "subspace": "plane-100-sparse", **case.get("cell", {})}
            study = xr.Dataset(coords={"dataset": [place["dataset"]], "classes": ("dataset", [10])})
            assert cells.holds_for(case, place, study), case["statement"]
            found += "holds_for" in case
    assert found == 67


def test_noise_makes_a_claim_inconclusive():
    noisy = {row["id"]: row for row in evaluate.evaluate(DEFINITIONS, {"curvature": study(draws=3, noise=2.0)}, "test")}
    assert noisy["fs2.d10-d50"]["verdict"] == evaluate.INCONCLUSIVE


def test_missing_studies_and_too_few_draws_are_not_tested_and_say_why():
    rows = {row["id"]: row for row in evaluate.evaluate(DEFINITIONS, {"curvature": study(draws=1)}, "test")}
    assert rows["fs1.band"]["verdict"] == evaluate.NOT_TESTED and "1 draw" in rows["fs1.band"]["reason"]
    assert rows["fs6"]["verdict"] == evaluate.NOT_TESTED and "isotropy" in rows["fs6.total"]["reason"]
    assert all(row["reason"] for row in rows.values() if row["verdict"] == evaluate.NOT_TESTED)


@pytest.mark.parametrize(
    "changed, part",
    [
        ({"metric": "identity"}, "the claim is about metric shell, and the study curvature has identity"),
        ({"labels": "shuffled"}, "the claim is about labels original"),
        ({"classes": 2}, "the claim is about classes all, and the study curvature has 2"),
        ({"subspace": "plane-100-dense"}, "no subspace of sparse planes"),
    ],
)
def test_another_experiment_is_no_verdict_on_a_claim(changed, part):
    rows = {row["id"]: row for row in evaluate.evaluate(DEFINITIONS, {"curvature": study(**changed)}, "test")}
    assert rows["fs1.band"]["verdict"] == evaluate.NOT_TESTED and part in rows["fs1.band"]["reason"]


def test_the_radius_with_the_least_room_decides(rows):
    studies = {"curvature": study()}
    cell = studies["curvature"].sel(examples=1000, dimension=50).squeeze()
    band = cell["fraction_positive"].isel(radius=(X > -0.34) & (X < 1.01))
    assert rows["fs1.band"]["estimate"] == pytest.approx(float(band.mean("draw").min()), abs=0.02)


def test_a_radius_that_refutes_the_claim_decides_before_a_wide_one_that_is_open():
    """At one radius the values lie far above the claim, narrowly; at another they scatter about its bound."""
    made = study(draws=4)
    values = np.array([[0.18, 0.19, 0.185, 0.182], [0.1, 0.3, 0.5, -0.5]])
    for order in (slice(None), slice(None, None, -1)):
        here = made.isel(radius=[0, 1]).assign(
            loss=made["loss"].isel(radius=[0, 1]) * 0 + xr.DataArray(values[order], dims=("radius", "draw"))
        )
        case = {
            "statement": "s",
            "study": "curvature",
            "quantity": "zone_at_every_radius",
            "unit": "1",
            "of": {"variable": "loss"},
        }
        case |= {"window": [-9, 9], "test": "superiority", "reference": 0.05, "direction": "below"}
        (row,) = [
            row
            for row in evaluate.evaluate(
                {"a": {"work": "w", "statement": "s", "cases": {"b": case}}}, {"curvature": here}, "run"
            )
            if row["id"] == "a.b"
        ]
        assert row["verdict"] == evaluate.NOT_REPRODUCED and row["estimate"] == pytest.approx(0.18425)


def test_an_interval_that_is_no_number_gives_no_verdict(monkeypatch):
    from goldilocks_zone.claims import quantities

    unknown = estimates.Estimate(-0.7, 0.1, 10, lambda level: (np.nan, np.nan))
    monkeypatch.setattr(quantities, "estimate", lambda *given: [unknown])
    rows = {row["id"]: row for row in evaluate.evaluate(DEFINITIONS, {"curvature": study()}, "test")}
    assert rows["fs1.band"]["verdict"] == evaluate.NOT_TESTED and "not a number" in rows["fs1.band"]["reason"]


def test_a_claim_shows_the_estimate_of_the_case_that_fails():
    cases = [
        {"verdict": evaluate.REPRODUCED, "control": "", "estimate": 1.0},
        {"verdict": evaluate.FAILS, "control": "", "estimate": 2.0},
    ]
    assert evaluate._summary(cases, {}) == {"verdict": evaluate.NOT_REPRODUCED, "estimate": 2.0}


def test_other_cells_are_secondary_rows(rows):
    secondary = [name for name in rows if name.startswith("fs2.d10-d50.")]
    assert secondary == ["fs2.d10-d50.mnist.fc-200x2-relu.plane-100-sparse.N=250"]
    # A case that compares numbers of examples has no other number of examples.
    assert not [name for name in rows if name.startswith("fs1.outer-edge.")]


@pytest.mark.parametrize(
    "values, test, verdict",
    [
        ([1.9, 2.0, 2.1], hypotheses.Test("superiority", 0.0, 1.0), "reproduced"),
        ([1.9, 2.0, 2.1], hypotheses.Test("superiority", 0.0, 3.0), "not reproduced"),
        ([1.0, 2.0, 3.0], hypotheses.Test("superiority", 0.0, 1.0), "inconclusive"),
        ([1.9, 2.0, 2.1], hypotheses.Test("superiority", 0.0, 3.0, "below"), "reproduced"),
        ([1.9, 2.0, 2.1], hypotheses.Test("equivalence", 0.5, 2.0), "reproduced"),
        ([1.9, 2.0, 2.1], hypotheses.Test("equivalence", 0.05, 2.0), "inconclusive"),
        ([1.9, 2.0, 2.1], hypotheses.Test("location", 0.1, 3.0), "not reproduced"),
    ],
)
def test_verdicts_by_hand(values, test, verdict):
    estimate = estimates.mean(np.array(values))
    assert test.verdict(*test.p_values(estimate)) == verdict


@pytest.mark.slow
def test_smallest_effect_of_a_superiority_is_found_four_times_in_five():
    random = stream("power")
    test = hypotheses.Test("superiority", 0.0)
    exact = estimates.Estimate(0, 1 / np.sqrt(10), 10, lambda level: (0, 0))
    effect, found = test.smallest_effect(exact), 0
    for _ in range(400):
        estimate = estimates.mean(random.standard_normal(10) + effect)
        found += test.verdict(*test.p_values(estimate)) == evaluate.REPRODUCED
    assert 0.72 < found / 400 < 0.88


def test_vertex_of_a_parabola_between_grid_points():
    x = np.linspace(-2, 2, 13)
    assert curves.vertex_within_reach(x, 3 - (x - 0.123) ** 2) == pytest.approx([0.123] * 3)
    # Rising to the end of the grid, the maximum is there or beyond; a flat curve has it anywhere.
    assert curves.vertex_within_reach(x, x) == pytest.approx([2 - 1 / 6, 2, np.inf])
    assert curves.vertex_within_reach(x, 0 * x) == pytest.approx([-np.inf, 0, np.inf])
    # A plateau of three radii, or a step too wide for a parabola: half-way to the next radii.
    assert curves.vertex_within_reach(x, np.minimum(1, 2 - np.abs(x - x[5]) / 0.34)) == pytest.approx(
        x[5] + [-0.5, 0, 0.5]
    )
    assert curves.vertex_within_reach(x[::3], -np.abs(x[::3])) == pytest.approx([-0.5, 0, 0.5])


def test_definitions_name_known_quantities_and_tests():
    for claim in DEFINITIONS.values():
        for case in claim.get("cases", {}).values():
            assert case["quantity"] in quantities.known()
            assert case["test"] in ("superiority", "equivalence", "location", "identity")
            assert case["test"] == "superiority" or case["margin"] > 0


def trained_study(rates=(0.001,), **settings):
    """Made-up training study whose accuracy falls beyond r_X at a fixed learning rate.

    At a rate proportional to the radius, it does not. There are nine radii and six draws.
    """
    x, draws, rules = np.linspace(-4, 4, 9), 6, ["fixed", "proportional"]
    means = np.array([np.where(x > 0, 0.4, 0.8), np.full(9, 0.8)])
    noise = 0.002 * stream("trained").standard_normal((len(rates), 2, 9, draws))
    values = means[None, :, :, None] + noise
    coordinates = {
        "dataset": ["mnist"],
        "network": ["fc-200x2-relu"],
        "subspace": ["plane-100-sparse"],
        "rate": list(rates),
        "rate_rule": rules,
        "radius": 10 ** (x / 2),
        "draw": range(draws),
    }
    dims = tuple(coordinates)
    made = xr.Dataset({"test_accuracy": (dims, values[None, None, None])}, coordinates)
    made = made.assign_coords(x=("radius", x), classes=("dataset", [10]))
    made.attrs["settings"] = json.dumps({"initialisation": "glorot", "metric": "shell", **settings})
    made.attrs["test_examples"] = "10000"
    return made if len(rates) > 1 else made.isel(rate=0, drop=True)


FALL = {
    "statement": "It falls.",
    "study": "planes",
    "quantity": "accuracy_fall",
    "window": [1, 4],
    "test": "superiority",
    "margin": 0.03,
    "unit": "accuracy",
    "cell": {"rate_rule": "fixed"},
}


def judged(cases, **studies):
    rows = evaluate.evaluate({"fs8": {"work": "w", "statement": "s", "cases": cases}}, studies, "test")
    return {row["id"]: row for row in rows}


def test_controls_are_judged_and_decide_nothing():
    control = {**FALL, "cell": {"rate_rule": "proportional"}, "control": True}
    rows = judged({"falls": FALL, "falls-rate": control}, planes=trained_study())
    assert rows["fs8.falls"]["verdict"] == rows["fs8"]["verdict"] == evaluate.REPRODUCED
    assert rows["fs8.falls-rate"]["verdict"] == evaluate.NOT_REPRODUCED
    assert [rows[name]["control"] for name in ("fs8", "fs8.falls", "fs8.falls-rate")] == ["", "", "control"]
    # The other arm is a secondary cell of the first case, too.
    assert rows["fs8.falls.mnist.fc-200x2-relu.plane-100-sparse.rate_rule=proportional"]["verdict"] == (
        evaluate.NOT_REPRODUCED
    )


def test_cells_of_cases_for_each_value_of_an_unusual_axis_are_judged_once():
    several = trained_study(rates=(0.001, 0.01, 0.1))
    slow, fast = ({**FALL, "cell": {"rate_rule": "fixed", "rate": rate}} for rate in (0.001, 0.1))
    place = "mnist.fc-200x2-relu.plane-100-sparse.rate={}.rate_rule=fixed"
    rows = judged({"slow": slow, "fast": fast}, planes=several)
    # Each case's own cell has a row of its own; the rate between is nobody's.
    assert not {f"fs8.{name}.{place.format(rate)}" for name in ("slow", "fast") for rate in (0.001, 0.1)} & set(rows)
    assert {f"fs8.{name}.{place.format(0.01)}" for name in ("slow", "fast")} <= set(rows)
    # A case that judges in another way repeats the other's cell.
    rows = judged({"slow": slow, "fast": {**fast, "margin": 0.1}}, planes=several)
    assert {f"fs8.slow.{place.format(0.1)}", f"fs8.fast.{place.format(0.001)}"} <= set(rows)


def test_cases_of_a_family_are_adjusted_for_their_number():
    study = trained_study()
    clear = judged({"falls": FALL}, planes=study)["fs8.falls"]
    # As far from the estimate as a little more than the interval reaches: significant by itself, not as one of two.
    reach = 1.15 * (float(clear["estimate"]) - float(clear["low"]))
    close = {**FALL, "margin": float(clear["estimate"]) - reach}
    kept = {row["verdict"] for key, row in judged({"a": close, "b": close}, planes=study).items() if key != "fs8"}
    assert kept == {evaluate.REPRODUCED, evaluate.NOT_REPRODUCED}
    together = {"a": {**close, "family": "one"}, "b": {**close, "family": "one"}}
    rows = judged(together, planes=study)
    assert rows["fs8.a"]["verdict"] == rows["fs8.b"]["verdict"] == rows["fs8"]["verdict"] == evaluate.INCONCLUSIVE
    # Beside a case that is beyond doubt the second stands by itself (Holm 1979).
    rows = judged({**together, "b": {**FALL, "margin": -10.0, "family": "one"}}, planes=study)
    assert rows["fs8.a"]["verdict"] == rows["fs8.b"]["verdict"] == evaluate.REPRODUCED


def test_a_case_names_settings_that_are_not_the_usual_ones():
    unusual = trained_study(initialisation="isotropic")
    rows = judged({"falls": FALL}, planes=unusual)
    assert rows["fs8.falls"]["reason"] == (
        "the claim is about initialisation glorot, and the study planes has isotropic"
    )
    rows = judged({"falls": {**FALL, "settings": {"initialisation": "isotropic"}}}, planes=unusual)
    assert rows["fs8.falls"]["verdict"] == evaluate.REPRODUCED


def test_a_case_names_the_rate_where_there_are_several():
    several = trained_study(rates=(0.001, 0.1))
    rows = judged({"falls": FALL}, planes=several)
    assert rows["fs8.falls"]["reason"] == "the study planes has several values of rate, of which the claim names none"
    rows = judged({"falls": {**FALL, "cell": {"rate_rule": "fixed", "rate": 0.1}}}, planes=several)
    assert rows["fs8.falls"]["verdict"] == evaluate.REPRODUCED


def test_a_study_beside_joins_by_network_and_draw():
    draws = 30
    kappa = stream("kappa").standard_normal(draws)
    accuracy = 0.5 + 0.1 * kappa + 0.01 * stream("accuracy").standard_normal(draws)
    cell = {"dataset": ["mnist"], "network": ["fc-200x2-relu"]}
    dims = ("dataset", "network", "subspace", "radius", "draw", "step")
    early = xr.Dataset(
        {"validation_accuracy": (dims, accuracy.reshape(1, 1, 1, 1, -1, 1))},
        {**cell, "subspace": ["full-free"], "radius": [1.0], "draw": range(draws), "step": [93]},
        {"settings": "{}"},
    )  # fmt: skip
    dims = ("dataset", "network", "subspace", "examples", "radius", "dimension", "draw")
    # In another order, and one draw fewer.
    order = np.arange(draws - 1)[::-1]
    selection = xr.Dataset(
        {"trace_over_norm": (dims, kappa[order].reshape(1, 1, 1, 1, 1, 1, -1))},
        {**cell, "subspace": ["p"], "examples": [1000], "radius": [1.0], "dimension": [200], "draw": order},
    ).assign_coords(x=("radius", [0.0]))
    beside = {
        "study": "selection", "at": {"dimension": 200, "examples": 1000}, "variables": {"kappa": "trace_over_norm"}
    }  # fmt: skip
    case = {
        **FALL, "study": "early", "quantity": "early_correlation", "variable": "kappa", "step": 93,
        "cell": {"subspace": "full-free"}, "beside": beside, "margin": 0.9,
    }  # fmt: skip
    row = judged({"kappa": case}, early=early, selection=selection)["fs8.kappa"]
    assert row["verdict"] == evaluate.REPRODUCED and row["n"] == draws - 1
    row = judged({"kappa": case}, early=early)["fs8.kappa"]
    assert row["reason"] == "the study selection is not part of this run"
    without = selection.drop_vars("trace_over_norm").assign(trace=selection["trace_over_norm"])
    row = judged({"kappa": case}, early=early, selection=without)["fs8.kappa"]
    assert row["reason"] == "the study selection has measured no trace_over_norm"


def on(dataset):
    return study().assign_coords(dataset=[dataset])


def test_a_claim_with_open_parts_is_at_best_inconclusive():
    cases = {name: DEFINITIONS["fs5"]["cases"][name] for name in ("fashion-fraction", "fashion-zone")}
    claim = {**DEFINITIONS["fs5"], "cases": cases, "open": "widths have no study"}
    rows = {row["id"]: row for row in evaluate.evaluate({"fs5": claim}, {"fashion_mnist": on("fashion_mnist")}, "test")}
    for case in cases:
        assert rows[f"fs5.{case}"]["verdict"] == evaluate.REPRODUCED
    assert rows["fs5"]["verdict"] == evaluate.INCONCLUSIVE and rows["fs5"]["reason"] == "widths have no study"


def test_a_case_is_judged_on_the_substitute_of_its_dataset_and_says_so():
    studies = {"cifar10": on("cifar10_jpeg"), "curvature": study()}
    rows = {row["id"]: row for row in evaluate.evaluate(DEFINITIONS, studies, "test", {"cifar10": "cifar10_jpeg"})}
    assert rows["fs5.cifar10-zone"]["verdict"] == evaluate.REPRODUCED
    assert rows["fs5.cifar10-zone"]["statement"].endswith("Judged on cifar10_jpeg in place of cifar10.")
    assert "in place of" not in rows["fs1.band"]["statement"]
    # Without being told to, no verdict rests on another dataset.
    rows = {row["id"]: row for row in evaluate.evaluate(DEFINITIONS, studies, "test")}
    assert rows["fs5.cifar10-zone"]["verdict"] == evaluate.NOT_TESTED


def test_a_case_whose_data_cannot_be_had_says_so():
    rows = {row["id"]: row for row in evaluate.evaluate(DEFINITIONS, {}, "test", left_out={"cifar10": ["cifar10"]})}
    assert rows["fs5.cifar10-zone"]["verdict"] == evaluate.NOT_TESTED
    assert rows["fs5.cifar10-zone"]["reason"] == "cifar10 is unavailable"


def curve_study(values, x, name="trace_over_norm", **coordinates):
    """Made-up study with `values` (…, radius, draw) of the variable `name`, at radii with log10(r²/r_X²) = `x`.

    `coordinates` gives the labels of the other axes, by name and in order.
    """
    array = xr.DataArray(
        np.asarray(values, float),
        dims=(*coordinates, "radius", "draw"),
        coords={**coordinates, "radius": 10 ** (np.asarray(x) / 2), "x": ("radius", np.asarray(x, float))},
        name=name,
    )
    return array.expand_dims(dimension=[50]).to_dataset().assign_attrs(planes=1)


def estimate(quantity, cell, **keys):
    return quantities.estimate(cell, {"quantity": quantity, **keys}, "test")


def test_exponents_of_edges_are_recovered():
    """r_out ∝ N^(1/n): a zone whose outer edge lies at x = (2/n) log10 N − 1 for n = 3, and whose inner edge stays."""
    x, counts = np.linspace(-2, 4, 61), [100, 1000, 10000]
    draws = np.array([-0.05, 0.0, 0.05])
    edges = np.array([[2 / 3 * np.log10(n) - 1 + shift for shift in draws] for n in counts])
    outer = 2 / (1 + np.exp(4 * (x[None, :, None] - edges[:, None, :])))
    inner = 1 / (1 + np.exp(-4 * (x + 1)))
    cell = curve_study(outer * (2 * inner)[None, :, None], x, examples=counts).assign_coords(network="fc-200x2-relu")
    case = {"variable": "trace_over_norm", "dimension": 50, "threshold": 1.0, "examples": counts}
    found = estimate("edge_exponent", cell, **{**case, "edge": "outer", "window": [0, 4], "relative_to_depth": True})[0]
    assert found.value == pytest.approx(0, abs=0.02)
    found = estimate("edge_exponent", cell, **{**case, "edge": "inner", "window": [-2, 0]})[0]
    assert found.value == pytest.approx(0, abs=0.02)
    with pytest.raises(cells.NotTested, match="examples 7"):
        estimate("edge_exponent", cell, **{**case, "edge": "outer", "window": [0, 4], "examples": [7]})


def test_the_collapse_is_found_where_there_is_one():
    """Curves that are one function of σ_z, with a different shift in x for each network; and the converse."""
    x = np.linspace(-2, 2, 41)
    shifts = np.array([-0.6, 0.0, 0.6])
    spread = x[None, :] + shifts[:, None]
    noise = np.array([-0.01, 0.0, 0.01])
    collapsed = np.exp(-(spread[..., None] ** 2)) + noise
    cell = curve_study(collapsed, x, network=["a", "b", "c"])
    cell["logits_std"] = (("network", "radius", "draw"), np.repeat(10 ** spread[..., None], 3, axis=2))
    case = {"variable": "trace_over_norm", "dimension": 50, "window": [-2, 2], "over": ["network"]}
    gain = estimate("collapse_gain", cell, **case)[0]
    assert gain.value > 0.1 and gain.interval(0.95)[0] > 0
    cell["trace_over_norm"] = cell["trace_over_norm"] * 0 + np.exp(-(x**2))[None, None, :, None]
    assert estimate("collapse_gain", cell, **case)[0].value < -0.1


def test_shares_of_variance_are_those_of_cubic_polynomials():
    """κ that is a cubic in log σ_z, and in the radius; with both, each explains its own part."""
    x, shifts, noise = np.linspace(-2, 2, 41), np.array([-0.8, 0.0, 0.8]), np.array([-1e-4, 0.0, 1e-4])
    spread = (x[None, :] + shifts[:, None])[..., None]
    place = np.broadcast_to(x[None, :, None], spread.shape)
    cubic = lambda each: each - 0.3 * each**2 + 0.1 * each**3  # noqa: E731
    case = {"variable": "trace_over_norm", "dimension": 50, "window": [-2, 2], "over": ["network"]}

    def share(values, by, less):
        cell = curve_study(values + noise, x, network=["a", "b", "c"])
        cell["logits_std"] = (("network", "radius", "draw"), np.repeat(10**spread, 3, axis=2))
        return estimate("explained_share", cell, **case, by=by, less=less)[0].value

    of_logits = share(cubic(spread), ["logits"], ["radius"])
    assert 0.1 < of_logits < 1 and share(cubic(place), ["logits"], ["radius"]) < -0.1
    assert share(cubic(spread), ["logits", "radius"], ["logits"]) == pytest.approx(0, abs=1e-9)
    assert share(cubic(spread), ["logits", "radius"], ["radius"]) == pytest.approx(of_logits, abs=1e-9)
    assert share(cubic(spread) + cubic(place), ["logits", "radius"], ["logits"]) > 0.02


def test_partial_correlation_takes_a_common_cause_off():
    random = stream("test", "correlation")
    cause, first, second = random.standard_normal((3, 400))
    values = {"a": cause + 0.1 * first, "b": -cause + 0.1 * second, "c": cause}
    cell = xr.Dataset(
        {name: (("dimension", "radius", "draw"), value[None, None]) for name, value in values.items()},
        {"dimension": [50], "radius": [1.0], "x": ("radius", [0.0])},
    )
    case = {"variables": ["a", "b"], "dimension": 50, "window": [0, 0]}
    plain = estimate("correlation", cell, **case)[0]
    assert plain.value < -0.9
    low, high = estimate("correlation", cell, **{**case, "given": ["c"]})[0].interval(0.95)
    assert low < 0 < high


def test_ratios_of_means_and_plateaus():
    x = [0.0, 1.0]
    values = np.array([[[2.0, 4.0], [3.0, 3.0]], [[1.0, 2.0], [3.0, 3.0]]])
    cell = curve_study(values, x, "trace", sharpness=[100, 0])
    case = {"variable": "trace", "dimension": 50, "window": [0, 1], "over": ["sharpness"], "values": [100, 0]}
    assert [e.value for e in estimate("ratio_along", cell, **case)] == pytest.approx([1.0, 0.0])
    law = np.sqrt(50) * 3 / np.sqrt(9 + 51)
    plateau = curve_study(np.full((2, 3), law), x).assign_coords(class_count=10)
    case = {"dimension": 50, "window": [0, 1]}
    assert estimate("plateau_error", plateau, **case)[0].value == pytest.approx(0, abs=1e-12)


def test_a_case_about_every_value_of_an_axis_is_judged_at_the_worst():
    definitions = {
        "c": {
            "work": "w",
            "statement": "s",
            "cases": {
                "all": {
                    **DEFINITIONS["fs5"]["cases"]["networks-zone"],
                    "cell": {"dataset": "mnist"},
                }
            },
        }
    }
    good, bad = study().assign_coords(network=["fc-200x3-relu"]), study().assign_coords(network=["fc-200x4-relu"])
    bad = bad.assign(trace_over_norm=bad["trace_over_norm"] * 0 + 0.5)
    both = xr.concat([good, bad], dim="network", data_vars="all", coords="minimal", join="outer").assign_attrs(
        good.attrs
    )
    verdict = {name: evaluate.evaluate(definitions, {"networks": data}, "t")[1]["verdict"] for name, data in
               (("good", good), ("both", both))}  # fmt: skip
    assert verdict["good"] == evaluate.REPRODUCED and verdict["both"] != evaluate.REPRODUCED


def test_a_varied_setting_has_a_primary_value_and_others_are_secondary():
    settings = json.loads(study().attrs["settings"])
    both = xr.concat([study(), study()], dim="metric", data_vars="all", coords="minimal").assign_coords(
        metric=["shell", "identity"]
    )
    both.attrs = {**study().attrs, "settings": json.dumps({**settings, "metric": "identity"})}
    rows = evaluate.evaluate({"fs3": DEFINITIONS["fs3"]}, {"curvature": both}, "test")
    named = {row["id"]: row for row in rows}
    assert named["fs3.zone"]["verdict"] != evaluate.NOT_TESTED
    assert any("metric=identity" in row["case"] for row in rows)


def test_a_new_work_and_a_new_quantity_are_a_file_each(tmp_path, room):
    """No other file names them: the claim is judged along with the others, after them."""
    shutil.copytree(ROOT / "config/claims", tmp_path / "claims")
    (tmp_path / "claims/own_2026.yaml").write_text(
        "work: Own 2026\n"
        "own1:\n"
        "  statement: The largest Tr(H)/‖H‖ is above 1.\n"
        "  defaults: {study: curvature, dimension: 50, unit: 1}\n"
        "  cases:\n"
        "    largest: {statement: S., quantity: largest_kappa, expect: {above: 1}}\n"
    )
    (room / "own.py").write_text(
        "from goldilocks_zone.statistics.estimates import Estimate, mean\n\n\n"
        "def largest_kappa(cell, dimension: int) -> list[Estimate]:\n"
        '    return [mean(cell["trace_over_norm"].sel(dimension=dimension).max("radius").values)]\n'
    )
    found = evaluate.evaluate(definitions.load(tmp_path / "claims"), {"curvature": study()}, "test")
    verdicts = {row["id"]: (row["work"], row["verdict"]) for row in found}
    assert verdicts["own1.largest"] == verdicts["own1"] == ("Own 2026", evaluate.REPRODUCED)
    assert [row["id"] for row in found if not row["case"]][-1] == "own1"
    assert verdicts["fs1.band"][1] == evaluate.REPRODUCED
