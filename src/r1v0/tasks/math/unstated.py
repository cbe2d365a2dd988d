r"""The last value of a text that states none: "11 + 4/9", "12.5cm", "-\frac{10}{9}".

Decides: a value is read whole or not at all. What is glued to a number or tied to it by an operator belongs to it: 7.5x
is no 7, 2^10 no 10, 11 + 4/9 no 4/9, and x + 5 no 5. A unit that the table knows may be glued (12.5cm); one letter is a
unit only where the number has decimals, groups, or the letter a power: 12m is rather a product. A label (3D, the 2nd)
is passed over, and what stands before it is the last value.

Numbers are matched by atomic groups, which no lookahead can shorten. The text is hostile and bounded by its caller.
"""

import re

from r1v0.tasks.math.units import UNITS

TRIED = 20
"""At most this many last values of a text are looked at."""

_NUMBER = (
    r"(?>(?:[1-9]\d{0,2}(?: \d{3})+(?!\d|[,:]\d| \d++(?!/\d))(?:\.\d+)?|\d+(?:[,:]\d+)*(?:\.\d+)?|\.\d+)"
    r"(?:[eE][-+]?\d{1,3}(?!\w))?)"
)
_ARGUMENT = r" ?\{(?>[^{}]++|\{(?>[^{}]++|\{[^{}]*+\})*+\})*+\}"
_FUNCTION = (
    rf"(?>\\[dtc]?frac(?:{_ARGUMENT}{_ARGUMENT}| ?\d ?\d)|\\binom{_ARGUMENT}{_ARGUMENT}"
    rf"|\\sqrt(?:\[[^\[\]]*+\])?(?:{_ARGUMENT}| ?\d)|\\pi(?![a-zA-Z])|√\d+)"
)
_FACTOR = (
    rf"(?>(?:\\?\$ ?)?(?>{_NUMBER}(?: \d+ ?/ ?\d+(?:st|nd|rd|th)?)?(?: ?{_FUNCTION})*|{_FUNCTION}(?: ?{_FUNCTION})*)"
    rf"(?: ?\^ ?(?>\{{? ?\\circ ?\}}?(?![a-zA-Z])|{_ARGUMENT}|[-−]?\d+))?°?(?: ?\\?%)?)"
)
_SIGN_BETWEEN = r" [-−–] |[-−–](?=[\d.\\√$])"
_TIMES = r"\\(?:times|cdot|div|pm)(?![a-zA-Z])"
_OPERATOR = rf"(?> ?(?:[+/×÷·⋅±]|(?<!\*)\*(?!\*)|{_TIMES}) ?|(?<=\d)\*\*(?=\d)|{_SIGN_BETWEEN})"
_EXPRESSION = re.compile(
    rf"(?<![\w.^√])(?<![\w√]\()(?:(?<=[=<>,(])[-−] |(?<=[=<>,] )[-−] |[-+−])?{_FACTOR}(?>{_OPERATOR}[-+−]?{_FACTOR})*+"
)
_LABEL = re.compile(r"\d+(?=[^\W\d])")
_ORDINAL = re.compile(r"(?<=\d)(?:st|nd|rd|th)s?(?![\w^])")
_GLUED = re.compile(r"([a-zA-Z]{1,12})(\^\{?[1-9]\}?|[²³])?(?:/([a-zA-Z]{1,6})(?:\^\{?[1-9]\}?|[²³])?)?(?![\w^/])")
_LETTERS = "mgshl"
_COMMAND = (
    r"\\(?:[dtc]?frac|sqrt|binom|pi|times|cdot|div|pm|sin|cos|tan|log|ln|left|sum|int|alpha|beta|gamma|theta|lambda|"
    r"omega|phi|mu|sigma)(?![a-zA-Z])"
)
_TIED_AFTER = re.compile(
    rf"[\w^√{{]|[.,:]\d|[,;] ?(?:\.{{3}}|…|\\[clh]?dots)|\((?: ?[-+]?\w ?[-+*/^])| ?{_COMMAND}"
    r"| ?[+*×÷·^] ?\$?(?:[a-zA-Z](?![\w'])|[√\\π]|\((?=\w))| ?/ ?(?:[abcdefijknpqrtuvwxyz](?![\w'])|[√\\π(])"
    r"|[-−–](?:[a-zA-Z](?![\w'])|\()| [-−–] (?:[b-zB-HJ-Z](?![\w'])|[√\\π])"
)
_TIED_BEFORE = re.compile(
    r"(?:(?<![a-zA-Z])[a-zA-Z]|[\d)\]}π])(?: ?(?:[+/×÷·⋅^]|(?<!\*)\*) ?|[-−–])$|(?:(?<![a-zA-Z])[a-z]|[\d\]}π]) [-−–] $"
    r"|(?:[_^]|\\(?!text|mbox|boxed|fbox|math|left|right)[a-zA-Z]{1,20})\{[^{}]{0,40}$"
)
_GROUPS = re.compile(r"[-+−]?\d{1,3}(?:,\d{3})+(?!,?\d)")


def last_value(text: str) -> tuple[int, str] | None:
    """Where the last value ends, and the value, with its unit where that is glued. None where there is none, and where
    the last one is no more than a part of something."""
    for match in reversed(list(_EXPRESSION.finditer(text))[-TRIED:]):
        found = _whole(text, match)
        if found is not None:
            return found
        if not _LABEL.fullmatch(match[0]) and _LABEL.match(text, match.start()) is None:
            return None
    return None


def _whole(text: str, match: re.Match[str]) -> tuple[int, str] | None:
    """Where a value ends and what it is; None if it is a part of something."""
    start, end = match.span()
    value = match[0].strip()
    if _TIED_BEFORE.search(text[max(0, start - 60) : start]) or (
        re.match(r"0\d", value) and re.search(r"\d $", text[max(0, start - 2) : start])
    ):
        return None
    ordinal = _ORDINAL.match(text, end) if "/" in value else None
    if ordinal is not None:
        return ordinal.end(), value
    unit = _GLUED.match(text, end)
    if unit is not None and not _TIED_AFTER.match(text, unit.end()):
        measured = _measured(value, unit)
        if measured is not None:
            return unit.end(), measured
    if _TIED_AFTER.match(text, end):
        return None
    if re.search(r",\d", value) and not _GROUPS.match(value) and re.fullmatch(r"[-+−]?[\d,.]+", value):
        return end, re.sub(r",(?=\d)", ", ", value)  # 1,2 is a list
    return end, value


def _measured(value: str, unit: re.Match[str]) -> str | None:
    """The value with the unit that is glued to it, as `units` reads it; None if that is none."""
    name, power, under = unit.groups()
    if under is not None:
        return value + unit[0] if _is_unit(name) and _is_unit(under) else None
    if len(name) > 1:
        return value + unit[0] if _is_unit(name) else None
    if name not in _LETTERS or not (power or re.search(r"[.,]\d", value)):
        return None
    power = {"²": "^2", "³": "^3"}.get(power or "", power or "")
    return rf"{value}\text{{{name}}}{power}"


def _is_unit(name: str) -> bool:
    return name in UNITS if len(name) == 1 else name.casefold() in UNITS
