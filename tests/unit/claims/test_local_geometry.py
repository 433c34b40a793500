"""Claims about the geometry along training, on made-up runs whose answers are known."""

import numpy as np
import pytest
import xarray as xr

from goldilocks_zone.claims import quantities
from goldilocks_zone.claims.cells import NotTested
from goldilocks_zone.claims.estimators import local_geometry
from goldilocks_zone.measurements import local_geometry as measurements_local_geometry
from goldilocks_zone.randomness import stream
from goldilocks_zone.theory import random_model

DRAWS, CLASSES, RANKS = 8, 10, 25
STEPS = [0, 1, 5, 10, 25, 50, 100, 200, 400, 600, 800, 900, 1000]


def cell(**changed):
    """Made-up training run, over draws and steps, with `changed` variables.

    Its loss falls below a fifth of ln C at step 100, and C − 1 outliers of G are ten times the other eigenvalues.
    """
    draws, steps, ranks = list(range(DRAWS)), STEPS, list(range(1, RANKS + 1))
    noise = 1 + 0.01 * stream("made-up run").random((DRAWS, len(steps)))
    loss = np.where(np.array(steps) < 100, 2.0, 0.3) * noise
    values = np.where(np.array(ranks) < CLASSES, 10.0, 0.9) * np.array(ranks, float) ** -0.01
    powers = np.where(np.array(ranks) < CLASSES, 0.8 / (CLASSES - 1), 0.001)
    clusters = np.array([[0.6, 0.5], [0.4, 0.3], [-0.1, -0.2], [0.1, 0.2]])
    data = {
        "training_loss": (("draw", "step"), loss),
        "gauss_newton_eigenvalue": (("draw", "step", "rank"), noise[..., None] * values),
        "gauss_newton_full_trace": (("draw", "step"), 300 * noise),
        "gauss_newton_full_norm": (("draw", "step"), 40 * noise),
        "centred_edge": (("draw", "step"), 1.5 * noise),
        "trace_examples": (("draw", "step"), 500 * noise),
        "gradient_power": (
            ("draw", "step", "gradient_of", "rank"),
            np.broadcast_to(powers, (DRAWS, len(steps), len(measurements_local_geometry.SOURCES), RANKS)).copy(),
        ),
        "clustering": (("draw", "step", "pair", "layers"), np.broadcast_to(clusters, (DRAWS, len(steps), 4, 2)).copy()),
        "input_cosine": (
            ("draw", "step", "input_pair"),
            np.broadcast_to([0.55, 0.4], (DRAWS, len(steps), 2)).copy(),
        ),
        "residual_extreme": (("draw", "step", "end"), noise[..., None] * np.array([-3.0, 1.0])),
        "top_space_cosine": (("draw", "step"), 0.95 * np.ones_like(noise)),
        "logits_std": (("draw", "step"), np.broadcast_to(np.geomspace(0.1, 5, len(steps)), noise.shape).copy()),
        "entropy": (("draw", "step"), noise),
        "held_out_entropy": (("draw", "step"), 10 * noise),
        "held_out_logits_std": (("draw", "step"), np.full(noise.shape, 0.1)),
        "hessian_full_trace": (("draw", "step"), 200 * noise),
        "hessian_full_norm": (("draw", "step"), 100 * noise),
        "formula_outlier": (("draw", "step"), 3 * np.ones_like(noise)),
        "formula_kappa": (("draw", "step"), 4 * np.ones_like(noise)),
        "sharpness": (("draw", "step"), noise),
        **{
            name: (("draw", "step", "rung"), np.ones((*noise.shape, 3)))
            for name in measurements_local_geometry.MODELLED
        },
    }
    coordinates = {
        "draw": draws,
        "step": steps,
        "rank": ranks,
        "gradient_of": list(measurements_local_geometry.SOURCES),
        "pair": list(measurements_local_geometry.PAIRS),
        "layers": list(measurements_local_geometry.LAYERS),
        "end": list(measurements_local_geometry.ENDS),
        "input_pair": list(measurements_local_geometry.INPUT_PAIRS),
        "rung": list(measurements_local_geometry.RUNGS),
        "classes": CLASSES,
    }
    made = xr.Dataset(data, coordinates).expand_dims(radius=[1.0])
    return made.assign({name: made[name].copy(data=values) for name, values in changed.items()})


def estimate(function, made, **case):
    (found,) = quantities.estimate(made, {"quantity": function, **case}, "a case")
    return found


