"""Normal forms of answers written in LaTeX or plain text. Text in, text out: nothing here knows mathematics.

Decides two things. `strict_form` is what "strict match" compares: only what LaTeX itself draws alike (spacing, \\left
and \\right, \\dfrac, a \\text around the whole) is normalised, nothing that needs an opinion. `clean` prepares an
answer for the symbolic parser: it removes what MATH and its solvers write around numbers (units, degrees, money,
thousands separators), writes repeating decimals as fractions, and what `forms` and `tex` know as the parser reads it.
The parser's own list of units removes any final t, m or s, and so takes `2t` for 2: `units` has another.

Every pattern's work is at most quadratic, on answers of at most `extract.MAX_ANSWER` characters.
"""

import re
from fractions import Fraction

from r1v0.tasks.math import dots, forms, units
from r1v0.tasks.math.marks import unmarked
from r1v0.tasks.math.tex import braced
from r1v0.tasks.math.units import WRAPPER

_TEXT = re.compile(WRAPPER + r"\{([^{}]*)\}")
_NESTED = re.compile(WRAPPER + r"\{\s*(" + WRAPPER + r"\{[^{}]*\})\s*\}")
_WHOLE_TEXT = re.compile(r"^" + WRAPPER + r"\{([^{}]*)\}$")
_DELIMITED = re.compile(r"^(?:\$\$(.*)\$\$|\$(.*)\$|\\\((.*)\\\)|\\\[(.*)\\\])$", re.DOTALL)
_BOXED = re.compile(r"^\\(?:boxed|fbox)\s*\{(.*)\}$", re.DOTALL)
_FRACTION = re.compile(r"\\[dtc]frac(?![a-zA-Z])")
_FENCE = re.compile(r"\\(?:m?left|m?right|[bB]igg?[lrm]?)(?![a-zA-Z])\s*\.?")
_NEGATIVE_SPACE = re.compile(r"(?<!\\)\\!")
_SPACING = re.compile(r"(?<!\\)\\[,;:> ]|~|\\(?:quad|qquad|displaystyle|textstyle|thinspace)(?![a-zA-Z])")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\ufeff]")
_THOUSANDS = re.compile(r"(?<=\d)(?:,\\!|\{,\}|\\,)\s*(?=\d{3}(?!\d))")
_PLAIN_THOUSANDS = re.compile(r"^([-+]?)(\d{1,3}(?:,\d{3})+)(\.\d+)?$")
_DEGREES = re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![a-zA-Z]))|\\degrees?(?![a-zA-Z])")
_DOLLAR = re.compile(r"\\\$|\\textdollar(?![a-zA-Z])")
_EURO = re.compile(r"^([-+]?)\s*(?:€|\\euro(?![a-zA-Z]))|€$")
_PERCENT = re.compile(r"(?<!\\)%")
_REPEATING = re.compile(r"(\d{0,30})\.(\d{0,30})\\(?:overline|bar)\s*\{?(\d{1,30})\}?")
_ROOT = re.compile(r"√\s*(\d+|[a-zA-Z])")
_MEMBER = re.compile(r"^[a-zA-Z]\s*\\in(?![a-zA-Z])\s*")
_LETTER = re.compile(r"\\(?:mathrm|mathit|text|rm)\s*\{\s*([eid])\s*\}")
_SUBSCRIPT = re.compile(r"^(-?(?=[A-F]*\d)[0-9A-F][0-9A-Fa-f]*)_(?:\{(?:\\text\{)?(\w+)\}?\}|(\w{1,2}))$")
_CHOICE = re.compile(r"^(?:" + WRAPPER + r"\{)?\s*\(([A-Z])\)")
_OR = re.compile(r"(?<![a-zA-Z])(?:or|and|not)(?![a-zA-Z])")
_BARE_WORDS = re.compile(r"^[A-Za-z][A-Za-z',.()\s-]*$")
_LONG_WORD = re.compile(r"[A-Za-z]{4}")
_NAME = re.compile(r"(?<![A-Za-z])[A-Z][a-z]{2,}(?![A-Za-z])")
_LETTERS = re.compile(r"[A-Za-z]{3,}")
_PLAIN_FUNCTION = re.compile(
    r"(?<![\\a-zA-Z])(arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|log|ln|exp|sqrt)(?=\s*[({])"
)
_PLAIN_SYMBOL = re.compile(r"(?<![\\a-zA-Z])(?:pi|infinity)(?![a-zA-Z])")
_NAMES = re.compile(r"sqrt|infinity|arc(?:sin|cos|tan)|(?:sin|cos|tan)h")
_WIDE = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
SYMBOLS = {
    "−": "-", "–": "-", "—": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": r"\div ", "π": r"\pi ",
    "∞": r"\infty ", "°": r"^\circ ", "≤": r"\le ", "≥": r"\ge ", "<=": r"\le ", ">=": r"\ge ", "≠": r"\ne ",
    "≈": r"\approx ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ", "±": r"\pm ", "²": "^{2}",
    "³": "^{3}", "½": r"\frac{1}{2}", "**": "^", r"\varnothing": r"\emptyset ", r"\textdollar": r"\$", "“": "", "”": "",
    "’": "'",
}  # fmt: skip
"""What answers write instead of LaTeX's own commands."""

