import numpy as np
import pytest
import torch
from models import model

from goldilocks import labels, networks
from goldilocks.randomness import stream


def test_logits_function_is_the_module_written_out():
    network = labels.parse_network("fc-6-5-tanh")
    module = networks.build(network, (4,), 3).double()
    theta = torch.randn(network.count_parameters(4, 3), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    w1, b1, w2, b2, w3, b3 = theta.split([24, 6, 30, 5, 15, 3])
    x = torch.linspace(-1, 1, 8, dtype=torch.float64).view(2, 4)
    hidden = torch.tanh(torch.tanh(x @ w1.view(6, 4).T + b1) @ w2.view(5, 6).T + b2)
    assert torch.allclose(networks.logits_function(module)(theta, x), hidden @ w3.view(3, 5).T + b3, atol=1e-14)


@pytest.mark.parametrize("unit, norm", [("r_X", 3 * 2.0), ("norm", 3.0)])
def test_rescaled_to_a_radius(unit, norm):
    theta = stream("vector").standard_normal(50)
    assert np.linalg.norm(networks.rescaled(theta, 3.0, unit, r_x=2.0)) == pytest.approx(norm)


def test_rescaled_by_a_factor():
    theta = stream("vector").standard_normal(50)
    assert np.array_equal(networks.rescaled(theta, 3.0, "init_scale", r_x=2.0), 3 * theta)


@pytest.mark.parametrize("kind", ["glorot", "he"])
def test_initialisations_have_their_variances_and_zero_biases(kind):
    parameters = model("fc-200x2-relu", inputs=300).parameters
    theta = networks.initialise(parameters, kind, stream("variance", kind))
    for p, piece in zip(parameters, np.split(theta, np.cumsum([p.size for p in parameters])[:-1])):
        if p.is_bias:
            assert not piece.any()
        else:
            n_out, n_in = p.shape
            variance = 2 / (n_in + n_out) if kind == "glorot" else 2 / n_in
            # The variance of n Gaussians is known to √(2/n).
            assert np.mean(piece**2) == pytest.approx(variance, rel=4 * np.sqrt(2 / p.size))


def test_isotropic_initialisation_has_no_preferred_direction():
    parameters = model("fc-20x2-relu").parameters
    assert networks.weight_deviations(parameters, "isotropic") == [1.0] * len(parameters)


def test_streams_depend_on_their_whole_name_alone():
    assert stream("a", 1).random() == stream("a", 1).random()
    assert len({stream(*name).random() for name in [("a", 1), ("a", 11), ("a", "1", ""), ("a1",), ("b", 1)]}) == 5
    # The stream of a name must never change: published results would not come back.
    assert stream(1, "initialisation", "mnist", "fc-200x2-relu", 0).integers(2**32) == 240469249
