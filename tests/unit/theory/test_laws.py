"""Laws that hold in a limit or on average (Fort & Scherlis 2019), with tolerances from the spread of the samples."""

import math

import numpy as np
import pytest
import torch

from goldilocks_zone.curvature import hessian as curvature_hessian
from goldilocks_zone.models import initialisation
from goldilocks_zone.models.problem import Problem
from goldilocks_zone.randomness import stream
from goldilocks_zone.spectra import summaries
from goldilocks_zone.subspaces import labels, planes
from goldilocks_zone.theory import laws
from made_up.networks import model

PLANES = 120


def full_hessian(network, theta, examples=None):
    chosen = slice(examples)
    identity = torch.eye(len(theta), dtype=torch.float64)
    problem = Problem(network.logits, network.inputs[chosen], network.targets[chosen])
    return curvature_hessian.hessian_vector_products(problem, theta, identity).numpy()


def ratios_on_planes(hessian, kind, dimensions, name):
    """κ of the projections of a `hessian` (D, D) onto PLANES random planes, (dimensions, PLANES)."""
    eta = np.ones(len(hessian))
    found = np.empty((len(dimensions), PLANES))
    for i in range(PLANES):
        rows = planes.directions(labels.Plane(max(dimensions), kind), eta, stream(name, i))
        projected = planes.orthonormalised(rows @ hessian @ rows.T, planes.cholesky(rows))
        for j, values in enumerate(summaries.nested_eigenvalues(projected, dimensions)):
            found[j, i] = summaries.summarise(values).trace_over_norm
    return found


@pytest.fixture(scope="module")
def large_network():
    """Model with D = 3,950 parameters, so that d/D stays near 1 % at d = 50."""
    return model("fc-50x2-relu-nobias", inputs=24, classes=5, examples=100)


@pytest.mark.slow
@pytest.mark.parametrize("kind", labels.PLANE_KINDS)
def test_finite_dimension_law(large_network, kind):
    hessian = full_hessian(large_network, large_network.initialisation(0, 1.0))
    kappa = np.trace(hessian) / np.linalg.norm(hessian)
    assert kappa > 2  # inside of the zone
    found = ratios_on_planes(hessian, kind, [10, 50], "law").mean(axis=1)
    # A ratio of expectations, not an expectation of ratios: 5 % at d = 10 and 2 % from d = 50.
    assert found[0] == pytest.approx(laws.finite_dimension_law(kappa, 10), rel=0.05)
    assert found[1] == pytest.approx(laws.finite_dimension_law(kappa, 50), rel=0.02)


@pytest.mark.slow
def test_spread_far_inside_is_that_of_the_gaussian_orthogonal_ensemble(large_network):
    hessian = full_hessian(large_network, large_network.initialisation(0, 0.01))
    for d, ratios in zip([10, 50], ratios_on_planes(hessian, "dense", [10, 50], "goe")):
        expected = math.sqrt(2 / (d + 1))
        # Standard errors of mean and deviation of PLANES Gaussian values; four of them.
        assert abs(ratios.mean()) < 4 * expected / math.sqrt(PLANES)
        assert ratios.std(ddof=1) == pytest.approx(expected, rel=4 / math.sqrt(2 * PLANES))


@pytest.mark.parametrize("label, layers", [("fc-20x1-relu", 2), ("fc-20x2-relu", 3), ("fc-20x3-relu-nobias", 4)])
def test_loss_grows_with_the_power_of_the_number_of_layers(label, layers):
    network = model(label, examples=200)
    radii = np.geomspace(10, 100, 7)
    losses = [network.loss(network.initialisation(1, radius)).item() for radius in radii]
    # Corrections are ties of logits, O(1/|z|): |z| is above 20 here even for two layers.
    assert np.polyfit(np.log(radii), np.log(losses), 1)[0] == pytest.approx(layers, abs=0.02)
    assert network.loss(network.initialisation(1, 1e-3)).item() == pytest.approx(math.log(4), abs=1e-4)


