r"""Checks of the paper's sources: which sections belong to a run, and text that does not come from its results.

Results enter the text only through macros: \estimate{case}, \verdict{case}, \agreement{comparison} and \setting{name}.
Sentences on findings enter through \question{name}, \answer{name} and \mainfindings, and figures through
\resultfigure{name}. Texts are named by their path in paper/. sections/ holds the paper's sections; works/<work>/ holds
what a work contributes to them, by question, and to the supplement (method.tex, supplement.tex).
"""

import re
from collections.abc import Iterable
from pathlib import PurePath

_COMMENT = re.compile(r"(?<!\\)%.*")
_CLAIM = re.compile(r"\\(?:verdict|estimate)\{([\w-]+)")
_FIGURE = re.compile(r"\\resultfigure\{(\w+)\}")
# Macro arguments that are names, and single digits that belong to a symbol ($r_0$): not literal numbers.
_NAMES = re.compile(
    r"\\(?:estimate|verdict|agreement|setting|question|answer|evidence|resultfigure|ref|eqref|label|cite\w*)\{[^}]*\}"
    r"|[a-zA-Z][_^]\d(?!\d)(?:\^\d(?!\d))?"
)
_WORK = re.compile(r"#1\{(\w+)\}")  # in generated.tex, marks the works that the paper shows
_MACROS = ("estimate", "verdict", "agreement", "setting", "question", "answer")
METHOD = "method.tex"  # text of a work that may state literal numbers


def works(sections: dict[str, str], claims: list[str], figures: Iterable[str]) -> list[str]:
    """Names of the works whose texts (name → text) belong to a run with these claims and figures.

    Ordered by the first claim that each text mentions; texts with figures alone come last.
    """
    places = {}
    for name, text in sorted(sections.items()):
        text = _COMMENT.sub("", text)
        named = [claims.index(claim) for claim in _CLAIM.findall(text) if claim in claims]
        if named or set(_FIGURE.findall(text)) & set(figures):
            places[name] = named[0] if named else len(claims)
    return sorted(places, key=places.__getitem__)


def by_work(texts: dict[str, str]) -> dict[str, str]:
    """Concatenated texts of each work, from texts by path (…/<work>/<part>.tex)."""
    found = {}
    for path, text in sorted(texts.items()):
        found.setdefault(PurePath(path).parent.name, []).append(text)
    return {work: "\n".join(parts) for work, parts in found.items()}


def shown(texts: Iterable[str]) -> set[str]:
    """Names of the figures that appear in texts."""
    return {name for text in texts for name in _FIGURE.findall(_COMMENT.sub("", text))}


def mistakes(sources: dict[str, str], generated: str) -> list[str]:
    """Mistakes in the paper's sources (name → text), one sentence each; works that the run does not have are skipped.

    Mistakes are literal numbers in sections of results, macros used but not defined or defined but not used, and
    figures that no text refers to.
    """
    included = set(_WORK.findall(generated))
    kept = {
        name: text
        for name, text in sources.items()
        if not name.startswith("works/") or PurePath(name).parent.name in included
    }
    texts = {name: _COMMENT.sub("", text) for name, text in kept.items()}
    everything = "\n".join(texts.values())
    found = [
        f"{name}, line {number}: a literal number in a result section, not a macro: {line.strip()[:80]}"
        for name, text in texts.items()
        if "/" in name and PurePath(name).name != METHOD
        for number, line in enumerate(text.splitlines(), start=1)
        if re.search(r"\d", _NAMES.sub("", line))
    ]
    defined = set(re.findall(r"\\csname (\w+:[\w.\-]+)\\endcsname", generated))
    text = everything + generated
    macro = re.compile(rf"\\({'|'.join(_MACROS)})\{{([\w.\-]+)\}}")
    used = {f"{kind}:{name}" for kind, name in macro.findall(text)}
    used |= {f"figure:{name}" for name in _FIGURE.findall(text)}
    used |= {f"width:{name}" for name in re.findall(r"\\begin\{panels\}\{(\w+)\}", text)}
    found += [f"\\{name.replace(':', '{')}}} is used and no result defines it" for name in sorted(used - defined)]
    found += [f"\\{name.replace(':', '{')}}} is defined and the text never uses it" for name in sorted(defined - used)]
    labels = re.findall(r"\\label\{(fig:\w+)\}", everything) + [f"fig:{name}" for name in _FIGURE.findall(everything)]
    return found + [
        f"the figure {label} is shown and the text never refers to it"
        for label in dict.fromkeys(labels)
        if rf"\ref{{{label}}}" not in everything
    ]
