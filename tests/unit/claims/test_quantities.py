"""Discovery of estimators by their modules, and the keys of a case that estimators accept."""

import pytest
import xarray as xr

from goldilocks_zone.claims import definitions, quantities

OWN = """
import xarray as xr

from goldilocks_zone.statistics.estimates import Estimate, mean


def doubled(cell: xr.Dataset, variable: str, from_: float = 0.0) -> list[Estimate]:
    return [mean(2 * cell[variable].values - from_)]


def helper(cell: xr.Dataset) -> float:
    return 0.0


def _hidden(cell: xr.Dataset) -> list[Estimate]:
    return []
"""


def test_a_new_file_of_estimators_is_all_it_takes(room):
    (room / "doubling.py").write_text(OWN)
    assert {"doubled", "at_every_radius"} <= quantities.known().keys()
    assert not {"helper", "_hidden", "mean"} & quantities.known().keys()
    assert quantities.keys("doubled") == {"variable": True, "from": False}
    cell = xr.Dataset({"loss": ("draw", [1.0, 2.0, 3.0])})
    (found,) = quantities.estimate(cell, {"quantity": "doubled", "variable": "loss", "from": 1, "unit": 1}, "a case")
    assert found.value == 3


def test_two_estimators_of_one_name_are_refused(room):
    (room / "again.py").write_text(OWN.replace("doubled", "at_every_radius"))
    with pytest.raises(ValueError, match=r"again.at_every_radius: .*curvature already has an estimator of this name"):
        quantities.known()


def test_a_case_without_a_key_that_its_quantity_needs_is_refused(tmp_path):
    case = "{statement: S., study: one, quantity: at_every_radius, window: [0, 1], expect: positive, unit: 1}"
    (tmp_path / "a.yaml").write_text(f"work: A\na1: {{statement: First., cases: {{p: {case}}}}}")
    with pytest.raises(
        definitions.DefinitionError, match=r"a1.p: the key 'variable' is missing; at_every_radius needs it"
    ):
        definitions.load(tmp_path)
