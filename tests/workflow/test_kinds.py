"""A kind of study is one file: from the configuration to the aggregate, the plan and the documentation."""

import numpy as np
import pytest
import xarray as xr
import yaml

from made_up.projects import Project

KIND = '''"""Studies of the norm of initialisations."""

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from goldilocks_zone.config.kinds import Kind
from goldilocks_zone.config.models import Plane, Study
from goldilocks_zone.config.values import Several
from goldilocks_zone.measurements.observables import DRAW, RADIUS, Observables, Shape, Variable


class NormsStudy(Study):
    """Study of norms"""

    kind: Literal["norms"] = Field(description="What is measured.")
    subspaces: Several[Plane] = Field(description="Planes.")

    def check(self, path, shapes, networks):
        """Refuse nothing."""

    def operations(self, network, shape, subspace, draws, radii):
        """One for each draw and radius."""
        return draws * radii


KIND = Kind(NormsStudy, memory_mib=500, seconds=2, speeds={"norms": 1e9})
OBSERVABLES = Observables(RADIUS, DRAW)


@dataclass(frozen=True)
class Point:
    parameters: Any


@OBSERVABLES.register(Point, Variable("length", "parameters", "norm of x"))
def length(seen):
    return {"length": (seen.parameters**2).sum() ** 0.5}


def measure_block(job):
    from goldilocks_zone.data import datasets
    from goldilocks_zone.measurements import blocks
    from goldilocks_zone.models import initialisation

    work = blocks.begin(job)
    block, study = work.block, work.block.study
    examples = datasets.load(job.path_to_dataset, job.dataset, 20, "standardised", "original", 20, block.seed)
    module = work.network(examples)
    parameters = initialisation.parameters_of(module)
    r_x = initialisation.glorot_radius(parameters)
    result = blocks.empty(OBSERVABLES, Shape(study, module, (1, 28, 28), 10), work.labels)
    for draw in block.draws:
        theta = work.initialisation(parameters, study.initialisation, draw)
        for radius in block.radii:
            seen = Point(initialisation.rescaled(theta, radius, study.radius_unit, r_x))
            blocks.fill(result, {"radius": radius, "draw": draw}, OBSERVABLES.measure(study, seen))
    return blocks.sign(result, work, examples, module, dtype="float64")
'''
STUDY = {"kind": "norms", "datasets": ["mnist"], "networks": ["fc-10x2-relu"], "subspaces": ["plane-10-sparse"]}


@pytest.mark.slow
def test_a_kind_of_study_is_one_file(tmp_path):
    project = Project.create(tmp_path / "project")
    (project.folder / "scripts/goldilocks_zone/measurements/norms.py").write_text(KIND)
    studies = {"lengths": {**STUDY, "radii": [0.5, 2], "draws": 3}}
    (project.folder / "mine.yaml").write_text(yaml.safe_dump({"studies": studies, "only": ["lengths"]}))
    config = ["config/tiny.yaml", "mine.yaml"]
    done = project.snakemake("results/tiny/aggregate/lengths.nc", config=config)
    assert done.returncode == 0, done.stderr
    assert "Measuring norms: lengths, mnist, fc-10x2-relu, plane-10-sparse, draws-000-002" in done.stderr
    study = xr.load_dataset(project.folder / "results/tiny/aggregate/lengths.nc")
    norms = study["length"].squeeze(("dataset", "network", "subspace"), drop=True)
    assert norms.dims == ("radius", "draw") and norms.attrs == {"units": "parameters", "long_name": "norm of x"}
    block = next((project.folder / "results/tiny/norms/lengths").rglob("*.nc"))
    r_x = xr.load_dataset(block).attrs["r_x"]
    assert norms.values == pytest.approx(np.outer([0.5, 2], [r_x] * 3))
    # Its code is what its blocks follow.
    project.edit("scripts/goldilocks_zone/measurements/norms.py", "** 0.5", "** (1 / 2)")
    assert project.dry_run("results/tiny/aggregate/lengths.nc", config=config) == {"norms": 1, "aggregate": 1}