@pytest.mark.parametrize("rule", ["edge", "gap"])
@pytest.mark.parametrize("stage", ["start", "learnt", "end"])
def test_outliers_are_counted_by_both_rules(rule, stage):
    found = estimate("outliers", cell(), rule=rule, stage=stage)
    assert found.value == -1 and found.n == DRAWS
    low, high = found.interval(0.9)
    assert -1.5 < low < high < -0.5


def test_the_primary_checkpoint_is_the_first_that_has_learnt():
    values = cell()["gauss_newton_eigenvalue"].transpose("radius", "draw", "step", "rank").values
    # Elsewhere there are three outliers; at step 100, in every draw but the first, five.
    values[..., 3:] = 0.1
    values[:, 1:, STEPS.index(100), 3:5] = 10.0
    values[:, 0, STEPS.index(200), 3:5] = 10.0
    losses = cell()["training_loss"].transpose("radius", "draw", "step").values
    losses[:, 0, STEPS.index(100)] = 2.0
    made = cell()
    made = made.assign(
        gauss_newton_eigenvalue=(("radius", "draw", "step", "rank"), values),
        training_loss=(("radius", "draw", "step"), losses),
    )
    assert estimate("outliers", made, rule="edge", stage="learnt").value == 5 - CLASSES
    assert estimate("outliers", made, rule="edge", stage="end").value == 3 - CLASSES


def test_outliers_of_too_few_effective_examples_are_not_counted():
    made = cell()
    made["trace_examples"] = made["trace_examples"] / 2
    with pytest.raises(NotTested, match="effective examples, but at least 300 are needed for 10 classes"):
        estimate("outliers", made, rule="edge", stage="end")


def test_runs_that_do_not_learn_have_no_primary_checkpoint():
    made = cell()
    made["training_loss"] = made["training_loss"] + 1
    with pytest.raises(NotTested, match="not every draw has a checkpoint with a training loss below"):
        estimate("outliers", made, rule="edge", stage="learnt")


def test_steps_without_geometry_are_passed_over():
    made = cell()
    names = ["gauss_newton_eigenvalue", "trace_examples", "centred_edge"]
    made[names] = made[names].where(made["step"].isin([0, 50, 400, 1000]))
    assert estimate("outliers", made, rule="edge", stage="learnt").value == -1
    with pytest.raises(NotTested, match="measured no gauss_newton_eigenvalue"):
        made[names] = made[names].where(made["step"] < 0)
        estimate("outliers", made, rule="edge", stage="end")


def test_the_slope_of_outliers_over_classes():
    parts = []
    for classes in (2, 5, 10):
        values = np.where(np.arange(1, RANKS + 1) < classes, 10.0, 0.9)
        made = cell().drop_vars("classes")
        made["gauss_newton_eigenvalue"] = made["gauss_newton_eigenvalue"] * 0 + values
        made["trace_examples"] = made["trace_examples"] * 0 + 400
        made["training_loss"] = made["training_loss"] * np.log(classes) / np.log(10)
        parts.append(made.expand_dims(class_count=[classes]))
    both = xr.concat(parts, "class_count")
    assert estimate("outlier_slope", both, rule="edge", stage="learnt").value == pytest.approx(1)
    with pytest.raises(NotTested, match="can be counted for 2 numbers of classes of this run, 3 are needed"):
        estimate("outlier_slope", both.isel(class_count=[0, 1]), rule="edge", stage="learnt")
    # Where there are too few effective examples nothing is counted: two more, off the line, have no part.
    masked = [part.assign_coords(class_count=[n]) for part, n in zip(parts, (3, 4))]
    masked = [part.assign(trace_examples=part["trace_examples"] * 0 + 50) for part in masked]
    whole = xr.concat([*parts, *masked], "class_count")
    assert estimate("outlier_slope", whole, rule="edge", stage="learnt").value == pytest.approx(1)


def test_power_in_the_top_space_less_the_fisher_null():
    made = cell()
    assert estimate("confined_power", made, source="spectrum", offset=-1).value == pytest.approx(0.8)
    assert estimate("confined_power", made, source="held_out", offset=0).value == pytest.approx(0.801)
    top = made["gauss_newton_eigenvalue"].isel(rank=slice(0, 9)).sum("rank") / made["gauss_newton_full_trace"]
    found = estimate("confined_power", made, source="spectrum", offset=-1, above_null=True).value
    assert found == pytest.approx(0.8 - float(top.sel(step=slice(50, None)).mean()))
    few = made.sel(step=[0, 50, 100, 1000])
    with pytest.raises(NotTested, match="3 checkpoints, 8 are needed"):
        estimate("confined_power", few, source="spectrum", offset=-1)


