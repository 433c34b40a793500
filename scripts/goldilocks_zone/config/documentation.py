"""The configuration's keys as Markdown tables, for config/README.md, and as a JSON schema, for editors."""

import json
from pathlib import Path

import yaml
from pydantic.json_schema import models_json_schema

from goldilocks_zone.config import kinds
from goldilocks_zone.config.models import Configuration, Cuts, Dataset, Execution, Network, Section, Study
from goldilocks_zone.config.values import meaning
from goldilocks_zone.figures import registry
from goldilocks_zone.figures.registry import FigureSettings

README = Path(__file__).parents[3] / "config/README.md"
FIRST = "### The whole\n"


def documentation() -> str:
    """Markdown tables of all keys: one for the top level and one per section."""
    studies = [kind.model for kind in kinds.known().values()]
    models = (Configuration, Dataset, Network, *studies, Cuts, FigureSettings, Execution)
    return "\n".join(f"### {model.model_config.get('title')}\n\n{_table(model)}" for model in models)


def schema() -> dict:
    """JSON schema of one configuration file, for editors.

    Any key may be absent or null, because the workflow merges several files, each over those before it.
    """
    studies = [kind.model for kind in kinds.known().values()]
    _, found = models_json_schema([(model, "validation") for model in (Configuration, *studies)])
    whole = found["$defs"]["Configuration"]["properties"]
    for entries in whole["studies"]["patternProperties"].values():
        entries.pop("$ref")
        entries["anyOf"] = [*map(_reference, studies), {"type": "null"}]
    whole["figures"]["properties"] = {name: _reference(FigureSettings) for name in registry.figures()}
    for section in (*found["$defs"].values(), whole["figures"]):
        section.pop("required", None)
        for key, entry in section["properties"].items():
            section["properties"][key] = {
                "anyOf": [entry, {"type": "null"}],
                "description": entry.get("description", ""),
            }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_reference(Configuration), **found}


def _reference(model: type[Section]) -> dict:
    return {"$ref": f"#/$defs/{model.__name__}"}


def _table(model: type[Section]) -> str:
    lines = ["| key | values | default | meaning |", "|---|---|---|---|"]
    found = model.model_json_schema()
    for key, entry in found["properties"].items():
        field = model.model_fields[key]
        default = "(required)" if field.is_required() else _shown(field.default)
        text = meaning(field)
        if key == "vary" and issubclass(model, Study):
            text += f" Of {', '.join(model.varied().model_fields)}."
        lines.append(f"| `{key}` | {_values(entry)} | {default} | {text} |")
    return "\n".join(lines) + "\n"


def _shown(default: object) -> str:
    if default is None or default == {} or isinstance(default, Section):
        return ""
    return f"`{yaml.safe_dump(default, default_flow_style=True).splitlines()[0]}`"


def _values(entry: dict) -> str:
    if "enum" in entry:
        return ", ".join(f"`{value}`" for value in entry["enum"])
    if "anyOf" in entry:
        return " or ".join(_values(option) for option in entry["anyOf"] if option != {"type": "null"})
    if "const" in entry:
        return f"`{entry['const']}`"
    if "$ref" in entry or entry["type"] == "object":
        return "section"
    if entry["type"] == "array":
        return f"list of {_values(entry['items'])}"
    limits = {"exclusiveMinimum": "> ", "minimum": "≥ ", "maximum": "≤ "}
    bounds = [f"{sign}{entry[name]}" for name, sign in limits.items() if name in entry]
    return ", ".join([entry["type"], *bounds])


if __name__ == "__main__":
    README.write_text(README.read_text(encoding="utf-8").split(FIRST)[0] + documentation(), encoding="utf-8")
    Path("schema.json").write_text(json.dumps(schema(), indent=1) + "\n", encoding="utf-8")