@pytest.mark.parametrize("radius", [0.1, 1, 10])
def test_trace_is_that_of_the_gauss_newton_part_for_relu(radius):
    # Piecewise linear in each weight: the diagonal of the logits' second derivatives vanishes.
    network = model("fc-12x2-relu-nobias")
    theta = network.initialisation(2, radius)
    identity = torch.eye(len(theta), dtype=torch.float64)
    problem = Problem(network.logits, network.inputs, network.targets)
    found = curvature_hessian.plane_hessian(problem, theta, identity)
    assert np.trace(found.gauss_newton) == pytest.approx(np.trace(found.hessian), rel=1e-10)


def softmax_functional(network, theta):
    """Mean over examples of Σ_k p_k z_k − z_y."""
    z = network.logits(theta, network.inputs)
    chosen = z.gather(1, network.targets[:, None])[:, 0]
    return ((torch.softmax(z, 1) * z).sum(1) - chosen).mean()


def at_all(function, points):
    """Values of a torch `function` of parameters at each row of `points`, as one array."""
    return torch.func.vmap(function, chunk_size=100)(points).numpy()


def test_layer_wise_trace_identity():
    """σ_l² E Tr H_ll = E[Σ_k p_k z_k − z_y] for every layer, over Glorot draws of a bias-free ReLU network.

    Hence E Tr(ηHη) = (D/n) r ∂_r⟨L⟩ for η the layers' norms √(size) σ_l, and r ∂_r L = n E[Σ p z − z_y].
    """
    network = model("fc-8x2-relu-nobias", inputs=6, classes=3, examples=20)
    sizes = [p.size for p in network.parameters]
    sigma = initialisation.weight_deviations(network.parameters, "glorot")
    edges = np.cumsum([0, *sizes])
    draws = 1000
    # Not rescaled to one norm: the identity is about Gaussian weights.
    random = (stream("trace identity", draw) for draw in range(draws))
    points = torch.stack([torch.as_tensor(initialisation.initialise(network.parameters, "glorot", r)) for r in random])
    diagonals = at_all(lambda theta: torch.diag(torch.func.hessian(network.loss)(theta)), points)
    functionals = at_all(lambda theta: softmax_functional(network, theta), points)
    traces = np.transpose([diagonals[:, a:b].sum(1) * s**2 for a, b, s in zip(edges, edges[1:], sigma)])
    differences = traces - functionals[:, None]
    mean, error = np.mean(differences, axis=0), np.std(differences, axis=0, ddof=1) / math.sqrt(draws)
    assert np.all(np.abs(mean) < 4 * error)
    # The test can fail: it would see a violation of a quarter of the value.
    assert np.all(error < np.mean(functionals) / 16)
    shell = traces @ sizes - sum(sizes) * functionals
    assert abs(np.mean(shell)) < 4 * np.std(shell, ddof=1) / math.sqrt(draws)


def test_laplacian_identity_for_isotropic_initialisation():
    """⟨Tr H⟩_r = ∂²⟨L⟩/∂r² + ((D − 1)/r) ∂⟨L⟩/∂r over the uniform sphere, draw by draw along common rays."""
    network = model("fc-8x2-relu-nobias", inputs=6, classes=3, examples=20)
    draws = 1000
    points = torch.stack([network.initialisation(draw, 2.0, "isotropic") for draw in range(draws)])

    def compared(theta):
        """Trace of the Hessian, and the Laplacian of the mean loss over the sphere, from derivatives along the ray."""
        hessian, radius = torch.func.hessian(network.loss)(theta), torch.linalg.norm(theta)
        ray = theta / radius
        slope = torch.func.grad(network.loss)(theta) @ ray
        return torch.stack([hessian.trace(), ray @ hessian @ ray + (len(theta) - 1) / radius * slope])

    traces, laplacians = at_all(compared, points).T
    differences = traces - laplacians
    error = np.std(differences, ddof=1) / math.sqrt(draws)
    assert abs(np.mean(differences)) < 4 * error
    assert error < np.mean(traces) / 16


def test_summary_of_a_known_spectrum():
    found = summaries.summarise(np.array([-3.0, 0.0, 1.0, 4.0]))
    assert found.fraction_positive == 0.5
    assert (found.trace, found.frobenius_norm, found.spectral_norm) == (2.0, pytest.approx(math.sqrt(26)), 4.0)
    assert found.trace_over_norm == pytest.approx(2 / math.sqrt(26))
    assert summaries.effective_examples(np.array([3.0, 0.0]), np.array([3.0, 0.0])) == pytest.approx([3, 0])
