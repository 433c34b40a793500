import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from goldilocks_zone.claims import definitions
from goldilocks_zone.paper import latex
from needs import missing

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    "value, low, high, text",
    [
        (0.88213, 0.87, 0.893, "0.882"),
        (5.07, 4.37, 5.76, "5.07"),
        (1234.5, 1000, 1500, "1234"),
        (2.302585, 2.30258, 2.30259, "2.3026"),
        (3.0, 3.0, 3.0, "3.0000"),
        (0.0, 0.0, 0.0, "0"),
        (-2.6e-7, -4e-7, -1.1e-7, r"-2.6 \times 10^{-7}"),
        (0.00004, -0.2, 0.2, "0.00"),
    ],
)
def test_numbers_have_two_digits_of_their_interval(value, low, high, text):
    assert latex.number(value, low, high) == text


def test_text_is_escaped():
    assert latex.escape("5 % of fc_1 & ‖H‖ ∝ r^n_L") == (
        r"5 \% of fc\_1 \& \ensuremath{\Vert}H\ensuremath{\Vert} \ensuremath{\propto} r$^{n_L}$"
    )
    assert latex.escape("κ(θ, α^-L), N^(1/n) and r_X²") == (
        r"\ensuremath{\kappa}(\ensuremath{\theta}, \ensuremath{\alpha}$^{-L}$), N$^{1/n}$ and $r_X$²"
    )
    assert latex.escape(r"/home/jürgen/~a$b\{c}^d") == (
        r"/home/jürgen/\textasciitilde{}a\$b\textbackslash{}\{c\}\textasciicircum{}d"
    )
    with pytest.raises(ValueError, match="☃"):
        latex.escape("a ☃")
    assert latex.escape("a ☃", strict=False) == "a U+2603"
    # As macOS writes names of files.
    assert latex.escape("ju\u0308rgen") == "jürgen"


def test_every_character_that_is_passed_on_is_set_in_the_papers_fonts(tmp_path):
    if not shutil.which("pdflatex"):
        missing("no pdflatex: make tex installs it")
    texts = [*sorted(latex._PRINTED | latex._MATHEMATICS), "Q̂ ᵀ √ ′ r_out σ_z ^n_L ^(1/n)"]
    text = "\n\n".join(map(latex.escape, texts))
    head = r"\documentclass{article}\usepackage[T1]{fontenc}\usepackage[utf8]{inputenc}\usepackage{lmodern}"
    document = f"{head}\n\\usepackage{{amsmath,amssymb}}\\begin{{document}}\n{text}\n\\end{{document}}\n"
    (tmp_path / "main.tex").write_text(document, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "main.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0 and "Missing character" not in done.stdout, done.stdout[-1000:]
    assert latex.unprintable("ħ, 猫 and ü…") == ["ħ", "猫"]


def test_every_claim_has_a_latex_form():
    for claim in definitions.load(ROOT / "config/claims").values():
        for each in (claim, *claim.get("cases", {}).values()):
            assert latex.escape(each["statement"])


def test_loading_the_configuration_does_not_load_the_encoder():
    code = "import sys\nfrom goldilocks_zone.paper import latex\n"
    code += "print(latex.unprintable('α猫'), 'pylatexenc' in sys.modules)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT / "scripts", capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['猫'] False"


def test_an_interval_shows_an_end_that_is_open():
    assert latex.interval(0.882, 0.871, 0.893) == "$0.882$ $[0.871, 0.893]$"
    assert latex.interval(1.0, 0.81, float("inf")) == r"$1.00$ $[0.81, \infty)$"
    assert latex.interval(-1.0, float("-inf"), -0.81) == r"$-1.00$ $(-\infty, -0.81]$"
