"""Needs of cases, below which a run gives estimates without verdicts."""

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from goldilocks_zone.claims import definitions, evaluate, needs
from goldilocks_zone.config import load, studies

ROOT = Path(__file__).parents[3]


def cell(rates=None, **settings):
    axes = {"draw": range(3)} | ({} if rates is None else {"rate": rates})
    values = np.ones([len(each) for each in axes.values()])
    return xr.Dataset({"loss": (list(axes), values)}, axes, {"settings": json.dumps(settings)})


@pytest.mark.parametrize(
    "given, here, sentence",
    [
        ({"draws": 3}, cell(), ""),
        ({"draws": 4}, cell(), "needs 4 draws, and this run has 3"),
        ({"steps": 65}, cell(steps=65), ""),
        ({"steps": 975}, cell(steps=65), "needs 975 steps of training, and this run has 65"),
        ({"epochs": 300}, cell(epochs=[20, 300]), ""),
        ({"epochs": 301}, cell(epochs=[20, 300]), "needs 301 epochs, and this run has 300"),
        ({"epochs": 1}, cell(epochs=[]), "needs 1 epochs, and this run has 0"),
        ({"travel": 14}, cell(steps=975), "needs a learning rate times steps of 14, and this run has 0"),
        ({"steps": 1, "draws": 9}, cell(steps=1), "needs 9 draws, and this run has 3"),
    ],
)
def test_what_a_cell_lacks_is_a_sentence(given, here, sentence):
    assert needs.unmet(given, here) == sentence


def test_travel_is_the_largest_rate_times_steps():
    fixed = cell(steps=100, rate=0.1)
    assert needs.unmet({"travel": 10}, fixed) == "" and "has 10" in needs.unmet({"travel": 11}, fixed)
    several = cell([0.1, 0.2], steps=100)
    assert needs.unmet({"travel": 20}, several) == ""
    assert "has 10" in needs.unmet({"travel": 20}, several.isel(rate=0))


def made(steps):
    values = np.linspace(0.9, 1.1, 8)
    axes = {"dataset": ["mnist"], "network": ["fc-200x2-relu"], "subspace": ["plane-50-sparse"], "radius": [1.0]}
    found = xr.Dataset({"kappa": ((*axes, "draw"), values[None, None, None, None])})
    found = found.assign_coords(**axes, draw=range(8), x=("radius", [0.0]))
    return found.assign_attrs(settings=json.dumps({"steps": steps}))


def judged(steps, **changed):
    case = {"statement": "s", "study": "one", "quantity": "zone_at_every_radius", "unit": "1"}
    case |= {
        "test": "superiority",
        "reference": 0.5,
        "of": {"variable": "kappa"},
        "window": [-1, 1],
        "needs": {"steps": 100},
        **changed,
    }
    claims = {"it": {"work": "w", "statement": "s", "cases": {"a": case}}}
    return {row["id"]: row for row in evaluate.evaluate(claims, {"one": made(steps)}, "run")}


def test_a_run_with_less_has_an_estimate_and_no_verdict():
    enough, less = judged(100), judged(99)
    assert [enough[name]["verdict"] for name in ("it", "it.a")] == ["reproduced"] * 2
    assert [less[name]["verdict"] for name in ("it", "it.a")] == ["not tested"] * 2
    assert less["it.a"]["reason"] == "needs 100 steps of training, and this run has 99"
    assert less["it.a"]["estimate"] == enough["it.a"]["estimate"] == pytest.approx(1)


def test_a_secondary_study_is_held_to_its_own_needs(tmp_path):
    """Needs of another study replace those of the case's study, key by key, and those of the case itself both."""
    (tmp_path / "a.yaml").write_text(
        """
work: w
needs: {one: {steps: 100, draws: 2}, two: {steps: 10}, three: {draws: 9}}
it:
  statement: s
  defaults: {statement: s, study: one, also: [two, three, four], quantity: zone_at_every_radius, unit: "1"}
  cases:
    a: {of: {variable: kappa}, window: [-1, 1], expect: {above: 0.5}}
    b: {of: {variable: kappa}, window: [-1, 1], expect: {above: 0.5}, needs: {steps: 50}}
"""
    )
    cases = definitions.load(tmp_path)["it"]["cases"]
    assert cases["a"]["needs_also"] == {"two": {"steps": 10, "draws": 2}, "three": {"steps": 100, "draws": 9}}
    assert cases["b"]["needs_also"]["two"] == {"steps": 50, "draws": 2}
    studies = {name: made(20) for name in ("one", "two", "four")}
    rows = {row["id"]: row for row in evaluate.evaluate(definitions.load(tmp_path), studies, "run")}
    place = "mnist.fc-200x2-relu.plane-50-sparse"
    assert (
        rows["it.a"]["reason"]
        == rows[f"it.a.four.{place}"]["reason"]
        == ("needs 100 steps of training, and this run has 20")
    )
    assert rows[f"it.a.two.{place}"]["verdict"] == "reproduced"


def test_the_full_run_has_what_every_case_needs():
    """The full configuration meets the needs of every case whose study it has."""
    configured, cases = load.load().studies, definitions.load(ROOT / "config/claims").values()
    checked = set()
    for case in (case for claim in cases for case in claim.get("cases", {}).values()):
        if case["study"] not in configured or not case.get("needs"):
            continue
        study = configured[case["study"]]
        given = {key: study.model_dump().get(key, 0) for key in ("steps", "rate", "epochs")}
        rates = studies.varied(study).get("rate")
        here = cell(rates, **given).isel(draw=[0] * study.draws)
        assert needs.unmet(case["needs"], here) == "", case["study"]
        checked.add(case["study"])
    assert len(checked) > 50
