"""Copies of the checkout with made-up images, in which tests of the workflow run."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import xarray as xr

from goldilocks_zone.data import datasets
from goldilocks_zone.provenance import fingerprints, records
from goldilocks_zone.storage import netcdf

ROOT = Path(__file__).parents[2]
RESULTS = ["results/tiny/claims.csv", "figures"]
# Jobs that only collect, and records, which are no work.
NOT_JOBS = ("total", "all", "figures", "record")
STUDY = "results/tiny/aggregate/curvature.nc"
# In a mount namespace of its own.
CAN_MOUNT = os.geteuid() == 0 and subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0
READ_ONLY = "mount --bind {folder} {folder}; mount -o remount,ro,bind {folder}"
BLOCK = "results/tiny/curvature/curvature/mnist/fc-10x2-relu/plane-10-sparse/draws-000-001.nc"


class Project:
    """A checkout in `folder`; `create` makes one, `copy` makes one from another and keeps the ages of its files."""

    def __init__(self, folder):
        self.folder = folder

    @classmethod
    def create(cls, folder):
        for name in ("config", "envs", "paper", "resources", "scripts", "workflow"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("requirements.txt", "Makefile", "CITATION.cff"):
            shutil.copy2(ROOT / name, folder)
        (folder / ".venv").symlink_to(ROOT / ".venv")
        write_dataset(folder, folder)
        return cls(folder)

    def copy(self, folder):
        shutil.copytree(self.folder, folder, symlinks=True)
        return Project(folder)

    def command(self, *arguments, config="config/tiny.yaml"):
        configs = [config] if isinstance(config, str) else config
        return [sys.executable, "-m", "snakemake", "--cores", "2", *arguments, "--configfile", *configs]

    def snakemake(self, *arguments, config="config/tiny.yaml"):
        command = self.command(*arguments, config=config)
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, env=clean_environment())

    def run(self, *arguments):
        done = self.snakemake(*(arguments or RESULTS))
        assert done.returncode == 0, done.stderr
        return done.stderr + done.stdout

    def make(self, *arguments):
        command = ["make", *arguments]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, env=clean_environment())

    def dry_run(self, *arguments, config="config/tiny.yaml"):
        """Number of jobs that would run, by rule; records and rules that only collect files are left out."""
        done = self.snakemake(*(arguments or RESULTS), "--dry-run", config=config)
        assert done.returncode == 0, done.stderr
        text = done.stdout + done.stderr
        if "Nothing to be done" in text:
            return {}
        table = re.search(r"Job stats:\n.*?\n-[- ]+\n(.*?)\n\n", text, re.DOTALL)[1]
        jobs = {line.split()[0]: int(line.split()[1]) for line in table.splitlines()}
        return {rule: count for rule, count in jobs.items() if rule not in NOT_JOBS}

    def edit(self, file, old, new):
        path = self.folder / file
        text = path.read_text()
        assert old in text, f"{old!r} is not in {file}"
        path.write_text(text.replace(old, new))


def clean_environment(**variables):
    """Environment without the variables that an outer `make` sets for its own recipes, and with `variables`."""
    ours = ("MAKEFLAGS", "MAKELEVEL", "GOLDILOCKS_FAILURE")
    return {name: value for name, value in os.environ.items() if name not in ours} | variables


def write_dataset(folder, checkout):
    """Write made-up images as if the code of `checkout` had fetched them into the results below `folder`."""
    # The code's record first: a dataset that is older would be fetched again.
    code = fingerprints.record(checkout / "scripts/fetch_dataset.py")
    records.write(folder / "results/data/fingerprints/dataset.txt", code)
    write_images(folder / "results/data/mnist.nc")


def write_images(path, seed=0):
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (300, 1, 28, 28), dtype=np.uint8)
    variables = {
        "images": (("example", "channel", "height", "width"), images),
        "labels": ("example", np.arange(300, dtype=np.uint8) % 10),
        "split": ("example", np.repeat(np.array([0, 1], np.int8), [200, 100])),
    }
    checksum = datasets.checksum(*(array for _, array in variables.values()))
    attributes = {"checksum": checksum, "classes": 10, "source": "a test", "licence": "none"}
    content = xr.Dataset(variables, attrs=attributes)
    netcdf.write_dataset(content, path)
    netcdf.write_card(content, path.parent / f"cards/{path.stem}.yaml")
