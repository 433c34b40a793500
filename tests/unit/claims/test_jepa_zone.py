"""Claims about the zone of joint embeddings, on studies whose answer is known."""

import numpy as np
import pytest
import xarray as xr

from goldilocks_zone.claims import quantities
from goldilocks_zone.claims.cells import NotTested
from goldilocks_zone.randomness import stream

DRAWS, X = 8, np.array([-2.0, -1.0, 0.0, 1.0])
NOISE = 0.01 * stream("zone").standard_normal(DRAWS)
WINDOW = [-2, 0]


def study(values, variable="trace_over_norm", **axes):
    """Made-up study with `values` (criterion, radius, …) of a `variable`, and draws that differ by noise.

    `axes` are the labels of further axes, by name and in order.
    """
    values = np.asarray(values, float)
    axes = {"criterion": ["vicreg", "covariance"], "radius": 10 ** (X / 2), **axes, "draw": range(DRAWS)}
    data = values[..., None] + NOISE
    cell = xr.Dataset({variable: (list(axes), data)}, coords={axis: list(labels) for axis, labels in axes.items()})
    return cell.assign_coords(x=("radius", X))


def estimate(cell, quantity, **keys):
    return quantities.estimate(cell, {"quantity": quantity, **keys}, "a case")


KAPPA = study([[-5, -4, 3, 6], [5, 5, 5, 5]])
OF = {"variable": "trace_over_norm", "criterion": "vicreg"}


def test_each_radius_of_the_window_has_an_estimate():
    found = estimate(KAPPA, "zone_at_every_radius", of=OF, window=WINDOW)
    assert [each.value for each in found] == pytest.approx([-5 + NOISE.mean(), -4 + NOISE.mean(), 3 + NOISE.mean()])


def test_missing_draws_are_left_out_up_to_half():
    cell = KAPPA.copy(deep=True)
    cell["trace_over_norm"][0, 0, :4] = np.nan
    first = estimate(cell, "zone_at_every_radius", of=OF, window=WINDOW)[0]
    assert first.n == 4 and first.value == pytest.approx(-5 + NOISE[4:].mean())
    cell["trace_over_norm"][0, 0, :5] = np.nan
    with pytest.raises(NotTested, match="of 8 draws in which trace_over_norm can be measured"):
        estimate(cell, "zone_at_every_radius", of=OF, window=WINDOW)
    with pytest.raises(NotTested, match="missing at some radius"):
        estimate(cell, "zone_change", of=OF, window=WINDOW)


def test_changes_and_errors_are_the_largest():
    constant, rising = ({**OF, "criterion": name} for name in ("covariance", "vicreg"))
    assert estimate(KAPPA, "zone_change", of=constant, window=[-2, 1])[0].value == pytest.approx(0, abs=1e-12)
    assert estimate(KAPPA, "zone_change", of=rising, window=[-2, 1])[0].value == pytest.approx(11)
    errors = study([[-1e-3, 2e-3, 0, 9], [0, 0, 0, 0]])
    largest = np.abs(np.array([-1e-3, 2e-3, 0])[:, None] + NOISE).max()
    assert estimate(errors, "zone_error", of=OF, window=WINDOW)[0].value == pytest.approx(largest)


def test_errors_of_sign_count_one_side():
    cell = study([[-0.5, 2, 3, 4], [1, 1, 1, 1]])
    wrong = estimate(cell, "zone_sign_error", of=OF, window=WINDOW, sign=1)[0].value
    assert wrong == pytest.approx(0.5 - NOISE.min())
    assert estimate(cell, "zone_sign_error", of=OF, window=WINDOW, sign=-1)[0].value == pytest.approx(3 + NOISE.max())
    covariance = {**OF, "criterion": "covariance"}
    assert estimate(cell, "zone_sign_error", of=covariance, window=WINDOW, sign=1)[0].value == 0


def layered():
    """Made-up study with traces of three layers, whose ratios to the last one's are 3 and 1.5 on average over draws."""
    means = np.broadcast_to([6.0, 3.0, 2.0], (2, len(X), 3))
    cell = study(means, "layer_trace", layer=[1, 2, 3])
    cell["layer_trace"] = cell["layer_trace"] * (1 + 20 * NOISE)
    return cell.assign(invariance_ratio=("layer", [3.0, 1.25, 1.0]))


def test_ratios_of_layers_are_those_of_means():
    found = estimate(layered(), "zone_layer_ratio", criterion="vicreg", window=[0, 0], expected="invariance_ratio")
    alone = estimate(layered(), "zone_layer_ratio", criterion="vicreg", window=[0, 0])
    mean = ((np.array([6, 3, 2])[:, None] + NOISE) * (1 + 20 * NOISE)).mean(1)
    ratios = mean[:2] / mean[2]
    assert [each.value for each in found] == pytest.approx(list(ratios / [3, 1.25] - 1), rel=1e-3, abs=2e-3)
    assert [each.value for each in alone] == pytest.approx(list(ratios - 1), rel=1e-3, abs=2e-3)
    assert all(each.standard_error > 0 for each in found)
    two = estimate(layered(), "zone_layer_ratio", criterion="vicreg", window=WINDOW)
    assert len(two) == 2 * 3


@pytest.mark.parametrize(
    ("of", "message"),
    [
        ({"variable": "trace"}, "has measured no trace"),
        ({**OF, "views": "noise"}, "no axis views"),
        ({**OF, "criterion": "invariance"}, "no criterion invariance"),
        ({"variable": "trace_over_norm"}, "several values of criterion, of which the claim names none"),
    ],
)
def test_places_that_a_study_does_not_have_are_not_tested(of, message):
    with pytest.raises(NotTested, match=message):
        estimate(KAPPA, "zone_at_every_radius", of=of, window=WINDOW)
