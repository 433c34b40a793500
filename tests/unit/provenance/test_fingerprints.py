import ast
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from goldilocks_zone.config import kinds
from goldilocks_zone.provenance import fingerprints

ROOT = Path(__file__).parents[3]
LOCK = ROOT / "requirements.txt"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Folder of a made-up package with a script that imports `room.a`, through it `room.b`, and an excluded module."""
    monkeypatch.setattr(fingerprints, "PACKAGE", tmp_path)
    (tmp_path / "script.py").write_text(
        '"""Doc."""\nfrom goldilocks_zone.room import a\nfrom goldilocks_zone.storage import files\nprint(a.f(1))\n'
    )
    for room in ("room", "storage"):
        (tmp_path / room).mkdir()
    (tmp_path / "room/a.py").write_text("from goldilocks_zone.room.b import g\n\n\ndef f(x):\n    return g(x) + 1\n")
    (tmp_path / "room/b.py").write_text(
        'def g(x):\n    """Doc."""\n    return 2 * x\n\n\nkey: int = 1\n"""a key"""\n\n\n'
        "@changes_no_number\ndef check(x):\n    return x > 0\n\n\nKIND = speed(1)\nOTHER = speed(1)\n"
    )
    (tmp_path / "storage/files.py").write_text("x = 1\n")
    (tmp_path / "room/unused.py").write_text("x = 1\n")
    return tmp_path


def test_imports_are_followed(package):
    assert fingerprints.imported_modules(package / "script.py") == {"room.a", "room.b"}


@pytest.mark.parametrize("line", ["from goldilocks_zone import room", "import goldilocks_zone.room"])
def test_a_package_imported_as_a_whole_stands_for_its_modules(package, line):
    (package / "script.py").write_text(line + "\n")
    assert fingerprints.imported_modules(package / "script.py") == {"room.a", "room.b", "room.unused"}


@pytest.mark.parametrize(
    "file, old, new, changes",
    [
        ("room/b.py", "2 * x", "2 * x  # a comment", False),
        ("room/b.py", "2 * x", "(2\n            * x)", False),
        ("room/b.py", "Doc.", "Another docstring.", False),
        ("script.py", "Doc.", "Another docstring.", False),
        ("room/b.py", "2 * x", "3 * x", True),
        ("room/b.py", "2 * x", "x * 2", True),
        ("room/a.py", "+ 1", "- 1", True),
        ("script.py", "f(1)", "f(2)", True),
        ("storage/files.py", "1", "2", False),
        ("room/unused.py", "1", "2", False),
        ("room/a.py", "return", "'''not a docstring'''; return", False),
        ("room/b.py", "2 * x", "2.0 * x", True),
        ("room/b.py", "a key", "a switch", False),
        ("room/b.py", "int = 1", "int = 2", True),
        ("room/b.py", "x > 0", "x > 1", False),
        ("room/b.py", "@changes_no_number\n", "", True),
        ("room/b.py", "KIND = speed(1)", "KIND = speed(2)", False),
        ("room/b.py", "OTHER = speed(1)", "OTHER = speed(2)", True),
    ],
)
def test_what_changes_a_fingerprint(package, file, old, new, changes):
    before = fingerprints.code_fingerprint(package / "script.py", LOCK)
    path = package / file
    path.write_text(path.read_text().replace(old, new))
    assert (fingerprints.code_fingerprint(package / "script.py", LOCK) != before) == changes


@pytest.fixture
def cache(tmp_path_factory, monkeypatch):
    """Path of the user's cache of fingerprints during this test, at which there is no file yet."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    fingerprints._opened.cache_clear()
    return folder / "goldilocks/fingerprints.json"


def recorded(script):
    """Fingerprint of a script as a new process would record it, after reading the cache from its file."""
    fingerprints._opened.cache_clear()
    return fingerprints.record(script)


