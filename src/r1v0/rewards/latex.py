"""Normal forms of answers written in LaTeX or plain text. Text in, text out: nothing here knows mathematics.

Decides two things. `strict_form` is what "strict match" compares: only what LaTeX itself draws alike (spacing, \\left and
\\right, \\dfrac, a \\text around the whole) is normalised, nothing that needs an opinion. `clean` prepares an answer for the
symbolic parser: it removes what MATH and its solvers write around numbers (units, degrees, money, thousands separators),
writes repeating decimals as fractions, and reads \\frac and \\sqrt as TeX does (`\\frac\\pi4`, `\\sqrt2`), which the
parser's own normalisation does not. Units are removed by a table and only as words or \\text: the parser's own list
removes any final t, m or s, and so takes `2t` for 2.

Every pattern's work is at most quadratic, on answers of at most `extract.MAX_ANSWER` characters.
"""

import re
from fractions import Fraction

_WRAPPER = r"\\(?:text|textbf|textit|textrm|textnormal|mbox|hbox|mathrm|mathbf|mathit|mathsf|operatorname)\s*"
_TEXT = re.compile(_WRAPPER + r"\{([^{}]*)\}")
_WHOLE_TEXT = re.compile(r"^" + _WRAPPER + r"\{([^{}]*)\}$")
_DELIMITED = re.compile(r"^(?:\$\$(.*)\$\$|\$(.*)\$|\\\((.*)\\\)|\\\[(.*)\\\])$", re.DOTALL)
_BOXED = re.compile(r"^\\(?:boxed|fbox)\s*\{(.*)\}$", re.DOTALL)
_FRACTION = re.compile(r"\\[dtc]frac(?![a-zA-Z])")
_FENCE = re.compile(r"\\(?:m?left|m?right|[bB]igg?[lrm]?)(?![a-zA-Z])\s*\.?")
_SPACING = re.compile(r"(?<!\\)\\[!,;:> ]|~|\\(?:quad|qquad|displaystyle|textstyle|thinspace)(?![a-zA-Z])")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\ufeff]")
_THOUSANDS = re.compile(r"(?<=\d)(?:,\\!|\{,\}|\\,)\s*(?=\d{3}(?!\d))")
_PLAIN_THOUSANDS = re.compile(r"^([-+]?)(\d{1,3}(?:,\d{3})+)(\.\d+)?$")
_DEGREES = re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![a-zA-Z]))|\\degrees?(?![a-zA-Z])")
_DOLLAR = re.compile(r"\\\$|\\textdollar(?![a-zA-Z])")
_REPEATING = re.compile(r"(\d{0,30})\.(\d{0,30})\\(?:overline|bar)\s*\{?(\d{1,30})\}?")
_ROOT = re.compile(r"√\s*(\d+|[a-zA-Z])")
_MEMBER = re.compile(r"^[a-zA-Z]\s*\\in(?![a-zA-Z])\s*")
_LETTER = re.compile(r"\\(?:mathrm|mathit|text|rm)\s*\{\s*([eid])\s*\}")
_SUBSCRIPT = re.compile(r"^(\d[0-9A-Fa-f]*)_(?:\{(?:\\text\{)?(\w+)\}?\}|(\w))$")
_CHOICE = re.compile(r"^(?:" + _WRAPPER + r"\{)?\s*\(([A-Z])\)")
_BARE_WORDS = re.compile(r"^[A-Za-z][A-Za-z',.()\s-]*$")
_LONG_WORD = re.compile(r"[A-Za-z]{4}|^(?:yes|no|odd)$", re.IGNORECASE)
_PLAIN_FUNCTION = re.compile(
    r"(?<![\\a-zA-Z])(arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|log|ln|exp|sqrt)(?=\s*[({])"
)
_PLAIN_SYMBOL = re.compile(r"(?<![\\a-zA-Z])(?:pi|infinity)(?![a-zA-Z])")
_NAMES = re.compile(r"sqrt|infinity|arc(?:sin|cos|tan)|(?:sin|cos|tan)h")
_ARGUMENT = re.compile(r"[{(]|\\[a-zA-Z]+|\\?.", re.DOTALL)
_COMMAND = re.compile(r"\\(frac|sqrt)(?![a-zA-Z])\s*(?:\[[^\[\]]*\]\s*)?|(\^)\s*(?=\()")

