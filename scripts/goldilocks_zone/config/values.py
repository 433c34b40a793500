"""Types of configuration values, stricter than Python's, and one-sentence messages for invalid values."""

import difflib
import math
import re
from collections.abc import Iterable
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError, ValidationError

# Names of types in messages, by pydantic's types of errors.
TYPES = {
    "bool_type": "boolean (true or false)",
    "dict_type": "object (keys with values)",
    "int_type": "integer",
    "list_type": "array (a list, as [a, b])",
    "model_type": "object (keys with values)",
    "number_type": "number",
    "string_type": "string (text)",
}
LIMITS = {
    "greater_than": ("must be greater than", "gt"),
    "greater_than_equal": ("must be at least", "ge"),
    "less_than": ("must be less than", "lt"),
    "less_than_equal": ("must be at most", "le"),
}

T = TypeVar("T")
# Marks the keys of a study that may have several values in `vary`.
VARIES = object()
Varied = Annotated[T, VARIES]


class Section(BaseModel):
    """Base of all sections: frozen, without unknown keys or conversion of types."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_other_keys(cls, given: object) -> object:
        """Refuse unknown and missing keys of a section, naming the known keys or the meaning of the missing one.

        `given` is the section before validation. Without this, pydantic would only name the key.
        """
        if not isinstance(given, dict):
            return given
        for key in given:
            if key not in cls.model_fields:
                raise PydanticCustomError("unknown_key", "{key}", {"key": key, "known": list(cls.model_fields)})
        for key, field in cls.model_fields.items():
            if field.is_required() and key not in given:
                raise PydanticCustomError("missing_key", "{key}", {"key": key, "meaning": meaning(field)})
        return given


def meaning(field: FieldInfo) -> str:
    """Description of a key in the configuration, given its pydantic `field`, on one line."""
    return " ".join((field.description or "").split())


def refuse(sentence: str) -> None:
    """Raise a validation error whose message is a `sentence`.

    A ValueError would get a prefix from pydantic. The path of the key is added later, by the function `sentence`.
    """
    raise PydanticCustomError("refused", "{sentence}", {"sentence": sentence})


def _finite_number(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise PydanticCustomError("number_type", "no number")
    return value


def _each_once(items: list) -> list:
    if len(set(items)) < len(items):
        refuse(f"{items} contains an entry twice; name each once")
    return items


def _name(value: str) -> str:
    if not re.fullmatch("[a-z0-9_]+", value):
        refuse(f"{value!r} is not valid here; use lower-case letters, digits and underscores")
    return value


def _free_name(value: str) -> str:
    if value in ("data", "benchmarks"):
        refuse(f"{value!r} is not valid here; this name is reserved, so choose another")
    return _name(value)


# An integer stays an integer, in records and along axes.
Number = Annotated[int | float, BeforeValidator(_finite_number)]
Positive = Annotated[Number, Field(gt=0), WithJsonSchema({"type": "number", "exclusiveMinimum": 0})]
NonNegative = Annotated[Number, Field(ge=0), WithJsonSchema({"type": "number", "minimum": 0})]
Count = Annotated[int, Field(ge=1)]
Amount = Annotated[int, Field(ge=0)]
Unique = Annotated[list[T], AfterValidator(_each_once), Field(json_schema_extra={"uniqueItems": True})]
Several = Annotated[Unique[T], Field(min_length=1)]
Name = Annotated[str, AfterValidator(_name), Field(json_schema_extra={"pattern": "^[a-z0-9_]+$"})]
RunName = Annotated[str, AfterValidator(_free_name)]


class ConfigurationError(ValueError):
    """An invalid configuration; the message is one sentence with the key's path."""


def sentence(error: ValidationError, given: dict) -> str:
    """Message, in one sentence, on the first mistake that pydantic's `error` reports in the settings `given`."""
    errors = [(*_places(each, given), each) for each in error.errors(include_url=False)]
    # A study's kind first: it decides the other keys.
    start, _, _ = min(errors, key=lambda each: ("kind" not in each[1], list(map(str, each[0]))))
    # Where several types are allowed, report the deepest error, preferably one of the right type.
    _, path, found = max(
        (each for each in errors if each[0] == start), key=lambda each: (len(each[1]), each[2]["type"] not in TYPES)
    )
    return _sentence(".".join(map(str, path)), found)


def _places(error: ErrorDetails, given: object) -> tuple[tuple, tuple]:
    """Two paths of the key that an `error` is about: up to the first union of types, and in full.

    Both are without the names of types that pydantic inserts. `given` has the settings.
    """
    path, start = [], None
    for key in error["loc"]:
        if isinstance(given, dict | list) and (key in given if isinstance(given, dict) else isinstance(key, int)):
            path.append(key)
            given = given[key]
        elif key == "[key]":
            path.pop()
        elif start is None:
            start = tuple(path)
    return tuple(path) if start is None else start, tuple(path)


def _sentence(path: str, error: ErrorDetails) -> str:
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    place = path or "the configuration"
    if kind == "unknown_key":
        unknown = f"{path}.{context['key']}" if path else context["key"]
        return f"{unknown}: this key is unknown; {nearest(context['key'], context['known'])}"
    if kind == "missing_key":
        advice = f"add it: {context['meaning']}" if context["meaning"] else "add it"
        return f"{place}: the key {context['key']} is missing; {advice}"
    if kind in ("literal_error", "unknown_value"):
        valid = context["known"] if kind == "unknown_value" else re.findall("'([^']*)'", context["expected"])
        return f"{place}: {value!r} is not valid here; {nearest(value, valid)}"
    if kind in TYPES:
        is_number = isinstance(value, str) and re.fullmatch(r"[-+]?[0-9.]+[eE][-+]?[0-9]+", value)
        advice = "; YAML takes it for text, write 0.001 or 1.0e-3" if is_number else ""
        return f"{place}: {value!r} has the wrong type; a value of type {TYPES[kind]} is needed{advice}"
    if kind in LIMITS:
        limit, name = LIMITS[kind]
        return f"{place}: {value!r} is impossible; it {limit} {context[name]}"
    if kind == "too_short":
        what = "section" if isinstance(value, dict) else "list"
        state = "too short" if value else "empty"
        return f"{place}: the {what} is {state}; it needs {context['min_length']} or more entries"
    return f"{place}: {error['msg']}"


def nearest(value: object, valid: Iterable) -> str:
    """Text that suggests the valid name closest to `value`, or lists all valid names if none is close."""
    names = [str(name) for name in valid]
    close = difflib.get_close_matches(str(value), names, n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else f"valid are {', '.join(names)}"
