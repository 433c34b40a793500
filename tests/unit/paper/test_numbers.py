"""Numbers that the paper takes from a run."""

import csv
from pathlib import Path
from types import SimpleNamespace

import pytest
import xarray as xr
import yaml

from goldilocks_zone.claims import agreement, evaluate
from goldilocks_zone.config.records import PaperRecord
from goldilocks_zone.paper import check, numbers

ROOT = Path(__file__).parents[3]
TEMPLATES = ROOT / "paper/templates"
DISAGREEMENTS = yaml.safe_load((ROOT / "resources/disagreements.yaml").read_text(encoding="utf-8"))
YES, NO = evaluate.REPRODUCED, evaluate.NOT_REPRODUCED


def row(identifier, case="", verdict=YES):
    found = {"id": identifier, "case": case, "control": "", "verdict": verdict, "work": "w", "statement": "this & that"}
    return found | {"estimate": "1", "low": "0.81", "high": "inf", "n": "8", "reason": "", "claims_hash": "0123"}


def rendered(name, **values):
    return numbers.environment(TEMPLATES).get_template(f"{name}.tex.jinja").render(values)


def test_identities_stand_apart_in_the_table_and_paragraphs_say_what_follows():
    rows = [row("vd1", verdict=evaluate.HOLDS), row("vd1.identity", "identity", evaluate.HOLDS)]
    rows += [
        row("fs13", verdict=NO),
        row("fs13.attraction", "attraction", NO),
        row("by4"),
        row("by4.original", "original"),
        row("by4.shuffled", "shuffled") | {"control": "control"},
    ]
    table = rendered("claims", claims=numbers.judged(rows))
    assert table.index("fs13") < table.index(r"\midrule") < table.index("vd1")
    assert r"this \& that" in table and "original: this" in table and r"\emph{Not reproduced}" in table
    assert "shuffled (control): this" in table and table.count("control") == 1
    text = rendered("disagreements", disagreements=numbers.disagreements(rows, [DISAGREEMENTS["drawn"]]))
    assert "(fs13 not reproduced)" in text and DISAGREEMENTS["drawn"]["second"] in text


def test_hypotheses_of_this_project_are_labelled_as_its_own():
    rows = [row(f"{claim}{case}", case[1:]) for claim in ("jz1", "beyond_tanh", "dl1") for case in ("", ".a")]
    labels = [claim["work"] for claim in numbers.judged(rows)[0]]
    assert labels == ["this project", "this project", "w"]
    assert r"\textbf{beyond-tanh}" in rendered("claims", claims=numbers.judged(rows))


def test_a_table_explains_the_signs_that_it_has_and_no_others():
    rows = [row("fs1.a", "a", NO), row("fs1.b", "b", evaluate.HOLDS), row("fs1.c", "c") | {"estimate": ""}, row("fs1")]
    rows = [{**each, "margin": "0.05"} for each in rows]
    body = r"\estimate{fs1.a} & \estimate{fs1.b} & \estimate{fs1.c} above \margin{fs1.a}"
    found = numbers.table_macros(rows, [rf"\begin{{resulttable}}{{small}}{body}\end{{resulttable}}"])
    assert found["key"] == {"small": r"\signof{not reproduced}, \signof{identity holds}, \signof{not tested}"}
    assert found["margin"] == {"fs1.a": "$0.05$"} and found["common"] == {"small": "8"}


def test_zero_has_no_sign():
    assert [numbers.hundredths(value) for value in ("-0.004", "-0.006", "0")] == ["$0.00$", "$-0.01$", "$0.00$"]


def test_a_table_without_identities_has_no_rule():
    table = rendered("claims", claims=numbers.judged([row("fs1"), row("fs1.band", "band")]))
    assert "midrule" not in table and r"band: this \& that & $1.00$ $[0.81, \infty)$ (8) & reproduced \\" in table


