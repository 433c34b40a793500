import copy
import datetime
from pathlib import Path
from typing import get_args

import pytest

from goldilocks_zone.claims import definitions
from goldilocks_zone.config import documentation, load, models, records, studies
from goldilocks_zone.data import datasets, drawn_shapes
from goldilocks_zone.figures import registry
from goldilocks_zone.measurements.curvature import CurvatureStudy
from goldilocks_zone.models import labels, losses, networks
from goldilocks_zone.subspaces import planes

ROOT = Path(__file__).parents[3]
FULL = load.read(load.shipped())


def split(config, **execution):
    """Copy of a complete configuration with other values of its section `execution`, which splits work into jobs."""
    return config.model_copy(update={"execution": config.execution.model_copy(update=execution)})


def changed(path, value):
    config = copy.deepcopy(FULL)
    *parents, last = path.split(".")
    place = config
    for key in parents:
        place = place.setdefault(key, {})
    if value is KeyError:
        del place[last]
    else:
        place[last] = value
    return config


MISTAKES = [
    # key, value, what the sentence must contain
    ("datasets.mine", {"path": "mine.npz", "licence": "猫"}, ["datasets.mine.licence: '猫'", "in Latin letters"]),
    ("studies.curvature.radii.first", -1, ["studies.curvature.radii.first", "-1", "greater than 0"]),
    ("studies.curvature.radii.first", 0, ["studies.curvature.radii.first", "greater than 0"]),
    ("studies.curvature.radii.last", 0.001, ["studies.curvature.radii.last", "greater than first"]),
    ("studies.curvature.radii.frist", 1, ["studies.curvature.radii.frist", "did you mean first"]),
    ("studies.curvature.radii.number", 2.5, ["studies.curvature.radii.number", "integer"]),
    ("studies.curvature.radii", [1, -2], ["studies.curvature.radii.1", "greater than 0"]),
    ("studies.curvature.radii", "all", ["studies.curvature.radii", "wrong type", "array"]),
    ("studies.curvature.radii", KeyError, ["studies.curvature", "radii is missing"]),
    ("studies.curvature.metrik", "shell", ["studies.curvature.metrik", "did you mean metric"]),
    ("studies.curvature.metric", "shel", ["studies.curvature.metric", "did you mean shell"]),
    ("studies.curvature.dimensions", [10, 500], ["studies.curvature.dimensions", "500", "plane-100-sparse"]),
    ("studies.curvature.dimensions", [], ["studies.curvature.dimensions", "empty"]),
    ("studies.curvature.subspaces", ["plane-200000-dense"], ["studies.curvature.subspaces.0", "198800 parameters"]),
    ("studies.curvature.subspaces", ["plane-100-spars"], ["studies.curvature.subspaces.0", "plane-100-spars"]),
    ("studies.curvature.networks", ["fc-200x2-rleu"], ["studies.curvature.networks.0", "rleu"]),
    (
        "studies.curvature.networks",
        ["conv-16-relu"],
        ["studies.curvature.networks.0", "write conv-<channels>x<blocks>"],
    ),
    ("networks.lenet5", {"file": "a.py", "name": "A"}, ["networks.lenet5", "label", "choose another"]),
    ("studies.curvature.networks", "fc-200x2-relu", ["studies.curvature.networks", "array"]),
    ("studies.curvature.networks", ["fc-9x2-relu"] * 2, ["studies.curvature.networks", "twice"]),
    ("studies.curvature.datasets", ["mnits"], ["studies.curvature.datasets.0", "did you mean mnist"]),
    ("studies.curvature.examples", [70_000], ["studies.curvature.examples", "59500"]),
    ("studies.curvature.draws", 0, ["studies.curvature.draws", "at least 1"]),
    ("studies.curvature.draws", "many", ["studies.curvature.draws", "integer"]),
    ("studies.curvature.bias_directions", 1, ["studies.curvature.bias_directions", "boolean"]),
    ("studies.curvature.temperature", 0, ["studies.curvature.temperature", "greater than 0"]),
    ("studies.curvature.classes", 11, ["studies.curvature.classes", "11", "mnist has 10 classes"]),
    ("studies.curvature.classes", 1, ["studies.curvature.classes", "at least 2"]),
    ("studies.curvature.vary.metrik", ["shell"], ["studies.curvature.vary.metrik", "did you mean metric"]),
    ("studies.curvature.vary.draws", [1, 2], ["studies.curvature.vary.draws", "this key is unknown"]),
    ("studies.curvature.vary.metric", ["shell", "shel"], ["studies.curvature.vary.metric.1", "did you mean shell"]),
    ("studies.curvature.vary.metric", "shell", ["studies.curvature.vary.metric", "array"]),
    ("studies.curvature.vary.metric", [], ["studies.curvature.vary.metric", "empty"]),
    ("studies.curvature.vary.temperature", [1, 1.0], ["studies.curvature.vary.temperature", "twice"]),
    ("studies.curvature.vary.temperature", [1, 0], ["studies.curvature.vary.temperature.1", "greater than 0"]),
    ("studies.curvature.vary.bias_directions", [0], ["studies.curvature.vary.bias_directions.0", "boolean"]),
    ("studies.curvature.vary.classes", [10, 11], ["studies.curvature.vary.classes", "11", "mnist has 10 classes"]),
    ("studies.curvature.vary.classes", [1], ["studies.curvature.vary.classes.0", "at least 2"]),
    ("studies.curvature.vary", ["metric"], ["studies.curvature.vary", "object"]),
    ("studies.Curvature", {}, ["Curvature"]),
    ("execution.thread", 2, ["execution.thread", "did you mean threads"]),
    ("execution.draws_per_job", 0, ["execution.draws_per_job", "at least 1"]),
    ("execution.draws_per_job", "some", ["execution.draws_per_job", "some"]),
    ("execution.draws_per_job", {"insid": 2, "others": 1}, ["execution.draws_per_job.insid", "inside"]),
    ("execution.draws_per_job", {"inside": 0, "others": 1}, ["execution.draws_per_job", "0"]),
    ("figures.los", {"studies": ["curvature"]}, ["figures.los", "did you mean loss"]),
    ("figures.loss.studies", ["curvatur"], ["figures.loss.studies.0", "did you mean curvature"]),
    ("only", ["curvatur"], ["only.0", "did you mean curvature"]),
    ("run", "my run", ["run", "my run"]),
    ("rnu", "full", ["rnu", "did you mean run"]),
    ("studies", KeyError, ["studies is missing"]),
    ("studies", {}, ["studies: the section is empty"]),
    ("studies.curvature.kind", ["training"], ["studies.curvature.kind", "did you mean training"]),
    ("studies.curvature.vary.draws", 3, ["studies.curvature.vary.draws", "this key is unknown"]),
    ("studies.curvature.radii.first", float("nan"), ["studies.curvature.radii.first", "number"]),
    ("studies.curvature.networks", [None], ["studies.curvature.networks.0", "string"]),
    ("studies.curvature.draws", 8.0, ["studies.curvature.draws", "integer"]),
    ("studies.curvature.radii", [1, float("inf")], ["studies.curvature.radii.1", "number"]),
    ("studies.curvature.radii", [1, float("nan")], ["studies.curvature.radii.1", "number"]),
    ("studies.curvature.labels", True, ["studies.curvature.labels", "original"]),
    ("studies.curvature.examples", [59_501], ["studies.curvature.examples", "59500"]),
    ("studies.curvature.radius_unit", "init_scale", ["figures.model_kappa.studies.0", "r_X"]),
    ("studies.curvature.kind", "trainng", ["studies.curvature.kind", "did you mean training"]),
    ("studies.planes.kind", "curvatur", ["studies.planes.kind", "did you mean curvature"]),
    ("studies.planes.steps", KeyError, ["studies.planes", "steps is missing"]),
    ("studies.planes.steps", 0, ["studies.planes.steps", "at least 1"]),
    ("studies.planes.exampels", 1000, ["studies.planes.exampels", "did you mean examples"]),
    ("studies.planes.examples", 59_501, ["studies.planes.examples", "mnist has 59500 training examples left"]),
    ("studies.outside.sharpness_examples", 2001, ["studies.outside.sharpness_examples", "2001", "2000"]),
    ("studies.planes.rate_rule", "squared", ["studies.planes.rate_rule", "did you mean square"]),
    ("studies.scale_fc.rescaled", "parameter", ["studies.scale_fc.rescaled", "did you mean parameters"]),
    ("studies.scale_fc.vary.rescaled", ["both"], ["studies.scale_fc.counterfactuals", "rescaled: parameters"]),
    ("studies.scale_fc.networks", ["fc-300-100-tanh-nobias"], ["studies.scale_fc.counterfactuals", "homogeneous"]),
    ("studies.scale_fc.networks", ["fc-9x2-relu-nobias-res"], ["studies.scale_fc.counterfactuals", "homogeneous"]),
    ("studies.scale_fc.networks", ["fc-9x2-relu-nobias-ln"], ["studies.scale_fc.counterfactuals", "homogeneous"]),
    ("studies.eigenvectors.networks", ["lenet5-nobias"], ["studies.eigenvectors.eigenvectors", "whole images"]),
    ("figures.parts.studies", ["curvature"], ["figures.parts.studies.0", "radius_unit: init_scale"]),
    ("studies.planes.rate", "1e-3", ["studies.planes.rate", "write 0.001 or 1.0e-3"]),
    ("studies.planes.rate", 0, ["studies.planes.rate", "greater than 0"]),
    ("studies.planes.radii", [0.0, 1], ["studies.planes.radii.0", "greater than 0"]),
    ("studies.planes.radii", [-2], ["studies.planes.radii.0", "greater than 0"]),
    ("studies.planes.batch", 60_000, ["studies.planes.batch", "training uses 59500 examples of mnist"]),
    ("studies.planes.batch", 0, ["studies.planes.batch", "at least 1"]),
    ("studies.planes.vary.batch", [64, 60_000], ["studies.planes.vary.batch", "60000", "59500"]),
    ("studies.planes.classes", 11, ["studies.planes.classes: 11 is impossible; mnist has 10 classes"]),
    ("studies.planes.vary.classes", [10, 11], ["studies.planes.vary.classes: 11", "mnist has 10 classes"]),
    ("studies.planes.vary.rat", [1], ["studies.planes.vary.rat", "did you mean rate"]),
    ("studies.planes.subspaces", ["plane-0-dense"], ["studies.planes.subspaces.0", "plane-0-dense"]),
    ("studies.planes.subspaces", ["plane-200000-fastfood"], ["studies.planes.subspaces.0", "198800 parameters"]),
    ("studies.planes.subspaces", ["sphere-5-kronecker"], ["studies.planes.subspaces.0", "sparse, dense or fastfood"]),
    ("studies.planes.subspaces", ["full"], ["studies.planes.subspaces.0", "full-free or full-fixed"]),
    ("studies.curvature.subspaces", ["sphere-100-sparse"], ["studies.curvature.subspaces.0", "plane-100-sparse"]),
    ("studies.planes.logged", [2000], ["studies.planes.logged", "2000", "975 steps"]),
    ("studies.planes.geometry_steps", [975], ["studies.planes.geometry_steps", "no geometry_examples"]),
    ("studies.planes.geometry_steps", [974], ["studies.planes.geometry_steps", "974", "logged steps", "975"]),
    ("studies.planes.residual_steps", [975], ["studies.planes.residual_steps", "975", "geometry_steps, none"]),
    ("studies.chang.geometry_examples", 600, ["studies.chang.geometry_examples", "600", "49500 and 500"]),
    ("studies.planes.outputs_examples", 501, ["studies.planes.outputs_examples", "501", "500 examples are held out"]),
    ("studies.geometry_classes.outputs_examples", 10, ["studies.geometry_classes.outputs_examples", "no common axis"]),
    ("studies.geometry_sizes.validation", 1000, ["studies.geometry_sizes.geometry_examples", "2000", "10000 and 1000"]),
    ("studies.equivalence.geometry_examples", 10, ["studies.equivalence.temperature_rule", "temperature_rule: fixed"]),
    ("studies.rate_temperature.geometry_examples", 10, ["studies.rate_temperature.temperature", "temperature: 1"]),
    ("studies.planes.labels", "groups_of_three", ["studies.planes.labels", "did you mean groups_of_t"]),
    ("studies.geometry.eigenvalues", 100000, ["studies.geometry.eigenvalues", "100000", "use fewer than these"]),
    ("studies.curvature.example_set", 60, ["studies.curvature.example_set", "60", "61 disjoint sets"]),
    ("studies.boundary.metric", "identity", ["studies.boundary.metric", "no random planes; leave it out"]),
    ("studies.boundary.vary", {"metric": ["shell"]}, ["studies.boundary.vary.metric", "changes nothing here"]),
    ("studies.jepa_arms.loss", "mean_squared_error", ["studies.jepa_arms.loss", "losses of their own"]),
    (
        "networks",
        {"mine": {"file": "a.py", "name": "A", "arguments": {"day": datetime.date(2020, 1, 1)}}},
        ["networks.mine.arguments", "2020-01-01 is neither text nor a number", "quotes"],
    ),
    (
        "networks",
        {"mine": {"file": "a.py", "name": "A", "arguments": {"a": [{1: 2}]}}},
        ["networks.mine.arguments", "the name 1 must be text"],
    ),
    ("studies.planes.optimiser", "adma", ["studies.planes.optimiser", "did you mean adam"]),
    (
        "studies.plane_spread.subspaces",
        ["plane-50-sparse", "full-free"],
        ["studies.plane_spread.subspaces.1", "only on sparse or dense planes"],
    ),
    ("studies.plane_spread.subspaces", ["sphere-50-dense"], ["studies.plane_spread.subspaces.0", "or dense planes"]),
    ("studies.boundary_margin.networks", ["fc-9x2-relu-res"], ["boundary_margin.networks: fc-9x2", "dense layers"]),
    ("studies.2019", {}, ["2019"]),
    ("figures", 3, ["figures", "object"]),
    ("cuts.radii", [1, 0], ["cuts.radii.1", "greater than 0"]),
    ("cuts.radii", {"first": 1}, ["cuts.radii", "array"]),
    ("cuts.dataset", "mnits", ["cuts.dataset", "did you mean mnist"]),
    ("cuts.network", "fc-200x2-rleu", ["cuts.network", "rleu"]),
    ("cuts.examples", 59_501, ["cuts.examples", "59500"]),
    ("cuts.steps", 0, ["cuts.steps", "at least 1"]),
    ("cuts.extent", 0, ["cuts.extent", "greater than 0"]),
    ("cuts.subspace", "plane-1-sparse", ["cuts.subspace", "two or more"]),
    ("cuts.subspace", "line-3", ["cuts.subspace", "line-3"]),
    ("cuts.subspace", "plane-200000-dense", ["cuts.subspace", "198800 weights on mnist"]),
    ("cuts.direction", 3, ["cuts.direction", "this key is unknown"]),
    ("figures.cuts.study", "curvature", ["figures.cuts.study", "this key is unknown"]),
    (
        "studies.curvature.datasets",
        ["gauss"],
        ["datasets.0", "gauss is drawn anew for each initialisation", "boundary"],
    ),
    ("cuts.dataset", "pie_4_2", ["cuts.dataset", "pie_4_2 is drawn anew"]),
    ("datasets.gauss", {"path": "mine.npz"}, ["datasets.gauss", "belongs to an official dataset"]),
    ("studies.curvature.datasets", ["ring"], ["datasets.0", "ring is drawn anew for each initialisation, which"]),
    ("studies.boundary.datasets", ["rings_8"], ["studies.boundary.datasets.0", "rings_8 is drawn anew"]),
    ("studies.boundary.datasets", ["rings_17"], ["studies.boundary.datasets.0", "'rings_17' is unknown"]),
    ("studies.curvature.datasets", ["two_room"], ["datasets.0", "did you mean two_rooms"]),
    ("cuts.dataset", "gaussian_pairs", ["cuts.dataset", "gaussian_pairs is drawn anew"]),
    ("datasets.two_rooms", {"path": "mine.npz"}, ["datasets.two_rooms", "belongs to an official dataset"]),
    ("studies.boundary.datasets", ["pie_3_2"], ["studies.boundary.datasets.0", "'pie_3_2' is unknown"]),
    ("studies.boundary.minima", ["best"], ["studies.boundary.minima.0", "adversarial-<steps>"]),
    (
        "studies.boundary.minima",
        ["wide_margin"],
        ["studies.boundary.minima", "a minimum of the checkerboard"],
    ),
    ("studies.boundary.stop_at", 0.1, ["studies.boundary.stop_at", "set batch: all"]),
    ("studies.boundary.classes", 2, ["studies.boundary.classes", "only_classes"]),
    ("studies.boundary.only_classes", [0, 1], ["studies.boundary.only_classes", "gauss is used with all"]),
    ("studies.boundary_mnist.only_classes", [0, 10], ["boundary_mnist.only_classes", "10 is unknown; mnist has 10"]),
    ("studies.boundary_mnist.examples", KeyError, ["boundary_mnist.examples", "say how many images of mnist"]),
    ("studies.boundary_mnist.examples", 60000, ["boundary_mnist.examples", "60000 is impossible"]),
    ("studies.boundary.softmax", ["entropy-0"], ["studies.boundary.softmax.0", "entropy-<nats>"]),
    ("studies.boundary_measure.scalings", ["2-3-1"], ["boundary_measure.scalings.0", "with product 1"]),
]


