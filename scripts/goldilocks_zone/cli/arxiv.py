"""`make arxiv`: pack the paper's source for arXiv, after compiling it once."""

import shutil
import tempfile
from pathlib import Path

from goldilocks_zone.config import load
from goldilocks_zone.paper.build import first_error, run_tex
from goldilocks_zone.provenance import archive
from goldilocks_zone.storage import files

# Suffixes of the files that arXiv needs; main.bbl is included because arXiv does not run BibTeX.
SOURCES = (".tex", ".bib", ".bbl", ".pdf")
LIMIT_MB = 50


def run(configfile: Path) -> None:
    """Pack the paper's source and print the path and size of the archive.

    Raises ValueError if latexmk or the source is missing, or if the source does not compile or is too large.
    """
    results = Path("results", load.load([configfile]).run)
    folder, path = results / "latex", results / "arxiv.tar.gz"
    if not shutil.which("latexmk"):
        raise ValueError("latexmk, which compiles the archive as a check, is missing: run `make tex`")
    sources = [path for path in sorted(folder.rglob("*")) if path.suffix in SOURCES and path.name != "main.pdf"]
    for name in ("main.tex", "main.bbl", "generated.tex"):
        if folder / name not in sources:
            raise ValueError(f"{folder / name} is missing: build the paper first, with latexmk")
    contents = {str(path.relative_to(folder)): path.read_bytes() for path in sources}
    with tempfile.TemporaryDirectory() as place:
        for name, content in contents.items():
            copy = Path(place, name)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(content)
        done = run_tex("latexmk", place)
        if done.returncode or not Path(place, "main.pdf").exists():
            raise ValueError(
                f"the paper does not compile from the files of the archive alone ({first_error(done)}): correct its "
                "sources"
            )
    content = archive.packed(contents)
    if len(content) > LIMIT_MB * 10**6:
        raise ValueError(
            f"the archive would be {len(content) / 1e6:.0f} MB, but arXiv takes {LIMIT_MB} MB at most: draw smaller "
            "figures"
        )
    with files.whole_file(path) as temporary:
        temporary.write_bytes(content)
    print(f"{path}  {path.stat().st_size / 1e6:.1f} MB")
