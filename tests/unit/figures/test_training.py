"""Figures of made-up training studies of any size, also with missing values."""

import json

import numpy as np
import pytest
import xarray as xr

from goldilocks_zone.config import load
from goldilocks_zone.figures import registry
from goldilocks_zone.randomness import stream
from made_up.figures import draw, is_described
from made_up.meanings import meaning

CONFIG = load.load().model_dump(exclude_none=True)
R_X = 24.0
FIGURES = [
    name
    for name, figure in CONFIG["figures"].items()
    if any(CONFIG["studies"][study]["kind"] == "training" for study in figure.get("studies", []))
    and registry.figures()[name].axis == "radius"
    and not any(study.startswith(("geometry", "sharpness", "simplex", "jepa")) for study in figure["studies"])
]


def axes_of(name, few):
    """Settings of the study `name` of the full run, and labels of the axes of its results, by axis.

    With `few`, there are two draws and fewer values along long axes.
    """
    study = CONFIG["studies"][name]
    given = study["radii"]
    radii = np.geomspace(*(given[key] for key in ("first", "last", "number"))) if isinstance(given, dict) else given
    draws = 2 if few else min(study["draws"], 14)
    varied = {key: values[:2] if few and key != "rate" else values for key, values in study["vary"].items()}
    axes = {"dataset": study["datasets"], "network": study["networks"], "subspace": study["subspaces"], **varied}
    axes |= {"radius": np.asarray(radii)[:: 4 if few and len(radii) > 5 else 1], "draw": range(draws)}
    return study, axes


def made(name, few):
    """Made-up results of the study `name` of the full run, with all variables of a study of its kind.

    Accuracies are a smooth bump over radii, with noise, and norms grow. `few` as in `axes_of`.
    """
    study, axes = axes_of(name, few)
    random = stream("made", name)
    unit = R_X if study["radius_unit"] == "norm" else 1.0
    x = 2 * np.log10(axes["radius"] / unit)
    if study["kind"] != "training":
        axes |= {"examples": [1000], "dimension": study["dimensions"][-1:]}

    def noisy(values, **more):
        whole = {**axes, **more}
        shape = [len(each) for each in whole.values()]
        return tuple(whole), values + 0.01 * random.standard_normal(shape)

    place = np.zeros([len(each) for each in axes.values()])
    place += x.reshape([-1 if axis == "radius" else 1 for axis in axes])
    bump = np.exp(-(place**2) / 8)
    if study["kind"] == "training":
        steps = [0, *study["logged"]] if isinstance(study["logged"], list) else [0, 1, 10, 100, 500, 1500]
        step = np.array(steps) / steps[-1]
        last, norms = bump[..., None], unit * 10 ** (place[..., None] / 2)
        variables = {
            "test_accuracy": noisy(0.1 + 0.7 * bump),
            "validation_accuracy": noisy(0.1 + 0.7 * last * step, step=steps),
            "training_accuracy": noisy(0.1 + 0.7 * last * step, step=steps),
            "validation_loss": noisy(2.3 - last * step, step=steps),
            "norm": ((*axes, "step"), norms * np.sqrt(1 + 5 * step)),
            "step_cosine": noisy(0.8, step=steps),
            "diverged": (tuple(axes), np.zeros_like(bump)),
        }
        if study["curvature_examples"]:
            moments = {"moment": ["start", "end"], "examples_of": ["training", "validation"]}
            more = (bump[..., None, None] + np.array([0.0, 0.1])[:, None]) + np.zeros(2)
            variables |= {name: noisy(more, **moments) for name in ("fraction_positive", "trace_over_norm")}
            axes |= moments
        axes |= {"step": steps}
    else:
        point = tuple(axis for axis in axes if axis != "dimension")
        variables = {name: noisy(5 * bump) for name in ("trace_over_norm", "fraction_positive")}
        for variable in ("loss", "logits_std"):
            variables[variable] = (point, noisy(1 + 0.2 * place)[1][..., 0])
    result = xr.Dataset(variables, axes).assign_coords(x=("radius", x))
    result = result.assign_coords(classes=("dataset", [10] * len(axes["dataset"])))
    for variable in result.data_vars:
        result[variable].attrs = meaning(variable)
    result.attrs = {"settings": json.dumps(study), "test_examples": "10000"}
    return result


@pytest.mark.parametrize("few", [True, False])
@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.slow
def test_figures_are_drawn_of_few_draws_and_of_many(name, few, tmp_path):
    studies = {study: made(study, few) for study in CONFIG["figures"][name]["studies"]}
    assert is_described(draw(name, studies, tmp_path))


@pytest.mark.parametrize("name", [name for name in FIGURES if len(CONFIG["figures"][name]["studies"]) > 1])
@pytest.mark.slow
def test_figures_of_several_studies_are_drawn_of_each(name, tmp_path):
    for study in CONFIG["figures"][name]["studies"]:
        assert draw(name, {study: made(study, few=True)}, tmp_path).data_vars


@pytest.mark.slow
def test_runs_that_diverged_are_drawn_as_guessing(tmp_path):
    study = made("planes", few=False)
    largest = study["radius"] == study["radius"].max()
    for name in ("test_accuracy", "validation_accuracy"):
        study[name] = study[name].where(~largest)
    data = draw("accuracy", {"planes": study}, tmp_path)
    means = data[next(name for name in data if name.endswith("mean"))]
    (radius,) = (axis for axis in means.dims if axis.endswith("radius"))
    assert np.allclose(means.isel({radius: -1}), 0.1)
