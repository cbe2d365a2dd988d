r"""Units at the end of an answer.

Decides: an answer may leave its unit out, and one that no table knows ("apples") says nothing; but two units that
the table knows must be the same, with their powers (cm^2, cm^3) and in quotients (m/s, km/h). Units are removed by
this table, or inside \text. Words that change the number ("3 or more", "half") are not a unit: the answer is then no
number.
"""

import re

WRAPPER = r"\\(?:text|textbf|textit|textrm|textnormal|mbox|hbox|mathrm|mathbf|mathit|mathsf|operatorname)\s*"

_UNITS = {
    "cm": "cm centimeter centimetre", "m": "m meter metre", "km": "km kilometer kilometre", "mm": "mm millimeter millimetre",
    "inch": "in inch inche", "foot": "ft foot feet", "yard": "yd yard", "mile": "mi mile", "acre": "acre", "hectare": "ha hectare",
    "second": "s sec second", "minute": "min minute", "hour": "h hr hour", "day": "day", "week": "week", "month": "month",
    "year": "yr year", "dollar": "dollar usd", "cent": "cent", "euro": "euro €", "degree": "degree deg", "radian": "radian rad",
    "gram": "g gram", "kg": "kg kilogram", "mg": "mg milligram", "ton": "ton tonne", "pound": "lb pound", "ounce": "oz ounce",
    "liter": "l liter litre", "ml": "ml milliliter millilitre", "gallon": "gal gallon", "quart": "quart", "pint": "pint",
    "percent": "percent pct percentage", "unit": "unit", "newton": "newton", "joule": "j joule", "watt": "w watt", "volt": "v volt",
    "hertz": "hz hertz", "mph": "mph", "kph": "kph kmh kmph", "am": "am", "pm": "pm",
}  # fmt: skip
UNITS = {
    spelling + plural: unit
    for unit, spellings in _UNITS.items()
    for spelling in spellings.split()
    for plural in ("", "s")
    if not (plural and len(spelling) == 1)
}
"""Spelling -> unit."""

_QUOTIENTS = {"mph": (("mile", 1), ("hour", -1)), "kph": (("km", 1), ("hour", -1))}
_POWERS = {"square": 2, "sq": 2, "squared": 2, "cubic": 3, "cu": 3, "cubed": 3}
_COUNTING = re.compile(
    r"\b(?:or|more|less|least|most|fewer|greater|smaller|larger|than|not|no|over|under|above|below|except|between|plus|minus|"
    r"times|divided|multiplied|half|halves|thirds?|quarters?|fourths?|fifths?|tenths?|hundredths?|dozens?|hundreds?|"
    r"mod(?:ulo)?|root|factorial|double|twice|if|when|unless|only|all|any|none|where|for|is|are|an?|base|through)\b"
)

_POWER = r"(?:\s*\^\s*(?:\{\s*-?[1-9]\s*\}|[1-9]))?"
_PART = rf"{WRAPPER}\{{[^{{}}]*\}}{_POWER}"
_UNIT_TEXT = re.compile(rf"(?<=[^\s(\[,=+*/^_-])\s?{_PART}(?:\s*(?:/|\\cdot|\\,)?\s*{_PART})*$")
_WORD = rf"(?:{'|'.join(sorted((re.escape(unit) for unit in UNITS if len(unit) > 1), key=len, reverse=True))})"
_PLAIN = rf"(?:(?:square|cubic|sq\.?|cu\.?) )?{_WORD}(?: (?:squared|cubed))?{_POWER}"
_UNIT_WORD = re.compile(
    rf"(?<=[\d}}\s)%]){_PLAIN}(?:\s?(?:/|per )\s?(?:{_PLAIN}|(?:[smhg]|min){_POWER}))?$", re.IGNORECASE
)
_QUOTIENT_OF_LETTERS = re.compile(rf"(?<=[\d\s}}])(?:k?m|[gl])/(?:s|h|min){_POWER}$", re.IGNORECASE)
_COUNTED = re.compile(r"^([-+]?\d[\d.,]*)\s+([a-z]{4,20}(?: [a-z]{2,20}){0,2})$", re.IGNORECASE)
_UNICODE = re.compile(r"(?<=\d)\s?(k?m|[cm]m|ft|in)([²³])")


def conflict(gold: str, answer: str) -> bool:
    """Whether two units are different. An unnamed one ("square units") stands for any with its power."""
    if not gold or not answer or gold == answer:
        return False
    if not any(re.match(r"unit(?:\^|$)", unit) for unit in (gold, answer)):
        return True
    powers = [re.sub(r"^[a-z€]+", "", unit) for unit in (gold, answer)]
    return powers[0] != powers[1]


def counted(text: str) -> str:
    """9 chickens and 10 rabbits as the list 9, 10. Units of the table are one measure: 5 feet and 6 inches."""
    parts = re.split(r"\s*(?:,|(?<![a-zA-Z])and(?![a-zA-Z]))\s*", text)
    items = [_COUNTED.match(part) for part in parts if part]
    if len(items) < 2 or not all(items):
        return text
    words = [item[2].casefold() for item in items if item]
    if any(_COUNTING.search(word) or set(word.split()) & UNITS.keys() for word in words):
        return text
    return ", ".join(item[1] for item in items if item)


def marked(text: str) -> str:
    """5 m² written so that its m is known to be a unit: 5 \\text{m}^2."""
    return _UNICODE.sub(lambda match: rf"\text{{{match[1]}}}^{'23'['²³'.index(match[2])]}", text)


def without_unit(text: str) -> tuple[str, str]:
    """The text without the unit at its end, and that unit ("" if no table knows it): "5 m/s^2" -> ("5", "m
    second^-2")."""
    match = _UNIT_TEXT.search(text) or _UNIT_WORD.search(text) or _QUOTIENT_OF_LETTERS.search(text)
    if match is None:
        counted = _COUNTED.match(text)
        if counted is None or _COUNTING.search(counted[2].casefold()):
            return text, ""
        return counted[1], ""
    rest = text[: match.start()].strip()
    name = re.sub(WRAPPER, " ", match[0]).casefold()
    if not rest or _COUNTING.search(name):
        return text, ""
    unit = _canonical(name)
    return (rest + r"\%", "") if unit == "percent" else (rest, unit)


def _canonical(name: str) -> str:
    """The unit in the table's words with its powers, in order: "square inches" -> "inch^2". "" if a word is in no
    table."""
    name = re.sub(r"\bper\b", "/", re.sub(r"[{}()\\]|cdot", " ", name)).replace(".", " ")
    powers: dict[str, int] = {}
    sign, before, last = 1, 1, ""
    for word in re.findall(r"[a-z€]+|/|\^\s*-?\d", name):
        if word == "/":
            sign, before = -1, 1
        elif word in ("square", "sq", "cubic", "cu"):
            before = _POWERS[word]
        elif word in _POWERS or word[0] == "^":
            power = _POWERS.get(word) or int(word[1:])
            if last:
                powers[last] += sign * (power - 1)
        elif word in UNITS:
            for last, power in _QUOTIENTS.get(UNITS[word], ((UNITS[word], 1),)):
                powers[last] = powers.get(last, 0) + sign * power * before
            before = 1
        else:
            return ""
    return " ".join(unit if power == 1 else f"{unit}^{power}" for unit, power in sorted(powers.items()) if power)
