import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from goldilocks_zone.models import initialisation, labels, networks
from goldilocks_zone.randomness import stream
from made_up.networks import model


def test_logits_function_is_the_module_written_out():
    network = labels.parse_network("fc-6-5-tanh")
    module = networks.build(network, (4,), 3).double()
    theta = torch.randn(
        network.count_parameters((4,), 3), dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    w1, b1, w2, b2, w3, b3 = theta.split([24, 6, 30, 5, 15, 3])
    x = torch.linspace(-1, 1, 8, dtype=torch.float64).view(2, 4)
    hidden = torch.tanh(torch.tanh(x @ w1.view(6, 4).T + b1) @ w2.view(5, 6).T + b2)
    assert torch.allclose(networks.logits_function(module)(theta, x), hidden @ w3.view(3, 5).T + b3, atol=1e-14)


def written_out(label, image, forward):
    """Logits of the network with this label at random parameters, by the module and by the function `forward`.

    `forward` takes images and the network's parameters, as tensors in their order.
    """
    network = labels.parse_network(label)
    module = networks.build(network, image, 3).double()
    shapes = [p.shape for p in module.parameters()]
    random = stream("written out", label)
    theta = torch.as_tensor(random.standard_normal(network.count_parameters(image, 3)))
    x = torch.as_tensor(random.standard_normal((2, *image)))
    tensors = [t.view(shape) for t, shape in zip(theta.split([s.numel() for s in shapes]), shapes)]
    return networks.logits_function(module)(theta, x), forward(x, *tensors)


def test_residual_layers_written_out():
    """From the second hidden layer on, a ← a + φ(Wa + b) if widths agree: here in the second and the fourth layer."""

    def forward(x, w1, b1, w2, b2, w3, b3, w4, b4, w5, b5):
        a = torch.tanh(x @ w1.T + b1)
        a = a + torch.tanh(a @ w2.T + b2)
        a = torch.tanh(a @ w3.T + b3)
        a = a + torch.tanh(a @ w4.T + b4)
        return a @ w5.T + b5

    # As many inputs as hidden units: the first layer is none the less not residual.
    found, expected = written_out("fc-6-6-5-5-tanh-res", (6,), forward)
    assert torch.allclose(found, expected, atol=1e-13)


def test_convolutional_blocks_written_out():
    """Convolution, then pooling, then activation; an odd border is pooled alone."""

    def forward(x, w1, b1, w2, b2, w3, b3):
        for w, b in ((w1, b1), (w2, b2)):
            height, width = x.shape[2:]
            patches = functional.pad(x, (1, 1, 1, 1)).unfold(2, 3, 1).unfold(3, 3, 1)  # (n, c, h, w, 3, 3)
            x = torch.einsum("nchwij,ocij->nohw", patches, w) + b[:, None, None]
            x = functional.pad(x, (0, width % 2, 0, height % 2), value=-torch.inf)
            x = torch.tanh(x.unfold(2, 2, 2).unfold(3, 2, 2).amax((4, 5)))
        return x.flatten(1) @ w3.T + b3

    found, expected = written_out("conv-4x2-tanh", (2, 5, 6), forward)
    assert torch.allclose(found, expected, atol=1e-13)


def test_lenet5_written_out():
    def forward(x, w1, b1, w2, b2, w3, b3, w4, b4, w5, b5):
        x = functional.pad(x, (2, 2, 2, 2))
        for w, b in ((w1, b1), (w2, b2)):
            patches = x.unfold(2, 5, 1).unfold(3, 5, 1)
            x = torch.relu(torch.einsum("nchwij,ocij->nohw", patches, w) + b[:, None, None])
            x = x.unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5))
        x = torch.relu(x.flatten(1) @ w3.T + b3)
        return torch.relu(x @ w4.T + b4) @ w5.T + b5

    found, expected = written_out("lenet5", (1, 28, 28), forward)
    assert torch.allclose(found, expected, rtol=1e-10)


