"""Figures of the geometry along training, from made-up studies of any size."""

import json

import numpy as np
import pytest
import xarray as xr

from goldilocks_zone.config import load, studies
from goldilocks_zone.figures import over_steps
from goldilocks_zone.figures.fort_ganguli_2019 import sharpness
from goldilocks_zone.figures.interface import FigureSettings
from goldilocks_zone.measurements import local_geometry
from goldilocks_zone.randomness import stream
from made_up.figures import draw, is_described
from made_up.meanings import meaning

FULL = load.load()
CONFIG = FULL.model_dump(exclude_none=True)
FIGURES = ("clustering", "growth", "simplex", "spectra", "confined", "sharpness")
RANKS = 25


def made(name, few):
    """Made-up results of the study `name` of the configuration, in which the network learns.

    Outliers rise and fall, gradients are confined, and logits grow. With `few`, there are two draws and six steps.
    """
    study, random = CONFIG["studies"][name], stream("made", name)
    varied = {studies.dimension(key): values for key, values in study["vary"].items()}
    steps = [0, 1, 20, 100, 400, 1600] if few else FULL.studies[name].logged_steps
    axes = {
        **{axis: study[f"{axis}s"] for axis in ("dataset", "network", "subspace")},
        **varied,
        "radius": [1.0],
        "draw": range(2 if few else study["draws"]),
        "step": steps,
    }
    more = {
        "rank": range(1, RANKS + 1),
        "gradient_of": list(local_geometry.SOURCES),
        "pair": list(local_geometry.PAIRS),
        "layers": list(local_geometry.LAYERS),
        "input_pair": list(local_geometry.INPUT_PAIRS),
        "rung": list(local_geometry.RUNGS),
    }
    time = np.array(steps) / max(steps)
    ranks = np.arange(1, RANKS + 1)

    def array(values, *others):
        """Pair (names of axes, array) with `values` (step, …others) along all axes, times noise."""
        shape = [len(each) for each in (*axes.values(), *(more[axis] for axis in others))]
        noise = np.exp(0.05 * random.standard_normal(shape))
        return (*axes, *others), np.broadcast_to(values, shape) * noise

    values = 10 * (1 + 5 * time[:, None] * (1 - time[:, None])) * np.where(ranks < 10, 1.0, 0.1) / ranks**0.2
    variables = {
        "training_loss": array(2.3 * np.exp(-5 * time)),
        "norm": array(20 + time),
        "sharpness": array(10 * (1 + 5 * time * (1 - time))),
    }
    if study["geometry_examples"]:
        variables |= {
            "gauss_newton_eigenvalue": array(values, "rank"),
            "hessian_eigenvalue": array(1.02 * values, "rank"),
            "model_eigenvalue": array(np.where(ranks < 10, 1.2 * values, np.nan)[:, None], "rung", "rank"),
            "gradient_power": array(np.where(ranks < 10, 0.06, 0.001), "gradient_of", "rank"),
            "clustering": array(np.array([[0.5, 0.4], [0.3, 0.2], [-0.05, -0.04], [0.1, 0.1]]), "pair", "layers"),
            "input_cosine": array(np.array([0.4, 0.3]), "input_pair"),
            "model_power": array(0.5, "rung"),
            "model_edge": array(0.8, "rung"),
            "centred_edge": array(2.0),
            "gauss_newton_full_trace": array(300.0),
            "logits_std": array(0.5 + 4 * time),
            "gradient_length": array(30 + 10 * time),
        }
    if study["outputs_examples"]:
        more |= {"output_example": range(50), "class": range(3)}
        # From the middle of the triangle to its corners.
        labels = random.integers(0, 3, 50)
        p = 1 / 3 + time[:, None, None] * (0.9999 * np.eye(3)[labels] - 0.3333)
        variables["outputs"] = (
            (*axes, "output_example", "class"),
            np.broadcast_to(p, [*map(len, axes.values()), 50, 3]),
        )
        shape = [*map(len, axes.values()), 50]
        variables["output_label"] = ((*axes, "output_example"), np.broadcast_to(labels.astype(float), shape))
    coordinates = {**axes, **more, "classes": ("dataset", [10] * len(study["datasets"])), "x": ("radius", [0.0])}
    result = xr.Dataset(variables, coordinates)
    if not few and study["geometry_examples"]:
        seldom = result["step"].isin(study["geometry_steps"])
        geometric = [each for each in variables if each not in ("training_loss", "norm", "sharpness")]
        result = result.assign({each: result[each].where(seldom) for each in geometric})
    return described(result, study)


