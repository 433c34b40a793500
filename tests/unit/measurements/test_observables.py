"""A variable registered by its measuring module appears in blocks, aggregates and the documentation."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import yaml

from goldilocks_zone.config import kinds, records, studies
from goldilocks_zone.measurements import aggregate, blocks, documentation
from goldilocks_zone.measurements.curvature import CurvatureStudy
from goldilocks_zone.measurements.observables import DRAW, RADIUS, Axis, Observables, Shape, Variable
from goldilocks_zone.provenance import attributes
from goldilocks_zone.storage import netcdf
from made_up.projects import write_images

ROOT = Path(__file__).parents[3]
GRID = {"datasets": ["d"], "networks": ["fc-5x1-relu", "fc-5x2-relu"], "subspaces": ["plane-3-dense"], "draws": 2}
STUDY = CurvatureStudy(**GRID, radii=[0.5, 2.0], dimensions=[3], vary={"metric": ["shell", "sigma"]})

PLANE = Axis("plane", lambda shape: range(3))
LAYER = Axis("layer", lambda shape: range(1, shape.module + 1), "number of the layer", of_network=True)
STEP = Axis("step", lambda shape: [0, 7], "steps so far", last=True)


def observables():
    found = Observables(RADIUS, DRAW)

    @found.register(
        int,
        Variable("averaged", "m", "a length", (PLANE,), plane_variance=True),
        Variable("in_block", "m", "what no aggregate needs", (PLANE,), aggregated=False),
        Variable("of_layers", "1", "one number a layer", (LAYER, STEP), may_be_missing=True),
    )
    def numbers(seen):
        return {"averaged": seen + np.array([0.0, 1.0, 5.0]), "in_block": np.zeros(3)}

    @found.register(int, Variable("asked_for", "1", "only where the study has the key"), key="probes")
    def asked_for(seen):
        return {"asked_for": seen}

    return found


def block(folder, network, draws, layers, **study):
    """Write a block of a made-up study below `folder`, without values of the variable `of_layers`; returns its path.

    `layers` is the number of layers of the network, and `study` replaces settings of the study.
    """
    study, found = STUDY.model_copy(update=study), observables()
    labels = {**studies.varied(study), "radius": study.radii, "draw": draws}
    result = blocks.empty(found, Shape(study, layers, (1, 1, 1), 2), labels)
    for i, draw in enumerate(draws):
        for metric in labels["metric"]:
            for radius in labels["radius"]:
                place = {"metric": metric, "radius": radius, "draw": draw}
                blocks.fill(result, place, found.measure(study, 10 * i + (metric == "sigma")))
    result.attrs = {
        **attributes.attributes("code", records.of_measurement(study, 1), 1.5),
        **{"data_checksum": "0", "classes": 2, "network_fingerprint": "", "seeds": "", "r_x": 1.0, "device": "cpu"},
        "dtype": "float64",
    }
    path = folder / f"d/{network}/plane-3-dense/draws-{draws[0]}.nc"
    netcdf.write_dataset(result, path)
    return str(path)


def aggregated(folder, paths, networks=GRID["networks"]):
    texts = {"settings": records.of_measurement(STUDY, 1), "grid": {**GRID, "networks": networks}}
    for name, settings in texts.items():
        (folder / f"{name}.yaml").write_text(records.dump(settings))
    (folder / "code.yaml").write_text("code\n")
    return aggregate.aggregate_study(paths, *(str(folder / f"{name}.yaml") for name in (*texts, "code")), [])


def test_a_block_has_the_variables_that_its_study_asks_for_with_their_axes_and_attributes(tmp_path):
    found = netcdf.read_dataset(block(tmp_path, "fc-5x1-relu", [0, 1], 2))
    assert found["averaged"].dims == ("metric", "radius", "draw", "plane")
    assert found["of_layers"].dims == ("metric", "radius", "draw", "layer", "step") and "asked_for" not in found
    assert found["averaged"].attrs == {"units": "m", "long_name": "a length", "over_planes": "mean and variance"}
    assert found["averaged"].sel(metric="sigma", radius=2, draw=1).values.tolist() == [11, 12, 16]
    assert found["step"].attrs == {"units": "1", "long_name": "steps so far", "order": "last"}
    assert "asked_for" in netcdf.read_dataset(block(tmp_path, "fc-5x1-relu", [0, 1], 2, probes=3))


def test_an_aggregate_follows_the_attributes_of_its_blocks(tmp_path):
    paths = [
        block(tmp_path, network, draws, layers)
        for layers, network in enumerate(GRID["networks"], 2)
        for draws in ([0], [1])
    ]
    study = aggregated(tmp_path, paths)
    point = ("dataset", "network", "subspace", "metric", "radius", "draw")
    assert study["averaged"].dims == study["averaged_plane_variance"].dims == point
    # What a study varies and axes of variables stand before the radius, but for those that come last.
    assert study["of_layers"].dims == (*point[:4], "layer", "radius", "draw", "step")
    assert study["layer"].values.tolist() == [1, 2, 3] and "in_block" not in study and "plane" not in study.dims
    assert study["averaged"].sel(metric="shell").values == pytest.approx(2)
    assert study["averaged_plane_variance"].values == pytest.approx(7)
    assert study["averaged"].attrs == {"units": "m", "long_name": "a length"}
    assert study["averaged_plane_variance"].attrs["units"] == "(m)²" and study["x"].attrs["units"] == "1"
    assert study.attrs["blocks"] == 4 and study.attrs["wall_seconds"] == 6


def test_missing_values_are_refused_where_the_variable_does_not_allow_them(tmp_path):
    path = block(tmp_path, "fc-5x1-relu", [0], 2)
    incomplete = netcdf.read_dataset(path)
    incomplete["averaged"][0, 0, 0, :] = np.nan
    netcdf.write_dataset(incomplete, path)
    with pytest.raises(
        ValueError, match="would lack values of averaged, averaged_plane_variance: a block is incomplete"
    ):
        aggregated(tmp_path, [path], ["fc-5x1-relu"])


def test_the_tables_in_the_results_readme_are_those_of_the_registrations():
    text = documentation.README.read_text(encoding="utf-8")
    assert documentation.documented(text) == text
    # A new kind of study gets a table of its own, at the end.
    without = text.replace("<!-- variables of training -->", "")
    assert "\n## Variables of training\n\n<!-- variables of training -->\n| variable |" in documentation.documented(
        without
    )


def test_every_variable_has_a_unit_and_a_meaning_and_one_registration_in_its_kind():
    for kind in kinds.known().values():
        variables = [variable for each in kind.load().OBSERVABLES for variable in each.variables]
        assert all(variable.units and variable.long_name for variable in variables)
        assert len({variable.name for variable in variables}) == len(variables)


@pytest.fixture
def copy(tmp_path):
    """Folder with a copy of the package and of results/README.md, and a dataset of made-up images."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "results").mkdir()
    shutil.copy2(ROOT / "results/README.md", tmp_path / "results")
    write_images(tmp_path / "results/data/mnist.nc")
    return tmp_path


