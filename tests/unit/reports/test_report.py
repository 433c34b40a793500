"""Reports on made-up models: numbers against the functions that reports call, sentences for made-up numbers."""

import json
import time
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

import goldilocks_zone
from goldilocks_zone.curvature import dispatch, hessian
from goldilocks_zone.models.problem import Problem
from goldilocks_zone.reports import diagnosis, findings
from goldilocks_zone.reports import report as reports
from goldilocks_zone.spectra.lanczos import Density
from goldilocks_zone.subspaces import planes
from made_up.projects import ROOT

SMALL = reports.Options((3, 8), 3, 6, (0.5, 1.0, 2.0), (0.5, 2.0), 2, 3, 6)


def model(*more, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 9), *more, nn.ReLU(), nn.Linear(9, 4)).eval()


def examples(n=40):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, 6, generator=generator), torch.arange(n) % 4


def test_numbers_are_those_of_the_library():
    module, (x, y) = model().double(), examples()
    found = goldilocks_zone.report(module, nn.CrossEntropyLoss(), (x.double(), y), options=SMALL)
    theta = nn.utils.parameters_to_vector(module.parameters()).detach()
    rows = [planes.random_plane(8, theta, "dense", i) for i in range(3)]
    problem = Problem(module, x.double(), y)
    matrices = [hessian.plane_hessian(problem, theta, each).hessian for each in rows]
    assert [each.dimension for each in found.planes] == [3, 8]
    for each in found.planes:
        parts = [matrix[: each.dimension, : each.dimension] for matrix in matrices]
        assert each.kappa.value == pytest.approx(np.mean([np.trace(m) / np.linalg.norm(m) for m in parts]), rel=1e-9)
        positive = np.mean([(np.linalg.eigvalsh(m) > 0).mean() for m in parts])
        assert each.fraction_positive.value == pytest.approx(positive)
    mean = lambda point: nn.functional.cross_entropy(  # noqa: E731
        torch.func.functional_call(module, _named(module, point), (x.double(),)), y
    )
    whole = torch.autograd.functional.hessian(mean, theta).numpy()
    assert found.eigenvalues == pytest.approx(np.linalg.eigvalsh(whole)[::-1][:2], rel=1e-3)
    trace, error = found.trace()
    assert abs(trace - whole.trace()) < 5 * error
    assert found.loss == pytest.approx(float(mean(theta))) and found.examples == 40 and found.parameters == len(theta)
    # At the weights themselves, the zone's numbers are those of the planes.
    middle = np.mean([np.trace(m[:6, :6]) / np.linalg.norm(m[:6, :6]) for m in matrices])
    assert found.zone.over_scales[:, 1].mean() == pytest.approx(middle, rel=1e-9)
    other = [hessian.plane_hessian(replace(problem, temperature=2.0), theta, each[:6]).hessian for each in rows]
    expected = [np.trace(m) / np.linalg.norm(m) for m in other]
    assert found.zone.over_temperatures[:, 1] == pytest.approx(np.array(expected), rel=1e-9)


def _named(module, point):
    parameters = dict(module.named_parameters())
    sizes = [each.numel() for each in parameters.values()]
    return {
        name: part.view(each.shape) for (name, each), part in zip(parameters.items(), point.split(sizes), strict=True)
    }


def test_text_and_figure_show_all_and_the_model_stays(tmp_path, capsys):
    module, data = model(nn.BatchNorm1d(9)).train(), examples()
    before = {name: each.clone() for name, each in module.state_dict().items()}
    options = replace(SMALL, progress=True)
    found = goldilocks_zone.report(module, nn.CrossEntropyLoss(), [data, examples(7)], {"start": before}, options)
    assert all(torch.equal(before[name], each) for name, each in module.state_dict().items()) and module.training
    text = str(found)
    shown = ("47 examples", "Tr(H)/‖H‖", "start", "Checkpoints, d = 6", "batch normalisation mixes", "weights lie")
    for words in shown:
        assert words in text
    assert "[1/6] curvature on 3 planes" in capsys.readouterr().err
    assert found._repr_png_().startswith(b"\x89PNG") and len(found.figure().axes) == 4
    (start,) = found.checkpoints
    assert start.relative_norm == 1 and start.loss == pytest.approx(found.loss)


def test_checkpoints_come_from_files_and_are_refused_in_a_sentence(tmp_path):
    module, data = model(), examples()
    torch.save({"state_dict": model(seed=3).state_dict()}, tmp_path / "late.pt")
    found = goldilocks_zone.report(module, "cross_entropy", data, [tmp_path / "late.pt"], SMALL)
    assert found.checkpoints[0].loss != pytest.approx(found.loss)
    safetensors.torch.save_file(model(seed=3).state_dict(), tmp_path / "late.safetensors")
    again = goldilocks_zone.report(module, "cross_entropy", data, [tmp_path / "late.safetensors"], SMALL)
    assert again.checkpoints[0].loss == found.checkpoints[0].loss
    torch.save(module, tmp_path / "whole.pt")
    for given, words in (
        ([tmp_path / "whole.pt"], "cannot be read as tensors alone"),
        ([tmp_path / "none.pt"], "cannot be read"),
        ({"other": nn.Linear(2, 2).state_dict()}, "the checkpoint other: the network's tensor 0.weight is missing"),
    ):
        with pytest.raises(ValueError, match=words):
            goldilocks_zone.report(module, "cross_entropy", data, given, SMALL)
    with pytest.raises(ValueError, match="planes: 1 is too few for a confidence interval; use at least 2"):
        goldilocks_zone.report(module, "cross_entropy", data, options=replace(SMALL, planes=1))


