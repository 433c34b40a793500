"""Consistency of lock file, conda environments, rules and package."""

import ast
import functools
import itertools
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import needs
from goldilocks_zone.config import kinds
from goldilocks_zone.jobs import lifecycle
from goldilocks_zone.provenance import fingerprints
from made_up.projects import clean_environment

ROOT = Path(__file__).parents[3]
LOCK = dict(
    line.split(" ;")[0].strip().split("==")
    for line in (ROOT / "requirements.txt").read_text().splitlines()
    if line and not line.startswith("#")
)
DIRECT = dict(
    line.split("==")
    for line in (ROOT / "requirements.in").read_text().splitlines()
    if line and not line.startswith("#")
)


MODULES = sorted((ROOT / "scripts/goldilocks_zone").rglob("*.py"))


def name_of(path):
    return ".".join(path.relative_to(ROOT / "scripts/goldilocks_zone").with_suffix("").parts)


def pip_section(name):
    environment = yaml.safe_load((ROOT / f"envs/{name}.yaml").read_text())
    return [entry for part in environment["dependencies"] if isinstance(part, dict) for entry in part["pip"]]


def test_the_lock_holds_what_is_asked_for():
    lowered = {name.lower(): version for name, version in LOCK.items()}
    assert {name: lowered[name.lower()] for name in DIRECT} == DIRECT


@pytest.mark.parametrize("name", ["compute", "plot", "latex"])
def test_conda_environments_hold_the_versions_of_the_lock(name):
    environment = yaml.safe_load((ROOT / f"envs/{name}.yaml").read_text())
    python = next(entry for entry in environment["dependencies"] if str(entry).startswith("python="))
    assert python == "python=3.11"
    pinned = pip_section(name)
    for entry in pinned:
        package, version = entry.split("==")
        assert DIRECT[package] == version
    assert pinned or name == "latex"


@pytest.mark.parametrize("name", ["Dockerfile", "apptainer.def"])
def test_containers_hold_the_lock_and_the_tex_of_the_makefile(name):
    recipe = (ROOT / "envs" / name).read_text()
    python = re.search(r"python:(\d+\.\d+)-slim-bookworm", recipe)[1]
    assert f"python={python}" in (ROOT / "envs/compute.yaml").read_text()
    assert "pip install --no-cache-dir -r /opt/goldilocks/requirements.txt" in recipe
    makefile = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    packages = re.search(r"TEX_PACKAGES := (.*)", makefile)[1].split()
    installed = re.search(r"--no-install-recommends (.*)", recipe.replace("\\\n", " "))[1].split("&&")[0].split()
    assert set(packages) <= set(installed)


def test_every_environment_that_rules_name_is_pinned_by_make_pins():
    named = {environment[1] for _, environment, _ in rules_with_scripts()}
    pinned = re.search(r"snakedeploy pin-conda-envs (.*)", (ROOT / "Makefile").read_text())[1]
    assert {f"envs/{name}.yaml" for name in named} == set(pinned.split())


def test_what_a_review_needs_is_part_of_the_lock():
    lines = [line for line in (ROOT / "envs/review.txt").read_text().splitlines() if not line.startswith("#")]
    assert set(lines) <= set((ROOT / "requirements.txt").read_text().splitlines())
    names = {line.partition("==")[0] for line in lines}
    assert not {"torch", "torchvision", "pytest"} & names and {"snakemake", "matplotlib", "netCDF4"} <= names
    tables = ("judge_claims", "compare_published")
    scripts = ("aggregate_study", *tables, "write_numbers", "build_paper", "publish_run", "unpack_results")
    for script in scripts:
        needed = {PACKAGE_OF.get(name, name) for name in imports_of(ROOT / f"scripts/{script}.py")}
        assert needed - {"goldilocks_zone"} <= names, script


def test_the_executor_for_slurm_is_pinned():
    pinned = [line for line in (ROOT / "envs/slurm.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z-]+==[\d.]+", line) for line in pinned) and len(pinned) == 2


@functools.cache
def names_imported(path):
    """Pairs (name, path) of the modules that a file imports and of the objects that it imports from them.

    The path is that of a module of this name in scripts/, which exists only for modules of ours.
    """
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [f"{node.module}.{alias.name}" for alias in node.names] + [node.module]
    return [(name, ROOT / "scripts" / (name.replace(".", "/") + ".py")) for name in dict.fromkeys(found)]


