"""Definitions of the claims: read one file for each work, and expand its short form to a dictionary for each claim.

config/claims/README.md describes the format. `evaluate.claims_hash` hashes the expanded dictionaries, so that a file
may be rewritten freely as long as its meaning is unchanged.
"""

import itertools
import re
from collections.abc import Collection, Iterable
from decimal import Decimal
from pathlib import Path

from goldilocks_zone.claims import cells, needs, quantities
from goldilocks_zone.config import records
from goldilocks_zone.config.values import nearest

FILE_KEYS = ("work", "order", "defaults", "needs")
CLAIM_KEYS = ("statement", "like", "reason", "open", "defaults", "for", "cases")
REQUIRED = ("statement", "study", "quantity", "expect", "unit")
# Keys that determine on which cells a case is judged and how; its quantity adds further keys.
CASE_KEYS = (
    *(*REQUIRED, "like", "for", "also", "cell", "settings", "every", "over"),
    *("holds_for", "beside", "rate_of", "family", "control", "needs"),
)
BELOW = {"direction": "below"}
SIGNS = {"positive": {}, "negative": BELOW, "rises": {"direction": "above"}, "falls": BELOW}
ORIGINS = ("r_X", "published")  # words for the place 0 of a quantity that is relative to them
PLACEHOLDER = re.compile(r"\{(\w+)\}")


class DefinitionError(ValueError):
    """An invalid claims file; the message says in one sentence where, what, and what would be valid."""


def load(folder: str | Path) -> dict[str, dict]:
    """Load all claims in a folder of claims files, as {id: claim}, with their short forms expanded.

    A claim is a dictionary with the keys work and statement and, where given, reason, open and cases. Cases, {name:
    case}, are complete: defaults, loops and keys inherited through `like` have been filled in. Claims are sorted by the
    key `order` of their files. Raises DefinitionError if a file is invalid.
    """
    files = {path: records.parse(path.read_bytes()) for path in sorted(Path(folder).glob("*.yaml"))}
    claims, places = {}, {}
    for path, file in sorted(files.items(), key=lambda item: item[1].get("order", float("inf"))):
        if "work" not in file:
            raise DefinitionError(f"{path}: the key 'work' is missing; say which work the claims are of")
        for name, claim in file.items():
            if name in FILE_KEYS:
                continue
            if not isinstance(claim, dict):
                raise DefinitionError(f"{path}: unknown key {name!r}; {nearest(name, FILE_KEYS)}")
            if name in claims:
                raise DefinitionError(
                    f"{path}, {name}: {places[name].name} has a claim of this id, too; give one of them another id"
                )
            if "work" in claim:
                other = "move claims of another work to a file of that work"
                raise DefinitionError(
                    f"{path}, {name}: a claim cannot have the key 'work', because all claims of a file are of its "
                    f"work, {file['work']}; {other}"
                )
            _check_keys(f"{path}, {name}", claim, CLAIM_KEYS, ["statement"])
            places[name] = path
            usual = {"for": (), "defaults": {}, "cases": {}, "file_defaults": file.get("defaults", {})}
            claims[name] = {**usual, **claim, "work": file["work"]}
    needed = _needs(files)
    return {name: _expanded(f"{path}, {name}", name, claims, needed) for name, path in places.items()}


def _needs(files: dict[Path, dict]) -> dict[str, dict]:
    """Collect the key `needs` of all files, as {study: needs}: what the study's cases require for a verdict.

    `files` maps paths to parsed contents. Raises DefinitionError if two files define the needs of the same study.
    """
    found = {}
    for path, file in files.items():
        for study, given in file.get("needs", {}).items():
            if study in found:
                raise DefinitionError(
                    f"{path}, needs: another file also has the needs of the study {study}; keep one of them"
                )
            found[study] = given
    return found


def _check_keys(place: str, given: dict, valid: Collection[str], needed: Iterable[str] = (), by: str = "") -> None:
    for key in given:
        if key not in valid:
            raise DefinitionError(f"{place}: unknown key {key!r}; {nearest(key, valid)}")
    for key in needed:
        if key not in given:
            raise DefinitionError(f"{place}: the key {key!r} is missing{by}")


