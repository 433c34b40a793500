"""The paper as PDF, after a check that its numbers and figures come from results."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from goldilocks import files, latex
from goldilocks.logs import job_log

MAIN = Path("paper/main.tex")


def build_paper(
    paths_to_sources: list[str], path_to_generated: str, paths_to_figures: list[str], path_to_output: str
) -> None:
    sources = {
        Path(path).name: Path(path).read_text(encoding="utf-8") for path in paths_to_sources if path.endswith("tex")
    }
    mistakes = latex.mistakes(sources, Path(path_to_generated).read_text(encoding="utf-8"))
    if mistakes:
        raise ValueError("the paper's text does not fit its results: " + "; ".join(mistakes))
    if shutil.which("latexmk") is None:
        raise FileNotFoundError("latexmk is missing: run `make tex`, or install a TeX distribution that has it")
    build = Path(path_to_output).parent / "latex"
    build.mkdir(parents=True, exist_ok=True)
    places = [MAIN.parent, Path(path_to_generated).parent, *{Path(path).parent for path in paths_to_figures}]
    search = os.pathsep.join(f"{place.resolve()}//" for place in places) + os.pathsep
    environment = {**os.environ, "TEXINPUTS": search, "BIBINPUTS": search, "SOURCE_DATE_EPOCH": "0"}
    command = ["latexmk", "-pdf", "-interaction=nonstopmode", "-halt-on-error", "-file-line-error", f"-outdir={build}"]
    done = subprocess.run([*command, str(MAIN)], env=environment, capture_output=True, text=True, errors="replace")
    if done.returncode:
        (build / "main.pdf").unlink(missing_ok=True)
        raise RuntimeError(f"latexmk failed: {first_error(done.stdout)}; the whole story is in {build}/main.log")
    with files.whole_file(path_to_output) as temporary:
        shutil.copyfile(build / "main.pdf", temporary)


def first_error(output: str) -> str:
    match = re.search(r"^(?:\S+:\d+: .*|! .*)$", output, re.MULTILINE)
    return match[0] if match else output.strip().splitlines()[-1]


if __name__ == "__main__":
    with job_log(snakemake.log[0]):
        build_paper(
            paths_to_sources=list(snakemake.input.sources),
            path_to_generated=snakemake.input.generated,
            paths_to_figures=list(snakemake.input.figures),
            path_to_output=snakemake.output[0],
        )
