r"""Ways to write an answer that mean the same, rewritten as the symbolic parser reads them. Text in, text out.

Each function takes LaTeX that `latex.clean` is at work on, and leaves alone what it is not for.
"""

import re

_ORDINAL = re.compile(
    r"(?<=\d)(?:\s?\^?\s?\{?\s?\\(?:text|mathrm|textrm|mbox)\s*\{\s*(?:st|nd|rd|th)\s*\}\s?\}?|\s?\^\s?\{\s?(?:st|nd|rd|th)\s?\}"
    r"|(?:(?<=1)st|(?<=2)nd|(?<=3)rd|(?<=\d)th))(?![a-zA-Z])"
)
_EXTREME = re.compile(r"_\s?\{?\s?\\(max|min|sup|inf|lim)\s?\}?(?![a-zA-Z])")
_EXTREME_OF = re.compile(
    r"^\\(?:max|min|sup|inf)\s?(?:_\s?\{[^{}]*\}|_\w)?\s?(?:\([^()=]*\)|\{[^{}=]*\}|[a-zA-Z])?\s?=\s?"
)
_SCIENTIFIC = re.compile(r"(?<![\w.\\])(\d+(?:\.\d+)?)[eE]([-+]?\d{1,3})(?![\w.]|\s?\d)")
_TRIGONOMETRIC = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-zA-Z])")
_DEGREE = r"\s?\^\s?(?:\{\s?\\circ\s?\}|\\circ)(?![a-zA-Z])"
_IN_DEGREES = re.compile(rf"(\d+(?:\.\d+)?|\\[a-zA-Z]+|[a-zA-Z]){_DEGREE}")
_BARE_TRIGONOMETRIC = re.compile(
    rf"({_TRIGONOMETRIC.pattern}(?:\s?\^\s?(?:\{{-?\d+\}}|\d))?)\s?(\d+(?:\.\d+)?|[a-zA-Z]){_DEGREE}"
)
_GROUP = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])")
_ROUND = re.compile(r"(?<!\\frac)[(\[]|\\\{")
_OPERATOR = re.compile(r"[-+*/=^]|\\(?:frac|times|cdot|div|sqrt|pi|text)(?![a-zA-Z])")
_MODULUS = re.compile(
    r"\s?(?:\\pmod\s?(?:\{\s?(\d+)\s?\}|(\d+))|\(\s?(?:\\[bp]?mod|mod)\s?\{?\s?(\d+)\s?\}?\s?\)|\\text\s?\{\s?\(?mod(?:ulo)?\s(\d+)\)?\s?\})$"
)
_REMAINDER = re.compile(r"(-?\d{1,300})\s?\\mod\s?\{?\s?(\d{1,50})\s?\}?\s?(?:=\s?(-?\d{1,50}))?")
_CONGRUENT = re.compile(r"^(.*)\\equiv(?![a-zA-Z])\s?([^=]*)$")
_TEXT = re.compile(r"\\(?:text|mbox|textrm)\s*\{([^{}]*)\}")
_LETTERS = r"[a-zA-Z](?:\s?,\s?[a-zA-Z]){0,3}"
_SETS = r"(?:\s?\\in(?![a-zA-Z])\s?\\mathbb\s?\{?[RCQZN]\}?(?:\s?[\^_]\s?\{?[+*]\}?)?)?"
_KINDS = r"(?:(?:real|complex|rational|integer|natural|whole|positive|nonnegative|non-negative|numbers?|integers?|reals?|values?|of)\s){0,4}"
_FOR_ALL = re.compile(
    r"[\s,;(]*(?:for "
    rf"(?:all|every|any|each)|\\forall(?![a-zA-Z]))\s?(?:{_KINDS}{_LETTERS}{_SETS}|{_KINDS.replace('){0,4}', '){1,4}')})\s?\)?$"
)
_FOR_ALL_FIRST = re.compile(
    rf"^(?:for (?:all|every|any|each)|\\forall(?![a-zA-Z]))\s?{_KINDS}{_LETTERS}{_SETS}\s?[,:]\s?", re.IGNORECASE
)
_CONSTANT = re.compile(
    rf"[\s,;(]*(?:where|with|for)\s{_LETTERS}\s?(?:is|are|being)\s(?:an?\s|any\s|some\s|arbitrary\s|real\s|constant\s)*(?:constants?|numbers?|reals?)\s?\)?$"
)
_REAL = re.compile(r"\s?,\s?[a-zA-Z]\s?\\in(?![a-zA-Z])\s?\\mathbb\s?\{?[RC]\}?$")
_ALL_REALS = re.compile(
    r"^(?:all|any) (?:real )?(?:numbers|reals|real numbers|values)(?: of)?(?: [a-z])?$|^all real [a-z]$"
)
_CLOCK = re.compile(r"(\d{1,2}):(\d\d)(?::(\d\d))?(am|pm)?")
_CLOCK_SPACES = re.compile(r"\\[!,;: ]|[${}]")
_APPROXIMATE = re.compile(r"^(.*?)\\approx(?![a-zA-Z])(.*)$")