def _expanded(place: str, name: str, claims: dict[str, dict], needed: dict[str, dict]) -> dict:
    chain = [claims[each] for each in _likes(place, name, claims)]
    claim = chain[-1]
    defaults = _laid([each[key] for key in ("file_defaults", "defaults") for each in chain])
    cases = _laid([each["cases"] for each in chain])
    loop = next((each["for"] for each in reversed(chain) if each["for"]), ())
    repeated = _repeated(place, cases, loop)
    own = {case: keys for case, (_, keys) in repeated.items()}
    full = {}
    for case, (values, _) in repeated.items():
        here = f"{place}.{case}"
        keys = _laid([defaults, *(own[each] for each in _likes(here, case, own))])
        keys = records.without_nulls(_filled(here, keys, values))
        of_study = {"needs": needed[keys["study"]]} if keys.get("study") in needed else {}
        full[case] = _checked(here, _laid([of_study, keys]))
        others = [study for study in keys.get("also", ()) if study in needed]
        if others:
            laid = {study: _laid([of_study, {"needs": needed[study]}, keys])["needs"] for study in others}
            full[case]["needs_also"] = laid
    kept = {key: claim[key] for key in ("work", "statement", "reason", "open") if key in claim}
    return {**kept, "cases": full} if full else kept


def _likes(place: str, name: str, known: dict[str, dict]) -> list[str]:
    """Names of the claims or cases from which `name` inherits through the key `like`, from the root to `name` itself.

    `known` maps names to definitions, and `place` begins error messages. Raises DefinitionError for an unknown name or
    a circle.
    """
    chain = [name]
    while "like" in (latest := known[chain[0]]):
        liked = latest["like"]
        if liked not in known:
            raise DefinitionError(f"{place}: the key 'like' names {liked!r}, which is unknown; {nearest(liked, known)}")
        if liked in chain:
            circle = " → ".join([*reversed(chain), liked])
            raise DefinitionError(f"{place}: the key 'like' leads in a circle, {circle}; take it out of one of these")
        chain.insert(0, liked)
    return chain


def _laid(layers: Iterable[dict]) -> dict:
    """Merge dictionaries recursively; later `layers` take precedence. The key `expect` is replaced as a whole."""
    result = {}
    for layer in layers:
        for key, value in layer.items():
            both = isinstance(value, dict) and isinstance(result.get(key), dict) and key != "expect"
            result[key] = _laid([result[key], value]) if both else value
    return result


def _repeated(place: str, cases: dict[str, dict], loop: dict | Iterable) -> dict[str, tuple[dict, dict]]:
    """Repeat the `cases` of a claim for the labels of its loops, as {name of the case: (placeholder values, keys)}.

    A loop is the value of a key `for` (see `_loops`). In each repetition, placeholders in the names and keys of cases
    are replaced. `loop`, the loop of the claim, repeats neighbouring cases with placeholders in their names as a group:
    all of them for the first label, then all for the second, and so on. The loop of a case repeats this case alone.
    `place` names the claim in messages. Raises DefinitionError if two cases have the same name.
    """
    found = {}
    for has_placeholder, run in itertools.groupby(cases, lambda name: bool(PLACEHOLDER.search(name))):
        for outer, template in itertools.product(_loops(loop) if has_placeholder else [{}], list(run)):
            keys = dict(cases[template])
            for inner in _loops(keys.pop("for", ())):
                values = outer | inner
                name = _filled(f"{place}.{template}", template, values)
                if name in found:
                    raise DefinitionError(f"{place}.{name}: there are two cases of this name; give each its own")
                found[name] = values, _filled(f"{place}.{name}", keys, values)
    return found