def described(study, settings):
    for variable in study.data_vars:
        study[variable].attrs = meaning(variable)
    return study.assign_attrs(settings=json.dumps(settings))


@pytest.mark.slow
@pytest.mark.parametrize("few", [True, False])
@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_drawn_of_few_draws_and_of_many(name, few, tmp_path):
    assert is_described(draw(name, {study: made(study, few) for study in CONFIG["figures"][name]["studies"]}, tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["clustering", "confined", "growth", "sharpness"])
def test_figures_are_drawn_of_any_one_of_their_studies(name, tmp_path):
    for study in CONFIG["figures"][name]["studies"]:
        assert draw(name, {study: made(study, True)}, tmp_path).data_vars


@pytest.mark.parametrize(
    "names, titles",
    [
        (["geometry"], ["gradient descent"]),
        (["geometry", "geometry_labels"], ["gradient descent", "controls"]),
        (["geometry_labels"], ["controls"]),
    ],
)
def test_sharpness_has_no_panel_that_repeats_another(names, titles):
    figure, _ = sharpness.draw({name: made(name, True) for name in names}, FigureSettings(), None)
    drawn = [ax.get_legend().get_title().get_text() for ax in figure.axes if ax.get_legend()]
    assert [title.partition(") ")[2] for title in drawn] == titles


@pytest.mark.slow
@pytest.mark.parametrize("few", [True, False])
def test_the_model_beside_networks_over_the_radius(few, tmp_path):
    study, random = CONFIG["studies"]["curvature"], stream("made curvature")
    radii = np.geomspace(0.01, 100, 5 if few else 25)
    axes = {
        **{axis: study[f"{axis}s"] for axis in ("dataset", "network", "subspace")},
        "examples": study["examples"],
        "radius": radii,
        "draw": range(1 if few else 5),
    }
    x = 2 * np.log10(radii)

    def array(values, *others):
        shape = [*map(len, axes.values()), *(len(study["dimensions"]) for _ in others)]
        values = np.reshape(values, (-1, 1, *(1 for _ in others)))
        return (*axes, *others), values * np.exp(0.05 * random.standard_normal(shape))

    variables = {
        "trace_over_norm": array(6 * np.exp(-(x**2)), "dimension"),
        "gauss_newton_trace": array(6 * radii, "dimension"),
        "gauss_newton_norm": array(radii, "dimension"),
        "logits_std": array(radii**3),
        "class_gradient": array(radii**2, "dimension"),
        "example_gradient": array(2 * radii**2, "dimension"),
    }
    whole = xr.Dataset(variables, {**axes, "dimension": study["dimensions"]})
    whole = whole.assign_coords(x=("radius", x), classes=("dataset", [10]))
    data = draw("model_kappa", {"curvature": described(whole, study)}, tmp_path)
    # Where outputs are mixed κ does not know of the radius; where they freeze it falls, until there is no G at all.
    model = data["model_kappa_mean"].values
    model = model[np.isfinite(model)]
    assert model[0] == pytest.approx(model[1], rel=0.02) and model[-1] < 0.9 * model[0]
    assert sorted(data["ratio"].values)[:2] == [0, 0.1] and data["ratio"].size == 4
    assert is_described(data)


def test_runs_are_named_by_what_is_unusual():
    names = {
        study: [name for name, _ in over_steps.runs(made(study, True))]
        for study in ("geometry", "geometry_adam", "geometry_data", "geometry_networks", "sharpness_batch")
    }
    assert names == {
        "geometry": ["usual"],
        "geometry_adam": ["Adam", "Adam, images in [0, 1]", "Adam, mean image removed"],
        "geometry_data": ["Fashion-MNIST", "CIFAR-10"],
        "geometry_networks": ["fc-200x2-tanh", "conv-8x2-relu"],
        "sharpness_batch": ["all examples"],
    }


def test_stages_are_those_of_the_mean_loss():
    run = next(run for _, run in over_steps.runs(made("geometry", True)))
    # 2.3 e^(-5t) is below a fifth of ln 10 from t = 0.32 on.
    assert over_steps.stages(run, "norm") == {"start": 0, "learnt": 1600, "end": 1600}
    run["training_loss"] = run["training_loss"] / 3
    assert over_steps.stages(run, "norm")["learnt"] == 400
    run["training_loss"] = run["training_loss"] + 10
    assert over_steps.stages(run, "norm")["learnt"] == 100
