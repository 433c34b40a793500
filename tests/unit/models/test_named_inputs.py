"""Batches of named arrays, against the same examples as one array."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import goldilocks_zone
from goldilocks_zone.curvature import dispatch, hessian
from goldilocks_zone.models import losses
from goldilocks_zone.models.problem import Problem
from goldilocks_zone.reports.report import Options
from oracles.brute_force import relative_error

N, T, K = 9, 4, 3


class Reader(nn.Module):
    """A network of token ids (n, T), a mask (n, T) and a number (n,); returns an object with the attribute `logits`.

    There are logits for each example or, if `every_token`, for each token.
    """

    def __init__(self, every_token=False):
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.inner, self.head = nn.Embedding(7, 5), nn.Linear(6, 8), nn.Linear(8, K)
        self.every_token = every_token

    def forward(self, ids, mask, level):
        x = torch.cat([self.embedding(ids), level[:, None, None].expand(-1, ids.shape[1], 1)], 2)
        x = torch.tanh(self.inner(x)) * mask[..., None]
        x = x if self.every_token else x.sum(1) / mask.sum(1, keepdim=True)
        return SimpleNamespace(logits=self.head(x))


def batch(length=T, n=N):
    generator = torch.Generator().manual_seed(length)
    ids = torch.randint(7, (n, length), generator=generator)
    mask = torch.arange(length) <= torch.arange(n)[:, None] % length
    return {"ids": ids, "mask": mask, "level": torch.randn(n, generator=generator)}


def expected(module, batches, theta, rows):
    """Hessian (d, d) along `rows` of the mean cross-entropy over all examples, or tokens, of all `batches`.

    A batch is a pair of named inputs and labels.
    """
    shapes = {name: each.shape for name, each in module.named_parameters()}

    def mean(s):
        parts = (theta + s @ rows).split([shape.numel() for shape in shapes.values()])
        point = {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts)}
        totals = [
            nn.functional.cross_entropy(
                torch.func.functional_call(module, point, kwargs=named).logits.reshape(-1, K),
                y.flatten(),
                reduction="sum",
            )
            for named, y in batches
        ]
        return sum(totals) / sum(y.numel() for _, y in batches)

    return torch.autograd.functional.hessian(mean, torch.zeros(len(rows), dtype=theta.dtype)).numpy()


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-10), (torch.float32, 1e-4)])
@pytest.mark.parametrize("of_tokens", [False, True])
def test_named_arrays_have_the_curvature_of_their_module(of_tokens, dtype, tolerance):
    module = Reader(of_tokens).to(dtype)
    theta = nn.utils.parameters_to_vector(module.parameters()).detach()
    random = torch.randn(len(theta), 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows = torch.linalg.qr(random)[0].T.to(dtype)

    def labelled(named):
        named["level"] = named["level"].to(dtype)
        return named, torch.arange(N * T).view(N, T)[:, : named["ids"].shape[1]] % K if of_tokens else torch.arange(
            N
        ) % K

    pairs = [labelled(batch()), labelled(batch(2))]
    for given, part in (
        (({**pairs[0][0], "labels": pairs[0][1]},), pairs[:1]),
        (pairs[0], pairs[:1]),
        ((pairs,), pairs),
        (([{**named, "labels": y} for named, y in pairs],), pairs),
        (([named for named, _ in pairs], [y for _, y in pairs]), pairs),
    ):
        problem = Problem(module, *given)
        assert dispatch.path_of(problem, theta, 1) == dispatch.GRAPH
        double = Reader(of_tokens).double()
        whole = expected(
            double,
            [({**named, "level": named["level"].double()}, y) for named, y in part],
            theta.double(),
            rows.double(),
        )
        found = hessian.plane_hessian(problem, theta, rows)
        assert relative_error(found.hessian, whole) < tolerance
        products = hessian.hessian_vector_products(problem, theta, rows)
        assert relative_error((products @ rows.T).numpy(), whole) < tolerance


def test_a_loader_of_dictionaries_gives_a_report():
    module, data = Reader().eval(), batch(n=20)
    examples = [{name: each[i] for name, each in data.items()} | {"label": i % K} for i in range(20)]
    options = Options((3,), 2, 3, (0.5, 1.0), (1.0,), 1, 2, 5)
    loader = DataLoader(examples, batch_size=6)
    found = goldilocks_zone.report(module, losses.CrossEntropy(), loader, options=options)
    assert found.examples == 20 and np.isfinite(found.loss)


def test_what_does_not_fit_is_refused():
    module, named = Reader(), batch()
    theta = nn.utils.parameters_to_vector(module.parameters()).detach()
    for given, words in (
        (named | {"level": torch.zeros(N + 1)}, "need equal numbers of rows"),
        (named | {"ids": named["ids"] + 2**25}, "ids holds whole numbers beyond"),
    ):
        with pytest.raises(ValueError, match=words):
            Problem(module, given, torch.arange(N) % K)
    with pytest.raises(ValueError, match="whose names a function"):
        Problem(lambda theta, inputs: inputs, named, torch.arange(N) % K)
    other = {"mask": torch.ones(N, 2 * T), "level": torch.zeros(N)}
    problem = Problem(module, [(named, torch.arange(N) % K), (other, torch.arange(N) % K)])
    with pytest.raises(ValueError, match="pad the arrays to one shape"):
        hessian.plane_hessian(problem, theta, torch.randn(2, len(theta)))
