"""Formatting of numbers with the precision of their intervals."""

import math

import pytest

from goldilocks_zone.statistics import rounding


@pytest.mark.parametrize(
    "value, low, high, text",
    [
        (0.88213, 0.87, 0.893, "0.882"),
        (1234.5, 1000, 1500, "1234"),
        (-2.6e-7, -4e-7, -1.1e-7, "-2.6e-07"),
        (0.00004, -0.2, 0.2, "0.00"),
        (0.0, 0.0, 0.0, "0"),
    ],
)
def test_numbers_have_two_digits_of_their_interval(value, low, high, text):
    assert rounding.rounded(value, low, high) == text


def test_an_open_end_takes_its_digits_from_the_other():
    assert rounding.in_interval(0.882, 0.871, 0.893) == ("0.882", "0.871", "0.893")
    assert rounding.in_interval(1.0, 0.81, math.inf) == ("1.00", "0.81", "∞")
    assert rounding.in_interval(-1.0, -math.inf, -0.81) == ("-1.00", "-∞", "-0.81")
