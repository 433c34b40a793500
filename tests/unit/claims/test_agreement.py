"""Agreement with published values, on made-up studies at a known distance from them."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import yaml

from goldilocks_zone.claims import agreement
from goldilocks_zone.config import load, studies
from goldilocks_zone.figures import registry

ROOT = Path(__file__).parents[3]
FILES = sorted((ROOT / "resources/published").glob("*/agreement.yaml"))
X = np.array([-2.0, 0.0, 2.0])
COMPARISON = {
    "title": "a curve",
    "figure": "curve",
    "values": "values.csv",
    "columns": {"x": "place", "value": "value", "deviation": "deviation"},
    "variable": "kappa",
    "series": {"dimension": "{d}"},
    "at": {"dataset": "mnist"},
    "readings": {"primary": {"says": "as it is", "study": "curvature", "at": {"examples": 250}}},
}
VALUES = "place,d,value,deviation\n-1,10,-1,0.1\n1,10,1,0.01\n3,10,3,0.1\n-1,50,-2,0.1\n"


def study(offset=0.0, draws=4):
    """Made-up study whose mean κ over draws is x + `offset` for d = 10, and 2x + `offset` for d = 50.

    This holds with 250 examples; with 1,000 examples, κ is 9.
    """
    slopes, noise = np.array([1.0, 2.0]), np.linspace(-0.3, 0.3, draws)
    few = (slopes[:, None] * X + offset)[..., None] + noise
    values = np.stack([few, np.full_like(few, 9.0)])[None]
    axes = {"dataset": ["mnist"], "examples": [250, 1000], "dimension": [10, 50], "radius": 10 ** (X / 2)}
    coordinates = {**axes, "draw": range(draws), "x": ("radius", X)}
    return xr.Dataset({"kappa": ((*axes, "draw"), values)}, coordinates, {"settings": '{"metric": "shell"}'})


def rows(folder, studies, values=VALUES, **changed):
    """Rows of agreement.csv, by d, from a comparison of `studies` with the published `values`, the text of a CSV.

    `changed` replaces keys of the comparison, whose only reading is the primary one.
    """
    (folder / "values.csv").write_text(values)
    (folder / "agreement.yaml").write_text(yaml.safe_dump({"it": {**COMPARISON, **changed}}))
    found = agreement.evaluate(folder / "agreement.yaml", studies)
    assert all(tuple(each) == agreement.COLUMNS for each in found)
    return {each["d"]: each for each in found}


def test_distances_at_the_published_places(tmp_path):
    """Means are interpolated linearly between radii; places beyond the radii are left out; each d is compared alone."""
    found = rows(tmp_path, {"curvature": study(0.05)})
    assert {d: row["points"] for d, row in found.items()} == {10: 2, 50: 1, "all": 3}
    for row in found.values():
        assert row["mean_difference"] == pytest.approx(0.05) and row["mean_absolute_difference"] == pytest.approx(0.05)
        assert row["deviations"] == "published" and row["work"] == tmp_path.name
    # 0.05 is within two deviations of 0.1, not of 0.01.
    assert [found[d]["share_within"] for d in (10, 50, "all")] == [0.5, 1, pytest.approx(2 / 3)]
    assert rows(tmp_path, {"curvature": study(-0.05)})["all"]["largest_difference"] == pytest.approx(-0.05)


def test_a_shift_moves_the_published_places(tmp_path):
    moved = {"primary": {**COMPARISON["readings"]["primary"], "shift": 0.25}}
    found = rows(tmp_path, {"curvature": study()}, readings=moved)
    assert found[10]["mean_difference"] == pytest.approx(0.25) and found[50]["mean_difference"] == pytest.approx(0.5)


def test_without_published_deviations_those_over_draws_count_where_they_are_known(tmp_path):
    columns = {"log10_r": "place", "value": "value"}
    values = "place,d,value\n-0.5,10,-1\n0.5,10,1\n"
    found = rows(tmp_path, {"curvature": study(0.1)}, values, columns=columns)["all"]
    # Deviation 0.26; log10 r = 1/2 is x = 1.
    assert found["share_within"] == 1 and found["deviations"] == "ours" and found["points"] == 2
    assert rows(tmp_path, {"curvature": study(0.6)}, values, columns=columns)["all"]["share_within"] == 0
    assert rows(tmp_path, {"curvature": study(0.6, 2)}, values, columns=columns)["all"]["share_within"] == ""


def test_values_at_one_radius(tmp_path):
    one = study(0.5).isel(radius=[1])
    found = rows(tmp_path, {"curvature": one}, "d,value\n10,0.25\n", columns={"value": "value"})
    assert found["all"]["mean_difference"] == pytest.approx(0.25)


def test_runs_that_diverged_are_at_chance(tmp_path):
    here = study().rename(kappa="test_accuracy").assign_coords(classes=10)
    here["test_accuracy"][:] = np.nan
    found = rows(tmp_path, {"curvature": here}, "place,d,value,deviation\n0,10,0.3,1\n", variable="test_accuracy")
    assert found["all"]["mean_difference"] == pytest.approx(0.1 - 0.3)


@pytest.mark.parametrize(
    "studies, changed, reason",
    [
        ({}, {}, "the study curvature is not part of this run"),
        ({"curvature": study()}, {"variable": "trace"}, "the study curvature has measured no trace"),
        ({"curvature": study()}, {"at": {"dataset": "cifar10"}}, "this run has no dataset cifar10 in its study"),
        (
            {"curvature": study()},
            {"readings": {"primary": {"says": "", "study": "curvature"}}},
            "several values of examples, of which the reading names none",
        ),
        (
            {"curvature": study()},
            {"at": {"dataset": "mnist", "metric": "identity"}},
            "the study curvature has metric shell, and the reading is of identity",
        ),
        ({"curvature": study().isel(radius=[1])}, {}, "no published place lies within the radii of this run"),
    ],
)
def test_a_reading_that_cannot_be_compared_says_why(tmp_path, studies, changed, reason):
    found = rows(tmp_path, studies, **changed)
    assert found and all(reason in each["reason"] and each["points"] == "" for each in found.values())


def test_a_mistake_in_a_file_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"agreement.yaml: it.columns.value: Field required; see resources/published"):
        rows(tmp_path, {}, columns={"x": "place"})


def test_no_published_marker_is_drawn_without_a_row():
    compared = {
        (each.figure, f"resources/published/{path.parent.name}/{each.values}")
        for path in FILES
        for each in agreement.load(path).values()
    }
    drawn = {(name, figure.published) for name, figure in registry.figures().items() if figure.published}
    assert drawn and drawn == compared


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_readings_are_of_studies_of_the_full_run_and_name_their_axes(path):
    configured = load.load().studies
    for comparison in agreement.load(path).values():
        for reading in comparison.readings.values():
            study = configured[reading.study]
            known = {"dataset", "network", "subspace", "examples", "radius", "dimension", *study.model_dump()}
            assert {*comparison.at, *reading.at, *comparison.series} <= known
            given = study.model_dump() | studies.varied(study)
            for axis, value in reading.at.items():
                here = given[axis] if axis in given else given[f"{axis}s"]
                assert value in (here if isinstance(here, list) else [here]), (axis, value)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_every_published_value_is_compared_in_a_primary_reading(path):
    for comparison in agreement.load(path).values():
        assert next(iter(comparison.readings)) == "primary"
        points = agreement.published(path.parent / comparison.values, comparison.columns)
        assert points and all(np.isfinite(each[1]).all() for each in points.values())