@pytest.mark.parametrize("path, value, parts", MISTAKES)
def test_mistakes_are_refused_in_one_sentence_with_the_key(path, value, parts):
    with pytest.raises(load.ConfigurationError) as refusal:
        load.complete(changed(path, value))
    sentence = str(refusal.value)
    assert "\n" not in sentence and all(part in sentence for part in parts), sentence


@pytest.mark.parametrize("overlay", [None, "quick", "tiny", "paper_scale"])
def test_shipped_configurations_are_valid(overlay):
    paths = [*load.shipped(), *([ROOT / f"config/{overlay}.yaml"] if overlay else [])]
    config = load.complete(load.read(paths))
    assert config.run == (overlay or "full")
    given = config.model_dump(exclude_none=True)
    # A figure that is left out is null; the cuts are of no study.
    given["figures"] = dict.fromkeys(registry.figures()) | given["figures"]
    assert load.complete(given) == config


def test_a_text_that_is_no_yaml_is_refused_with_its_line(tmp_path):
    (tmp_path / "bad.yaml").write_text("a: [1")
    with pytest.raises(load.ConfigurationError, match=r"bad\.yaml, line 1: .*; correct it"):
        load.read([tmp_path / "bad.yaml"])


def test_names_that_yaml_reads_as_numbers_are_refused():
    config = changed("run", "full")
    config["studies"][2019] = config["studies"]["curvature"]
    with pytest.raises(load.ConfigurationError, match=r"studies\.2019: a name must be text"):
        load.complete(config)


