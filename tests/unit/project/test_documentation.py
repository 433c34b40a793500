"""Execution of the commands and code in the documentation."""

import importlib.util
import pkgutil
import re
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from goldilocks_zone.claims import definitions, evaluate
from goldilocks_zone.claims import findings as words
from goldilocks_zone.cli import findings
from goldilocks_zone.config import kinds, load
from goldilocks_zone.measurements import curvature_blocks

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "scripts/goldilocks_zone"


def code_blocks(file, language):
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / file).read_text(encoding="utf-8"), re.DOTALL)


def test_the_examples_of_the_library_run(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    examples, names = [block for block in code_blocks("README.md", "python") if "from goldilocks" in block], {}
    assert len(examples) == 2
    for example in examples:
        exec(compile(example, "README.md", "exec"), names)
    shown = capsys.readouterr().out
    assert re.search(r"SpectrumSummary\(fraction_positive=0\.\d+, trace=-?\d", shown)
    assert "The weights lie" in shown and (tmp_path / "report.png").exists()


def example_of(text):
    (found,) = [block for block in code_blocks("docs/architecture.md", "python") if text in block]
    return found


def test_the_example_of_a_variable_is_measured(monkeypatch):
    monkeypatch.setattr(curvature_blocks, "OBSERVABLES", observables := curvature_blocks.Observables())
    exec(compile(example_of("OBSERVABLES"), "architecture.md", "exec"), dict(vars(curvature_blocks)))
    study, measured = SimpleNamespace(dimensions=[1, 2]), SimpleNamespace(hessian=np.diag([2.0, 3.0]))
    (added,) = observables
    assert [variable.name for variable in added.variables] == ["determinant"]
    seen = SimpleNamespace(measured=measured, sweep=SimpleNamespace(study=study))
    assert added.measure(seen)["determinant"] == pytest.approx([2, 6])


def test_the_example_of_a_key_is_one_of_a_study(tmp_path):
    header = "from goldilocks_zone.measurements.curvature import *\n\n\nclass Extended(CurvatureStudy):\n"
    path = tmp_path / "extended.py"
    path.write_text(header + example_of("Varied["))
    specification = importlib.util.spec_from_file_location("extended", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    assert module.Extended.model_fields["damping"].description.startswith("Multiple of the identity")
    assert "damping" in module.Extended.varied().model_fields


def test_the_way_of_a_number_names_rules_and_functions_that_exist():
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    way = text.split("## From the configuration to the paper")[1].split("\n## ")[0]
    rows = [row.split(" | ") for row in re.findall(r"^\| (.*) \|$", way, re.MULTILINE)[1:]]
    sources = "".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    rules = {*re.findall(r"^rule (\w+):", sources, re.MULTILINE), *kinds.known()}
    # Of an archive's blocks, of which the page does not speak.
    assert {name for _, rule, *_ in rows for name in re.findall(r"`(\w+)`", rule)} == rules - {"unpack"}
    functions = [name for _, _, function, _ in rows for name in re.findall(r"`([a-z_]+\.[\w.]+)`", function)]
    assert functions and all(callable(pkgutil.resolve_name(f"goldilocks_zone.{name}")) for name in functions)


@pytest.mark.parametrize("example", code_blocks("config/README.md", "yaml"))
def test_examples_of_configurations_are_valid(example, tmp_path):
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(example, encoding="utf-8")
    config = load.load([overlay])
    assert config.run == yaml.safe_load(example)["run"]


def test_files_and_commands_that_the_readmes_name_exist():
    targets = set(re.findall(r"^([a-z-]+?)(?:-run)?:", (ROOT / "Makefile").read_text(), re.MULTILINE))
    folders = ("", "config/", "config/claims/", "results/", "figures/")
    for file in ("CONTRIBUTING.md", "docs/architecture.md", *(f"{folder}README.md" for folder in folders)):
        text = (ROOT / file).read_text(encoding="utf-8")
        assert set(re.findall(r"`make ([a-z-]+)", text)) <= targets, file
        for path in re.findall(r"`((?:config|docs|envs|workflow|scripts|paper|tests|resources)/[\w/.]+)`", text):
            if path not in ("config/mine.yaml", "config/yours.yaml", "paper/paper.pdf"):
                # Modules may be named by their places below the package.
                assert any((folder / path).exists() for folder in (ROOT, PACKAGE)), f"{path} in {file}"
        for image in re.findall(r"!\[.*?\]\((.*?)\)", text):
            assert (ROOT / image).exists()


def test_what_the_workflow_catalogue_is_told_holds():
    usage = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert (ROOT / "workflow/Snakefile").exists() and (ROOT / "config/README.md").exists()
    rules = "".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    # Conda alone: each rule that runs something names an environment, and none a container.
    environments = re.findall(r"conda:\n +\"../../(.*)\"", rules)
    assert len(environments) == len(re.findall(r"^ *rule\b", rules, re.MULTILINE)) and "container" not in rules
    assert all((ROOT / path).exists() for path in environments)
    assert usage["software-stack-deployment"] == {"conda": True, "apptainer": False, "apptainer+conda": False}
    assert usage["report"] and "report(" in rules
    assert usage["mandatory-flags"]["flags"] in (ROOT / "README.md").read_text()


@pytest.mark.skipif(not (ROOT / findings.ANSWERS).exists(), reason="no findings of a full run are committed")
def test_the_findings_are_those_of_their_tables():
    rows, compared = (findings.table(ROOT / findings.DOCS / name) for name in findings.TABLES)
    origin = yaml.safe_load((ROOT / findings.ORIGIN).read_text(encoding="utf-8"))
    assert {row["run"] for row in rows} == {origin["run"]} == {findings.FULL}
    answers = words.read(ROOT / findings.WORDS, rows)
    assert (ROOT / findings.ANSWERS).read_text(encoding="utf-8") == findings.document(answers, rows, compared, origin)
    readme = (ROOT / findings.README).read_text(encoding="utf-8")
    assert readme == findings.with_findings(readme, answers)
    assert all((ROOT / findings.FIGURES / f"{name}.png").exists() for name in findings.figures(answers))
    if origin["claims"] != (now := evaluate.claims_hash(definitions.load(ROOT / "config/claims"))):
        warnings.warn(f"docs/claims.csv is of the claims {origin['claims']}, which are {now} now: run make full and "
                      f"{findings.COMMAND}", stacklevel=1)  # fmt: skip
