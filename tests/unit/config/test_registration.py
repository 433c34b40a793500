"""Registration in one place takes effect everywhere, tested in copies of the package and of the configuration."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from goldilocks_zone.config import kinds

ROOT = Path(__file__).parents[3]
SHOW = """
import json, sys
from pathlib import Path
from goldilocks_zone.config import documentation, kinds, load, records, studies
config = load.load(sys.argv[2:])
study = config.studies[sys.argv[1]]
print(json.dumps({
    "record": records.of_measurement(study, config.seed),
    "blocks": studies.block_paths(config, sys.argv[1]),
    "documentation": documentation.documentation(),
    "schema": documentation.schema(),
    "kinds": list(kinds.known()),
    "varied": list(study.varied().model_fields),
    "figures": list(config.figures),
    "files": sorted(load.datasets_of(config)),
}))
"""
KIND = '''"""Studies that count parameters."""

from typing import Literal

from goldilocks_zone.config.kinds import Kind
from goldilocks_zone.config.models import Plane, Study
from goldilocks_zone.config.values import Count, Several


class CountingStudy(Study, title="Study of counting"):
    """Numbers of parameters."""

    kind: Literal["counting"]
    subspaces: Several[Plane]
    up_to: Count = 9

    def check(self, path, shapes, networks):
        """Refuse nothing."""

    def operations(self, network, shape, subspace, draws, radii):
        """One for each draw."""
        return draws


KIND = Kind(CountingStudy, memory_mib=100, seconds=1, speeds={"counting": 1e9})
'''
DRAWN = "mnist", "ring", "rings_8"
WORK = """
studies:
  numbers: {kind: counting, datasets: [mnist], networks: [lenet5], subspaces: [plane-2-dense], radii: [1], draws: 3}
figures:
  loss: {studies: [curvature, numbers]}
execution:
  draws_per_job: {numbers: 2}
"""


@pytest.fixture
def copy(tmp_path):
    """Folder with a copy of the package and the configuration, and nothing else of the checkout."""
    for name in ("scripts/goldilocks_zone", "config"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def run(copy, *arguments):
    command = [sys.executable, "-c", SHOW, *arguments]
    return subprocess.run(command, cwd=copy, capture_output=True, text=True, env={"PYTHONPATH": str(copy / "scripts")})


def shown(copy, *arguments):
    done = run(copy, *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_key_of_a_study_is_one_field(copy):
    path = copy / "scripts/goldilocks_zone/measurements/curvature.py"
    first = "    planes: Count = 1"
    text = path.read_text()
    assert first in text
    path.write_text(text.replace(first, f'    colour: Varied[Count] = 7\n    """Of the paint."""\n{first}'))
    found = shown(copy, "inside")
    assert found["record"]["colour"] == 7 and "colour" in found["varied"]
    assert "| `colour` | integer, ≥ 1 | `7` | Of the paint. |" in found["documentation"]
    assert "colour" in found["schema"]["$defs"]["CurvatureStudy"]["properties"]
    (copy / "mine.yaml").write_text("studies: {inside: {vary: {colour: [1, 0]}}}")
    refused = run(copy, "inside", "mine.yaml")
    assert "studies.inside.vary.colour.1: 0 is impossible; it must be at least 1" in refused.stderr
    (copy / "mine.yaml").write_text("studies: {inside: {color: 1}}")
    assert "studies.inside.color: this key is unknown; did you mean colour?" in run(copy, "inside", "mine.yaml").stderr


def test_a_kind_of_study_and_the_studies_of_a_work_are_one_file_each(copy):
    (copy / "scripts/goldilocks_zone/measurements/counting.py").write_text(KIND)
    (copy / "config/studies/somebody_2030.yaml").write_text(WORK)
    found = shown(copy, "numbers")
    # The usual kind comes first, and others in the order of their files.
    assert found["kinds"] == ["curvature", *sorted({*kinds.known(), "counting"} - {"curvature"})]
    assert found["record"]["up_to"] == 9
    assert found["blocks"] == [
        f"counting/numbers/mnist/lenet5/plane-2-dense/{x}.nc" for x in ("draws-000-001", "draws-002-002")
    ]
    assert "### Study of counting" in found["documentation"] and "CountingStudy" in found["schema"]["$defs"]
    (copy / "mine.yaml").write_text("studies: {numbers: {kind: countin}}")
    assert (
        "studies.numbers.kind: 'countin' is not valid here; did you mean counting?"
        in run(copy, "x", "mine.yaml").stderr
    )


def test_a_kind_that_draws_worlds_takes_them_and_no_points_in_the_plane(copy):
    path = copy / "scripts/goldilocks_zone/measurements/counting.py"
    path.write_text(KIND.replace('"counting": 1e9}', '"counting": 1e9}, draws_worlds=True'))
    (copy / "config/studies/somebody_2030.yaml").write_text(WORK.replace("[mnist]", "[mnist, ring, rings_8]"))
    found = shown(copy, "numbers")
    blocks = [each for each in found["blocks"] if "draws-000-001" in each]
    assert blocks == [f"counting/numbers/{name}/lenet5/plane-2-dense/draws-000-001.nc" for name in DRAWN]
    # Worlds have no file that a rule would fetch.
    assert "mnist" in found["files"] and not {"ring", "rings_8"} & set(found["files"])
    (copy / "mine.yaml").write_text("studies: {numbers: {datasets: [ring, gauss]}}")
    assert "numbers.datasets.1: gauss is drawn anew" in run(copy, "numbers", "mine.yaml").stderr
    (copy / "mine.yaml").write_text("studies: {curvature: {datasets: [ring]}}")
    refused = run(copy, "numbers", "mine.yaml").stderr
    assert "ring is drawn anew for each initialisation, which only studies of " in refused and "counting" in refused
