"""Claims files in short form and the full dictionaries they stand for."""

import re
import textwrap
from pathlib import Path

import pytest

from goldilocks_zone.claims import definitions
from goldilocks_zone.claims.evaluate import claims_hash

ROOT = Path(__file__).parents[3]
CASE = "{statement: Above., study: one, quantity: made_up, expect: positive, unit: 1}"


KEYS = ("dimension", "dimensions", "form", "level", "rule", "rung", "threshold", "window")
MADE_UP = f"""
from goldilocks_zone.statistics.estimates import Estimate


def made_up(cell, {", ".join(f"{key}=None" for key in KEYS)}) -> list[Estimate]:
    return []
"""


@pytest.fixture
def ledger(room):
    """Function that writes texts as claims files, by their stem, and returns the claims that it loads from them.

    Claims can use the quantity made_up, which accepts any of KEYS.
    """
    (room / "made_up_quantity.py").write_text(MADE_UP)

    def load(**files: str) -> dict:
        for stem, text in files.items():
            (room.parent / f"{stem}.yaml").write_text(textwrap.dedent(text), encoding="utf-8")
        return definitions.load(room.parent)

    return load


def of_one_claim(text: str) -> str:
    """Text of a claims file with the claim a1 of the work A, whose cases are `text`.

    Keys that the cases need and lack are given by defaults.
    """
    defaults = "{statement: S., study: one, quantity: made_up, expect: positive, unit: 1}"
    return f"work: A\ndefaults: {defaults}\na1:\n  statement: First.\n" + textwrap.indent(textwrap.dedent(text), "  ")


def test_the_project_s_claims_are_those_fixed_before_the_first_full_run():
    """Files may be rewritten, but not their meaning: the hash of the expanded claims stands in every claims.csv."""
    found = definitions.load(ROOT / "config/claims")
    assert claims_hash(found) == "fc742c7ac754da42"
    assert len(found) == 87
    assert sum(len(claim.get("cases", {})) for claim in found.values()) == 528


def test_the_readme_documents_every_key_and_its_example_loads(tmp_path):
    text = (ROOT / "config/claims/README.md").read_text(encoding="utf-8")
    documented = re.findall(r"`(\w+)`", text)
    assert {*definitions.FILE_KEYS, *definitions.CLAIM_KEYS, *definitions.CASE_KEYS} <= {*documented, "work", "order"}
    assert {*definitions.SIGNS, *definitions.ORIGINS} <= {*documented}
    (tmp_path / "example.yaml").write_text(re.search(r"```yaml\n(.*?)```", text, re.DOTALL)[1], encoding="utf-8")
    assert definitions.load(tmp_path)["fs3"]["cases"]["zone"]["reference"] == 1


def test_a_claim_has_the_work_of_its_file_and_works_keep_their_order(ledger):
    found = ledger(
        a=f"work: A 2001\norder: 2\na1: {{statement: First., cases: {{only: {CASE}}}}}",
        b="work: B\norder: 1\nb1: {statement: Second., reason: not measured}",
    )
    assert found == {
        "b1": {"work": "B", "statement": "Second.", "reason": "not measured"},
        "a1": {
            "work": "A 2001",
            "statement": "First.",
            "cases": {
                "only": {
                    "statement": "Above.",
                    "study": "one",
                    "quantity": "made_up",
                    "test": "superiority",
                    "unit": 1,
                }
            },
        },
    }
    assert list(found) == ["b1", "a1"]


def test_defaults_of_case_claim_and_file_lie_over_one_another(ledger):
    """Mappings are merged key by key; null removes a default, and an expectation is replaced as a whole."""
    found = ledger(
        a="""
        work: A
        defaults:
          {statement: S., study: one, quantity: made_up, unit: 1, expect: {within: 1}, cell: {x: 1, y: 2}}
        a1:
          statement: First.
          defaults: {study: two, cell: {y: 3}}
          cases:
            as-claim: {}
            own: {study: three, expect: {above: 2}, cell: {x: null, z: 4}}
            without: {cell: null, dimension: 50}
        """
    )
    cases = found["a1"]["cases"]
    assert {name: (case["study"], case.get("cell")) for name, case in cases.items()} == {
        "as-claim": ("two", {"x": 1, "y": 3}),
        "own": ("three", {"y": 3, "z": 4}),
        "without": ("two", None),
    }
    assert cases["own"]["reference"] == 2 and "margin" not in cases["own"]
    assert cases["as-claim"]["margin"] == 1 and "cell" not in cases["without"]


