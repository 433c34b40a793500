"""Problems with examples in several batches, against one batch; and the package's top-level names."""

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import goldilocks_zone
from goldilocks_zone.curvature import gradients, hessian, logit_gradients, loss_slices, softened_relu, top_eigenvectors
from goldilocks_zone.models.problem import Problem
from made_up.networks import model
from oracles.brute_force import relative_error

N, SIZES = 30, [7, 1, 12, 10]


def numbers(found) -> np.ndarray:
    """Collect all numbers of a result, with any nesting of lists and dataclasses, in one array."""
    if isinstance(found, torch.Tensor | np.ndarray | float):
        return np.ravel(np.asarray(found))
    parts = found if isinstance(found, list | tuple) else vars(found).values()
    return np.concatenate([numbers(part) for part in parts])


def softened(problem: Problem, theta: torch.Tensor, rows: torch.Tensor) -> list[float]:
    found = softened_relu.softened(problem, theta, 10.0)
    return [layer.beta for layer in found.network.modules() if hasattr(layer, "beta")]


def gram(problem: Problem, theta: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    found = logit_gradients.of(problem, theta)
    return found.products(found)


FUNCTIONS: dict[str, Callable] = {
    "plane_hessian": hessian.plane_hessian,
    "radial_sweep": lambda p, theta, rows: hessian.radial_sweep(p, theta, [0.5, 1.0, 2.0], rows),
    # Numbers of examples within batches and at their ends.
    "curvature_at": lambda p, theta, rows: hessian.curvature_at(
        p, theta, [(1.0, 0.5), (2.0, 3.0)], rows, hessian.Options([20, 3, N, 7])
    ),
    "sphere_hessian": hessian.sphere_hessian,
    "hessian_vector_products": hessian.hessian_vector_products,
    "gauss_newton": lambda p, theta, rows: hessian.hessian_vector_products(p, theta, rows, "gauss_newton"),
    "in little memory": lambda p, theta, rows: hessian.hessian_vector_products(p, theta, rows, memory_mib=1e-3),
    "top_eigenpairs": lambda p, theta, rows: top_eigenvectors.top_eigenpairs(p, theta, 2)[0],
    "sharpness": lambda p, theta, rows: top_eigenvectors.sharpness(p, theta),
    "spectral_density": lambda p, theta, rows: hessian.spectral_density(p, theta, 4, 2).moment(2)[0],
    "gradients": lambda p, theta, rows: gradients.gradients(p, theta),
    "logit gradients": gram,
    "pushed": lambda p, theta, rows: logit_gradients.pushed(p, theta, rows),
    "pulled": lambda p, theta, rows: logit_gradients.pulled(p, theta, torch.arange(N * 4.0).view(1, N, 4)),
    "mean_losses": lambda p, theta, rows: loss_slices.mean_losses(p, theta, rows, 0.1 * np.eye(5)),
    "softened": softened,
}


@pytest.mark.parametrize("general", [False, True], ids=["engine", "general"])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_batches_give_the_numbers_of_one_batch(function, general):
    network = model("fc-9x2-relu-nobias", examples=N)
    theta, rows, call = network.initialisation(0, 1.0), network.directions(5), FUNCTIONS[function]
    module = network.logits if general and function != "softened" else network.module
    whole = Problem(module, network.inputs, network.targets, temperature=0.8)
    pieces = network.inputs.split(SIZES), network.targets.split(SIZES)
    expected = numbers(call(whole, theta, rows))
    loader = DataLoader(TensorDataset(network.inputs, network.targets), batch_size=8)
    for inputs, labels in (pieces, ([each.numpy() for each in pieces[0]], pieces[1]), (loader, None)):
        found = numbers(call(Problem(module, inputs, labels, temperature=0.8), theta, rows))
        assert found.shape == expected.shape
        # Sums over 30 examples in another order; a search of eigenvalues ends within its tolerance.
        bound = 1e-7 if function in ("top_eigenpairs", "sharpness") else 1e-11
        assert relative_error(found, expected) < bound


def test_one_batch_in_a_list_gives_the_same_bits():
    network = model("fc-9x3-relu")
    theta, rows = network.initialisation(0, 1.0), network.directions(5, "sparse", True, torch.float32)
    one, listed = Problem(network.module, network.inputs, network.targets), [network.inputs]
    found = hessian.radial_sweep(Problem(network.module, listed, [network.targets]), theta, [0.5, 3.0], rows)
    for ours, theirs in zip(found, hessian.radial_sweep(one, theta, [0.5, 3.0], rows), strict=True):
        assert np.array_equal(numbers(ours), numbers(theirs))


def test_nested_lists_of_numbers_are_one_batch():
    network = model("fc-9x2-relu")
    theta, rows = network.initialisation(0, 1.0), network.directions(5)
    lists = Problem(network.module, network.inputs.tolist(), network.targets.tolist())
    arrays = Problem(network.module, network.inputs, network.targets)
    assert lists.is_one_batch and arrays.is_one_batch
    found, expected = (hessian.plane_hessian(each, theta, rows) for each in (lists, arrays))
    assert np.array_equal(found.hessian, expected.hessian)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"temperature": 0}, "temperature 0 is not positive and finite: give a number above zero"),
        ({"loss": "crossentropy"}, "loss 'crossentropy' is unknown: did you mean cross_entropy?"),
        (
            {"inputs": iter([1])},
            "batches come from an iterator, which ends after one pass: give a list or a DataLoader",
        ),
        ({"inputs": [], "labels": []}, "no examples to average over: give at least one, and ask for at least one"),
        ({"labels": [torch.zeros(10, dtype=int)]}, "not as many batches of labels as of inputs: give one for each"),
        ({"labels": [torch.zeros(9, dtype=int)] * 3}, "9 labels and 10 inputs were given: give one label"),
        ({"labels": None}, "the loss cross_entropy needs labels, and none are given"),
        ({"inputs": [(torch.zeros(2, 8),) * 3], "labels": None}, "a batch has 3 parts: let each be inputs and labels"),
    ],
)
def test_problems_that_cannot_be_are_refused_in_one_sentence(change, message):
    network = model("fc-9x2-relu", examples=30)
    right = {"inputs": network.inputs.split(10), "labels": network.targets.split(10)}
    with pytest.raises(ValueError) as refusal:
        hessian.plane_hessian(
            Problem(network.module, **(right | change)), network.initialisation(0, 1), network.directions(3)
        )
    assert message in str(refusal.value) and "\n" not in str(refusal.value)