@pytest.mark.parametrize(
    "key, valid",
    [
        ("inputs", datasets.INPUTS),
        ("labels", datasets.LABELS),
        ("metric", planes.METRICS),
        ("loss", losses.LOSSES),
    ],
)
def test_models_and_code_know_the_same_names(key, valid):
    assert set(get_args(CurvatureStudy.model_fields[key].annotation)) == set(valid)


def test_cuts_know_what_studies_know():
    for key in ("metric", "initialisation", "inputs", "validation"):
        study, cuts = CurvatureStudy.model_fields[key], models.Cuts.model_fields[key]
        assert (study.annotation, study.default) == (cuts.annotation, cuts.default)


def test_the_figure_of_cuts_goes_with_them():
    config = load.complete(changed("cuts", None))
    assert not config.cuts and "cuts" not in config.figures and "loss" in config.figures
    assert load.complete(changed("cuts", {})).cuts.radii == [0.1, 0.464158883, 1, 2.15443469, 10]


def test_cuts_have_their_dataset_fetched_left_out_and_replaced():
    config = load.complete(changed("cuts.dataset", "fashion_mnist"))
    config = config.model_copy(update={"studies": {"curvature": config.studies["curvature"]}})
    assert load.datasets_of(config) == {"mnist", "fashion_mnist"}
    available = {"mnist": {"available": True}, "fashion_mnist": {"available": False, "reason": "no mirror"}}
    left, reasons = load.without_missing(config, available)
    assert reasons == {"fashion_mnist": "no mirror"}
    assert not left.cuts and "cuts" not in left.figures and "loss" in left.figures
    kept, _ = load.without_missing(config, {"fashion_mnist": {"available": True}})
    assert kept.cuts == config.cuts and "cuts" in kept.figures
    replaced = changed("substitutes", {"mnist": "fashion_mnist"})
    assert load.complete(replaced).cuts.dataset == "fashion_mnist"


