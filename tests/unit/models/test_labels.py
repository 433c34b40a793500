import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from goldilocks_zone.models import initialisation, labels, networks
from goldilocks_zone.subspaces import labels as subspace_labels

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
    assert initialisation.glorot_radius(initialisation.parameters_of(module)) == pytest.approx(radius, abs=0.006)


# fort_scherlis_2019: the networks of their table, and how many weight layers each has.
PUBLISHED_NETWORKS = {
    "fc-200x2-relu": 3,
    "fc-200x3-relu": 4,
    "fc-200x4-relu": 5,
    "fc-100x4-relu": 5,
    "fc-50x8-relu": 9,
    "fc-200x3-tanh": 4,
    "conv-16x5-relu": 6,
    "conv-16x5-tanh": 6,
    "fc-300-100-relu": 3,
    "lenet5": 5,
}


@pytest.mark.parametrize("label, layers", PUBLISHED_NETWORKS.items())
def test_published_networks_have_labels(label, layers):
    network = labels.parse_network(label)
    assert labels.depth(label) == network.depth == layers == len(network.weight_shapes((3, 32, 32), 10))


COUNTED = [
    *PUBLISHED_NETWORKS,
    *("fc-30-20-tanh-nobias", "fc-7x3-relu-nobias-res"),
    *("conv-3x1-softplus-nobias", "conv-2x9-relu", "lenet5-tanh-nobias"),
]


@pytest.mark.parametrize("image", [(1, 28, 28), (3, 32, 32), (2, 7, 45), (1, 1, 1)])
@pytest.mark.parametrize("label", COUNTED)
def test_parameters_are_counted_alike_from_label_and_module(label, image):
    network = labels.parse_network(label)
    module = networks.build(network, image, 10)
    weights = [tuple(p.shape) for p in module.parameters() if p.ndim >= 2]
    assert weights == network.weight_shapes(image, 10)
    assert sum(p.numel() for p in module.parameters()) == network.count_parameters(image, 10)
    assert sum(p.numel() for p in module.parameters() if p.ndim >= 2) == network.count_weights(image, 10)
    # The shapes fit each other, too.
    assert module(torch.zeros(2, *image)).shape == (2, 10)


def test_parameters_of_published_networks():
    def counts(label, image):
        network = labels.parse_network(label)
        return network.count_weights(image, 10), network.count_parameters(image, 10)

    assert counts("fc-200x2-relu", (784,)) == counts("fc-200x2-relu", (1, 28, 28)) == (198_800, 199_210)
    assert counts("fc-200x2-relu-nobias", (784,)) == (198_800, 198_800)
    # Fort & Scherlis: "about 1e4 parameters". LeCun et al. 1998 count 61,706 with all channels connected.
    assert counts("conv-16x5-relu", (1, 28, 28)) == (9_520, 9_610)
    assert counts("lenet5", (1, 28, 28)) == counts("lenet5", (1, 32, 32)) == (61_470, 61_706)


def test_lenet5_sees_32_by_32():
    network = labels.parse_network("lenet5")
    assert network == labels.parse_network("lenet5-relu")
    assert [network.padding((1, side, side)) for side in (28, 32, 40)] == [(2, 2), (0, 0), (0, 0)]
    # Alike on both sides, so an odd side becomes 33.
    assert network.padding((3, 31, 27)) == (1, 3)


@pytest.mark.parametrize("label", ["conv-16x5-relu", "lenet5"])
@pytest.mark.parametrize("image", [(784,), (28, 28), (1, 0, 28)])
def test_convolutions_of_flat_or_empty_images_are_refused(label, image):
    with pytest.raises(ValueError, match="channels, height and width are needed"):
        labels.parse_network(label).count_weights(image, 10)


def test_only_hidden_layers_as_wide_as_the_one_before_are_residual():
    network = labels.parse_network("fc-9-9-5-5-5-9-relu-nobias-res")
    assert [network.is_residual(i) for i in range(6)] == [False, True, False, True, True, False]
    assert not network.biases
    plain = labels.parse_network("fc-9x2-relu")
    assert not plain.is_residual(1)


widths = st.one_of(
    st.builds(lambda width, depth: (f"{width}x{depth}", (width,) * depth), st.integers(1, 999), st.integers(1, 9)),
    st.lists(st.integers(1, 999), min_size=1, max_size=5).map(lambda all_: ("-".join(map(str, all_)), tuple(all_))),
)


@given(widths, st.sampled_from(labels.ACTIVATIONS), st.booleans())
def test_a_label_says_what_its_network_is(widths, activation, biases):
    written, expected = widths
    suffix = "" if biases else "-nobias"
    label = f"fc-{written}-{activation}{suffix}"
    assert labels.parse_network(label) == labels.FullyConnected(activation, biases, expected)
    assert labels.depth(label) == len(expected) + 1
    assert labels.parse_network(f"lenet5-{activation}{suffix}") == labels.LeNet5(activation, biases)
    channels, blocks = expected[0], len(expected)
    conv = labels.parse_network(f"conv-{channels}x{blocks}-{activation}{suffix}")
    assert conv == labels.Convolutional(activation, biases, channels, blocks)


def test_a_network_of_ones_own_has_no_depth():
    assert labels.depth("small_cnn") is None
    assert [labels.is_network(name) for name in ("lenet5", "fc-9x2-relu", "small_cnn", "lenet")] == [
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize(
    "label, named",
    [
        ("fc-200x2-rleu", "did you mean relu"),
        ("fc-relu", "fc-relu"),
        ("fc-200x0-relu", "fc-200x0-relu"),
        ("fc-0x2-relu", "fc-0x2-relu"),
        ("dense-20", "dense-20"),
        ("fc-20x2-relu-bias", "fc-20x2-relu-bias"),
        ("fc-20x2-relu-res-nobias", r"write fc-<widths>-<activation>\[-nobias\]\[-res\]"),
        ("fc-30-20-relu-res", "leave out -res"),
        ("fc-20-relu-res", "leave out -res"),
        ("conv-16-relu", "write conv-<channels>x<blocks>-<activation>"),
        ("conv-16x5-rleu", "did you mean relu"),
        ("conv-0x5-relu", "channels and blocks start at 1"),
        ("conv-16x0-relu", "channels and blocks start at 1"),
        ("cnov-16x5-relu", "for example conv-16x5-relu"),
        ("lenet-5", "for example lenet5"),
        ("lenet5-tahn", "did you mean tanh"),
        ("lenet5-res", "unknown activation 'res'"),
        ("lenet5-nobias-relu", r"write lenet5\[-<activation>\]\[-nobias\]"),
    ],
)
def test_unknown_network_labels_are_refused_by_name(label, named):
    with pytest.raises(ValueError, match=named):
        labels.parse_network(label)


@pytest.mark.parametrize("label", ["plane-0-sparse", "plane-10", "plane-10-thin", "sphere-10-dense", "plane--dense"])
def test_unknown_subspace_labels_are_refused_by_name(label):
    with pytest.raises(ValueError, match=label):
        subspace_labels.parse_plane(label)


def test_a_network_at_trained_weights_is_as_deep_as_the_network():
    assert labels.depth("fc-200x4-relu late") == labels.depth("fc-200x4-relu") == 5
    assert labels.depth("small_cnn late") is labels.depth("small_cnn") is None
