"""`make clean`, which needs nothing but Python."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def clean(folder, *run):
    # -S: without installed packages, for `make clean` works before there are any.
    command = [sys.executable, "-S", "-m", "goldilocks_zone", "clean", *run]
    environment = {"PYTHONPATH": str(ROOT / "scripts")}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, env=environment)
    return done.stdout.strip()


def test_what_is_cleaned_behind_links_goes_and_the_links_stay(tmp_path):
    scratch = tmp_path / "scratch"
    for name in ("results/data", "results/quick", "figures/quick", "elsewhere", "snakemake/log"):
        (scratch / name).mkdir(parents=True)
        (scratch / name / "file").touch()
    links = {
        "results": "results",
        "figures": "figures",
        ".snakemake": "snakemake",
        "scratch/results/other": "elsewhere",
    }
    for link, target in links.items():
        (tmp_path / link).symlink_to(scratch / target)
    assert clean(tmp_path, "other") == "removed results/other; the datasets are kept"
    assert (scratch / "results/quick/file").exists() and not (scratch / "elsewhere/file").exists()
    assert "results/quick" in clean(tmp_path)
    assert all((tmp_path / link).is_symlink() for link in links)
    assert [path for path in scratch.rglob("*") if path.is_file()] == [scratch / "results/data/file"]
    assert not (scratch / "results/quick").exists() and clean(tmp_path) == "there was nothing to remove"
