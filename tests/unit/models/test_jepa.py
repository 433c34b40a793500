"""Joint embeddings against plain loops: heads, latents, and members side by side."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call

from goldilocks_zone.models import initialisation, jepa, labels
from goldilocks_zone.models.embedding_losses import InfoNce, Vicreg
from goldilocks_zone.models.jepa import Latent, Sizes
from goldilocks_zone.models.problem import Problem
from goldilocks_zone.randomness import stream
from goldilocks_zone.subspaces import constraints
from goldilocks_zone.training import ensembles, loop

SIZES, N, M = Sizes(10, 2, 6), 14, 3
ENCODER = labels.parse_network("fc-9-7-relu")
HEADS = {
    "siamese": ("siamese", Latent()),
    "predictor": ("predictor", Latent()),
    "codes": ("predictor", Latent(codes=3)),
    "fixed": ("predictor", Latent(columns=4)),
    "fixed penalised": ("predictor", Latent(columns=4, penalty=0.3)),
    "free": ("predictor", Latent(columns=4, free=True)),
    "free penalised": ("predictor", Latent(columns=6, free=True, penalty=0.3)),
    "pixels": ("pixel_prediction", Latent()),
    "pixels and codes": ("pixel_prediction", Latent(codes=3)),
    "autoencoder": ("pixel_autoencoder", Latent()),
}


def made(name, sizes=SIZES):
    module = jepa.build(ENCODER, sizes, *HEADS[name])
    points = [jepa.initial(module, "uniform", stream("jepa", name, i)) for i in range(M)]
    return module, torch.as_tensor(np.stack(points))


def packed_inputs(*shape, sizes=SIZES):
    return torch.as_tensor(stream("packed").standard_normal((*shape, 2 * sizes.observation + sizes.action)))


def arrays_of(module, theta):
    pieces = theta.split([each.numel() for each in module.parameters()])
    return {name: piece.view(each.shape) for (name, each), piece in zip(module.named_parameters(), pieces)}


def dense(x, arrays, prefix, numbers):
    """Apply dense layers with ReLU between them to `x`; their weights are arrays[f"{prefix}.{number}.weight"]."""
    for number in numbers:
        x = x @ arrays[f"{prefix}.{number}.weight"].T + arrays[f"{prefix}.{number}.bias"]
        x = x.relu() if number != numbers[-1] else x
    return x


def expected(name, module, arrays, x, y, action):
    """Embeddings s_x and s_y and residuals (codes, …) of one example, computed from the arrays without the module.

    Each code of a discrete latent enters the predictor as a one-hot vector.
    """
    _, latent = HEADS[name]
    s_x, s_y = (dense(each, arrays, "encoder", (1, 3, 5)) for each in (x, y))
    if name == "siamese":
        return s_x, s_y, (s_x - s_y)[None]
    if name == "autoencoder":
        return s_x, s_y, (dense(s_x, arrays, "head.decoder", (1, 3, 5)) - x)[None]
    found = []
    for code in range(latent.codes):
        one_hot = torch.eye(latent.codes, dtype=x.dtype)[code] if latent.codes > 1 else x[:0]
        first, last = (
            (arrays[f"head.predictor.{part}.weight"], arrays[f"head.predictor.{part}.bias"])
            for part in ("first", "last")
        )
        hidden = (first[0] @ torch.cat([s_x, action, one_hot]) + first[1]).relu()
        p = s_x + last[0] @ hidden + last[1]
        if "pixels" in name:
            found.append(dense(p, arrays, "head.decoder", (1, 3, 5)) - y)
        elif latent.columns:
            basis = arrays.get("head.basis", getattr(module.head, "basis", None))
            root = latent.penalty**0.5
            # Least squares of the energy |p + Bz − s_y|² + β|z|².
            rows = torch.cat([basis, root * torch.eye(latent.columns, dtype=x.dtype)])
            z = torch.linalg.lstsq(rows, torch.cat([s_y - p, x.new_zeros(latent.columns)])[:, None]).solution[:, 0]
            found.append(torch.cat([p + basis @ z - s_y, *([root * z] if root else [])]))
        else:
            found.append(p - s_y)
    return s_x, s_y, torch.stack(found)


@pytest.mark.parametrize("name", HEADS)
def test_outputs_are_those_of_one_example_after_another(name):
    module, points = made(name)
    packed, arrays = packed_inputs(N), arrays_of(module, points[0])
    with torch.no_grad():
        outputs = functional_call(module, arrays, (packed,))
        for row, found in zip(packed, outputs):
            s_x, s_y, residuals = expected(name, module, arrays, *module.unpacked(row))
            parts = [s_x, s_y] if name == "siamese" else [s_x, s_y, residuals.flatten()]
            torch.testing.assert_close(found, torch.cat(parts), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", HEADS)
def test_members_are_evaluated_as_each_alone(name, monkeypatch):
    monkeypatch.setattr(jepa, "AT_ONCE", 500)
    module, points = made(name)
    packed, members = packed_inputs(M, N), jepa.Members(module, points)
    x, y, actions = module.unpacked(packed)
    s_x, s_y = members.encode(x), members.encode(y)
    # A pair with another target is evaluated from embeddings that are known.
    order = torch.arange(N).roll(1)
    other = torch.cat([x, y[:, order], actions], -1)
    for targets, inputs in ((s_y, packed), (s_y[:, order], other)):
        energies, codes = members.energies(s_x, targets, inputs), members.codes(s_x, targets, inputs)
        residuals = members.residuals(s_x, targets, inputs)
        for i in range(M):
            arrays = arrays_of(module, points[i])
            for j in range(N):
                with torch.no_grad():
                    one = expected(name, module, arrays, *module.unpacked(inputs[i, j]))
                torch.testing.assert_close(s_x[i, j], one[0], rtol=1e-9, atol=1e-9)
                torch.testing.assert_close(residuals[i, j], one[2], rtol=1e-9, atol=1e-9)
                assert float(energies[i, j]) == pytest.approx(float(one[2].square().sum(1).min()), rel=1e-8)
                assert int(codes[i, j]) == int(one[2].square().sum(1).argmin())


@pytest.mark.parametrize("name", ["siamese", "predictor", "codes"])
def test_predictions_less_targets_are_the_residuals(name):
    module, points = made(name)
    packed, members = packed_inputs(M, N), jepa.Members(module, points)
    x, y, actions = module.unpacked(packed)
    s_x, s_y = members.encode(x), members.encode(y)
    predicted = members.predict(s_x, actions)
    assert predicted.shape == (M, N, HEADS[name][1].codes, SIZES.embedding)
    torch.testing.assert_close(predicted - s_y[:, :, None], members.residuals(s_x, s_y, packed))


def test_without_a_limit_the_latent_explains_every_pair():
    """For q = e and β = 0, the energy vanishes identically, for compatible and incompatible pairs alike."""
    for free in (False, True):
        module = jepa.build(ENCODER, SIZES, "predictor", Latent(columns=SIZES.embedding, free=free))
        points = torch.as_tensor(np.stack([jepa.initial(module, "glorot", stream("flat", i)) for i in range(M)]))
        packed, members = packed_inputs(M, N), jepa.Members(module, points)
        embedded = [members.encode(each) for each in module.unpacked(packed)[:2]]
        assert members.energies(*embedded, packed).max() < 1e-24


def test_a_basis_starts_orthonormal_and_is_learnt_if_free():
    fixed, free = (jepa.build(ENCODER, SIZES, "predictor", Latent(columns=4, free=free)) for free in (False, True))
    assert len(list(free.parameters())) == len(list(fixed.parameters())) + 1
    module, theta = free, jepa.initial(free, "glorot", stream("basis"))
    basis = arrays_of(module, torch.as_tensor(theta))["head.basis"]
    torch.testing.assert_close(basis.T @ basis, torch.eye(4, dtype=torch.float64), rtol=1e-12, atol=1e-12)
    assert torch.equal(basis, fixed.head.basis)


def test_other_weights_start_as_usual():
    """Glorot: zero biases, and weights of variance 2/(fan_in + fan_out)."""
    module = jepa.build(labels.parse_network("fc-128-64-relu"), Sizes(72, 2, 16))
    theta = jepa.initial(module, "glorot", stream("start"))
    expected_ones = initialisation.initialise(initialisation.parameters_of(module), "glorot", stream("start"))
    assert np.array_equal(theta, expected_ones)
    for each in arrays_of(module, torch.as_tensor(theta)).values():
        deviation = 0 if each.ndim == 1 else (2 / sum(each.shape)) ** 0.5
        assert float(each.std()) == pytest.approx(deviation, rel=0.1)


def test_the_labels_of_encoders_keep_their_meaning():
    module = jepa.build(labels.parse_network("fc-9-7-tanh-nobias"), SIZES, "pixel_autoencoder")
    assert [tuple(each.shape) for each in module.encoder.parameters()] == [(9, 10), (7, 9), (6, 7)]
    assert [tuple(each.shape) for each in module.head.parameters()] == [(7, 6), (9, 7), (10, 9)]
    assert any(isinstance(each, nn.Tanh) for each in module.head.modules())
    with pytest.raises(ValueError, match="head 'twin' is unknown"):
        jepa.build(ENCODER, SIZES, "twin")


LOSSES = [
    ("predictor", Vicreg(6, 25, 25, 1)),
    ("codes", Vicreg(6, 25, 25, 1, codes=3, sharpness=2.0)),
    ("free penalised", Vicreg(6, 25, 25, 1)),
    ("predictor", InfoNce(6, group=7)),
    ("pixels", Vicreg(6, 1, 0, 0)),
]


@pytest.mark.parametrize("name, loss", LOSSES)
def test_it_trains_as_any_other_network_does(name, loss):
    """Trains members on their own fresh pairs, against torch's Adam on one after another."""
    module, points = made(name)
    shapes = [each.shape for each in module.parameters()]

    def fresh(step):
        packed = torch.as_tensor(stream("fresh pairs", step).standard_normal((M, N, 22)))
        return packed, packed.new_empty(M, N, 0)

    rates = torch.full((M,), 0.003, dtype=torch.float64)
    options = ensembles.Options(8, None, rates, own_examples=True, fresh=fresh)
    problem = Problem(module, *fresh(0), loss)
    ensemble = ensembles.Ensemble(problem, constraints.full(points, shapes, fixed=False), options, [("pairs",)])
    found = loop.train(ensemble, [8], lambda _, state: {"x": state.coordinates.clone()})["x"][0]
    for i in range(M):
        arrays = {key: nn.Parameter(each.clone()) for key, each in arrays_of(module, points[i]).items()}
        optimiser = torch.optim.Adam(arrays.values(), lr=0.003)
        for step in range(8):
            optimiser.zero_grad()
            inputs = fresh(step)[0][i]
            (loss.total(functional_call(module, arrays, (inputs,))) / N).backward()
            optimiser.step()
        alone = torch.cat([each.detach().flatten() for each in arrays.values()])
        assert np.abs(found[i] - alone.numpy()).max() < 1e-9
