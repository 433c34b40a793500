"""Answers to the project's questions: words that verdicts choose, around estimates."""

import re
from pathlib import Path

import pytest
import yaml

from goldilocks_zone.claims import definitions, evaluate, findings

ROOT = Path(__file__).parents[3]
FILE = ROOT / "paper/findings.yaml"
DEFINITIONS = definitions.load(ROOT / "config/claims")
ENTRY = {
    "claims": ["fs1", "by1.outer"],
    "held": "Both hold: {by1.outer} & more.",
    "failed": "One fails: {fs1.band}.",
    "open": "whether both hold",
}
OTHER = {"claims": ["fs1"], "main": True, "held": "It holds.", "failed": "It fails.", "open": "whether it holds"}


def row(identifier, verdict=evaluate.REPRODUCED, case="", estimate="0.882", low="0.871", high="0.893"):
    return {"id": identifier, "case": case, "verdict": verdict, "estimate": estimate, "low": low, "high": high}


def rows(verdict, outer=evaluate.REPRODUCED, **numbers):
    return [
        row("fs1", verdict),
        row("fs1.band", verdict, "band", **numbers),
        row("by1.outer", outer, "outer"),
        row("fs1.band.mnist", evaluate.NOT_REPRODUCED, "band mnist"),
    ]


@pytest.fixture
def path(tmp_path):
    def write(*sentences, **keys):
        path = tmp_path / "findings.yaml"
        path.write_text(yaml.safe_dump({"zone": {"question": "Where?", "answer": list(sentences), **keys}}))
        return path

    return write


@pytest.mark.parametrize(
    "first, second, outcome, text",
    [
        (evaluate.REPRODUCED, evaluate.REPRODUCED, "held", "Both hold: 0.882 [0.871, 0.893] & more."),
        (evaluate.HOLDS, evaluate.REPRODUCED, "held", "Both hold: 0.882 [0.871, 0.893] & more."),
        (evaluate.REPRODUCED, evaluate.NOT_REPRODUCED, "failed", "One fails: 0.882 [0.871, 0.893]."),
        (evaluate.INCONCLUSIVE, evaluate.FAILS, "failed", "One fails: 0.882 [0.871, 0.893]."),
        (evaluate.REPRODUCED, evaluate.INCONCLUSIVE, "open", "whether both hold"),
        (evaluate.NOT_TESTED, evaluate.REPRODUCED, "open", "whether both hold"),
    ],
)
def test_verdicts_choose_the_words(first, second, outcome, text, path):
    (answer,) = findings.read(path(ENTRY), rows(first, second))
    (sentence,) = answer.sentences
    assert (answer.name, answer.question) == ("zone", "Where?")
    assert (sentence.outcome, sentence.text, sentence.main) == (outcome, text, False)
    assert sentence.claims == ("fs1", "by1.outer")


def test_what_is_open_comes_last_in_one_sentence(path):
    sentence = {**OTHER, "claims": ["by1.outer"], "held": "The edge moves."}
    (answer,) = findings.read(path(ENTRY, sentence, OTHER), rows(evaluate.INCONCLUSIVE))
    assert answer.text == "The edge moves. This run leaves open whether both hold, and whether it holds."
    assert [each.text for each in findings.main([answer])] == ["The edge moves.", "whether it holds"]
    open_ones = [each for each in answer.sentences if each.outcome == "open"]
    three = findings.joined([*open_ones, open_ones[0]])
    assert three == "This run leaves open whether both hold, whether it holds, and whether both hold."
    assert findings.joined([answer.sentences[1]]) == "The edge moves." and findings.joined([]) == ""


def test_callers_write_words_and_estimates_in_their_own_format(path):
    found = findings.read(path(ENTRY), rows(evaluate.REPRODUCED), lambda row: f"<{row['id']}>", str.upper)
    assert found[0].text == "BOTH HOLD: <by1.outer> & MORE."