def test_sharpness_rises_and_falls():
    steps = list(range(24))
    curve = np.concatenate([np.linspace(0, 1, 9), np.linspace(0.9, 0.2, 10), np.linspace(0.25, 0.4, 5)])
    noise = 0.001 * stream("curves").standard_normal((DRAWS, 24))
    made = xr.Dataset({"sharpness": (("draw", "step"), 10 ** (curve + noise))}, {"step": steps})
    for against, expected in (("start", 1.0), ("end", 0.6), ("dip", 0.8)):
        assert estimate("sharpness_change", made, against=against).value == pytest.approx(expected, abs=0.01)
    # A rise that no two draws share is no peak: the place is taken from the others.
    lonely = np.full((DRAWS, 24), 1.0)
    lonely[np.arange(DRAWS), np.arange(DRAWS) + 5] = 10.0
    made = xr.Dataset({"sharpness": (("draw", "step"), lonely)}, {"step": steps})
    assert estimate("sharpness_change", made, against="start").value == pytest.approx(0)
    with pytest.raises(NotTested, match="19 checkpoints"):
        estimate("sharpness_change", made.isel(step=slice(0, 19)), against="end")


def test_a_peak_is_sought_after_the_start_and_a_dip_needs_steps_after_it():
    noise, case = 0.001 * stream("falling").standard_normal((DRAWS, 24)), {"against": "start"}
    falling = xr.Dataset({"sharpness": (("draw", "step"), 10 ** (np.linspace(1, 0, 24) + noise))}, {"step": range(24)})
    found = estimate("sharpness_change", falling, **case)
    assert found.value == pytest.approx(-1 / 23, abs=0.002) and found.interval(0.95)[1] < 0 and not found.open_end
    rising = falling.assign(sharpness=1 / falling["sharpness"])
    assert estimate("sharpness_change", rising, against="dip").open_end == "what is compared is equal in every draw"


def test_counts_and_ranks_that_agree_have_a_width():
    found = estimate("growth", cell(), variable="logits_std")
    low, high = found.interval(0.95)
    assert low < 1 < high and high - low < 0.02
    parts = [cell().assign_coords(class_count=n) for n in (2, 4, 10)]
    for part, n in zip(parts, (2, 4, 10)):
        part["training_loss"] = 0.1 * part["training_loss"]
        part["gauss_newton_eigenvalue"] = part["gauss_newton_eigenvalue"] * 0 + xr.where(part["rank"] < n, 10.0, 0.1)
    slope = estimate("outlier_slope", xr.concat(parts, "class_count"), rule="edge", stage="learnt")
    # A deviation of 1/√12 of each number of outliers over 8 draws and √(Σ(C − 16/3)²).
    assert slope.value == pytest.approx(1)
    assert slope.standard_error == pytest.approx(1 / np.sqrt(12 * DRAWS * (10 / 3) ** 2 * (1 + 0.16 + 1.96)))
    with pytest.raises(NotTested, match="all 5 eigenvalues of a draw are outliers, more are needed"):
        estimate("outliers", cell().isel(rank=slice(0, 5)), rule="edge", stage="learnt")


def test_clusters_beyond_chance_and_beyond_the_start():
    made = cell()
    assert estimate("clustering_excess", made, stage="end").value == pytest.approx(0.2)
    assert estimate("clustering_excess", made, stage="end", layers="without_last").value == pytest.approx(0.2)
    assert estimate("clustering_excess", made, stage="end", above_inputs=True).value == pytest.approx(0.2 - 0.15)
    made["clustering"] = made["clustering"] * xr.where(made["step"] == 0, 0.5, 1.0)
    assert estimate("clustering_excess", made, stage="end", above_start=True).value == pytest.approx(0.1)
    assert estimate("clustering_over_other_logits", made, stage="end").value == pytest.approx(0.5)
    assert estimate("clustering_over_other_logits", made, stage="end", absolute=True).value == pytest.approx(0.3)


def test_growth_is_a_rank_correlation():
    made = cell()
    assert estimate("growth", made, variable="logits_std").value == pytest.approx(1)
    made["logits_std"] = -made["logits_std"]
    assert estimate("growth", made, variable="logits_std").value == pytest.approx(-1)
    # What comes before the first hundredth of the steps has no part in it.
    made["logits_std"] = -made["logits_std"] + xr.where(made["step"] < 10, 100, 0)
    assert estimate("growth", made, variable="logits_std").value == pytest.approx(1)


