"""Jets of embeddings against automatic differentiation of whole losses, and identities of joint-embedding losses."""

import functools
import itertools
import math

import numpy as np
import pytest
import torch
from torch.func import grad, jacfwd, jvp, vmap

from goldilocks_zone.curvature import jets
from goldilocks_zone.models.embedding_losses import Classified, InfoNce, Vicreg
from goldilocks_zone.models.losses import CrossEntropy
from oracles.brute_force import relative_error

TIGHT = 1e-10  # two exact ways in double precision
N, INPUTS, E, D = 16, 7, 3, 6
SCALES = (0.01, 0.3, 1.0, 4.0, 100.0)
INVARIANCE, VARIANCE, COVARIANCE = (Vicreg(E, *weights) for weights in ((1, 0, 0), (0, 1, 0), (0, 0, 1)))
MIXTURES = [
    Vicreg(E, 25, 25, 1),
    Vicreg(E, 1.0, 0.3, 2.0, epsilon=0.04, hinge=1.7),
    Vicreg(E, 1.0, 2.0, 3.0, group=4),
    InfoNce(E, 0.8),
    InfoNce(E, 1.3, "dot"),
    InfoNce(E, 0.9, both_directions=True),
    InfoNce(E, 1.0, "dot", both_directions=True, group=8),
]
each_loss = pytest.mark.parametrize("loss", [INVARIANCE, VARIANCE, COVARIANCE, *MIXTURES], ids=str)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def orthonormal(size, count=D, seed=7):
    return torch.linalg.qr(random(size, count, seed=seed))[0].T.contiguous()


def pairs(count=N, inputs=INPUTS):
    first = random(count, inputs, seed=1)
    return torch.stack([first, 0.8 * first + 0.5 * random(count, inputs, seed=2)], 1)


def weights_of(depth, inputs=INPUTS):
    widths = [inputs, *(8 + i for i in range(depth - 1)), E]
    return [random(o, i, seed=20 + i) * math.sqrt(2 / i) for i, o in itertools.pairwise(widths)]


def flat(weights):
    return torch.cat([each.flatten() for each in weights])


def siamese(shapes, inputs):
    """Function from the parameters of a ReLU encoder to its outputs (n, 2e) for pairs of `inputs`.

    `shapes` are those of its weights, without biases.
    """

    def outputs(theta):
        parts, h = theta.split([math.prod(each) for each in shapes]), inputs
        for number, (part, shape) in enumerate(zip(parts, shapes)):
            h = (torch.relu(h) if number else h) @ part.view(shape).T
        return h.flatten(1)

    return outputs


def predicting(inputs):
    """Function from parameters to outputs (n, 3e): two embeddings, and residuals of a predictor; number of parameters.

    The encoder uses tanh and the predictor relu, both with biases.
    """
    shapes = [(8, INPUTS), (8,), (E, 8), (E,), (5, E), (5,), (E, 5), (E,)]

    def outputs(theta):
        w = [part.view(s) for part, s in zip(theta.split([math.prod(s) for s in shapes]), shapes)]
        s = torch.tanh(inputs @ w[0].T + w[1]) @ w[2].T + w[3]
        x, y = s[:, 0], s[:, 1]
        predicted = x + torch.relu(x @ w[4].T + w[5]) @ w[6].T + w[7]
        return torch.cat([x, y, predicted - y], 1)

    return outputs, sum(math.prod(s) for s in shapes)


def oracle(outputs, theta, directions, loss, labels=None):
    """H, G and H′ (d, d) of the mean loss along `directions`, by jvp over grad.

    G is the Hessian of the loss of linearised outputs. H′ is the Hessian of the product of the outputs and the loss's
    slope, which is held fixed.
    """
    n, zero = len(outputs(theta)), theta.new_zeros(len(directions))
    units, along = torch.eye(len(directions), dtype=theta.dtype), lambda t: outputs(theta + t @ directions)
    mean = lambda z: loss.total(z, labels) / n  # noqa: E731
    z, j = along(zero), jacfwd(along)(zero)
    slope = grad(mean)(z)
    functions = [lambda t: mean(along(t)), lambda t: mean(z + j @ t), lambda t: (slope * along(t)).sum()]
    return [vmap(lambda v, f=f: jvp(grad(f), (zero,), (v,))[1])(units).numpy() for f in functions]


