r"""Checks of the paper's sources: which works a run's paper shows, and what in the texts does not fit the results.

A work is a publication whose results are reproduced. Results enter the text only through macros: \estimate{case},
\verdict{case}, \margin{case}, \agreement{comparison} and \setting{name}. Sentences on findings enter through
\question{name}, \answer{name} and \mainfindings, and figures through \resultfigure{name}.

A text is named by its path in paper/. The folder sections/ contains the paper's sections. The folder works/<work>/
contains the parts of these sections that are about one work, one file for each question, and the work's parts of the
supplement (method.tex, supplement.tex).
"""

import re
from collections.abc import Iterable
from pathlib import PurePath

_COMMENT = re.compile(r"(?<!\\)%.*")
_CLAIM = re.compile(r"\\(?:verdict|estimate)\{([\w-]+)")
_FIGURE = re.compile(r"\\resultfigure\{(\w+)\}")
# Digits that are not literal numbers: those in names, as arguments of macros, and single digits of symbols ($r_0$).
_NAMES = re.compile(
    r"\\(?:estimate|verdict|margin|agreement|setting|question|answer|evidence|resultfigure|ref|eqref|label|cite\w*)\{[^}]*\}"
    r"|\\(?:ifresults|reason)\{[^}]*\}"
    r"|[a-zA-Z][_^]\d(?!\d)(?:\^\d(?!\d))?"
)
_WORK = re.compile(r"#1\{(\w+)\}")  # in generated.tex, marks the works that the paper shows
_MACROS = ("estimate", "verdict", "margin", "agreement", "setting", "question", "answer")
METHOD = "method.tex"  # the only text of a work that may state literal numbers


def works(sections: dict[str, str], claims: list[str], figures: Iterable[str]) -> list[str]:
    """Names of the works that the paper of a run shows: those whose text mentions one of the run's claims or figures.

    `sections` maps the name of a work to its text; `claims` and `figures` name the run's claims and figures. Works are
    ordered by the place in `claims` of the first claim that their text mentions; works that mention only figures come
    last.
    """
    places = {}
    for name, text in sorted(sections.items()):
        text = _COMMENT.sub("", text)
        named = [claims.index(claim) for claim in _CLAIM.findall(text) if claim in claims]
        if named or set(_FIGURE.findall(text)) & set(figures):
            places[name] = named[0] if named else len(claims)
    return sorted(places, key=places.__getitem__)


def by_work(texts: dict[str, str]) -> dict[str, str]:
    """Text of each work, as {work: text}, with all its parts one after another.

    `texts` maps the path …/<work>/<part>.tex of each part to its text.
    """
    found = {}
    for path, text in sorted(texts.items()):
        found.setdefault(PurePath(path).parent.name, []).append(text)
    return {work: "\n".join(parts) for work, parts in found.items()}


def shown(texts: Iterable[str]) -> set[str]:
    """Names of the figures that the LaTeX `texts` draw."""
    return {name for text in texts for name in _FIGURE.findall(_COMMENT.sub("", text))}


def mistakes(sources: dict[str, str], generated: str) -> list[str]:
    """Mistakes in the paper's sources, one sentence each.

    `sources` maps the path of each LaTeX text in paper/ to the text, and `generated` is the text of generated.tex, in
    which the macros are defined. Texts of works that the run's paper does not show are skipped. Mistakes are literal
    numbers in sections of results, macros that are used but not defined or defined but not used, and figures to which
    no text refers.
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
    tables = re.findall(r"\\begin\{resulttable\}\{([\w-]+)\}", text)
    used |= {f"{kind}:{name}" for kind in ("common", "key") for name in tables}
    used |= {f"width:{name}" for name in re.findall(r"\\begin\{panels\}\{(\w+)\}", text)}
    found += [f"\\{name.replace(':', '{')}}} is used and no result defines it" for name in sorted(used - defined)]
    found += [f"\\{name.replace(':', '{')}}} is defined and the text never uses it" for name in sorted(defined - used)]
    labels = re.findall(r"\\label\{(fig:\w+)\}", everything) + [f"fig:{name}" for name in _FIGURE.findall(everything)]
    return found + [
        f"the figure {label} is shown and the text never refers to it"
        for label in dict.fromkeys(labels)
        if rf"\ref{{{label}}}" not in everything
    ]
