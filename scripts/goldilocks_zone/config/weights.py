"""Trained weights that a study names: files identified by their content and labelled by their names."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, WithJsonSchema

from goldilocks_zone.config.values import Section, refuse
from goldilocks_zone.provenance import fingerprints

INITIALISATIONS = "none"  # stands for the random initialisations, in a list of files and as a label
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=+-]*")


class Weights(Section, title="Weights"):
    """A file of trained weights: its label in the results and the fingerprint of its content.

    The name INITIALISATIONS may stand in the place of a file. It means random initialisations, whose fingerprint is
    empty. Records leave out the path of the file.
    """

    label: str
    fingerprint: str
    file: str = Field("", exclude=True)


def labels_of(files: Sequence[str]) -> list[str]:
    """Labels of `files`, in the same order.

    Labels are the names of the files without folder and suffix, if they are distinct and have plain characters only.
    Otherwise, files are numbered from 1. INITIALISATIONS is its own label.
    """
    names = [Path(file).stem for file in files if file != INITIALISATIONS]
    plain = len({*names, INITIALISATIONS}) == len(names) + 1 and all(map(_LABEL.fullmatch, names))
    labels = iter(names if plain else map(str, range(1, len(names) + 1)))
    return [INITIALISATIONS if file == INITIALISATIONS else next(labels) for file in files]


def _described(given: object) -> object:
    """Convert `given`, files of weights that a configuration names, to a list of `Weights`.

    `given` is a file, a list of files, or a record's list of weights, which is returned unchanged. Raises a validation
    error for other values, for a file named twice, and for an empty list.
    """
    files = [given] if isinstance(given, str) else given
    if not isinstance(files, list) or not all(isinstance(file, str | dict | Weights) for file in files):
        refuse(f"{given!r} is no file; name a file of weights, or a list of files")
    if not files:
        refuse("the list is empty; name at least one file")
    named = [file for file in files if isinstance(file, str)]
    if len(named) < len(files):
        return files
    if len(set(named)) < len(named):
        refuse(f"{named} contains a file twice; name each once")
    return [
        Weights(label=label, fingerprint=_fingerprint(file), file=file) for label, file in zip(labels_of(named), named)
    ]


def _fingerprint(file: str) -> str:
    if file == INITIALISATIONS:
        return ""
    path = Path(file).expanduser()
    try:
        return fingerprints.file_fingerprint(path)
    except OSError as error:
        refuse(f"{path} cannot be read ({error.strerror}); give the path of a file of weights")


_FILE = {"type": "string"}
WeightsFiles = Annotated[
    list[Weights],
    BeforeValidator(_described),
    WithJsonSchema({"anyOf": [_FILE, {"type": "array", "items": _FILE, "minItems": 1}]}),
]
