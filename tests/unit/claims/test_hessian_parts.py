"""Claims about scale, temperature and the two parts of the Hessian, on studies whose answer is known."""

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from goldilocks_zone.claims import cells, definitions, evaluate
from goldilocks_zone.claims.estimators import hessian_parts
from goldilocks_zone.randomness import stream
from goldilocks_zone.theory.laws import kappa_of_random_gradients

ROOT = Path(__file__).parents[3]
DEFINITIONS = definitions.load(ROOT / "config/claims")
ALPHAS = np.geomspace(1e-3, 1e3, 25)
PLACES = np.log10(ALPHAS)
DRAWS = 6
SETTINGS = {**cells.PRIMARY_SETTINGS, "metric": "identity", "initialisation": "he"}
CELL = {"dataset": ["fashion_mnist"], "network": ["fc-300-100-relu-nobias"], "subspace": ["plane-50-sparse"]}


def study(variables, **axes):
    """Made-up study of one dataset, network and subspace, from `variables`, which maps names to (axes, values).

    `axes` are the labels of these axes.
    """
    axes = {**CELL, **axes}
    coded = {}
    for name, (names, values) in variables.items():
        dims = (*CELL, *names)
        coded[name] = (dims, np.asarray(values, float).reshape([len(axes[dim]) for dim in dims]))
    made = xr.Dataset(coded, axes, {"settings": json.dumps(SETTINGS), "planes": 1, "test_examples": "10000"})
    return made.assign_coords(classes=("dataset", [10]))


def scale_study(shift=0.0):
    """Made-up study in which κ has edges at log10 α = -1 and 1, at scales α of the parameters.

    The norms of G and H′ cross at the inner edge and, `shift` decades further out, at the outer edge.
    """
    noise = 1 + 0.001 * stream("scale").standard_normal((25, DRAWS))
    kappa = 5 / (1 + np.abs(PLACES) ** 8)
    kappa = (kappa - 2.5 + 1)[:, None] * noise
    names, point = ("examples", "radius", "dimension", "draw"), ("examples", "radius", "draw")
    inner, outer = PLACES + 1, 1 + shift - PLACES
    ratio = 10 ** (np.minimum(inner, outer)[:, None] * noise)
    variables = {
        "trace_over_norm": (names, kappa),
        "gauss_newton_spectral_norm": (names, ALPHAS[:, None] ** 4 * noise),
        "residual_spectral_norm": (names, ALPHAS[:, None] ** 4 / ratio),
        "gauss_newton_norm": (names, np.ones((25, DRAWS))),
        "residual_norm": (names, np.ones((25, DRAWS))),
        "frozen_softmax": (names, np.where(PLACES[:, None] > -1.5, 4.0, 0.1) * noise),
        "frozen_residual": (names, np.where(PLACES[:, None] < 2, 4.0, 0.1) * noise),
        "frozen_scale": (names, 3.0 * noise),
        "softmax_ratio": (point, np.full((25, DRAWS), 2.5)),
        "class_gradient": (point, np.linspace(0.3, 1, 25)[:, None] * noise),
        "example_gradient": (point, np.ones((25, DRAWS))),
    }
    made = study(variables, examples=[1000], radius=ALPHAS, dimension=[50], draw=range(DRAWS))
    given = (made[name] for name in ("class_gradient", "example_gradient", "softmax_ratio"))
    made["gauss_newton_trace"] = kappa_of_random_gradients(*given, 50, "finite").expand_dims(dimension=[50])
    return made


def judged(identifier, **studies):
    rows = evaluate.evaluate({identifier: DEFINITIONS[identifier]}, studies, "test")
    return {row["id"]: row for row in rows}


@pytest.mark.parametrize(
    "case, verdict",
    [
        ("vd4.inner", "reproduced"),
        ("vd4.outer", "reproduced"),
        ("vd5.gauss-newton", "reproduced"),
        ("vd5.residual", "not reproduced"),
        ("vd7.outer-softmax", "reproduced"),
        ("vd7.outer-residual", "reproduced"),
        ("vd7.inner-scale", "reproduced"),
        ("vd7.inner-softmax", "reproduced"),
        ("vd8.slope-finite", "reproduced"),
        ("vd8.error-finite", "reproduced"),
    ],
)
def test_claims_hold_where_they_are_true(case, verdict):
    rows = judged(case.split(".")[0], scale_fc=scale_study())
    assert rows[case]["verdict"] == verdict, rows[case]


