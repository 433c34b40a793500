"""The workflow on the run `tiny` and made-up images: reruns after each kind of change, and refusals."""

import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import xarray as xr
import yaml

from made_up.projects import BLOCK, RESULTS, ROOT, clean_environment, write_images

FIGURES = 4
LOSS = "scripts/goldilocks_zone/figures/fort_scherlis_2019/loss.py"


def without_metadata(project):
    shutil.rmtree(project.folder / ".snakemake")
    return project


def test_a_second_run_has_nothing_to_do(built):
    assert "Nothing to be done" in built.run()


def test_aggregates_are_labelled(built):
    with xr.open_dataset(built.folder / "results/tiny/aggregate/curvature.nc") as study:
        axes = ("dataset", "network", "subspace", "examples", "radius", "dimension", "draw")
        for name in ("fraction_positive", "trace_over_norm", "trace", "frobenius_norm", "spectral_norm"):
            assert study[name].dims == axes
            assert study[name].attrs["units"] and study[name].attrs["long_name"]
            assert not study[name].isnull().any()
        assert study["loss"].dims == tuple(axis for axis in axes if axis != "dimension")
        assert study["draw"].size == 2 and study["examples"].values.tolist() == [20, 50]
        assert {"commit", "code_fingerprint", "data_checksum", "settings", "device", "dtype"} <= set(study.attrs)


def test_blocks_hold_whole_spectra_and_their_provenance(built):
    with xr.open_dataset(built.folder / BLOCK) as block:
        spectra = block["eigenvalue"]
        for d in block["dimension"].values:
            values = spectra.sel(dimension=d).transpose("index", ...).values
            assert np.isfinite(values[:d]).all() and np.isnan(values[d:]).all()
            trace = block["trace"].sel(dimension=d).values
            assert np.allclose(np.nansum(values, axis=0), trace, rtol=1e-10, atol=1e-14)
        names = {
            "commit",
            "code_fingerprint",
            "settings_hash",
            "data_checksum",
            "seeds",
            "torch_version",
            "wall_seconds",
        }
        assert names <= set(block.attrs)


def test_every_figure_has_its_source_data(built):
    for name in ("fraction_positive", "trace_over_norm", "loss", "trace_and_norm"):
        for path in (f"figures/tiny/{name}.pdf", f"figures/tiny/{name}.png", f"results/tiny/figures/{name}.nc"):
            assert (built.folder / path).stat().st_size > 0


def test_a_deleted_figure_is_one_job(project):
    (project.folder / "figures/tiny/loss.pdf").unlink()
    assert project.dry_run() == {"figure": 1}


@pytest.mark.parametrize("metadata", [True, False])
def test_a_figures_style_is_one_job(project, metadata):
    if not metadata:
        without_metadata(project)
    project.edit("config/tiny.yaml", "model_kappa: null", "model_kappa: null, loss: {height_cm: 5}")
    assert project.dry_run() == {"figure": 1}


@pytest.mark.slow
def test_a_figures_own_module_is_one_job(project):
    project.edit(LOSS, '"linestyle": ":"', '"linestyle": "-."')
    assert project.dry_run() == {"figure": 1}


@pytest.mark.slow
def test_a_figure_of_ones_own_follows_its_file(project):
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "figures/README.md").read_text(), re.DOTALL)
    (project.folder / "my_figure.py").write_text(example)
    mine = "model_kappa: null, mine: {file: my_figure.py, studies: [curvature]}"
    project.edit("config/tiny.yaml", "model_kappa: null", mine)
    assert project.dry_run() == {"figure": 1}
    project.run("figures/tiny/mine.pdf")
    with xr.open_dataset(project.folder / "results/tiny/figures/mine.nc") as data:
        assert "loss" in data
    assert project.dry_run() == {}
    project.edit("my_figure.py", "settings.height_cm", "2 * settings.height_cm")
    assert project.dry_run() == {"figure": 1}


@pytest.mark.slow
def test_a_figure_is_added_by_its_module_alone(project):
    text = (project.folder / LOSS).read_text().replace('"id": "loss"', '"id": "loss_again"')
    (project.folder / LOSS).with_name("loss_again.py").write_text(text)
    assert project.dry_run() == {"figure": 1}
    project.run("figures/tiny/loss_again.pdf")
    found, same = (project.folder / f"results/tiny/figures/{name}.nc" for name in ("loss_again", "loss"))
    assert xr.load_dataset(found).identical(xr.load_dataset(same))


