"""Findings: answers to the project's questions, worded according to the verdicts of a run.

The wording is read from paper/findings.yaml. By default, answers are plain text with estimates such as `0.88 [0.87,
0.89]`. Callers that write another format pass functions that render the words and the estimates.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from goldilocks_zone.claims import synthesis
from goldilocks_zone.config import records
from goldilocks_zone.config.values import nearest
from goldilocks_zone.statistics import rounding

HELD, FAILED, OPEN = "held", "failed", "open"
OUTCOMES = {True: HELD, False: FAILED, None: OPEN}
KEYS = {"claims", "main", HELD, FAILED, OPEN}
OPENING = "whether "
PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
REMARK = re.compile(r" \((?:[^()]|\([^()]*\))*\)")  # in parentheses, which may hold others
Row = Mapping[str, str]


class FindingsError(ValueError):
    """An invalid file of findings; the message says in one sentence where, what, and what would be valid."""


@dataclass(frozen=True)
class Sentence:
    """A finding: the ids of the claims and cases that decide it, its outcome (held, failed or open), and its text.

    The text of an open finding is a clause that begins with `whether`. `main` marks the main findings.
    """

    claims: tuple[str, ...]
    outcome: str
    main: bool
    text: str


@dataclass(frozen=True)
class Answer:
    """The answer to a question. `name` is its key in the file of findings; `figures` names figures that support it."""

    name: str
    question: str
    sentences: tuple[Sentence, ...]
    figures: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """All sentences as running text, with the open ones last."""
        return joined(self.sentences)


def read(
    path: str | Path,
    rows: Iterable[Row],
    estimate: Callable[[Row], str] | None = None,
    words: Callable[[str], str] = str,
) -> list[Answer]:
    """Read the answers from the file of findings at `path`, worded according to a run's results.

    `rows` are those of the run's claims.csv. The function `estimate` renders the estimate in the row of a case; the
    default is `described`. The function `words` renders the text around estimates. Raises FindingsError if the file is
    invalid.
    """
    known = {row["id"]: row for row in rows if " " not in row["case"]}
    answers = []
    for name, entry in records.parse(Path(path).read_bytes()).items():
        place = f"{path}, {name}"
        if set(entry) - {"figures"} != {"question", "answer"}:
            asked = "question and answer, and may have figures"
            raise FindingsError(f"{place}: a question must have the keys {asked}; this one has {', '.join(entry)}")
        sentences = [_sentence(place, each, known, estimate or described, words) for each in entry["answer"]]
        answers.append(Answer(name, entry["question"], tuple(sentences), tuple(entry.get("figures", ()))))
    return answers


def main(answers: Iterable[Answer]) -> list[Sentence]:
    """The main sentences of all answers, in order."""
    return [sentence for answer in answers for sentence in answer.sentences if sentence.main]


def joined(sentences: Iterable[Sentence]) -> str:
    """Join `sentences` into running text: those that held or failed, then one sentence that lists all open ones."""
    sentences = list(sentences)
    decided = [sentence.text for sentence in sentences if sentence.outcome != OPEN]
    clauses = [sentence.text for sentence in sentences if sentence.outcome == OPEN]
    if clauses:
        listed = ", and ".join([", ".join(clauses[:-1]), clauses[-1]] if len(clauses) > 1 else clauses)
        decided.append(f"This run leaves open {listed}.")
    return " ".join(decided)


def described(row: Row) -> str:
    """Estimate and interval of a case as plain text, such as `0.88 [0.87, 0.89]`, or `not computed`.

    `row` is the case's row of claims.csv. The interval is left out if it has no width.
    """
    if not row["estimate"]:
        return "not computed"
    value, low, high = (float(row[key]) for key in ("estimate", "low", "high"))
    if not low < high:
        return rounding.rounded(value, low, high)
    value, low, high = rounding.in_interval(value, low, high)
    return f"{value} [{low}, {high}]"


def _sentence(
    place: str, entry: dict, known: dict[str, Row], estimate: Callable[[Row], str], words: Callable[[str], str]
) -> Sentence:
    _check(place, entry, known)
    outcome = OUTCOMES[synthesis.state(known[name]["verdict"] for name in entry["claims"])]
    chosen = entry[outcome]
    if outcome == OPEN:
        # A run that is too small for a verdict may also lack the estimate.
        chosen = REMARK.sub(lambda found: found[0] if _is_estimated(found[0], known) else "", chosen)
    parts = PLACEHOLDER.split(chosen)
    written = [estimate(known[part]) if i % 2 else words(part) for i, part in enumerate(parts)]
    return Sentence(tuple(entry["claims"]), outcome, entry.get("main", False), "".join(written))


def _is_estimated(text: str, known: dict[str, Row]) -> bool:
    return all(known[name]["estimate"] for name in PLACEHOLDER.findall(text))


def _check(place: str, entry: dict, known: dict[str, Row]) -> None:
    """Raise FindingsError if `entry`, a sentence in a file of findings, is invalid.

    It is invalid if keys are missing or unknown, or if it names a claim or case that is not in `known`, {id: row}. It
    is also invalid if the words for an outcome are not a sentence (held, failed) or a clause with `whether` (open).
    `place` begins the message.
    """
    if unknown := [key for key in entry if key not in KEYS]:
        raise FindingsError(f"{place}: unknown key {unknown[0]!r}; {nearest(unknown[0], KEYS)}")
    if missing := [key for key in ("claims", HELD, FAILED, OPEN) if not entry.get(key)]:
        raise FindingsError(f"{place}: the key {missing[0]!r} is missing; a sentence needs words for every outcome")
    for name in entry["claims"]:
        if name not in known:
            raise FindingsError(f"{place}: there is no claim or case {name!r}; {nearest(name, known)}")
    for name in PLACEHOLDER.findall(entry[HELD] + entry[FAILED] + entry[OPEN]):
        if not known.get(name, {}).get("case"):
            cases = [each for each, row in known.items() if row["case"]]
            raise FindingsError(f"{place}: there is no case {name!r} to quote; {nearest(name, cases)}")
    for outcome in (HELD, FAILED):
        if not entry[outcome].endswith("."):
            raise FindingsError(f"{place}: the words for {outcome!r} must be a sentence; end them with a full stop")
    if not entry[OPEN].startswith(OPENING) or entry[OPEN].endswith("."):
        raise FindingsError(
            f"{place}: the words for 'open' must be a clause; begin with {OPENING.strip()!r} and end without a full "
            "stop"
        )