def test_norms_that_cross_elsewhere_or_not_at_all_are_no_condition():
    assert judged("vd4", scale_fc=scale_study(shift=0.5))["vd4.outer"]["verdict"] == evaluate.NOT_REPRODUCED
    never = scale_study(shift=10.0)
    rows = judged("vd4", scale_fc=never)
    assert rows["vd4.outer"]["estimate"] == pytest.approx(2, abs=0.05)
    assert rows["vd4.outer"]["verdict"] == rows["vd4"]["verdict"] == evaluate.NOT_REPRODUCED
    flat = never.assign(trace_over_norm=never["trace_over_norm"] * 0 + 3)
    assert "does not pass" in judged("vd4", scale_fc=flat)["vd4.outer"]["reason"]


def test_without_a_zone_the_norms_must_not_foretell_one():
    flat = scale_study()
    flat["trace_over_norm"] = 0.1 * flat["trace_over_norm"]
    rows = judged("vd4", scale_fc=flat)
    assert rows["vd4.outer"]["estimate"] == pytest.approx(1, abs=0.3) and rows["vd4"]["verdict"] != evaluate.REPRODUCED
    flat["gauss_newton_spectral_norm"] = 1e-3 * flat["gauss_newton_spectral_norm"]
    rows = judged("vd4", scale_fc=flat)
    for edge in ("inner", "outer"):
        assert rows[f"vd4.{edge}"]["verdict"] == evaluate.NOT_TESTED
        assert rows[f"vd4.{edge}"]["reason"] == "what is compared is equal in every draw"


def test_norms_that_cross_upwards_within_the_zone_are_no_edge():
    """‖G‖ exceeds ‖H′‖ only beyond the zone, where it rises above it: there is no fall below ‖H′‖ to compare."""
    made = scale_study()
    ratio = xr.where(made["radius"] > 10**1.5, 3.0, 0.3)
    made["residual_spectral_norm"] = made["gauss_newton_spectral_norm"] / ratio
    made["residual_spectral_norm"][{"draw": 0}] = scale_study()["residual_spectral_norm"].isel(draw=0).values
    rows = judged("vd4", scale_fc=made)
    for edge in ("inner", "outer"):
        row = rows[f"vd4.{edge}"]
        assert row["verdict"] == evaluate.NOT_TESTED
        assert row["reason"].startswith(f"in {DRAWS - 1} of {DRAWS} draws ‖G‖ does not exceed ‖H′‖ at the peak of κ")


def test_a_curve_without_a_finite_point_is_not_tested():
    made = scale_study()
    made["trace_over_norm"][{"draw": 0}] = np.nan
    assert judged("vd4", scale_fc=made)["vd4.outer"]["reason"] == "κ of a draw is not finite at any radius"


def test_a_radius_without_a_gauss_newton_part_is_not_left_out_of_the_models_error():
    made = scale_study()
    made["gauss_newton_norm"][{"radius": 10, "draw": 0}] = np.nan
    row = judged("vd8", scale_fc=made)["vd8.error-finite"]
    assert row["verdict"] == evaluate.NOT_TESTED and row["reason"] == "the quantity is not finite in this run"


def test_norms_that_cross_beyond_the_grid_are_a_bound():
    """The grid ends within the margin of the edge of κ, and the norms have not crossed: the case is undecided."""
    near = scale_study(shift=10.0).isel(radius=slice(0, 17))
    last = near["radius"] == near["radius"][-1]
    near["trace_over_norm"] = near["trace_over_norm"].where(~last, 0.9)
    row = judged("vd4", scale_fc=near)["vd4.outer"]
    assert row["verdict"] == evaluate.NOT_TESTED
    assert row["reason"].startswith("the place is censored: ‖G‖/‖H′‖ of a draw does not pass 1 at the outer edge")


def three_ways():
    """Made-up study that rescales parameters, temperature and both; ‖G‖₂ and ‖H′‖₂ are powers of the scale α.

    The exponents are those of a homogeneous network with n = 3 weight layers.
    """
    exponents = {"parameters": (4, 1), "temperature": (6, 3), "both": (-2, -2)}
    parts = []
    for gauss_newton, residual in exponents.values():
        made = scale_study()
        for name, exponent in (("gauss_newton", gauss_newton), ("residual", residual)):
            values = made[f"{name}_spectral_norm"]
            made[f"{name}_spectral_norm"] = values * 0 + xr.DataArray(ALPHAS**exponent, dims="radius")
        parts.append(made)
    return xr.concat(parts, "rescaled").assign_coords(rescaled=list(exponents)).assign_attrs(parts[0].attrs)