@pytest.mark.slow
@pytest.mark.parametrize(
    "file, old, new",
    [
        ("scripts/goldilocks_zone/curvature/hessian.py", "for scale in scales]", "for scale in scales]  # radii"),
        ("scripts/goldilocks_zone/curvature/hessian.py", '"""Exact Hessians', '"""All exact Hessians'),
        ("scripts/measure_block.py", '"""Measure one block of a study', '"""Measure a block of a study'),
        ("scripts/goldilocks_zone/figures/style.py", '"""Style of every figure', '"""The style of every figure'),
        ("workflow/rules/aggregate.smk", '"""One file with', '"""A file with'),
    ],
)
def test_comments_and_docstrings_rerun_nothing(project, file, old, new):
    project.edit(file, old, new)
    assert project.dry_run() == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    "file, old, new, jobs",
    [
        (
            "scripts/goldilocks_zone/curvature/tangents.py",
            "EXAMPLES_PER_CHUNK = 512",
            "EXAMPLES_PER_CHUNK = 256",
            {"curvature": 1, "aggregate": 1, "claims": 1, "figure": FIGURES},
        ),
        # intervals serves claims and figures, not the measurement.
        (
            "scripts/goldilocks_zone/statistics/estimates.py",
            "BATCH = 2000, 100",
            "BATCH = 3000, 100",
            {"claims": 1, "figure": FIGURES},
        ),
        (
            "scripts/goldilocks_zone/claims/estimators/curvature.py",
            "carried.sum()) < 3",
            "carried.sum()) < 4",
            {"claims": 1},  # the judge discovers estimators
        ),
        ("scripts/goldilocks_zone/figures/curves.py", "markersize=2.2", "markersize=3.2", {"figure": FIGURES}),
        ("scripts/goldilocks_zone/storage/netcdf.py", '"complevel": 1', '"complevel": 2', {}),
        ("config/claims/fort_scherlis_2019.yaml", "margin: 0.01", "margin: 0.02", {"claims": 1}),
    ],
)
def test_a_change_of_code_reruns_what_imports_it(project, file, old, new, jobs):
    project.edit(file, old, new)
    assert project.dry_run() == jobs


@pytest.mark.slow
def test_comments_and_changes_are_told_apart_without_snakemakes_memory_too(project):
    without_metadata(project)
    project.edit(
        "scripts/goldilocks_zone/curvature/hessian.py", "for scale in scales]", "for scale in scales]  # radii"
    )
    assert project.dry_run() == {}
    project.edit("scripts/goldilocks_zone/statistics/estimates.py", "BATCH = 2000, 100", "BATCH = 3000, 100")
    assert project.dry_run() == {"claims": 1, "figure": FIGURES}
    project.edit(
        "scripts/goldilocks_zone/curvature/tangents.py", "EXAMPLES_PER_CHUNK = 512", "EXAMPLES_PER_CHUNK = 256"
    )
    assert project.dry_run() == {"curvature": 1, "aggregate": 1, "claims": 1, "figure": FIGURES}


@pytest.mark.slow
@pytest.mark.parametrize("metadata", [True, False])
@pytest.mark.parametrize(
    "old, new, jobs",
    [
        ("draws: 2", "draws: 3", {"curvature": 1, "aggregate": 1, "claims": 1, "figure": FIGURES}),
        ("examples: [20, 50]", "examples: [20]", {"curvature": 1, "aggregate": 1, "claims": 1, "figure": FIGURES}),
        (
            "networks: [fc-10x2-relu]",
            "networks: [fc-10x2-relu, fc-9x2-relu]",
            {"curvature": 1, "aggregate": 1, "claims": 1, "figure": FIGURES},
        ),
        ("draws_per_job: all", "draws_per_job: all\n  threads: 2\n  memory_mib: 128", {}),
    ],
)
def test_a_change_of_settings_reruns_what_depends_on_it(project, old, new, jobs, metadata):
    if not metadata:
        without_metadata(project)
    project.edit("config/tiny.yaml", old, new)
    assert project.dry_run() == jobs


@pytest.mark.slow
def test_results_do_not_depend_on_how_work_is_split(project):
    """Four ways to split draws and radii into jobs, one of them with two threads."""
    study = project.folder / "results/tiny/aggregate/curvature.nc"
    expected = xr.load_dataset(study)
    splits = ["draws_per_job: 1", "draws_per_job: 1\n  radii_per_job: 2", "draws_per_job: all\n  threads: 2"]
    for split in splits:
        shutil.rmtree(project.folder / "results/tiny/curvature")
        text = (ROOT / "config/tiny.yaml").read_text()
        (project.folder / "config/tiny.yaml").write_text(text.replace("draws_per_job: all", split))
        project.run("results/tiny/aggregate/curvature.nc")
        found = xr.load_dataset(study)
        for name in expected.data_vars:
            # Counts and coordinates are equal; sums may be added in another order on two threads.
            assert np.allclose(found[name], expected[name], rtol=1e-9, atol=1e-14), (split, name)
        assert found.drop_vars(found.data_vars).equals(expected.drop_vars(expected.data_vars))


