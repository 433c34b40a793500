"""Claims about trained joint embeddings, on made-up results with the axes and settings of the project's own studies."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from goldilocks_zone.claims import definitions, evaluate
from goldilocks_zone.config import load, records
from goldilocks_zone.data import world_shapes
from goldilocks_zone.measurements import aggregate, blocks, jepa_arms, jepa_training_blocks, jepa_worlds
from goldilocks_zone.measurements.jepa_training import ARMS
from goldilocks_zone.measurements.observables import Shape
from goldilocks_zone.randomness import stream
from goldilocks_zone.storage import netcdf

ROOT = Path(__file__).parents[3]
KIND = "jepa_training"
NOISE = 1e-3
HELD = {"reproduced", "holds", "identity holds"}
# Results by arm if all claims held: full, and where others differ.
BY_ARM = {
    "deviation": (1.0, {"no_variance": 0.0}),
    "auc": (0.95, {"no_variance": 0.5, "shuffled": 0.5}),
    "auc_hard": (0.9, {"pixel_prediction": 0.8}),
    "dimensions_in_use": (10.0, {"no_covariance": 2.0}),
    "theta_r_squared": (0.9, {"no_covariance": 0.3, "random": 0.6}),
    "label_accuracy": (0.6, {"no_covariance": 0.3, "random": 0.5}),
    "detail_r_squared": (0.0, {"random": 0.4, "pixel_autoencoder": 0.8}),
}


def block_of(study, dataset, folder):
    """Write a block of made-up results, which are noise, for a `study` and one dataset; returns its path."""
    for name, record in (("settings", records.of_measurement(study, 1)), ("grid", records.of_grid(study))):
        (folder / f"{name}.yaml").write_text(records.dump(record))
    (folder / "code.txt").write_text("code")
    network, draws = study.networks[0], f"draws-000-{study.draws - 1:03d}"
    paths = "", str(folder / "settings.yaml"), str(folder / "code.txt"), None, ""
    job = blocks.Job(*paths, dataset, network, "full-free", draws, device="cpu")
    work = blocks.begin(job)
    world = world_shapes.of(dataset) or world_shapes.of_views(study.views)
    pairs = jepa_worlds.Pairs(
        None, None, world.observation, world.action, classes=1 if world_shapes.of(dataset) else 10
    )
    here = study.model_copy(update={key: values[0] for key, values in study.vary.items()})
    module = jepa_arms.module_of(work, here, pairs, ARMS[study.arms[0]])
    shape = Shape(here, module, (1, 1, pairs.observation), pairs.classes)
    block = blocks.empty(jepa_training_blocks.OBSERVABLES, shape, work.labels)
    for name in block.data_vars:
        noise = stream(name, dataset).standard_normal(block[name].shape)
        block[name] = (block[name].dims, NOISE * noise, block[name].attrs)
    path = folder / dataset / network / "full-free" / f"{draws}.nc"
    path.parent.mkdir(parents=True)
    netcdf.write_dataset(blocks.sign(block, work, pairs, module, dtype=study.dtype, test_examples=study.test), path)
    return str(path)


def made_up(study, folder):
    folder.mkdir()
    paths = [block_of(study, dataset, folder) for dataset in study.datasets]
    records_of_run = [str(folder / name) for name in ("settings.yaml", "grid.yaml", "code.txt")]
    return aggregate.aggregate_study(paths, *records_of_run, [])


def along(found, axis, values, otherwise=0.0):
    """Array along `axis` with the `values`, by label, and `otherwise` at other labels; 0 if `found` lacks the axis."""
    if axis not in found.dims:
        return 0.0
    return xr.DataArray([values.get(value, otherwise) for value in found[axis].values.tolist()], dims=axis)


def as_claimed(name, found):
    """Change the made-up results `found` of the study `name` so that all claims hold, and keep their noise."""
    found = found.copy()
    for variable, (value, others) in BY_ARM.items():
        found[variable] = found[variable] + along(found, "arm", others, value)
    if "codes" in found.dims:
        found["gap"] = found["gap"] + along(found, "codes", {1: 1.0, 2: 1.5}, 1.2)
        found["unexplained"] = (
            found["unexplained"] + 0.1 + along(found, "codes", {1: 0.3}) * along(found, "causes", {2: 1.0})
        )
    if "causes" in name:
        found["information"] = found["information"] + 0.9
    if "columns" in found.dims:
        found["energy_incompatible"] = 0 * found["energy_incompatible"]
        found["detail_r_squared"] = found["detail_r_squared"] + along(found, "columns", {12: 0.3})
    if "frozen" in found.dims:
        found["detail_r_squared"] = found["detail_r_squared"] + along(found, "frozen", {True: 0.3})
    if "gauge" in found.dims:
        found["unexplained"] = xr.ones_like(found["unexplained"]) * 0.5
    if "penalty" in found.dims:
        found["auc"] = found["auc"] + along(found, "penalty", {0.3: 0.0}, -0.4)
    if "group" in found.dims:
        rings = along(found, "dataset", {f"rings_{m}": 0.05 * m for m in (1, 2, 4, 8)})
        gain = along(found, "group", {128: 1.0}) * along(found, "arm", {"infonce": 1.0}) * rings
        found["angles_r_squared"] = found["angles_r_squared"] + gain
    if "over_threshold" in found.dims:
        law = xr.ones_like(found["deviation"]) * along(found, "over_threshold", {0.8: 1e-9}, 0.7)
        found["deviation"], found["predicted_deviation"] = law * (1 + 0.01 * (found["deviation"] - 1)), law
    if found.sizes["radius"] > 1:
        x = xr.DataArray(np.round(found["x"].values, 1), dims="radius")
        worse = xr.where(x == -0.5, 0, -0.4) * (found["arm"] == "full")
        for variable in ("label_accuracy", "theta_r_squared"):
            found[variable] = found[variable] + worse + along(found, "rate", {0.0003: -0.05})
        found["dimensions_in_use"] = found["dimensions_in_use"] - 5 * (x == -2)
    if "start_deviation" in found.dims:
        draws = found["draw"] - found["draw"].mean()
        found["start_trace_over_norm"] = xr.ones_like(found["start_trace_over_norm"]) * draws
        found["label_accuracy"] = xr.ones_like(found["label_accuracy"]) * abs(draws)
    return found


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """Triples (definition, row from noise, row from results as claimed) of the cases about studies of this kind.

    They are given by the names of the cases.
    """
    claims = definitions.load(ROOT / "config/claims")
    studies = {name: study for name, study in load.load().studies.items() if study.kind == KIND}
    cases = {
        f"{claim}.{name}": case
        for claim, each in claims.items()
        for name, case in each.get("cases", {}).items()
        if case["study"] in studies
    }
    about = {key: each for key, each in claims.items() if any(one.startswith(f"{key}.") for one in cases)}
    folder, used = tmp_path_factory.mktemp("studies"), {case["study"] for case in cases.values()}
    found = {name: made_up(study, folder / name) for name, study in studies.items() if name in used}
    results = found, {name: as_claimed(name, each) for name, each in found.items()}
    noise, held = ({row["id"]: row for row in evaluate.evaluate(about, each, "made up")} for each in results)
    return {key: (case, noise[key], held[key]) for key, case in cases.items()}


def test_every_case_is_judged(judged):
    """Cases name their studies, axes and variables; a run must measure all of them."""
    assert len(judged) == 51
    of_noise = {key: row["reason"] for key, (_, row, _) in judged.items() if row["verdict"] == "not tested"}
    assert not of_noise, of_noise


def test_planted_answers_are_found_and_noise_is_not_taken_for_them(judged):
    held = {key: row["verdict"] for key, (_, _, row) in judged.items()}
    assert {key: verdict for key, verdict in held.items() if verdict not in HELD} == {}
    superior = [
        row["verdict"] for case, row, _ in judged.values() if case["test"] == "superiority" and "margin" in case
    ]
    assert len(superior) > 10 and not HELD & set(superior)
