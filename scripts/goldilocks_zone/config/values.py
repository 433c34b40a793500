"""Types of configuration values, stricter than Python's, and one-sentence messages for invalid values."""

import difflib
import math
import re
from collections.abc import Iterable
from typing import Annotated, Any, NoReturn, TypeVar

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
    """Base class of all sections of the configuration; a section cannot be changed after its validation.

    Unknown keys and values of another type are refused; types are not converted.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_other_keys(cls, given: object) -> object:
        """Refuse a section with unknown or missing keys; otherwise, return it unchanged.

        `given` is the section before validation. The error lists the known keys, or gives the meaning of the missing
        key. Without this method, pydantic would only name the key.
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
    """Description of a configuration key, on one line, from its pydantic `field`."""
    return " ".join((field.description or "").split())


def refuse(sentence: str) -> NoReturn:
    """Raise a validation error with the message `sentence`.

    A ValueError would get a prefix from pydantic. The path of the key is added to the message later, by the function
    `sentence`.
    """
    raise PydanticCustomError("refused", "{sentence}", {"sentence": sentence})


def refuse_other_than_plain(node: object) -> None:
    """Raise a validation error unless `node` is text, a number, a boolean or None, or a list or section of these.

    Keys of sections must be text.
    """
    if isinstance(node, dict):
        if other := [key for key in node if not isinstance(key, str)]:
            refuse(f"the name {other[0]!r} must be text; put it in quotes")
        node = list(node.values())
    if isinstance(node, list | tuple):
        for each in node:
            refuse_other_than_plain(each)
    elif not isinstance(node, str | int | float | None):
        refuse(f"{node} is neither text nor a number, true or false, nor a list or section of these; put it in quotes")


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
    """Error: the configuration is invalid. The message is one sentence with the path of the key."""


def sentence(error: ValidationError, given: dict) -> str:
    """Message on the first mistake in the settings `given`, in one sentence, from pydantic's `error`."""
    errors = [(*_places(each, given), each) for each in error.errors(include_url=False)]
    # A study's kind first: it decides the other keys.
    start, _, _ = min(errors, key=lambda each: ("kind" not in each[1], list(map(str, each[0]))))
    # Where several types are allowed, report the deepest error, preferably one of the right type.
    _, path, found = max(
        (each for each in errors if each[0] == start), key=lambda each: (len(each[1]), each[2]["type"] not in TYPES)
    )
    return _sentence(".".join(map(str, path)), found)


def _places(error: ErrorDetails, given: Any) -> tuple[tuple, tuple]:
    """Path of the key that an `error` is about, in two forms, each a tuple of keys.

    The second form is the full path. The first form ends at the first key for which several types are allowed, if there
    is one. Pydantic inserts names of types into its own paths, which are left out here. `given` has the settings.
    """
    path, start = [], None
    keys: tuple[Any, ...] = error["loc"]
    for key in keys:
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
