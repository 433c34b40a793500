"""Blocks of trained joint embeddings: shared pairs and starts, schedules, degenerate runs, and planted answers."""

import itertools
import math

import numpy as np
import pytest
import torch
import yaml

from goldilocks_zone.config import kinds, records
from goldilocks_zone.config.values import ConfigurationError
from goldilocks_zone.data import datasets, world_shapes, worlds
from goldilocks_zone.data.official_shapes import Shape
from goldilocks_zone.jobs import lifecycle
from goldilocks_zone.measurements import aggregate, blocks, jepa_arms, jepa_training_blocks, jepa_worlds
from goldilocks_zone.measurements.jepa_training import ARMS, groups
from goldilocks_zone.models import initialisation, jepa, labels, networks
from goldilocks_zone.models.embedding_losses import Vicreg
from goldilocks_zone.randomness import stream
from goldilocks_zone.storage import netcdf
from goldilocks_zone.training import loop

STUDY = {
    "kind": "jepa_training",
    "datasets": ["ring"],
    "networks": ["fc-12-8-relu"],
    "draws": 2,
    "embedding": 4,
    "steps": 6,
    "batch": 16,
    "test": 200,
    "dtype": "float64",
}
ALL = {"arms": list(ARMS)}
TRAINED = [arm for arm in ARMS if arm != "random"]


def study_of(**changed):
    return kinds.known()["jepa_training"].model.model_validate({**STUDY, **changed})


def job_of(folder, study, path_to_dataset=""):
    (folder / "settings.yaml").write_text(records.dump(records.of_measurement(study, 1)))
    (folder / "grid.yaml").write_text(records.dump(records.of_grid(study)))
    (folder / "code.txt").write_text("code")
    return blocks.Job(
        str(path_to_dataset), str(folder / "settings.yaml"), str(folder / "code.txt"), None, "", study.datasets[0],
        study.networks[0], "full-free", f"draws-000-{study.draws - 1:03d}", device="cpu",
        path_to_checkpoints=str(folder / "checkpoints"), checkpoint_seconds=1e9,
    )  # fmt: skip


def measured(folder, path_to_dataset="", **changed):
    """Measure the block of a small study, with `changed` settings; its records are written to `folder`."""
    folder.mkdir(exist_ok=True)
    return jepa_training_blocks.measure_block(job_of(folder, study_of(**changed), path_to_dataset))


def ensembles_of(folder, **changed):
    """Ensembles of a small study with `changed` settings; the key of each is the first of its arms."""
    study = study_of(**changed)
    work = blocks.begin(job_of(folder, study))
    pairs = jepa_worlds.of(study, study.datasets[0], "", 1)
    return {arms[0]: jepa_arms.ensembles_of(work, study, pairs, arms) for arms in groups(study)}


def alone(ensemble, number):
    """Parameters (D,) of the member `number` of an ensemble after training in a plain loop of torch's Adam."""
    study, member, arm = ensemble.study, ensemble.members[number], ARMS[ensemble.members[number].arm]
    starts, rates = ensemble.starts()
    module, theta = ensemble.module, torch.nn.Parameter(starts[number].clone())
    optimiser, p = torch.optim.Adam([theta], lr=1.0), ensemble.pairs.observation
    for step in range(study.steps):
        batch = worlds.batch(ensemble.pairs.training, [member.draw], step, study.batch)
        x, y, action = (torch.as_tensor(each[0]).double() for each in (batch.x, batch.y, batch.action))
        packed = torch.cat([x, torch.cat([y[-1:], y[:-1]]) if arm.shuffled else y, action], 1)
        assert packed.shape[1] == 2 * p + 2
        pieces = theta.split([each.numel() for each in module.parameters()])
        arrays = {name: a.view(b.shape) for (name, b), a in zip(module.named_parameters(), pieces)}
        outputs = torch.func.functional_call(module, arrays, (packed,))
        optimiser.param_groups[0]["lr"] = float(rates[number]) * min(1, (study.steps - step) / (0.3 * study.steps))
        optimiser.zero_grad()
        (loss_of(study, member.arm).total(outputs) / study.batch).backward()
        optimiser.step()
    return theta.detach()


