import subprocess

import pytest
import yaml

from made_up.projects import ROOT, clean_environment


@pytest.fixture(scope="session")
def executor():
    """The folder with Snakemake's SLURM executor, as `make slurm` sets it up."""
    command = ["make", ".venv-slurm/installed"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=clean_environment())
    assert done.returncode == 0, done.stderr
    return ROOT / ".venv-slurm"


@pytest.fixture
def profile(tmp_path):
    """Folder with a copy of the shipped profile, without its efficiency report, which needs SLURM's accounting."""
    settings = yaml.safe_load((ROOT / "workflow/profiles/slurm/config.yaml").read_text())
    assert settings.pop("slurm-efficiency-report") is True
    del settings["slurm-efficiency-report-path"]
    folder = tmp_path / "profile"
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    return folder
