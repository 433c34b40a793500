"""Estimators for claims about the local geometry of the loss during training (Fort & Ganguli 2019).

Cells, the results of one study, have the axes draw and step, and one radius. The unit is a draw: one training run with
all its checkpoints, the steps at which it is measured. C is the number of classes, G the Gauss–Newton part of the
Hessian, H′ the residual part, and λ_max the Hessian's largest eigenvalue. The argument `stage` names a checkpoint:
"start", "middle", "end" or "learnt", as in `_stage`. Estimates are means over draws unless stated otherwise.
"""

import contextlib
from collections.abc import Callable

import numpy as np
import xarray as xr

from goldilocks_zone.claims import curves
from goldilocks_zone.claims.cells import Cell, NotTested, need
from goldilocks_zone.claims.curves import Window
from goldilocks_zone.randomness import stream
from goldilocks_zone.statistics import estimates
from goldilocks_zone.statistics.estimates import Estimate
from goldilocks_zone.theory import random_model

# The stage `learnt`, the primary checkpoint, is the first with a training loss below LEARNT ln C. Outliers are counted
# only with at least EXAMPLES_PER_CLASS effective examples per class.
LEARNT, EXAMPLES_PER_CLASS = 0.2, 30
EARLY, FIRST = 0.05, 0.01  # shares of all steps, at the start of training, left out of averages, and of `growth`
LEAST_CHECKPOINTS, LEAST_SHARPNESS, LEAST_CLASSES = 8, 20, 3
MODEL_EXAMPLES = 20_000


def _run(cell: Cell) -> Cell:
    """Results (draw, step, …) of a cell at its only radius, without the axis radius.

    Raises NotTested if the cell has several radii.
    """
    if cell.sizes.get("radius", 1) != 1:
        raise NotTested(f"the claim is about one radius, and this run has {cell.sizes['radius']}")
    return cell.isel(radius=0, drop=True) if "radius" in cell.dims else cell


def _classes(cell: Cell) -> int:
    return int(cell["class_count" if "class_count" in cell.coords else "classes"].item())


def _variable(cell: Cell, name: str) -> xr.DataArray:
    if name not in cell:
        raise NotTested(f"this run has measured no {name}")
    return cell[name]


def measured(values: xr.DataArray) -> xr.DataArray:
    """Restrict `values`, which have the axis step, to the steps at which they are known (not NaN) in every draw."""
    others = [axis for axis in values.dims if axis != "step"]
    return values.isel(step=np.flatnonzero(values.notnull().all(others)))