def loss_of(study, arm):
    if arm == "infonce":
        return jepa_arms.InfoNce(4, study.temperature, study.similarity)
    weights = {"full": (25, 25, 1), "shuffled": (25, 25, 1), "no_variance": (25, 0, 1), "no_covariance": (25, 25, 0)}
    return Vicreg(4, *weights.get(arm, (25, 0, 0)))


def test_every_arm_trains_as_it_would_alone(tmp_path):
    """Each arm uses the pairs and the initialisation of its draw, its own loss, and the rate of the step."""
    found = ensembles_of(tmp_path, arms=TRAINED)
    assert sorted(member.arm for each in found.values() for part in each for member in part.members) == sorted(
        2 * TRAINED
    )
    for ensemble in itertools.chain(*found.values()):
        points = ensemble.trained(None)
        for i in range(len(points)):
            assert float((points[i] - alone(ensemble, i)).abs().max()) < 1e-10


def test_arms_start_from_the_same_encoder_and_measure_the_same_pairs(tmp_path):
    size = sum(
        each.numel()
        for each in jepa.build(labels.parse_network("fc-12-8-relu"), jepa.Sizes(72, 2, 4)).encoder.parameters()
    )
    starts = [each[0].starts()[0][:, :size] for each in ensembles_of(tmp_path, **ALL).values()]
    assert all(torch.equal(each[0], starts[0][0]) for each in starts)
    seen = [
        next(jepa_training_blocks.trained(each[0], each[0].starts()[0])).batch
        for each in ensembles_of(tmp_path, **ALL).values()
    ]
    assert all(np.array_equal(each.x[0], seen[0].x[0]) for each in seen)


@pytest.mark.parametrize("changed", [{"arms": ["full", "shuffled"]}, {"codes": 3, "steps": 12}, {"arms": ["infonce"]}])
def test_a_killed_block_goes_on_where_it_was(tmp_path, monkeypatch, changed):
    whole = measured(tmp_path / "whole", **changed)
    asked = iter([False] * 3 + [True])
    monkeypatch.setattr(lifecycle, "asked", lambda: next(asked))
    with pytest.raises(loop.Stopped):
        measured(tmp_path / "killed", **changed)
    monkeypatch.setattr(lifecycle, "asked", lambda: False)
    resumed = measured(tmp_path / "killed", **changed)
    for name in whole.data_vars:
        np.testing.assert_array_equal(resumed[name], whole[name])


def test_an_untrained_arm_is_measured_at_its_start(tmp_path):
    block = measured(tmp_path, arms=["random"])
    module = jepa.build(labels.parse_network("fc-12-8-relu"), jepa.Sizes(72, 2, 4))
    batch = worlds.batch(worlds.Ring(1), [1], 0, 200, "evaluation")
    theta = jepa.initial(module, "glorot", stream(1, "initialisation", "ring", "fc-12-8-relu", 1))
    pieces = torch.as_tensor(theta).split([each.numel() for each in module.parameters()])
    for parameter, piece in zip(module.parameters(), pieces):
        parameter.data = piece.view(parameter.shape)
    with torch.no_grad():
        s_x, s_y = (module.encoder(torch.as_tensor(each[0]).double()) for each in (batch.x, batch.y))
        p = module.head.predictor(s_x, torch.as_tensor(batch.action[0]).double())[:, 0]
    here, other = ((p - each).square().sum(1) for each in (s_y, s_y.roll(1, 0)))
    expected = {
        "deviation": s_x.var(0).mean().sqrt(),
        "energy_compatible": here.mean(),
        "energy_incompatible": other.mean(),
        "unexplained": here.mean() / s_y.var(0).sum(),
        "gap": (other.mean() - here.mean()) / s_y.var(0).sum(),
        "auc": (other[:, None] > here).double().mean(),
    }
    for name, value in expected.items():
        assert float(block[name].sel(arm="random", draw=1)[0]) == pytest.approx(float(value), rel=1e-8), name


