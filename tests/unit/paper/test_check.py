"""The check of the paper's sources."""

import re
from pathlib import Path

import pytest
import yaml

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
    assert check.mistakes({"works/beyond/zone.tex": RESULTS, "method.tex": "200 units " + FIGURE}, GENERATED) == []


@pytest.mark.parametrize(
    "results, other, part",
    [
        (RESULTS + "\nIt is 0.88.", FIGURE, "works/beyond/zone.tex, line 2: a literal number"),
        (RESULTS.replace("one half", "$1/2$"), FIGURE, "a literal number"),
        (r"\estimate{fs2.band} " + RESULTS, FIGURE, r"\estimate{fs2.band} is used and no result defines it"),
        (r"It is (\verdict{fs1}).", FIGURE, r"\estimate{fs1.band} is defined and the text never uses it"),
        (RESULTS, FIGURE.replace(r"see Figure~\ref{fig:loss}", ""), "fig:loss is shown and the text never refers"),
        (RESULTS, r"run \setting{run}", r"\figure{loss} is defined and the text never uses it"),
    ],
)
def test_mistakes_are_named(results, other, part):
    found = check.mistakes({"works/beyond/zone.tex": results, "method.tex": other}, GENERATED)
    assert any(part in mistake for mistake in found), found


@pytest.mark.parametrize("section", ["works/li_2018/use.tex", "works/beyond/supplement.tex", "sections/use.tex"])
def test_sections_and_texts_of_works_have_no_literal_numbers(section):
    assert check.mistakes({section: RESULTS, "works/beyond/method.tex": "$2^n$ " + FIGURE}, GENERATED) == []
    (found,) = check.mistakes({section: RESULTS + "\nIt is 0.88.", "method.tex": FIGURE}, GENERATED)
    assert f"{section}, line 2: a literal number" in found


def test_a_work_that_the_run_does_not_have_is_not_checked():
    sources = {"works/beyond/zone.tex": RESULTS, "method.tex": FIGURE}
    sources["works/new_2030/zone.tex"] = r"\estimate{new1.a} is 3"
    assert check.mistakes(sources, GENERATED) == []
    found = check.mistakes(sources, GENERATED.replace("#1{beyond}", "#1{beyond}#1{new_2030}"))
    assert [each.split(":")[0] for each in found] == [
        "works/new_2030/zone.tex, line 1",
        r"\estimate{new1.a} is used and no result defines it",
    ]


def test_a_figure_in_the_appendix_is_used_and_needs_no_reference():
    appendix = r"\begin{panels}{mine}\resultfigure{mine}\label{fig:mine}\end{panels}"
    macros = [latex.macro("figure", "mine", "x"), latex.macro("width", "mine", "y")]
    texts = {"works/beyond/zone.tex": FIGURE + RESULTS}
    assert check.mistakes(texts, "\n".join([GENERATED, *macros, appendix])) == []
    unused = check.mistakes(texts, "\n".join([GENERATED, *macros]))
    assert unused == [rf"\{kind}{{mine}} is defined and the text never uses it" for kind in ("figure", "width")]


def test_answers_are_shown_once_they_are_defined():
    texts = {"works/beyond/zone.tex": RESULTS, "sections/zone.tex": r"\answer{zone} " + FIGURE}
    assert check.mistakes(texts, GENERATED) == [r"\answer{zone} is used and no result defines it"]
    answers = [latex.macro("answer", name, "It is 3.") for name in ("zone", "use")]
    unused = r"\answer{use} is defined and the text never uses it"
    assert check.mistakes(texts, "\n".join([GENERATED, *answers])) == [unused]


def test_texts_of_a_work_lie_in_its_folder():
    texts = {
        "paper/works/b_2031/use.tex": "1",
        "/c/paper/works/a_2030/zone.tex": "3",
        "paper/works/b_2031/method.tex": "2",
    }
    assert check.by_work(texts) == {"a_2030": "3", "b_2031": "2\n1"}


def test_works_stand_in_the_order_of_the_claims_that_they_name_first():
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
    """Paper and published values use the name of the work's claims."""
    works = {path.name for path in (ROOT / "paper/works").iterdir()}
    assert works == {path.stem for path in (ROOT / "config/claims").glob("*.yaml")}
    assert {path.name for path in (ROOT / "resources/published").iterdir() if path.is_dir()} <= works


def test_every_question_has_a_section_that_opens_with_its_answer_and_takes_the_works_evidence():
    main = (ROOT / "paper/main.tex").read_text(encoding="utf-8")
    questions = set(yaml.safe_load((ROOT / "paper/findings.yaml").read_text(encoding="utf-8"))) - {"conclusion"}
    for name in questions:
        text = (ROOT / f"paper/sections/{name}.tex").read_text(encoding="utf-8")
        assert text.index(rf"\answer{{{name}}}") < text.index(rf"\evidence{{{name}}}")
        assert rf"\input{{sections/{name}}}" in main
    parts = {path.stem for path in (ROOT / "paper/works").glob("*/*.tex")}
    assert parts == questions | {"method", "supplement"}


def test_every_case_is_quoted_by_a_section():
    """Otherwise the run would stop at the paper, after everything has been computed."""
    claims = {name: claim for name, claim in definitions.load(ROOT / "config/claims").items() if claim.get("cases")}
    estimates = {f"{name}.{case}" for name, claim in claims.items() for case in claim["cases"]}
    everything = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "paper").rglob("*.tex")))
    quoted = {kind: set(re.findall(rf"\\{kind}\{{([\w.-]+)\}}", everything)) for kind in ("verdict", "estimate")}
    assert quoted == {"verdict": set(claims), "estimate": estimates}
