"""Runs with a home folder full of user settings, without a writable home folder, and in a path that shells misread."""

import subprocess

import pytest

from made_up.projects import CAN_MOUNT, READ_ONLY, clean_environment

pytestmark = pytest.mark.slow
TRAPS = {
    ".config/matplotlib/matplotlibrc": "axes.grid: True\nlines.linewidth: 9\nsavefig.facecolor: pink\n",
    ".latexmkrc": "$out_dir = 'elsewhere';\n",
    "texmf/tex/latex/local/booktabs.sty": "\\errmessage{from the home folder}\n",
    "inputs/natbib.sty": "\\errmessage{from TEXINPUTS}\n",
}
FIGURE, PAPER = "figures/tiny/loss.png", "results/tiny/paper.pdf"


def test_nothing_of_a_home_folder_enters_figures_or_paper(project, built, tmp_path):
    home = tmp_path / "home"
    for name, content in TRAPS.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(content)
    (project.folder / FIGURE).unlink()
    environment = clean_environment(
        HOME=str(home), TEXINPUTS=f"{home}/inputs:", MPLBACKEND="module://a_notebook_that_is_not_installed"
    )
    done = subprocess.run(
        project.command(FIGURE, PAPER), cwd=project.folder, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert (project.folder / FIGURE).read_bytes() == (built.folder / FIGURE).read_bytes()


@pytest.mark.skipif(not CAN_MOUNT, reason="needs root, to mount a read-only folder")
def test_a_home_that_cannot_be_written_is_not_needed(project, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    script = f"set -e; {READ_ONLY.format(folder=home)}; make figure NAME=loss CONFIG=config/tiny.yaml"
    done = subprocess.run(
        ["unshare", "-m", "bash", "-c", script],
        cwd=project.folder,
        capture_output=True,
        text=True,
        env=clean_environment(HOME=str(home)),
    )
    assert done.returncode == 0 and "all jobs are done" in done.stderr, done.stderr
    assert not list(home.iterdir())


def test_a_path_that_shells_misread_is_refused_before_anything_is_done(built, tmp_path):
    project = built.copy(tmp_path / "with a space")
    done = project.snakemake()
    assert done.returncode != 0 and "Traceback" not in done.stderr and "Job stats" not in done.stderr
    (sentence,) = [line for line in done.stderr.splitlines() if "in their own way" in line]
    assert sentence.startswith(f"{project.folder} has ' ' in its path") and sentence.endswith("and run again")