def test_a_law_is_judged_where_it_holds():
    rows = judged(
        "vd5", scale_fc=three_ways(), scale_annuli=three_ways().assign_coords(network=["fc-32x2-relu-nobias"])
    )
    assert {row["verdict"] for name, row in rows.items() if "lenet5" not in name and "." in name} == {
        evaluate.REPRODUCED
    }
    for case in ("gauss-newton", "residual"):
        others = [name for name in rows if name.startswith(f"vd5.{case}.")]
        assert others == [
            f"vd5.{case}.scale_annuli.fashion_mnist.fc-32x2-relu-nobias.plane-50-sparse.N=1000.rescaled=parameters"
        ]
        # An exact slope has no width, and needs none.
        assert rows[f"vd5.{case}"]["low"] == pytest.approx(rows[f"vd5.{case}"]["high"], abs=1e-9)
    biased = three_ways().assign_coords(network=["fc-32x2-relu"])
    assert not [name for name in judged("vd5", scale_annuli=biased) if "scale_annuli" in name]


def identity_study(error):
    kappa = np.full((3, 3, DRAWS), 2.0)
    kappa[1, 2, 3] += error
    names = ("rescaled", "examples", "radius", "dimension", "draw")
    axes = {"rescaled": ["parameters", "temperature", "both"], "examples": [1000], "radius": [0.1, 1.0, 10.0]}
    return study({"trace_over_norm": (names, kappa)}, **axes, dimension=[50], draw=range(DRAWS))


def test_identities_hold_or_fail_and_are_counted_apart():
    rows = judged("vd1", identities=identity_study(1e-12))
    assert rows["vd1.identity"]["verdict"] == rows["vd1"]["verdict"] == evaluate.HOLDS
    assert rows["vd1.identity"]["estimate"] == pytest.approx(5e-13, rel=1e-3)
    assert judged("vd1", identities=identity_study(1e-9))["vd1"]["verdict"] == evaluate.FAILS
    assert judged("vd2", identities=identity_study(1e-9))["vd2"]["verdict"] == evaluate.HOLDS


def many(entropy_weight, given=0.0):
    """Made-up study of 200 initialisations whose κ is `entropy_weight` times the entropy, plus noise.

    The entropy contains `given` times the spread of the logits. The gradient's norm is 3 times the prior mismatch.
    """
    n, random = 200, stream("many")
    spread, entropy, noise = random.standard_normal((3, n))
    entropy = entropy + given * spread
    kappa = entropy_weight * entropy + noise
    mismatch = 0.2 + 0.05 * random.random(n)
    names, point = ("examples", "radius", "dimension", "draw"), ("examples", "radius", "draw")
    variables = {
        "trace_over_norm": (names, kappa),
        "entropy": (point, entropy),
        "loss": (point, -entropy),
        "logits_std": (point, spread),
        "prior_mismatch": (point, mismatch),
        "gradient_norm": (point, 3 * mismatch + 0.001 * noise),
        "class_gradient_norm": (point, np.full(n, 3.1)),
        "forced_gradient_norm": (point, 0.2 * mismatch),
    }
    return study(variables, examples=[2000], radius=[1.0], dimension=[50], draw=range(n))


@pytest.mark.slow
def test_ranks_and_slopes_over_initialisations():
    rows = judged("vd9", confidence=many(1.0))
    assert rows["vd9.entropy"]["verdict"] == rows["vd9.loss"]["verdict"] == evaluate.REPRODUCED
    assert judged("vd9", confidence=many(-1.0))["vd9"]["verdict"] == evaluate.NOT_REPRODUCED
    # A correlation through σ_z alone is none given σ_z.
    confounded = many(0.0, given=2.0)
    confounded["trace_over_norm"] = confounded["trace_over_norm"] + confounded["logits_std"]
    rows = judged("vd9", confidence=confounded)
    assert rows["vd9.entropy"]["verdict"] == evaluate.REPRODUCED
    assert rows["vd9.entropy-given"]["verdict"] != evaluate.REPRODUCED
    rows = judged("vd10", confidence=many(1.0))
    assert rows["vd10.slope"]["estimate"] == pytest.approx(3 / 3.1 - 1, abs=0.01)
    assert rows["vd10.slope"]["verdict"] == rows["vd10.forced"]["verdict"] == evaluate.REPRODUCED


