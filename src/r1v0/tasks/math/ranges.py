r"""Sets of real numbers, however they are written: intervals and unions, inequalities with "and" and "or",
set-builders.

Decides: x<2 \text{ or } x>3, \{x \mid x<2 \text{ or } x>3\} and (-\infty,2)\cup(3,\infty) are one set. Two
inequalities with only a comma between them are both meant where they meet, else either (x<2, x>3). Named variables
must be the same where both answers have one.
"""

import re
from collections.abc import Callable
from typing import Any

from r1v0.tasks.math.forms import flat

Parse = Callable[[str], Any]

_BUILDER = re.compile(
    r"^\\?\{\s?([a-zA-Z])(?:\s?\\in(?![a-zA-Z])\s?(\\mathbb\s?\{?[RZN]\}?))?\s?"
    r"(?:\\(?:mid|vert|colon)(?![a-zA-Z])|:|\|)\s?(.*?)\s?\\?\}$"
)
_RELATION = re.compile(r"\\(?:leqslant|geqslant|leq|geq|neq|le|ge|ne|lt|gt)(?![a-zA-Z])|[<>]|!=")
_OR = re.compile(r"(?<![a-zA-Z\\])or(?![a-zA-Z])|\\(?:cup|lor|vee)(?![a-zA-Z])")
_AND = re.compile(r"(?<![a-zA-Z\\])and(?![a-zA-Z])|\\(?:cap|land|wedge)(?![a-zA-Z])")
_MEMBER = re.compile(r"^([a-zA-Z])\s?\\in(?![a-zA-Z])\s?")
_VARIABLE = re.compile(r"-?[a-zA-Z](?:_\w)?(?:\([a-zA-Z]\))?")
_WORDS = {"\\leqslant": "<=", "\\leq": "<=", "\\le": "<=", "\\geqslant": ">=", "\\geq": ">=", "\\ge": ">=", "\\neq": "!=",
          "\\ne": "!=", "\\lt": "<", "\\gt": ">"}  # fmt: skip
_FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "!=": "!="}
MOST_INTEGERS = 100


def is_range(text: str) -> bool:
    """Whether a text states its set by relations, or by "or" between intervals."""
    return _RELATION.search(text) is not None or (_OR.search(flat(text)) is not None and "infty" in text)


def as_set(text: str, parse: Parse) -> tuple[Any, str] | None:
    """The sympy set of an answer and its variable's name ("" if it has none). None if it is not a set of numbers."""
    from sympy import FiniteSet, Interval, Reals, Set, Union

    text, integers, variable = _unbuilt(flat(text))
    found: list[Any] = []
    for piece in _OR.split(text):
        member = _MEMBER.match(piece.strip())
        piece = piece.strip()[member.end() :] if member else piece.strip(" ,;")
        if _RELATION.search(piece):
            part = _conjunction(piece, parse)
            if part is None or (variable and part[1] != variable):
                return None
            variable = part[1]
            found.append(part[0])
        else:
            parsed = parse(piece)
            if (
                parsed is None
                or not isinstance(parsed, Set)
                or (isinstance(parsed, FiniteSet) and not _numbers(parsed))
            ):
                return None
            found.append(Interval(*_infinities()) if parsed == Reals else parsed)
    if not found:
        return None
    whole = Union(*found)
    members = _integers(whole) if integers else whole
    return None if members is None else (members, variable)


def same(gold: Any, answer: Any) -> bool:
    """Whether two sets of numbers are one: the same intervals with the same ends, and the same points."""
    golds, answers = _pieces(gold), _pieces(answer)
    if golds is None or answers is None or len(golds) != len(answers):
        return False
    return all(
        g[2:] == a[2:] and _same_number(g[0], a[0]) and _same_number(g[1], a[1])
        for g, a in zip(golds, answers, strict=True)
    )