def test_for_of_a_claim_repeats_neighbouring_cases_label_by_label(ledger):
    found = ledger(
        a=of_one_claim(
            """
            for: {low: {d: 10}, high: {d: 50}}
            cases:
              "{for}": {statement: "At {d}.", dimension: "{d}"}
              "{for}-given": {dimensions: [1, "{d}"], cell: {place: "{for}"}}
              last: {statement: Once.}
            """
        )
    )["a1"]["cases"]
    assert list(found) == ["low", "low-given", "high", "high-given", "last"]
    assert found["high"]["statement"] == "At 50." and found["high"]["dimension"] == 50
    assert found["low-given"]["dimensions"] == [1, 10] and found["low-given"]["cell"] == {"place": "low"}


def test_for_of_a_case_repeats_it_within_that_of_the_claim(ledger):
    found = ledger(
        a=of_one_claim(
            """
            for: {p: {rule: p}, q: {rule: q}}
            defaults: {rule: "{rule}"}
            cases:
              "{rule}-{for}": {for: [1, 2], threshold: "{for}"}
            """
        )
    )["a1"]["cases"]
    assert {name: (case["rule"], case["threshold"]) for name, case in found.items()} == {
        "p-1": ("p", 1),
        "p-2": ("p", 2),
        "q-1": ("q", 1),
        "q-2": ("q", 2),
    }


def test_a_case_like_another_has_its_keys_under_its_own(ledger):
    found = ledger(
        a=of_one_claim(
            """
            cases:
              "{for}": {for: [p, q], form: "{for}", threshold: 1, cell: {x: 1}}
              "{for}-given": {for: [p, q], like: "{for}", threshold: 2, cell: {y: 1}}
              again: {like: p-given, threshold: 3}
            """
        )
    )["a1"]["cases"]
    assert [(found[name]["form"], found[name]["threshold"]) for name in ("q", "q-given", "again")] == [
        ("q", 1),
        ("q", 2),
        ("p", 3),
    ]
    assert found["again"]["cell"] == {"x": 1, "y": 1} and "like" not in found["again"]


def test_a_claim_like_another_has_its_cases_with_its_own_defaults(ledger):
    """The other claim may be in another file; work and statement are not copied, and additional cases come last."""
    found = ledger(
        a=of_one_claim("defaults: {rung: one, level: 1}\ncases: {p: {form: p}, q: {form: q}}"),
        b="""
        work: B
        defaults: {level: 2}
        b1: {statement: Second., like: a1, defaults: {rung: two}, cases: {p: {level: 3}, more: {level: 4}}}
        b2: {statement: Third., like: b1}
        """,
    )
    assert list(found["b1"]["cases"]) == ["p", "q", "more"]
    assert found["b1"]["cases"]["q"] == found["a1"]["cases"]["q"] | {"rung": "two"}
    assert found["b1"]["cases"]["p"] == found["a1"]["cases"]["p"] | {"rung": "two", "level": 3}
    assert found["b2"] == found["b1"] | {"statement": "Third."}
    assert found["b1"]["work"] == "B"


