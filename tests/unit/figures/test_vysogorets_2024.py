"""Figures over the scale of an initialisation, from made-up studies of any size, also with missing values."""

import json

import numpy as np
import pytest
import xarray as xr

from goldilocks_zone.config import load, studies
from goldilocks_zone.figures import registry
from goldilocks_zone.randomness import stream
from made_up.figures import at_weights, draw, is_described
from made_up.meanings import meaning

FULL = load.load()
CONFIG = FULL.model_dump(exclude_none=True)
OVER_SCALES = [name for name, figure in registry.figures().items() if figure.axis == "scale"]
POINT = ("loss", "logits_std", "entropy", "prior_mismatch", "softmax_ratio", "zero_logits", "overflow")
POINT += ("gradient_norm", "forced_gradient_norm", "forced_mismatch", "class_gradient_norm")
POINT += ("class_gradient", "example_gradient")
SPECTRAL = ("gauss_newton_trace", "gauss_newton_norm", "gauss_newton_spectral_norm", "residual_norm")
SPECTRAL += ("residual_spectral_norm", "trace_over_norm", "fraction_positive")
SPECTRAL += ("frozen_softmax", "frozen_residual", "frozen_scale")
LOGGED = ("training_loss", "training_accuracy", "validation_accuracy", "validation_loss", "norm", "distance")
LOGGED += ("start_cosine", "gradient_norm", "gradient_cosine", "zero_logits", "sharpness")


def made(name, few):
    """Made-up results of the study `name` of the configuration, with all variables of a study of its kind.

    Values are positive and around one, except for κ, which has a zone in the middle of the scales. With `few`, there
    are fewer scales and one draw.
    """
    study = CONFIG["studies"][name]
    random, radii = stream("made", name), np.array(studies.radii(FULL.studies[name]))
    radii = radii[:: len(radii) // 4 or 1] if few else radii
    varied = {studies.dimension(key): values for key, values in study["vary"].items()}
    axes = {"dataset": study["datasets"], "network": study["networks"], "subspace": study["subspaces"], **varied}
    draws = 1 if few else min(study["draws"], 12)
    bump = 5 / (1 + np.log10(radii) ** 4) - 1

    def array(names, more, values=1.0):
        whole = {**axes, **more}
        place = [-1 if axis == "radius" else 1 for axis in whole]
        base = values if np.isscalar(values) else values.reshape(place)
        return tuple(whole), base * np.exp(0.1 * random.standard_normal([len(each) for each in whole.values()]))

    if study["kind"] == "training":
        point = {"radius": radii, "draw": range(draws)}
        steps = {**point, "step": FULL.studies[name].logged_steps}
        variables = {name: array(name, steps) for name in LOGGED}
        variables |= {"test_accuracy": array("", point, 0.5), "diverged": array("", point, 0.0)}
        coordinates = {**axes, **steps}
    else:
        point = {"examples": study["examples"], "radius": radii, "draw": range(draws)}
        spectral = {
            "examples": study["examples"],
            "radius": radii,
            "dimension": study["dimensions"],
            "draw": range(draws),
        }
        variables = {name: array(name, point) for name in POINT}
        variables |= {name: array(name, spectral) for name in SPECTRAL}
        variables["trace_over_norm"] = array("", spectral, bump)
        coordinates = {**axes, **spectral}
        if study["eigenvectors"]:
            images = {"eigenvector": range(1, study["eigenvectors"] + 1), "row": range(6), "column": range(6)}
            variables["top_eigenvalue"] = array("", {**point, "eigenvector": images["eigenvector"]})
            variables["eigenvector_image"] = array("", {**point, **images})
            coordinates |= images
    result = xr.Dataset(variables, coordinates).assign_coords(classes=("dataset", [10] * len(study["datasets"])))
    for variable in result.data_vars:
        result[variable].attrs = meaning(variable)
    result.attrs = {"settings": json.dumps(study), "test_examples": "10000"}
    return result


@pytest.mark.slow
@pytest.mark.parametrize("few", [True, False])
@pytest.mark.parametrize("name", OVER_SCALES)
def test_figures_are_drawn_of_few_draws_and_of_many(name, few, tmp_path):
    assert is_described(draw(name, {study: made(study, few) for study in CONFIG["figures"][name]["studies"]}, tmp_path))


@pytest.mark.weekly
@pytest.mark.parametrize("name", OVER_SCALES)
def test_figures_are_drawn_at_trained_weights(name, tmp_path):
    found = {study: made(study, True) for study in CONFIG["figures"][name]["studies"]}
    curvature = [study for study in found if CONFIG["studies"][study]["kind"] == "curvature"]
    data = draw(name, found | {study: at_weights(found[study]) for study in curvature}, tmp_path)
    assert is_described(data) and "weights" not in data.dims


@pytest.mark.slow
@pytest.mark.parametrize("name", ["parts", "outside", "random_gradients"])
def test_figures_are_drawn_of_any_one_of_their_studies(name, tmp_path):
    for study in CONFIG["figures"][name]["studies"]:
        assert draw(name, {study: made(study, True)}, tmp_path).data_vars


def test_radii_that_are_no_scale_are_refused_by_name(tmp_path):
    study = made("scale_annuli", True).assign_coords(x=("radius", np.zeros(5)))
    with pytest.raises(ValueError, match=r"scale_annuli\.nc has radii that are not scale factors"):
        draw("parts", {"scale_annuli": study.isel(radius=slice(0, 5))}, tmp_path)