def _unbuilt(text: str) -> tuple[str, bool, str]:
    r"""Without the set-builder, whether it is one of integers, and its variable."""
    match = _BUILDER.match(text)
    if match is None:
        return text, False, ""
    return match[3].rstrip("\\").strip(), match[2] is not None and "Z" in match[2], match[1].lower()


def _conjunction(text: str, parse: Parse) -> tuple[Any, str] | None:
    """Of inequalities that are all meant, or with commas either meant: the set and the variable."""
    from sympy import Intersection, S, Union

    parts = []
    for clause in re.split(rf"{_AND.pattern}|[,;]", text):
        if clause.strip():
            part = _chain(clause.strip(), parse)
            if part is None:
                return None
            parts.append(part)
    if len({name for _, name in parts}) != 1:
        return None
    sets = [part for part, _ in parts]
    both = Intersection(*sets)
    if both != S.EmptySet:
        return both, parts[0][1]
    return None if _AND.search(text) else (Union(*sets), parts[0][1])


def _chain(text: str, parse: Parse) -> tuple[Any, str] | None:
    """-2 \\le x < 7, x > 2 or x \\ne 5: the set, and the variable's name."""
    from sympy import Intersection

    sides = [side.strip() for side in _RELATION.split(text)]
    signs = [_WORDS.get(sign, sign) for sign in _RELATION.findall(text)]
    at = [i for i, side in enumerate(sides) if _VARIABLE.fullmatch(side)]
    if len(at) != 1 or len(sides) > 3 or (len(sides) == 3 and at[0] != 1):
        return None
    found = []
    for i, side in enumerate(sides):
        if i == at[0]:
            continue
        sign = signs[min(i, at[0])] if i > at[0] else _FLIPPED[signs[i]]
        value = parse(side)
        if not getattr(value, "is_extended_real", False) or getattr(value, "free_symbols", True):
            return None
        if sides[at[0]].startswith("-"):
            value, sign = -value, _FLIPPED[sign]
        found.append(_ray(sign, value))
    return Intersection(*found), sides[at[0]].removeprefix("-").lower()


def _ray(sign: str, value: Any) -> Any:
    """The numbers that stand in the relation to the value."""
    from sympy import Interval, Union

    low, high = _infinities()
    below, above = Interval(low, value, True, sign != "<="), Interval(value, high, sign != ">=", True)
    return {"<": below, "<=": below, ">": above, ">=": above}.get(sign, Union(below, above))


def _infinities() -> tuple[Any, Any]:
    from sympy import oo

    return -oo, oo


def _integers(found: Any) -> Any:
    """The integers of a bounded set; None of one that is not."""
    from sympy import FiniteSet, S, ceiling, floor

    if not (found.inf.is_finite and found.sup.is_finite) or found.sup - found.inf > MOST_INTEGERS:
        return None
    between = range(int(ceiling(found.inf)), int(floor(found.sup)) + 1)
    return FiniteSet(*[n for n in between if found.contains(n) is S.true])


def _numbers(found: Any) -> bool:
    return all(getattr(member, "is_number", False) for member in found.args)


def _pieces(found: Any) -> list[tuple[Any, Any, bool, bool]] | None:
    """A union's intervals and points, in order."""
    from sympy import Complement, FiniteSet, Interval, Union

    if isinstance(found, Complement):
        found = found.doit()
    pieces = []
    for part in found.args if isinstance(found, Union) else (found,):
        if isinstance(part, Interval):
            pieces.append((part.start, part.end, bool(part.left_open), bool(part.right_open)))
        elif isinstance(part, FiniteSet) and _numbers(part):
            pieces += [(point, point, False, False) for point in part.args]
        else:
            return None
    return sorted(pieces, key=lambda piece: (float(piece[0]), float(piece[1])))


def _same_number(left: Any, right: Any) -> bool:
    from r1v0.tasks.math.values import apart

    return left == right or (
        left.is_finite and right.is_finite and not apart(left, right) and bool((left - right).equals(0))
    )