PROGRAM = """
from goldilocks_zone.config import kinds, records, studies
from goldilocks_zone.measurements import aggregate, documentation
from goldilocks_zone.measurements.blocks import Job
from goldilocks_zone.storage import netcdf

place = "results/mnist/fc-5x1-relu/plane-3-dense/draws-000-000.nc"
job = Job(
    "results/data/mnist.nc", "settings.yaml", "code.txt", None, "", "mnist", "fc-5x1-relu", "plane-3-dense",
    "draws-000-000", device="cpu",
)
netcdf.write_dataset(kinds.known()["curvature"].load().measure_block(job), place)
study = aggregate.aggregate_study([place], "settings.yaml", "grid.yaml", "code.txt", [])
netcdf.write_dataset(study, "results/aggregate.nc")
documentation.README.write_text(documentation.documented(documentation.README.read_text()))
"""


def test_a_new_variable_touches_the_file_that_measures_it_and_no_other(copy):
    with open(copy / "scripts/goldilocks_zone/measurements/curvature_blocks.py", "a") as file:
        file.write(
            '\n\n@OBSERVABLES.register(OnPlane, averaged("determinant", "loss³", "det H_d"))\n'
            "def determinant(seen):\n"
            "    matrices = [seen.measured.hessian[:d, :d] for d in seen.sweep.study.dimensions]\n"
            '    return {"determinant": [np.linalg.det(matrix) for matrix in matrices]}\n'
        )
    study = {"kind": "curvature", "radii": [1], "dimensions": [3], "examples": [20], "planes": 2, "validation": 20}
    grid = {"datasets": ["mnist"], "networks": ["fc-5x1-relu"], "subspaces": ["plane-3-dense"], "draws": 1}
    (copy / "settings.yaml").write_text(yaml.safe_dump({**study, "seed": 1}))
    (copy / "grid.yaml").write_text(yaml.safe_dump(grid))
    (copy / "code.txt").write_text("code\n")
    environment = {"PYTHONPATH": str(copy / "scripts"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=copy, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    measured = xr.load_dataset(copy / "results/mnist/fc-5x1-relu/plane-3-dense/draws-000-000.nc")
    assert measured["determinant"].values == pytest.approx(measured["eigenvalue"].prod("index").values)
    means = measured["determinant"].mean("plane").transpose("examples", "radius", "dimension", "draw")
    study = xr.load_dataset(copy / "results/aggregate.nc")
    assert study["determinant"].squeeze(aggregate.CELL).values == pytest.approx(means.values)
    assert study["determinant"].attrs == {"units": "loss³", "long_name": "det H_d"}
    assert study["determinant_plane_variance"].values > 0
    readme = (copy / "results/README.md").read_text(encoding="utf-8")
    assert "| `determinant` | examples, radius, draw, plane, dimension | loss³ | det H_d | |\n" in readme
