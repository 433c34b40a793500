"""Predicted costs of jobs, from benchmark files and from sizes."""

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from goldilocks_zone.cli import costs, text_tables
from goldilocks_zone.config import kinds, load
from goldilocks_zone.models import labels
from made_up.networks import model

ROOT = Path(__file__).parents[3]
CELL = {"study": "curvature", "dataset": "mnist", "network": "fc-200x2-relu", "subspace": "plane-50-sparse"}


@pytest.mark.parametrize(
    "label, image",
    [("fc-20x2-relu", (1, 9, 7)), ("conv-3x2-relu", (2, 7, 10)), ("lenet5", (1, 28, 28)), ("lenet5", (3, 32, 32))],
)
def test_operations_of_a_forward_pass(label, image):
    network = model(label, image=image, classes=10, examples=2)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.module(network.inputs[:1])
    assert labels.parse_network(label).forward_flops(image, 10) == counter.get_total_flops()


@pytest.fixture
def config():
    return load.load()


def benchmark(logs, name, seconds, mib=1000.0):
    path = logs / f"{name}.benchmark.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"s\th:m:s\tmax_rss\n{seconds}\t0:00:00\t{mib}\n")
    return str(path)


def test_costs_come_from_the_nearest_job_that_was_measured(config, tmp_path):
    place = "full/curvature/curvature/mnist/fc-200x2-relu/plane-50-sparse/draws-000-019"
    unknown = costs.Costs(config, tmp_path).of("curvature", {**CELL, "block": "draws-000-019"}, None)
    assert unknown.source == costs.BY_SIZE and unknown.mib is None and unknown.seconds > 5
    path = benchmark(tmp_path, place, 100.0)
    found = costs.Costs(config, tmp_path)
    assert found.of("curvature", {**CELL, "block": "draws-000-019"}, path) == costs.Cost(100.0, 1000.0, costs.MEASURED)
    # A tenth of the draws takes a tenth of the time beside the overhead.
    alike = found.of("curvature", {**CELL, "block": "draws-000-001"}, None)
    overhead = kinds.known()["curvature"].seconds
    assert alike.source == costs.ALIKE and alike.seconds == pytest.approx(overhead + (100 - overhead) / 10)
    # Another study goes by what all of the rule did.
    other = found.of("curvature", {**CELL, "study": "isotropy", "block": "draws-000-019"}, None)
    assert other.source == costs.ALIKE


OF_TRAINING = "training/isotropy/mnist/fc-9x2-relu/full-free/draws-000-001"


@pytest.mark.parametrize("place", [OF_TRAINING, "curvature/isotropy"])
def test_logs_of_another_configuration_change_no_estimate(config, tmp_path, place):
    """A study that was of another kind, and a log at another depth."""
    block = {**CELL, "block": "draws-000-019"}
    expected = costs.Costs(config, tmp_path).of("curvature", block, None).seconds
    benchmark(tmp_path, f"full/{place}", 9999.0)
    assert costs.Costs(config, tmp_path).of("curvature", block, None).seconds == expected


def test_other_rules_take_their_mean(config, tmp_path):
    benchmark(tmp_path, "quick/figures/loss", 2.0, 100.0)
    benchmark(tmp_path, "quick/figures/arms", 4.0, 200.0)
    (tmp_path / "quick/figures/kinks.benchmark.tsv").write_text("")
    found = costs.Costs(config, tmp_path)
    assert found.of("figure", {"figure": "parts"}, None) == costs.Cost(3.0, 200.0, costs.ALIKE)
    assert found.of("paper", {}, None) == costs.Cost(costs.USUAL_SECONDS, None, costs.BY_SIZE)


def test_sizes_grow_with_steps_points_and_members(config, tmp_path):
    def seconds(study, **changed):
        # Varied one after another: each call keeps what those before it set.
        config.studies[study] = config.studies[study].model_copy(update=changed)
        kind = kinds.known()[config.studies[study].kind]
        wildcards = {**CELL, "study": study, "subspace": "plane-10-sparse", "block": "draws-000-000"}
        return costs.Costs(config, tmp_path).of(config.studies[study].kind, wildcards, None).seconds - kind.seconds

    once = seconds("planes", steps=100, logged=[1], evaluated=10)
    assert seconds("planes", steps=1000) > 9 * once
    seen = seconds("planes", sharpness_examples=1000)
    assert seen > 1.5 * seconds("planes", sharpness_examples=0)
    assert seconds("planes", geometry_examples=500, geometry_steps=[0]) > 2 * seconds("planes", geometry_steps=[])
    alone = seconds("networks", examples=[100])
    assert seconds("networks", examples=[100, 1000]) == pytest.approx(10 * alone)


def test_durations_and_sizes_are_read_at_a_glance():
    assert [text_tables.duration(x) for x in (0.4, 89, 91, 5399, 5400)] == ["0 s", "89 s", "2 min", "90 min", "1.5 h"]
    assert [text_tables.memory(x) for x in (700, 2048)] == ["700 MiB", "2.0 GiB"]
    assert text_tables.aligned([("a", "10"), ("long", "9")], right=(1,)) == ["a     10", "long   9"]


def test_data_in_the_plane_cost_by_their_own_size(config, tmp_path):
    """Costs follow from the data's own size, not that of images: five classes have a larger kernel than two."""
    place = {"study": "boundary_sections", "network": "fc-60x2-relu", "subspace": "full-free", "block": "draws-000-019"}
    found = costs.Costs(config, tmp_path)
    two, five = (found.of("boundary", {**place, "dataset": name}, None).seconds for name in ("pie_2_2", "pie_5_5"))
    assert 5 < two < five < 600