def test_a_published_setting_that_is_missing_is_named():
    published = {"training": {"planes": {"work": "Somebody", "network": "a"}}}
    with pytest.raises(
        ValueError, match=r"uses 'dataset' of \{'work': 'Somebody', 'network': 'a'\}, which is not defined"
    ):
        rendered("training_settings", published=published, settings=SimpleNamespace(studies={}))


def test_settings_of_the_boundary_stand_below_those_published():
    columns = ("work", "network", "dataset", "examples", "optimiser", "batch", "epochs", "random_labels", "draws")
    published = {"boundary": {name: {column: f"their {column}" for column in columns} for name in ("here", "missing")}}
    minima = ["normal", "adversarial-1000", "adversarial-30", "large_norm-1000"]
    study = {"networks": ["fc-5x2-relu"], "datasets": ["gauss", "half_moon"], "examples": None, "minima": minima}
    study |= {"optimiser": "sgd", "rate": 0.02, "batch": "all", "epochs": [20, 200], "draws": 6}
    settings = SimpleNamespace(studies={"here": SimpleNamespace(**study)})
    text = rendered("boundary_settings", published=published, settings=settings).replace("%\n", "")
    text = text.replace(r"\addlinespace[4pt]", "")
    rows = [[cell.strip() for cell in row.split("&")] for row in text.split(r"\\")[:-1]]
    assert rows[0] == rows[2] == [f"their {column}" for column in columns]
    cells = ["fc-5x2-relu", "gauss, half-moon", "as published", "sgd, 0.02", "all", "20, 200", "30, 1000 steps", "6"]
    assert rows[1] == [r"\quad this run", *cells]
    assert "not computed" in rows[3][1]
    assert numbers.random_steps(["normal", "wide_margin"]) == "none"
    assert numbers.grouped("2000, 300000 steps") == "2000, 300{,}000 steps"


def test_a_commit_that_is_not_known_is_explained_where_it_is_shown():
    known, both = (xr.Dataset(attrs={"commit": commit}) for commit in ("abc", "abc, unknown"))
    assert numbers.commits({"a": known}) == "abc"
    assert numbers.commits({"a": known, "b": both}) == "abc, unknown (no git repository of its own)"


def test_cases_that_are_not_tested_stand_in_one_sentence_with_their_reasons():
    missing = {"estimate": "", "reason": "equal in every draw"}
    cases = [row(f"fs10.{name}", name, evaluate.NOT_TESTED) | missing for name in ("shift", "rate")]
    cases.append(row("fs10.short", "short", evaluate.NOT_TESTED) | {"reason": "needs 600 steps"})
    assert numbers.claim_macros(cases)["estimate"]["fs10.shift"] == r"\noresult{equal in every draw}"
    rows = [row("fs10"), *cases, row("fs10.both", "both"), row("li2", verdict=evaluate.NOT_TESTED)]
    rows += [
        row("fs9", verdict=evaluate.NOT_TESTED) | {"reason": "no grid"},
        row("fs9.peak", "peak", evaluate.NOT_TESTED),
    ]
    table = rendered("claims", claims=numbers.judged(rows))
    assert "Not tested: shift, rate (equal in every draw); short (needs 600 steps)." in table
    assert "both: this" in table and not any(part in table for part in ("shift: this", "fs9", "li2"))
    said = "This run tests no part of these claims: "
    said += r"\textbf{li2} this \& that; \textbf{fs9} this \& that (no grid)."
    assert numbers.untested(rows) == said
    assert numbers.untested([row("fs10"), row("fs10.both", "both")]) == ""
    (said,) = numbers.claim_macros([row("fs4.fraction", "fraction", NO)])["estimate"].values()
    assert said == r"\result{$1.00$ $[0.81, \infty)$}{8}{not reproduced}"


def test_a_figure_that_is_not_drawn_says_why():
    registered = {name: {"wide": True, "caption": "A caption."} for name in ("loss", "arms")}
    given = {"run": "quick", "studies": {}, "figures": {}, "registered": registered, "licences": {}, "substitutes": {}}
    left_out = ["dataset cifar10 is unavailable (no file): put it there"]
    found = numbers.paper_figures(PaperRecord(**given, left_out=left_out, lacking=["arms"]))
    assert "Not computed: dataset cifar10 is unavailable (no file)." in found["arms"]["picture"]
    assert "Not computed: the run quick does not draw it." in found["loss"]["picture"]


