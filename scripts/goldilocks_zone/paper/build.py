"""Build the paper as PDF, after checking that its numbers and figures come from results."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from goldilocks_zone.paper import check
from goldilocks_zone.storage import files

LATEXMK = ("-norc", "-pdf", "-interaction=nonstopmode", "-halt-on-error", "-file-line-error")


def build_paper(
    paths_to_sources: list[str], path_to_generated: str, paths_to_figures: list[str], path_to_output: str
) -> None:
    """Check the paper's sources against its results, see `check.mistakes`, and compile them to PDF.

    All sources are in or below the folder of main.tex. `path_to_generated` is the file generated.tex with macros of the
    results. Raises ValueError if the check finds mistakes, FileNotFoundError without a LaTeX tool, and RuntimeError if
    LaTeX fails.
    """
    texts = [Path(path) for path in paths_to_sources if path.endswith(".tex")]
    place = next(path.parent for path in texts if path.name == "main.tex")
    sources = {path.relative_to(place).as_posix(): path.read_text(encoding="utf-8") for path in texts}
    if mistakes := check.mistakes(sources, Path(path_to_generated).read_text(encoding="utf-8")):
        raise ValueError("the paper's text does not fit its results: " + "; ".join(mistakes))
    if not (tool := next(filter(shutil.which, ("latexmk", "tectonic")), None)):
        raise FileNotFoundError(
            "neither latexmk nor tectonic is installed: run `make tex`, or install tectonic or a TeX that has latexmk"
        )

    # One folder holds everything that LaTeX needs, so that the paper can be compiled by hand or elsewhere. It is
    # emptied first, because latexmk refuses to compile unchanged files again after a failure.
    folder = Path(path_to_output).parent / "latex"
    shutil.rmtree(folder, ignore_errors=True)
    copies = {folder / Path(path).relative_to(place): path for path in paths_to_sources}
    copies |= {folder / Path(path).name: path for path in (path_to_generated, *paths_to_figures)}
    for copy, path in copies.items():
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    done = run_tex(tool, folder)
    if done.returncode:
        raise RuntimeError(f"{tool} failed: {first_error(done)}; the whole log is in {folder}/main.log")
    with files.whole_file(path_to_output) as temporary:
        shutil.copyfile(folder / "main.pdf", temporary)


def run_tex(tool: str, folder: str | Path) -> subprocess.CompletedProcess:
    """Compile main.tex in `folder` with only the files there and the system's TeX, without the user's TeX settings.

    `tool` is latexmk or tectonic. Returns the finished process, also if it failed.
    """
    own = re.compile(r"(TEX|BIB|BST)\w*INPUTS|TEXMF(HOME|CONFIG|VAR)|XDG_CONFIG_HOME")
    environment = {name: value for name, value in os.environ.items() if not own.fullmatch(name)}
    if tool == "latexmk":
        # latexmk would read ~/texmf and ~/.texlive…; Tectonic, in contrast, needs the home folder for its downloads.
        environment["HOME"] = str(Path(folder).absolute())
    command = [tool, *(LATEXMK if tool == "latexmk" else ()), "main.tex"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", env=environment)


def first_error(done: subprocess.CompletedProcess) -> str:
    """First line of TeX's output that reports an error or, if there is none, the last line.

    `done` is the result of `run_tex`. The line has the file and the line number if TeX gives them.
    """
    output = done.stdout + done.stderr
    match = re.search(r"^(?:\S+:\d+: .*|! .*|error: .*)$", output, re.MULTILINE)
    return match[0] if match else (output.strip().splitlines() or ["no message"])[-1]
