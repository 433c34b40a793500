"""Full-space spectra of matrices given by their products, against dense solutions and prescribed spectra."""

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits
from torch.autograd.functional import hessian, jvp

from goldilocks_zone.curvature import hessian as curvature_hessian
from goldilocks_zone.models.problem import Problem
from goldilocks_zone.randomness import stream
from goldilocks_zone.spectra import lanczos, summaries
from goldilocks_zone.spectra.lanczos import Search
from made_up.networks import model

# Eigenvalues of a dense solver are exact to a few eps of the largest; a hundred times that.
ROUNDING = 1e-13


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Use one thread: networks this small gain nothing from more, which are six times slower on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def hessian_of(network, theta):
    """Hessian of a network's loss: a function that multiplies rows by it, and the dense matrix (D, D).

    The function is the package's forward over reverse, and the matrix comes from torch's reverse over reverse.
    """

    def products(vectors):
        problem = Problem(network.logits, network.inputs, network.targets)
        return curvature_hessian.hessian_vector_products(problem, theta, vectors)

    return products, hessian(network.loss, theta).numpy()


def gauss_newton_of(network, theta):
    """G of a network's loss: a function that multiplies rows by it, and the dense matrix (D, D).

    The function uses the package's G, and the matrix is the Hessian of the loss of the linearised network.
    """
    identity = torch.eye(len(theta), dtype=torch.float64)
    problem = Problem(network.logits, network.inputs, network.targets)
    factored = curvature_hessian.plane_hessian(problem, theta, identity)

    def linearised_loss(point):
        def logits(parameters):
            return network.logits(parameters, network.inputs)

        value, slope = jvp(logits, theta, point - theta, create_graph=True)
        return torch.nn.functional.cross_entropy(value + slope, network.targets)

    return lambda vectors: vectors @ factored.gauss_newton, hessian(linearised_loss, theta).numpy()


MATRICES = {"hessian": hessian_of, "gauss_newton": gauss_newton_of}


@pytest.fixture(scope="module", params=itertools.product(["fc-9x2-relu", "fc-7-6-tanh-nobias"], MATRICES), ids="-".join)
def curved(request):
    """H or G of a small network at r_X: a function that multiplies rows by it, and the dense matrix (D, D)."""
    label, kind = request.param
    network = model(label)
    return MATRICES[kind](network, network.initialisation(0, 1.0))


def with_eigenvalues(values, name="basis"):
    """A dense symmetric matrix with these eigenvalues and a random orthonormal eigenbasis, and that basis (D, D)."""
    basis = np.linalg.qr(stream(name, len(values)).standard_normal((len(values), len(values))))[0]
    matrix = basis * values @ basis.T
    return (matrix + matrix.T) / 2, basis


def products_of(matrix):
    return lambda vectors: vectors @ matrix


def gaussian(m, size, name="probes"):
    return stream(name, m, size).standard_normal((m, size))


def signs(m, size, name="probes"):
    return stream(name, m, size).choice((-1.0, 1.0), (m, size))


def test_top_ten_eigenvalues_are_those_of_the_dense_matrix(curved):
    products, dense = curved
    size = len(dense)
    exact = np.linalg.eigvalsh(dense)[::-1][:10]
    values, vectors = lanczos.top_eigenpairs(products, size, 10, Search(start=gaussian(1, size)[0]))
    # Asked for to 1e-8 of each eigenvalue; a hundred times that.
    np.testing.assert_allclose(values, exact, rtol=1e-6)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(10), atol=1e-10)
    assert np.all(np.linalg.norm(dense @ vectors - vectors * values, axis=0) < 1e-6 * values)
    # Without restarts it has converged at this edge to rounding by 60 of the 120 or 210 steps that end it.
    ritz, _ = lanczos.lanczos(products, gaussian(2, size), 60)
    for row in ritz:
        np.testing.assert_allclose(row[~np.isnan(row)][::-1][:10], exact, rtol=1e-6)


def test_a_search_in_single_precision_reaches_its_tolerance(curved):
    products, dense = curved
    seen = []

    def counted(vectors):
        seen.append(vectors)
        return products(vectors)

    search = Search(start=gaussian(1, len(dense))[0], tolerance=1e-4, single=True)
    values, vectors = lanczos.top_eigenpairs(counted, len(dense), 10, search)
    exact = np.linalg.eigvalsh(dense)[::-1][:10]
    assert values.dtype == vectors.dtype == np.float64
    np.testing.assert_allclose(values, exact, rtol=1e-4)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(10), atol=1e-5)
    assert all(np.array_equal(each, each.astype(np.float32)) for each in seen)