def test_activations_of_labels_are_built():
    assert set(labels.ACTIVATIONS) == set(networks.ACTIVATIONS)


def test_planes_are_held_against_weights_of_convolutions():
    config = changed("studies.cifar10.networks", ["conv-16x5-relu"])
    config["studies"]["cifar10"]["subspaces"] = ["plane-9809-sparse", "plane-9808-sparse"]
    with pytest.raises(load.ConfigurationError, match=r"subspaces\.0: 9809 .* 9808 parameters on cifar10"):
        load.complete(config)


@pytest.mark.parametrize("study", ["curvature", "planes"])
def test_planes_are_held_against_networks_for_the_classes_in_use(study):
    config = changed(f"studies.{study}.classes", 2)
    config["studies"][study] |= {"networks": ["fc-20x1-relu"], "subspaces": ["plane-15721-sparse"]}
    with pytest.raises(load.ConfigurationError, match="15720 parameters on mnist"):
        load.complete(config)


def test_all_classes_are_the_absence_of_the_key():
    config = load.complete(changed("studies.curvature.classes", None))
    assert "classes" not in records.of_measurement(config.studies["curvature"], 1)


def test_every_variant_is_held_against_its_network():
    config = changed("studies.curvature.subspaces", ["plane-199000-sparse"])
    config["studies"]["curvature"]["bias_directions"] = True
    assert load.complete(config)
    config["studies"]["curvature"]["vary"] = {"bias_directions": [True, False]}
    with pytest.raises(load.ConfigurationError, match=r"subspaces\.0: 199000 .* 198800 parameters on mnist"):
        load.complete(config)
    # Each of the eight classes left out takes 200 weights and a bias with it.
    config["studies"]["curvature"] |= {"subspaces": ["plane-198000-sparse"], "vary": {"classes": [10, 2]}}
    with pytest.raises(load.ConfigurationError, match=r"198000 dimensions .* 197602 parameters on mnist"):
        load.complete(config)