MAGNITUDES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
"""Words that are part of the number, as powers of ten."""

_MAGNITUDE = re.compile(r"(?<=[\d}\s])(" + "|".join(MAGNITUDES) + r")s?(?![a-zA-Z])", re.IGNORECASE)


def strict_form(text: str) -> str:
    """The form that strict match compares. "" if nothing is left. Spaces go, but one between two digits parts two
    numbers: "1 1/2" is not 11/2."""
    text = _FENCE.sub("", _FRACTION.sub(r"\\frac", _NEGATIVE_SPACE.sub("", dots.marked(unmarked(text)))))
    text = _SPACING.sub(" ", text)  # first, or "." and "," would end a "\\,"
    text = _undelimited(text.strip().rstrip(".,")).rstrip(".,").strip()
    whole = _WHOLE_TEXT.match(_unnested(text))
    text = " ".join((whole[1] if whole else text).split())
    return re.sub(r"(?<![0-9]) | (?![0-9.])", "", text)


def narrow(text: str) -> str:
    """Wide punctuation and digits, and Chinese and Japanese words between values, as ASCII."""
    if text.isascii():
        return text
    for word, plain in (
        ("…", "..."),
        ("または", " or "),
        ("或", " or "),
        ("和", " and "),
        ("与", " and "),
        ("且", " and "),
        ("、", ", "),
    ):
        text = text.replace(word, plain)
    return text.translate(_WIDE)


def clean(text: str) -> tuple[str, str]:
    """An answer as the symbolic parser should see it, and its unit ("" if it has none that `units` knows) or
    modulus."""
    text = dots.marked(units.marked(" ".join(_CONTROL.sub(" ", unmarked(text)).split())))
    text = _PERCENT.sub(r"\\%", text)
    for symbol, command in SYMBOLS.items():
        if symbol in text:
            text = text.replace(symbol, command)
    text = _ROOT.sub(r"\\sqrt{\1}", text).replace("√", r"\sqrt ")
    boxed = _BOXED.match(_undelimited(text.strip()))
    text = _undelimited((boxed[1] if boxed else text).strip())
    text = _FENCE.sub("", _FRACTION.sub(r"\\frac", _unnested(text)))
    text = _SPACING.sub(" ", _NEGATIVE_SPACE.sub("", _THOUSANDS.sub("", text))).strip().rstrip(" .,;")
    if forms.all_reals(text):
        return r"(-\infty,\infty)", ""
    text, modulus = forms.without_modulus(forms.in_radians(text))
    text = forms.approximated(forms.unconditional(text))
    unit = "dollar" if _DOLLAR.match(text.lstrip("-+ ")) else "degree" if _DEGREES.search(text) else ""
    unit = "euro" if _EURO.search(text) else unit
    text = _EURO.sub(r"\1", _DOLLAR.sub(" ", text)).replace("$", " ")  # a space: 1\$8 is not 18
    text = _DEGREES.sub(" ", _LETTER.sub(r"\1", text)).strip()
    text = " ".join(_TEXT.sub(_unwrap_mathematics, forms.plain(text)).rstrip(" .,;").split())
    text = _MAGNITUDE.sub(lambda match: rf"\cdot 10^{{{MAGNITUDES[match[1].casefold()]}}}", text)
    text, named = units.without_unit(units.counted(text))
    text = _PLAIN_THOUSANDS.sub(
        lambda match: match[1] + match[2].replace(",", "") + (match[3] or ""), _MEMBER.sub("", text)
    )
    text = _PLAIN_SYMBOL.sub(
        lambda match: r"\pi " if match[0] == "pi" else r"\infty ", _PLAIN_FUNCTION.sub(r"\\\1", forms.ungrouped(text))
    )
    return braced(_REPEATING.sub(_repeating, text)).strip(), unit or named or modulus


