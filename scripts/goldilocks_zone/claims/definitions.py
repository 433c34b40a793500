"""Read the claims: short files, one for each work, into one full dictionary for each claim.

The format is described in config/claims/README.md. A run's verdicts are bound to the dictionaries, of which
`claims_hash` is taken, not to the files: a file may be rewritten as long as it says the same.
"""

import difflib
import itertools
import re
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path

import yaml

from goldilocks_zone.claims import quantities

FILE_KEYS = ("work", "order", "defaults")
CLAIM_KEYS = ("statement", "like", "reason", "open", "defaults", "for", "cases")
REQUIRED = ("statement", "study", "quantity", "expect", "unit")
# Keys that say which cells a case is judged on and how; its quantity has further ones.
CASE_KEYS = (
    *REQUIRED,
    *(
        "like",
        "for",
        "also",
        "cell",
        "settings",
        "every",
        "over",
        "holds_for",
        "beside",
        "rate_of",
        "family",
        "control",
    ),
)
SIGNS = {
    "positive": {},
    "negative": {"direction": "below"},
    "rises": {"direction": "above"},
    "falls": {"direction": "below"},
}
ORIGINS = ("r_X", "published")  # names for the zero of a place
PLACEHOLDER = re.compile(r"\{(\w+)\}")
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class DefinitionError(ValueError):
    """A claims file is invalid; the message is one sentence that says where, what and what would be valid."""


def load(folder: str | Path) -> dict[str, dict]:
    """Every claim of a folder of claims files, by id: its work, its statement and its cases with all their keys."""
    files = {path: yaml.load(path.read_bytes(), LOADER) for path in sorted(Path(folder).glob("*.yaml"))}
    claims, places = {}, {}
    for path, file in sorted(files.items(), key=lambda item: (item[1].get("order", float("inf")), item[0])):
        if not isinstance(file.get("work"), str):
            raise DefinitionError(f"{path}: the key 'work' is missing; say which work the claims are of")
        for name, claim in file.items():
            if name in FILE_KEYS:
                continue
            if not isinstance(claim, dict):
                raise DefinitionError(f"{path}: unknown key {name!r}; {_nearest(name, FILE_KEYS)}")
            if name in claims:
                raise DefinitionError(f"{path}, {name}: the claim is in {places[name].name}, too; give it another id")
            _check_claim(f"{path}, {name}", claim, file["work"])
            places[name] = path
            claims[name] = {**claim, "work": file["work"]}
    bases = {name: files[path].get("defaults", {}) for name, path in places.items()}
    return {name: _expanded(f"{places[name]}, {name}", name, claims, bases) for name in claims}


def _check_claim(place: str, claim: dict, work: str) -> None:
    if "work" in claim:
        raise DefinitionError(
            f"{place}: a claim has the work of its file, {work}; one of another work is in its own file"
        )
    _refuse_unknown(place, claim, CLAIM_KEYS)
    if "statement" not in claim:
        raise DefinitionError(f"{place}: the key 'statement' is missing")


def _refuse_unknown(place: str, keys: dict, valid: tuple[str, ...]) -> None:
    for key in keys:
        if key not in valid:
            raise DefinitionError(f"{place}: unknown key {key!r}; {_nearest(key, valid)}")


def _nearest(name: object, valid: Iterable[str]) -> str:
    close = difflib.get_close_matches(str(name), valid, n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else f"valid are {', '.join(valid)}"


def _expanded(place: str, name: str, claims: dict[str, dict], bases: dict[str, dict]) -> dict:
    claim = _inherited(place, name, claims, bases, ())
    kept = {key: claim[key] for key in ("work", "statement", "reason", "open") if key in claim}
    repeated = _repeated(place, claim)
    own = {case: keys for case, (_, keys) in repeated.items()}
    cases = {}
    for case, (values, _) in repeated.items():
        here = f"{place}.{case}"
        keys = merged(claim["defaults"], _liked(here, case, own, ()))
        cases[case] = _checked(here, _pruned(_filled(here, keys, values)))
    return {**kept, "cases": cases} if cases else kept


def _inherited(place: str, name: str, claims: dict, bases: dict, seen: tuple[str, ...]) -> dict:
    """A claim with the defaults of its file, and with the defaults, loop and cases of the claim that it is like."""
    claim = claims[name]
    liked = {}
    if "like" in claim:
        _refuse_like(place, claim["like"], claims, (*seen, name))
        liked = _inherited(place, claim["like"], claims, bases, (*seen, name))
    defaults = merged(merged(bases[name], liked.get("defaults", {})), claim.get("defaults", {}))
    cases = merged(liked.get("cases", {}), claim.get("cases", {}))
    return {**{"for": liked.get("for", {})}, **claim, "defaults": defaults, "cases": cases}


def _liked(place: str, case: str, own: dict[str, dict], seen: tuple[str, ...]) -> dict:
    """The keys of a case on top of those of the case that it is like."""
    keys = {key: value for key, value in own[case].items() if key != "like"}
    if "like" not in own[case]:
        return keys
    _refuse_like(place, own[case]["like"], own, (*seen, case))
    return merged(_liked(place, own[case]["like"], own, (*seen, case)), keys)


def _refuse_like(place: str, name: str, known: dict, seen: tuple[str, ...]) -> None:
    if name not in known:
        raise DefinitionError(f"{place}: like {name!r} is unknown; {_nearest(name, known)}")
    if name in seen:
        raise DefinitionError(f"{place}: like is circular, {' → '.join((*seen, name))}")


def merged(base: dict, top: dict) -> dict:
    """The keys of `base` with those of `top` over them, mappings key by key; an expectation is replaced as a whole."""
    result = dict(base)
    for key, value in top.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict) and key != "expect"
        result[key] = merged(base[key], value) if both else value
    return result