@pytest.fixture
def script(package):
    """Path of the made-up package's script, moved to scripts/, with the lock file in the folder above."""
    (package / "scripts").mkdir()
    shutil.copy(LOCK, package)
    return (package / "script.py").rename(package / "scripts/script.py")


def test_modules_are_parsed_once_and_again_when_they_change(script, cache, monkeypatch):
    before = recorded(script)
    assert len(json.loads(cache.read_text().splitlines()[1])) == 3
    with monkeypatch.context() as patched:
        patched.setattr(ast, "parse", None)
        assert recorded(script) == before
    module = script.parents[1] / "room/b.py"
    text = module.read_text()
    module.write_text(text.replace("2 *", "3 *"))
    assert recorded(script) != before
    module.write_text(text)
    assert recorded(script) == before


@pytest.mark.parametrize("damage", [lambda text: "", lambda text: text[:-9], lambda text: text.replace("a", "b")])
def test_a_damaged_cache_is_ignored_and_written_anew(script, cache, damage):
    expected = recorded(script)
    whole = cache.read_text()
    cache.write_text(damage(whole))
    assert recorded(script) == expected and cache.read_text() == whole


def test_without_a_cache_fingerprints_are_the_same(script, cache, tmp_path, monkeypatch):
    expected = recorded(script)
    cache.unlink()
    cache.parent.rmdir()
    cache.parent.write_text("a file in the folder's place")
    assert recorded(script) == expected
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert recorded(script) == expected and not Path("relative").exists()
    assert (tmp_path / "home/.cache/goldilocks/fingerprints.json").exists()


def test_old_entries_of_the_cache_go_first(cache, monkeypatch):
    monkeypatch.setattr(fingerprints, "CACHE_LIMIT", 2)
    for name in "abc":
        entries = fingerprints.Cache(cache)
        entries.recall(name, lambda: ("hash", [], []))
        entries.save()
    kept = fingerprints.Cache(cache)
    assert [kept.recall(name, lambda: ("computed", [], []))[0] for name in "abc"] == ["computed", "hash", "hash"]


def test_pinned_versions_enter(package, tmp_path):
    other = tmp_path / "lock.txt"
    other.write_text(LOCK.read_text().replace("scipy==", "scipy==9."))
    assert fingerprints.code_fingerprint(package / "script.py", other) != fingerprints.code_fingerprint(
        package / "script.py", LOCK
    )
    assert [line.split("==")[0] for line in fingerprints.pinned_versions(LOCK)] == ["numpy", "scipy", "torch"]


def test_relative_imports_are_refused(package):
    (package / "room/a.py").write_text("from .b import g\n")
    with pytest.raises(ValueError, match="cannot be traced"):
        fingerprints.imported_modules(package / "script.py")


def test_what_is_left_out_is_what_import_linter_keeps_arrays_out_of():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = {contract["id"]: contract for contract in project["tool"]["importlinter"]["contracts"]}
    contract = contracts["fingerprints"]
    assert {f"goldilocks_zone.{name}" for name in fingerprints.EXCLUDED} == set(contract["source_modules"])
    assert {"numpy", "scipy", "torch"} <= set(contract["forbidden_modules"])


