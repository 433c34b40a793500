"""Worlds drawn anew: their streams, moments, correlations and dynamics, and the best possible prediction."""

import numpy as np
import pytest

from goldilocks_zone.data import image_worlds, two_rooms, world_shapes, worlds

WORLDS = {
    "ring": worlds.Ring(1, noise=0.2, causes=2),
    "rings_4": worlds.Rings(1, 4),
    "gaussian_pairs": worlds.GaussianPairs(1, 0.5),
    "two_rooms": two_rooms.TwoRooms(1),
}
MANY = 40_000


def digits(views: str) -> image_worlds.ImageWorld:
    images = np.zeros((20, 1, 28, 28), np.uint8)
    images[:, :, 4:24, 4:24] = np.random.default_rng(0).integers(0, 256, (20, 1, 20, 20))
    return image_worlds.ImageWorld(1, image_worlds.small(images), np.arange(20) % 10, views)


def unmixed(world: worlds.Ring | worlds.Rings, pixels: np.ndarray) -> np.ndarray:
    return pixels @ worlds._rotation(world.seed, world.name, pixels.shape[-1]).T


def equal(one: worlds.Frames, other: worlds.Frames) -> bool:
    return np.array_equal(one.seen, other.seen) and np.array_equal(one.actions, other.actions)


@pytest.mark.parametrize("name", [*WORLDS, *world_shapes.IMAGES])
def test_a_batch_depends_on_its_name_alone(name):
    world = WORLDS.get(name) or digits(name)
    shape = world_shapes.of(name) or world_shapes.of_views(name)
    drawn = worlds.frames(world, [0, 3], 7, (6, 4))
    assert drawn.seen.shape == (2, 6, 4, shape.observation) and drawn.actions.shape == (2, 6, 3, shape.action)
    assert drawn.seen.dtype == drawn.actions.dtype == np.float32
    worlds.frames(world, [0, 3], 6, (5, 3))
    assert equal(drawn, worlds.frames(world, [0, 3], 7, (6, 4)))
    assert all(values.shape[:3] == (2, 6, 4) for values in drawn.states.values())
    assert all(values.shape[:3] == (2, 6, 3) for values in drawn.between.values())
    # Rounding of matrix products may depend on their size.
    assert np.allclose(drawn.seen[1], worlds.frames(world, [3], 7, (6, 4)).seen[0], atol=1e-5)
    others = [
        worlds.frames(world, [0, 4], 7, (6, 4)).seen[1],
        worlds.frames(world, [0, 3], 8, (6, 4)).seen[1],
        worlds.frames(world, [0, 3], 7, (6, 4), "evaluation").seen[1],
        drawn.seen[0],
    ]
    assert not any(np.allclose(drawn.seen[1], other) for other in others)
    pairs = worlds.batch(world, [0, 3], 7, 6)
    assert pairs.x.shape == pairs.y.shape == (2, 6, shape.observation) and pairs.action.shape == (2, 6, shape.action)


def test_pairs_are_frames_with_the_action_between_them():
    drawn = worlds.frames(WORLDS["ring"], [2], 0, (5, 4))
    pairs = drawn.pairs(1, 3)
    assert np.array_equal(pairs.x, drawn.seen[:, :, 1]) and np.array_equal(pairs.y, drawn.seen[:, :, 3])
    assert np.array_equal(pairs.action, drawn.actions[:, :, 1])
    assert np.array_equal(pairs.truth["theta"], drawn.states["theta"][:, :, 1])
    assert np.array_equal(pairs.truth["theta_next"], drawn.states["theta"][:, :, 3])
    assert np.array_equal(pairs.truth["cause"], drawn.between["cause"][:, :, 1])


def test_sizes_of_worlds():
    assert world_shapes.of("ring").shape.image == (1, 1, 72)
    assert world_shapes.of_views("panes").observation == 392
    for name in ["mnist", "rings", "rings_0", "rings_17", "ring_2", "panes"]:
        assert world_shapes.of(name) is None