def test_a_varied_value_goes_before_the_keys_own():
    config = changed("studies.curvature.vary", {"classes": [2, 3]})
    config["studies"]["curvature"]["classes"] = 11
    study = load.complete(config).studies["curvature"]
    assert [study.model_copy(update=variant).classes for variant in studies.variants(study)] == [2, 3]


def test_variants_are_a_full_factorial(tmp_path):
    config = changed("studies.curvature.vary", {"temperature": [2, 1], "labels": ["shuffled", "original"]})
    complete = load.complete(config)
    expected = [
        {"labels": kind, "temperature": temperature} for kind in ("shuffled", "original") for temperature in (2, 1)
    ]
    study = complete.studies["curvature"]
    assert studies.variants(study) == expected
    assert [list(variant) for variant in studies.variants(study)] == [["labels", "temperature"]] * 4
    # A job reads the same from its file of settings.
    (tmp_path / "record.yaml").write_text(records.dump(records.of_measurement(study, 3)))
    block = records.read_block(tmp_path / "record.yaml", "mnist", "lenet5", "plane-100-sparse", "draws-002-004")
    assert studies.variants(block.study) == expected
    assert studies.variants(complete.studies["inside"]) == [{}]


def test_an_entry_set_to_null_is_left_out():
    config = load.complete(changed("studies.isotropy", None))
    assert "isotropy" not in config.studies


