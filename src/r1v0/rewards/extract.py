"""Find the answer in a completion.

Decides: the answer is what was stated LAST: the last balanced `\\boxed{...}` (or `\\fbox`), or the template's answer tags
(`<answer>...</answer>`, R1-Zero's, arXiv 2501.12948, table 1), whichever comes later. A box inside the tags wins over the
tags' other text. An answer is at most MAX_ANSWER characters: a longer one is no answer.

The text is a policy's output, so it is hostile: every function is iterative and its work is bounded by
len(text) + BOXES * MAX_ANSWER, whatever the text.
"""

import re

MAX_ANSWER = 2000
"""Longest answer, in characters. MATH's longest gold answer has about 160."""

BOXES = 32
"""So many last boxes are tried; a completion whose last 32 boxes are all unclosed has no answer."""

_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_OPENING = re.compile(r"\s{0,20}\{")
_BARE_BOX = re.compile(r"[ \t]{1,20}([^\s{}$\\]{1,100})")
_THE_ANSWER_IS = re.compile(r"the answer is:?", re.IGNORECASE)
_FORMULA = re.compile(r"\\(?:[dtc]?frac|sqrt|binom|times|cdot|div|pi)(?![a-zA-Z])|√")
_GOES_ON = re.compile(r"\s{0,9}(?:[/*×÷]\s{0,9}[-+(]?\d|\^\s{0,9}[{(]?\s{0,9}[-+]?\d)|[eE][-+]?\d")
_NUMBER = re.compile(r"[-+]?(?:\d[\d,]*(?:\.\d*)?|\.\d+)")


def answer(text: str) -> str | None:
    """The stated answer, stripped, or None if there is none. An empty box is the empty answer: "" and not None."""
    box, tags = _last_box(text), _last_tags(text)
    if tags is not None and (box is None or box[0] < tags[0]):
        inner = _last_box(tags[1])
        return (inner or tags)[1].strip()
    return None if box is None else box[1].strip()


def boxed(text: str) -> str | None:
    """The content of the last balanced box, or None."""
    box = _last_box(text)
    return None if box is None else box[1].strip()


def tagged(text: str) -> str | None:
    """The content of the last complete pair of answer tags, or None."""
    tags = _last_tags(text)
    return None if tags is None else tags[1].strip()


def gsm8k(text: str) -> str | None:
    """GSM8K's answer: the number after the last "####", else the last box, else the number after "The answer is"
    (MetaMathQA's form). None if the form that was found holds no number."""
    hashes = text.rfind("####")
    if hashes >= 0:
        return number(text[hashes + 4 : hashes + 4 + 200].partition("\n")[0])
    box = boxed(text)
    if box is not None:
        return number(box)
    start = -1
    for match in _THE_ANSWER_IS.finditer(text):
        start = match.end()
    return None if start < 0 else number(text[start : start + 200].lstrip().partition("\n")[0])


def number(text: str) -> str | None:
    """The first number of a short text, without $ , % and a plus sign: "$1,250.50 each" -> "1250.50". None without one, and
    for a formula: 14/3, 10^5 and \\frac{14}{3} are not the number 14 or 10."""
    if _FORMULA.search(text):
        return None
    text = re.sub(r"\\(?:left|right)(?![a-zA-Z])|\\[!,;: ]|[$%\\]|\{(?=,)|(?<=,)\}", "", text)
    match = _NUMBER.search(text)
    if (
        match is None
        or _GOES_ON.match(text, match.end())
        or text[: match.start()].rstrip(" {(").endswith(("^", "_", "/"))
    ):
        return None
    return match.group().replace(",", "").removeprefix("+").rstrip(".")


def _last_box(text: str) -> tuple[int, str] | None:
    """Position and content of the box that starts last among those that are closed."""
    starts = {command: text.rfind(command) for command in ("\\boxed", "\\fbox")}
    for _ in range(BOXES):
        command, start = max(starts.items(), key=lambda item: item[1])
        if start < 0:
            return None
        content = _box_content(text, start + len(command))
        if content is not None:
            return start, content
        starts[command] = text.rfind(command, 0, start)
    return None


def _box_content(text: str, after: int) -> str | None:
    opening = _OPENING.match(text, after)
    if opening is None:
        bare = _BARE_BOX.match(text, after)  # "\boxed 5", which some MATH solutions have
        return None if bare is None else bare[1].rstrip(".,")
    depth = 1
    for match in _BRACE.finditer(text, opening.end(), opening.end() + MAX_ANSWER + 1):
        depth += {"{": 1, "}": -1}.get(match.group(), 0)
        if depth == 0:
            return text[opening.end() : match.start()]
    return None


def _last_tags(text: str) -> tuple[int, str] | None:
    close = text.rfind("</answer>")
    start = text.rfind("<answer>", 0, close) if close >= 0 else -1
    if start < 0:
        return None
    content = text[start + len("<answer>") : close]
    return (start, content) if len(content.strip()) <= MAX_ANSWER else None