def test_options_of_ring_world_share_their_random_numbers():
    plain = worlds.batch(worlds.Ring(1), [0], 3, 50)
    for options in ({"noise": 0.3}, {"amplitude": 4.0}, {"slow": False}, {"causes": 3, "reach": 1.0}, {"frozen": True}):
        other = worlds.batch(worlds.Ring(1, **options), [0], 3, 50)
        for name in ("theta", "phi", "phi_next", "u", "action"):
            assert np.array_equal(plain.truth[name], other.truth[name])


def test_pixels_of_ring_world_follow_their_formula():
    world = worlds.Ring(3, amplitude=2.0)
    batch = worlds.batch(world, [0], 0, 30)
    theta, phi, u = (batch.truth[name][0].astype(float) for name in ("theta_next", "phi_next", "u_next"))
    pixels = unmixed(world, batch.y[0])
    places = 2 * np.pi * np.arange(24) / 24
    for number, angle in enumerate((theta, phi)):
        bump = np.exp(3 * (np.cos(angle[:, None] - places) - 1))
        expected = (bump - bump.mean(1, keepdims=True)) / 0.33
        assert np.allclose(pixels[:, 24 * number : 24 * number + 24], expected, atol=2e-5)
    # The detail is linear in u, with the same matrix for all members and steps.
    other = worlds.batch(world, [5], 9, 30)
    matrix = np.linalg.lstsq(u, pixels[:, 48:], rcond=None)[0]
    assert np.allclose(other.truth["u"][0] @ matrix, unmixed(world, other.x[0])[:, 48:], atol=1e-4)
    plain = unmixed(world, worlds.batch(worlds.Ring(3), [0], 0, 30).y[0])
    assert np.allclose(pixels[:, 48:], 2 * plain[:, 48:], atol=1e-4)


def test_pixels_of_ring_world_have_unit_variance():
    world = worlds.Ring(1)
    pixels = unmixed(world, worlds.batch(world, [0], 0, MANY).y[0])
    # e⁻⁶(I₀(6) − I₀(3)²) is the variance of the bump.
    exact = np.exp(-6) * (np.i0(6) - np.i0(3) ** 2) / 0.33**2
    assert np.allclose(pixels[:, :48].var(0), exact, rtol=0.03) and exact == pytest.approx(1, abs=0.02)
    # 24 × 8 entries of M: their mean square has a relative deviation of √(2/192).
    assert pixels[:, 48:].var(0).mean() == pytest.approx(1, abs=0.3)
    assert np.allclose(pixels.mean(0), 0, atol=0.03)
    hidden = worlds.Ring(1, slow=False)
    assert np.allclose(unmixed(hidden, worlds.batch(hidden, [0], 0, 30).x)[..., 24:48], 0, atol=1e-5)


def test_angles_of_ring_world_move_as_stated():
    truth = worlds.batch(worlds.Ring(1, noise=0.25), [0], 0, MANY).truth
    turn, drift = truth["theta_next"] - truth["theta"] - truth["action"], truth["phi_next"] - truth["phi"]
    assert turn.mean() == pytest.approx(0, abs=0.005) and turn.std() == pytest.approx(0.25, rel=0.02)
    assert drift.mean() == pytest.approx(0.1, abs=0.001) and drift.std() == pytest.approx(0.05, rel=0.02)
    assert np.abs(truth["action"]).max() <= 1 and truth["action"].var() == pytest.approx(1 / 3, rel=0.02)
    assert np.abs(np.exp(1j * truth["theta"]).mean()) < 0.02 and np.abs(np.exp(1j * truth["phi"]).mean()) < 0.02
    together = np.stack([truth[name][0] for name in ("action", "theta", "phi")] + [*truth["u"][0].T, turn[0]])
    assert np.abs(np.corrcoef(together) - np.eye(len(together))).max() < 0.025
    exact = worlds.batch(worlds.Ring(1, reach=0.6), [0], 0, MANY).truth
    assert np.allclose(exact["theta_next"], exact["theta"] + exact["action"], atol=1e-5)
    assert 0.59 < np.abs(exact["action"]).max() <= 0.6