def test_scripts_reach_the_modules_that_make_their_numbers():
    measure = ROOT / "scripts/measure_block.py"
    reached = fingerprints.imported_modules(measure, modules=[kinds.known()["curvature"].path])
    engine = ("accumulators", "arguments", "autodiff", "directions", "dispatch", "gradients", "hessian")
    engine += ("hessian_vector_products", "homogeneous_sweep", "softened_relu", "tangents")
    engine += ("top_eigenvectors", "graph_degrees", "graph_elementwise", "graph_points", "graph_products")
    engine += ("graph_rules", "graph_tangents", "working_memory")
    networks = (
        "chains",
        "decompositions",
        "graphs",
        "initialisation",
        "kernels",
        "labels",
        "layers",
        "losses",
        "networks",
        "problem",
    )
    networks += ("criteria", "loss_factors", "named_inputs", "user_code", "user_networks", "weights")
    measurements = ("blocks", "curvature", "curvature_blocks", "curvature_sweeps", "observables")
    assert {
        *(f"curvature.{name}" for name in engine),
        *(f"models.{name}" for name in networks),
        *(f"measurements.{name}" for name in measurements),
        *("config.studies", "data.datasets", "data.official_shapes", "randomness", "subspaces.planes"),
        *("spectra.lanczos", "spectra.summaries", "subspaces.labels"),
    } == reached
    reached = fingerprints.imported_modules(measure, modules=[kinds.known()["training"].path])
    assert {
        "training.ensembles",
        "subspaces.constraints",
        "subspaces.projections",
        "curvature.top_eigenvectors",
    } <= reached
    judged = fingerprints.imported_modules(ROOT / "scripts/judge_claims.py")
    estimators = (fingerprints.PACKAGE / "claims/estimators").glob("[!_]*.py")
    assert {f"claims.estimators.{path.stem}" for path in estimators} < judged
    loss = ROOT / "scripts/goldilocks_zone/figures/fort_scherlis_2019/loss.py"
    drawn = fingerprints.imported_modules(ROOT / "scripts/draw_figure.py", modules=[str(loss)])
    assert {"figures.drawing", "figures.style", "figures.profiles"} <= drawn


def test_modules_that_a_script_loads_by_path_enter_its_fingerprint(package):
    script, module = package / "script.py", package / "module.py"
    module.write_text("from goldilocks_zone.room import a\n")
    alone, before = (fingerprints.code_fingerprint(script, LOCK, modules=more) for more in ([], [str(module)]))
    module.write_text("from goldilocks_zone.room import a\n\nprint(a.f(2))  # anew\n")
    changed = fingerprints.code_fingerprint(script, LOCK, modules=[str(module)])
    assert len({alone, before, changed}) == 3 and fingerprints.code_fingerprint(script, LOCK) == alone


def other_pythons():
    found = set()
    places = [*os.environ["PATH"].split(os.pathsep), *map(str, Path.home().glob(".pyenv/versions/*/bin"))]
    for version in ("3.11", "3.12", "3.13", "3.14"):
        for place in places:
            path = shutil.which(f"python{version}", path=place)
            if path and subprocess.run([path, "-c", ""], capture_output=True).returncode == 0:
                found.add((version, path))
                break
    return sorted(found)


@pytest.mark.parametrize("version, path", other_pythons())
def test_fingerprints_are_the_same_on_every_supported_python(version, path):
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, 'scripts')\n"
        "from goldilocks_zone.provenance import fingerprints as f\n"
        "script, lock = Path('scripts/measure_block.py'), Path('requirements.txt')\n"
        "print(f.code_fingerprint(script, lock, modules=['measurements.curvature_blocks']))"
    )
    done = subprocess.run([path, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = done.stdout.strip()
    script = ROOT / "scripts/measure_block.py"
    assert found == fingerprints.code_fingerprint(script, LOCK, modules=["measurements.curvature_blocks"]), sys.version


@pytest.mark.parametrize("old, new", [('KIND = "relu"', 'KIND = "tanh"'), ("return 1", "return 2")])
def test_of_a_users_file_docstrings_alone_are_left_out(tmp_path, old, new):
    """The package's own marks of what changes no number mean nothing there."""
    text = '"""Doc."""\nKIND = "relu"\n\n\n@changes_no_number\ndef f():\n    return 1\n'
    first, second, other = (
        fingerprints.tree_fingerprint(ast.parse(each))
        for each in (text, text.replace(old, new), text.replace("Doc", "D"))
    )
    assert first == other != second
    path, script = tmp_path / "figure.py", ROOT / "scripts/draw_figure.py"
    codes = []
    for each in (text, text.replace(old, new)):
        path.write_text(each)
        codes.append(fingerprints.code_fingerprint(script, ROOT / "requirements.txt", modules=[str(path)]))
    assert codes[0] != codes[1]