def test_a_flat_energy_tells_nothing_apart(tmp_path):
    """For q = e and β = 0, only rounding remains, which must not count."""
    for free in (False, True):
        block = measured(tmp_path, columns=4, free=free)
        assert (block["auc"] == 0.5).all() and (block["auc_hard"] == 0.5).all()
        assert (block["gap"] == 0).all() and (block["energy_compatible"] == 0).all()
    assert (measured(tmp_path, columns=3)["energy_compatible"] > 0).all()


def test_runs_that_overflow_are_recorded_as_such(tmp_path):
    """With one rate too large, the study is still aggregated, and the other runs are the same as alone."""
    changed = {"vary": {"rate": [0.002, 1e200]}, "arms": ["full", "pixel_prediction"]}
    block = measured(tmp_path, **changed)
    assert (block["diverged"].sel(rate=1e200) == 1).all() and (block["diverged"].sel(rate=0.002) == 0).all()
    for name in ("deviation", "auc", "theta_r_squared", "dimensions_in_use", "energy_compatible", "gap"):
        assert np.isnan(block[name].sel(rate=1e200)).all() and np.isfinite(block[name].sel(rate=0.002)).all()
    usual = measured(tmp_path / "usual", arms=["full", "pixel_prediction"])
    np.testing.assert_allclose(block["deviation"].sel(rate=0.002), usual["deviation"], rtol=1e-9)
    path = tmp_path / "ring/fc-12-8-relu/full-free/draws-000-001.nc"
    netcdf.write_dataset(block, path)
    paths = tmp_path / "settings.yaml", tmp_path / "grid.yaml", tmp_path / "code.txt"
    study = study_of(**changed)
    job_of(tmp_path, study)
    result = aggregate.aggregate_study([path], *paths, [])
    assert result["auc"].dims[-1] == "draw" and "arm" in result.dims


def test_dead_and_collapsed_embeddings_are_no_success(tmp_path):
    """Without the regularising terms, an encoder may become constant: its AUC is one half, and it uses no dimension."""
    found = ensembles_of(tmp_path, arms=["neither"])["neither"][0]
    points = torch.zeros_like(found.starts()[0])
    values = jepa_training_blocks.OBSERVABLES.measure(found.study, next(jepa_training_blocks.trained(found, points)))
    assert (values["auc"] == 0.5).all() and (values["auc_hard"] == 0.5).all()
    assert (values["deviation"] == 0).all() and (values["dimensions_in_use"] == 0).all()
    assert np.isnan(values["gap"]).all() and (values["theta_r_squared"] < 0.05).all()


def test_radii_and_rates(tmp_path):
    changed = {
        "networks": ["fc-12-8-relu-nobias"],
        "predictor": False,
        "radii": [0.1, 2.0],
        "radius_unit": "r_X",
        "vary": {"rate_rule": ["fixed", "proportional"]},
    }
    (ensemble,) = ensembles_of(tmp_path, **changed)["full"]
    (starts, rates), r_x = (
        ensemble.starts(),
        initialisation.glorot_radius(initialisation.parameters_of(ensemble.module)),
    )
    for point, rate, member in zip(starts, rates, ensemble.members):
        assert float(point.norm()) == pytest.approx(member.radius * r_x, rel=1e-12)
        factor = member.radius if member.variant["rate_rule"] == "proportional" else 1
        assert float(rate) == pytest.approx(0.002 * factor, rel=1e-12)


def test_starts_at_a_deviation(tmp_path):
    changed = {"networks": ["fc-12-8-relu-nobias"], "predictor": False, "vary": {"start_deviation": [0.1, 1.2]}}
    (ensemble,) = ensembles_of(tmp_path, **changed)["full"]
    starts, _ = ensemble.starts()
    for point, member in zip(starts, ensemble.members):
        x = worlds.batch(worlds.Ring(1), [member.draw], 0, 16, "evaluation").x[0]
        embedded = jepa.Members(ensemble.module, point[None]).encode(torch.as_tensor(x)[None])[0]
        assert float(embedded.var(0).mean().sqrt()) == pytest.approx(member.variant["start_deviation"], rel=1e-9)