def test_the_residual_against_the_last_outlier():
    made = cell()
    expected = np.log10(3 / (10 * 9**-0.01))
    assert estimate("residual_share", made, stage="end").value == pytest.approx(expected, abs=1e-9)
    assert estimate("shared_top_space", made, stage="end").value == pytest.approx(0.95)
    # Of the steps at which the residual is measured, the middle one, and G's eigenvalue at the same.
    made["residual_extreme"] = made["residual_extreme"].where(made["step"].isin([0, 50, 1000]))
    made["gauss_newton_eigenvalue"] = made["gauss_newton_eigenvalue"] * xr.where(made["step"] == 50, 0.1, 1)
    assert estimate("residual_share", made, stage="middle").value == pytest.approx(expected + 1, abs=1e-9)


def test_entropy_of_gaussian_logits_is_frozen_as_the_model_says():
    made, random = cell(), stream("logits")
    entropies = [random_model.entropy(random_model.probabilities(50_000, CLASSES, s, random)) for s in (0.1, 5.0)]
    made["entropy"] = made["entropy"] * 0 + entropies[1]
    assert estimate("frozen_entropy", made, stage="end").value == pytest.approx(0, abs=0.01)
    assert estimate("frozen_entropy", made, stage="start").value == pytest.approx(
        np.log10(entropies[1] / entropies[0]), abs=0.01
    )


def test_entropy_of_held_out_examples_and_of_initialisations():
    made, random = cell(), stream("other logits")
    entropy = random_model.entropy(random_model.probabilities(50_000, CLASSES, 0.1, random))
    found = estimate("frozen_entropy", made, stage="end", held_out=True).value
    assert found == pytest.approx(1 - np.log10(entropy), abs=0.01)
    radii = [0.01, 0.1, 1.0, 10.0]
    spreads = np.array([0.1, 0.1, 2.0, 5.0])
    entropies = [random_model.entropy(random_model.probabilities(50_000, CLASSES, s, random)) for s in spreads]
    entropies[0] = entropies[3] = 1e-3
    untrained = xr.Dataset(
        {
            "logits_std": (("radius", "draw"), np.repeat(spreads[:, None], 3, 1)),
            "entropy": (("radius", "draw"), np.array(entropies)[:, None] * [0.999, 1, 1.001]),
        },
        {"radius": radii, "x": ("radius", 2 * np.log10(radii)), "classes": CLASSES},
    )
    case = {"stage": "untrained", "window": [-2, 0]}
    found = local_geometry.frozen_entropy(untrained, **case)
    assert [each.value for each in found] == pytest.approx([0, 0], abs=0.01)
    with pytest.raises(NotTested, match="0 radii with x from 5 to 6, 1 are needed"):
        local_geometry.frozen_entropy(untrained, "untrained", window=[5, 6])


def test_calibration_of_the_model():
    made = cell()
    measured = np.geomspace(1, 100, len(STEPS))
    made["gauss_newton_eigenvalue"] = made["gauss_newton_eigenvalue"] * 0 + xr.DataArray(measured, dims="step")
    case = {"predicted": "outlier", "rung": "measured_outputs"}
    made["model_outlier"] = made["model_outlier"] * xr.DataArray(2 * np.sqrt(measured), dims="step")
    assert estimate("calibration_slope", made, **case).value == pytest.approx(2)
    made["model_outlier"] = made["model_outlier"] * 0 + xr.DataArray(1.5 * measured, dims="step")
    assert estimate("calibration_slope", made, **case).value == pytest.approx(1)
    assert estimate("calibration_error", made, **case).value == pytest.approx(np.log10(1.5))
    constant = np.median(np.abs(np.log10(measured) - np.log10(measured).mean()))
    found = estimate("calibration_error", made, against="constant", **case).value
    assert found == pytest.approx(np.log10(1.5) - constant)
    formula = np.median(np.abs(np.log10(measured) - np.log10(3)))
    found = estimate("calibration_error", made, against="formula", **case).value
    assert found == pytest.approx(np.log10(1.5) - formula)
    ratio = {"predicted": "outlier_ratio", "rung": "six_numbers"}
    assert estimate("calibration_error", made, **ratio).value == pytest.approx(0, abs=1e-12)
    for predicted, value in (("power", 0.8), ("kappa", 300 / 40), ("kappa_of_hessian", 2)):
        found = estimate("calibration_error", made, predicted=predicted, rung="six_numbers").value
        assert found == pytest.approx(abs(np.log10(value)))
    made["model_outlier"] = made["model_outlier"].where(made["step"] < 2)
    with pytest.raises(NotTested, match="2 checkpoints have both the random model"):
        estimate("calibration_slope", made, **case)


def test_claims_are_about_one_radius():
    with pytest.raises(NotTested, match="about one radius, and this run has 2"):
        estimate("shared_top_space", xr.concat([cell(), cell().assign_coords(radius=[2.0])], "radius"), stage="end")
