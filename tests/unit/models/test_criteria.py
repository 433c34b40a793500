"""torch's criteria, and arbitrary functions of a batch, against full Hessians of torch's own mean over all examples."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from goldilocks_zone.curvature import hessian
from goldilocks_zone.models import losses
from goldilocks_zone.models.problem import Problem
from oracles.brute_force import orthonormal, relative_error

TIGHT = 1e-10  # two exact ways in double precision
N, K, T = 11, 4, 3


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Tokens(nn.Module):
    """A network with logits (n, T, k) of token ids (n, T); if `leading`, they have the shape (n, k, T)."""

    def __init__(self, leading=False):
        super().__init__()
        self.embedding, self.inner, self.head = nn.Embedding(6, 5), nn.Linear(5, 7), nn.Linear(7, K)
        self.leading = leading

    def forward(self, x):
        z = self.head(torch.tanh(self.inner(self.embedding(x))))
        z = z + z.mean(1, keepdim=True)
        return z.mT if self.leading else z


def dense(outputs=K):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, outputs)).double()


def tokens(leading=False):
    torch.manual_seed(0)
    return Tokens(leading).double()


WEIGHT = torch.tensor([0.3, 2.0, 1.0, 0.0], dtype=torch.float64)
CLASSES, SOFT = torch.arange(N) % K, torch.softmax(random(N, K, seed=1), 1)
IGNORED = CLASSES.where(torch.arange(N) % 3 > 0, -100)
OF_TOKENS = (torch.arange(N * T) % 5 - 1).view(N, T).where(torch.arange(N * T).view(N, T) % 5 > 0, -100)
FEATURES, IDS = random(N, 5, seed=2), torch.arange(N * T).view(N, T) % 6
BINARY = (random(N, K, seed=3) > 0).double()


def ranking(outputs, labels):
    """A custom loss: the mean over examples of a smooth margin."""
    chosen = outputs.gather(1, labels[:, None])
    return functional.softplus(1 + outputs - chosen).sum(1).square().mean()


def weighted_tokens(outputs, labels):
    """A custom loss of outputs (n, T, k): the mean over examples of a weighted mean over tokens."""
    return (outputs.sin().sum(2) * torch.arange(1, 1 + T).to(outputs)).mean(1).mean() + 0 * labels.sum()


CASES = {
    "class weights": (nn.CrossEntropyLoss(weight=WEIGHT), dense(), FEATURES, CLASSES),
    "ignored": (nn.CrossEntropyLoss(), dense(), FEATURES, IGNORED),
    "ignored, weights, smoothing": (nn.CrossEntropyLoss(WEIGHT, label_smoothing=0.2), dense(), FEATURES, IGNORED),
    "smoothing": (nn.CrossEntropyLoss(label_smoothing=0.1), dense(), FEATURES, CLASSES),
    "probabilities": (nn.CrossEntropyLoss(), dense(), FEATURES, SOFT),
    "probabilities, weights": (nn.CrossEntropyLoss(WEIGHT, label_smoothing=0.3), dense(), FEATURES, SOFT),
    "a function of torch": (functional.cross_entropy, dense(), FEATURES, CLASSES),
    "pixels": (nn.CrossEntropyLoss(WEIGHT), tokens(leading=True), IDS, OF_TOKENS),
    "squares": (nn.MSELoss(), dense(), FEATURES, random(N, K, seed=4)),
    "squares of one output": (nn.MSELoss(), nn.Sequential(dense(1), nn.Flatten(0)), FEATURES, random(N, seed=4)),
    "squares of tokens": (functional.mse_loss, tokens(), IDS, random(N, T, K, seed=4)),
    "binary": (nn.BCEWithLogitsLoss(), dense(), FEATURES, BINARY),
    "binary, weights": (nn.BCEWithLogitsLoss(pos_weight=WEIGHT), dense(), FEATURES, BINARY),
    "huber": (nn.HuberLoss(delta=0.4), dense(), FEATURES, random(N, K, seed=4)),
    "smooth absolute": (nn.SmoothL1Loss(beta=0.3), dense(), FEATURES, random(N, K, seed=4)),
    "a function": (ranking, dense(), FEATURES, CLASSES),
    "a function of tokens": (weighted_tokens, tokens(), IDS, random(N, seed=5)),
}


@pytest.mark.parametrize("name", CASES)
def test_a_criterion_has_the_curvature_of_torchs_mean_in_one_batch_and_in_several(name):
    criterion, module, inputs, labels = CASES[name]
    theta = nn.utils.parameters_to_vector(module.parameters()).detach()
    rows = random(4, len(theta), seed=6)
    basis = orthonormal(rows)

    def outputs_of(point):
        sizes = [each.shape for each in module.parameters()]
        parts = [p.view(s) for p, s in zip(point.split([s.numel() for s in sizes]), sizes)]
        return torch.func.functional_call(module, dict(zip(dict(module.named_parameters()), parts)), (inputs,))

    def mean(point):
        return criterion(outputs_of(point), labels)

    whole = torch.autograd.functional.hessian(mean, theta)
    outputs = outputs_of(theta)
    jacobian = torch.autograd.functional.jacobian(outputs_of, theta).flatten(0, -2) @ basis
    curved = torch.autograd.functional.hessian(lambda z: criterion(z.view(outputs.shape), labels), outputs.flatten())
    batches = [(inputs[:2], labels[:2]), (inputs[2:3], labels[2:3]), (inputs[3:], labels[3:])]
    for given in ((inputs, labels), (batches,)):
        problem = Problem(module, *given, loss=criterion)
        found = hessian.plane_hessian(problem, theta, rows)
        assert relative_error(found.hessian, (basis.T @ whole @ basis).numpy()) < TIGHT
        assert relative_error(found.gauss_newton, (jacobian.T @ curved @ jacobian).numpy()) < TIGHT
        gradient = torch.autograd.functional.jacobian(mean, theta)
        assert relative_error(found.gradient, (basis.T @ gradient).numpy()) < TIGHT
        assert found.loss == pytest.approx(float(mean(theta)), rel=1e-12)
        assert found.radial_derivative == pytest.approx(float(gradient @ theta), rel=1e-8, abs=1e-12)
        assert (found.effective_examples <= N + 1e-9).all()
        products = hessian.hessian_vector_products(problem, theta, rows)
        assert relative_error(products.numpy(), (rows @ whole).numpy()) < TIGHT
        half = hessian.hessian_vector_products(problem, theta, basis.T.contiguous(), "gauss_newton")
        assert relative_error((half @ basis).numpy(), (jacobian.T @ curved @ jacobian).numpy()) < TIGHT


def test_classes_come_last_in_our_own_loss_and_first_in_torchs():
    labels, own = OF_TOKENS, losses.CrossEntropy(WEIGHT, ignore_index=-100)
    theta = nn.utils.parameters_to_vector(tokens().parameters()).detach()
    rows = random(3, len(theta))
    ours = hessian.plane_hessian(Problem(tokens(), IDS, labels, own), theta, rows)
    theirs = hessian.plane_hessian(Problem(tokens(leading=True), IDS, labels, nn.CrossEntropyLoss(WEIGHT)), theta, rows)
    assert relative_error(ours.hessian, theirs.hessian) < TIGHT
    assert np.isnan(ours.prior_mismatch) and ours.entropy == pytest.approx(theirs.entropy, rel=1e-12)


def test_batches_of_tokens_may_differ_in_length():
    module, loss = tokens(), losses.CrossEntropy(ignore_index=-100)
    theta = nn.utils.parameters_to_vector(module.parameters()).detach()
    rows, short = random(3, len(theta)), (IDS[:, :2], OF_TOKENS[:, :2].clamp_min(0))
    found = hessian.plane_hessian(Problem(module, [(IDS, OF_TOKENS), short], loss=loss), theta, rows)
    parts = [
        hessian.plane_hessian(Problem(module, *each, loss=loss), theta, rows) for each in ((IDS, OF_TOKENS), short)
    ]
    weights = np.array([(OF_TOKENS >= 0).sum(), short[1].numel()], float)
    expected = sum(weight * each.hessian for weight, each in zip(weights, parts)) / weights.sum()
    assert relative_error(found.hessian, expected) < TIGHT


def test_a_sum_no_mean_and_no_loss_are_refused():
    module, theta = dense(), nn.utils.parameters_to_vector(dense().parameters()).detach()
    for loss, words in (
        (nn.MSELoss(reduction="sum"), "reduction 'sum'"),
        (lambda z, y: (z.mean() - 1).square(), "not the mean of its examples"),
        (lambda z, y: z.square().sum(), "not the mean of its examples"),
        (3, "cannot be of type int"),
        (nn.MSELoss, "cannot be of type type"),
        (nn.MultiMarginLoss(p=2), "cannot differentiate the loss MultiMarginLoss twice"),
    ):
        with pytest.raises(ValueError, match=words):
            hessian.plane_hessian(Problem(module, FEATURES, CLASSES, loss), theta, random(2, len(theta)))
    with pytest.raises(ValueError, match="all examples are ignored"):
        problem = Problem(module, FEATURES, torch.full((N,), -100), nn.CrossEntropyLoss())
        hessian.hessian_vector_products(problem, theta, random(2, len(theta)))
    with pytest.raises(ValueError, match="one label for each output"):
        hessian.plane_hessian(Problem(module, FEATURES, random(N, K + 1), nn.MSELoss()), theta, random(2, len(theta)))
    with pytest.raises(ValueError, match="give labels of the shape"):
        problem = Problem(tokens(), IDS, OF_TOKENS[:, :2], losses.CrossEntropy(ignore_index=-100))
        hessian.plane_hessian(problem, nn.utils.parameters_to_vector(tokens().parameters()), random(2, 104))
    with pytest.raises(ValueError, match="neither 1 nor -1"):
        losses.PerElement(losses.CrossEntropy(), (3, 4), 2)