def test_features_of_actions_are_those_of_the_turn():
    batch = worlds.batch(worlds.Ring(1), [0], 0, 20)
    angle = np.arctan2(batch.action[..., 0], batch.action[..., 1] + 1)
    assert np.allclose(angle, batch.truth["action"], atol=1e-6)


def test_detail_is_fresh_or_frozen():
    fresh = worlds.frames(worlds.Ring(1), [0], 0, (MANY, 3)).states["u"]
    assert np.corrcoef(fresh[0, :, 0, 0], fresh[0, :, 2, 0])[0, 1] == pytest.approx(0, abs=0.02)
    frozen = worlds.frames(worlds.Ring(1, frozen=True), [0], 0, (50, 3)).states["u"]
    assert np.array_equal(frozen[:, :, 0], frozen[:, :, 2])


@pytest.mark.parametrize("causes", [2, 3, 4])
def test_the_two_frames_and_the_action_tell_the_hidden_cause(causes):
    # I(c; θ, a, θ′) = H(c) = ln K: the rest of the turn is c's, whose values are apart.
    truth = worlds.batch(worlds.Ring(1, causes=causes, cause_step=1.6), [0], 0, MANY).truth
    turn = truth["theta_next"] - truth["theta"] - truth["action"]
    told = np.rint(turn / 1.6 + (causes - 1) / 2).astype(int)
    assert np.array_equal(told, truth["cause"])
    assert np.allclose(np.bincount(told.ravel()) / MANY, 1 / causes, atol=0.01)
    assert np.abs(truth["action"]).max() <= 0.5
    for known in ("theta", "action", "phi"):
        assert np.corrcoef(truth[known][0], truth["cause"][0])[0, 1] == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize("options", [{"noise": 0.25}, {"causes": 2, "cause_step": 1.6}, {"causes": 4, "noise": 0.1}])
@pytest.mark.parametrize("horizon", [1, 3])
def test_the_best_prediction_has_the_stated_r2(options, horizon):
    world = worlds.Ring(1, **options)
    drawn = worlds.frames(world, [0], 0, (MANY, horizon + 1))
    best = world.predictable(horizon)
    for name, known in (("theta", drawn.between["action"].sum(-1)), ("phi", 0.1 * horizon)):
        target = np.exp(1j * drawn.states[name][0, :, -1].astype(float))
        direction = np.exp(1j * (drawn.states[name][:, :, 0] + known)[0].astype(float))
        error = np.abs(target - np.sqrt(best[name]) * direction) ** 2
        # No multiple of that direction is better, and its error is the stated one.
        assert error.mean() == pytest.approx(1 - best[name], rel=0.03)
        assert (target * direction.conj()).real.mean() == pytest.approx(np.sqrt(best[name]), abs=0.01)


def test_hard_pairs_are_turned_to_both_sides():
    world = worlds.Ring(1)
    batch = worlds.batch(world, [0, 1], 0, 500)
    hard = unmixed(world, world.turned(batch, np.pi / 8))
    own = unmixed(world, batch.y)
    assert np.allclose(hard[..., 24:], own[..., 24:], atol=1e-5)
    waves = np.exp(2j * np.pi * np.arange(24) / 24)
    turns = np.angle((hard[..., :24] @ waves) / (own[..., :24] @ waves))
    assert np.allclose(np.abs(turns), np.pi / 8, atol=1e-4)
    assert (turns > 0).mean() == pytest.approx(0.5, abs=0.05)


def test_hard_pairs_of_a_member_do_not_depend_on_other_members():
    world = worlds.Ring(1)
    together, alone = (world.turned(worlds.batch(world, members, 0, 50), 0.4) for members in ([4, 7], [7]))
    assert np.array_equal(together[1:], alone)