SYMBOLS = {
    "−": "-", "–": "-", "—": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": r"\div ", "π": r"\pi ", "∞": r"\infty ",
    "°": r"^\circ ", "≤": r"\le ", "≥": r"\ge ", "<=": r"\le ", ">=": r"\ge ", "≠": r"\ne ", "∪": r"\cup ",
    "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ", "±": r"\pm ", "²": "^{2}", "³": "^{3}", "½": r"\frac{1}{2}", "**": "^",
    r"\varnothing": r"\emptyset ", r"\textdollar": r"\$", "“": "", "”": "", "’": "'",
}  # fmt: skip
"""What answers write instead of LaTeX's own commands."""

_UNITS = {
    "cm": "cm centimeter centimetre", "m": "m meter metre", "km": "km kilometer kilometre", "mm": "mm millimeter millimetre",
    "inch": "in inch inche", "foot": "ft foot feet", "yard": "yd yard", "mile": "mi mile",
    "second": "sec second", "minute": "min minute", "hour": "hr hour", "day": "day", "week": "week", "month": "month",
    "year": "yr year", "dollar": "dollar", "cent": "cent", "degree": "degree", "gram": "gram", "kg": "kg kilogram",
    "pound": "lb pound", "ounce": "oz ounce", "liter": "liter litre", "gallon": "gallon", "percent": "percent",
}  # fmt: skip
UNITS = {
    spelling + plural: unit
    for unit, spellings in _UNITS.items()
    for spelling in spellings.split()
    for plural in ("", "s")
}
"""Spelling -> unit. Two answers with different units of this table are different answers."""

MAGNITUDES = {"thousand": 3, "million": 6, "billion": 9, "trillion": 12}
"""Words that are part of the number, as powers of ten."""

_POWER = r"(?:\s*\^\s*(?:\{\s*[23]\s*\}|[23]))?"
_SPELLINGS = "|".join(sorted((unit for unit in UNITS if len(unit) > 1), key=len, reverse=True)) + "|units?"
_UNIT_WORD = re.compile(
    r"(?<=[\d}\s)])(?:square |cubic |sq\.? |cu\.? )?(" + _SPELLINGS + r")" + _POWER + "$", re.IGNORECASE
)
_UNIT_TEXT = re.compile(r"(?<=[^\s(\[,=+*/^_-])\s?" + _WRAPPER + r"\{([^{}]*)\}" + _POWER + "$")
_MAGNITUDE = re.compile(r"(?<=[\d}\s])(" + "|".join(MAGNITUDES) + r")s?(?![a-zA-Z])", re.IGNORECASE)


def strict_form(text: str) -> str:
    """The form that strict match compares. "" if nothing is left."""
    text = _SPACING.sub("", _FENCE.sub("", _FRACTION.sub(r"\\frac", text)))  # first, or "." and "," would end a "\\,"
    text = _undelimited(text.strip().rstrip(".,")).rstrip(".,").strip()
    whole = _WHOLE_TEXT.match(text)
    return "".join((whole[1] if whole else text).split())


def clean(text: str) -> tuple[str, str]:
    """An answer as the symbolic parser should see it, and its unit ("" if it has none that UNITS knows)."""
    text = " ".join(_CONTROL.sub(" ", text).split())
    for symbol, command in SYMBOLS.items():
        text = text.replace(symbol, command)
    text = _ROOT.sub(r"\\sqrt{\1}", text).replace("√", r"\sqrt ")
    boxed = _BOXED.match(_undelimited(text.strip()))
    text = _undelimited((boxed[1] if boxed else text).strip())
    text = _FENCE.sub("", _FRACTION.sub(r"\\frac", text))
    text = _SPACING.sub(" ", _THOUSANDS.sub("", text)).strip()
    unit = "dollar" if _DOLLAR.match(text.lstrip("-+ ")) else "degree" if _DEGREES.search(text) else ""
    text = _DOLLAR.sub("", text).replace("$", "")
    text = _DEGREES.sub("", _LETTER.sub(r"\1", text))
    text = " ".join(_TEXT.sub(_unwrap_mathematics, text).rstrip(" .,;").split())
    text = _MAGNITUDE.sub(lambda match: rf"\cdot 10^{{{MAGNITUDES[match[1].casefold()]}}}", text)
    text, named = _without_unit(text)
    text = _PLAIN_THOUSANDS.sub(
        lambda match: match[1] + match[2].replace(",", "") + (match[3] or ""), _MEMBER.sub("", text)
    )
    text = _PLAIN_SYMBOL.sub(
        lambda match: r"\pi " if match[0] == "pi" else r"\infty ", _PLAIN_FUNCTION.sub(r"\\\1", text)
    )
    return _braced(_REPEATING.sub(_repeating, text)).strip(), unit or named


