"""`make draws`: the numbers of draws at which intervals reach half-way to their margins."""

import pytest

from goldilocks_zone.cli import draws
from goldilocks_zone.randomness import stream
from goldilocks_zone.statistics import estimates, hypotheses

SUPERIORITY = {"study": "one", "test": "superiority", "margin": 0.1}
EQUIVALENCE = {"study": "two", "test": "equivalence", "margin": 0.3, "reference": 1.0}
IDENTITY = {"study": "two", "test": "identity", "margin": 1e-8}
CLAIMS = {
    "a": {"cases": {"above": SUPERIORITY, "out-of-reach": SUPERIORITY}},
    "b": {"cases": {"near": EQUIVALENCE, "algebra": IDENTITY}},
    "c": {},
}


def row(name, estimate, half_width, n, margin):
    ends = {"low": str(estimate - half_width), "high": str(estimate + half_width)} if half_width else {"low": ""}
    return {"id": name, "estimate": str(estimate), "high": "", **ends, "n": str(n), "margin": str(margin)}


def test_draws_are_those_of_half_the_distance_to_the_margin():
    rows = [
        row("a", 0.5, 0.1, 20, 0.1),  # a claim, not a case
        row("a.above", 0.5, 0.2, 20, 0.1),  # 0.2 is half of 0.4 already
        row("b.near", 1.1, 0.15, 10, 0.3),  # 0.15 should be 0.1
        row("b.algebra", 1e-12, 0, 10, 1e-8),
    ]
    found = draws.asked(CLAIMS, rows)
    assert found["one"] == draws.Asked(20, "a.above", [])
    assert found["two"] == draws.Asked(23, "b.near", [])


def test_a_case_out_of_reach_is_named_and_asks_for_nothing():
    rows = [row("a.above", 0.5, 0.1, 20, 0.1), row("a.out-of-reach", 0.12, 0.2, 20, 0.1)]
    assert draws.asked(CLAIMS, rows)["one"] == draws.Asked(draws.FEWEST, "a.above", ["a.out-of-reach"])
    rows = [row("a.out-of-reach", 0.12, float("inf"), 20, 0.1)]
    assert draws.asked(CLAIMS, rows)["one"] == draws.Asked(draws.FEWEST, "none", ["a.out-of-reach"])


def test_with_the_draws_asked_for_the_interval_reaches_half_way():
    few, margin, values = 50, 0.1, stream("draws").standard_normal(10_000)
    half_widths = []
    for count in (few, None):
        count = count or draws.asked(CLAIMS, [row("a.above", 0.4, half_widths[0], few, margin)])["one"].draws
        # As many values as draws, all with one deviation.
        some = values[:count]
        estimate = estimates.mean(0.4 + 0.6 * (some - some.mean()) / some.std(ddof=1))
        low, high = estimate.interval(hypotheses.Test("superiority", margin).level)
        half_widths.append((high - low) / 2)
    assert half_widths[0] > 0.15 and half_widths[1] == pytest.approx(0.15, rel=0.02)


def test_a_run_without_results_is_refused(tmp_path, monkeypatch):
    (tmp_path / "tiny.yaml").write_text("run: tiny\nstudies: {}\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"results/tiny/claims\.csv is missing: .* build the run first"):
        draws.run([tmp_path / "tiny.yaml"])
