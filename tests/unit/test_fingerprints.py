import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from goldilocks import fingerprints

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements.txt"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A script that imports `a` directly and `b` through it, `store` and nothing else."""
    monkeypatch.setattr(fingerprints, "PACKAGE", tmp_path)
    (tmp_path / "script.py").write_text('"""Doc."""\nfrom goldilocks import a, store\nprint(a.f(1))\n')
    (tmp_path / "a.py").write_text("from goldilocks.b import g\n\n\ndef f(x):\n    return g(x) + 1\n")
    (tmp_path / "b.py").write_text('def g(x):\n    """Doc."""\n    return 2 * x\n')
    (tmp_path / "store.py").write_text("x = 1\n")
    (tmp_path / "unused.py").write_text("x = 1\n")
    return tmp_path


def test_imports_are_followed(package):
    assert fingerprints.imported_modules(package / "script.py") == {"a", "b"}


@pytest.mark.parametrize(
    "file, old, new, changes",
    [
        ("b.py", "2 * x", "2 * x  # a comment", False),
        ("b.py", "2 * x", "(2\n            * x)", False),
        ("b.py", "Doc.", "Another docstring.", False),
        ("script.py", "Doc.", "Another docstring.", False),
        ("b.py", "2 * x", "3 * x", True),
        ("b.py", "2 * x", "x * 2", True),
        ("a.py", "+ 1", "- 1", True),
        ("script.py", "f(1)", "f(2)", True),
        ("store.py", "1", "2", False),
        ("unused.py", "1", "2", False),
        ("a.py", "return", "'''not a docstring'''; return", False),
        ("b.py", "2 * x", "2.0 * x", True),
    ],
)
def test_what_changes_a_fingerprint(package, file, old, new, changes):
    before = fingerprints.code_fingerprint(package / "script.py", LOCK)
    path = package / file
    path.write_text(path.read_text().replace(old, new))
    assert (fingerprints.code_fingerprint(package / "script.py", LOCK) != before) == changes


def test_pinned_versions_enter(package, tmp_path):
    other = tmp_path / "lock.txt"
    other.write_text(LOCK.read_text().replace("scipy==", "scipy==9."))
    assert fingerprints.code_fingerprint(package / "script.py", other) != fingerprints.code_fingerprint(
        package / "script.py", LOCK
    )
    assert [line.split("==")[0] for line in fingerprints.pinned_versions(LOCK)] == ["numpy", "scipy", "torch"]


def test_relative_imports_are_refused(package):
    (package / "a.py").write_text("from .b import g\n")
    with pytest.raises(ValueError, match="never relatively"):
        fingerprints.imported_modules(package / "script.py")


def test_excluded_modules_compute_nothing():
    """The list is part of what results can be trusted by: a module on it may not do arithmetic on arrays."""
    names = {"catalogue", "devices", "downloads", "files", "fingerprints", "locks", "logs", "provenance", "records"}
    names |= {"signals", "store"}
    assert names == fingerprints.EXCLUDED
    for name in fingerprints.EXCLUDED:
        tree = ast.parse((ROOT / f"scripts/goldilocks/{name}.py").read_text())
        imported = {
            alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
        }
        imported |= {(node.module or "").split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not imported & {"torch", "numpy", "scipy", "matplotlib"}, name


def test_scripts_reach_the_modules_that_make_their_numbers():
    reached = fingerprints.imported_modules(ROOT / "scripts/measure_curvature.py")
    assert {
        "curvature",
        *("automatic", "chains", "convolutions", "directions", "full_space", "homogeneous"),
        *("arguments", "kernels", "kinks", "losses", "modes", "sums", "symmetry", "tangents"),
        "subspaces",
        "networks",
        "randomness",
        "datasets",
        "labels",
        "spectrum",
        "studies",
        "own_code",
        "jobs",
        *("confidence", "eigenvectors", "lanczos"),
    } == reached
    reached = fingerprints.imported_modules(ROOT / "scripts/measure_training.py")
    assert {"training", "subsets", "projections", "curvature", "jobs", "eigenvectors"} <= reached
    assert "plotting" in fingerprints.imported_modules(ROOT / "scripts/plot_loss.py")


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
        "from goldilocks import fingerprints as f\n"
        "print(f.code_fingerprint(Path('scripts/measure_curvature.py'), Path('requirements.txt')))"
    )
    done = subprocess.run([path, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = done.stdout.strip()
    assert found == fingerprints.code_fingerprint(ROOT / "scripts/measure_curvature.py", LOCK), sys.version
