r"""Dots for what goes on: 1, 2, 3, \ldots.

Decides: an ellipsis is a part of an answer, however it is written (..., …, \dots, \cdots): a list that goes on is no
finite list, and 1... is not 1. Two lists that go on are the same where all they show is, in order. A decimal of many
digits that goes on is that decimal, rounded. In free text, dots behind a value end the sentence ("The answer is 5...");
behind a comma they go on with a list.
"""

import re

from r1v0.tasks.math.letters import items

DOTS = r"\ldots"
_ELLIPSIS = re.compile(r"\.(?: ?\.){2,}|…|\\(?:[clh]?dots|dots[bcimo])(?![a-zA-Z])")
_CLOSED = re.compile(r"^(\\\{|[{(\[])(.*?)(\\\}|[})\]])$")
_DECIMAL = re.compile(r"(?<![\d.])(\d*\.\d{5,}) ?\\ldots$")
_IN_WORDS = re.compile(r",\s*(?:\.{3,}|…|\\[clh]?dots(?![a-zA-Z]))")
_LISTING = re.compile(r"[,;]\s*(?:\.{3,}|…)$")


def marked(text: str) -> str:
    """Every ellipsis as \\ldots."""
    return _ELLIPSIS.sub(r"\\ldots ", text) if "…" in text or "." in text or "dots" in text else text


def in_words(text: str) -> str:
    """An ellipsis that goes on with a list of words as a word of its own."""
    return _IN_WORDS.sub(", …", text)


def unstopped(text: str) -> str:
    """A line of free text without the dots that end it; those that go on with a list stay."""
    text = text.strip()
    return text if goes_on(text) else text.rstrip(".…").strip()


def goes_on(text: str) -> bool:
    """Whether dots behind a comma end the text."""
    return _LISTING.search(text) is not None


def formula_unstopped(text: str) -> str:
    """A formula without a full stop or comma at its end; three dots are its own."""
    text = text.strip()
    return text if re.search(r"(?:\.{3}|\\right ?\.)$", text) else text.rstrip(".,").strip()


def apart(gold: str, answer: str) -> bool:
    """Whether only one of two cleaned answers goes on, or one has more dots."""
    return gold.count(DOTS) != answer.count(DOTS)


def rounded(text: str) -> str:
    """A decimal of many digits that goes on, without its dots."""
    return _DECIMAL.sub(r"\1", text)


def endless(gold: str, answer: str) -> list[tuple[str, str]] | None:
    """What must be equal, in order, where both answers are lists that go on; nothing where they cannot be the same;
    None where they are not both."""
    sides = [_shown(gold), _shown(answer)]
    if sides[0] is None or sides[1] is None:
        return None
    (opening, golds), (other, answers) = sides[0], sides[1]
    if len(golds) != len(answers) or (opening and other and opening != other):
        return []
    return list(zip(golds, answers, strict=True))


def _shown(text: str) -> tuple[str, list[str]] | None:
    """The brackets of a list that goes on, and what it shows."""
    closed = _CLOSED.match(text.strip())
    brackets, inner = (closed[1] + closed[3], closed[2]) if closed else ("", text)
    parts = items(inner)
    if len(parts) < 2 or parts[-1] != DOTS:
        return None
    return brackets, parts[:-1]
