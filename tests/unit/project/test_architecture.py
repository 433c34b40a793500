"""The rooms of the package: one sentence each, imports in one direction, and a page that documents both."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "scripts/goldilocks_zone"
LAYERS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]["layers"]


def rooms():
    """First line of the docstring of each subpackage and of the module randomness, by name."""
    found = {folder.name: folder / "__init__.py" for folder in PACKAGE.iterdir() if (folder / "__init__.py").exists()}
    found["randomness"] = PACKAGE / "randomness.py"
    return {name: ast.get_docstring(ast.parse(path.read_text())).splitlines()[0] for name, path in found.items()}


def test_the_page_lists_the_rooms_of_the_tree_with_their_sentences_and_levels():
    table = re.findall(r"^\| (\d) \| `(\w+)` \| (.*) \|$", (ROOT / "docs/architecture.md").read_text(), re.MULTILINE)
    levels = {name: len(LAYERS) - i for i, layer in enumerate(LAYERS) for name in layer.split(" | ")}
    assert {name: (int(level), sentence) for level, name, sentence in table} == {
        name: (levels[name], sentence) for name, sentence in rooms().items()
    }
    assert [level for level, *_ in table] == sorted((level for level, *_ in table), reverse=True)


def test_there_are_few_rooms_each_with_one_sentence_and_no_imports():
    assert len(rooms()) - 1 <= 18
    assert all(sentence.endswith(".") and ". " not in sentence for sentence in rooms().values())
    for path in PACKAGE.rglob("__init__.py"):
        imports = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
        assert path.parent == PACKAGE or not imports, path


def test_no_module_stands_outside_a_room_but_randomness_and_the_command_line():
    assert {path.stem for path in PACKAGE.glob("*.py")} <= {"__init__", "__main__", "randomness"}


def lines_of(node):
    return node.end_lineno - node.lineno + 1


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_and_functions_fit_in_a_head(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert lines_of(node) <= 60, node.name


def broken(tmp_path, edit):
    """Run import-linter on a copy of the package, and return the completed process.

    `edit` maps paths of modules, relative to the package, to text that is appended to them.
    """
    for path in PACKAGE.rglob("*.py"):
        place = tmp_path / "goldilocks_zone" / path.relative_to(PACKAGE)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(path.read_text() + edit.get(str(path.relative_to(PACKAGE)), ""))
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--no-logo", ROOT / "pyproject.toml"]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env={"PYTHONPATH": str(tmp_path)})


def test_scripts_are_few():
    assert len(list((ROOT / "scripts").glob("*.py"))) <= 20


def test_imports_run_one_way(tmp_path):
    assert broken(tmp_path, {}).returncode == 0


@pytest.mark.parametrize(
    "module, line, contract",
    [
        ("spectra/lanczos.py", "from goldilocks_zone.curvature import hessian\n", "Imports between rooms run one way"),
        ("training/loop.py", "from goldilocks_zone.curvature import hessian\n", "Imports between rooms run one way"),
        ("curvature/hessian.py", "import snakemake\n", "The package knows nothing of Snakemake"),
        ("figures/style.py", "import torch\n", "Only measurements wait for torch"),
        ("jobs/log.py", "import numpy\n", "Modules that fingerprints leave out compute nothing"),
    ],
)
def test_an_import_against_the_order_is_found(module, line, contract, tmp_path):
    done = broken(tmp_path, {module: line})
    assert done.returncode == 1 and f"{contract} BROKEN" in " ".join(done.stdout.split())