def test_radii_are_evenly_spaced_in_the_logarithm():
    study = load.complete(changed("studies.curvature.radii", {"first": 0.01, "last": 100, "number": 5}))
    assert studies.radii(study.studies["curvature"]) == pytest.approx([0.01, 0.1, 1, 10, 100], rel=1e-11)
    assert studies.radii(models.Cuts(radii=[3, 1])) == [1.0, 3.0]


@pytest.mark.parametrize("draws_per_job", [1, 2, 3, "all", {"curvature": 5, "others": 1}, {"inside": 1}])
@pytest.mark.parametrize("radii_per_job", [1, 4, "all"])
def test_blocks_cover_every_draw_and_radius_once(draws_per_job, radii_per_job):
    config = load.complete(changed("studies.curvature.draws", 7))
    config = split(config, draws_per_job=draws_per_job, radii_per_job=radii_per_job)
    radii = studies.radii(config.studies["curvature"])
    seen = []
    for name in studies.blocks(config, "curvature"):
        draws, chosen = studies.read_block(name)
        seen += [(draw, radius) for draw in draws for radius in radii[chosen]]
    assert sorted(seen) == [(draw, radius) for draw in range(7) for radius in radii]


def test_draws_per_job_may_differ_between_studies():
    config = load.complete(changed("studies.curvature.draws", 5))
    config = split(config, draws_per_job={"curvature": 3})
    assert list(studies.blocks(config, "curvature")) == ["draws-000-002", "draws-003-004"]
    config = split(config, draws_per_job={"inside": 3})
    assert list(studies.blocks(config, "curvature")) == ["draws-000-004"]
    config = split(config, draws_per_job={"inside": 3, "others": 4})
    assert list(studies.blocks(config, "curvature")) == ["draws-000-003", "draws-004-004"]


