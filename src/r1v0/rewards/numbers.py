"""Numbers side by side, in plain text.

Decides: they are never added. "2 2/3" with a proper fraction is a mixed number, "10 000" is grouped by thousands, and any
other two numbers side by side are no number.
"""

import re
from fractions import Fraction

MIXED = re.compile(r"([-+−]?)(\d{1,18})[ \t~]+(\d{1,18})\s?/\s?(\d{1,18})(?![\d./^])")
GROUPED = re.compile(r"[-+]?\d{1,3}(?: \d{3})+(?:\.\d+)?(?![\d,/.]|\s\d)")


def mixed(text: str) -> str | None:
    """The decimal that a mixed number at the start of the text is: "2 1/2" -> "2.5". None if it is none, or has none."""
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
    digits = max(len(bin(value.denominator)), 1)
    scaled = value * 10**digits
    decimal = f"{int(scaled):0{digits + 1}d}"
    shown = f"{decimal[:-digits]}.{decimal[-digits:]}".rstrip("0").rstrip(".")
    return ("-" if match[1] in ("-", "−") else "") + shown
