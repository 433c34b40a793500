"""Captions of the paper's figures as plain text, for the report.

Imports pylatexenc lazily, so that loading the workflow does not import it.
"""

import json
import re
from pathlib import Path

from goldilocks_zone.storage import files

PANELS = re.compile(r"\\begin\{panels\}\{(\w+)\}(.*?)\\end\{panels\}", re.DOTALL)
MACRO = re.compile(r"\\(setting|estimate|verdict|agreement)\{([^{}]+)\}")
DEFINED = re.compile(r"\\csname (\w+:[^\\]+)\\endcsname\{(.*)\}%?$", re.MULTILINE)
CITED = re.compile(r"\\cite\w*\{(\w+)\}")
REFERENCE = re.compile(r"~?\\ref\{fig:(\w+)\}")
ENTRY = re.compile(r"@\w+\{(\w+),(.*?)\n\}", re.DOTALL)
# Replacements of commands that the paper itself defines, which pylatexenc does not know, and of one that it drops.
OWN = (
    (re.compile(r"\\specnorm\{((?:[^{}]|\{[^{}]*\})*)\}"), r"\\lVert \1\\rVert_2"),
    (re.compile(r"\\norm\{((?:[^{}]|\{[^{}]*\})*)\}"), r"\\lVert \1\\rVert"),
    (re.compile(r"\\Tr\b"), r"\\mathrm{Tr}"),
    (re.compile(r"\\cifar\b(\{\})?"), "CIFAR-10"),
    (re.compile(r"\\noresult\{[^{}]*\}"), "not computed"),
    (re.compile(r"\\texttt\{([^{}]*)\}"), r"\1"),
)


def write_captions(
    paths_to_texts: list[str], path_to_references: str, path_to_template: str, path_to_output: str
) -> None:
    """Write the template from which Snakemake makes the captions of its report.

    It consists of a dictionary with the captions of all figures, followed by the template at `path_to_template`.
    Captions are read from the LaTeX files `paths_to_texts`, and their citations from the BibTeX file
    `path_to_references`. One template serves all figures, because Snakemake accepts a single template per rule.
    """
    paths = (*paths_to_texts, path_to_references, path_to_template)
    *texts, references, template = (Path(path).read_text(encoding="utf-8") for path in paths)
    escaped = {name: restructured(text) for name, text in captions(texts, references).items()}
    # A JSON object is also a valid Jinja dictionary.
    known = f"{{% set captions = {json.dumps(escaped, ensure_ascii=False)} %}}\n"
    files.write_text(known + template, path_to_output)


def captions(texts: list[str], references: str) -> dict[str, str]:
    """Captions of figures as plain text, as {figure: caption}.

    `texts` are LaTeX texts, namely sections and the macros of results, and `references` is the text of a BibTeX file.
    Macros are replaced by their values, and citations by authors and year.
    """
    cited, text, found = _works(references), "\n".join(texts), {}
    values = dict(DEFINED.findall(text))
    for name, body in PANELS.findall(text):
        text = MACRO.sub(lambda match: values.get(f"{match[1]}:{match[2]}", match[2]), _argument(body, r"\caption"))
        text = CITED.sub(lambda match: cited.get(match[1], match[1]), REFERENCE.sub(r" \1", text))
        found[name] = plain(text)
    return found


def plain(text: str) -> str:
    """Convert LaTeX to plain text, with formulas in Unicode characters."""
    from pylatexenc.latex2text import LatexNodes2Text

    for pattern, replacement in OWN:
        text = pattern.sub(replacement, text)
    return " ".join(LatexNodes2Text(math_mode="text", strict_latex_spaces=True).latex_to_text(text).split())


def restructured(text: str) -> str:
    """Escape text for reStructuredText."""
    return re.sub(r"([\\`*|_])", r"\\\1", text)


def _argument(text: str, command: str) -> str:
    """The argument, without its braces, of the first `command` in a LaTeX text."""
    start = text.index(command) + len(command) + 1
    depth, end = 1, start
    while depth:
        depth += {"{": 1, "}": -1}.get(text[end], 0) if text[end - 1] != "\\" else 0
        end += 1
    return text[start : end - 1]


def _works(text: str) -> dict[str, str]:
    """Citations in words, such as `Fort and Scherlis (2019)`, as {key: citation}, from the text of a BibTeX file."""
    found = {}
    for key, body in ENTRY.findall(text):
        fields = dict(re.findall(r"(\w+)\s*=\s*\{(.*?)\},?\n", body + "\n"))
        names = [plain(name).split()[-1] for name in fields.get("author", key).split(" and ")]
        who = f"{names[0]} et al." if len(names) > 2 else " and ".join(names)
        found[key] = f"{who} ({fields.get('year', 'no year')})"
    return found
