r"""Boxes in a completion: `\boxed{...}` (or `\fbox`), and what is stated by several of them.

Decides: the boxes of one statement ("\boxed{1} and \boxed{-2}", "x_1 = \boxed{1}, x_2 = \boxed{-2}") are one answer,
the list of their contents. So a list can be stated that way, and an answer with two tries is not a single number. A
mention of the box ("I put it in \boxed as asked", "within \boxed{}") states nothing. `\boxed 5` is a box round a
number.

The text is a policy's output, so it is hostile: the work is bounded by len(text) + BOXES * MAX_ANSWER.
"""

import re
from collections.abc import Iterator

MAX_ANSWER = 2000
"""Longest answer, in characters. MATH's longest gold answer has about 160."""

BOXES = 32
"""At most this many last boxes are tried; a completion whose last 32 boxes are all unclosed has no answer."""

_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_OPENING = re.compile(r"\s{0,20}\{")
_BARE = re.compile(r"[ \t]{0,20}([-+]?\d[\d.,/]{0,100}|(?<=\s)[a-zA-Z](?=\s?(?:\$|\\[)\]])))")
_MENTION = re.compile(r"^(?:\.{2,}|\\[lc]?dots|…|\\text\{\s*\}|(?:\\text\{)?\s*(?:your |the |final )*answer\s*\}?)$", re.IGNORECASE)  # fmt: skip
_BEFORE_MENTION = re.compile(
    r"\b(?:in|within|inside|into|using|with|the|an?|of|by|to|as|use|via)[\s$`'\"(*]{1,8}$", re.IGNORECASE
)
_TEXT = re.compile(r"\\(?:text|mbox|textrm)\{([^{}]*)\}")
_SPACE = r"\s|\$|\\[,;:!> ()\[\]]|\\q?quad(?![a-zA-Z])|~|&|\\\\|\*"
_JOIN = r"[,;]|(?:and|or|also)(?![a-zA-Z])|\\(?:land|lor|vee|wedge)(?![a-zA-Z])"
_NAME = (
    r"\\?[A-Za-z]{1,6}(?:_(?:\w|\{\w{1,5}\}))?(?:\([^()=]{1,9}\))?\s{0,2}(?:=|\\in(?![a-zA-Z])|\\approx(?![a-zA-Z]))"
)
_LABEL = r"(?:for\s)?(?:part\s)?\([a-z0-9]{1,3}\):?"
_BETWEEN = re.compile(rf"(?:{_SPACE}|{_JOIN}|{_NAME}|{_LABEL})*")
_CONNECTED = re.compile(rf"{_JOIN}|{_NAME}")
_AND_WORDS = re.compile(r"[^.\n:!?]*?(?<![a-zA-Z])(?:and|or|as well as)(?![a-zA-Z])[^.\n!?]*")
_NEW_STATEMENT = re.compile(
    r"\b(?:so|thus|hence|therefore|then|gives?|giving|yields?|gets?|makes?|making|means?|implies|that|which|equals?|total|"
    r"sum|altogether|no|not|wait|but|actually|instead|wrong|incorrect|correct|final|finally|answer|conclude|obtain|have)\b",
    re.IGNORECASE,
)
_LONGEST_BETWEEN = 100


def last_statement(text: str) -> tuple[int, str] | None:
    """Where the last statement by closed boxes starts, and its content: one box's, or those of several joined by
    commas."""
    found = _boxes(text)
    last = next(found, None)
    if last is None:
        return None
    start, _, content = last
    contents = [content.strip()]
    for before, end, earlier in found:
        if not contents[0] or not earlier.strip() or end > start or not _one_statement(text[end:start]):
            break
        contents.insert(0, earlier.strip())
        start = before
    joined = ", ".join(dict.fromkeys(contents))
    return start, joined if len(contents) > 1 and len(joined) <= MAX_ANSWER else content


def _one_statement(between: str) -> bool:
    """Whether the text between two boxes joins them: a comma, a name for the second, nothing in one formula, or
    "and" with words ("and the larger one is") that begin no other statement ("and so", "no, wait")."""
    if len(between) > _LONGEST_BETWEEN:
        return False
    plain = _TEXT.sub(r" \1 ", between)
    if not _BETWEEN.fullmatch(plain):
        return _AND_WORDS.fullmatch(plain) is not None and _NEW_STATEMENT.search(plain) is None
    return _CONNECTED.search(plain) is not None or not set("$\n") & set(plain)


def _boxes(text: str) -> Iterator[tuple[int, int, str]]:
    """The closed boxes from the last one back, as (start, end, content), without mentions."""
    starts = {command: text.rfind(command) for command in ("\\boxed", "\\fbox")}
    for _ in range(BOXES):
        command, start = max(starts.items(), key=lambda item: item[1])
        if start < 0:
            return
        found = _content(text, start + len(command))
        if found is not None and not _is_mention(text, start, found[1]):
            yield start, *found
        starts[command] = text.rfind(command, 0, start)


def _is_mention(text: str, start: int, content: str) -> bool:
    if not content.strip():
        return _BEFORE_MENTION.search(text[max(0, start - 20) : start]) is not None
    return len(content) < 40 and _MENTION.match(content.strip()) is not None


def _content(text: str, after: int) -> tuple[int, str] | None:
    """Where the box ends that opens at `after`, and what is in it; None where it does not close."""
    opening = _OPENING.match(text, after)
    if opening is None:
        bare = _BARE.match(text, after)  # "\boxed 5", which some MATH solutions have
        return None if bare is None else (bare.end(), bare[1].rstrip(".,"))
    depth = 1
    for match in _BRACE.finditer(text, opening.end(), opening.end() + MAX_ANSWER + 1):
        depth += {"{": 1, "}": -1}.get(match.group(), 0)
        if depth == 0:
            return match.end(), text[opening.end() : match.start()]
    return None