@pytest.mark.slow
def test_a_dataset_made_available_later_runs_only_its_own_blocks(project):
    project.edit(
        "config/tiny.yaml", "networks: [fc-10x2-relu]", "networks: [fc-10x2-relu]\n    datasets: [mnist, fashion_mnist]"
    )
    jobs = project.dry_run()
    assert jobs == {"dataset": 1, "curvature": 1, "aggregate": 1, "claims": 1, "figure": FIGURES}


@pytest.mark.slow
def test_a_stale_block_is_refused_by_name(project):
    with xr.load_dataset(project.folder / BLOCK) as block:
        block.attrs["code_fingerprint"] = "of another day"
        block.to_netcdf(project.folder / BLOCK)
    done = project.snakemake("results/tiny/aggregate/curvature.nc")
    assert done.returncode != 0
    assert f"{BLOCK} was made by other code than the present: delete it and run again" in done.stderr


def test_a_failing_job_names_its_log_and_leaves_no_output(project):
    project.edit(LOSS, "    data = curves", '    raise ValueError("no ink")\n    data = curves')
    done = project.snakemake(*RESULTS)
    assert done.returncode != 0
    assert "no ink (log: logs/tiny/figures/loss.log)" in done.stderr.splitlines()
    assert "Traceback" in (project.folder / "logs/tiny/figures/loss.log").read_text()
    assert not list((project.folder / "figures/tiny").glob(".*"))


@pytest.mark.parametrize(
    "old, new, part",
    [
        ("first: 0.1", "first: -0.1", "studies.curvature.radii.first: -0.1 is impossible; it must be greater than 0"),
        ("draws: 2", "drwas: 2", "studies.curvature.drwas: this key is unknown; did you mean draws?"),
        ("dimensions: [5, 10]", "dimensions: [5, 11]", "studies.curvature.dimensions: 11 is impossible"),
    ],
)
def test_a_mistake_in_the_configuration_stops_before_any_job(project, old, new, part):
    project.edit("config/tiny.yaml", old, new)
    done = project.snakemake(*RESULTS)
    assert done.returncode != 0
    assert part in done.stderr
    assert "Job stats" not in done.stderr + done.stdout


def with_a_missing_dataset(project):
    project.edit("config/tiny.yaml", "draws: 2", "draws: 2\n    datasets: [mnist, fashion_mnist]")
    # No mirror and no package: what a machine without a network sees.
    mirror = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
    project.edit("scripts/goldilocks_zone/data/official.py", mirror, "http://127.0.0.1:9/")
    project.edit("scripts/goldilocks_zone/data/official.py", '"apt-get", "download"', '"no-such-command", "download"')
    project.dry_run()
    write_images(project.folder / "results/data/mnist.nc")


@pytest.mark.slow
def test_nothing_is_computed_when_a_dataset_cannot_be_had(project):
    """Not even the blocks of an available dataset are computed."""
    with_a_missing_dataset(project)
    shutil.rmtree(project.folder / "results/tiny/curvature")
    done = project.snakemake(*RESULTS)
    assert done.returncode != 0
    start = "dataset fashion_mnist is unavailable"
    sentence = next(line for line in done.stderr.splitlines() if line.startswith(start))
    assert "cannot be reached" in sentence and "GOLDILOCKS_DATA" in sentence and "(log: logs/data/" in sentence
    assert not (project.folder / "results/tiny/curvature").exists()


@pytest.mark.slow
def test_a_dataset_that_cannot_be_had_is_left_out_where_that_is_asked_for(project):
    with_a_missing_dataset(project)
    project.edit("config/tiny.yaml", "run: tiny", "run: tiny\nmissing_datasets: leave_out")
    command = [sys.executable, "-m", "goldilocks_zone", "data", "config/tiny.yaml"]
    environment = clean_environment(PYTHONPATH="scripts")
    done = subprocess.run(command, cwd=project.folder, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "mnist: results/data/mnist.nc" in done.stdout.splitlines()
    record = yaml.safe_load((project.folder / "results/data/available.yaml").read_text())
    assert record["mnist"] == {"available": True} and not record["fashion_mnist"]["available"]
    done = project.snakemake("--dry-run", *RESULTS)
    assert f"left out: {record['fashion_mnist']['reason']}" in done.stderr
    assert done.returncode == 0 and "/fashion_mnist/" not in done.stdout


@pytest.mark.slow
def test_a_newer_dataset_does_not_hide_other_reasons(project):
    """Jobs that depend on pending data must still show their other reasons to rerun."""
    write_images(project.folder / "results/data/mnist.nc", seed=1)
    (project.folder / "results/tiny/claims.csv").unlink()
    assert project.dry_run() == {"curvature": 1, "aggregate": 1, "claims": 1, "figure": FIGURES}


def test_rules_and_configurations_pass_the_linter(project):
    done = project.snakemake("--lint")
    assert done.returncode == 0, done.stdout + done.stderr
