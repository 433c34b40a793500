"""Types of the configuration's values, stricter than Python's and with messages of their own."""

import math
import re
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

T = TypeVar("T")
# Marks keys of a study that `vary` may give several values.
VARIES = object()
Varied = Annotated[T, VARIES]


class Section(BaseModel):
    """Base of all sections: frozen, without unknown keys or conversion of types."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_other_keys(cls, given: object) -> object:
        """Tell the known keys, and the meaning of a missing one, where pydantic would only name the key."""
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
    """Description of a key, in one line."""
    return " ".join((field.description or "").split())


def refuse(sentence: str) -> None:
    """Raise the error of a validator, a sentence without the key's path and, unlike a ValueError's, without prefix."""
    raise PydanticCustomError("refused", "{sentence}", {"sentence": sentence})


def _finite_number(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise PydanticCustomError("number_type", "no number")
    return value


def _each_once(items: list) -> list:
    if len(set(items)) < len(items):
        refuse(f"{items} names something twice; name each once")
    return items


def _name(value: str) -> str:
    if not re.fullmatch("[a-z0-9_]+", value):
        refuse(f"{value!r} is not valid here; use lower-case letters, digits and underscores")
    return value


def _free_name(value: str) -> str:
    if value in ("data", "benchmarks"):
        refuse(f"{value!r} is not valid here; that name is taken")
    return _name(value)


# A whole number stays one, in records and along axes.
Number = Annotated[int | float, BeforeValidator(_finite_number)]
Positive = Annotated[Number, Field(gt=0), WithJsonSchema({"type": "number", "exclusiveMinimum": 0})]
NonNegative = Annotated[Number, Field(ge=0), WithJsonSchema({"type": "number", "minimum": 0})]
Count = Annotated[int, Field(ge=1)]
Amount = Annotated[int, Field(ge=0)]
Unique = Annotated[list[T], AfterValidator(_each_once), Field(json_schema_extra={"uniqueItems": True})]
Several = Annotated[Unique[T], Field(min_length=1)]
Name = Annotated[str, AfterValidator(_name), Field(json_schema_extra={"pattern": "^[a-z0-9_]+$"})]
RunName = Annotated[str, AfterValidator(_free_name)]
