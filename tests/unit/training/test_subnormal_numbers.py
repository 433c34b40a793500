"""Training with gradients that are subnormal numbers."""

import pytest
import torch
from torch import nn

from goldilocks_zone.models import kernels
from goldilocks_zone.models.problem import Problem
from goldilocks_zone.subspaces import constraints
from goldilocks_zone.training import ensembles

RATE = 0.1


@pytest.fixture(params=[False, True])
def flushed(request):
    """Let the caller set subnormal numbers to zero, or not; returns which of the two."""
    torch.set_flush_denormal(request.param)
    yield request.param
    torch.set_flush_denormal(False)


def ensemble():
    """Ensemble of two members: the gradients of the first are zero or subnormal numbers, and the second one learns."""
    weights = torch.tensor([[92.0, 0.0], [0.1, 0.0]])
    module = nn.Sequential(nn.Flatten(), nn.Linear(1, 2, bias=False))
    problem = Problem(module, torch.ones(4, 1), torch.zeros(4, dtype=torch.int64))
    rates = torch.full((2,), RATE, dtype=torch.float64)
    options = ensembles.Options(steps=1, rates=rates, batch=None, optimiser="sgd")
    return ensembles.Ensemble(problem, constraints.full(weights, [(2, 1)], fixed=False), options, [("batches",)])


def test_steps_set_subnormal_numbers_to_zero_and_leave_the_callers_mode(flushed):
    trained = ensemble()
    start, gradients = trained.coordinates.clone(), trained.gradients(*trained.examples(0))
    tiny = torch.finfo(torch.float32).tiny
    assert 0 <= gradients[0].abs().max() < tiny and (gradients[0].any() != flushed)
    trained.step(0, *trained.examples(0))
    assert torch.equal(trained.coordinates[0], start[0])
    torch.testing.assert_close(trained.coordinates[1], start[1] - RATE * gradients[1])
    assert bool(torch.tensor(kernels.SUBNORMAL) * 1 == 0) == flushed
