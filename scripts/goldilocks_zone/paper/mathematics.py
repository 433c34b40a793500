r"""Plain text with formulae, such as `Tr(H)/‖H‖ at 10 r_X`, as LaTeX with these formulae in mathematics.

A formula consists of units: a number, a symbol with subscripts and superscripts, a norm ‖…‖ or magnitude |…|, a root,
or a function of a unit. A symbol may be followed by an argument in brackets. Units are joined by operators or stand
side by side. The number of weight layers, which texts name n, L or n_L, is n_L throughout.
"""

import re
import unicodedata

from goldilocks_zone.paper import latex

_NAMES = {"lamda": "lambda", "epsilon": "varepsilon", "phi": "varphi"}  # where LaTeX has another name than Unicode
_GREEK = {letter: unicodedata.name(letter).split()[-1].lower() for letter in "αβγδεζηθκλμνξπρστφχψω"}
_SYMBOLS = {letter: rf"\{_NAMES.get(name, name)} " for letter, name in _GREEK.items()}
_SYMBOLS |= {"Δ": r"\Delta ", "∇": r"\nabla ", "Σ": r"\sum "}
_FUNCTIONS = {"Tr": r"\Tr", "log10": r"\log_{10}", "log": r"\log", "ln": r"\ln"}
_OPERATORS = {"≈": r"\approx", "≫": r"\gg", "≪": r"\ll", "≤": r"\le", "≥": r"\ge", "∝": r"\propto", "×": r"\times"}
_RAISED = {"²": "2", "³": "3", "ᵀ": r"\top"}
_FENCES = {"‖": (r"\lVert ", r"\rVert "), "|": ("|", "|")}
_CLOSING = {"(": ")", "[": "]"}
_NUMBER = re.compile(r"([-−±]?)(\d+(?:\.\d+)?|\.\d+)(?:e(-?\d+))?(?![\w.]*[A-Za-z_](?<!\d[nL]))")
_FUNCTION = re.compile(r"(Tr|log10|log|ln)(?![A-Za-z-])( ?)")
_LETTER = re.compile(rf"[{''.join(_SYMBOLS)}]|[B-HJ-Zb-z](?![A-Za-z0-9])(?!-[A-Za-z]{{2}})|A(?= =|\|)|I(?=\()")
_SUFFIX = re.compile(r"(′)|(\u0302)|_([A-Za-z0-9]+|[α-ω])|\^(\([^()]+\)|-?[A-Za-z0-9]+(?:_[A-Za-z])?)|([²³ᵀ])|(₂)")
_OPERATOR = re.compile(r"(?: ?([=<>≈≫≪≤≥∝×+]) ?|(/)| (-) |(-)(?=[\w√]))")


def typeset(text: str, strict: bool = True) -> str:
    """Convert plain `text` to LaTeX; `strict` is that of `latex.escape`, which converts what is no formula."""
    text = unicodedata.normalize("NFC", text).replace("−", "-")
    found, plain, i = [], 0, 0
    while i < len(text):
        parsed = _formula(text, i) if _may_start(text, i) else None
        if not parsed:
            i += 1
            continue
        formula, end = parsed
        found += [latex.escape(text[plain:i], strict) if i > plain else "", formula]
        plain = i = end
    return "".join([*found, latex.escape(text[plain:], strict) if plain < len(text) else ""])


def _may_start(text: str, i: int) -> bool:
    """Whether a formula may begin at position `i`: not within a word or a number such as 784-200."""
    before = text[i - 1] if i else " "
    if text[i] in "-−±":
        return before in " (["
    return not (before.isascii() and (before.isalnum() or before in "_.'")) and not re.search(r"\d-$", text[:i])


def _formula(text: str, i: int) -> tuple[str, int] | None:
    """LaTeX of the formula at position `i`, and its end; a whole number stays as it is. None if there is none."""
    if text[i] in "∝≈≫":  # as in “the rate ∝ r”
        after = _expression(text, i + 1 + (text[i + 1 : i + 2] == " "))
        return after and (f"${_OPERATORS[text[i]]} {after[0]}$", after[1])
    if not (found := _expression(text, i)):
        return None
    formula, end = found
    return (formula if re.fullmatch(r"[\d.]+", formula) else f"${formula.strip()}$"), end