def test_more_examples_than_all_batches_have_are_refused():
    network = model("fc-9x2-relu", examples=30)
    problem = Problem(network.module, network.inputs.split(10), network.targets.split(10))
    with pytest.raises(ValueError, match="31 examples were asked for, and 30 given: ask for 30 at most"):
        hessian.curvature_at(
            problem, network.initialisation(0, 1), [(1.0, 1.0)], network.directions(3), hessian.Options([31])
        )


def test_public_names_are_at_the_top_and_load_nothing_before_they_are_used():
    names = ["Problem", "plane_hessian", "sphere_hessian", "radial_sweep", "hessian_vector_products"]
    names += ["hessian_products", "top_eigenpairs", "spectral_density", "random_plane", "report"]
    assert goldilocks_zone.__all__ == names and set(names) <= set(dir(goldilocks_zone))
    assert goldilocks_zone.Problem is Problem and goldilocks_zone.plane_hessian is hessian.plane_hessian
    for name in names:
        assert getattr(goldilocks_zone, name).__name__ == name
    with pytest.raises(AttributeError, match="module 'goldilocks_zone' has no attribute 'plane_curvature'"):
        goldilocks_zone.plane_curvature  # noqa: B018
    code = "import sys, goldilocks_zone; print(sorted({'torch', 'numpy', 'scipy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd="scripts", capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_random_plane_is_one_of_its_seed():
    theta = torch.zeros(400, dtype=torch.float32)
    first, again, other = (goldilocks_zone.random_plane(6, theta, "sparse", seed) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.shape == (6, 400) and first.dtype == torch.float32
    with pytest.raises(ValueError, match="'plane-6-fastfood' is unknown: write plane-<dimension>-sparse or"):
        goldilocks_zone.random_plane(6, theta, "fastfood")
