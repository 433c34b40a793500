"""Prediction and planning on two levels: training data of levels, decoders, degenerate predictions, and blocks."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

from goldilocks_zone.config import kinds, records
from goldilocks_zone.config.values import ConfigurationError
from goldilocks_zone.data import two_rooms, world_shapes, worlds
from goldilocks_zone.measurements import aggregate, blocks, checkpoints, hierarchies, jepa_planning_blocks
from goldilocks_zone.measurements.jepa_planning_blocks import LEVELS, Predictions, r_squared
from goldilocks_zone.models import hierarchy, labels, networks
from goldilocks_zone.models.jepa import Members, Sizes
from goldilocks_zone.models.planner_labels import CALLS, POOLED
from goldilocks_zone.randomness import stream
from goldilocks_zone.statistics import representations
from goldilocks_zone.storage import netcdf

STUDY = {
    "kind": "jepa_planning",
    "networks": ["fc-16-relu"],
    "draws": 2,
    "embedding": 6,
    "upper_embedding": 4,
    "batch": 16,
    "steps": 4,
    "upper_steps": 3,
    "examples": 41,
    "starts": 5,
}
RING = {"datasets": ["ring"], "span": 8, "direct": True, "noise": 0.25, "reach": 0.6, "horizons": [16, 1, 8]}
ROOMS = {
    "datasets": ["two_rooms"],
    "span": 4,
    "step_weights": [25, 12],
    "horizons": [4, 2],
    "planners": ["hierarchical", "flat-level2-held-16-x1", "hierarchical-random"],
    "same_room": ["hierarchical"],
}
WORLDS = {"ring": RING, "two_rooms": ROOMS}


def study_of(dataset, **changed):
    return kinds.known()["jepa_planning"].model.model_validate({**STUDY, **WORLDS[dataset], **changed})


def trainer(study, draws=(0, 1), radius=1.0):
    job = SimpleNamespace(dataset=study.datasets[0], network=study.networks[0])
    work = blocks.Work(job, records.Block(study, 1, draws, [1.0]), "code", None, torch.device("cpu"), 0.0)
    return hierarchies.Trainer(work, study, radius, 0)


@pytest.fixture
def no_checkpoints(monkeypatch):
    monkeypatch.setattr(checkpoints, "checkpoint", lambda *_: None)


def measured(folder, dataset, **changed):
    """Measure the block of a small study, with `changed` settings, and write it; returns the block and its path.

    The records of its settings, grid and code are written to `folder`.
    """
    study = study_of(dataset, **changed)
    (folder / "settings.yaml").write_text(records.dump(records.of_measurement(study, 1)))
    (folder / "grid.yaml").write_text(records.dump(records.of_grid(study)))
    (folder / "code.txt").write_text("code")
    path = folder / f"{dataset}/{study.networks[0]}/full-free/draws-000-{study.draws - 1:03d}.nc"
    job = blocks.Job(
        "", str(folder / "settings.yaml"), str(folder / "code.txt"), None, "", dataset, study.networks[0], "full-free",
        path.stem, device="cpu", path_to_checkpoints=str(folder / "checkpoints"), checkpoint_seconds=1e9,
    )  # fmt: skip
    block = jepa_planning_blocks.measure_block(job)
    netcdf.write_dataset(block, path)
    return block, path


# Training.
def test_unrolled_predictions_follow_one_another_and_weigh_in_the_loss():
    sizes = Sizes(observation=5, action=2, embedding=3)
    module = hierarchy.level("fc-7-relu", sizes, (25, 12, 4))
    packed = torch.as_tensor(stream("packed").standard_normal((9, 4 * 5 + 3 * 2)))
    frames, actions = packed[:, :20].unflatten(1, (4, 5)), packed[:, 20:].unflatten(1, (3, 2))
    predict = lambda s, a: module.head.predictor(s, a)[:, 0]  # noqa: E731
    embedded, s = [module.encoder(frames[:, i]) for i in range(4)], module.encoder(frames[:, 0])
    expected = 0
    for step, weight in enumerate((25, 12, 4)):
        s = predict(s, actions[:, step])
        expected = expected + weight * (s - embedded[step + 1]).square().mean()
    outputs = module(packed)
    torch.testing.assert_close(outputs[:, :6], torch.cat(embedded[:2], 1))
    arrays = [torch.stack([each, 2 * each]) for each in module.parameters()]
    both = networks.call(module, arrays, packed.expand(2, *packed.shape))
    torch.testing.assert_close(both[0], outputs)
    torch.testing.assert_close(both[1], networks.call(module, [each[1] for each in arrays], packed))
    loss = hierarchies.Vicreg(3, 25, 0, 0)
    torch.testing.assert_close(loss.total(outputs) / 9, expected)
    whole = hierarchies.Vicreg(3, 25, 25, 1)
    plain = hierarchy.level("fc-7-relu", sizes)
    plain.load_state_dict(module.state_dict())
    one, two = whole.terms(plain(torch.cat([packed[:, :10], packed[:, 20:22]], 1))), whole.terms(outputs)
    torch.testing.assert_close((one.variance, one.covariance), (two.variance, two.covariance))


@pytest.mark.parametrize("dataset", WORLDS)
def test_summed_actions_lead_from_one_window_to_the_next(dataset):
    """If only actions move the state, the sum has the features of the single action that leads to the next window."""
    made = trainer(study_of(dataset, noise=0, **({"reach": 0.1} if dataset == "ring" else {})))
    drawn = made._drawn(0, POOLED + made.study.span, "level 2")
    first, last = (each.astype(float) for each in _ends(drawn, made.study.span, dataset))
    summed = made._summed(drawn)
    if dataset == "ring":
        turn = last - first
        np.testing.assert_allclose(summed, np.stack([np.sin(turn), np.cos(turn) - 1], -1), atol=1e-5)
    else:
        # No border and no wall is met.
        free = ((drawn.states["place"] > 0) & (drawn.states["place"] < 1)).all((-1, -2))
        free &= (drawn.states["place"][..., 0] < 0.5).all(-1)
        np.testing.assert_allclose((summed * two_rooms.LONGEST)[free], (last - first)[free], atol=1e-5)
        assert free.sum() > 2


def _ends(drawn, span, dataset):
    states = drawn.states["theta" if dataset == "ring" else "place"]
    return states[:, :, POOLED - 1], states[:, :, POOLED - 1 + span]


def test_level_2_sees_means_of_windows_and_the_direct_predictor_single_frames(no_checkpoints):
    made = trainer(study_of("ring"))
    found = made.hierarchy()
    drawn, span = made._drawn(7, POOLED + 8, "level 2"), 8
    embedded = hierarchy.encoded(found.first, torch.as_tensor(drawn.seen))
    packed = made.windows(found.first, 7)
    torch.testing.assert_close(packed[:, :, :6], embedded[:, :, :POOLED].mean(2))
    torch.testing.assert_close(packed[:, :, 6:12], embedded[:, :, span : span + POOLED].mean(2))
    apart, drawn = made.apart(found.first, 7), made._drawn(7, 9, "direct")
    embedded = hierarchy.encoded(found.first, torch.as_tensor(drawn.seen))
    torch.testing.assert_close(apart[:, :, :12], torch.cat([embedded[:, :, 0], embedded[:, :, 8]], 2))
    np.testing.assert_allclose(apart[:, :, 12], np.sin(drawn.between["action"].sum(-1)), atol=1e-6)


def test_the_direct_predictor_learns_to_predict_on_a_fixed_level_1(no_checkpoints):
    made = trainer(study_of("ring", upper_steps=60, rate=0.01))
    found = made.hierarchy()
    packed = made.apart(found.first, 1000)
    x, y, actions = packed[..., :6], packed[..., 6:12], packed[..., 12:]
    start = Members(found.direct.module, torch.zeros_like(found.direct.parameters))
    errors = [(hierarchy.predicted(each, x, actions) - y).square().mean((1, 2)) for each in (found.direct, start)]
    assert (errors[0] < 0.9 * errors[1]).all()
    assert list(dict(found.direct.module.named_parameters())) == [
        f"head.predictor.{layer}.{part}" for layer in ("first", "last") for part in ("weight", "bias")
    ]


def test_a_draw_is_trained_alike_whatever_others_are(no_checkpoints):
    together, alone = (trainer(study_of("two_rooms"), draws).hierarchy() for draws in ((0, 1), (1,)))
    for level in ("first", "second"):
        both, one = (getattr(each, level).parameters for each in (together, alone))
        torch.testing.assert_close(both[1:], one, rtol=1e-4, atol=1e-5)
        assert not torch.equal(both[0], both[1])


def test_the_radius_scales_the_start_of_level_1_alone(no_checkpoints):
    usual, far = (trainer(study_of("ring", steps=1, upper_steps=1), radius=each) for each in (1.0, 3.0))
    sizes = Sizes(72, 2, 6)
    for made in (usual, far):
        made._phases = 1
    module = hierarchy.level("fc-16-relu", sizes)
    torch.testing.assert_close(far._starts(module), 3 * usual._starts(module))
    for made in (usual, far):
        made._phases = 2
    torch.testing.assert_close(far._starts(module), usual._starts(module))


# Decoders.
def planted(study, predicted, observed, now=None):
    """Predictions of level 1, from arrays (n, e) by horizon, with the angles of a ring as targets at each horizon.

    `observed` are the embeddings that occur, by horizon. Also returns (cos φ, sin φ) of the targets (n, 2).
    """
    angles = stream("angles").uniform(0, 2 * np.pi, len(next(iter(observed.values()))))
    circle = np.stack([np.cos(angles), np.sin(angles)], -1)
    targets = {horizon: {"phi": circle, "theta": circle[::-1]} for horizon in study.horizons}
    first = next(iter(observed.values()))
    return Predictions({"level_1": predicted}, {"level_1": observed}, targets, {"level_1": first}, study), circle


def examined(predicted_of, horizons=(8, 16), n=600):
    """Measured values of level 1, by variable, for embeddings predicted by `predicted_of` from the observed ones.

    The observed embeddings (n, 4) contain the angle φ, and noise.
    """
    study = study_of("ring", horizons=list(horizons))
    angles = stream("angles").uniform(0, 2 * np.pi, n)
    circle = np.stack([np.cos(angles), np.sin(angles)], -1)
    observed = np.concatenate([circle, stream("rest").standard_normal((n, 2))], 1)
    seen, _ = planted(study, {each: predicted_of(observed) for each in horizons}, dict.fromkeys(horizons, observed))
    found = jepa_planning_blocks.predicted(seen)
    first = LEVELS.index("level_1")
    return {name: np.asarray(value)[first] for name, value in found.items()}


def test_perfect_predictions_hold_what_observations_do():
    found = examined(lambda observed: observed)
    assert (found["r_squared"][0] > 0.999).all() and (found["unexplained"] == 0).all()
    # The other angle is not in the embeddings.
    assert (np.abs(found["r_squared"][1]) < 0.1).all() and (found["overflown"] == 0).all()


def test_decoders_of_observations_see_a_drift_that_decoders_of_predictions_take_out():
    found = examined(lambda observed: 0.5 * observed @ np.diag([-1, 1, 1, 1]) + 3)
    own, of_observations = found["r_squared"][0]
    assert (own > 0.99).all() and (of_observations < 0).all()


def test_constant_predictions_hold_nothing_and_explain_nothing():
    found = examined(lambda observed: np.zeros_like(observed) + observed.mean(0))
    assert (found["r_squared"][0] < 0.01).all() and found["unexplained"] == pytest.approx(1)


def test_noise_on_predictions_takes_its_share():
    noise = stream("noise").standard_normal((600, 4))
    found = examined(lambda observed: observed + noise)
    assert found["r_squared"][0, 0] == pytest.approx(0.5 / 1.5, abs=0.08)


def test_a_few_wild_predictions_do_not_decide_a_level_s_own_error():
    def wild(observed):
        made = observed.copy()
        made[:30] = 1e6
        return made

    found = examined(wild)
    assert (found["unexplained"] == 0).all() and (found["r_squared"][0, 0] < 0.5).all()


def test_predictions_that_overflow_are_said_to_and_measured_no_further():
    found = examined(lambda observed: np.where(observed > 2, np.inf, observed))
    assert (
        (found["overflown"] == 1).all() and np.isnan(found["r_squared"]).all() and np.isnan(found["unexplained"]).all()
    )


def test_collapsed_embeddings_have_no_error_of_their_own():
    study = study_of("ring", horizons=[8])
    constant = np.ones((50, 4))
    seen, _ = planted(study, {8: constant}, {8: constant})
    found = jepa_planning_blocks.predicted(seen)
    first = LEVELS.index("level_1")
    assert np.isnan(found["unexplained"][first]).all() and (found["r_squared"][first] < 0.1).all()
    assert found["embedding_deviation"][first] == 0 and found["dimensions_in_use"][first] == 0


def test_r_squared_is_that_of_the_probe_where_both_halves_are_alike():
    z, targets = stream("z").standard_normal((101, 5)), stream("t").standard_normal((101, 2))
    targets[:, 0] += z[:, 0]
    assert r_squared(z, z, targets) == pytest.approx(float(representations.r_squared(z[:100], targets[:100])))


# Predictions of members.
def test_predictions_start_from_the_present_and_land_on_their_frames(no_checkpoints):
    """A planted hierarchy on ring world without noise, whose level 1 is the identity: its predictor adds nothing."""
    study, world = study_of("ring", horizons=[8, 16, 3], embedding=72), worlds.Ring(1, noise=0)
    sizes, upper = Sizes(72, 2, 72), Sizes(72, 2, 4)
    first, second = hierarchy.predictor(sizes), hierarchy.level("fc-16-relu", upper)

    def member(module, scale):
        count = sum(each.numel() for each in module.parameters())
        return Members(module, scale * torch.as_tensor(stream("member").standard_normal((1, count))))

    trained = hierarchies.Hierarchy(member(first, 0.0), member(second, 0.1), None)
    seen = jepa_planning_blocks.predictions(world, study, trained, 5)
    drawn = worlds.frames(world, [5], 0, (study.examples, POOLED + 16), "evaluation")
    for horizon in (3, 8, 16):
        np.testing.assert_allclose(seen.predicted["level_1"][horizon], drawn.seen[0, :, POOLED - 1], atol=1e-6)
        np.testing.assert_allclose(seen.observed["level_1"][horizon], drawn.seen[0, :, POOLED - 1 + horizon], atol=1e-6)
        phi = drawn.states["phi"][0, :, POOLED - 1 + horizon]
        np.testing.assert_allclose(seen.targets[horizon]["phi"], np.stack([np.cos(phi), np.sin(phi)], -1), atol=1e-6)
    window = torch.as_tensor(drawn.seen[:, :, 8 : 8 + POOLED]).double()
    np.testing.assert_allclose(seen.observed["level_2"][8], trained.above(window)[0], atol=1e-5)
    above, theta = trained.above(torch.as_tensor(drawn.seen[:, :, :POOLED]).double()), drawn.states["theta"]
    for step in range(2):
        turn = theta[:, :, POOLED + 8 * step + 7] - theta[:, :, POOLED + 8 * step - 1]
        features = torch.as_tensor(np.stack([np.sin(turn), np.cos(turn) - 1], -1)).double()
        above = hierarchy.predicted(trained.second, above, features)
        np.testing.assert_allclose(seen.predicted["level_2"][8 * step + 8], above[0], atol=1e-4)
    assert 3 not in seen.predicted["level_2"] and "direct" not in seen.predicted


# Blocks.
@pytest.mark.parametrize("dataset", WORLDS)
def test_a_block_becomes_an_aggregate(dataset, tmp_path):
    block, path = measured(tmp_path, dataset)
    settings = [str(tmp_path / name) for name in ("settings.yaml", "grid.yaml", "code.txt")]
    found = aggregate.aggregate_study([str(path)], *settings, [])
    assert yaml.safe_load((tmp_path / "settings.yaml").read_text())["seed"] == 1
    horizons = found["horizon"].values
    assert horizons.tolist() == sorted(WORLDS[dataset]["horizons"])
    values = found["r_squared"].squeeze(["dataset", "network", "subspace", "radius"], drop=True)
    assert values.sel(level="level_1").notnull().all() and not (values > 1).any()
    far = horizons % found_span(dataset) == 0
    assert np.array_equal(values.sel(level="level_2").notnull().all(["draw", "target", "decoder"]).values, far)
    assert values.sel(level="direct").notnull().any() == (dataset == "ring")
    if dataset == "two_rooms":
        success = block["success"].sel(rooms="other")
        assert ((success >= 0) & (success <= 1)).all()
        same = block["success"].sel(rooms="same").notnull().all(["radius", "draw"])
        assert block["planner"].values[same.values].tolist() == ["hierarchical"]
        calls = block["calls"].sel(rooms="other").isel(radius=0, draw=0)
        assert calls.values.tolist() == [CALLS, CALLS, CALLS // 2 + 1]
    again, _ = measured(tmp_path, dataset)
    for name in block.data_vars:
        np.testing.assert_array_equal(block[name].values, again[name].values)


def found_span(dataset):
    return WORLDS[dataset]["span"]


def test_a_block_of_one_level_that_overflows_is_whole(tmp_path):
    """Uses a radius at which unrolled predictions exceed the range of single precision."""
    block, _ = measured(tmp_path, "ring", radii=[1e12], steps=1, upper_steps=1, horizons=[8, 16])
    values = block["r_squared"].sel(level="level_1")
    assert ((block["overflown"].sel(level="level_1") == 1) == values.isnull().all(["target", "decoder"])).all()
    assert (block["overflown"].sel(level="level_1") == 1).any()


# Settings.
@pytest.mark.parametrize(
    ("dataset", "changed", "message"),
    [
        ("ring", {"planners": ["hierarchical"]}, "planners act in two_rooms alone, every 4 steps; set datasets"),
        ("two_rooms", {"span": 8}, "set datasets: [two_rooms] and span: 4"),
        (
            "two_rooms",
            {"same_room": ["hierarchical-true"]},
            "same_room.0: hierarchical-true is impossible; choose from",
        ),
        ("two_rooms", {"noise": 0.1}, "noise and reach are options of the dataset ring alone"),
        ("ring", {"datasets": ["ring", "two_rooms"]}, "give each a study of its own"),
        ("ring", {"networks": ["lenet5"]}, "networks: lenet5 is impossible; use an encoder fc-<widths>-<activation>"),
    ],
)
def test_settings_that_do_not_fit_are_refused(dataset, changed, message):
    study = study_of(dataset, **changed)
    networks = {label: labels.parse_network(label) for label in study.networks}
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        study.check("studies.x", {}, networks)


def test_planners_that_are_unknown_are_refused():
    with pytest.raises(ValueError, match="planner 'flat-exact-free-8-x1' is impossible"):
        study_of("two_rooms", planners=["flat-exact-free-8-x1"])


def test_cost_grows_with_what_is_trained_measured_and_planned():
    network, shape = labels.parse_network("fc-16-relu"), world_shapes.of("two_rooms").shape

    def cost(**changed):
        return study_of("two_rooms", **changed).operations(network, shape, "full-free", 2, 1)

    more = [
        {"steps": 9},
        {"upper_steps": 9},
        {"horizons": [4, 8]},
        {"planners": [*ROOMS["planners"], "hierarchical-end"]},
    ]
    assert all(cost(**each) > cost() for each in more)
    assert cost(planners=["flat-level1-held-8-x1-true"], same_room=[]) > cost(
        planners=["flat-level1-held-8-x1"], same_room=[]
    )
