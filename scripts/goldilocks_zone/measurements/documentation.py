"""Tables of all measured variables in results/README.md, written by `make variables`."""

from pathlib import Path

from goldilocks_zone.config import kinds
from goldilocks_zone.measurements import loss_slices
from goldilocks_zone.measurements.observables import Observables

README = Path(__file__).parents[3] / "results/README.md"
HEADER = "| variable | axes | unit | meaning | where the study has |\n|---|---|---|---|---|\n"


def documented(text: str) -> str:
    """Return `text`, the content of results/README.md, with all tables of variables brought up to date.

    There is a table for each kind of study, between two HTML comments. If the text lacks the comments of a kind, a new
    section at its end gets the table.
    """
    known = {name: kind.load().OBSERVABLES for name, kind in kinds.known().items()}
    for name, observables in {**known, "cuts": loss_slices.OBSERVABLES}.items():
        first, last = f"<!-- variables of {name} -->\n", f"<!-- end of {name} -->\n"
        if first not in text:
            text += f"\n## Variables of {name}\n\n{first}{last}"
        before, after = text.split(first)[0], text.split(last)[1]
        text = before + first + _table(observables) + last + after
    return text


def _table(observables: Observables) -> str:
    text = HEADER
    for each in observables:
        for variable in each.variables:
            axes = ", ".join(axis.name for axis in (*observables.points, *variable.axes))
            key = f" `{each.key}`" if each.key else ""
            meaning = variable.long_name.replace("|", "\\|")
            text += f"| `{variable.name}` | {axes} | {variable.units} | {meaning} |{key} |\n"
    return text


if __name__ == "__main__":
    README.write_text(documented(README.read_text(encoding="utf-8")), encoding="utf-8")