def test_ends_of_the_spectrum():
    exact = np.r_[-9.0, -7.0, np.linspace(-1, 1, 40), 4.0, 8.0]
    matrix, _ = with_eigenvalues(exact)
    start = gaussian(1, len(exact))[0]
    for which, expected in {"LA": [8, 4, 1], "SA": [-1, -7, -9], "LM": [8, -7, -9]}.items():
        values, _ = lanczos.top_eigenpairs(products_of(matrix), len(exact), 3, Search(which, start))
        # The error of an eigenvalue is at most its residual, 1e-8 of it; descending in each case.
        np.testing.assert_allclose(values, expected, rtol=1e-7)


def test_numpy_has_one_thread_beside_products_with_threads_of_their_own():
    diagonal, found = np.arange(30.0), []

    def threads(own_threads):
        seen = set()

        def products(vectors):
            seen.update(each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas")
            return vectors * diagonal

        found.append(lanczos.top_eigenpairs(products, 30, 3, Search(own_threads=own_threads))[0])
        return seen

    with threadpool_limits(2, user_api="blas"):
        assert threads(own_threads=True) == {1} and threads(own_threads=False) == {2}
        assert {each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"} == {2}
    assert found[0] == pytest.approx(found[1], rel=1e-12)


def test_top_eigenpairs_depend_on_the_start_alone():
    # From an eigenvector the search must replace its start at random, and does so from a fixed seed.
    diagonal = np.arange(1.0, 31)
    search = Search(start=np.eye(30)[4], tolerance=1e-10)
    found = [lanczos.top_eigenpairs(lambda v: v * diagonal, 30, 3, search) for _ in range(2)]
    np.testing.assert_array_equal(found[0][1], found[1][1])
    np.testing.assert_allclose(found[0][0], [30, 29, 28], rtol=1e-8)


SPECTRA = {
    "spread": np.linspace(-1, 1, 60),
    "outliers": np.r_[np.linspace(-0.1, 0.1, 55), 3.0, 10.0, 30.0, 1e3, 1e4],
    "clusters": np.r_[1 + 1e-4 * np.arange(20), 5 + 1e-4 * np.arange(20), -3 + 1e-4 * np.arange(20)],
    "graded": np.geomspace(1e-8, 1, 60),
}


@pytest.mark.parametrize("name", SPECTRA)
def test_all_steps_give_each_eigenvalue_once(name):
    """Without full orthogonalisation, outliers would return as ghost copies, and other eigenvalues would be missing."""
    exact = np.sort(SPECTRA[name])
    matrix, basis = with_eigenvalues(exact)
    probes = gaussian(3, 60)
    values, weights = lanczos.lanczos(products_of(matrix), probes, 60)
    # Orthogonal to a few eps, so T is similar to A up to rounding of the largest eigenvalue.
    np.testing.assert_allclose(values, np.broadcast_to(exact, (3, 60)), atol=ROUNDING * np.abs(exact).max())
    # Weights are those of the probe's components on eigenvectors, which rounding turns by its ratio to the gaps.
    expected = (probes @ basis) ** 2 / (probes**2).sum(axis=1, keepdims=True)
    turned = ROUNDING * np.abs(exact).max() / np.diff(exact).min()
    np.testing.assert_allclose(weights, expected, atol=100 * turned)


def test_multiple_eigenvalues_appear_once_with_their_whole_weight():
    distinct, copies = np.array([-2.0, 0.0, 1.0, 7.0]), [5, 30, 10, 5]
    matrix, basis = with_eigenvalues(np.repeat(distinct, copies))
    probes = gaussian(4, 50)
    values, weights = lanczos.lanczos(products_of(matrix), probes, 20)
    assert np.all(weights[:, 4:] == 0) and np.all(np.isnan(values[:, 4:]))
    np.testing.assert_allclose(values[:, :4], np.broadcast_to(distinct, (4, 4)), atol=7 * ROUNDING)
    shares = (probes @ basis) ** 2 / (probes**2).sum(axis=1, keepdims=True)
    expected = np.add.reduceat(shares, np.cumsum([0, *copies[:-1]]), axis=1)
    np.testing.assert_allclose(weights[:, :4], expected, atol=100 * ROUNDING)
    # The restarted search finds all copies of the top one here, as rounding brings them in.
    top, _ = lanczos.top_eigenpairs(products_of(matrix), 50, 6, Search(start=probes[0]))
    np.testing.assert_allclose(top, [7, 7, 7, 7, 7, 1], rtol=1e-7)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("steps", [1, 6, 40])
@pytest.mark.parametrize("kind, expected", [("zero", [0.0]), ("identity", [1.0]), ("rank one", [0.0, 3.0])])
def test_krylov_spaces_that_end_early(kind, expected, steps, dtype):
    """Moments stay exact, also for more steps than D = 12, and if single precision hides the end."""
    vector = gaussian(1, 12, "direction")
    rank_one = (3 * vector.T @ vector / (vector**2).sum()).astype(dtype)
    matrix = {"zero": np.zeros((12, 12), dtype), "identity": np.eye(12, dtype=dtype), "rank one": rank_one}[kind]
    probes = gaussian(5, 12)
    values, weights = lanczos.lanczos(lambda v: v.astype(dtype) @ matrix, probes, steps)
    assert values.shape == weights.shape == (5, steps)
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-14)
    precision = 100 * np.finfo(dtype).eps
    for k in range(2 * min(steps, 2)):
        powers = np.einsum("md,de,me->m", probes, np.linalg.matrix_power(matrix.astype(float), k), probes)
        found = np.nansum(weights * values**k, axis=1)
        np.testing.assert_allclose(found, powers / (probes**2).sum(axis=1), atol=precision * 3**k)
    if dtype is np.float64 and steps > 1:
        assert np.all((weights > 0).sum(axis=1) == len(expected))
        np.testing.assert_allclose(
            values[:, : len(expected)], np.broadcast_to(expected, (5, len(expected))), atol=precision
        )


def test_products_are_asked_for_together_and_not_after_the_end():
    shapes = []

    def products(vectors):
        shapes.append(vectors.shape)
        return vectors * np.r_[1.0, 2, 3, 4]

    # The first probe lies in a space of dimension two, the others in all four.
    lanczos.lanczos(products, np.array([[1.0, 1, 0, 0], [1, 1, 1, 1], [1, 2, 3, 4]]), 10)
    assert shapes == [(3, 4), (3, 4), (2, 4), (2, 4)]


def test_moments_are_exact_for_all_basis_vectors():
    matrix, _ = with_eigenvalues(np.geomspace(0.01, 2, 40))
    density = lanczos.spectral_density(products_of(matrix), np.eye(40), 5)
    for k in range(10):
        # Σ_i e_iᵀAᵏe_i/D is the moment itself, and 5 steps are exact to k = 9; errors of rounding.
        exact = np.trace(np.linalg.matrix_power(matrix, k)) / 40
        assert density.moment(k)[0] == pytest.approx(exact, rel=100 * ROUNDING)


@pytest.mark.parametrize("draw", [gaussian, signs])
def test_moments_lie_within_their_error_bars(curved, draw):
    products, dense = curved
    size = len(dense)
    density = lanczos.spectral_density(products, draw(60, size), 8)
    exact = np.linalg.eigvalsh(dense)
    assert density.moment(0)[0] == pytest.approx(1, rel=ROUNDING)
    for k in range(1, 5):
        value, error = density.moment(k)
        assert abs(value - np.mean(exact**k)) < 4 * error
        # The test can fail: the bars are narrower than the moment's scale.
        assert 4 * error < 1.5 * np.mean(np.abs(exact) ** k)


def test_smoothed_density():
    exact = np.r_[np.linspace(-1, 1, 80), np.linspace(3, 3.5, 20)]
    matrix, _ = with_eigenvalues(exact)
    density = lanczos.spectral_density(products_of(matrix), gaussian(40, 100), 30)
    grid, width = np.linspace(-4, 7, 441), 0.3
    found, error = density.smoothed(grid, width)
    expected = np.exp(-(((grid[:, None] - exact) / width) ** 2) / 2).mean(axis=1) / (width * math.sqrt(2 * math.pi))
    # The trapezoidal rule is exact to rounding for a Gaussian as wide as twelve intervals.
    assert np.trapezoid(found, grid) == pytest.approx(1, rel=1e-10)
    # The error at a point of g probes' mean is Student's; 1e-9 where the density itself is nothing.
    assert np.all(np.abs(found - expected) < 5 * error + 1e-9)
    assert error.max() < 0.1 * expected.max()
    # Lanczos on every basis vector leaves only the quadrature's error, of polynomials of degree 59.
    complete, _ = lanczos.spectral_density(products_of(matrix), np.eye(100), 30).smoothed(grid, width)
    np.testing.assert_allclose(complete, expected, atol=1e-9)


def test_hutchinson_is_unbiased_and_knows_its_error():
    random = stream("hutchinson")
    matrix = random.standard_normal((40, 40))
    matrix += matrix.T + 3 * np.eye(40)
    probes = random.choice((-1.0, 1.0), (400, 50, 40))
    found = [summaries.hutchinson(v, v @ matrix) for v in probes]
    for name, exact in {"trace": np.trace(matrix), "frobenius_norm": np.linalg.norm(matrix)}.items():
        estimates = np.array([getattr(each, name) for each in found])
        errors = np.array([getattr(each, name + "_error") for each in found])
        spread = estimates.std(ddof=1)
        # 400 estimates know their own spread to 1/√800; four of that. Rms, as the error's square is unbiased.
        assert np.sqrt(np.mean(errors**2)) == pytest.approx(spread, rel=4 / math.sqrt(800))
        # The mean of 400 lies within four of its errors, and of the bias of the root.
        bias = exact * np.mean((errors / estimates) ** 2) / 2 if name == "frobenius_norm" else 0
        assert abs(estimates.mean() + bias - exact) < 4 * spread / math.sqrt(400)


def test_first_two_moments_are_those_of_hutchinson(curved):
    # For random signs |v|² = D: the same samples, up to rounding.
    products, dense = curved
    probes = signs(20, len(dense))
    estimate = summaries.hutchinson(probes, products(probes))
    density = lanczos.spectral_density(products, probes, 4)
    size = len(dense)
    assert np.array(density.moment(1)) * size == pytest.approx([estimate.trace, estimate.trace_error], rel=1e-10)
    assert density.moment(2)[0] * size == pytest.approx(estimate.frobenius_norm**2, rel=1e-10)


def test_one_probe_has_no_error():
    found = summaries.hutchinson(np.ones((1, 3)), np.full((1, 3), 2.0))
    assert (found.trace, found.frobenius_norm) == (6.0, pytest.approx(math.sqrt(12)))
    assert math.isnan(found.trace_error) and math.isnan(found.frobenius_norm_error)
    assert math.isnan(lanczos.spectral_density(lambda v: v, np.ones((1, 3)), 2).moment(1)[1])
    zero = summaries.hutchinson(np.ones((2, 3)), np.zeros((2, 3)))
    assert (zero.frobenius_norm, zero.frobenius_norm_error) == (0, 0)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"count": 20}, "20 eigenpairs were asked for, but the matrix has size 20"),
        ({"count": 0}, "ask for 1 to 19"),
        ({"which": "BE"}, "'BE' of the spectrum is unknown"),
        ({"start": np.zeros(20)}, "not all zero"),
        ({"start": np.ones(19)}, "give a vector of 20 finite numbers"),
        ({"start": np.full(20, np.nan)}, "give a vector of 20 finite numbers"),
        ({"products": lambda v: v * np.nan}, "not finite"),
        ({"products": lambda v: v[:, 1:]}, "return one row for each vector"),
        ({"products": np.zeros_like}, "see that the matrix is not zero"),
    ],
)
def test_wrong_eigenproblems_are_refused(change, message):
    right = {"products": lambda v: v * np.arange(20.0), "size": 20, "count": 3}
    assert lanczos.top_eigenpairs(**right)[0] == pytest.approx([19, 18, 17])
    search = Search(**{key: change[key] for key in ("which", "start") if key in change})
    change = {key: value for key, value in change.items() if key in right}
    with pytest.raises(ValueError, match=message) as caught:
        lanczos.top_eigenpairs(**(right | change), search=search)
    assert "\n" not in str(caught.value)


