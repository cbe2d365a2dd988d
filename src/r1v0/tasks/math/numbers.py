r"""Numbers side by side.

Decides: they are never added. "2 2/3" and 2\frac{2}{3} with a proper fraction are mixed numbers, "10 000" is grouped
by thousands, and any other two numbers side by side are not a number, as a parser would add or multiply them at its
pleasure: a policy that writes "7 8" is not paid for 15. What LaTeX draws as one number (1{2}) is one. Behind a power
a number is a factor (2^2 3^2).
"""

import re
from fractions import Fraction

MIXED = re.compile(r"([-+−]?)(\d{1,18})[ \t~]+(\d{1,18})\s?/\s?(\d{1,18})(?![\d./^])")
GROUPED = re.compile(r"[-+]?\d{1,3}(?: \d{3})+(?:\.\d+)?(?![\d,/.]|\s\d)")

_SPLIT = re.compile(r"(?<![\^_\d])(\d+)\{(\d+)\}(?!\{)")
_NUMBER = r"(?:\d+(?:\.\d+)?|\.\d+)"
_RUN = re.compile(rf"(?<![\d.])(?:{_NUMBER}(?: +{_NUMBER})*)")
_SLASH = re.compile(r" ?/ ?(\d+)(?![\d.]|\s?[\^/]| \d)")
_FRACTION = re.compile(r" ?\\frac ?\{(\d+)\} ?\{(\d+)\}(?! ?(?:\d|\\frac|\^))")
_ANY_FRACTION = re.compile(r" ?\\frac ?\{\d+\} ?\{")
_AFTER_PERCENT = re.compile(r"\\% ?[\d.]")
_AFTER_FRACTION = re.compile(r"\\frac ?\{\d+(?:\.\d+)?\} ?\{\d+(?:\.\d+)?\} ?(?:\d|\.\d|\\frac ?\{\d)")
ROUNDED = 6
"""Digits that a rounded decimal must have to answer a fraction: .333333 is 1/3, and .333 is not."""

_EXACT = re.compile(
    r"(-?)(?:(\d+)(?:\.(\d+))?|\.(\d+))(?: ?(?:\\times|\\cdot|\*) ?10 ?\^ ?(?:\{ ?(-?\d{1,4}) ?\}|(\d)))?"
    r"|(-?)(?:\\frac ?\{(-?\d+)\} ?\{(\d+)\}|(\d+) ?/ ?(\d+))"
)


def joined(text: str) -> str | None:
    """Cleaned LaTeX with each of its numbers written as one; None where numbers stand side by side that are none."""
    if not any(map(str.isdigit, text)):
        return text
    for _ in range(4):
        text = _SPLIT.sub(r"\1\2", text)
    if _AFTER_FRACTION.search(text) or _AFTER_PERCENT.search(text):
        return None
    parts, done = [], 0
    for run in _RUN.finditer(text):
        start, end = run.span()
        if start < done:
            continue
        numbers = run[0].split()
        before = text[:start].rstrip()[-1:]
        if before in ("^", "_"):
            start += len(numbers.pop(0))
        if not numbers:
            continue
        value, end = _one(text, numbers, end, before in ("^", "_"))
        if value is None:
            return None
        lead = " " * (text[start : start + 1] == " ")
        parts += [text[done:start], lead, value]
        done = end
    return "".join([*parts, text[done:]])


def _one(text: str, numbers: list[str], end: int, raised: bool) -> tuple[str | None, int]:
    """The number that a run of numbers is, with the fraction that follows it, and where it ends; None if it is none."""
    slash = _SLASH.match(text, end) if len(numbers) > 1 else None
    fraction = None if raised else _FRACTION.match(text, end)
    if slash is not None:
        *numbers, over = numbers
        under, end = slash[1], slash.end()
    elif fraction is not None:
        over, under, end = fraction[1], fraction[2], fraction.end()
    elif not raised and _ANY_FRACTION.match(text, end):
        return None, end
    whole = numbers[0] if len(numbers) == 1 else "".join(numbers) if _is_grouped(numbers) else None
    if whole is None or (slash is None and len(numbers) > 1 and re.match(r" ?\^", text[end:])):
        return None, end
    if slash is None and fraction is None:
        return whole, end
    if "." in whole or not int(over) < int(under):
        return None, end
    return rf"\frac{{{int(whole) * int(under) + int(over)}}}{{{under}}}", end


def _is_grouped(numbers: list[str]) -> bool:
    first, *groups = numbers
    return len(first) <= 3 and first.isdigit() and all(len(g.partition(".")[0]) == 3 for g in groups) and all(
        g.isdigit() for g in groups[:-1]
    )  # fmt: skip


def exact(text: str) -> Fraction | None:
    """The value of a number that is written out: an integer, a decimal, a power of ten times one, a fraction; else
    None."""
    match = _EXACT.fullmatch(text) if len(text) <= 100 else None
    if match is None:
        return None
    if match[8] or match[10]:
        over, under = int(match[8] or match[10]), int(match[9] or match[11])
        value = Fraction(over, under) if under else None
        return value if value is None or not match[7] else -value
    whole, tail = match[2] or "0", match[3] or match[4] or ""
    value = Fraction(int(whole + tail), 10 ** len(tail)) * Fraction(10) ** int(match[5] or match[6] or 0)
    return -value if match[1] else value


def equal(gold: str, answer: str) -> bool | None:
    """Whether two numbers that are written out are equal; None where one is not, or a decimal may be another one
    rounded. A percentage answers both 10 and 0.1, and is answered by both."""
    sides = [(exact(text.removesuffix(r"\%").rstrip()), text.endswith(r"\%")) for text in (gold, answer)]
    (gold_value, gold_percent), (answer_value, answer_percent) = sides
    if gold_value is None or answer_value is None:
        return None
    golds = {gold_value, gold_value / 100} if gold_percent > answer_percent else {gold_value}
    answers = {answer_value, answer_value / 100} if answer_percent > gold_percent else {answer_value}
    if golds & answers:
        return True
    if "." not in gold + answer:
        return False
    rounded = _rounds(answer, gold_value) or _rounds(gold, answer_value)
    return True if rounded and gold_percent == answer_percent and not ("." in gold and "." in answer) else None


def _rounds(text: str, value: Fraction) -> bool:
    """Whether a decimal of at least ROUNDED digits is the value, rounded: 2.314814814815 \\times 10^{-3} is 1/432."""
    match = _EXACT.fullmatch(text.removesuffix(r"\%").rstrip())
    if match is None or not (match[3] or match[4]):
        return False
    tail = match[3] or match[4]
    if len(f"{match[2] or ''}{tail}".lstrip("0")) < ROUNDED:
        return False
    last = Fraction(10) ** (int(match[5] or match[6] or 0) - len(tail))
    stated = exact(text.removesuffix(r"\%").rstrip())
    return stated is not None and abs(stated - value) <= last / 2


def mixed(text: str) -> str | None:
    """The decimal that a mixed number at the start of the text is: "2 1/2" -> "2.5". None if it is none, or has
    none."""
    match = MIXED.match(text)
    if match is None or not int(match[3]) < int(match[4]):
        return None
    value = int(match[2]) + Fraction(int(match[3]), int(match[4]))
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    if rest != 1:
        return None
    digits = len(bin(value.denominator))  # the decimal ends before
    shown = f"{int(value * 10**digits):0{digits + 1}d}"
    shown = f"{shown[:-digits]}.{shown[-digits:]}".rstrip("0").rstrip(".")
    return ("-" if match[1] in ("-", "−") else "") + shown