def test_rings_are_jittered_between_views():
    world = worlds.Rings(1, 4)
    batch = worlds.batch(world, [0], 0, 10_000)
    jitter = batch.truth["angles_next"] - batch.truth["angles"]
    assert np.allclose(jitter.std((0, 1)), 0.1, rtol=0.03) and np.allclose(jitter.mean((0, 1)), 0, atol=0.004)
    pixels = unmixed(world, batch.y[0]).reshape(-1, 4, 12)
    bump = np.exp(3 * (np.cos(batch.truth["angles_next"][0, ..., None] - 2 * np.pi * np.arange(12) / 12) - 1))
    assert np.allclose(pixels, (bump - np.exp(-3) * np.i0(3)) / 0.33, atol=2e-5)
    together = np.exp(1j * batch.truth["angles"][0]).T
    assert np.abs(np.corrcoef(together) - np.eye(4)).max() < 0.04


@pytest.mark.parametrize("correlation", [0, 0.5, 0.9])
def test_gaussian_pairs_have_the_stated_correlation_and_information(correlation):
    world = worlds.GaussianPairs(1, correlation)
    batch = worlds.batch(world, [0], 0, MANY)
    both = np.concatenate([batch.x[0], batch.y[0]], 1)
    exact = np.kron([[1, correlation], [correlation, 1]], np.eye(20))
    assert np.abs(np.cov(both.T) - exact).max() < 0.03
    assert world.information == pytest.approx(-np.linalg.slogdet(exact)[1] / 2, abs=1e-12)
    # The best prediction is c x.
    assert np.mean((batch.y - correlation * batch.x) ** 2) == pytest.approx(1 - correlation**2, rel=0.01)


def test_steps_in_two_rooms_end_at_walls():
    random = np.random.default_rng(0)
    places, steps = random.random((5000, 2)), random.uniform(-0.15, 0.15, (5000, 2))
    ends = two_rooms.moved(places, steps)
    wanted = steps * np.minimum(1, 0.1 / np.linalg.norm(steps, axis=1))[:, None]
    # The same in 1,000 small steps, which stop each coordinate at the border.
    fine = places + np.linspace(0, 1, 1001)[:, None, None] * (np.clip(places + wanted, 0, 1) - places)
    sides = fine[..., 0] < 0.5
    crossing = (sides[1:] != sides[:-1]).argmax(0)
    crosses = sides[0] != sides[-1]
    height = np.take_along_axis(fine[..., 1], crossing[None], 0)[0]
    blocked = crosses & ((height < 0.35) | (height > 0.65))
    expected = np.clip(places + wanted, 0, 1)
    expected[blocked, 0] = places[blocked, 0]
    # Small steps know the height of the crossing to 1e-4.
    doubtful = crosses & (np.minimum(np.abs(height - 0.35), np.abs(height - 0.65)) < 2e-4)
    assert blocked.sum() > 100 and (crosses & ~blocked).sum() > 50 and doubtful.sum() < 10
    assert np.allclose(ends[~doubtful], expected[~doubtful], atol=1e-12)
    assert np.linalg.norm(ends - places, axis=1).max() <= 0.1 + 1e-12
    assert np.array_equal(places, np.random.default_rng(0).random((5000, 2)))


def test_walks_in_two_rooms_are_the_dynamics_of_their_steps():
    drawn = worlds.frames(two_rooms.TwoRooms(1), [0], 0, (20_000, 5))
    places, steps = drawn.states["place"], drawn.between["step"]
    for t in range(4):
        assert np.array_equal(places[:, :, t + 1], two_rooms.moved(places[:, :, t], steps[:, :, t]))
    lengths = np.linalg.norm(steps, axis=-1)
    # Uniform in a disc: the squared length is uniform.
    assert lengths.max() <= 0.1 + 1e-7 and (lengths**2).mean() == pytest.approx(0.005, rel=0.01)
    assert np.allclose(places[:, :, 0].mean((0, 1)), 0.5, atol=0.01)
    assert np.allclose(drawn.actions, steps / 0.1)


