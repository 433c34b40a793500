"""The decision boundary in input space: linear classifiers, circles, and independence of the temperature."""

import itertools
import math

import numpy as np
import pytest
import torch

from goldilocks_zone.models import decision_boundary
from goldilocks_zone.randomness import stream

LIKE = torch.empty(0, dtype=torch.float64)
BOX = ((-3.0, 3.0), (-2.0, 2.0))
# z_0 − z_1 = ⟨NORMAL, x⟩ + OFFSET
NORMAL, OFFSET = torch.tensor([2.0, -1.0], dtype=torch.float64), 0.5
POINTS = torch.as_tensor(stream("points").uniform(-1, 1, (40, 2)))


def linear(inputs):
    across = inputs @ NORMAL + OFFSET
    return torch.stack([across, torch.zeros_like(across)], 1)


def disc(inputs):
    """Logits (n, 2) of two classes that the unit circle separates; the first one lies inside."""
    return torch.stack([1 - inputs.square().sum(1), torch.zeros(len(inputs), dtype=inputs.dtype)], 1)


def sectors(inputs):
    """Logits (n, 3) of three classes in sectors of the plane, which meet at the origin."""
    angles = torch.tensor([0.3, 2.4, 4.5], dtype=torch.float64)
    return inputs @ torch.stack([angles.cos(), angles.sin()])


def test_points_of_a_linear_classifier_lie_on_its_line():
    found = decision_boundary.on_grid(linear, BOX, 31, LIKE)
    assert len(found.points) > 30
    assert (found.points @ NORMAL + OFFSET).abs().max() < 1e-10
    assert {tuple(sorted(each)) for each in found.classes.tolist()} == {(0, 1)}


def test_length_and_distances_of_a_line():
    curve = decision_boundary.curve(linear, BOX, 31, LIKE)
    # y = 2x + 1/2 from y = -2 to 2.
    assert curve.length == pytest.approx(math.hypot(2, 4), rel=0.02)
    apart = (POINTS @ NORMAL + OFFSET).abs() / NORMAL.norm()
    feet = POINTS - ((POINTS @ NORMAL + OFFSET) / NORMAL.norm() ** 2)[:, None] * NORMAL
    inside = feet[:, 1].abs() < 1.8
    assert torch.allclose(curve.distances(POINTS)[inside], apart[inside], atol=1e-6)
    assert torch.allclose(decision_boundary.linearised_margins(linear, POINTS), apart, rtol=1e-12)


def test_length_and_distances_of_a_circle_converge_with_the_square_of_the_cell():
    points = POINTS[POINTS.norm(dim=1) > 0.1]
    errors = []
    for nodes in (51, 101, 201):
        curve = decision_boundary.curve(disc, BOX, nodes, LIKE)
        apart = (curve.distances(points) - (1 - points.norm(dim=1)).abs()).abs().max()
        errors.append((abs(curve.length - 2 * math.pi), float(apart)))
    for coarse, fine in itertools.pairwise(errors):
        assert fine[0] < coarse[0] / 3
    assert errors[-1][0] < 1e-3 and errors[-1][1] < 1e-3


def test_segments_meet_where_three_classes_do():
    curve = decision_boundary.curve(sectors, ((-1, 1), (-1, 1)), 20, LIKE)
    assert curve.distances(torch.zeros(1, 2, dtype=torch.float64))[0] < 0.06
    # Each ray is covered from the centre on: no cell is left out.
    ends = decision_boundary.on_grid(sectors, ((-1, 1), (-1, 1)), 57, LIKE).points
    assert curve.distances(ends).max() < 0.06


def test_a_saddle_has_segments_in_its_cell():
    def saddle(inputs):
        return torch.stack([inputs[:, 0] * inputs[:, 1], torch.zeros(len(inputs), dtype=inputs.dtype)], 1)

    curve = decision_boundary.curve(saddle, ((-1, 1), (-1, 1)), 10, LIKE)
    assert curve.length == pytest.approx(4, rel=1e-6)


def test_no_boundary_inside_the_box():
    def constant(inputs):
        return torch.stack([torch.ones(len(inputs)), torch.zeros(len(inputs))], 1).double()

    curve = decision_boundary.curve(constant, BOX, 10, LIKE)
    assert curve.length == 0
    assert torch.isinf(curve.distances(POINTS)).all()
    assert len(decision_boundary.on_grid(constant, BOX, 10, LIKE).points) == 0
    assert len(decision_boundary.between_pairs(constant, POINTS, 5, stream("pairs")).points) == 0
    assert torch.isinf(decision_boundary.linearised_margins(lambda x: constant(x) + 0 * x.sum(), POINTS)).all()


def test_pairs_of_other_classes_are_bisected():
    found = decision_boundary.between_pairs(linear, POINTS, 25, stream("pairs"))
    assert len(found.points) == 25
    assert (found.points @ NORMAL + OFFSET).abs().max() < 1e-10
    every = decision_boundary.between_pairs(linear, POINTS, 10_000, stream("pairs"))
    classes = linear(POINTS).argmax(1)
    assert len(every.points) == int((classes == 0).sum() * (classes == 1).sum())


def test_a_bisected_pair_may_meet_a_third_class():
    ends = torch.tensor([[1.0, 0.3], [-0.2, -1.0]], dtype=torch.float64)
    found = decision_boundary.between(sectors, ends[:1], ends[1:])
    outputs = sectors(found.points).sort(1, descending=True)
    assert outputs.values[0, 0] == pytest.approx(float(outputs.values[0, 1]), abs=1e-9)
    assert set(found.classes[0].tolist()) == set(outputs.indices[0, :2].tolist())


@pytest.mark.parametrize("temperature", [1e-3, 0.2, 30.0])
def test_what_belongs_to_the_boundary_does_not_depend_on_the_temperature(temperature):
    def cooled(inputs):
        return sectors(inputs) / temperature

    one, other = (decision_boundary.curve(each, BOX, 21, LIKE) for each in (sectors, cooled))
    assert torch.allclose(one.segments, other.segments, atol=1e-9)
    margins = [decision_boundary.linearised_margins(each, POINTS) for each in (sectors, cooled)]
    assert torch.allclose(*margins, rtol=1e-10)


@pytest.mark.parametrize("target", [0.05, 0.3])
def test_matched_temperature_gives_the_entropy(target):
    logits = torch.as_tensor(stream("logits").standard_normal((50, 4))) * 7
    temperature = decision_boundary.matched_temperature(logits, target)
    assert decision_boundary.entropy(logits, temperature) == pytest.approx(target, rel=1e-9)
    assert decision_boundary.matched_temperature(3 * logits, target) == pytest.approx(3 * temperature, rel=1e-9)


def test_equal_logits_have_no_matched_temperature():
    assert math.isnan(decision_boundary.matched_temperature(torch.zeros(5, 3), 0.05))
    assert math.isnan(decision_boundary.matched_temperature(torch.tensor([[1.0, 1.0, 0.0]]), 0.05))
    assert math.isnan(decision_boundary.matched_temperature(torch.tensor([[1.0, 0.0]]), np.log(2) + 0.1))