def _stage(cell: Cell, stage: str, variable: str | xr.DataArray) -> xr.DataArray:
    """Values (draw, …) of a `variable`, a name or an array, at a `stage` of training.

    Only the steps count at which the variable was measured in every draw. "start", "middle" and "end" are the first,
    the middle and the last of these. "learnt" is the first of them, in each draw, with a training loss below LEARNT ln
    C, for C classes. Raises NotTested if the variable is missing, or if at the stage "learnt" a draw does not reach
    this loss.
    """
    values = measured(_variable(_run(cell), variable) if isinstance(variable, str) else variable)
    count = values.sizes["step"]
    if not count:
        raise NotTested(f"this run has measured no {values.name}")
    if stage in (places := {"start": 0, "middle": count // 2, "end": count - 1}):
        return values.isel(step=places[stage], drop=True)
    losses = _run(cell)["training_loss"].sel(step=values["step"])
    learnt = (losses < LEARNT * np.log(_classes(cell))).transpose("draw", "step").values
    if not learnt.any(1).all():
        raise NotTested(f"not every draw has a checkpoint with a training loss below {LEARNT} ln C, for C classes")
    return values.isel(step=xr.DataArray(learnt.argmax(1), dims="draw")).drop_vars("step")


def outlier_count(cell: Cell, rule: str, stage: str) -> xr.DataArray:
    """Number (draw,) of outliers among the eigenvalues of G, the Gauss–Newton part of the Hessian, at a `stage`.

    With the `rule` "edge", outliers are the eigenvalues of G above an edge. The edge is the largest eigenvalue of the G
    that results from centring the logit gradients over examples. With the rule "gap", outliers are the eigenvalues
    above the largest gap between the logarithms of successive eigenvalues, among the first 2C gaps for C classes.
    Raises NotTested with too few effective examples or eigenvalues, or if all eigenvalues are above the edge.
    """
    values, classes = _stage(cell, stage, "gauss_newton_eigenvalue"), _classes(cell)
    effective, needed = _stage(cell, stage, "trace_examples"), EXAMPLES_PER_CLASS * classes
    if (effective < needed).any():
        rests = f"Tr(G) rests on {float(effective.min()):.0f} effective examples"
        raise NotTested(f"{rests}, but at least {needed} are needed for {classes} classes")
    if rule == "edge":
        above = values > _stage(cell, stage, "centred_edge")
        if above.all("rank").any():
            raise NotTested(f"all {values.sizes['rank']} eigenvalues of a draw are outliers, more are needed")
        return above.sum("rank")
    need(2 * classes + 1, values.sizes["rank"], "eigenvalues")
    logarithms = np.log(values.isel(rank=slice(0, 2 * classes + 1)).transpose("draw", "rank").values)
    return xr.DataArray((-np.diff(logarithms)).argmax(1) + 1, dims="draw")


def outliers(cell: Cell, rule: str, stage: str) -> list[Estimate]:
    """Mean over draws of the number of outliers among the eigenvalues of G at a `stage` of training, minus C.

    G is the Gauss–Newton part of the Hessian, and C the number of classes. `rule` is as in `outlier_count`.
    """
    excess = outlier_count(cell, rule, stage) - _classes(cell)
    return [estimates.mean(excess.values.astype(float), resolution=1.0)]


def outlier_slope(cell: Cell, rule: str, stage: str) -> list[Estimate]:
    """Mean over draws of the slope of the number of outliers over the number of classes, at a `stage` of training.

    `rule` is as in `outlier_count`. The study varies the number of classes; the fit uses those numbers for which
    outliers can be counted. Raises NotTested if there are fewer than LEAST_CLASSES of them.
    """
    counted = {}
    for count in cell["class_count"].values.tolist():
        with contextlib.suppress(NotTested):
            counted[count] = outlier_count(cell.sel(class_count=count), rule, stage).values
    if (n := len(counted)) < LEAST_CLASSES:
        raise NotTested(f"outliers can be counted for {n} numbers of classes of this run, {LEAST_CLASSES} are needed")
    counts = np.array(list(counted))
    slopes = np.polyfit(counts, list(counted.values()), 1)[0]
    # Counts are integers; a change of 1 shifts the slope by about this much.
    return [estimates.mean(slopes, resolution=1 / np.sqrt(np.square(counts - counts.mean()).sum()))]


def confined_power(cell: Cell, source: str, offset: int, above_null: bool = False) -> list[Estimate]:
    """Share of a gradient's squared norm in the span of the top C + `offset` eigenvectors of G, mean over checkpoints.

    The result is also a mean over draws, and C is the number of classes. `source`, a label of the axis gradient_of,
    names the examples and labels that the gradient is computed from. Checkpoints in the first share EARLY of the steps
    are left out. With `above_null`, the Fisher null of the share is subtracted: the sum of the top C + `offset`
    eigenvalues of G, divided by Tr G. Raises NotTested with fewer than LEAST_CHECKPOINTS checkpoints.
    """
    run = _run(cell)
    powers = measured(run["gradient_power"].sel(gradient_of=source, drop=True))
    powers = powers.sel(step=powers["step"] >= EARLY * int(run["step"].max()))
    need(LEAST_CHECKPOINTS, powers.sizes["step"], "checkpoints")
    top = slice(0, _classes(cell) + offset)
    found = powers.isel(rank=top).sum("rank")
    if above_null:
        here = run.sel(step=powers["step"])
        found = found - here["gauss_newton_eigenvalue"].isel(rank=top).sum("rank") / here["gauss_newton_full_trace"]
    return [estimates.mean(found.mean("step").values)]


def sharpness_change(cell: Cell, against: str) -> list[Estimate]:
    """Mean over draws of log10 of λ_max at its peak after the start, minus log10 of λ_max at the step `against`.

    λ_max is the largest eigenvalue of the Hessian. `against` is "start", "end" or "dip", the step of the minimum of
    λ_max from the peak on. The steps of peak and dip are chosen for each draw by the other draws: they are those of the
    mean of log10 λ_max over these. Raises NotTested with too few checkpoints or draws, or if λ_max is not positive
    everywhere.
    """
    values = measured(_run(cell)["sharpness"]).transpose("draw", "step").values
    if values.shape[1] < LEAST_SHARPNESS or values.shape[0] < 2:
        draws, checkpoints = values.shape
        raise NotTested(f"this run has {checkpoints} checkpoints and {draws} draws: {LEAST_SHARPNESS} and 2 are needed")
    if not (values > 0).all():
        raise NotTested("the Hessian vanishes at some checkpoint of this run")
    logarithms, found = np.log10(values), []
    for i, own in enumerate(logarithms):
        others = np.delete(logarithms, i, 0).mean(0)
        peak = 1 + int(others[1:].argmax())
        place = {"start": 0, "end": -1, "dip": peak + int(others[peak:].argmin())}[against]
        found.append((own[peak], own[place]))
    return [estimates.difference(*np.transpose(found))]


def clustering_excess(
    cell: Cell, stage: str, above_start: bool = False, above_inputs: bool = False, layers: str = "all"
) -> list[Estimate]:
    """Excess q_SLSC − q_SL by which logit gradients cluster by class, at a `stage` of training; mean over draws.

    q_SLSC is the mean cosine between gradients of the same logit on two examples of the logit's class. q_SL is the mean
    cosine on any two examples, the expectation of q_SLSC under permuted classes. Gradients are with respect to the
    weights of the `layers`, "all" or "without_last". With `above_start`, the excess at the start is subtracted. With
    `above_inputs`, the excess of the inputs is subtracted: their mean cosine on two examples of the same class minus
    that on any two examples.
    """

    def excess(stage: str) -> xr.DataArray:
        cosines = _clustering(cell, stage, layers)
        return cosines.sel(pair="same_logit_same_class", drop=True) - cosines.sel(pair="same_logit", drop=True)

    found = excess(stage)
    if above_start:
        found = found - excess("start")
    if above_inputs:
        cosines = _stage(cell, stage, "input_cosine")
        found = found - (cosines.sel(input_pair="same_class") - cosines.sel(input_pair="any_classes"))
    return [estimates.mean(found.values)]


def _clustering(cell: Cell, stage: str, layers: str) -> xr.DataArray:
    return _stage(cell, stage, _run(cell)["clustering"].sel(layers=layers, drop=True))


def clustering_over_other_logits(cell: Cell, stage: str, layers: str = "all", absolute: bool = False) -> list[Estimate]:
    """Mean cosine between gradients of the same logit, minus the mean cosine between gradients of different logits.

    The gradients are those at a `stage` of training. The first mean is q_SL of `clustering_excess`, and `layers` is as
    there. With `absolute`, the second mean is of absolute cosines.
    """
    cosines = _clustering(cell, stage, layers)
    other = "other_logit_absolute" if absolute else "other_logit"
    return [estimates.mean((cosines.sel(pair="same_logit") - cosines.sel(pair=other)).values)]


def growth(cell: Cell, variable: str, name: str) -> list[Estimate]:
    """Median over draws of the Spearman correlation of a `variable` with the step of training.

    Checkpoints in the first share FIRST of the steps are left out. The bootstrap, whose random stream is called `name`,
    resamples draws. Raises NotTested with fewer than LEAST_CHECKPOINTS checkpoints.
    """
    run = _run(cell)
    values = measured(run[variable])
    values = values.sel(step=values["step"] >= FIRST * int(run["step"].max())).transpose("draw", "step").values
    need(LEAST_CHECKPOINTS, values.shape[1], "checkpoints")
    order = np.arange(values.shape[1])
    found = np.array([np.corrcoef(estimates.ranks(row), order)[0, 1] for row in values])
    estimate = estimates.bootstrapped(lambda sample: float(np.median(sample[0])), found[None], name)
    return [estimates.of_ranks(estimate, len(order))]


def residual_share(cell: Cell, stage: str) -> list[Estimate]:
    """log10 of ‖H′‖₂ divided by the (C − 1)-th largest eigenvalue of G, at a `stage` of training; mean over draws.

    G and H′ are the Gauss–Newton and residual parts of the Hessian, and C is the number of classes.
    """
    run = _run(cell)
    extremes = abs(run["residual_extreme"]).max("end", skipna=False)
    ratios = extremes / run["gauss_newton_eigenvalue"].isel(rank=_classes(cell) - 2, drop=True)
    return [estimates.mean(np.log10(_stage(cell, stage, ratios.rename("residual_extreme")).values))]


def shared_top_space(cell: Cell, stage: str) -> list[Estimate]:
    """Cosine of the largest principal angle between the spans of the top C − 1 eigenvectors of G and of the Hessian.

    The eigenvectors are those at a `stage` of training, and C is the number of classes. The result is a mean over
    draws.
    """
    return [estimates.mean(_stage(cell, stage, "top_space_cosine").values)]


def frozen_entropy(cell: Cell, stage: str, held_out: bool = False, window: Window | None = None) -> list[Estimate]:
    """log10 of the mean entropy of the outputs divided by the mean entropy for Gaussian logits; mean over draws.

    The Gaussian logits have the measured standard deviation σ_z. Entropy and σ_z are measured at a `stage` of training,
    with `held_out` on held-out examples. With the stage "untrained", they are measured at initialisation, and there is
    one estimate for each radius of the `window` in log10(r²/r_X²).
    """
    names = [f"{'held_out_' if held_out else ''}{name}" for name in ("logits_std", "entropy")]
    if stage == "untrained":
        assert window is not None, "a case before training needs a window of radii"
        points = zip(*(curves.in_x(_variable(cell, each), window).transpose("radius", ...) for each in names))
    else:
        points = [[_stage(cell, stage, each) for each in names]]
    classes = _classes(cell)
    logits = stream("entropy of the random model", classes).standard_normal((MODEL_EXAMPLES, classes))
    found = []
    for spreads, entropies in points:
        modelled = np.array([random_model.entropy(random_model.softmax(each * logits)) for each in spreads.values])
        found.append(estimates.mean(np.log10(entropies.values / modelled)))
    return found


# Quantities that the random model predicts: by name, the variable that holds the prediction, and a function that
# returns the measurement from the run (draw, step, …) and C.
PREDICTED: dict[str, tuple[str, Callable[[xr.Dataset, int], xr.DataArray]]] = {
    "outlier": ("model_outlier", lambda run, c: run["gauss_newton_eigenvalue"].isel(rank=slice(c - 1)).mean("rank")),
    "outlier_ratio": (
        "model_outlier_ratio",
        lambda run, c: run["gauss_newton_eigenvalue"].isel(rank=0) / run["gauss_newton_eigenvalue"].isel(rank=c - 2),
    ),
    "power": (
        "model_power",
        lambda run, c: run["gradient_power"].sel(gradient_of="spectrum", drop=True).isel(rank=slice(c - 1)).sum("rank"),
    ),
    "kappa": ("model_kappa", lambda run, c: run["gauss_newton_full_trace"] / run["gauss_newton_full_norm"]),
    "kappa_of_hessian": ("model_kappa", lambda run, c: run["hessian_full_trace"] / run["hessian_full_norm"]),
}


def predictions(cell: Cell, predicted: str, rung: str) -> dict[str, np.ndarray]:
    """Natural logarithms of a quantity, as the random model predicts it and as measured.

    Returns {"model": …, "measured": …}, with arrays (draw, step). If the run also has the prediction of a simpler
    formula, it is added as "formula". `predicted` names the quantity, a key of PREDICTED. `rung` names what the model
    is given, one of RUNGS in `measurements.local_geometry`. The steps are those at which all these numbers are known in
    every draw. Raises NotTested with fewer than 3 such steps.
    """
    run, (variable, measure) = _run(cell), PREDICTED[predicted]
    found = {"model": run[variable].sel(rung=rung, drop=True), "measured": measure(run, _classes(cell))}
    if (formula := f"formula_{predicted}") in run:
        found["formula"] = run[formula]
    known = np.logical_and.reduce([each.notnull().all("draw").values for each in found.values()])
    if known.sum() < 3:
        raise NotTested(
            f"{known.sum()} checkpoints have both the random model's prediction and the measurement in every draw, 3 "
            "are needed"
        )
    return {key: np.log(each.transpose("draw", "step").values[:, known]) for key, each in found.items()}


def calibration_slope(cell: Cell, predicted: str, rung: str) -> list[Estimate]:
    """Slope of the logarithm of a measured quantity over the logarithm of its prediction; mean over draws.

    The slope is fitted over the checkpoints of each draw. `predicted` names the quantity, and `rung` what the random
    model is given (see `predictions`).
    """
    found = predictions(cell, predicted, rung)
    return [estimates.mean(np.array([np.polyfit(x, y, 1)[0] for x, y in zip(found["model"], found["measured"])]))]


def calibration_error(cell: Cell, predicted: str, rung: str, against: str = "") -> list[Estimate]:
    """Median over checkpoints of |log10(predicted/measured)| for the random model's prediction; mean over draws.

    `predicted` names the quantity, and `rung` what the model is given (see `predictions`). If `against` is given, the
    median for another prediction is subtracted. "formula" is the prediction of a simpler formula. "constant" is the
    same number at all checkpoints; its logarithm is the mean of the measured logarithms over all checkpoints of the
    other draws. Raises NotTested if there are no other draws for this constant.
    """
    found = {key: each / np.log(10) for key, each in predictions(cell, predicted, rung).items()}
    measured = found["measured"]

    def error(predicted: np.ndarray) -> np.ndarray:
        return np.median(np.abs(predicted - measured), 1)

    errors = error(found["model"])
    if against == "formula":
        errors = errors - error(found["formula"])
    elif against == "constant":
        if len(measured) < 2:
            raise NotTested("the constant for a draw comes from the other draws, and this run has only one draw")
        others = np.array([np.delete(measured, i, 0).mean() for i in range(len(measured))])
        errors = errors - error(others[:, None])
    return [estimates.mean(errors)]