def words(text: str) -> str | None:
    """The key of an answer that is text (a name, "even", a choice "(C)"), or None for mathematics. Text is all inside
    \\text, or has a word of four letters: shorter runs are products of variables, but for yes, no and odd."""
    text = _undelimited(text.strip().rstrip(".")).strip()
    wrapped = _TEXT.search(text) is not None and not re.sub(r"[\s.,()'-]", "", _TEXT.sub("", text))
    if wrapped and re.search(r"\d", text):
        return None
    if wrapped or (_BARE_WORDS.match(text) and _LONG_WORD.search(_NAMES.sub("", text))):
        return word_key(text)
    return None


def word_key(text: str) -> str:
    """Any answer as text: unwrapped, in lower case, without article, brackets and punctuation."""
    plain = _TEXT.sub(r"\1", _SPACING.sub(" ", _undelimited(text.strip())))
    return re.sub(r"^(?:an?|the) (?=\w{2})", "", " ".join(re.sub(r"[().,'{}$]", " ", plain).casefold().split()))


def choice(text: str) -> str | None:
    """The letter of an answer that begins with a choice in brackets, its only one: "\\text{(C)}\\ 15" -> "C"."""
    match = _CHOICE.match(_undelimited(text.strip()))
    return None if match is None or len(re.findall(r"\([A-Z]\)", text)) > 1 else match[1]


def subscript(text: str) -> tuple[str, str] | None:
    """Digits and base of a number written in a base: "52_8" -> ("52", "8")."""
    match = _SUBSCRIPT.match(re.sub(r"\s", "", text))
    return None if match is None else (match[1].upper(), match[2] or match[3])


def _undelimited(text: str) -> str:
    """Without $...$, \\(...\\) or \\[...\\] around the whole."""
    match = _DELIMITED.match(text)
    if match is None:
        return text
    inner = next(group for group in match.groups() if group is not None)
    return text if "$" in inner.replace("\\$", "") else inner.strip()


def _unwrap_mathematics(match: re.Match[str]) -> str:
    """\\text{6 and 7} is mathematics, \\text{ million} a factor; \\text{Area} is a name and stays."""
    return match[1] if re.search(r"\d", match[1]) or match[1].strip().casefold() in MAGNITUDES else match[0]


def _without_unit(text: str) -> tuple[str, str]:
    match = _UNIT_TEXT.search(text) or _UNIT_WORD.search(text)
    if match is None or not text[: match.start()].strip():
        return text, ""
    rest = text[: match.start()].strip()
    names = re.sub(r"\b(?:square|cubic|sq|cu)\b|[.\d()]", " ", match[1].casefold()).split()
    unit = UNITS.get(names[0], "") if len(names) == 1 else ""
    return (rest + r"\%", "") if unit == "percent" else (rest, unit)


def _repeating(match: re.Match[str]) -> str:
    """0.1\\overline{6} as a fraction."""
    whole, fixed, period = match[1] or "0", match[2], match[3]
    tail = Fraction(int(period), (10 ** len(period) - 1) * 10 ** len(fixed))
    value = Fraction(int(whole + fixed), 10 ** len(fixed)) + tail
    return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"


def _braced(text: str) -> str:
    """Put braces round the arguments of \\frac (two), \\sqrt (one) and ^(...), from the right, so that inner ones are done."""
    for match in reversed(list(_COMMAND.finditer(text))):
        position = match.end()
        for _ in range(2 if match[1] == "frac" else 1):
            end = _argument_end(text, position)
            argument = text[position:end].strip()
            if not argument:
                break
            if match[1] != "frac" and argument[0] == "(" and argument[-1] == ")":
                argument = "{" + argument[1:-1] + "}"
            if argument[0] != "{":
                argument = "{" + argument + "}"
            text = text[:position] + argument + text[end:]
            position += len(argument)
    return text


def _argument_end(text: str, position: int) -> int:
    """Where the TeX argument that starts at `position` (after spaces) ends: a group, a command with its own braced
    arguments, or one character. A round bracket counts as a group, for \\sqrt(3)."""
    while position < len(text) and text[position] == " ":
        position += 1
    match = _ARGUMENT.match(text, position)
    if match is None or match[0] in ("}", ")", "^", "_"):
        return position
    if match[0] in ("{", "("):
        return _group_end(text, position, match[0], "}" if match[0] == "{" else ")")
    position = match.end()
    if match[0] in (r"\frac", r"\sqrt"):
        while text[position : position + 1] == "{":
            position = _group_end(text, position, "{", "}")
    return position


def _group_end(text: str, position: int, opening: str, closing: str) -> int:
    depth = 0
    for index in range(position, len(text)):
        depth += (text[index] == opening) - (text[index] == closing)
        if depth == 0:
            return index + 1
    return len(text)
