import pytest

from goldilocks import labels, networks

# fort_scherlis_2019: r_X of the published networks, stated to two decimals, in one case rounded up.
PUBLISHED_RADII = [
    ("fc-200x2-relu", 784, 23.19),
    ("fc-200x3-relu", 784, 27.16),
    ("fc-200x4-relu", 784, 30.62),
    ("fc-100x4-relu", 784, 22.26),
    ("fc-50x8-relu", 784, 21.46),
    ("fc-200x2-relu", 3072, 24.38),
    ("fc-200x3-tanh", 3072, 28.19),
    ("fc-200x4-relu", 3072, 31.54),
    ("fc-100x4-relu", 3072, 22.63),
    ("fc-50x8-relu", 3072, 21.57),
]


@pytest.mark.parametrize("label, inputs, radius", PUBLISHED_RADII)
def test_glorot_radius_of_the_published_networks(label, inputs, radius):
    module = networks.build(labels.parse_network(label), (inputs,), 10)
    assert networks.glorot_radius(networks.parameters_of(module)) == pytest.approx(radius, abs=0.006)


@pytest.mark.parametrize("label", ["fc-200x2-relu", "fc-30-20-tanh-nobias"])
def test_parameters_are_counted_alike_from_label_and_module(label):
    network = labels.parse_network(label)
    module = networks.build(network, (784,), 10)
    assert sum(p.numel() for p in module.parameters()) == network.count_parameters(784, 10)
    assert sum(p.numel() for p in module.parameters() if p.ndim == 2) == network.count_weights(784, 10)


def test_parameters_of_the_main_network():
    assert labels.parse_network("fc-200x2-relu").count_parameters(784, 10) == 199_210
    assert labels.parse_network("fc-200x2-relu-nobias").count_parameters(784, 10) == 198_800


@pytest.mark.parametrize(
    "label, named",
    [
        ("fc-200x2-rleu", "did you mean relu"),
        ("fc-relu", "fc-relu"),
        ("fc-200x0-relu", "fc-200x0-relu"),
        ("fc-0x2-relu", "fc-0x2-relu"),
        ("dense-20", "dense-20"),
        ("fc-20x2-relu-bias", "fc-20x2-relu-bias"),
    ],
)
def test_unknown_network_labels_are_refused_by_name(label, named):
    with pytest.raises(ValueError, match=named):
        labels.parse_network(label)


@pytest.mark.parametrize("label", ["plane-0-sparse", "plane-10", "plane-10-thin", "sphere-10-dense", "plane--dense"])
def test_unknown_subspace_labels_are_refused_by_name(label):
    with pytest.raises(ValueError, match=label):
        labels.parse_subspace(label)