def test_many_parameters_take_sparse_planes_and_untraceable_models_say_what_fits():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model()

        def forward(self, x):
            z = self.inner(x)
            return z if float(z.sum()) > 1e9 else 2 * z  # depends on values

    found = goldilocks_zone.report(Own().eval(), "cross_entropy", examples(), options=replace(SMALL, memory_mib=0.01))
    assert found.plane_kind == "sparse" and found.path == dispatch.AUTOMATIC
    assert "differentiated automatically: 0 MiB hold" in str(found)


def of(kappa, ratio=0.5, d=50):
    spread = np.array([-0.01, 0.0, 0.01])
    return findings.OnPlanes.of(d, kappa + spread, 0.5 + spread, ratio + spread)


def made_up(kappa=3.0, ratio=0.5, effective=900.0, zone=(0.0, 3.0, 4.0, 0.0), scales=(0.1, 0.5, 2.0, 10.0), **more):
    samples = np.tile(zone, (3, 1))
    zone = findings.Zone(50, np.array(scales), samples, np.array([0.1, 1, 10]), samples[:, :3])
    density = Density(np.array([[0.0, 1.0]] * 2), np.array([[0.9, 0.1]] * 2))
    given = {"eigenvalues": np.array([1.0]), "path": dispatch.GRAPH} | more
    return findings.Findings(
        model="Made", parameters=100, examples=1000, loss_name="cross_entropy", loss=1.0, plane_kind="dense",
        planes=[of(kappa, ratio)], effective_examples=effective, density=density, zone=zone, **given,
    )  # fmt: skip


PLAIN = diagnosis.Circumstances(False, 1e-6, True)


@pytest.mark.parametrize(
    "given, seen, expected, absent",
    [
        ({}, PLAIN, "an excess of positive curvature", "negative"),
        ({"kappa": -3.0}, PLAIN, "an excess of negative curvature", "positive"),
        ({"kappa": 0.0}, PLAIN, "within what a symmetric random matrix gives", "excess of positive"),
        ({"kappa": 0.388}, PLAIN, "does not distinguish it", "excess"),
        ({"ratio": 0.05}, PLAIN, "almost entirely its Gauss–Newton part", "does not approximate"),
        ({"ratio": 3.0}, PLAIN, "does not approximate the Hessian", "almost entirely"),
        ({"effective": 3.0}, PLAIN, "rests on 3.0 of 1,000 examples", "none"),
        ({"effective": float("nan")}, PLAIN, "weights lie inside", "rests on"),
        ({}, PLAIN, "reaches from 0.5 to 2 times their norm", "or more"),
        ({"zone": (3.0, 3.0, 0.0, 0.0)}, PLAIN, "lie outside .* from 0.1 or less to 0.5 times", "or more"),
        ({"zone": (0.0,) * 4}, PLAIN, "No multiple of the weights from 0.1 to 10 lies in a Goldilocks zone", "stand"),
        ({"eigenvalues": np.array([9.0])}, PLAIN, "One direction holds 90% of the trace", "none"),
        ({}, diagnosis.Circumstances(False, 0.2, True), r"off by 20.0%; give the model in double", "keep"),
        ({}, diagnosis.Circumstances(False, 0.2, False), r"off by 20.0%; keep double precision", "give"),
        ({}, diagnosis.Circumstances(True, 0.0, True), "batch normalisation mixes the examples", "suffice"),
        (
            {"path": dispatch.AUTOMATIC},
            diagnosis.Circumstances(False, 0.0, True, diagnosis.Fitting(512, 30, 7)),
            "512 MiB hold 30 examples of one direction, or 7 directions of one example",
            "none",
        ),
    ],
)
def test_each_sentence_follows_from_its_number(given, seen, expected, absent):
    import re

    text = " ".join(diagnosis.diagnosed(made_up(**given), seen).sentences)
    assert re.search(expected, text) and absent not in text


def test_a_plane_where_logits_overflow_leaves_the_others():
    torch.manual_seed(0)
    module, (x, y) = model(), examples()
    options = replace(SMALL, scales=(1.0, 1e200))
    found = goldilocks_zone.report(module, "cross_entropy", (x, y), options=options)
    assert np.isnan(found.zone.over_scales[:, 1]).all() and np.isfinite(found.zone.over_scales[:, 0]).all()
    assert found._repr_png_()


@pytest.mark.parametrize("short", [True, pytest.param(False, marks=pytest.mark.weekly)])
def test_the_notebook_runs(short, monkeypatch):
    cells = json.loads((ROOT / "docs/your_own_model.ipynb").read_text())["cells"]
    source = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    if short:
        sizes = "examples, width, steps, options = 1000, 100, 300, Options()\n"
        assert sizes in source
        source = source.replace(sizes, "examples, width, steps, options = 60, 8, 12, SMALL\n")
    names = {"SMALL": replace(SMALL, progress=False)}
    begun = time.monotonic()
    exec(compile(source, "your_own_model.ipynb", "exec"), names)
    assert time.monotonic() - begun < 300
    assert len(names["found"].checkpoints) == 4


def test_small_models_and_single_checkpoints_are_refused_with_what_to_do():
    model, batches = nn.Linear(4, 3), (torch.randn(8, 4), torch.arange(8) % 3)
    with pytest.raises(ValueError, match="100 dimensions are impossible for a model of 15 parameters: give Options"):
        reports.report(model, nn.CrossEntropyLoss(), batches)
    with pytest.raises(ValueError, match=r"checkpoints: a\.pt is one file; give a list of files"):
        reports.report(model, nn.CrossEntropyLoss(), batches, checkpoints="a.pt")
