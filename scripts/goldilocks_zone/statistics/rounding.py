"""Numbers as text, with a precision set by their intervals."""

import math


def rounded(value: float, low: float, high: float) -> str:
    """Text of `value`, rounded to two significant digits of the half-width of its interval.

    `low` and `high` are the ends of the interval. A half-width below |value|/1000 counts as |value|/1000. If `value`,
    `low` and `high` are all below 1e-4 in magnitude, the text has the form 1.2e-07. Without a finite half-width, it has
    three significant digits.
    """
    if 0 < max(abs(value), abs(low), abs(high)) < 1e-4:
        return f"{value:.1e}"
    half = max((high - low) / 2, abs(value) * 1e-3)
    if not math.isfinite(half) or half == 0:
        return f"{value:.3g}"
    return f"{value:.{max(0, 1 - math.floor(math.log10(half)))}f}"


def in_interval(value: float, low: float, high: float) -> tuple[str, str, str]:
    """Texts (value, low, high) of a number and the ends of its interval.

    An infinite end becomes -∞ or ∞, and the finite end alone sets the number of digits.
    """
    ends = [low if math.isfinite(low) else 2 * value - high, high if math.isfinite(high) else 2 * value - low]
    below = rounded(low, *ends) if math.isfinite(low) else "-∞"
    above = rounded(high, *ends) if math.isfinite(high) else "∞"
    return rounded(value, *ends), below, above
