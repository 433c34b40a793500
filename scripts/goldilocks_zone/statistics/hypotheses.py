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
    """A test of a claim about an estimated value.

    kind: superiority, equivalence, location or identity. Superiority claims that the value is above `reference` +
    `margin` or, if the `direction` is "below", that it is below `reference` − `margin`. Equivalence and location both
    claim that the value is within `margin` of `reference`; they differ in their confidence levels (see `level`). An
    identity claims that the largest error over draws is at most the tolerance `margin`; its estimate has no interval.
    """

    kind: str
    margin: float
    reference: float = 0.0
    direction: str = "above"

    @property
    def level(self) -> float:
        """Confidence level of the interval that decides the test: 0.90 for equivalence, else 0.95."""
        return 0.90 if self.kind == "equivalence" else 0.95

    @property
    def threshold(self) -> float:
        """Bound that the estimate is compared with.

        For superiority it is the value beyond which the claim holds. For equivalence and location it is the margin, the
        half-width of the claimed region, and for an identity the margin, its tolerance.
        """
        if self.kind == "superiority":
            return self.reference + (self.margin if self.direction == "above" else -self.margin)
        return self.margin

    def p_values(self, estimate: Estimate) -> tuple[float, float]:
        """One-sided p-values (p_holds, p_fails) of an `estimate`.

        p_holds is of the null hypothesis that the claim is false, so that a small p_holds shows that the claim holds.
        p_fails is of the null hypothesis that the claim is true. For an identity, one is 0 and the other is 1.
        """
        if self.kind == IDENTITY:
            return (0.0, 1.0) if estimate.value <= self.margin else (1.0, 0.0)
        above_low, above_high = (p_above(estimate, self.reference + end) for end in (-self.margin, self.margin))
        if self.kind == "superiority":
            return (above_high, 1 - above_high) if self.direction == "above" else (1 - above_low, above_low)
        return max(above_low, 1 - above_high), min(above_high, 1 - above_low)

    def verdict(self, p_holds: float, p_fails: float) -> str:
        """Verdict from the p-values `p_holds` and `p_fails` of a test, which may be adjusted for multiple tests.

        With p-values that are not adjusted, the verdict is `reproduced` if the interval lies entirely inside the
        claimed region, and `not reproduced` if it lies entirely outside.
        """
        if self.kind == IDENTITY:
            return HOLDS if p_holds < p_fails else FAILS
        alpha = (1 - self.level) / 2
        return REPRODUCED if p_holds < alpha else NOT_REPRODUCED if p_fails < alpha else INCONCLUSIVE

    def undecidable(self, estimate: Estimate) -> str:
        """Reason why an estimate cannot decide the test; empty if it can.

        For equivalence and location, one reason is that the number was read off a grid that is too coarse for the
        margin. The other is that an end of the interval is infinite and the verdict therefore inconclusive.
        """
        if self.kind in ("equivalence", "location") and estimate.half_step > self.margin:
            steps = f"the quantity is read off a grid in steps of {2 * estimate.half_step:.3g}"
            return f"{steps}, and half a step exceeds the margin of {self.margin:g}: more radii are needed"
        if estimate.open_end and self.verdict(*self.p_values(estimate)) == INCONCLUSIVE:
            return estimate.open_end
        return ""

    def room(self, estimate: Estimate) -> float:
        """Distance by which an estimate's interval lies inside the claimed region; negative unless all of it does.

        It is measured at the end of the interval where it is smallest. For an identity, the result is the tolerance
        minus the value.
        """
        if self.kind == IDENTITY:
            return self.margin - estimate.value
        low, high = (bound - self.reference for bound in estimate.interval(self.level))
        if self.kind == "superiority":
            return low - self.margin if self.direction == "above" else -self.margin - high
        return min(low + self.margin, self.margin - high)

    def smallest_effect(self, estimate: Estimate) -> float:
        """Smallest effect that the test detects with a power of 80 %; 0 for an identity.

        The standard error and n are those of the `estimate`. For superiority, the effect is the distance of the true
        value from the threshold. For equivalence and location, it is the smallest margin within which a true difference
        of zero would be established.
        """
        if self.kind == IDENTITY:
            return 0.0
        power = POWER if self.kind == "superiority" else (1 + POWER) / 2
        quantiles = (student(p, estimate.n - 1) for p in ((1 + self.level) / 2, power))
        return sum(quantiles) * estimate.standard_error


def adjusted_verdicts(measured: Sequence[tuple[Test, Estimate]]) -> list[str]:
    """Verdicts of several tests, with p-values adjusted by Holm's procedure.

    `measured` has a pair (test, estimate) for each test. One adjustment is over the p_holds of all tests, and another
    over the p_fails of all tests.
    """
    p_values = np.array([test.p_values(estimate) for test, estimate in measured]).reshape(-1, 2)
    adjusted = zip(*map(holm, p_values.T))
    return [test.verdict(*each) for (test, _), each in zip(measured, adjusted)]


def holm(p_values: np.ndarray) -> np.ndarray:
    """Adjust the `p_values` (m,) of m tests by Holm's step-down procedure, and return them in the same order."""
    order, m = np.argsort(p_values), len(p_values)
    adjusted = np.maximum.accumulate(np.asarray(p_values)[order] * (m - np.arange(m)))
    return np.minimum(adjusted, 1.0)[np.argsort(order)]
