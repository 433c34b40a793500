"""Registry of figures: each module's registration, and the settings that a configuration may give.

A module registers its figure as a literal, FIGURE = {…}, which is parsed from the source without importing it. Loading
the workflow therefore needs neither matplotlib nor array libraries.
"""

import ast
import difflib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from goldilocks_zone.config.values import Positive, Section, Unique

ROOM = Path(__file__).parent
HEADER = "| name | shows | results | module |"  # of the table in figures/README.md


class InPaper(Section):
    """Width of a figure in the paper, and its caption in the appendix."""

    wide: bool
    caption: str


class Figure(BaseModel):
    """A figure as registered by its module.

    id: name of the figure. module: path of the module. shows: description of the figure, by default the first paragraph
    of the module's docstring. studies: names of the studies that the figure shows; those that a run lacks are left out.
    result: a result that belongs to no study, for figures without `studies`. axis: with `radius`, the studies' radii
    must be in units of r_X. With `scale`, radii must be scale factors of an initialisation, and log10 of the factor
    becomes the coordinate x. needs: axes that each study must have. published: file of published values. width_cm,
    height_cm: size of a single panel. wide: False gives the figure half the width of the paper's text, as long as it
    has one panel. caption: caption in plain text for figures that no section of the paper mentions, by default `shows`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    module: Path
    shows: str
    studies: tuple[str, ...] = ()
    result: str | None = None
    axis: Literal["radius", "scale", "any"] = "any"
    needs: tuple[str, ...] = ()
    published: str | None = None
    width_cm: float = 8.0
    height_cm: float = 6.4
    wide: bool = True
    caption: str | None = None

    def defaults(self) -> dict:
        """Default settings of this figure by name; they are used where a configuration gives none."""
        studies = {"studies": list(self.studies)} if self.studies else {}
        return {**studies, "width_cm": self.width_cm, "height_cm": self.height_cm, "published": True}

    @property
    def published_files(self) -> list[str]:
        """List with the file of published values; empty if there is none."""
        return [self.published] if self.published else []

    def in_paper(self) -> InPaper:
        """Width and caption of this figure in the paper."""
        return InPaper(wide=self.wide, caption=self.caption or self.shows)


class FigureSettings(Section, title="Figure"):
    """Settings of one figure: an entry in the section `figures` of a configuration."""

    studies: Unique[str] = Field([])
    """Studies that the figure shows, by default those that its module registers. It is drawn from those that the run
    has, and left out if the run has none."""
    file: str | None = None
    """Python file of your own that draws the figure; see figures/README.md."""
    width_cm: Positive = 8.0
    """Width of a single panel in cm."""
    height_cm: Positive = 6.4
    """Height of a single panel in cm."""
    published: bool = True
    """Draw published values, if there are any."""


@cache
def figures() -> dict[str, Figure]:
    """The figures of this package, as {name: figure}, sorted by the folder and file name of their modules.

    Raises ValueError if two figures share a name, or if `_registered` rejects a module.
    """
    found: dict[str, Figure] = {}
    for figure in filter(None, map(_registered, sorted(ROOM.glob("*/*.py")))):
        if figure.id in found:
            others = found[figure.id].module
            raise ValueError(f"{figure.module} registers the figure {figure.id}, as {others} does: rename one")
        found[figure.id] = figure
    return found


def of(name: str, file: str | None = None) -> Figure:
    """The figure called `name`: a figure of this package or, if `file` is given, the figure that this file draws.

    Raises ValueError if this package has no such figure, if the user's figure has the name of a figure of this package,
    or if `_registered` rejects the file.
    """
    if file is None:
        if name not in figures():
            close = difflib.get_close_matches(name, figures(), n=1)
            advice = f"did you mean {close[0]}?" if close else f"valid are {', '.join(figures())}"
            raise ValueError(
                f"there is no such figure; {advice} (for a figure of your own, give its file by the key 'file')"
            )
        return figures()[name]
    if name in figures():
        raise ValueError(f"the name {name} belongs to a figure of this package; choose another")
    registered = _registered(Path(file).expanduser(), name)
    assert registered is not None  # A user's module needs no FIGURE.
    return registered


def with_defaults(section: Mapping) -> dict:
    """Complete the section `figures` of a configuration with default values.

    Every figure of this package is added, unless the section sets it to null. Keys that an entry lacks, or sets to
    null, take the figure's defaults. Entries of a wrong type are returned unchanged, for validation to reject. Raises
    the ValueError of `of`, with the entry's name in front.
    """
    found: dict[str, Any] = {
        name: figure.defaults() for name, figure in figures().items() if section.get(name, {}) is not None
    }
    for name, entry in section.items():
        if isinstance(entry, Mapping) and isinstance(entry.get("file") or "", str):
            given = {key: value for key, value in entry.items() if value is not None}
            try:
                found[name] = {**of(name, given.get("file")).defaults(), **given}
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        elif entry is not None:
            found[name] = entry
    return found


def documentation() -> str:
    """The figures of this package as a Markdown table for figures/README.md."""
    lines = [HEADER, "|---|---|---|---|"]
    for name, figure in figures().items():
        results = ", ".join(f"`{result}`" for result in figure.studies or [figure.result])
        module = f"{figure.module.parent.name}/{figure.module.name}"
        lines.append(f"| `{name}` | {figure.shows.removesuffix('.')} | {results} | `{module}` |")
    return "\n".join(lines) + "\n"


def _registered(path: Path, own_name: str = "") -> Figure | None:
    """Read and parse the module at `path`; return the figure that its FIGURE registers, or None without FIGURE.

    With `own_name`, the module is a user's figure of this name, and needs no FIGURE. Raises ValueError if the module
    cannot be read or parsed, has an invalid FIGURE, or is a figure and defines no function draw.
    """
    if path.suffix != ".py":
        raise ValueError(f"{path} is no Python file: let its name end in .py")
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}): give the path of a Python file") from None
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"{path} is not valid Python ({error}): correct it") from None
    assignments = [node for node in tree.body if isinstance(node, ast.Assign)]
    literals = [node.value for node in assignments if [ast.unparse(target) for target in node.targets] == ["FIGURE"]]
    if not (literals or own_name):
        return None
    if not any(isinstance(node, ast.FunctionDef) and node.name == "draw" for node in tree.body):
        raise ValueError(f"{path} defines no function draw(studies, settings, published): add it")
    shows = " ".join((ast.get_docstring(tree) or own_name).split("\n\n")[0].split())
    try:
        registered = ast.literal_eval(literals[0]) if literals else {}
        named = {"id": own_name} if own_name else {}
        return Figure(**{"module": path, "shows": shows, **registered, **named})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"{path} registers FIGURE wrongly, at {place}: {first['msg']}") from None
    except (ValueError, TypeError):
        raise ValueError(f"{path} must register FIGURE as a literal dictionary: write its values out") from None


if __name__ == "__main__":
    readme = ROOM.parents[2] / "figures/README.md"
    before, table_and_rest = readme.read_text(encoding="utf-8").split(HEADER)
    readme.write_text(before + documentation() + "\n" + table_and_rest.split("\n\n", 1)[1], encoding="utf-8")