def test_eigenpairs_that_do_not_converge_are_refused():
    diagonal = np.linspace(0, 1, 300)
    with pytest.raises(ValueError, match=r"10 largest eigenvalues did not converge .*: allow more"):
        lanczos.top_eigenpairs(lambda v: v * diagonal, 300, 10, Search(restarts=1))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"steps": 0}, "one step and one probe, and 0 and 2 were given"),
        ({"probes": np.ones((0, 5))}, "3 and 0 were given"),
        ({"probes": np.zeros((2, 5))}, "zero or not finite"),
        ({"probes": np.full((2, 5), np.inf)}, "zero or not finite"),
        ({"products": lambda v: v * np.nan}, "product of the matrix with a vector is not finite"),
        ({"products": lambda v: v[:1]}, r"the shape \(1, 5\) for vectors of shape \(2, 5\)"),
    ],
)
def test_wrong_densities_are_refused(change, message):
    right = {"products": lambda v: v * np.arange(5.0), "probes": gaussian(2, 5), "steps": 3}
    density = lanczos.spectral_density(**right)
    with pytest.raises(ValueError, match=message):
        lanczos.spectral_density(**(right | change))
    with pytest.raises(ValueError, match="the quadrature gives moments 0 to 5 and not 6"):
        density.moment(6)
    with pytest.raises(ValueError, match="width 0 of the Gaussian kernel is not positive"):
        density.smoothed(np.zeros(1), 0)


def test_spectra_do_not_import_torch():
    code = "import sys, goldilocks_zone.spectra.lanczos; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd="scripts", check=True)