@pytest.mark.parametrize(
    ("expected", "test"),
    [
        ("positive", {"test": "superiority"}),
        ("negative", {"test": "superiority", "direction": "below"}),
        ("rises", {"test": "superiority", "direction": "above"}),
        ("falls", {"test": "superiority", "direction": "below"}),
        ({"above": 0.5}, {"test": "superiority", "reference": 0.5}),
        ({"below": 1}, {"test": "superiority", "direction": "below", "reference": 1}),
        ({"positive_by": 0.03}, {"test": "superiority", "margin": 0.03}),
        ({"within": 0.1}, {"test": "equivalence", "margin": 0.1}),
        ({"near": 3, "within": 0.1}, {"test": "equivalence", "reference": 3, "margin": 0.1}),
        ({"between": [0.8, 1.25]}, {"test": "equivalence", "reference": 1.025, "margin": 0.225}),
        (
            {"between": [0.1, 0.3]},
            {"test": "equivalence", "reference": 0.2, "margin": 0.1},
        ),  # binary: 0.09999999999999999
        ({"at": "r_X", "within": 0.5}, {"test": "location", "margin": 0.5}),
        ({"at": -2, "within": 1}, {"test": "location", "reference": -2, "margin": 1}),
        ({"identity": 1e-10}, {"test": "identity", "margin": 1e-10}),
    ],
    ids=str,
)
def test_an_expectation_is_a_test(expected, test):
    assert definitions.as_test(expected) == test


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        ("caes: {}", "a.yaml, a1: unknown key 'caes'; did you mean cases?"),
        ("work: B", "a.yaml, a1: a claim cannot have the key 'work', because all claims of a file are of its work, A"),
        ("cases: {p: {quantitty: x}}", "a.yaml, a1.p: unknown key 'quantitty'; did you mean quantity?"),
        ("cases: {p: {quantity: made_uq}}", "a.yaml, a1.p: quantity 'made_uq' is unknown; did you mean made_up?"),
        ("cases: {p: {test: location}}", "a.yaml, a1.p: unknown key 'test'; "),
        ("defaults: {windw: [0, 1]}\ncases: {p: {}}", "a.yaml, a1.p: unknown key 'windw'; did you mean window?"),
        ("cases: {p: {settings: {metrc: shell}}}", "a.yaml, a1.p.settings: unknown key 'metrc'; did you mean metric?"),
        ("cases: {p: {unit: null}}", "a.yaml, a1.p: the key 'unit' is missing"),
        (
            "cases: {p: {expect: {abve: 1}}}",
            "a.yaml, a1.p.expect: {'abve': 1} is no expectation of a known form; config/claims/README",
        ),
        ("cases: {p: {expect: {above: 1, within: 2}}}", "is no expectation"),
        ("cases: {p: {expect: {at: rX, within: 2}}}", "is no expectation"),
        ("cases: {p: {expect: higher}}", "a.yaml, a1.p.expect: 'higher' is no expectation"),
        ("like: b1", "a.yaml, a1: the key 'like' names 'b1', which is unknown; did you mean a1?"),
        ("like: a1", "a.yaml, a1: the key 'like' leads in a circle, a1 → a1; take it out of one of these"),
        ("cases: {pq: {like: pk}}", "a.yaml, a1.pq: the key 'like' names 'pk', which is unknown; did you mean pq?"),
        (
            "cases: {p: {like: q}, q: {like: p}}",
            "a.yaml, a1.p: the key 'like' leads in a circle, p → q → p; take it out of one of these",
        ),
        ("for: [p]\ncases: {'{for}': {unit: '{fro}'}}", "a.yaml, a1.p: unknown placeholder {fro}; did you mean for?"),
        ("cases: {'{for}': {}}", "a.yaml, a1.{for}: unknown placeholder {for}; define it under the key 'for'"),
        ("for: [p]\ncases: {p: {}, '{for}': {}}", "a.yaml, a1.p: there are two cases of this name; give each its own"),
    ],
)
def test_refuses(ledger, claim, message):
    assert message in refusal(ledger, a=of_one_claim(claim))


def refusal(ledger, **files: str) -> str:
    with pytest.raises(definitions.DefinitionError) as refused:
        ledger(**files)
    return str(refused.value)


def test_refuses_files_that_do_not_fit_together(ledger):
    message = refusal(ledger, a=of_one_claim(""), b="work: B\na1: {statement: Second.}")
    assert message.endswith("b.yaml, a1: a.yaml has a claim of this id, too; give one of them another id")


def test_refuses_a_file_that_holds_no_claims(ledger):
    assert "a.yaml: the key 'work' is missing" in refusal(ledger, a="a1: {statement: First.}")
    assert "a.yaml: unknown key 'ordre'; did you mean order?" in refusal(ledger, a="work: A\nordre: 1")
    assert "a.yaml, a1: the key 'statement' is missing" in refusal(ledger, a="work: A\na1: {}")


def test_refuses_a_circle_of_claims_across_files(ledger):
    b = "work: B\nb1: {statement: Second., like: a1}"
    assert "a.yaml, a1: the key 'like' leads in a circle, a1 → b1 → a1" in refusal(
        ledger, a=of_one_claim("like: b1"), b=b
    )
