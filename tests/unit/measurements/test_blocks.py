"""How a job sets up torch."""

import torch
from torch import nn

from goldilocks_zone.measurements import blocks
from goldilocks_zone.models.problem import Problem
from goldilocks_zone.subspaces import constraints
from goldilocks_zone.training import ensembles

SUBNORMAL = 1e-40  # in single precision


def saturated():
    """A member whose gradient is subnormal or zero, and one that learns."""
    weights = torch.tensor([[[92.0], [0.0]], [[0.1], [0.0]]])
    module = nn.Sequential(nn.Flatten(), nn.Linear(1, 2, bias=False))
    problem = Problem(module, torch.ones(4, 1), torch.zeros(4, dtype=torch.int64))
    rates = torch.full((2,), 0.1, dtype=torch.float64)
    options = ensembles.Options(steps=3, rates=rates, batch=None, optimiser="sgd")
    subset = constraints.full(weights.flatten(1), [(2, 1)], fixed=False)
    return ensembles.Ensemble(problem, subset, options, [("batches",)])


def trained():
    """Coordinates after three steps, and the last gradients."""
    ensemble = saturated()
    for step in range(3):
        ensemble.step(step, *ensemble.examples(step))
    return ensemble.coordinates, ensemble.gradients(*ensemble.examples(3))


def test_jobs_flush_subnormal_numbers_and_train_as_before():
    tiny = torch.finfo(torch.float32).tiny
    kept, gradients = trained()
    assert 0 < gradients[0].abs().max() < tiny
    assert blocks.start_torch("cpu", torch.get_num_threads()).type == "cpu"
    assert torch.tensor(SUBNORMAL) * 1 == 0 and torch.tensor(1e-310, dtype=torch.float64) * 1 == 0
    flushed, gradients = trained()
    assert not gradients[0].any() and gradients[1].all()
    torch.testing.assert_close(flushed, kept, rtol=0, atol=tiny)
