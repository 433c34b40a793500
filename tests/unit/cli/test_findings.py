"""`make findings`: pages from the verdicts of a full run."""

import re
from pathlib import Path

import pytest
import yaml

from goldilocks_zone.claims import definitions, evaluate
from goldilocks_zone.claims import findings as words
from goldilocks_zone.cli import findings

ROOT = Path(__file__).parents[3]
ENTRY = {
    "claims": ["fs1", "fs1.band"],
    "main": True,
    "held": "It is there: {fs1.band}.",
    "failed": "It is not there: {fs1.band}.",
    "open": "whether it is there",
}
ORIGIN = {
    **{"run": "full", "claims": "0123", "commit": "abc", "device": "cpu", "python": "3.11", "torch": "2", "numpy": "2"},
    **{"hours": 1.5, "datasets": {"mnist": "ff00"}},
}


def row(identifier, case, verdict, **values):
    empty = dict.fromkeys(evaluate.COLUMNS, "")
    return {**empty, "id": identifier, "case": case, "verdict": verdict, "statement": f"of {identifier}", **values}


def rows(verdict):
    numbers = {"estimate": "0.882", "low": "0.871", "high": "0.893", "unit": "nats"}
    return [
        row("fs1", "", verdict),
        row("fs1.band", "band", verdict, **numbers),
        row("fs1.band", "band N=250", evaluate.NOT_REPRODUCED, **numbers),
        row("id1", "", evaluate.HOLDS),
    ]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "words.yaml"
    path.write_text(yaml.safe_dump({"zone": {"question": "Where?", "figures": ["story"], "answer": [ENTRY]}}))
    return path


def test_the_page_has_answers_verdicts_estimates_and_origin(file):
    answers = words.read(file, rows(evaluate.REPRODUCED))
    compared = [{"work": "w", "title": "t|u", "says": "", "d": "all", "points": "9", "share_within": "0.912345"}]
    compared[0] |= {"mean_absolute_difference": "0.0412", "largest_difference": "0.2"}
    page = findings.document(answers, rows(evaluate.REPRODUCED), [*compared, {**compared[0], "d": "10"}], ORIGIN)
    assert "Claims: 1 reproduced; 1 identities hold." in page
    assert "## Where?\n\nIt is there: 0.882 [0.871, 0.893].\n\n![story](findings/story.png)" in page
    assert "| fs1 | of fs1 | reproduced |  |" in page
    assert "| fs1.band | of fs1.band | reproduced | 0.882 [0.871, 0.893] nats |" in page
    assert page.count("| w | t\\|u |  | 9 | 0.912 | 0.0412 | 0.2 |") == 1
    assert "Commit abc, claims 0123" in page and "- mnist: `ff00`" in page


@pytest.mark.parametrize(
    "verdict, line", [("reproduced", "- It is there: 0.882 [0.871, 0.893].\n"), ("inconclusive", "")]
)
def test_the_readme_has_the_main_findings_that_are_decided(file, verdict, line):
    readme = f"first\n{findings.BEGIN}old\n{findings.END}last\n"
    found = findings.with_findings(readme, words.read(file, rows(verdict)))
    assert found == f"first\n{findings.BEGIN}{line}{findings.END}last\n"
    with pytest.raises(ValueError, match=r"^README\.md needs the lines .* once each: restore them$"):
        findings.with_findings("first\n", [])


def test_a_run_that_is_not_full_is_refused(project):
    done = project.make("findings", "CONFIG=config/tiny.yaml")
    sentence = "config/tiny.yaml: findings are of the full run, but this is the configuration of tiny"
    assert done.returncode and sentence in done.stderr
    assert not (project.folder / "docs/findings.md").exists()


def test_a_run_is_written_to_the_docs(project, file, monkeypatch):
    project.run("results/tiny/agreement.csv")
    monkeypatch.chdir(project.folder)
    monkeypatch.setattr(findings, "FULL", "tiny")
    monkeypatch.setattr(findings, "WORDS", file)
    file.write_text(file.read_text().replace("story", "trace_over_norm"))
    (project.folder / "README.md").write_text(findings.BEGIN + findings.END)
    findings.run(Path("config/tiny.yaml"))
    page = Path("docs/findings.md").read_text()
    rows, compared = (findings.table(Path("docs", name)) for name in findings.TABLES)
    origin = yaml.safe_load(Path("docs/findings.yaml").read_text())
    assert page == findings.document(words.read(file, rows), rows, compared, origin)
    assert re.search(r"- mnist: `[0-9a-f]{64}`", page)
    assert (
        Path("docs/findings/trace_over_norm.png").read_bytes() == Path("figures/tiny/trace_over_norm.png").read_bytes()
    )
    monkeypatch.setattr(findings, "LIMIT_MB", 1e-6)
    with pytest.raises(ValueError, match=r"more than 1e-06 MB: name fewer figures there$"):
        findings.run(Path("config/tiny.yaml"))


def test_the_words_name_figures_that_exist():
    from goldilocks_zone.figures import registry

    claims = definitions.load(ROOT / "config/claims")
    known = [{**each, "verdict": evaluate.NOT_TESTED} for each in evaluate.evaluate(claims, {}, "full")]
    assert set(findings.figures(words.read(ROOT / "paper/findings.yaml", known))) <= registry.figures().keys()
