"""What the documentation prints is run."""

import re
from pathlib import Path

import pytest
import yaml

from goldilocks_zone.config import load

ROOT = Path(__file__).parents[3]


def code_blocks(file, language):
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / file).read_text(encoding="utf-8"), re.DOTALL)


def test_the_example_of_the_library_runs(capsys):
    (example,) = [block for block in code_blocks("README.md", "python") if "from goldilocks" in block]
    exec(compile(example, "README.md", "exec"), {})
    assert re.search(r"SpectrumSummary\(fraction_positive=0\.\d+, trace=-?\d", capsys.readouterr().out)


@pytest.mark.parametrize("example", code_blocks("config/README.md", "yaml"))
def test_examples_of_configurations_are_valid(example, tmp_path):
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(example, encoding="utf-8")
    config = load.load([overlay])
    assert config.run == yaml.safe_load(example)["run"]


def test_files_and_commands_that_the_readmes_name_exist():
    targets = set(re.findall(r"^([a-z-]+?)(?:-run)?:", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for file in ("README.md", "config/README.md", "results/README.md", "figures/README.md", "CONTRIBUTING.md"):
        text = (ROOT / file).read_text(encoding="utf-8")
        assert set(re.findall(r"`make ([a-z-]+)", text)) <= targets, file
        for path in re.findall(r"`((?:config|workflow|scripts|paper|tests|resources)/[\w/.]+)`", text):
            if path not in ("config/mine.yaml", "config/yours.yaml"):
                assert (ROOT / path).exists(), f"{path} in {file}"
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