def _pruned(value: object) -> object:
    """Without the keys that are null: a case writes null to do without a default."""
    if not isinstance(value, dict):
        return value
    return {key: _pruned(each) for key, each in value.items() if each is not None}


def _repeated(place: str, claim: dict) -> dict[str, tuple[dict, dict]]:
    """For each case of a claim the values of its placeholders, and its keys with them filled in.

    The `for` of a claim repeats every run of neighbouring cases with a placeholder in their names, label by label;
    that of a case repeats the case.
    """
    found = {}
    for has_placeholder, run in itertools.groupby(claim["cases"], lambda name: bool(PLACEHOLDER.search(name))):
        loops = _loops(claim["for"]) if has_placeholder else [{}]
        for outer, template in itertools.product(loops, list(run)):
            keys = dict(claim["cases"][template])
            for inner in _loops(keys.pop("for", ())):
                values = outer | inner
                name = _filled(f"{place}.{template}", template, values)
                if name in found:
                    raise DefinitionError(f"{place}.{name}: there are two cases of this name; give each its own")
                found[name] = values, _filled(f"{place}.{name}", keys, values)
    return found


def _loops(labels: dict | list) -> list[dict]:
    """Values of placeholders for each label of a `for`, itself among them; one set without any where there is none."""
    named = labels if isinstance(labels, dict) else {label: {} for label in labels}
    return [{"for": label, **values} for label, values in named.items()] or [{}]


def _filled(place: str, value: object, values: dict) -> object:
    """Any value with its placeholders filled in; one that is a placeholder alone becomes the value with its type."""
    if isinstance(value, dict):
        return {key: _filled(place, each, values) for key, each in value.items()}
    if isinstance(value, list):
        return [_filled(place, each, values) for each in value]
    if not isinstance(value, str):
        return value
    for name in PLACEHOLDER.findall(value):
        if name not in values:
            advice = _nearest(name, values) if values else "there is no for"
            raise DefinitionError(f"{place}: unknown placeholder {{{name}}}; {advice}")
    whole = PLACEHOLDER.fullmatch(value)
    return values[whole[1]] if whole else PLACEHOLDER.sub(lambda found: str(values[found[1]]), value)


def _checked(place: str, case: dict) -> dict:
    """A case in full: known keys alone, and its test in place of what it expects."""
    for key in REQUIRED:
        if key not in case:
            raise DefinitionError(f"{place}: the key {key!r} is missing")
    if case["quantity"] not in quantities.known():
        advice = _nearest(case["quantity"], quantities.known())
        raise DefinitionError(f"{place}: quantity {case['quantity']!r} is unknown; {advice}")
    keys = quantities.keys(case["quantity"])
    _refuse_unknown(place, case, (*CASE_KEYS, *keys))
    for key, is_needed in keys.items():
        if is_needed and key not in case:
            raise DefinitionError(f"{place}: the key {key!r} is missing; {case['quantity']} needs it")
    expected = case.pop("expect")
    try:
        return {**case, **as_test(expected)}
    except (KeyError, TypeError, ValueError, ArithmeticError):
        raise DefinitionError(f"{place}.expect: {expected!r} is no expectation; see config/claims/README.md") from None


def as_test(expected: str | dict) -> dict:
    """The test of an expectation: kind, and where they matter reference, margin and direction.

    Middle and half-width of an interval are computed in decimal: binary fractions would round them.
    """
    if isinstance(expected, str):
        return {"test": "superiority", **SIGNS[expected]}
    match expected:
        case {"above": reference, **rest} if not rest:
            return {"test": "superiority", "reference": reference}
        case {"below": reference, **rest} if not rest:
            return {"test": "superiority", "direction": "below", "reference": reference}
        case {"positive_by": margin, **rest} if not rest:
            return {"test": "superiority", "margin": margin}
        case {"between": [low, high], **rest} if not rest:
            low, high = Decimal(repr(low)), Decimal(repr(high))
            return {"test": "equivalence", "reference": float((low + high) / 2), "margin": float((high - low) / 2)}
        case {"near": reference, "within": margin, **rest} if not rest:
            return {"test": "equivalence", "reference": reference, "margin": margin}
        case {"within": margin, **rest} if not rest:
            return {"test": "equivalence", "margin": margin}
        case {"at": place, "within": margin, **rest} if not rest:
            return {"test": "location", "margin": margin} | ({} if place in ORIGINS else {"reference": +place})
        case {"identity": margin, **rest} if not rest:
            return {"test": "identity", "margin": margin}
    raise ValueError(expected)