def test_one_path_at_every_gauge(tmp_path, monkeypatch):
    """Parameters stay proportional to α and embeddings to α³, unless Adam's ε, here a large one, is not rescaled."""
    monkeypatch.setattr(jepa_arms, "ADAM_EPSILON", 0.01)
    changed = {**SIAMESE, "steps": 30, "arms": ["full", "no_covariance"], "vary": {"gauge": [1, 0.3, 3]}}
    block = measured(tmp_path, **changed)
    for gauge in (0.3, 3):
        here, there = block.sel(gauge=1), block.sel(gauge=gauge)
        for name, power in {"norm": 1, "deviation": 3, "energy_compatible": 6, "unexplained": 0, "auc": 0}.items():
            expected = gauge**power * here[name].values
            assert there[name].values == pytest.approx(expected, rel=1e-9), name
    original = jepa_arms.ensembles.Options
    fixed = lambda **given: original(**{**given, "epsilon": 0.01})  # noqa: E731
    monkeypatch.setattr(jepa_arms.ensembles, "Options", fixed)
    wrong = measured(tmp_path / "wrong", **changed)["unexplained"]
    assert (np.abs(wrong.sel(gauge=3) / wrong.sel(gauge=1) - 1) > 1e-3).all()


def test_weights_over_the_threshold_of_collapse(tmp_path):
    """μ = factor · 4√ε(1 − c)λ."""
    changed = {
        "datasets": ["gaussian_pairs"],
        "correlation": 0.5,
        "vary": {"over_threshold": [0.8, 4.0], "epsilon": [0.0001, 0.01]},
    }
    (ensemble,) = ensembles_of(tmp_path, **changed)["full"]
    for member, criteria in zip(ensemble.members, ensemble.criteria):
        own = member.variant
        expected = 25 * own["over_threshold"] * 4 * math.sqrt(own["epsilon"]) * 0.5
        assert criteria.weights == pytest.approx([25, expected, 1], rel=1e-12)
        assert criteria.epsilon == own["epsilon"]
    found = measured(tmp_path, **changed)["predicted_deviation"].sel(epsilon=0.01, over_threshold=4.0)
    # σ² + ε = (4√ε)².
    assert found.values == pytest.approx(math.sqrt(15 * 0.01), rel=1e-12)


def test_the_minimum_over_codes_hardens(tmp_path):
    """β on the mean square rises from 2 to 30 over 60 % of the steps, and the minimum counts from 70 % on."""
    (ensemble,) = ensembles_of(tmp_path, codes=3, steps=100)["full"]
    (other,) = ensembles_of(tmp_path, codes=3, steps=100, schedule="geometric")["full"]
    found = [other._loss_at()(step)._criterion.sharpness for step in (0, 15, 30, 60, 69)]
    assert found == pytest.approx([2 / 4, 2 * 15**0.25 / 4, 2 * 15**0.5 / 4, 30 / 4, 30 / 4])
    sharpness = [ensemble._loss_at()(step)._criterion.sharpness for step in range(100)]
    assert [sharpness[step] for step in (0, 30, 60, 69)] == pytest.approx([2 / 4, 16 / 4, 30 / 4, 30 / 4])
    assert sharpness[70:] == [None] * 30
    outputs = torch.as_tensor(stream("outputs").standard_normal((2, 16, 8 + 3 * 4)))
    squares = outputs[..., 8:].unflatten(-1, (3, 4)).square().mean(-1)
    invariance = -(torch.logsumexp(-2 * squares, -1) - math.log(3)).mean(-1) / 2
    whole, rest = (Vicreg(4, weight, 25, 1, codes=3) for weight in (25, 0))
    expected = 16 * 25 * invariance + rest.total(outputs)
    torch.testing.assert_close(ensemble._loss_at()(0).total(outputs), expected)
    torch.testing.assert_close(ensemble._loss_at()(99).total(outputs), whole.total(outputs))