def compared(reading, d, **numbers):
    """A row of agreement.csv for a `reading` and a dimension `d`; `numbers` are values of other columns."""
    row = {"comparison": "fig1", "title": "κ, figure 1", "reading": reading, "says": f"{reading} one", "d": d}
    return {**dict.fromkeys(agreement.COLUMNS, ""), **row, **numbers}


NUMBERS = {"mean_difference": 0.021, "mean_absolute_difference": 0.034, "largest_difference": -0.12}
COMPARED = [
    compared("primary", 10, points=1, mean_difference=1, mean_absolute_difference=1, largest_difference=1),
    compared("primary", "all", points=7, share_within=0.909, **NUMBERS),
    compared("other", "all", points=7, **NUMBERS),
    compared("third", "all", reason="the study x_y is not part of this run"),
]


@pytest.fixture
def generated(tmp_path):
    """Function that writes the paper's macros for a made-up run with one claim of a work and the figures `drawn`.

    `sections` maps works to texts of their sections, and `story` is the text of story.tex.
    """

    def write(sections, drawn=("loss", "mine", "plateaus"), story=""):
        with open(tmp_path / "claims.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, row(""))
            writer.writeheader()
            writer.writerows([row("new1"), row("new1.a", "a")])
        with open(tmp_path / "agreement.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, agreement.COLUMNS)
            writer.writeheader()
            writer.writerows(COMPARED)
        study = {"datasets": ["mnist"], "networks": ["fc-5x1-relu"], "subspaces": ["plane-5-sparse"], "radii": [1]}
        study |= {"kind": "curvature", "draws": 1}
        settings = {"run": "made_up", "left_out": [], "lacking": [], "substitutes": {}, "licences": {}, "cuts": None}
        settings |= {"studies": {"other": study}, "figures": {name: ["other"] for name in drawn}}
        registered = {"wide": False, "caption": "A figure that no section shows."}
        settings["registered"] = dict.fromkeys(("loss", "mine", "plateaus", "cuts", "arms"), registered)
        (tmp_path / "settings.yaml").write_text(yaml.safe_dump(settings))
        for name, text in sections.items():
            (tmp_path / "works" / name).mkdir(parents=True)
            (tmp_path / "works" / name / "zone.tex").write_text(text)
        finding = {
            "claims": ["new1"],
            "main": True,
            "held": "It is {new1.a}.",
            "failed": "No.",
            "open": "whether it is",
        }
        findings = {"zone": {"question": "Where & why?", "answer": [finding]}}
        (tmp_path / "findings.yaml").write_text(yaml.safe_dump(findings))
        (tmp_path / "story.tex").write_text(story)
        (tmp_path / "new_2030").mkdir()
        columns = ("network", "dataset", "rate", "steps", "batch", "radii", "subspaces", "draws")
        published = {"work": "New", **{column: f"their {column}" for column in columns}}
        (tmp_path / "new_2030/settings.yaml").write_text(yaml.safe_dump({"training": {"elsewhere": published}}))
        numbers.write_numbers(
            path_to_claims=tmp_path / "claims.csv",
            path_to_agreement=tmp_path / "agreement.csv",
            paths_to_studies=[],
            path_to_cuts=None,
            paths_to_cards=[],
            path_to_settings=tmp_path / "settings.yaml",
            paths_to_published=[tmp_path / "new_2030/settings.yaml"],
            path_to_disagreements=ROOT / "resources/disagreements.yaml",
            path_to_findings=tmp_path / "findings.yaml",
            paths_to_sections=[tmp_path / "story.tex"],
            paths_to_works=sorted((tmp_path / "works").glob("*/*.tex")),
            paths_to_templates=sorted(TEMPLATES.iterdir()),
            path_to_output=tmp_path / "generated.tex",
            path_to_shown_settings=tmp_path / "paper.yaml",
        )
        return (tmp_path / "generated.tex").read_text()

    return write


def figure(name):
    return rf"\begin{{panels}}{{{name}}}\resultfigure{{{name}}}\label{{fig:{name}}}\end{{panels}} \ref{{fig:{name}}}"


def test_a_work_is_a_file_of_its_name_and_settings_in_a_folder_of_its_name(generated):
    text = generated({"new_2030": r"\verdict{new1} " + figure("loss"), "other_2031": r"\verdict{ot1}"})
    assert r"\newcommand{\eachwork}[1]{#1{new_2030}}" in text
    assert "New &%\ntheir network & their dataset & their rate &" in text
    assert r"\csname verdict:new1\endcsname{reproduced}" in text


def test_answers_are_written_in_latex(generated):
    text = generated({"new_2030": r"\verdict{new1} " + figure("loss")})
    assert r"\csname question:zone\endcsname{Where \& why?}" in text
    said = r"It is $1.00$ $[0.81, \infty)$."
    assert rf"\csname answer:zone\endcsname{{{said}}}" in text and rf"\newcommand{{\mainfindings}}{{{said}}}" in text


def test_a_figure_of_the_introduction_stands_there(generated):
    text = generated({"new_2030": r"\verdict{new1} " + figure("loss")}, story=figure("mine"))
    appendix = text[text.index(r"\appendixfigures") : text.index(r"\newcommand{\untested}")]
    assert check.shown([appendix]) == {"plateaus"}


def test_figures_that_no_section_shows_stand_in_the_appendix(generated):
    section = r"\verdict{new1} \estimate{new1.a} " + figure("loss") + figure("cuts") + " % " + figure("plateaus")
    text = generated({"new_2030": section})
    appendix = text[text.index(r"\appendixfigures") : text.index(r"\newcommand{\untested}")]
    assert set(check.shown([appendix])) == {"mine", "plateaus"}
    assert appendix.count(r"\section") == 1 and appendix.count(r"\caption{A figure that no section shows.") == 2
    assert r"\label{fig:mine}" in appendix
    # What is neither shown nor drawn has no macros; what is shown and not drawn says so.
    assert "figure:cuts" in text and r"the run made\_up does not draw it" in text and "figure:arms" not in text
    found = check.mistakes({"works/new_2030/zone.tex": section}, text)
    unused = ("setting{", "agreement{", "question{", "answer{")
    assert found and all(any(kind in each for kind in unused) for each in found)


def test_the_report_shows_the_settings_without_what_figures_register(generated, tmp_path):
    generated({"new_2030": figure("loss")})
    shown = yaml.safe_load((tmp_path / "paper.yaml").read_text())
    assert shown["run"] == "made_up" and "loss" in shown["figures"] and "registered" not in shown


def test_without_such_figures_there_is_no_appendix(generated):
    text = generated({"new_2030": r"\verdict{new1}" + figure("loss")}, drawn=["loss"])
    assert "\\newcommand{\\appendixfigures}{%\n}%" in text


def test_agreement_is_that_of_all_dimensions_and_says_why_there_is_none(generated):
    text = generated({"new_2030": r"\verdict{new1} " + figure("loss")})
    said = r"$0.02$ on average, $0.03$ in absolute value and $-0.12$ at most over 7 points; $91\,\%$ of them lie within"
    assert rf"\csname agreement:fig1\endcsname{{{said} two standard deviations}}" in text
    assert r"other one & 7 &  & $0.02$ & $0.03$ & $-0.12$ \\" in text
    assert r"third one & \multicolumn{5}{@{}l@{}}{\emph{not compared}}" in text
    missing = compared("primary", "all", reason="the study x_y is not part of this run")
    assert numbers.agreement_macros([missing])["agreement"]["fig1"].endswith(r"the study x\_y is not part of this run}")
