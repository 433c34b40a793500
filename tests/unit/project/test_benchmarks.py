"""The benchmark of the projected Hessian: all methods give the same H_d, and a wrong one stops it."""

import csv
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import curvature, methods, plot, spectrum, tools, training
from goldilocks_zone.subspaces import planes
from goldilocks_zone.training import ensembles

ROOT = Path(__file__).parents[3]
TINY = {
    "dense": curvature.Case((12, 8, 8, 4), directions=3, examples=20),
    "dense float64": curvature.Case((12, 8, 8, 4), directions=3, examples=20, double=True),
    "dense, several radii": curvature.Case((12, 8, 8, 4), biases=False, directions=3, examples=20, radii=3),
    "CNN": curvature.Case(None, directions=3, examples=4, double=True),
    "no sequence of layers": curvature.Case(name="SmallCNN", directions=3, examples=4, double=True),
    "normalised": replace(curvature.GENERAL["normalised"], directions=3, examples=4, double=True),
}
WAYS = [method for method in methods.installed() if method not in ("engine", "engine_sweep", "matmul")]


@pytest.fixture(scope="module", autouse=True)
def threads_of_other_tests():
    """Restore torch's threads: the benchmarks' two would wait for each other when later tests run in parallel."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


# Another way to run the same computation, half a minute for each case.
@pytest.mark.parametrize("method", [method for method in WAYS if not method.endswith("compiled")])
@pytest.mark.parametrize("case", TINY)
def test_every_way_gives_the_hessian_of_the_engine(case, method):
    if method in TINY[case].left_out:
        pytest.skip("torch's jvp over jacrev is wrong with layer normalisation")
    problem = curvature.build_problem(TINY[case])
    factor = planes.cholesky(problem.directions.double().numpy())
    expected = curvature.prepare("engine", problem)()
    found = curvature.prepare(method, problem)()
    assert len(found) == TINY[case].radii
    for raw, reference in zip(found, expected):
        hessian = planes.orthonormalised(raw.double().numpy(), factor)
        error = np.linalg.norm(hessian - reference.hessian) / np.linalg.norm(reference.hessian)
        assert error < 1000 * torch.finfo(problem.dtype).eps


def test_the_products_alone_count_the_flops_of_the_theory():
    """Per direction and example 3F − 2F_1 (d tangents and one adjoint); in addition 2F − F_1 at the point, C and G."""
    case = TINY["dense"]
    d, n = case.directions, case.examples
    layers = [i * o for i, o in zip(case.widths, case.widths[1:])]
    expected = n * (d * (3 * sum(layers) - 2 * layers[0]) + 2 * sum(layers) - layers[0])
    expected += d * d * (sum(layers[1:]) + n * case.widths[-1])
    problem = curvature.build_problem(case)
    run = curvature.prepare("matmul", problem)
    assert methods.count_flops(run) == 2 * expected


@pytest.mark.slow
def test_a_case_runs_to_the_csv_and_the_figure(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(tools, "ROUNDS", 1)
    monkeypatch.setattr(methods, "installed", lambda: ["engine", "engine_sweep", "matmul", "vmap jvp-grad"])
    path = tmp_path / "curvature.csv"
    curvature.bench({"784-200-200-10-nobias R=25": TINY["dense, several radii"]}, path)
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == tools.COLUMNS
    assert [row["method"] for row in rows] == ["engine", "engine_sweep", "matmul", "vmap jvp-grad"]
    assert all(float(row["seconds"]) > 0 and float(row["peak_mib"]) >= 0 and int(row["flops"]) > 0 for row in rows)
    assert float(rows[1]["ratio_to_engine"]) == 1
    assert "vmap jvp-grad: relative error" in capfd.readouterr().out
    plot.plot_benchmark(path, tmp_path / "curvature.pdf", tmp_path / "curvature.png")
    assert (tmp_path / "curvature.pdf").read_bytes().startswith(b"%PDF")


def test_a_wrong_result_stops_the_benchmark(monkeypatch):
    wrong = lambda problem: lambda parameters: 1.001 * methods.vmap_jvp_grad(problem)(parameters)  # noqa: E731
    monkeypatch.setattr(methods, "METHODS", {"engine": methods.engine, "wrong": wrong})
    with pytest.raises(
        ValueError, match=r"^wrong differs from the engine by 1\.0e-03 of H_d in the case tiny, .*wrong$"
    ):
        curvature.measure_seconds("tiny", TINY["dense"])


def test_the_figure_needs_no_torch_and_knows_every_case_and_method():
    code = "import sys; sys.path.insert(0, 'scripts'); import benchmarks.plot; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    assert set(plot.METHODS) == {*methods.METHODS, *training.METHODS}
    # Cases of the engine alone are no comparison.
    others = set(curvature.OTHERS)
    compared = [name for name, case in curvature.MAIN.items() if not others <= set(case.left_out)]
    assert tuple(compared) == plot.MAIN
    for case in curvature.GROWTH:
        assert any(re.fullmatch(pattern, case) for _, pattern, _ in plot.GROWTH), case


@pytest.mark.parametrize("case", training.CASES)
def test_the_plain_loop_trains_as_the_engine(case, monkeypatch):
    monkeypatch.setattr(training, "WIDTHS", (784, 8, 4, 10))
    kind = training.CASES[case].kind
    problem = training.build_problem(training.Case(kind, 6 if kind else 0, radii=2, seeds=2))
    training.compare(case, problem)

    def wrong(self, inputs, labels, *loss):
        return [torch.ones_like(part) for part in self.subset.parts(self.coordinates)], self.rates

    monkeypatch.setattr(ensembles.Ensemble, "_gradients", wrong)
    with pytest.raises(ValueError, match=f"the plain loop differs from the engine by .* in the case {case}: one is wr"):
        training.compare(case, problem)


@pytest.mark.slow
def test_training_is_timed_to_the_csv(tmp_path, monkeypatch):
    monkeypatch.setattr(tools, "ROUNDS", 1)
    case = training.Case("sparse", 5, radii=2, seeds=1)
    training.bench({"small": case}, tmp_path / "training.csv")
    with open(tmp_path / "training.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows] == ["engine", "plain loop", "matmul"]
    assert all(float(row["seconds"]) > 0 and int(row["flops"]) > 0 for row in rows)
    plot.plot_training(tmp_path / "training.csv", tmp_path / "t.pdf", tmp_path / "t.png")
    assert (tmp_path / "t.pdf").read_bytes().startswith(b"%PDF")
    # The engine forms no weights of the first layer, and its sparse product is not counted.
    assert int(rows[0]["flops"]) == pytest.approx(int(rows[2]["flops"]), rel=0.01)
    assert int(rows[0]["flops"]) < 0.6 * int(rows[1]["flops"])


NO_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=NO_CUDA)])
@pytest.mark.parametrize("network", [{"widths": (12, 8, 8, 4)}, {"widths": (), "name": "SmallCNN"}])
def test_top_eigenvalues_by_all_methods(network, device, tmp_path, monkeypatch):
    case = spectrum.Case(examples=20, count=3, dtype=torch.float64, device=device, **network)
    problem = spectrum.build_problem(case)
    installed = [name for name in spectrum.METHODS if name not in methods.METHODS or name in methods.installed()]
    expected, *others = (spectrum.METHODS[name](problem, 3) for name in installed)
    for found in others:
        assert found == pytest.approx(expected, rel=1e-6)
    monkeypatch.setitem(spectrum.METHODS, "double backward", lambda *_: expected * 1.01)
    with pytest.raises(ValueError, match=r"the methods differ by 1\.0e-02 of the largest eigenvalue in the case tiny"):
        spectrum.bench({"tiny": case}, tmp_path / "spectrum.csv")
    assert not list(tmp_path.iterdir())
