"""Blocks of all kinds of study on a GPU, against those of the CPU within rounding of single precision."""

import numpy as np
import pytest
import torch

from goldilocks_zone.config import kinds, records
from goldilocks_zone.data import datasets
from goldilocks_zone.jobs import locks
from goldilocks_zone.measurements import blocks
from goldilocks_zone.storage import netcdf

IMAGES = {"datasets": ["made"], "networks": ["fc-9x2-relu"], "draws": 2, "radii": [0.3, 1.0, 3.0], "validation": 10}
STUDIES = {
    "curvature": IMAGES | {"subspaces": ["plane-6-sparse"], "dimensions": [3, 6], "examples": [24]},
    # A network that is no sequence of layers.
    "curvature, general": IMAGES
    | {"networks": ["fc-9x2-relu-ln"], "subspaces": ["plane-6-dense"], "dimensions": [6], "examples": [24]},
    "training": IMAGES | {"subspaces": ["plane-6-dense"], "steps": 5, "batch": 8, "logged": [2, 5]},
    "boundary": {
        "datasets": ["gauss"],
        "networks": ["fc-8x2-relu"],
        "draws": 2,
        "initialisation": "uniform",
        "epochs": [2, 3],
        "grid": 40,
        "fine_grid": 60,
        "test": 300,
    },
    "jepa_curvature": IMAGES
    | {"networks": ["fc-9x2-relu-nobias"], "subspaces": ["plane-6-dense"], "examples": [24], "embedding": 4},
    "jepa_training": {
        "datasets": ["ring"],
        "networks": ["fc-12-8-relu"],
        "draws": 2,
        "embedding": 4,
        "steps": 4,
        "batch": 16,
        "test": 200,
        "dtype": "float64",
    },
    "jepa_planning": {
        "datasets": ["ring"],
        "networks": ["fc-16-relu"],
        "draws": 2,
        "embedding": 6,
        "upper_embedding": 4,
        "batch": 16,
        "steps": 4,
        "upper_steps": 3,
        "examples": 41,
        "starts": 5,
        "span": 8,
        "direct": True,
        "noise": 0.25,
        "reach": 0.6,
        "horizons": [16, 1, 8],
    },
}


def measured(folder, kind, device):
    """Measure the block of a small study of a `kind`, a key of STUDIES, on a `device`; files are below `folder`."""
    known, folder = kinds.known()[kind.split(",")[0]], folder / device
    folder.mkdir()
    rng = np.random.default_rng(0)
    images, labels = np.zeros((80, 1, 28, 28), np.uint8), np.arange(80) % 4
    images[:, :, 6:22, 6:22] = rng.integers(0, 256, (80, 1, 16, 16))
    made = datasets.as_dataset("made", (images[:60], labels[:60]), (images[60:], labels[60:]), 4, "test", "none")
    netcdf.write_dataset(made, folder / "made.nc")
    study = known.model.model_validate({"kind": known.name} | STUDIES[kind])
    (folder / "settings.yaml").write_text(records.dump(records.of_measurement(study, 1)))
    (folder / "code.txt").write_text("code")
    dataset, subspace = study.datasets[0], getattr(study, "subspaces", ["full-free"])[0]
    job = blocks.Job(
        str(folder / "made.nc") if dataset == "made" else "", str(folder / "settings.yaml"), str(folder / "code.txt"),
        None, "", dataset, study.networks[0], subspace, "draws-000-001", device=device,
        path_to_checkpoints=str(folder / "checkpoints"), checkpoint_seconds=1e9,
    )  # fmt: skip
    return known.load().measure_block(job)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("kind", STUDIES)
def test_blocks_on_cuda_are_those_of_the_cpu(tmp_path, monkeypatch, kind):
    # A process has one job, which keeps its GPU to the end.
    monkeypatch.setattr(locks, "claim_gpu", lambda *_: 0)
    expected, found = (measured(tmp_path, kind, device) for device in ("cpu", "cuda"))
    assert set(found) == set(expected)
    for name, values in expected.items():
        if values.dtype.kind == "f" and values.size:
            # Some variables are errors of rounding themselves.
            allowed = 1e-3 * float(np.abs(values).max()) + 1e-12
            np.testing.assert_allclose(found[name], values, rtol=5e-3, atol=allowed, err_msg=name)