@functools.cache
def is_ours(module):
    return module.exists()


def imports_of(path):
    """Top-level packages that a script imports, directly or through our own modules."""
    found, seen, waiting = set(), set(), [path]
    while waiting:
        for name, module in names_imported(waiting.pop()):
            if is_ours(module) and module not in seen:
                seen.add(module)
                waiting.append(module)
            elif not is_ours(module) and not name.startswith("goldilocks_zone"):
                found.add(name.split(".")[0])
    return found - set(sys.stdlib_module_names) - {path.stem for path in (ROOT / "scripts").glob("*.py")}


PACKAGE_OF = {"PIL": "Pillow", "jinja2": "Jinja2", "yaml": "PyYAML", "netCDF4": "netCDF4", "pydantic_core": "pydantic"}


def rules_with_scripts():
    for file in (ROOT / "workflow/rules").glob("*.smk"):
        for rule in re.split(r"^ *rule\b ?", file.read_text(), flags=re.MULTILINE)[1:]:
            environment = re.search(r"envs/(\w+)\.yaml", rule)
            script = re.search(r"scripts/([\w.{}]+)\.py", rule)
            yield rule.split(":")[0], environment, script


@pytest.mark.parametrize("rule, environment, script", list(rules_with_scripts()))
def test_every_rule_names_an_environment_that_has_what_its_script_imports(rule, environment, script):
    assert environment, rule
    contents = yaml.safe_load((ROOT / f"envs/{environment[1]}.yaml").read_text())
    pinned = {
        entry.split("==")[0] for part in contents["dependencies"] if isinstance(part, dict) for entry in part["pip"]
    }
    if script:
        paths = list((ROOT / "scripts").glob(re.sub(r"\{.*?\}", "*", script[1]) + ".py"))
        if script[1] == "measure_block":
            # It loads modules by name.
            names = [kinds.CUTS, *(kind.path for kind in kinds.known().values())]
            paths += map(fingerprints.module_path, names)
        for path in paths:
            needed = {PACKAGE_OF.get(name, name) for name in imports_of(path)}
            assert needed <= pinned, f"{path.name} in {environment[1]}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_everything_public_has_a_docstring(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef):
            for part in node.body:
                if isinstance(part, ast.FunctionDef | ast.ClassDef) and not part.name.startswith("_"):
                    assert ast.get_docstring(part) or getattr(node, "name", "_").startswith("_"), part.name


def test_the_package_declares_what_its_modules_import():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    declared = {requirement.split(">=")[0] for requirement in requirements}
    imported = {PACKAGE_OF.get(name, name) for path in MODULES for name in imports_of(path)} - {"goldilocks_zone"}
    assert imported <= declared


