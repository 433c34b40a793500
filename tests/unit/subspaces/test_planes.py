import numpy as np
import pytest

from goldilocks_zone.models import initialisation
from goldilocks_zone.randomness import stream
from goldilocks_zone.subspaces import labels, planes
from made_up.networks import model


@pytest.fixture(scope="module")
def network():
    return model("fc-30x2-relu", inputs=40, classes=10)


@pytest.mark.parametrize("kind", labels.PLANE_KINDS)
@pytest.mark.parametrize("metric", planes.METRICS)
def test_planes_are_nested(network, kind, metric):
    eta = network.metric(metric, False)
    small, large = (planes.directions(labels.Plane(d, kind), eta, stream("nested")) for d in (5, 12))
    assert np.array_equal(small, large[:5])
    assert np.allclose(planes.cholesky(small), planes.cholesky(large)[:5, :5])


@pytest.mark.parametrize("bias_directions", [False, True])
@pytest.mark.parametrize("metric", planes.METRICS)
def test_metric_has_mean_square_one_over_the_coordinates_used(network, metric, bias_directions):
    eta = network.metric(metric, bias_directions)
    is_bias = np.repeat([p.is_bias for p in network.parameters], [p.size for p in network.parameters])
    assert np.mean(eta[~is_bias] ** 2) == pytest.approx(1)
    assert np.all(eta[is_bias] == (1.0 if bias_directions else 0.0))


def test_shell_metric_is_proportional_to_the_norm_of_a_layer_under_glorot(network):
    eta = network.metric("shell", False)
    thetas = [initialisation.initialise(network.parameters, "glorot", stream("norms", i)) for i in range(200)]
    edges = np.cumsum([0, *(p.size for p in network.parameters)])
    # 200 draws of at least 300 weights: the mean norm is known to 0.3 % at worst.
    ratios = [
        np.mean([np.linalg.norm(theta[start:stop]) for theta in thetas]) / eta[start]
        for start, stop, p in zip(edges, edges[1:], network.parameters)
        if not p.is_bias
    ]
    assert np.ptp(ratios) / np.mean(ratios) < 0.01
    inverse = network.metric("inverse_shell", False)
    products = eta[inverse != 0] * inverse[inverse != 0]
    assert np.allclose(products, products[0])


def test_sparse_columns_have_a_random_number_of_equal_entries(network):
    eta = network.metric("identity", False)
    rows = planes.directions(labels.Plane(200, "sparse"), eta, stream("sparse"))
    used = np.count_nonzero(eta)
    counts = np.count_nonzero(rows, axis=1)
    # Binomial(D, 1/√D): mean √D, deviation about D^(1/4); the mean of 200 is known to a fourteenth of that.
    assert abs(counts.mean() - np.sqrt(used)) < 4 * used**0.25 / np.sqrt(200)
    assert len(set(counts.tolist())) > 10
    for row, count in zip(rows, counts):
        assert np.allclose(np.abs(row[row != 0]), 1 / np.sqrt(count))
    signs = np.sign(rows[rows != 0])
    assert abs(signs.mean()) < 4 / np.sqrt(signs.size)


@pytest.mark.parametrize("kind", labels.PLANE_KINDS)
def test_columns_are_nearly_orthonormal_before_and_exactly_after_the_cholesky_factor(network, kind):
    eta = network.metric("identity", False)
    rows = planes.directions(labels.Plane(20, kind), eta, stream("orthogonal", kind))
    gram = rows @ rows.T
    # Cosines of independent columns have deviation 1/√D; 5 deviations over 190 pairs.
    assert np.abs(gram - np.diag(np.diag(gram))).max() < 5 / np.sqrt(np.count_nonzero(eta))
    identity = planes.orthonormalised(gram, planes.cholesky(rows))
    assert np.allclose(identity, np.eye(20), atol=1e-12)


def test_dependent_directions_are_refused():
    with pytest.raises(ValueError, match="linearly dependent"):
        planes.cholesky(np.array([[1.0, 0, 0], [0, 1.0, 0], [1.0, 1.0, 0]]))
