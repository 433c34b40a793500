r"""Text for LaTeX: generated macros, numbers as precise as their intervals, and the check of the paper's text.

Results enter the paper's text through three macros and in no other way: \estimate{case}, \verdict{case} and
\setting{name}; figures through \resultfigure{name}.
"""

import math
import re
import unicodedata

RESULT_SECTIONS = ("results", "training", "deconstruction", "emergent", "beyond")
KINDS = ("estimate", "verdict", "setting")
SMALLEST_WRITTEN_OUT = 1e-4
_CHARACTERS = {
    "‖": r"$\Vert$",
    "κ": r"$\kappa$",
    "α": r"$\alpha$",
    "θ": r"$\theta$",
    "η": r"$\eta$",
    "σ": r"$\sigma$",
    "Σ": r"$\Sigma$",
    "∇": r"$\nabla$",
    "√": r"$\surd$",
    "∝": r"$\propto$",
    "≈": r"$\approx$",
    "≫": r"$\gg$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "′": r"$'$",
    "ᵀ": r"$^\top$",
    "Q̂": r"$\hat Q$",
    "²": r"$^2$",
    "³": r"$^3$",
    "₂": r"$_2$",
    "^L": r"$^L$",
    "^-L": r"$^{-L}$",
    "^(1/n)": r"$^{1/n}$",
    "^n_L": r"$^{n_L}$",
    "n_L": r"$n_L$",
    "r_X": r"$r_X$",
    "r_out": r"$r_\mathrm{out}$",
    "r_0": r"$r_0$",
    "σ_z": r"$\sigma_z$",
    "σ_C": r"$\sigma_C$",
    "%": r"\%",
    "&": r"\&",
    "_": r"\_",
    "#": r"\#",
    "<": r"$<$",
    ">": r"$>$",
    "$": r"\$",
    "{": r"\{",
    "}": r"\}",
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}
_PATTERN = re.compile("|".join(map(re.escape, sorted(_CHARACTERS, key=len, reverse=True))))


# Beyond ASCII: what LaTeX's T1 fonts have, Latin letters of European languages and signs of their texts.
_PRINTED = {chr(code) for code in range(0xA0, 0x180)} - set("ĦħĸĿŀŉŦŧſ") | set("–—‘’‚“”„…€™•†‡‰‹›")


def escape(text: str, strict: bool = True) -> str:
    """Plain text for LaTeX, mathematical letters and those of European languages included.

    At any other letter raises ValueError or, for text that others wrote (`strict` false), puts its code as U+732B.
    """
    result = _escaped(text)
    if strict and (unknown := unprintable(text)):
        raise ValueError(f"the character {unknown[0]!r} in {text!r} has no LaTeX form: add it to goldilocks.latex")
    return "".join(character if _is_printed(character) else f"U+{ord(character):04X}" for character in result)


def unprintable(text: str) -> list[str]:
    """The characters of a text that have no LaTeX form."""
    return sorted({character for character in _escaped(text) if not _is_printed(character)})


def _escaped(text: str) -> str:
    """With composed letters: some systems write ü as u and two dots."""
    return _PATTERN.sub(lambda match: _CHARACTERS[match[0]], unicodedata.normalize("NFC", text))


def _is_printed(character: str) -> bool:
    return character in _PRINTED or character in "\n\t" or (character.isascii() and character.isprintable())


def number(value: float, low: float, high: float) -> str:
    """`value` to two digits of the half-width of its interval; with a power of ten where all three are tiny."""
    if 0 < max(abs(value), abs(low), abs(high)) < SMALLEST_WRITTEN_OUT:
        mantissa, exponent = f"{value:.1e}".split("e")
        return rf"{mantissa} \times 10^{{{int(exponent)}}}"
    half = max((high - low) / 2, abs(value) * 1e-3)
    if not math.isfinite(half) or half == 0:
        return f"{value:.3g}"
    digits = max(0, 1 - math.floor(math.log10(half)))
    return f"{value:.{digits}f}"


def interval(value: float, low: float, high: float) -> str:
    """`0.882 [0.871, 0.893]`, for text and tables; an infinite end as `(-∞` or `∞)`, digits by the other one."""
    ends = [low if math.isfinite(low) else 2 * value - high, high if math.isfinite(high) else 2 * value - low]
    left = f"[{number(low, *ends)}" if math.isfinite(low) else r"(-\infty"
    right = f"{number(high, *ends)}]" if math.isfinite(high) else r"\infty)"
    return f"${number(value, *ends)}$ ${left}, {right}$"


def macro(kind: str, name: str, text: str) -> str:
    """The line that defines \\<kind>{<name>}."""
    return rf"\expandafter\def\csname {kind}:{name}\endcsname{{{text}}}%"


def mistakes(sources: dict[str, str], generated: str) -> list[str]:
    """What is wrong in the paper's sources (name → text), one sentence each.

    Literal numbers in a result section (a file whose name starts with one of RESULT_SECTIONS), macros that are used
    and not defined or defined and not used, figures that no text refers to.
    """
    texts = {name: re.sub(r"(?<!\\)%.*", "", text) for name, text in sources.items()}
    everything = "\n".join(texts.values())
    found = []
    for name, text in texts.items():
        if name.startswith(RESULT_SECTIONS):
            for line_number, line in enumerate(text.splitlines(), start=1):
                if re.search(r"\d", _without_names(line)):
                    place = f"{name}, line {line_number}"
                    found.append(f"{place}: a literal number in a result section, not a macro: {line.strip()[:80]}")
    defined = set(re.findall(r"\\csname (\w+:[\w.\-]+)\\endcsname", generated))
    used = {f"{kind}:{name}" for kind in KINDS for name in re.findall(rf"\\{kind}\{{([\w.\-]+)\}}", everything)}
    used |= {f"figure:{name}" for name in re.findall(r"\\resultfigure\{(\w+)\}", everything)}
    used |= {f"width:{name}" for name in re.findall(r"\\begin\{panels\}\{(\w+)\}", everything)}
    found += [f"\\{name.replace(':', '{')}}} is used and no result defines it" for name in sorted(used - defined)]
    found += [f"\\{name.replace(':', '{')}}} is defined and the text never uses it" for name in sorted(defined - used)]
    labels = re.findall(r"\\label\{(fig:\w+)\}", everything) + re.findall(r"\\resultfigure\{(\w+)\}", everything)
    for label in labels:
        label = label if label.startswith("fig:") else f"fig:{label}"
        if not re.search(rf"\\ref\{{{label}\}}", everything):
            found.append(f"the figure {label} is shown and the text never refers to it")
    return found


def _without_names(line: str) -> str:
    """A line without the arguments of macros that name things, and single digits that belong to a symbol ($r_0$)."""
    names = "estimate|verdict|setting|resultfigure|ref|eqref|label|cite|citet|citep|citealp"
    return re.sub(rf"\\(?:{names})\{{[^}}]*\}}|[a-zA-Z][_^]\d(?!\d)(?:\^\d(?!\d))?", "", line)