@pytest.mark.slow
def test_the_wheel_runs_the_lines_of_the_readme(tmp_path):
    """The wheel is built from a copy, installed without dependencies into an empty folder, and run with our torch."""
    copy = shutil.copytree(ROOT / "scripts", tmp_path / "checkout/scripts").parent
    for name in ("pyproject.toml", "README.md"):
        shutil.copy2(ROOT / name, copy)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, copy]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("goldilocks_zone-*.whl")
    installed = tmp_path / "installed"
    subprocess.run([*pip, "install", "--no-deps", "--target", installed, wheel], check=True, capture_output=True)
    (package,) = (path.name for path in installed.iterdir() if path.suffix != ".dist-info")
    assert package == "goldilocks_zone"
    assert (installed / "goldilocks_zone/figures/goldilocks.mplstyle").exists()

    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    example = "\n".join(block for block in blocks if "goldilocks_zone" in block)
    code = f"{example}\nimport goldilocks_zone; print(goldilocks_zone.__file__)"
    environment = os.environ | {"PYTHONPATH": str(installed)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.strip().endswith(str(installed / "goldilocks_zone/__init__.py")), done.stderr
    assert done.stdout.count("trace") >= 1


def test_the_workflow_loads_nothing_heavy():
    code = (
        "import sys; sys.path.insert(0, 'scripts')\n"
        "from goldilocks_zone.cli import costs, text_tables\n"
        "from goldilocks_zone.config import kinds, load, records as settings, studies\n"
        "from goldilocks_zone.data import catalogue\n"
        "from goldilocks_zone.jobs import failures, lifecycle, locks, log\n"
        "from goldilocks_zone.models import user_code\n"
        "from goldilocks_zone.provenance import archive, fingerprints, records\n"
        "from goldilocks_zone.storage import files\n"
        "kinds.known()\n"
        "print([name for name in ('torch', 'numpy', 'xarray', 'scipy', 'matplotlib', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


MISREAD = ["a b", "a'b", 'a"b', "a&b", "a$b", "a(b)", "a;b", "a{b}", "a\\b", "a`b", "a[b]", "a*b", "a?b", "a|b", "a<b"]


@pytest.mark.parametrize("name", [*MISREAD, "ä=+,.@-_~#%1"])
def test_a_path_that_shells_misread_is_refused_before_anything_is_set_up(name, tmp_path):
    (tmp_path / name).mkdir()
    for file in ("Makefile", "requirements.txt"):
        shutil.copy2(ROOT / file, tmp_path / name)
    command = ["make", "paper", "PYTHON=false"]
    done = subprocess.run(command, cwd=tmp_path / name, capture_output=True, text=True, env=clean_environment())
    said = done.stderr.strip().splitlines()[-1]
    if name in MISREAD:
        assert f"*** {tmp_path / name} has a character in its path that shells or Python read in their own way" in said
        with pytest.raises(ValueError, match="in its path, which shells read in their own way: move it"):
            lifecycle.refuse_path(tmp_path / name)
    else:
        assert "false is missing or older than 3.11" in said
        lifecycle.refuse_path(tmp_path / name)


def test_commands_of_make_know_nothing_of_a_users_own_settings():
    theirs = {"HOME": "/proc", "SNAKEMAKE_PROFILE": "/home/me/slurm", "MPLBACKEND": "module://of_a_notebook"}
    environment = {name: value for name, value in clean_environment(**theirs).items() if name != "XDG_CACHE_HOME"}
    command = ["make", "--eval", "show: ; @env", "show"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, check=True)
    lines = done.stdout.splitlines()
    cache = f"XDG_CACHE_HOME={ROOT}/.snakemake/cache"  # Nothing can be kept in /proc.
    assert {"PYTHONNOUSERSITE=1", "MPLBACKEND=Agg", cache} <= set(lines)
    assert not [line for line in lines if line.startswith("SNAKEMAKE_PROFILE")]


def test_jobs_of_a_python_in_such_a_path_are_refused_too(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/a home/bin/python")
    with pytest.raises(ValueError, match="/a home/bin/python has ' ' in its path"):
        lifecycle.refuse_path(ROOT)


def test_what_a_test_needs_and_has_not_got_fails_where_nothing_may_be_left_out(monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no browser"):
        needs.missing("no browser")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no browser"):
        needs.missing("no browser")
    assert "export CI=" in (ROOT / ".ci/run").read_text()


def test_profiles_leave_out_the_trigger_code_and_snakemakes_locks():
    for profile in (ROOT / "workflow/profiles").glob("*/config.yaml"):
        settings = yaml.safe_load(profile.read_text())
        assert settings["rerun-triggers"] == ["mtime", "params", "input", "software-env"]
        assert settings["nolock"] is True


def test_the_package_is_importable_under_its_declared_names():
    metadata = (ROOT / "pyproject.toml").read_text()
    version = re.search(r'^version = "(.+)"', metadata, re.MULTILINE)[1]
    assert f"version: {version}" in (ROOT / "CITATION.cff").read_text()
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()


def test_hooks_run_the_tools_of_make_lint():
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    tools = [re.search(r"\.venv/bin/(\S+(?: check| format)?)", hook["entry"])[1] for hook in local["hooks"]]
    assert local["repo"] == "local" and tools == re.findall(r"\$\(BIN\)/(\S+(?: check| format)?)", recipe)


def test_actions_call_targets_of_the_makefile():
    targets = re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    called = set()
    for path in (ROOT / ".github/workflows").glob("*.yml"):
        for job in yaml.safe_load(path.read_text())["jobs"].values():
            commands = [step["run"] for step in job["steps"] if "run" in step]
            wanted = job.get("strategy", {}).get("matrix", {}).get("target", [])
            commands = [c.replace("${{ matrix.target }}", each) for c in commands for each in wanted or [""]]
            called |= {name for c in commands for name in re.findall(r"\bmake (\S+)", c)}
    assert called == {"check", "test", "test-weekly", "paper"}
    assert all(f"{name}-run" in targets for name in called)