def assert_parts(found, whole, gauss_newton, residual, number=0):
    for name, expected in (("hessian", whole), ("gauss_newton", gauss_newton), ("residual", residual)):
        matrix = getattr(found, name)[number].numpy()
        # Where G and H′ cancel, H has the rounding of either.
        size = max(np.linalg.norm(expected), name == "hessian" and np.linalg.norm(gauss_newton))
        assert np.linalg.norm(matrix - expected) <= TIGHT * size


@functools.cache
def encoder(depth=3):
    weights, directions = weights_of(depth), orthonormal(len(flat(weights_of(depth))))
    return weights, directions, jets.of_encoder(weights, pairs(), directions)


@each_loss
@pytest.mark.parametrize("depth", [1, 3, 5])
def test_all_radii_of_an_encoder_follow_from_one_pass(loss, depth):
    weights, directions, found = encoder(depth)
    parts = jets.parts(found, [VARIANCE, loss], torch.tensor(SCALES, dtype=torch.float64))[1]
    outputs = siamese([w.shape for w in weights], pairs())
    for number, scale in enumerate(SCALES):
        theta = scale * flat(weights)
        expected = oracle(outputs, theta, directions, loss)
        assert_parts(parts, *expected, number)
        torch.testing.assert_close(parts.loss[number], loss.total(outputs(theta), None) / N, rtol=1e-10, atol=0)


@each_loss
@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_predictors_biases_and_smooth_activations_have_jets_at_each_radius(loss, scale):
    outputs, size = predicting(pairs())
    theta, directions = scale * 0.4 * random(size, seed=3), orthonormal(size)
    found = jets.of_network(outputs, theta, directions)
    (parts,) = jets.parts(found, [loss], torch.ones(1, dtype=torch.float64))
    assert_parts(parts, *oracle(outputs, theta, directions, loss))
    assert torch.isnan(parts.radial_derivative).all()


def test_codes_meet_jets_too():
    outputs, size = predicting(pairs())
    both = lambda theta: torch.cat([outputs(theta), 1.3 * outputs(theta)[:, 2 * E :] + 0.2], 1)  # noqa: E731
    theta, directions = 0.4 * random(size, seed=3), orthonormal(size)
    for sharpness in (None, 2.0):
        loss = Vicreg(E, 1.0, 2.0, 3.0, codes=2, sharpness=sharpness)
        found = jets.parts(jets.of_network(both, theta, directions), [loss], torch.ones(1, dtype=torch.float64))
        assert_parts(found[0], *oracle(both, theta, directions, loss))


def test_both_ways_agree_and_chunks_change_nothing(monkeypatch):
    weights, directions, found = encoder()
    general = jets.of_network(siamese([w.shape for w in weights], pairs()), flat(weights), directions)
    monkeypatch.setattr(jets, "ENTRIES_PER_CHUNK", 1000)
    cotangents = random(4, N, 2 * E)
    for name in ("outputs", "tangents"):
        assert relative_error(getattr(found, name).numpy(), getattr(general, name).numpy()) < TIGHT
    assert relative_error(found.trace_of_second().numpy(), general.trace_of_second().numpy()) < TIGHT
    assert relative_error(found.second(cotangents).numpy(), general.second(cotangents).numpy()) < TIGHT
    with pytest.raises(ValueError, match="not homogeneous"):
        jets.parts(general, [INVARIANCE], torch.tensor([2.0]))