def _loops(labels: dict | Iterable) -> list[dict]:
    """Values of the placeholders in each repetition of a loop, as a list of dictionaries {placeholder: value}.

    `labels`, the value of a key `for`, is {label: values} or a list of labels. There is one repetition for each label;
    the placeholder `for` stands for the label itself. Without labels, the result is [{}], one repetition.
    """
    named = labels if isinstance(labels, dict) else {label: {} for label in labels}
    return [{"for": label, **values} for label, values in named.items()] or [{}]


def _filled(place: str, value: object, values: dict) -> object:
    """Replace each placeholder {name} by `values[name]` in all texts within a `value`, at any depth.

    A text that is nothing but a placeholder becomes the value of this placeholder, which may be of any type. Raises
    DefinitionError for an unknown placeholder; `place` begins its message.
    """
    if isinstance(value, dict):
        return {key: _filled(place, each, values) for key, each in value.items()}
    if isinstance(value, list):
        return [_filled(place, each, values) for each in value]
    if not isinstance(value, str):
        return value
    for name in PLACEHOLDER.findall(value):
        if name not in values:
            advice = nearest(name, values) if values else "define it under the key 'for'"
            raise DefinitionError(f"{place}: unknown placeholder {{{name}}}; {advice}")
    whole = PLACEHOLDER.fullmatch(value)
    return values[whole[1]] if whole else PLACEHOLDER.sub(lambda found: str(values[found[1]]), value)


def _checked(place: str, case: dict) -> dict:
    """Check the keys of a case, and replace its key `expect` by the keys of its test (see `as_test`).

    Returns the case without its key `like`. Raises DefinitionError for unknown or missing keys and invalid
    expectations; `place` begins its message.
    """
    case.pop("like", None)
    known, quantity = quantities.known(), case.get("quantity")
    if quantity is not None and quantity not in known:
        raise DefinitionError(f"{place}: quantity {quantity!r} is unknown; {nearest(quantity, known)}")
    keys = quantities.keys(quantity) if quantity else {}
    _check_keys(place, case, (*CASE_KEYS, *keys), REQUIRED)
    _check_keys(f"{place}.settings", case.get("settings", {}), cells.VARIED)
    _check_keys(f"{place}.needs", case.get("needs", {}), needs.COUNTS)
    _check_keys(place, case, case, (key for key in keys if keys[key]), f"; {quantity} needs it")
    expected = case.pop("expect")
    try:
        return {**case, **as_test(expected)}
    except (KeyError, TypeError, ArithmeticError, ValueError):
        raise DefinitionError(
            f"{place}.expect: {expected!r} is no expectation of a known form; config/claims/README.md lists the forms"
        ) from None


def as_test(expected: str | dict) -> dict:
    """Translate an expectation into the keys of a test: `test`, its kind, and maybe reference, margin and direction.

    `expected` is the value of a case's key `expect`, in one of the forms that config/claims/README.md lists. The
    midpoint and half-width of an interval {between: [low, high]} are computed in decimal, because binary fractions
    would round them. Raises KeyError for an unknown word, ValueError for an unknown mapping, TypeError or
    ArithmeticError for invalid numbers.
    """
    if isinstance(expected, str):
        return {"test": "superiority", **SIGNS[expected]}
    match sorted(expected.items()):
        case [("above", reference)]:
            return {"test": "superiority", "reference": reference}
        case [("below", reference)]:
            return {"test": "superiority", "direction": "below", "reference": reference}
        case [("positive_by", margin)]:
            return {"test": "superiority", "margin": margin}
        case [("between", ends)]:
            low, high = (Decimal(str(end)) for end in ends)
            return {"test": "equivalence", "reference": float((low + high) / 2), "margin": float((high - low) / 2)}
        case [("near", reference), ("within", margin)]:
            return {"test": "equivalence", "reference": reference, "margin": margin}
        case [("within", margin)]:
            return {"test": "equivalence", "margin": margin}
        case [("at", place), ("within", margin)]:
            return {"test": "location", "margin": margin} | ({} if place in ORIGINS else {"reference": +place})
        case [("identity", margin)]:
            return {"test": "identity", "margin": margin}
    raise ValueError(expected)