def test_codes_tell_of_planted_causes_alone(tmp_path):
    """Codes equal to the cause have all of its entropy, and none of that of permuted causes."""
    (ensemble,) = ensembles_of(tmp_path, codes=2, causes=2)["full"]
    seen = next(jepa_training_blocks.trained(ensemble, ensemble.starts()[0]))
    cause = seen.batch.truth["cause"]
    for told, expected in ((1 - cause, 1.0), (np.zeros_like(cause), 0.0)):
        object.__setattr__(seen, "told", lambda told=told: told)
        found = jepa_training_blocks.information(seen)
        np.testing.assert_allclose(found["information"], expected, atol=1e-12)
        assert (found["information_by_chance"] < 0.02).all()
        np.testing.assert_allclose(found["codes_in_use"], 1 + expected, rtol=1e-2)


def test_worlds_with_and_without_a_cause_have_the_same_actions_where_their_reach_is_given():
    with_cause, without, usual = (
        jepa_worlds.of(study_of(**changed), "ring", "", 1).evaluated([0], 500)
        for changed in ({"causes": 2, "reach": 0.5}, {"causes": 1, "reach": 0.5}, {"causes": 1})
    )
    np.testing.assert_array_equal(with_cause.truth["action"], without.truth["action"])
    assert np.abs(without.truth["action"]).max() <= 0.5 < np.abs(usual.truth["action"]).max()


@pytest.fixture
def digits(tmp_path):
    """Path of a dataset file of images whose left half is bright in odd classes."""
    random = stream("digits")
    labels = random.integers(0, 4, 300)
    images = random.integers(0, 50, (300, 1, 28, 28)).astype(np.uint8)
    images[:, :, :, :14] += (labels % 2 * 200).astype(np.uint8)[:, None, None, None]
    dataset = datasets.as_dataset("digits", (images[:200], labels[:200]), (images[200:], labels[200:]), 4, "", "")
    netcdf.write_dataset(dataset, tmp_path / "digits.nc")
    return tmp_path / "digits.nc"


@pytest.mark.parametrize("views", ["panes", "shift_2", "noise"])
def test_views_of_images_are_measured_on_test_images(digits, tmp_path, views):
    block = measured(tmp_path, digits, datasets=["digits"], views=views, arms=["full", "random"], test=400)
    assert (block["label_accuracy"] > 0.4).all()
    assert np.isfinite(block["right_label_accuracy"]).all() == (views == "panes")
    assert np.isnan(block["theta_r_squared"]).all() and np.isnan(block["auc_hard"]).all()
    assert block.attrs["classes"] == 4 and block.attrs["data_checksum"]


def test_many_members_are_split_by_draws(tmp_path, monkeypatch):
    """The split ensembles draw each pair once; nothing else changes."""
    changed = {"vary": {"rate": [0.001, 0.002, 0.004]}, "arms": ["full", "no_variance"]}
    whole = measured(tmp_path / "whole", **changed)
    monkeypatch.setattr(jepa_arms, "BYTES_AT_ONCE", 4 * 4 * 16 * (3 * 72 + 4 + 64 + 12 + 8 + 4) * 6)
    parts = ensembles_of(tmp_path, **changed)["full"]
    assert [part.draws for part in parts] == [[0], [1]]
    split = measured(tmp_path / "split", **changed)
    np.testing.assert_allclose(split["auc"], whole["auc"], rtol=1e-6)
    np.testing.assert_allclose(split["norm"], whole["norm"], rtol=1e-12)


SIAMESE = {"networks": ["fc-12-8-relu-nobias"], "predictor": False}