def test_separate_losses_meet_the_same_jets():
    weights, directions, found = encoder()
    labels, scales = torch.arange(N) % 2, torch.tensor([0.5, 2.0], dtype=torch.float64)
    outputs = siamese([w.shape for w in weights], pairs())
    for loss in (CrossEntropy(), Classified(2)):
        (parts,) = jets.parts(found, [loss], scales, labels)
        for number, scale in enumerate(scales):
            assert_parts(parts, *oracle(outputs, scale * flat(weights), directions, loss, labels), number)


@each_loss
def test_traces_and_radial_derivatives_alone(loss):
    found, scales = encoder()[2], torch.tensor([0.2, 1.0, 3.0], dtype=torch.float64)
    (parts,) = jets.parts(found, [loss], scales)
    expected = [part.diagonal(dim1=1, dim2=2).sum(1) for part in (parts.gauss_newton, parts.residual)]
    for trace, part in zip(jets.traces(found, loss, scales), expected):
        torch.testing.assert_close(trace, part, rtol=1e-9, atol=1e-10 * parts.hessian.abs().max().item())
    radial = jets.radial_derivatives(found, loss, scales)
    torch.testing.assert_close(radial, parts.radial_derivative, rtol=1e-10, atol=0)
    step = 1e-6
    ends = [jets.parts(found, [loss], scales * math.exp(sign * step))[0].loss for sign in (1, -1)]
    # Central differences err by step² and by rounding over step.
    torch.testing.assert_close(radial, (ends[0] - ends[1]) / (2 * step), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_degrees_of_the_terms(depth):
    weights, directions, _ = encoder(depth)
    outputs = siamese([w.shape for w in weights], pairs())
    ratio, powers = 1.5, {INVARIANCE: 2 * depth - 2, COVARIANCE: 4 * depth - 2}

    def at(loss, scale):
        return oracle(outputs, scale * flat(weights), directions, loss)[0]

    for loss, power in powers.items():
        assert relative_error(at(loss, ratio), ratio**power * at(loss, 1.0)) < TIGHT
    # Where the deviations are far above or below √ε, V has a degree up to ε/v or v/ε, and all of its hinges are active.
    for epsilon, hinge, power in ((1e-10, 1e4, depth - 2), (1e10, 1e6, 2 * depth - 2)):
        loss = Vicreg(E, 0, 1, 0, epsilon=epsilon, hinge=hinge)
        assert relative_error(at(loss, ratio), ratio**power * at(loss, 1.0)) < 1e-6


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
def test_signs_of_the_gauss_newton_parts(depth):
    found = encoder(depth)[2]
    parts = jets.parts(found, [INVARIANCE, VARIANCE], torch.tensor(SCALES, dtype=torch.float64))
    for sign, part in zip((1, -1), parts):
        for matrix in part.gauss_newton:
            values = torch.linalg.eigvalsh(sign * matrix)
            assert values.min() >= -1e-12 * values.abs().max()
        assert (part.gauss_newton != 0).any()


def test_curvature_within_a_layer_has_no_residual():
    weights = weights_of(4)
    start = 0
    for weight in weights:
        directions = torch.zeros(D, len(flat(weights)), dtype=torch.float64)
        directions[:, start : start + weight.numel()] = orthonormal(weight.numel())
        start += weight.numel()
        found = jets.of_encoder(weights, pairs(), directions)
        (parts,) = jets.parts(found, [Vicreg(E, 25, 25, 1)], torch.ones(1, dtype=torch.float64))
        assert (parts.residual == 0).all() and (found.trace_of_second() == 0).all() and (parts.gauss_newton != 0).any()


@pytest.mark.parametrize("loss", [INVARIANCE, COVARIANCE, VARIANCE, InfoNce(E, 1.0, "dot")], ids=str)
def test_last_layer_trace_identity(loss):
    """σ² E Tr H_nn = E⟨Z, ∂ℓ/∂Z⟩ for Gaussian last weights, by Stein's lemma."""
    features, sigma = pairs(8, 4), 0.15
    every = torch.eye(4 * E, dtype=torch.float64)
    differences, sizes = [], []
    for number in range(200):
        weight = sigma * random(E, 4, seed=100 + number)
        found, one = jets.of_encoder([weight], features, every), torch.ones(1, dtype=torch.float64)
        trace, (radial,) = sum(jets.traces(found, loss, one)).item(), jets.radial_derivatives(found, loss, one)
        differences.append(sigma**2 * trace - radial.item())
        sizes.append(abs(radial.item()))
    error = np.std(differences) / math.sqrt(len(differences))
    assert error < 0.2 * np.mean(sizes)
    assert abs(np.mean(differences)) < 4 * error


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_gauge(depth):
    """Rescaling radius, weights, ε and hinge together changes loss and curvature only by powers of the scale."""
    weights, directions, _ = encoder(depth)
    loss, a = Vicreg(E, 25, 25, 1, epsilon=0.01, hinge=2.0), 1.7
    gauged = Vicreg(E, 25, 25 * a**depth, a ** (-2 * depth), epsilon=0.01 * a ** (2 * depth), hinge=2.0 * a**depth)
    here = jets.of_encoder(weights, pairs(), directions)
    there = jets.of_encoder([a * w for w in weights], pairs(), directions)
    one = torch.ones(1, dtype=torch.float64)
    (before,), (after,) = jets.parts(here, [loss], one), jets.parts(there, [gauged], one)
    torch.testing.assert_close(after.loss, a ** (2 * depth) * before.loss, rtol=1e-10, atol=0)
    assert relative_error(after.hessian.numpy(), a ** (2 * depth - 2) * before.hessian.numpy()) < TIGHT


@pytest.mark.parametrize("depth", [2, 3])
def test_hessian_at_the_collapse_point(depth):
    """At W_n = 0 each row has the same Hessian, given by second moments of the features, and other blocks vanish."""
    weights = weights_of(depth)
    h = torch.relu(siamese([w.shape for w in weights[:-1]], pairs())(flat(weights[:-1]))).view(N, 2, -1).numpy()
    weights[-1] = torch.zeros_like(weights[-1])
    width, start = weights[-1].shape[1], len(flat(weights)) - weights[-1].numel()
    rows = torch.eye(len(flat(weights)), dtype=torch.float64)[start : start + 2 * width]
    found, one = jets.of_encoder(weights, pairs(), rows), torch.ones(1, dtype=torch.float64)
    apart, covariances = h[:, 0] - h[:, 1], sum(np.cov(h[:, i], rowvar=False) for i in (0, 1))
    between = np.cov(h[:, 0], h[:, 1], rowvar=False, ddof=0)[:width, width:]
    vicreg = 2 * 3.0 / E * apart.T @ apart / N - 5.0 * covariances / (2 * E * math.sqrt(1e-4))
    cases = {Vicreg(E, 3.0, 5.0, 7.0): vicreg, InfoNce(E, 0.7, "dot", True): -(between + between.T) / 0.7}
    for loss, expected in cases.items():
        matrix = jets.parts(found, [loss], one)[0].hessian[0].numpy()
        for i in (0, 1):
            block = slice(i * width, (i + 1) * width)
            assert relative_error(matrix[block, block], expected) < TIGHT
        assert np.abs(matrix[:width, width:]).max() < TIGHT * np.abs(expected).max()


def test_degenerate_batches_are_finite():
    weights, directions, _ = encoder()
    dead = [-w.abs() if not number else w for number, w in enumerate(weights)]
    for given, inputs in ((weights, torch.ones_like(pairs())), (dead, pairs().abs())):
        found = jets.of_encoder(given, inputs, directions)
        for part in jets.parts(
            found, [INVARIANCE, VARIANCE, COVARIANCE, *MIXTURES], torch.tensor(SCALES, dtype=torch.float64)
        ):
            assert torch.isfinite(part.hessian).all() and torch.isfinite(part.loss).all()