@pytest.mark.parametrize(
    "logged, expected",
    [
        ([3, 10], [0, 3, 10, 100]),
        (3, [0, 1, 10, 100]),
        (2, [0, 1, 100]),
    ],
)
def test_what_is_logged_has_start_and_end(logged, expected):
    config = changed("studies.drawn", FULL["studies"]["drawn"] | {"steps": 100, "logged": logged})
    assert load.complete(config).studies["drawn"].logged_steps == expected


def test_blocks_of_training_lie_apart_from_those_of_curvature():
    config = load.complete(copy.deepcopy(FULL))
    assert studies.block_paths(config, "drawn") == [
        "training/drawn/mnist/fc-200x2-relu/full-free/draws-000-002.nc",
    ]
    assert all(path.startswith("curvature/inside/") for path in studies.block_paths(config, "inside"))


def test_settings_of_blocks_leave_out_what_names_blocks_and_how_work_is_split():
    config = load.complete(copy.deepcopy(FULL))
    settings = records.of_measurement(config.studies["curvature"], config.seed)
    assert not set(settings) & {*studies.AXES, "draws_per_job", "threads", "device"}
    assert {"metric", "examples", "seed", "radii", "dimensions"} <= set(settings)


def test_missing_datasets_leave_with_their_studies_and_figures():
    config = load.complete(changed("studies.isotropy.datasets", ["mnist", "fashion_mnist"]))
    available = {"mnist": {"available": False, "reason": "no mirror"}, "fashion_mnist": {"available": True}}
    left, reasons = load.without_missing(config, available)
    assert reasons == {"mnist": "no mirror"}
    chang = ["chang", "chang_rates", "chang_tuned", "chang_subspaces", "chang_curvature"]
    scales = [name for name, study in FULL["studies"].items() if study.get("radius_unit") == "init_scale"]
    datasets = {name: study.get("datasets", []) for name, study in FULL["studies"].items()}
    drawn = [name for name, named in datasets.items() if any(map(drawn_shapes.shape_of, named))]
    others = ["fashion_mnist", "cifar10", "other_data", *chang, *scales, "geometry_data", *drawn]
    assert set(left.studies) == {"isotropy", *others}
    assert left.studies["isotropy"].datasets == ["fashion_mnist"]
    shown = {name: figure.studies for name, figure in left.figures.items()}
    # Points in the plane and worlds need no dataset.
    of_plane = {name: [each for each in figure.studies if each in drawn] for name, figure in registry.figures().items()}
    others = ["fashion_mnist", "cifar10"]
    assert shown == {
        "other_networks": others,
        "other_losses": others,
        "sensitivity": ["isotropy"],
        "other_accuracy": ["other_data"],
        "chang_radius": ["chang", "chang_rates"],
        "chang_accuracy": ["chang", "chang_tuned", "chang_curvature"],
        "chang_subspaces": ["chang_subspaces"],
        "clustering": ["geometry_data"],
        **{name: list(figure.studies) for name, figure in registry.figures().items() if figure.axis == "scale"},
        **{name: studies for name, studies in of_plane.items() if studies},
    }


def test_a_run_may_keep_some_studies_only():
    config = load.complete(changed("only", ["networks"]))
    assert list(config.studies) == ["networks"]
    assert set(config.figures) == {"other_networks", "other_losses", "collapse", "cuts"}
    assert config.figures["collapse"].studies == ["networks"]


def test_documentation_lists_every_key():
    """config/README.md has the models' keys, types, defaults and descriptions, as `documentation` writes them."""
    text = (ROOT / "config/README.md").read_text(encoding="utf-8")
    assert documentation.documentation() in text


def test_every_study_of_the_claims_is_in_the_full_run():
    config = copy.deepcopy(FULL)
    for claim in definitions.load(ROOT / "config/claims").values():
        for case in claim.get("cases", {}).values():
            assert case["study"] in config["studies"]