def test_curvature_at_the_start_is_that_of_the_whole_loss(tmp_path):
    """Compares with the Hessian of the loss by automatic differentiation on the same plane, for two radii and arms."""
    study = {
        **SIAMESE, "draws": 1, "radii": [0.3, 1.0], "arms": ["full", "no_covariance", "infonce"],
        "curvature_examples": 24, "curvature_plane": "plane-5-dense",
    }  # fmt: skip
    block = measured(tmp_path, **study)
    (ensemble,) = ensembles_of(tmp_path, **study)["full"]
    batch = worlds.batch(worlds.Ring(1), [0], 0, 24, "curvature")
    packed = torch.as_tensor(np.concatenate([batch.x[0], batch.y[0]], 1)).double()
    parameters = initialisation.parameters_of(ensemble.module)
    eta = blocks.metric(ensemble.study, parameters)
    rows = stream(1, "plane", "ring", "fc-12-8-relu-nobias", "dense", 0).standard_normal((5, len(eta))) * eta
    basis = torch.linalg.qr(torch.as_tensor(rows).T)[0]
    outputs = networks.outputs_function(ensemble.module)
    for theta, member in zip(ensemble.starts()[0], ensemble.members):
        loss = loss_of(ensemble.study, member.arm)
        along = lambda t, theta=theta, loss=loss: loss.total(outputs(theta + basis @ t, packed)) / 24  # noqa: E731
        matrix = torch.autograd.functional.hessian(along, torch.zeros(5, dtype=torch.float64))
        found = float(block["start_trace_over_norm"].sel(arm=member.arm, radius=member.radius)[0])
        assert found == pytest.approx(float(matrix.trace() / matrix.norm()), rel=1e-8)
    assert np.isnan(block["start_trace_over_norm"].sel(arm="infonce")).all()


REFUSED = [
    ({"curvature_examples": 8}, "curvature_examples: the Hessian of fc-12-8-relu cannot be computed"),
    (
        {**SIAMESE, "predictor": True, "curvature_examples": 8},
        "curvature_examples: the Hessian is measured only for Siamese networks",
    ),
    ({**SIAMESE, "group": 4, "curvature_examples": 10}, "curvature_examples: 10 is impossible; use a multiple"),
    ({"group": 7}, "group: 7 is impossible; it must divide the batch of 16"),
    ({"columns": 5}, "columns: 5 is impossible; an embedding has 4 numbers"),
    ({"columns": 2, "codes": 2}, "codes: a latent variable is discrete"),
    ({"codes": 2, "predictor": False}, "predictor: latent variables need a predictor"),
    ({"codes": 2, "arms": ["full", "infonce"]}, "arms: infonce has no latent variables"),
    ({"columns": 2, "arms": ["pixel_prediction"]}, "columns: the arm pixel_prediction has no linear latent"),
    ({"views": "panes"}, "views: ring has pairs of frames, and no views"),
    (
        {"over_threshold": 2.0},
        "over_threshold: the threshold of collapse is known for the dataset gaussian_pairs, and not for",
    ),
    ({"gauge": 2.0}, "gauge: outputs of fc-12-8-relu do not scale with its parameters"),
    ({**SIAMESE, "predictor": True, "gauge": 2.0}, "gauge: it needs Siamese networks and arms of VICReg"),
    (
        {**SIAMESE, "arms": ["infonce"], "vary": {"gauge": [1, 2]}},
        "gauge: it needs Siamese networks and arms of VICReg",
    ),
    ({"start_deviation": 1.0}, "start_deviation: embeddings of fc-12-8-relu"),
    ({"datasets": ["mnist"]}, "views: say which views of an image of mnist form a pair"),
    ({"datasets": ["cifar10"], "views": "panes"}, "datasets: cifar10 has no grey images"),
    ({"networks": ["lenet5"]}, "networks: lenet5 is impossible"),
]
SHAPES = {
    "ring": world_shapes.of("ring").shape,
    "mnist": Shape((1, 28, 28), 10, 60000),
    "cifar10": Shape((3, 32, 32), 10, 50000),
}


@pytest.mark.parametrize("changed, sentence", REFUSED)
def test_settings_without_a_meaning_are_refused(changed, sentence):
    study = study_of(**changed)
    networks = {label: labels.parse_network(label) for label in study.networks}
    with pytest.raises(ConfigurationError, match=sentence):
        study.check("studies.it", {name: SHAPES[name] for name in study.datasets}, networks)


def test_settings_are_read_back_from_their_record(tmp_path):
    study = study_of(vary={"codes": [1, 2]}, arms=["full", "pixel_prediction"])
    record = yaml.safe_load(records.dump(records.of_measurement(study, 1)))
    assert record["arms"] == ["full", "pixel_prediction"] and record["vary"] == {"codes": [1, 2]}