def _expression(text: str, i: int) -> tuple[str, int] | None:
    """LaTeX of units that are joined by operators, from position `i`, and its end."""
    if not (found := _unit(text, i)):
        return None
    formula, end = found
    while True:
        operator = _OPERATOR.match(text, end)
        start = operator.end() if operator else end + (text[end : end + 1] == " ")
        following = _group(text, start) if operator and operator[2] else None
        following = following or _unit(text, start)
        if not following:
            return formula, end
        is_number = bool(_NUMBER.match(text, start))
        if not operator and is_number:  # as in “at r_X 3 points”
            return formula, end
        if operator and operator[4] and is_number and re.fullmatch(r"[\d.]+", formula):
            return formula, end
        sign = next(filter(None, operator.groups()), "") if operator else ""
        formula += (f" {_OPERATORS.get(sign, sign)} " if sign != "/" else "/") if sign else r"\," * (text[end] == " ")
        formula, end = formula + following[0], following[1]


def _unit(text: str, i: int) -> tuple[str, int] | None:
    """LaTeX of the unit at position `i`, and its end."""
    if (number := _NUMBER.match(text, i)) and not (number[1] and i and text[i - 1].isalnum()):
        return _number(*number.groups()), number.end()
    if text[i : i + 1] in _FENCES and (end := text.find(text[i], i + 1)) > 0:
        inner, (left, right) = _whole(text[i + 1 : end]), _FENCES[text[i]]
        return _with_suffixes(text, f"{left}{inner}{right}".rstrip(), end + 1) if inner else None
    if text[i : i + 1] == "√":
        found = _group(text, i + 1) or _unit(text, i + 1)
        return found and (rf"\sqrt{{{found[0].removeprefix('(').removesuffix(')')}}}", found[1])
    if function := _FUNCTION.match(text, i):
        found = _unit(text, function.end()) if function[2] else _group(text, function.end())
        return found and (f"{_FUNCTIONS[function[1]]} {found[0]}".replace(" (", "("), found[1])
    if not (letter := _LETTER.match(text, i)):
        return None
    symbol = _SYMBOLS.get(letter[0], letter[0])
    is_loss = i and text[i - 1] == "∇"
    if letter[0] in "nL" and not is_loss and text[i : i + 3] != "n_L":
        symbol = "n_L"
    formula, end = _with_suffixes(text, symbol, letter.end())
    argument = _group(text, end)
    return (formula.rstrip() + argument[0], argument[1]) if argument else (formula, end)


def _number(sign: str, digits: str, exponent: str | None) -> str:
    sign = {"±": r"\pm "}.get(sign, sign and "-")
    digits = f"0{digits}" if digits.startswith(".") else digits
    if exponent is None:
        return sign + digits
    power = f"10^{{{int(exponent)}}}"  # without the leading zeros of Python's form
    return sign + (power if digits == "1" else rf"{digits} \times {power}")


def _with_suffixes(text: str, symbol: str, i: int) -> tuple[str, int]:
    """Add the primes, hats, subscripts and superscripts at position `i` to the LaTeX of a symbol."""
    lower = upper = ""
    while suffix := _SUFFIX.match(text, i):
        prime, hat, below, above, raised, two = suffix.groups()
        i = suffix.end()
        if hat:
            symbol = rf"\hat{{{symbol.strip()}}}"
        elif prime:
            symbol = f"{symbol.strip()}'"
        elif below or two:
            below = below or "2"
            lower = _SYMBOLS.get(below, below).strip() if len(below) == 1 else rf"\mathrm{{{below}}}"
        else:
            above = above and (_whole(above.removeprefix("(").removesuffix(")")) or above)
            upper = above or _RAISED[raised]
    scripts = (("_", lower), ("^", upper))
    lower, upper = (
        mark + (script if len(script) == 1 else f"{{{script}}}") if script else "" for mark, script in scripts
    )
    return (f"{symbol.strip()}{lower}{upper}" if lower or upper else symbol), i


def _group(text: str, i: int) -> tuple[str, int] | None:
    """LaTeX of the bracketed formulae at position `i`, with the brackets, and their end."""
    if (closing := _CLOSING.get(text[i : i + 1])) is None:
        return None
    depth, end = 1, i + 1
    while end < len(text) and depth:
        depth += (text[end] == text[i]) - (text[end] == closing)
        end += 1
    parts = [_whole(part.strip()) for part in re.split(r"([;,])", text[i + 1 : end - 1])[::2]]
    separator = "; " if ";" in text[i:end] else ", "
    return None if depth or not all(parts) else (f"{text[i]}{separator.join(filter(None, parts))}{closing}", end)


def _whole(text: str) -> str | None:
    """LaTeX of `text` if all of it is a formula, else None."""
    if text == "A":  # elsewhere an article
        return text
    if text.startswith("-") and not _NUMBER.match(text):
        return (inner := _whole(text[1:])) and f"-{inner}"
    found = _expression(text, 0) if text else None
    return found[0].strip() if found and found[1] == len(text) else None
