"""Text for LaTeX: escaped plain text, numbers rounded according to their intervals, and definitions of macros.

Imports pylatexenc lazily, because loading the configuration imports this module.
"""

import functools
import re
import unicodedata
from collections.abc import Callable

from goldilocks_zone.statistics import rounding

# Patterns and replacements of this project's symbols, and of symbols that pylatexenc lacks or renders differently.
_SYMBOLS = (
    (re.compile(r"\^\((1/n)\)"), r"$^{\1}$"),
    (re.compile(r"\^(n_L|-?L)"), r"$^{\1}$"),
    (re.compile("n_L|r_[X0]"), r"$\g<0>$"),
    (re.compile("r_out"), r"$r_\\mathrm{out}$"),
    (re.compile("σ_([zC])"), r"$\\sigma_\1$"),
    (re.compile("G_θ"), r"$G_\\theta$"),
    (re.compile("Q̂"), r"$\\hat Q$"),
    (re.compile("ᵀ"), r"$^\\top$"),
    (re.compile("√"), r"$\\surd$"),
    (re.compile("′"), "$'$"),
)
_MATHEMATICS = frozenset("‖∇∝≈≫≪≤≥≠∞∂∈₀₁₂₃ΓΔΘΛΞΠΣΦΨΩαβγδεζηθικλμνξπρσςτφχψω")
# Glyphs of LaTeX's T1 fonts beyond ASCII: Latin letters and punctuation of European languages.
_PRINTED = frozenset(map(chr, range(0xA0, 0x180))) - set("ĦħĸĿŀŉŦŧſ") | set("–—‘’‚“”„…€™•†‡‰‹›")


def escape(text: str, strict: bool = True) -> str:
    """Escape plain text for LaTeX, including mathematical letters and letters of European languages.

    Other characters raise ValueError. If not `strict`, they are replaced by codes such as U+732B, which is meant for
    text from outside the project.
    """
    text = unicodedata.normalize("NFC", text)
    if (unknown := unprintable(text)) and strict:
        remedy = "add it to goldilocks_zone.paper.latex"
        raise ValueError(f"the character {unknown[0]!r} in {text!r} has no LaTeX form: {remedy}")
    for character in unknown:
        text = text.replace(character, f"U+{ord(character):04X}")
    return _encoder()(text)


def unprintable(text: str) -> list[str]:
    """The characters of a text that have no LaTeX form."""
    # Compose letters: some systems encode ü as u and a combining diaeresis.
    text = unicodedata.normalize("NFC", text)
    for pattern, _ in _SYMBOLS:
        text = pattern.sub("", text)
    return sorted({c for c in text if not c.isascii() or not c.isprintable()} - _PRINTED - _MATHEMATICS - set("\n\t"))


@functools.cache
def _encoder() -> Callable[[str], str]:
    from pylatexenc import latexencode

    unchanged, rule = {ord(c): c for c in (*_PRINTED, '"')}, latexencode.UnicodeToLatexConversionRule
    rules = [rule(latexencode.RULE_REGEX, _SYMBOLS), rule(latexencode.RULE_DICT, unchanged), "defaults"]
    options = {"conversion_rules": rules, "replacement_latex_protection": "braces-after-macro"}
    return latexencode.UnicodeToLatexEncoder(**options).unicode_to_latex


def number(value: float, low: float, high: float) -> str:
    """`value` in LaTeX, rounded as in `rounding.rounded`, with a power of ten below 1e-4.

    `low` and `high` are the ends of the interval of the value, which sets the number of digits.
    """
    return _power_of_ten(rounding.rounded(value, low, high))


def interval(value: float, low: float, high: float) -> str:
    """Value and interval in LaTeX, such as `0.882 [0.871, 0.893]`, rounded as in `rounding.in_interval`.

    `low` and `high` are the ends of the interval. At an infinite end the interval is open, as in `(-∞, 0.893]`.
    """
    middle, lower, upper = map(_power_of_ten, rounding.in_interval(value, low, high))
    left = r"(-\infty" if lower == "-∞" else f"[{lower}"
    right = r"\infty)" if upper == "∞" else f"{upper}]"
    return f"${middle}$ ${left}, {right}$"


def _power_of_ten(text: str) -> str:
    """Convert a number as `text`, such as 1.2e-07, to LaTeX with a power of ten; others are returned unchanged."""
    mantissa, mark, exponent = text.partition("e")
    return rf"{mantissa} \times 10^{{{int(exponent)}}}" if mark else text


def macro(kind: str, name: str, text: str) -> str:
    """LaTeX line that defines `text` as the result of \\<kind>{<name>}."""
    return rf"\expandafter\def\csname {kind}:{name}\endcsname{{{text}}}%"
