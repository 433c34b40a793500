"""Tests of hypotheses on estimates: superiority, equivalence, location and identity, and Holm's procedure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from goldilocks_zone.statistics.estimates import Estimate, p_above, p_below, student

REPRODUCED, NOT_REPRODUCED, INCONCLUSIVE, NOT_TESTED = "reproduced", "not reproduced", "inconclusive", "not tested"
# Verdicts on identities, which are no empirical findings.
HOLDS, FAILS = "identity holds", "identity fails"
POWER = 0.8
IDENTITY = "identity"


@dataclass(frozen=True)
class Test:
    """How an estimate is judged: kind, margin, reference value, and the direction of a superiority.

    The estimate of an identity is its largest error over draws, which has no interval; the margin is its tolerance.
    """

    kind: str
    margin: float
    reference: float = 0.0
    direction: str = "above"

    @property
    def level(self) -> float:
        """Confidence of the interval that decides."""
        return 0.90 if self.kind == "equivalence" else 0.95

    @property
    def threshold(self) -> float:
        """The value that a superiority must pass; the half-width of the region of an equivalence or location."""
        if self.kind == "superiority":
            return self.reference + (self.margin if self.direction == "above" else -self.margin)
        return self.margin

    def p_values(self, estimate: Estimate) -> tuple[float, float]:
        """One-sided p-values for `the claim holds` and for `it fails`; 0 and 1 of an identity."""
        if self.kind == IDENTITY:
            return (0.0, 1.0) if estimate.value <= self.margin else (1.0, 0.0)
        low, high = self.reference - self.margin, self.reference + self.margin
        above_low, above_high = p_above(estimate, low), p_above(estimate, high)
        below_low, below_high = p_below(estimate, low), p_below(estimate, high)
        if self.kind == "superiority":
            return (above_high, below_high) if self.direction == "above" else (below_low, above_low)
        return max(above_low, below_high), min(above_high, below_low)

    def verdict(self, p_holds: float, p_fails: float) -> str:
        """By p-values, adjusted or not: reproduced where the interval lies wholly on the claim's side."""
        if self.kind == IDENTITY:
            return HOLDS if p_holds < p_fails else FAILS
        alpha = (1 - self.level) / 2
        return REPRODUCED if p_holds < alpha else NOT_REPRODUCED if p_fails < alpha else INCONCLUSIVE

    def undecidable(self, estimate: Estimate) -> str:
        """Why an estimate decides nothing, empty where it does: a grid too coarse, or a bound that leaves it open."""
        if self.kind in ("equivalence", "location") and estimate.half_step > self.margin:
            return (
                f"the quantity is read off a grid in steps of {2 * estimate.half_step:.3g}, of which half exceeds the "
                f"margin of {self.margin:g}: more radii are needed"
            )
        if estimate.open_end and self.verdict(*self.p_values(estimate)) == INCONCLUSIVE:
            return estimate.open_end
        return ""

    def room(self, estimate: Estimate) -> float:
        """How far the interval stays on the claim's side; negative where it does not."""
        if self.kind == IDENTITY:
            return self.margin - estimate.value
        low, high = (bound - self.reference for bound in estimate.interval(self.level))
        if self.kind == "superiority":
            return low - self.margin if self.direction == "above" else -self.margin - high
        return min(low + self.margin, self.margin - high)

    def smallest_effect(self, estimate: Estimate) -> float:
        """The smallest effect that a test with this spread and n detects with a power of 80 %: the difference from the
        margin, or, for equivalence and location, the smallest margin that a true zero would fit in. Of an identity 0.
        """
        if self.kind == IDENTITY:
            return 0.0
        freedom = estimate.n - 1
        quantile = student((1 + self.level) / 2, freedom)
        power = POWER if self.kind == "superiority" else (1 + POWER) / 2
        return (quantile + student(power, freedom)) * estimate.standard_error


def adjusted_verdicts(measured: Sequence[tuple[Test, Estimate]]) -> list[str]:
    """Verdicts of several tests by Holm's procedure, on p-values for `holds` and for `fails` each."""
    p_values = np.array([test.p_values(estimate) for test, estimate in measured]).reshape(-1, 2)
    adjusted = zip(holm(p_values[:, 0]), holm(p_values[:, 1]))
    return [test.verdict(*each) for (test, _), each in zip(measured, adjusted)]


def holm(p_values: np.ndarray) -> np.ndarray:
    """Holm's step-down adjustment of p-values, shape (m,)."""
    order = np.argsort(p_values)
    m = len(p_values)
    adjusted = np.maximum.accumulate(np.asarray(p_values)[order] * (m - np.arange(m)))
    result = np.empty(m)
    result[order] = np.minimum(adjusted, 1.0)
    return result