def same_time(gold: str, answer: str) -> bool | None:
    """Whether two times of the day are the same: 20:34 is 20:34:00 and 8:34 PM, and either may leave PM out. None if
    one is no time."""
    time, stated = _clock(gold), _clock(answer)
    if time is None or stated is None:
        return None
    (first, half), (second, other) = time, stated
    if first == second or bool(half) == bool(other):
        return first == second
    bare = second if half else first
    return bare < 13 * 3600 and first % (12 * 3600) == second % (12 * 3600)


def _clock(text: str) -> tuple[int, str] | None:
    """The second of the day that a time is, and its AM or PM, which it may leave out."""
    plain = _CLOCK_SPACES.sub("", flat(text)).replace(".", "").replace(" ", "").casefold()
    match = _CLOCK.fullmatch(plain)
    if match is None:
        return None
    hour, half = int(match[1]), match[4] or ""
    if hour > (12 if half else 23) or int(match[2]) > 59 or int(match[3] or 0) > 59:
        return None
    return (hour % 12 + 12 * (half == "pm") if half else hour) * 3600 + int(match[2]) * 60 + int(match[3] or 0), half


def flat(text: str) -> str:
    r"""Without \text round words: "x \text{ for all } x" -> "x for all x"."""
    return " ".join(_TEXT.sub(r" \1 ", text).split())


def plain(text: str) -> str:
    r"""Ordinals (12^{\text{th}}), names of extremes (m_{\max}), 6.02e23 and \bmod as the parser reads them."""
    text = _EXTREME_OF.sub("", _EXTREME.sub(r"_{\1}", _ORDINAL.sub("", text)))
    text = _SCIENTIFIC.sub(lambda match: rf"{match[1]}\cdot 10^{{{int(match[2])}}}", text).replace(r"\bmod", r"\mod")
    match = _REMAINDER.fullmatch(text)
    if match is None or not int(match[2]) or (match[3] and int(match[3]) != int(match[1]) % int(match[2])):
        return text
    return str(int(match[1]) % int(match[2]))


def in_radians(text: str) -> str:
    r"""Degrees, where there is a trigonometric function, as what they are: \sin 30^\circ ->
    \sin{(\frac{30\pi}{180})}."""
    if "circ" not in text or not _TRIGONOMETRIC.search(text):
        return text
    text = _BARE_TRIGONOMETRIC.sub(lambda match: rf"{match[1]}{{(\frac{{{match[2]}\pi}}{{180}})}}", text)
    return _IN_DEGREES.sub(lambda match: rf"(\frac{{{match[1]}\pi}}{{180}})", text)


def ungrouped(text: str) -> str:
    """Thousands' commas in an expression: 472/10,000 -> 472/10000. Within brackets a comma lists."""
    if "," not in text or _ROUND.search(text) or not _OPERATOR.search(text):
        return text
    return _GROUP.sub(lambda match: match[0].replace(",", ""), text)


def without_modulus(text: str) -> tuple[str, str]:
    r"""17 \equiv 2 \pmod 5 -> ("2", "mod 5"). A congruence of numbers that is false stays, and is no value."""
    match = _MODULUS.search(text)
    if match is None or not text[: match.start()].strip():
        return text, ""
    modulus = next(group for group in match.groups() if group is not None)
    rest = text[: match.start()].strip()
    sides = _CONGRUENT.match(rest)
    if sides is not None:
        left, rest = sides[1].strip(), sides[2].strip()
        numbers = re.fullmatch(r"-?\d{1,50}", left), re.fullmatch(r"-?\d{1,50}", rest)
        if all(numbers) and (int(modulus) == 0 or (int(left) - int(rest)) % int(modulus)):
            return text, ""
    return rest, f"mod {int(modulus[:50])}"


def congruent(gold: str, answer: str, unit: str) -> bool:
    """Whether both are integers that are congruent by the modulus that both state ("mod 5")."""
    if not unit.startswith("mod ") or not all(re.fullmatch(r"-?\d{1,50}", text) for text in (gold, answer)):
        return False
    modulus = int(unit[4:])
    return modulus > 0 and (int(gold) - int(answer)) % modulus == 0


def unconditional(text: str) -> str:
    r"""Without what holds for every value: f(x)=1 \text{ for all } x; cx, where c is a constant."""
    words = flat(text)
    if not any(word in words for word in ("for ", "For ", r"\forall", "where ", "with ", r"\mathbb")):
        return text
    short = _CONSTANT.sub("", _FOR_ALL.sub("", _FOR_ALL_FIRST.sub("", words)))
    if "=" in short:
        short = _REAL.sub("", short)
    return text if short == words or not short.strip() else short.strip(" ,;")


def all_reals(text: str) -> bool:
    """Whether the text says "all real numbers"."""
    return _ALL_REALS.match(flat(text).casefold().rstrip(".")) is not None


def approximated(text: str) -> str:
    r"""What is exact in x = 1/3 \approx 0.33: what stands before; x \approx 11 states 11."""
    match = _APPROXIMATE.match(text)
    if match is None:
        return text
    left = match[1].strip()
    return (
        left.rstrip("=")
        if re.search(r"\d|\\pi|\\sqrt|\\frac", left.rpartition("=")[2])
        else f"{left}={match[2].strip()}"
    )