def words(text: str) -> str | None:
    """The key of an answer that is text (a name, "even", a choice "(C)"), or None for mathematics. Text is all inside
    \\text, or has a word of four letters or a name: shorter runs are products of variables, but for yes, no and odd."""
    text = _undelimited(_unnested(text.strip().rstrip("."))).strip()
    if forms.all_reals(text):
        return None
    wrapped = _TEXT.search(text) is not None and not re.sub(r"[\s.,()'-]", "", _TEXT.sub("", text))
    if wrapped and re.search(r"\d", text):
        return None
    if text.casefold() in ("dne", "yes", "no", "odd"):
        return word_key(text)
    named = _LONG_WORD.search(_NAMES.sub("", text)) or _NAME.search(text)
    if wrapped or (_BARE_WORDS.match(text) and named):
        return word_key(text)
    return None


def anagrams(text: str, other: str) -> bool:
    """Whether both are one run of the same letters in another order that are rather words (red, der) than products
    (xyz, zyx): there is a vowel, and the letters are no neighbours in the alphabet."""
    if not (_LETTERS.fullmatch(text) and _LETTERS.fullmatch(other)) or text.casefold() == other.casefold():
        return False
    letters = sorted(text.casefold())
    neighbours = ord(letters[-1]) - ord(letters[0]) < len(letters)
    return letters == sorted(other.casefold()) and not neighbours and bool(set(letters) & set("aeiouy"))


def word_key(text: str) -> str:
    """Any answer as text: unwrapped, in lower case, without article, brackets and punctuation."""
    plain = _TEXT.sub(r"\1", _SPACING.sub(" ", _undelimited(_unnested(dots.in_words(text.strip())))))
    return re.sub(r"^(?:an?|the) (?=\w{2})", "", " ".join(re.sub(r"[().,'{}$]", " ", plain).casefold().split()))


def choice(text: str) -> str | None:
    """The letter of an answer that begins with a choice in brackets, its only one: "\\text{(C)}\\ 15" -> "C"."""
    match = _CHOICE.match(_undelimited(text.strip()))
    return None if match is None or len(re.findall(r"\([A-Z]\)", text)) > 1 or _OR.search(text) else match[1]


def subscript(text: str) -> tuple[str, str] | None:
    """Digits and base of a number written in a base: "52_8" -> ("52", "8")."""
    match = _SUBSCRIPT.match(re.sub(r"(?<=[_{}])\s+|\s+(?=[_{}])", "", text))
    return None if match is None else (match[1].upper(), match[2] or match[3])


def _undelimited(text: str) -> str:
    """Without $...$, \\(...\\) or \\[...\\] around the whole."""
    match = _DELIMITED.match(text)
    if match is None:
        return text
    inner = next(group for group in match.groups() if group is not None)
    return text if "$" in inner.replace("\\$", "") else inner.strip()


def _unnested(text: str) -> str:
    """\\textbf{\\text{Sunday}} -> \\text{Sunday}."""
    for _ in range(4):
        if text == (text := _NESTED.sub(r"\1", text)):
            break
    return text


def _unwrap_mathematics(match: re.Match[str]) -> str:
    """\\text{6 and 7} is mathematics, \\text{ million} a factor; \\text{Area} is a name and stays."""
    return match[1] if re.search(r"\d", match[1]) or match[1].strip().casefold() in MAGNITUDES else match[0]


def _repeating(match: re.Match[str]) -> str:
    """0.1\\overline{6} as a fraction."""
    whole, fixed, period = match[1] or "0", match[2], match[3]
    tail = Fraction(int(period), (10 ** len(period) - 1) * 10 ** len(fixed))
    value = Fraction(int(whole + fixed), 10 ** len(fixed)) + tail
    return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"