def test_only_plain_layers_are_built():
    """Code that reads a network layer by layer must know every kind of layer."""
    plain = {nn.Flatten, nn.Linear, nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, *networks.ACTIVATIONS.values()}
    for label in ("fc-6x3-tanh-res", "conv-4x2-relu", "lenet5-softplus"):
        layers = list(networks.build(labels.parse_network(label), (1, 8, 8), 3))
        inner = [each for layer in layers if isinstance(layer, networks.Residual) for each in layer.inner]
        assert {type(layer) for layer in (*layers, *inner)} <= {*plain, networks.Residual}


def test_glorot_radius_of_convolutions_counts_receptive_fields():
    """A convolution's fans are channels times receptive field, so that it adds 2 k² n n'/(k²(n + n')) to r_X²."""
    parameters = model("conv-16x5-relu", image=(1, 28, 28), classes=10, examples=1).parameters
    expected = 2 * 9 * (16 / (9 * 17)) + 4 * 2 * 9 * 16 * 16 / (9 * 32) + 2 * 160 / 26
    assert initialisation.glorot_radius(parameters) ** 2 == pytest.approx(expected, rel=1e-12)
    # He's fan is that of one output: σ² = 2/(9 · 16).
    assert initialisation.weight_deviations(parameters, "he")[2] ** 2 == pytest.approx(2 / 144)


@pytest.mark.parametrize("unit, norm", [("r_X", 3 * 2.0), ("norm", 3.0)])
def test_rescaled_to_a_radius(unit, norm):
    theta = stream("vector").standard_normal(50)
    assert np.linalg.norm(initialisation.rescaled(theta, 3.0, unit, r_x=2.0)) == pytest.approx(norm)


def test_rescaled_by_a_factor():
    theta = stream("vector").standard_normal(50)
    assert np.array_equal(initialisation.rescaled(theta, 3.0, "init_scale", r_x=2.0), 3 * theta)


@pytest.mark.parametrize("kind", ["glorot", "he"])
def test_initialisations_have_their_variances_and_zero_biases(kind):
    parameters = model("fc-200x2-relu", inputs=300).parameters
    theta = initialisation.initialise(parameters, kind, stream("variance", kind))
    for p, piece in zip(parameters, np.split(theta, np.cumsum([p.size for p in parameters])[:-1])):
        if p.is_bias:
            assert not piece.any()
        else:
            n_out, n_in = p.shape
            variance = 2 / (n_in + n_out) if kind == "glorot" else 2 / n_in
            # The variance of n Gaussians is known to √(2/n).
            assert np.mean(piece**2) == pytest.approx(variance, rel=4 * np.sqrt(2 / p.size))


@pytest.mark.parametrize("label", ["fc-200-30-relu", "fc-200x2-relu-nobias", "conv-8x2-relu"])
def test_uniform_initialisation_is_that_of_torchs_layers(label):
    """Weights and biases of a layer are within ±1/√fan_in, with the variance of that distribution."""
    found = model(label, image=(1, 12, 12), classes=4)
    theta = initialisation.initialise(found.parameters, "uniform", stream("uniform"))
    start = 0
    for layer in (each for each in found.module.modules() if isinstance(each, nn.Linear | nn.Conv2d)):
        reach = 1 / np.sqrt(layer.weight[0].numel())
        for tensor in layer.parameters():
            piece = theta[start : start + tensor.numel()]
            start += tensor.numel()
            assert np.abs(piece).max() < reach
            assert np.mean(piece**2) == pytest.approx(reach**2 / 3, rel=4 * np.sqrt(0.8 / len(piece)))
    assert start == len(theta)


def test_isotropic_initialisation_has_no_preferred_direction():
    parameters = model("fc-20x2-relu").parameters
    assert initialisation.weight_deviations(parameters, "isotropic") == [1.0] * len(parameters)


def test_streams_depend_on_their_whole_name_alone():
    assert stream("a", 1).random() == stream("a", 1).random()
    assert len({stream(*name).random() for name in [("a", 1), ("a", 11), ("a", "1", ""), ("a1",), ("b", 1)]}) == 5
    # The stream of a name must never change: published results would not come back.
    assert stream(1, "initialisation", "mnist", "fc-200x2-relu", 0).integers(2**32) == 240469249
