"""Find the answer in a completion.

Decides: the answer is what was stated LAST: the last statement by `\\boxed{...}` (`boxes`), or the template's answer
tags (`<answer>...</answer>`, R1-Zero's, arXiv 2501.12948, table 1), whichever comes later. A box inside the tags wins
over the tags' other text. An answer is at most MAX_ANSWER characters: a longer one is no answer. Markdown's marks
(**5**) are no part of it.

That is `reward.extraction = "boxed"`. "last" takes more where nothing is stated: what follows "the answer is", else the
last formula or number. So other harnesses count base models, which have not learned to box (Qwen2.5-Math's and
lm-evaluation-harness's minerva_math among them).

The text is a policy's output, so it is hostile: every function is iterative and its work is bounded by
len(text) + BOXES * MAX_ANSWER, whatever the text.
"""

import re

from r1v0.tasks.math import boxes
from r1v0.tasks.math.boxes import last_statement
from r1v0.tasks.math.dots import formula_unstopped, goes_on, unstopped
from r1v0.tasks.math.marks import unmarked
from r1v0.tasks.math.numbers import GROUPED, mixed
from r1v0.tasks.math.unstated import last_value

MAX_ANSWER = boxes.MAX_ANSWER
TAIL = 1000
"""Characters at the end of a completion in which "last" looks for an answer that nobody stated."""

_THE_ANSWER_IS = re.compile(r"the answer is:?", re.IGNORECASE)
_ANNOUNCED = re.compile(
    r"(?:answers?|result|solution)\*{0,2}\s{0,3}(?:is|are|:|=)(?![a-zA-Z])(?:[\s:]|\*{2}(?=\s)){0,9}", re.IGNORECASE
)
_MATH = re.compile(r"\$\$([^$]{1,500})\$\$|\$([^$\n]{1,500})\$|\\\(([^$\n]{1,500}?)\\\)|\\\[([^$]{1,500}?)\\\]")
_NESTING = re.compile(
    r"\\(?:left|right) ?(?:\\.|.)|\\(?:begin|end)(?![a-zA-Z])|\\not ?=|\\.|:=|=>|<=>|[<>!]=|=<|==?|[{}()\[\]]",
    re.DOTALL,
)
_FORMULA = re.compile(r"\\(?:[dtc]?frac|sqrt|binom|times|cdot|div|pi)(?![a-zA-Z])|√")
_GOES_ON = re.compile(
    r"\s{0,9}(?:[/*×÷]\s{0,9}[-+(]?\d|\^\s{0,9}[{(]?\s{0,9}[-+]?\d)|[eE][-+]?\d|:\d|\s{0,9}[-+−–]\s{0,9}\$?\d"
    r"|\s{0,9}[,;]?\s{0,9}(?:[a-zA-Z]{0,20}\s{0,9}\(?(?:or|and|to)\s)?\s{0,9}[-+]?\d"
)
_NUMBER = re.compile(r"[-+]?(?:\d[\d,]*(?:\.\d*)?|\.\d+)")


def answer(text: str) -> str | None:
    """The stated answer, stripped, or None if there is none. An empty box is the empty answer: "" and not None."""
    box, tags = last_statement(text), _last_tags(text)
    if tags is not None and (box is None or box[0] < tags[0]):
        inner = last_statement(tags[1])
        return unmarked((inner or tags)[1].strip())
    return None if box is None else unmarked(box[1].strip())


def boxed(text: str) -> str | None:
    """The content of the last balanced box, or of the last statement by several; None if there is none."""
    box = last_statement(text)
    return None if box is None else unmarked(box[1].strip())


def tagged(text: str) -> str | None:
    """The content of the last complete pair of answer tags, or None."""
    tags = _last_tags(text)
    return None if tags is None else unmarked(tags[1].strip())


def last(text: str) -> str | None:
    """The stated answer; else what follows the last "answer is"; else the last formula or number. None without one."""
    stated = answer(text)
    if stated:
        return stated
    tail = text[-TAIL:]
    announced = _last_match(_ANNOUNCED, tail)
    if announced is not None:
        line = tail[announced.end() :].lstrip().partition("\n")[0]
        return _first_value(line) or _last_value(tail)
    return _last_value(tail)


def gsm8k(text: str) -> str | None:
    """GSM8K's answer: the number after the last "####", else the last box, else the number after "The answer is"
    (MetaMathQA's form). None if the form that was found holds no number, or more than one."""
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
    """The first number of a short text, without $ , % and a plus sign: "$1,250.50 each" -> "1250.50". None without one,
    for a formula (14/3, 10^5 and \\frac{14}{3} are not the number 14 or 10), and where another number follows it
    ("7 8", "7 or 8"). A mixed number is its value, where that is a decimal: "2 1/2" -> "2.5"."""
    if _FORMULA.search(text):
        return None
    text = re.sub(
        r"\\(?:left|right)(?![a-zA-Z])|\\[!,;: ]|[$%\\]|\{(?=,)|(?<=,)\}", "", unmarked(text).replace("~", " ")
    )
    match = _NUMBER.search(text)
    if match is None or text[: match.start()].rstrip(" {(").endswith(("^", "_", "/")):
        return None
    whole = mixed(text[match.start() : match.start() + 100])
    if whole is not None:
        return whole
    spaced = GROUPED.match(text, match.start())
    if spaced is not None:
        match = spaced
    if _GOES_ON.match(text, match.end()):
        return None
    return re.sub(r"[,\s]", "", match.group()).removeprefix("+").rstrip(".")


def _first_value(line: str) -> str | None:
    """The answer in a line that announces it: the line itself if it is short, else its sentence's last formula or
    number."""
    short = unmarked(unstopped(line))
    if short and (len(short.split()) <= 3 or goes_on(short)):
        return short
    return _last_value(line.partition(". ")[0])


def _last_value(tail: str) -> str | None:
    """The last formula or number, whichever ends later; of a formula with "=", what stands behind the last one."""
    formula, value = _last_match(_MATH, tail), last_value(tail)
    if formula is not None and (value is None or value[0] <= formula.end()):
        content = next(group for group in formula.groups() if group is not None)
        return formula_unstopped(_behind_equals(content)) or None
    return None if value is None else value[1]


_FUNCTION = re.compile(r"\s*\\(?:arc)?(?:sin|cos|tan|cot|sec|csc|log|ln|lg|exp)(?![a-z])")


def _behind_equals(formula: str) -> str:
    """What stands behind the last "=" of a formula that is in no braces, brackets or environment. <=, >= and != are not
    "=", and neither is \\not=; an arrow (=>) separates too."""
    depth, start, side = 0, 0, 0
    for match in _NESTING.finditer(formula):
        token = match[0]
        if token in ("{", "(", "[", r"\{", r"\begin") or token.startswith(r"\left"):
            depth += 1
        elif token in ("}", ")", "]", r"\}", r"\end") or token.startswith(r"\right"):
            depth = max(0, depth - 1)
        elif token in ("=", "==", ":=", "=>", "<=>") and depth == 0:
            side, start = start, match.end()
    # What a sine is says nothing of a cosine: the name stays where it is that of a function.
    return formula[side if _FUNCTION.match(formula[side:start]) else start :]


def _last_match(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    return next(reversed(list(pattern.finditer(text))), None)


def _last_tags(text: str) -> tuple[int, str] | None:
    close = text.rfind("</answer>")
    start = text.rfind("<answer>", 0, close) if close >= 0 else -1
    if start < 0:
        return None
    content = text[start + len("<answer>") : close]
    return (start, content) if len(content.strip()) <= MAX_ANSWER else None
