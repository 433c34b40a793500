"""`make report`, opened in a real browser without a screen, and `make arxiv`, on the run `tiny`."""

import json
import re
import shutil
import subprocess
import tarfile
import zipfile

import pytest

from needs import missing

CONFIG = "CONFIG=config/tiny.yaml"
pytestmark = pytest.mark.slow
# What Snakemake's own report has Tailwind say.
KNOWN = "cdn.tailwindcss.com should not be used in production"
NAMES = ("chromium", "chromium-browser", "google-chrome")
# Shows one result after the other as a click would, and leaves what it saw in the page.
PROBE = """
<script>
window.addEventListener("error", event => { document.body.dataset.error = event.message; });
const wait = ms => new Promise(done => setTimeout(done, ms));
async function look() {
  const seen = {};
  for (const [path, result] of Object.entries(results)) {
    app.showCategory(Object.keys(categories).find(name => JSON.stringify(categories[name]).includes(path)));
    // Each click is seen before the next: the page would lose one of two in a row.
    await wait(300);
    app.showResultInfo(path);
    await wait(300);
    if (path.endsWith(".png")) {
      app.setView({content: "img", contentPath: result.data_uri, resultPath: path});
    }
    await wait(300);
    const image = [...document.querySelectorAll("img")].find(each => each.getAttribute("src") === result.data_uri);
    seen[path] = {width: image ? image.naturalWidth : null, text: document.body.innerText};
  }
  const found = document.createElement("script");
  found.type = "application/json";
  found.id = "seen";
  found.textContent = JSON.stringify({seen, categories: Object.keys(categories)}).replaceAll("<", "\\\\u003c");
  document.body.appendChild(found);
}
window.addEventListener("load", () => setTimeout(look, 500));
</script>
"""


@pytest.fixture(scope="module")
def reported(built, tmp_path_factory):
    """A copy of the built project in which `make report` and `make arxiv` have run."""
    project = built.copy(tmp_path_factory.mktemp("reported") / "project")
    for command in ("report", "arxiv"):
        done = project.make(command, CONFIG)
        assert done.returncode == 0, done.stderr
    return project


@pytest.fixture(scope="module")
def browser():
    found = next(filter(None, map(shutil.which, NAMES)), None)
    return found or missing("no browser: chromium is not installed: make programs installs it")


@pytest.fixture(scope="module")
def seen(browser, reported, tmp_path_factory):
    """Open the report in the browser; returns what it showed of each result, by path, and its error messages."""
    folder = tmp_path_factory.mktemp("opened")
    with zipfile.ZipFile(reported.folder / "report.zip") as archive:
        archive.extractall(folder)
    (page,) = folder.rglob("report.html")
    # Libraries in the page have the end of a body in their strings.
    before, end, after = page.read_text().rpartition("</body>")
    page.write_text(f"{before}{PROBE}{end}{after}")
    command = [browser, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    command += ["--enable-logging=stderr", "--virtual-time-budget=30000", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    match = re.search(r'<script type="application/json" id="seen">(.*?)</script>', done.stdout, re.DOTALL)
    assert match, done.stderr[-2000:]
    complaints = [line for line in done.stderr.splitlines() if ":CONSOLE" in line and KNOWN not in line]
    complaints += re.findall(r'data-error="(.*?)"', done.stdout)
    return json.loads(match[1]), complaints


def test_every_figure_loads(seen):
    images = {path: each["width"] for path, each in seen[0]["seen"].items() if path.endswith(".png")}
    assert len(images) == 4 and all(width and width > 300 for width in images.values()), images


def test_every_result_has_its_caption_and_category(seen):
    found, _ = seen
    assert set(found["categories"]) == {"Figures", "Claims", "Settings", "Paper"}
    parts = {
        "fraction_positive.png": "Fraction of positive eigenvalues of the Hessian on random planes",
        "loss.png": "Source data: results/tiny/figures/loss.nc; "
        "module: scripts/goldilocks_zone/figures/fort_scherlis_2019/loss.py",
        "claims.csv": "Every claim of the reproduced works with its verdict",
        "agreement.csv": "Distance of this run's means from published values",
        "paper.yaml": "The settings of this run",
        "paper.pdf": "Every number in it comes from a result",
    }
    for name, part in parts.items():
        (text,) = [each["text"] for path, each in found["seen"].items() if path.endswith(name)]
        assert part in text, name


def test_the_browser_complains_of_nothing(seen):
    assert seen[1] == []


def test_the_archive_for_arxiv_compiles_on_its_own(reported, tmp_path):
    with tarfile.open(reported.folder / "results/tiny/arxiv.tar.gz") as archive:
        names = archive.getnames()
        archive.extractall(tmp_path, filter="data")
    assert {"main.tex", "main.bbl", "generated.tex", "loss.pdf", "claims.tex", "works/beyond/causes.tex"} <= set(names)
    assert "main.pdf" not in names and not any(name.startswith(("/", "..")) for name in names)
    # As arXiv does it: without BibTeX.
    command = ["latexmk", "-pdf", "-bibtex-", "-interaction=nonstopmode", "-halt-on-error", "main.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]


def test_the_archive_is_the_same_every_time(reported):
    path = reported.folder / "results/tiny/arxiv.tar.gz"
    before = path.read_bytes()
    assert reported.make("arxiv", CONFIG).returncode == 0 and path.read_bytes() == before
