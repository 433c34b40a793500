"""The check of the paper's sources."""

import re
from pathlib import Path

import pytest

from goldilocks_zone.claims import definitions
from goldilocks_zone.paper import check, latex

ROOT = Path(__file__).parents[3]

GENERATED = "\n".join(
    [
        latex.macro("estimate", "fs1.band", "$0.88$"),
        latex.macro("verdict", "fs1", "reproduced"),
        latex.macro("setting", "run", "quick"),
        latex.macro("figure", "loss", r"\includegraphics{loss.pdf}"),
        r"\newcommand{\eachwork}[1]{#1{li_2018}#1{beyond}}%",
    ]
)
FIGURE = r"\resultfigure{loss}\label{fig:loss} see Figure~\ref{fig:loss}, run \setting{run}"
RESULTS = r"It is \estimate{fs1.band} (\verdict{fs1}), far above one half of $d$. % 42 in a comment"


def test_a_text_that_fits_its_results():
    assert check.mistakes({"sections/beyond.tex": RESULTS, "method.tex": "200 units " + FIGURE}, GENERATED) == []


@pytest.mark.parametrize(
    "results, other, part",
    [
        (RESULTS + "\nIt is 0.88.", FIGURE, "sections/beyond.tex, line 2: a literal number"),
        (RESULTS.replace("one half", "$1/2$"), FIGURE, "a literal number"),
        (r"\estimate{fs2.band} " + RESULTS, FIGURE, r"\estimate{fs2.band} is used and no result defines it"),
        (r"It is (\verdict{fs1}).", FIGURE, r"\estimate{fs1.band} is defined and the text never uses it"),
        (RESULTS, FIGURE.replace(r"see Figure~\ref{fig:loss}", ""), "fig:loss is shown and the text never refers"),
        (RESULTS, r"run \setting{run}", r"\figure{loss} is defined and the text never uses it"),
    ],
)
def test_mistakes_are_named(results, other, part):
    found = check.mistakes({"sections/beyond.tex": results, "method.tex": other}, GENERATED)
    assert any(part in mistake for mistake in found), found


@pytest.mark.parametrize("section", ["sections/li_2018.tex", "sections/beyond.tex"])
def test_sections_of_works_have_no_literal_numbers(section):
    assert check.mistakes({section: RESULTS, "methods/beyond.tex": "$2^n$ " + FIGURE}, GENERATED) == []
    (found,) = check.mistakes({section: RESULTS + "\nIt is 0.88.", "method.tex": FIGURE}, GENERATED)
    assert f"{section}, line 2: a literal number" in found


def test_a_work_that_the_run_does_not_have_is_not_checked():
    sources = {"sections/beyond.tex": RESULTS, "method.tex": FIGURE, "sections/new_2030.tex": r"\estimate{new1.a} is 3"}
    assert check.mistakes(sources, GENERATED) == []
    found = check.mistakes(sources, GENERATED.replace("#1{beyond}", "#1{beyond}#1{new_2030}"))
    assert [each.split(":")[0] for each in found] == [
        "sections/new_2030.tex, line 1",
        r"\estimate{new1.a} is used and no result defines it",
    ]


def test_a_figure_in_the_appendix_is_used_and_needs_no_reference():
    appendix = r"\begin{panels}{mine}\resultfigure{mine}\label{fig:mine}\end{panels}"
    macros = [latex.macro("figure", "mine", "x"), latex.macro("width", "mine", "y")]
    assert check.mistakes({"sections/beyond.tex": FIGURE + RESULTS}, "\n".join([GENERATED, *macros, appendix])) == []
    unused = check.mistakes({"sections/beyond.tex": FIGURE + RESULTS}, "\n".join([GENERATED, *macros]))
    assert unused == [rf"\{kind}{{mine}} is defined and the text never uses it" for kind in ("figure", "width")]


def test_sections_stand_in_the_order_of_the_claims_that_they_name_first():
    sections = {
        "beyond": r"\verdict{by1}, \estimate{fs1.band}",
        "fort_scherlis_2019": r"% \verdict{by1}" + "\n" + r"\verdict{fs1}",
        "new_2030": r"\resultfigure{mine}",
        "other_2031": r"\verdict{ot1} \resultfigure{theirs}",
    }
    assert check.works(sections, ["fs1", "fs2", "by1"], ["mine"]) == ["fort_scherlis_2019", "beyond", "new_2030"]
    assert check.works(sections, ["ot1", "by1"], []) == ["other_2031", "beyond"]
    assert check.shown(sections.values()) == {"mine", "theirs"}


def test_every_work_has_one_name():
    """That of its claims."""
    sections = {path.stem for path in (ROOT / "paper/sections").iterdir()}
    assert sections == {path.stem for path in (ROOT / "config/claims").glob("*.yaml")}
    assert {path.stem for path in (ROOT / "paper/methods").iterdir()} <= sections
    assert {path.name for path in (ROOT / "resources/published").iterdir() if path.is_dir()} <= sections


def test_every_case_is_quoted_by_a_section():
    """Else the run would stop at the paper, after everything is computed."""
    claims = {name: claim for name, claim in definitions.load(ROOT / "config/claims").items() if claim.get("cases")}
    estimates = {f"{name}.{case}" for name, claim in claims.items() for case in claim["cases"]}
    everything = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "paper").rglob("*.tex")))
    quoted = {kind: set(re.findall(rf"\\{kind}\{{([\w.-]+)\}}", everything)) for kind in ("verdict", "estimate")}
    assert quoted == {"verdict": set(claims), "estimate": estimates}