def trained(accuracies, **ends):
    """Made-up training study at the radii 0.01, 1 and 100, with these test `accuracies`, one for each radius.

    `ends` are values of other variables at the last step.
    """
    radii, names = [0.01, 1.0, 100.0], ("radius", "draw")
    noise = 0.0005 * stream("trained").standard_normal((3, 5))
    at_the_end = {"training_loss": 0.5, "zero_logits": 0.0, "start_cosine": 0.5, **ends}
    starts = {"training_loss": 2.3, "zero_logits": 0.0, "start_cosine": 1.0}
    variables = {"test_accuracy": (names, np.array(accuracies)[:, None] + noise), "diverged": (names, np.zeros((3, 5)))}
    for name, start in starts.items():
        end = np.broadcast_to(np.asarray(at_the_end[name], float).reshape(-1, 1), (3, 5))
        variables[name] = ((*names, "step"), np.stack([np.full((3, 5), start), end], -1))
    made = study(variables, radius=radii, draw=range(5), step=[0, 1500])
    made = made.assign_coords(subspace=["full-free"])
    made.attrs["settings"] = json.dumps(
        {"initialisation": "he", "optimiser": "sgd", "rate_rule": "homogeneous", "steps": 1500}
    )
    return made


def zone():
    """Made-up curvature study with κ = 5 at the radius 1, and κ = 0 at 0.01 and 100."""
    kappa = np.broadcast_to(np.array([0.0, 5.0, 0.0])[:, None], (3, 5))
    names = ("rescaled", "examples", "radius", "dimension", "draw")
    axes = {"rescaled": ["parameters"], "examples": [1000], "radius": [0.01, 1.0, 100.0]}
    return study({"trace_over_norm": (names, kappa)}, **axes, dimension=[50], draw=range(5))


def test_performance_outside_of_the_zone():
    assert (
        judged("vd11", outside=trained([0.1, 0.8, 0.797]), scale_fc=zone())["vd11.published"]["verdict"] == "reproduced"
    )
    assert judged("vd11", outside=trained([0.1, 0.8, 0.75]), scale_fc=zone())["vd11"]["verdict"] == "not reproduced"


def test_the_rate_of_one_study_joins_those_of_another():
    def with_validation(made, rate):
        held_out = made["test_accuracy"].expand_dims(step=made["step"], axis=-1)
        found = made.assign(validation_accuracy=held_out)
        found.attrs["settings"] = json.dumps({**json.loads(made.attrs["settings"]), "rate": rate})
        return found

    published = with_validation(trained([0.1, 0.8, 0.75]), 0.1)
    lower, higher = (with_validation(trained([0.1, best, 0.1]), 0).isel(draw=[0, 1]) for best in (0.7, 0.2))
    tuned = xr.concat([lower, higher], "rate").assign_coords(rate=[0.02, 0.5])
    row = judged("vd11", outside=published, outside_tuned=tuned, scale_fc=zone())["vd11.tuned"]
    # At the best rate, the published one at every radius, of the two draws that both studies have.
    assert row["estimate"] == pytest.approx(0.05, abs=0.002) and row["n"] == 2
    row = judged("vd11", outside_tuned=tuned, scale_fc=zone())["vd11.tuned"]
    assert row["verdict"] == evaluate.NOT_TESTED and "the study outside is not part of this run" in row["reason"]


def test_regimes_are_told_apart():
    ends = {"training_loss": [2.3, 0.5, 9.0], "zero_logits": [1.0, 0.0, 0.0], "start_cosine": [0.999, 0.999, 0.9]}
    found = trained([0.1, 0.8, 0.7], **ends)
    named = {
        name: values.isel(draw=0).squeeze().values.tolist() for name, values in hessian_parts.regimes(found).items()
    }
    assert named == {
        "zero": [True, False, False],
        "lazy": [False, True, False],
        "divergent": [False, False, True],
        "healthy": [False, False, False],
    }
    rows = judged("vd12", outside=found, scale_fc=zone())
    assert rows["vd12.zero"]["verdict"] == rows["vd12.divergence"]["verdict"] == evaluate.REPRODUCED
    assert rows["vd12.lazy"]["verdict"] == evaluate.NOT_REPRODUCED


def test_layer_blocks_vanish_or_not():
    names = ("rescaled", "examples", "radius", "draw", "layer")
    values = np.full((3, 3, DRAWS, 4), 1e-14)
    axes = {"rescaled": ["parameters", "temperature", "both"], "examples": [1000], "radius": [0.1, 1.0, 10.0]}
    made = study({"layer_residual": (names, values)}, **axes, draw=range(DRAWS), layer=range(1, 5))
    assert judged("vd6", identities=made)["vd6"]["verdict"] == evaluate.HOLDS
    made["layer_residual"][..., -1] = 1e-3
    assert judged("vd6", identities=made)["vd6"]["verdict"] == evaluate.FAILS