def test_pixels_of_two_rooms_are_standardised_bumps():
    world = two_rooms.TwoRooms(1)
    batch = worlds.batch(world, [0], 0, 20_000)
    pixels = batch.x[0, :, :144].astype(float)
    assert pixels.mean() == pytest.approx(0, abs=0.005) and pixels.std() == pytest.approx(1, abs=0.005)
    centres = (np.arange(12) + 0.5) / 12
    square = ((batch.truth["place"][0, :, :, None] - centres) ** 2) / (2 * 0.09**2)
    bump = np.exp(-square[:, 0, :, None] - square[:, 1, None, :]).reshape(-1, 144)
    slope, offset = np.polyfit(bump.ravel(), pixels.ravel(), 1)
    assert np.allclose(pixels, slope * bump + offset, atol=1e-4)
    assert batch.x[0, :, 144:].std() == pytest.approx(0.5, rel=0.01)
    seen = world.at(np.array([[0.2, 0.3], [0.2, 0.3]]), "plan", 1)
    assert np.array_equal(seen[0, :144], seen[1, :144]) and not np.array_equal(seen[0], seen[1])


def test_tasks_cross_the_wall_unless_told():
    starts, goals = two_rooms.tasks(np.random.default_rng(0), 4000)
    _, near = two_rooms.tasks(np.random.default_rng(0), 4000, same_room=True)
    for places, low, high in ((starts, 0.05, 0.4), (goals, 0.6, 0.95), (near, 0.05, 0.4)):
        assert np.allclose(places.min(0), [low, 0.05], atol=0.01) and np.allclose(
            places.max(0), [high, 0.95], atol=0.01
        )
        assert np.allclose(places.mean(0), [(low + high) / 2, 0.5], atol=0.02)


def test_small_images_are_standardised_means_of_pixels():
    images = np.random.default_rng(0).integers(0, 256, (10, 1, 28, 28))
    small = image_worlds.small(images)
    mean = images.reshape(10, 14, 2, 14, 2).mean((2, 4))
    assert np.allclose(small, (mean - mean.mean()) / mean.std(), atol=1e-5)
    assert np.allclose(image_worlds.small(small), small, atol=1e-5)
    with pytest.raises(ValueError, match="5 × 5: give 14 or 28"):
        image_worlds.small(images[..., :5, :5])


@pytest.mark.parametrize(("views", "most"), [("panes", 2), ("shift_2", 2), ("shift_1", 1)])
def test_digits_are_shifted_in_each_frame(views, most):
    world = digits(views)
    drawn = worlds.frames(world, [0], 0, (4000, 3))
    shifts, left = drawn.states["shift"][0], drawn.states["left"][0]
    counts = np.unique(shifts.reshape(-1, 2), axis=0, return_counts=True)[1] / 12_000
    assert len(counts) == (2 * most + 1) ** 2 and np.allclose(counts, 1 / len(counts), atol=0.01)
    assert (left == left[:, :1]).all()
    assert np.allclose(np.bincount(left[:, 0], minlength=20) / 4000, 1 / 20, atol=0.015)
    for n, t in ((0, 0), (1, 2), (2, 1)):
        # Digits keep a free margin of 2 pixels, so that a rotation of the image shifts them.
        expected = np.roll(world.images[left[n, t]], shifts[n, t], (0, 1))
        assert np.array_equal(drawn.seen[0, n, t, :196].reshape(14, 14), expected)
    assert np.array_equal(drawn.states["label"][0], left % 10)
    if views == "panes":
        right = drawn.states["right"][0]
        assert np.array_equal(drawn.seen[0, :, :, 196:].reshape(4000, 3, 14, 14), world.images[right])
        assert np.array_equal(drawn.states["right_label"][0], right % 10)
        assert (right[:, 0] == right[:, 1]).mean() == pytest.approx(1 / 20, abs=0.015)


def test_noisy_views_show_one_image_with_noise_of_their_own():
    world = digits("noise")
    batch = worlds.batch(world, [0], 0, 2000)
    clean = world.images[batch.truth["left"][0]].reshape(-1, 196)
    first, second = batch.x[0] - clean, batch.y[0] - clean
    assert first.std() == pytest.approx(0.5, rel=0.01) and second.std() == pytest.approx(0.5, rel=0.01)
    assert np.mean(first * second) == pytest.approx(0, abs=0.002)