def test_estimates_without_interval_or_without_a_number():
    assert findings.described(row("a.b", estimate="")) == "not computed"
    assert findings.described(row("a.b", estimate="3e-12", low="3e-12", high="3e-12")) == "3.0e-12"
    assert findings.described(row("a.b", estimate="1", low="0.81", high="inf")) == "1.00 [0.81, ∞]"


@pytest.mark.parametrize(
    "change, part",
    [
        ({"claims": ["fs1", "by1.outter"]}, "there is no claim or case 'by1.outter'; did you mean by1.outer?"),
        ({"held": "It is {fs1.bend}."}, "there is no case 'fs1.bend' to quote; did you mean fs1.band?"),
        ({"open": "whether {fs1}"}, "there is no case 'fs1' to quote"),
        ({"failed": ""}, "the key 'failed' is missing"),
        ({"claims": []}, "the key 'claims' is missing"),
        ({"maine": True}, "unknown key 'maine'; did you mean main?"),
        ({"held": "It holds"}, "the words for 'held' must be a sentence"),
        ({"open": "It is open."}, "the words for 'open' must be a clause"),
    ],
)
def test_mistakes_are_named(change, part, path):
    with pytest.raises(findings.FindingsError, match=re.escape(part)) as error:
        findings.read(path({**ENTRY, **change}), rows(evaluate.REPRODUCED))
    assert f"{path(ENTRY)}, zone: " in str(error.value)


def test_a_question_has_no_other_keys(path):
    with pytest.raises(findings.FindingsError, match="must have the keys question and answer"):
        findings.read(path(ENTRY, says="x"), rows(evaluate.REPRODUCED))


def of_all_claims(verdict):
    """Rows of claims.csv for all claims and their cases, all with the same `verdict`."""
    claims = [row(name, verdict) for name in DEFINITIONS]
    cases = [(name, case) for name, claim in DEFINITIONS.items() for case in claim.get("cases", {})]
    return claims + [row(f"{name}.{case}", verdict, case) for name, case in cases]


@pytest.mark.parametrize("verdict", [evaluate.REPRODUCED, evaluate.NOT_REPRODUCED, evaluate.INCONCLUSIVE])
def test_the_projects_own_findings_are_valid_for_every_verdict(verdict):
    answers = findings.read(FILE, of_all_claims(verdict))
    assert 5 <= len(findings.main(answers)) <= 8
    for answer in answers:
        assert answer.question.endswith("?") and 2 <= len(answer.sentences) <= 4
        assert answer.text.endswith(".") and "{" not in answer.text and "not computed" not in answer.text
    assert ("leaves open" in answers[0].text) == (verdict == evaluate.INCONCLUSIVE)


def test_findings_rest_on_claims_that_are_tested_and_on_no_controls():
    for entry in yaml.safe_load(FILE.read_text(encoding="utf-8")).values():
        for name in (name for sentence in entry["answer"] for name in sentence["claims"]):
            claim, _, case = name.partition(".")
            cases = DEFINITIONS[claim]["cases"]
            assert not cases[case].get("control") if case else cases, name


def test_an_open_clause_leaves_out_remarks_on_estimates_that_the_run_lacks(path):
    entry = {**ENTRY, "claims": ["fs1"], "open": "whether (as is said) it holds (Tr(H) is {fs1.band}, not {by1.outer})"}
    known = rows(evaluate.INCONCLUSIVE)
    assert findings.read(path(entry), known)[0].sentences[0].text.endswith(")")
    known = [{**each, "estimate": ""} if each["id"] == "by1.outer" else each for each in known]
    assert findings.read(path(entry), known)[0].sentences[0].text == "whether (as is said) it holds"


def test_no_open_clause_of_the_projects_findings_prints_a_missing_estimate():
    known = [{**each, "estimate": ""} for each in of_all_claims(evaluate.NOT_TESTED)]
    for answer in findings.read(FILE, known):
        assert "leaves open" in answer.text and "not computed" not in answer.text
