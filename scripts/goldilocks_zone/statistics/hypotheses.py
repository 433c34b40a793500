"""Hypothesis tests on estimates: superiority, equivalence, location and identity, with Holm's procedure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from goldilocks_zone.statistics.estimates import Estimate, p_above, student

REPRODUCED, NOT_REPRODUCED, INCONCLUSIVE, NOT_TESTED = "reproduced", "not reproduced", "inconclusive", "not tested"
HOLDS, FAILS = "identity holds", "identity fails"  # mathematical identities, hence not empirical findings
POWER = 0.8
IDENTITY = "identity"


@dataclass(frozen=True)
class Test:
    """A test of an estimate: kind, margin, reference value, and the direction of a superiority test (above or below).

    kind: superiority, equivalence, location or identity. For an identity, the estimate is the largest error over draws,
    without an interval, and the margin is the tolerance.
    """

    kind: str
    margin: float
    reference: float = 0.0
    direction: str = "above"

    @property
    def level(self) -> float:
        """Confidence level of the interval that decides."""
        return 0.90 if self.kind == "equivalence" else 0.95

    @property
    def threshold(self) -> float:
        """The value that a superiority test must pass; else the half-width of the region or an identity's tolerance."""
        if self.kind == "superiority":
            return self.reference + (self.margin if self.direction == "above" else -self.margin)
        return self.margin

    def p_values(self, estimate: Estimate) -> tuple[float, float]:
        """One-sided p-values (p_holds, p_fails); a small one shows that the claim holds, or that it fails.

        For an identity, they are 0 and 1, or 1 and 0.
        """
        if self.kind == IDENTITY:
            return (0.0, 1.0) if estimate.value <= self.margin else (1.0, 0.0)
        above_low, above_high = (p_above(estimate, self.reference + end) for end in (-self.margin, self.margin))
        if self.kind == "superiority":
            return (above_high, 1 - above_high) if self.direction == "above" else (1 - above_low, above_low)
        return max(above_low, 1 - above_high), min(above_high, 1 - above_low)

    def verdict(self, p_holds: float, p_fails: float) -> str:
        """Verdict from p-values, adjusted or not: reproduced if the interval lies entirely on the claim's side."""
        if self.kind == IDENTITY:
            return HOLDS if p_holds < p_fails else FAILS
        alpha = (1 - self.level) / 2
        return REPRODUCED if p_holds < alpha else NOT_REPRODUCED if p_fails < alpha else INCONCLUSIVE

    def undecidable(self, estimate: Estimate) -> str:
        """The reason why an estimate cannot decide: a grid too coarse or an open end; empty if the estimate can."""
        if self.kind in ("equivalence", "location") and estimate.half_step > self.margin:
            steps = f"the quantity is read off a grid in steps of {2 * estimate.half_step:.3g}"
            return f"{steps}, of which half exceeds the margin of {self.margin:g}: more radii are needed"
        if estimate.open_end and self.verdict(*self.p_values(estimate)) == INCONCLUSIVE:
            return estimate.open_end
        return ""

    def room(self, estimate: Estimate) -> float:
        """Signed distance of the interval from the boundary of the claim's side; negative if it crosses."""
        if self.kind == IDENTITY:
            return self.margin - estimate.value
        low, high = (bound - self.reference for bound in estimate.interval(self.level))
        if self.kind == "superiority":
            return low - self.margin if self.direction == "above" else -self.margin - high
        return min(low + self.margin, self.margin - high)

    def smallest_effect(self, estimate: Estimate) -> float:
        """The smallest effect detected with a power of 80 % at this standard error and n; 0 for an identity.

        For superiority, the distance from the margin. For equivalence and location, the smallest margin within which a
        true difference of zero would be established.
        """
        if self.kind == IDENTITY:
            return 0.0
        power = POWER if self.kind == "superiority" else (1 + POWER) / 2
        quantiles = (student(p, estimate.n - 1) for p in ((1 + self.level) / 2, power))
        return sum(quantiles) * estimate.standard_error


def adjusted_verdicts(measured: Sequence[tuple[Test, Estimate]]) -> list[str]:
    """Verdicts of several tests, with the p-values for `holds` and for `fails` each adjusted by Holm's procedure."""
    p_values = np.array([test.p_values(estimate) for test, estimate in measured]).reshape(-1, 2)
    adjusted = zip(*map(holm, p_values.T))
    return [test.verdict(*each) for (test, _), each in zip(measured, adjusted)]


def holm(p_values: np.ndarray) -> np.ndarray:
    """Holm's step-down adjustment of p-values, shape (m,)."""
    order, m = np.argsort(p_values), len(p_values)
    adjusted = np.maximum.accumulate(np.asarray(p_values)[order] * (m - np.arange(m)))
    return np.minimum(adjusted, 1.0)[np.argsort(order)]
